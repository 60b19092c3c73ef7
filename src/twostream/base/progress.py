"""Messages and progress for the person who started the program, on standard error.

In a terminal, progress is one line that is overwritten; in a log file, a new line is written now and then.

Knows the clock and standard error; must not know what work is done.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LOG_EVERY_SECONDS = 15.0
"""Interval between progress lines in a log file: often enough to see that work goes on, without filling the log."""


def say(text: str) -> None:
    """Print one line to standard error. Standard output is kept for results that other programs parse."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def task(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show the progress of work that consists of ``total`` units.

    Args:
        description: what is done, for example "predict".
        total: number of units.

    Yields:
        A function to be called with the number of units completed since its last call.

    Example:
        with task("predict", total=len(blocks)) as advance:
            for block in blocks:
                ...
                advance(1)
    """
    start = last = time.monotonic()
    done = 0
    interactive = sys.stderr.isatty()

    def line() -> str:
        elapsed = time.monotonic() - start
        left = elapsed / done * (total - done) if done else float("nan")
        estimate = f", {left:.0f} s left" if done and done < total else ""
        return f"  {description}: {done}/{total} ({elapsed:.0f} s{estimate})"

    def advance(units: int) -> None:
        nonlocal done, last
        done += units
        now = time.monotonic()
        if interactive:
            print(f"\r\033[K{line()}", end="", file=sys.stderr, flush=True)
        elif now - last >= LOG_EVERY_SECONDS and done < total:
            last = now
            say(line())

    yield advance
    if interactive:
        print("\r\033[K", end="", file=sys.stderr)
    say(line())
