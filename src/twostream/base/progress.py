"""One way to show long work: a bar in a terminal, a line now and then in a log.

Knows the clock and stderr; must not know what the work is.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LOG_EVERY_SECONDS = 15.0
"""In a log file, a line this often is enough to see that work goes on and not enough to drown the rest."""


def say(text: str) -> None:
    """One line to the person watching (stderr, so that stdout stays parseable)."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def task(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show work of ``total`` units; the yielded function is told how many were done since the last call.

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
