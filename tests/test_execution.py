"""What every engine must do."""

import pickle

import numpy as np
import pytest

from twostream.base.geometry import Box, grid
from twostream.volume import create_volume, open_volume
from twostream.volume.execution import InProcess, PickledInProcess

SIZE = (30.0, 8.0, 8.0)


class Fill:
    """Fills a block of the volume with a number that is computed from its first voxel."""

    def __init__(self, volume):
        self.volume = volume

    def __call__(self, block):
        value = sum(block.write_box.offset_zyx) % 200 + 1
        self.volume.write(block.write_box, np.full(block.write_box.shape_zyx, value, np.uint8))
        return value


def broken(block):
    raise ValueError(f"cannot do {block.write_box}")


class ExecutorExam:
    executor: object

    def test_every_block_is_done_and_named(self, tmp_path):
        volume = create_volume(str(tmp_path / "v.zarr"), shape_zyx=(4, 20, 30), dtype=np.uint8, voxel_size_nm=SIZE)
        blocks = list(grid(volume.box, (4, 8, 16)))
        done = dict(self.executor.map(Fill(volume), blocks))
        assert set(done) == set(blocks)
        array = open_volume(str(tmp_path / "v.zarr")).read(volume.box)
        for block, value in done.items():
            assert (array[block.write_box.slices] == value).all()

    def test_a_block_that_fails_fails_the_run(self):
        with pytest.raises(ValueError, match="cannot do 0:1,0:2,0:2"):
            list(self.executor.map(broken, grid(Box.whole((1, 2, 2)), (1, 2, 2))))


class TestInProcess(ExecutorExam):
    executor = InProcess()


class TestPickledInProcess(ExecutorExam):
    executor = PickledInProcess()

    def test_function_that_cannot_be_pickled_is_an_error(self):
        with pytest.raises((AttributeError, TypeError, pickle.PicklingError), match=r"(?i)pickle|local"):
            list(self.executor.map(lambda block: None, [1]))
