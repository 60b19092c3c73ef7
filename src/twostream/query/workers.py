"""Threads for work that numpy and scikit-learn do outside Python's lock.

Every thread computes with one BLAS and one OpenMP thread: many small problems side by side are several times faster
than each small problem on all cores, and sums are added in the same order however many cores there are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

Item = TypeVar("Item")
Result = TypeVar("Result")


def num_threads() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers:
    """As many threads as cores; a context manager."""

    def __enter__(self) -> Workers:
        self._limits = threadpool_limits(limits=1)
        # OpenMP counts per thread that calls it, so every worker sets the limit for itself.
        self._executor = ThreadPoolExecutor(num_threads(), initializer=threadpool_limits, initargs=(1,))
        return self

    def __exit__(self, *_: Any) -> None:
        self._executor.shutdown()
        self._limits.restore_original_limits()

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """``function`` of every item, in their order; an exception in one of them is raised here."""
        return list(self._executor.map(function, items))
