"""Where a function over blocks runs. Knows functions and blocks; must not know what they compute.

``fn`` and every block must pickle, whatever the engine, so that code that runs here runs on a cluster as well.
"""

from __future__ import annotations

import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Executor(ABC):
    """An engine: one method."""

    @abstractmethod
    def map(self, fn: Callable[[Item], Result], blocks: Iterable[Item]) -> Iterator[tuple[Item, Result]]:
        """Run ``fn`` on every block; yield (block, result) as they finish, in any order.

        An exception in ``fn`` comes out of the iteration: a block that failed is never passed over.
        """


class InProcess(Executor):
    """One block after the other, here."""

    def map(self, fn: Callable[[Item], Result], blocks: Iterable[Item]) -> Iterator[tuple[Item, Result]]:
        for block in blocks:
            yield block, fn(block)


class PickledInProcess(Executor):
    """As ``InProcess``, but all that would travel to a worker is pickled, so tests see what would break there."""

    def map(self, fn: Callable[[Item], Result], blocks: Iterable[Item]) -> Iterator[tuple[Item, Result]]:
        packed = pickle.dumps(fn)
        for block in blocks:
            travelled: Any = pickle.loads(pickle.dumps(block))
            yield block, pickle.loads(pickle.dumps(pickle.loads(packed)(travelled)))
