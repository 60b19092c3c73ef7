"""A stage: one function over all blocks of a volume. It can be killed, and a block that fails is tried again.

What is done is remembered in a folder, so that the same stage goes on where it was. It ends well only if every block is
done: else it says which failed, and why the first one did.

Knows executors, blocks and files; must not know what is computed.
"""

from __future__ import annotations

import json
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from twostream import __version__
from twostream.base import progress
from twostream.base.atomic import write_text
from twostream.base.errors import BlocksError, InputError, TwoStreamError
from twostream.base.geometry import Vector
from twostream.base.lock import try_lock
from twostream.base.memory import resident, size_text
from twostream.volume.execution import Executor, InProcess

Item = TypeVar("Item")
Result = TypeVar("Result")

NUM_TRIES = 3
"""Of a block: a server that does not answer may answer later; what fails three times is wrong."""
MAX_FAILED = 16
"""A stage stops when so many blocks have failed: then the cause is not one block."""
WORK_NAME, LOCK_NAME = "twostream-work.json", "lock"
NOT_YET = {LOCK_NAME, f"{WORK_NAME}.partial"}
"""What a folder may hold when a process is killed while it makes it."""
STAGE_ENDING, DONE_ENDING = ".stage", ".done"
WHOLE = "."
"""Ends each line of a list of blocks that are done."""
MAX_NAMED = 8
"""Failed blocks that an error names."""


class Codec(Protocol[Result]):
    """How the result of a block is kept in a file, for a stage whose results are needed after it."""

    def write(self, path: Path, result: Result) -> None:
        """Write a result, whole or not at all."""

    def read(self, path: Path) -> Result:
        """The result that ``write`` wrote."""


class Journal:
    """What is done of some work, in a folder that may also hold its unfinished output.

    A folder of other work, or of another version of this package, is emptied. What a block wrote must be on the disk
    before it is remembered; tensorstore sees to that for Zarr.

    A context manager: until it is closed, no other process may work in the folder.

    Args:
        folder: is made.
        work: all that the result depends on, as plain values.

    Raises:
        InputError: there is something else of that name, or another process is at work in it.
    """

    def __init__(self, folder: Path, work: Mapping[str, Any]) -> None:
        self.folder = folder
        stated, path = json.dumps(dict(work) | {"version": __version__}, sort_keys=True), folder / WORK_NAME
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder} is a file; unfinished work is kept under that name. Rename or remove it.")
        if not path.is_file() and folder.exists() and {one.name for one in folder.iterdir()} - NOT_YET:
            raise InputError(
                f"{folder} is there, and is no unfinished work of this program. Unfinished work is kept under that "
                f"name; rename or remove it."
            )
        folder.mkdir(parents=True, exist_ok=True)
        lock = try_lock(folder / LOCK_NAME)
        if lock is None:
            raise InputError(f"{folder} is the unfinished work of another process that is still running.")
        self._lock = lock
        if not path.is_file() or path.read_text(encoding="utf-8") != stated:
            self.restart()
            write_text(path, stated)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def restart(self) -> None:
        """Forget everything, and remove what the folder holds."""
        _empty(self.folder)

    def done(self, name: str) -> set[int]:
        """Positions of the blocks of a stage that are done."""
        path = self._done_path(name)
        return _positions(path) if path.exists() else set()

    def begin(self, name: str, description: str, num_blocks: int) -> None:
        """State what a stage is, for ``unfinished``."""
        stated = {"description": description, "num_blocks": num_blocks}
        write_text(self.folder / f"{name}{STAGE_ENDING}", json.dumps(stated))

    def add(self, name: str, position: int) -> None:
        """Remember that a block is done. Its output must have been written before."""
        with self._done_path(name).open("a", encoding="ascii") as file:
            file.write(f"\n{position}{WHOLE}\n")  # the line before may have been cut off

    def keep(self, name: str, position: int, codec: Codec[Result], result: Result) -> None:
        """Keep the result of a block."""
        path = self._result_path(name, position)
        path.parent.mkdir(exist_ok=True)
        codec.write(path, result)

    def result(self, name: str, position: int, codec: Codec[Result]) -> Result | None:
        """The result of a block, as it was kept; None if its file is damaged or gone."""
        try:
            return codec.read(self._result_path(name, position))
        except (OSError, ValueError, KeyError):  # among them InputError
            return None

    def _result_path(self, name: str, position: int) -> Path:
        return self.folder / name / f"{position:09d}"

    def note(self, name: str, value: Any) -> None:
        """Keep a plain value, for ``noted``."""
        write_text(self.folder / f"{name}.json", json.dumps(value))

    def noted(self, name: str) -> Any:
        """The value that ``note`` kept; None if there is none."""
        path = self.folder / f"{name}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def _done_path(self, name: str) -> Path:
        return self.folder / f"{name}{DONE_ENDING}"

    def discard(self) -> None:
        """Remove the folder, when the work is whole."""
        remove_work(self.folder)


def remove_work(folder: Path) -> None:
    """Remove the folder of a ``Journal``, if it is there. Where that is interrupted, no block in it counts as done."""
    if (folder / WORK_NAME).exists():
        _empty(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _empty(folder: Path) -> None:
    # Those lists first: a removal that is interrupted must not leave blocks that count as done.
    for one in sorted(folder.iterdir(), key=lambda one: one.suffix != DONE_ENDING):
        if one.name in (WORK_NAME, LOCK_NAME):
            continue
        if one.is_dir() and not one.is_symlink():
            shutil.rmtree(one)
        else:
            one.unlink()


@dataclass(frozen=True)
class Unfinished:
    """A stage that is running, or was interrupted.

    Attributes:
        description: as in the progress bar.
        num_done, num_blocks: its blocks.
        seconds: since the last one was done.
    """

    description: str
    num_done: int
    num_blocks: int
    seconds: float


def unfinished(folder: Path) -> Unfinished | None:
    """The stage of a journal that was worked on last; None if none has begun."""
    stages = [path for path in folder.glob(f"*{STAGE_ENDING}") if path.with_suffix(DONE_ENDING).exists()]
    if not stages:
        return None
    last = max(stages, key=lambda path: path.with_suffix(DONE_ENDING).stat().st_mtime)
    done = last.with_suffix(DONE_ENDING)
    stated = json.loads(last.read_text(encoding="utf-8"))
    return Unfinished(
        stated["description"], len(_positions(done)), stated["num_blocks"], time.time() - done.stat().st_mtime
    )


def _positions(path: Path) -> set[int]:
    # A line that was cut off lacks its end: that block is done again.
    lines = path.read_text(encoding="ascii", errors="replace").split("\n")
    return {int(line[:-1]) for line in lines if line.endswith(WHOLE) and line[:-1].isdecimal()}


@dataclass(frozen=True)
class Failure:
    """What a block raised.

    Attributes:
        name: of the type of the exception.
        text: its message.
        traceback: where it was raised.
        is_ours: whether the message is written for the user.
    """

    name: str
    text: str
    traceback: str
    is_ours: bool

    def __str__(self) -> str:
        text = self.text if self.is_ours else f"{self.name}: {' '.join(self.text.split())}"
        return text if text.endswith(".") else f"{text}."


@dataclass(frozen=True)
class Numbered(Generic[Item]):
    """A block and its position among all."""

    position: int
    block: Item

    def __str__(self) -> str:
        return str(self.block)


@dataclass(frozen=True)
class Attempt(Generic[Item, Result]):
    """A function of a numbered block that gives what the block raised instead of raising it. It can be pickled."""

    function: Callable[[Item], Result]

    def __call__(self, numbered: Numbered[Item]) -> Result | Failure:
        try:
            return self.function(numbered.block)
        except Exception as error:
            ours = isinstance(error, TwoStreamError)
            return Failure(type(error).__name__, str(error), traceback.format_exc(), ours)


@dataclass(frozen=True)
class Stage:
    """How the blocks of some work are run.

    Attributes:
        executor: runs them.
        journal: remembers those that are done; None: nothing is remembered.
        memory_limit: bytes that each process may hold; None: as many as a block needs.
    """

    executor: Executor = field(default_factory=InProcess)
    journal: Journal | None = None
    memory_limit: int | None = None

    def block_shape(
        self,
        description: str,
        wanted: Sequence[int],
        least: Sequence[int],
        num_bytes: Callable[[Sequence[int]], int],
    ) -> Vector:
        """The shape of a block that this process has room for; what it needs is told.

        Args:
            description: of the stage.
            wanted: (z, y, x), taken if it fits.
            least: (z, y, x); axes are halved as long as they stay above this.
            num_bytes: what a block of some shape needs beside what the process holds now.

        Raises:
            InputError: the smallest block needs more than ``memory_limit``.
        """
        kept = self.journal.noted(f"{description} {self.memory_limit}") if self.journal else None
        shape = [int(n) for n in kept or wanted]
        while (excess := self.excess(num_bytes(shape))) is not None:
            axis = max(range(3), key=lambda axis: shape[axis] / least[axis])
            if shape[axis] < 2 * least[axis]:
                named = " x ".join(map(str, shape))
                raise InputError(f"{description}: a block of {named} voxels {excess}. Allow more.")
            shape[axis] = -(-shape[axis] // 2)
        each = " x ".join(map(str, shape))
        progress.say(f"  {description}: blocks of {each} voxels, each needs {size_text(num_bytes(shape))}")
        if self.journal:
            self.journal.note(f"{description} {self.memory_limit}", shape)
        return shape[0], shape[1], shape[2]

    def excess(self, num_bytes: int) -> str | None:
        """That so many bytes more than the process holds now are not allowed, for an error; None if they are."""
        held = resident()
        if self.memory_limit is None or held + num_bytes <= self.memory_limit:
            return None
        return (
            f"needs {size_text(num_bytes)}, and this process holds {size_text(held)} already: more than "
            f"--memory {size_text(self.memory_limit)}"
        )

    def run(
        self,
        name: str,
        function: Callable[[Item], Result],
        blocks: Sequence[Item],
        *,
        codec: Codec[Result] | None = None,
        is_there: Callable[[Item], bool] | None = None,
        description: str | None = None,
    ) -> Iterator[tuple[Item, Result]]:
        """Run ``function`` on every block that is not done.

        A block counts as done when the caller comes back for the next one, so what the caller does with a result is
        done before it is remembered.

        Args:
            name: of the stage in the journal; letters, digits, dots and hyphens.
            function: of one block; can be pickled.
            blocks: the same, in the same order, each time the stage is run.
            codec: keeps the results, and blocks that were done before are yielded too, first.
            is_there: whether what a block wrote is still there and can be read; asked of blocks that were done before.
            description: of the progress bar; None takes ``name``.

        Yields:
            (block, result), in the order in which they are completed.

        Raises:
            BlocksError: blocks failed ``NUM_TRIES`` times, or ``MAX_FAILED`` of them once. The others are remembered.
        """
        journal, description = self.journal, description or name
        done: set[int] = set()
        if journal:
            for position, result in self._done_before(name, blocks, codec, is_there, description):
                done.add(position)
                if codec:
                    yield blocks[position], result
            journal.begin(name, description, len(blocks))
        left = [position for position in range(len(blocks)) if position not in done]
        with progress.task(description, total=len(left)) as advance:
            for number in range(1, NUM_TRIES + 1):
                failed: dict[int, Failure] = {}
                for position, result in self._attempts(function, blocks, left):
                    if isinstance(result, Failure):
                        failed[position] = result
                        if len(failed) == MAX_FAILED:
                            break
                        continue
                    if journal and codec:
                        journal.keep(name, position, codec, result)
                    yield blocks[position], result
                    done.add(position)
                    if journal:
                        journal.add(name, position)
                    advance(1)
                if len(failed) == MAX_FAILED or (failed and number == NUM_TRIES):
                    raise _error(description, blocks, failed, len(done), number, journal is not None)
                self._check_all_came_back(description, blocks, [p for p in left if p not in done and p not in failed])
                if not failed:
                    return
                first = failed[min(failed)]
                progress.say(
                    f"  {description}: {len(failed)} blocks failed and are tried again. The first one: {first}"
                )
                left = sorted(failed)

    def _done_before(
        self,
        name: str,
        blocks: Sequence[Item],
        codec: Codec[Result] | None,
        is_there: Callable[[Item], bool] | None,
        description: str,
    ) -> Iterator[tuple[int, Any]]:
        """(position, result) of the blocks that were done before and are still whole."""
        assert self.journal is not None
        stated, number = sorted(p for p in self.journal.done(name) if p < len(blocks)), 0
        for position in stated:
            result = self.journal.result(name, position, codec) if codec else None
            is_whole = result is not None if codec else (is_there is None or is_there(blocks[position]))
            if is_whole:
                number += 1
                yield position, result
        if stated:
            damaged = f"; {len(stated) - number} more are damaged" if number < len(stated) else ""
            progress.say(f"  {description}: {number} of {len(blocks)} blocks were done before{damaged}")

    def _check_all_came_back(self, description: str, blocks: Sequence[Any], lost: Sequence[int]) -> None:
        if lost:
            raise BlocksError(
                f"{description}: {len(lost)} of {len(blocks)} blocks never came back from "
                f"{type(self.executor).__name__}, the first of them {blocks[lost[0]]}.",
                traceback="",
                is_ours=True,
            )

    def _attempts(
        self, function: Callable[[Item], Result], blocks: Sequence[Item], positions: Sequence[int]
    ) -> Iterator[tuple[int, Result | Failure]]:
        numbered = (Numbered(position, blocks[position]) for position in positions)
        for one, result in self.executor.map(Attempt(function), numbered):
            yield one.position, result


def _error(
    description: str, blocks: Sequence[Any], failed: Mapping[int, Failure], num_done: int, tries: int, is_kept: bool
) -> BlocksError:
    first = failed[min(failed)]
    names = "; ".join(str(blocks[position]) for position in sorted(failed)[:MAX_NAMED])
    names += f"; and {len(failed) - MAX_NAMED} more" if len(failed) > MAX_NAMED else ""
    kept = f" The {num_done} that are done are kept: the same command goes on with the others." if is_kept else ""
    times = "once, and no more were tried" if tries == 1 else f"{tries} times each"
    return BlocksError(
        f"{description}: {len(failed)} of {len(blocks)} blocks failed {times}: {names}. The first one: {first}{kept}",
        traceback=first.traceback,
        is_ours=first.is_ours,
    )
