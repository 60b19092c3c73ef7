"""The exam of an engine that runs a function over blocks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from twostream.base.errors import VolumeError
from twostream.base.geometry import Block, Box, grid
from twostream.volume import Volume, create_volume, open_volume
from twostream.volume.execution import Executor

BOX = Box((-2, 3, 5), (4, 20, 30))
BLOCK_ZYX = (2, 8, 16)


class Fill:
    """Writes a number into a block, a different one into each."""

    def __init__(self, volume: Volume) -> None:
        self.volume = volume

    def __call__(self, block: Block) -> int:
        value = number(block)
        self.volume.write(block.write_box, np.full(block.write_box.shape_zyx, value, np.uint16))
        return value


class Once:
    """Leaves a file for each block, and fails where one is there already."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, block: Block) -> None:
        (self.folder / str(block.write_box)).touch(exist_ok=False)


class Fails:
    """Raises ``error`` for the block ``box`` alone."""

    def __init__(self, box: Box, error: Exception) -> None:
        self.box, self.error = box, error

    def __call__(self, block: Block) -> str:
        if block.write_box == self.box:
            raise self.error
        return "done"


def number(block: Block) -> int:
    z, y, x = block.write_box.offset_zyx
    return 10_000 + 1_000 * z + 50 * y + x


def largest(block: Block) -> np.ndarray:
    """Half a megabyte that tells which block it is of."""
    return np.full((4, 128, 128), number(block), np.int64)


def nothing(block: Block) -> None:
    return None


def double(value: float) -> float:
    return 2 * value


class ExecutorExam:
    """What every engine must do.

    Supply ``make``, which gives an engine that is ready. One that must be started and stopped overrides the fixture
    ``executor`` instead, with the engine behind ``yield``. Functions and blocks of the exam pickle, as ``Executor``
    demands of all.

    Examined: that every block is yielded once, with its own result, and is run once, also where blocks are equal; any
    iterable of blocks, an empty one too; results of any size, None too; that an exception in one block comes out as it
    was raised, and never leaves a block out silently; that the engine is of use again after an error and after a
    consumer that stopped early; blocks that write side by side into one volume.
    """

    def make(self) -> Executor:
        """An engine that is ready."""
        raise NotImplementedError

    @pytest.fixture
    def executor(self) -> Iterator[Executor]:
        yield self.make()

    def test_every_block_comes_once_with_its_own_result(self, executor: Executor) -> None:
        blocks = list(grid(BOX, BLOCK_ZYX, (1, 2, 3)))
        done = list(executor.map(number, blocks))
        assert Counter(block for block, _ in done) == Counter(blocks)
        assert all(value == number(block) for block, value in done)

    def test_many_blocks_come_as_well(self, executor: Executor) -> None:
        assert sorted(executor.map(double, range(1000))) == [(value, 2 * value) for value in range(1000)]

    def test_every_block_runs_once(self, executor: Executor, tmp_path: Path) -> None:
        blocks = list(grid(BOX, BLOCK_ZYX))
        done = list(executor.map(Once(tmp_path), blocks))
        assert len(done) == len(blocks) == len(list(tmp_path.iterdir()))

    def test_equal_blocks_are_all_run(self, executor: Executor) -> None:
        assert sorted(executor.map(double, [1.0, 1.0, 2.0, 1.0])) == [(1.0, 2.0)] * 3 + [(2.0, 4.0)]

    def test_any_iterable_will_do(self, executor: Executor) -> None:
        assert list(executor.map(number, [])) == []
        assert list(executor.map(number, iter(()))) == []
        assert len(list(executor.map(number, grid(BOX, BLOCK_ZYX)))) == math.prod((2, 3, 2))
        assert sorted(executor.map(double, range(3))) == [(0, 0), (1, 2), (2, 4)]

    def test_results_may_be_large_or_none(self, executor: Executor) -> None:
        blocks = list(grid(BOX, BLOCK_ZYX))
        for block, array in executor.map(largest, blocks):
            np.testing.assert_array_equal(array, largest(block), strict=True)
        assert [value for _, value in executor.map(nothing, blocks)] == [None] * len(blocks)

    def test_blocks_write_side_by_side(self, executor: Executor, tmp_path: Path) -> None:
        path = str(tmp_path / "v.zarr")
        volume = create_volume(path, shape_zyx=(4, 300, 300), dtype=np.uint16, voxel_size_nm=(30.0, 8.0, 8.0))
        blocks = list(grid(volume.box, (4, 128, 128)))  # whole chunks: no two blocks share one
        assert dict(executor.map(Fill(volume), blocks)) == {block: number(block) for block in blocks}
        found = open_volume(path)
        for block in blocks:
            assert (found.read(block.write_box) == number(block)).all()

    @pytest.mark.parametrize("which", [0, 5, -1])
    @pytest.mark.parametrize(
        "error",
        [
            ValueError("no such plane"),
            VolumeError("cannot be read"),
            KeyError("k"),
            OSError(5, "disk"),
            MemoryError("full"),
        ],
    )
    def test_an_exception_comes_out_as_it_was_raised(self, executor: Executor, which: int, error: Exception) -> None:
        blocks = list(grid(BOX, BLOCK_ZYX))
        with pytest.raises(type(error)) as caught:
            list(executor.map(Fails(blocks[which].write_box, error), blocks))
        assert type(caught.value) is type(error) and caught.value.args == error.args

    def test_a_stop_iteration_in_a_block_is_an_error(self, executor: Executor) -> None:
        """Where an engine hands on StopIteration as it came, the run looks finished with blocks left out."""
        blocks = list(grid(BOX, BLOCK_ZYX))
        with pytest.raises(RuntimeError):
            list(executor.map(Fails(blocks[3].write_box, StopIteration()), blocks))

    def test_it_works_after_an_error_and_after_an_early_stop(self, executor: Executor) -> None:
        blocks = list(grid(BOX, BLOCK_ZYX))
        with pytest.raises(ValueError, match="broken"):
            list(executor.map(Fails(blocks[0].write_box, ValueError("broken")), blocks))
        running: Any = executor.map(number, blocks)
        block, value = next(running)
        assert value == number(block)
        del running
        assert len(list(executor.map(number, blocks))) == len(blocks)
