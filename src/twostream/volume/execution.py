"""Executors: they run a function on every block of a volume, in this process or elsewhere.

The function and the blocks must be picklable for every executor, so that code that runs in this process also runs on a
cluster.

Knows functions and blocks; must not know what is computed.
"""

from __future__ import annotations

import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Executor(ABC):
    """Runs a function on many blocks. Subclasses decide where."""

    @abstractmethod
    def map(self, fn: Callable[[Item], Result], blocks: Iterable[Item]) -> Iterator[tuple[Item, Result]]:
        """Run ``fn`` on every block.

        Args:
            fn: picklable function of one block.
            blocks: picklable; usually ``base.geometry.Block``.

        Yields:
            (block, result), in the order in which the blocks are completed.

        Raises:
            Exception: whatever ``fn`` raises, so that a failed block is never skipped.
        """


class InProcess(Executor):
    """Runs one block after the other in this process."""

    def map(self, fn: Callable[[Item], Result], blocks: Iterable[Item]) -> Iterator[tuple[Item, Result]]:
        for block in blocks:
            yield block, fn(block)


class PickledInProcess(Executor):
    """Like ``InProcess``, but pickles the function, every block and every result, as sending them to a worker would.

    Tests use it to find out what would fail on a cluster.
    """

    def map(self, fn: Callable[[Item], Result], blocks: Iterable[Item]) -> Iterator[tuple[Item, Result]]:
        packed = pickle.dumps(fn)
        for block in blocks:
            copy: Any = pickle.loads(pickle.dumps(block))
            yield block, pickle.loads(pickle.dumps(pickle.loads(packed)(copy)))
