"""Seconds and memory."""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Seconds:
    """Seconds that a block of code took.

    Attributes:
        wall: by the clock.
        processor: of all threads of this process together.
    """

    wall: float = 0.0
    processor: float = 0.0


@contextmanager
def timed() -> Iterator[Seconds]:
    """Times a block of code; the result is filled in when the block ends."""
    found = Seconds()
    wall, processor = time.perf_counter(), time.process_time()
    yield found
    found.wall, found.processor = time.perf_counter() - wall, time.process_time() - processor


def peak_mb() -> float:
    """Largest resident memory of this process so far, in MB. A child process starts at the peak of its parent."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@dataclass
class Peaks:
    """Largest memory while a block of code ran, in GB.

    Attributes:
        resident: with the pages of mapped files.
        private: without them.
    """

    resident: float = 0.0
    private: float = 0.0


@contextmanager
def watched_memory(every_seconds: float = 0.05) -> Iterator[Peaks]:
    """Looks at this process's memory while a block of code runs (Linux)."""
    found, done = Peaks(), threading.Event()

    def look() -> None:
        fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
        total, mapped = (int(fields[name].split()[0]) / 2**20 for name in ("VmRSS", "RssFile"))
        found.resident, found.private = max(found.resident, total), max(found.private, total - mapped)

    def watch() -> None:
        while not done.wait(every_seconds):
            look()

    look()
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        done.set()
        watcher.join()
        look()
