"""Boxes, grids of blocks, and distances in voxels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twostream.base.errors import InputError
from twostream.base.geometry import Box, grid, to_voxels

vectors = st.tuples(*[st.integers(-20, 20)] * 3)
extents = st.tuples(*[st.integers(0, 20)] * 3)


@given(vectors, extents, vectors, extents)
def test_intersection_contains_only_voxels_of_both_boxes(offset_a, shape_a, offset_b, shape_b):
    a, b = Box(offset_a, shape_a), Box(offset_b, shape_b)

    def voxels(box):
        return {
            (z, y, x)
            for z in range(box.offset_zyx[0], box.stop_zyx[0])
            for y in (box.offset_zyx[1], box.stop_zyx[1] - 1)
            if box.shape_zyx[1]
            for x in (box.offset_zyx[2], box.stop_zyx[2] - 1)
            if box.shape_zyx[2]
        }

    common = a.intersection(b)
    assert common.num_voxels <= min(a.num_voxels, b.num_voxels)
    for corner in voxels(common) if common.num_voxels else ():
        for box in (a, b):
            assert all(o <= c < s for o, c, s in zip(box.offset_zyx, corner, box.stop_zyx, strict=True))
    assert a.intersects(b) == b.intersects(a) == (common.num_voxels > 0)


@given(st.tuples(*[st.integers(1, 9)] * 3), st.tuples(*[st.integers(1, 5)] * 3))
def test_grid_writes_every_voxel_once_and_reads_its_context(shape, block_shape):
    counts = np.zeros(shape, int)
    for block in grid(Box.whole(shape), block_shape, (1, 2, 3)):
        counts[block.write_box.slices] += 1
        assert block.read_box == block.write_box.grown((1, 2, 3))
    assert (counts == 1).all()


def test_parse_reads_what_str_writes():
    box = Box((1, 2, 3), (4, 5, 6))
    assert Box.parse(str(box)) == box


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("0:8,1:2", "expected Z0:Z1,Y0:Y1,X0:X1"),
        ("a:b,0:1,0:1", "expected Z0:Z1,Y0:Y1,X0:X1"),
        ("0:8,5:5,0:1", "holds no voxel"),
    ],
)
def test_invalid_box_is_explained(text, sentence):
    with pytest.raises(InputError, match=sentence):
        Box.parse(text)


def test_distances_are_rounded_up_to_whole_voxels():
    assert to_voxels(50, (30, 8, 8)) == (2, 7, 7)
    assert to_voxels(0, (30, 8, 8)) == (0, 0, 0)
