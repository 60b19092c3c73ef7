"""Components of volumes in blocks are those of the whole volume."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twostream.base.geometry import Box, grid
from twostream.volume.components import closed, components, join, label_block, margin_for, seen_by

VOLUMES = st.tuples(
    st.tuples(*[st.integers(1, 12)] * 3),  # shape
    st.tuples(*[st.integers(1, 7)] * 3),  # blocks
    st.tuples(*[st.integers(-5, 5)] * 3),  # place of the volume
    st.floats(0.05, 0.8),  # share of foreground
    st.integers(0, 2**32 - 1),
)


def random_mask(shape, share, seed):
    return np.random.default_rng(seed).random(shape) < share


def labelled(mask, whole, block_shape, connectivity):
    """The joined labels of a mask, (Z, Y, X) int64, and what was joined."""
    boxes = [block.write_box for block in grid(whole, block_shape)]
    labels, parts = [], []
    for box in boxes:
        found, components = label_block(mask[seen_by(box, whole).relative_to(whole).slices], box, whole, connectivity)
        labels.append(found)
        parts.append(components)
    joined = join(parts, whole)
    result, next_label = np.zeros(mask.shape, np.int64), len(joined.boxes) + 1
    for box, found, number in zip(boxes, labels, joined.number_of, strict=True):
        ended = number < 0
        ended[0] = False
        name = number + 1
        name[ended] = np.arange(next_label, next_label + ended.sum())
        next_label += ended.sum()
        name[0] = 0
        own = found[tuple(slice(n) for n in box.shape_zyx)]
        result[box.relative_to(whole).slices] = name[own]
    return result, joined


@pytest.mark.parametrize("connectivity", [6, 18, 26])
@settings(max_examples=150, deadline=None)
@given(volume=VOLUMES)
def test_components_in_blocks_are_those_of_the_whole_up_to_their_names(connectivity, volume):
    shape, block_shape, place, share, seed = volume
    mask, whole = random_mask(shape, share, seed), Box(place, shape)
    found, joined = labelled(mask, whole, block_shape, connectivity)
    expected = components(mask, connectivity)
    np.testing.assert_array_equal(found > 0, mask)
    pairs = set(zip(found.flat, expected.flat, strict=True))
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    for row in range(len(joined.boxes)):
        where = np.argwhere(found == row + 1) + np.array(place)
        np.testing.assert_array_equal(joined.boxes[row], [*where.min(0), *(where.max(0) + 1)])
        assert (where == joined.voxel[row]).all(1).any()


@pytest.mark.parametrize("connectivity", [6, 18, 26])
@pytest.mark.parametrize("shape", [*itertools.product([1, 2, 3, 4, 5], repeat=3), (1, 101, 101), (1, 1, 1001)])
def test_a_mask_may_hold_as_many_components_as_fit(shape, connectivity):
    mask = np.zeros(shape, bool)
    mask[::2, ::2, ::2] = True
    found = components(mask, connectivity)
    np.testing.assert_array_equal(found[mask], np.arange(1, mask.sum() + 1))  # raster order
    assert not found[~mask].any() and found.dtype == np.uint32


def test_components_that_meet_at_a_corner_of_eight_blocks_are_one():
    mask = np.zeros((4, 4, 4), bool)
    mask[1, 1, 1] = mask[2, 2, 2] = True
    whole = Box.whole(mask.shape)
    for connectivity, number in ((26, 1), (18, 2), (6, 2)):
        assert labelled(mask, whole, (2, 2, 2), connectivity)[0].max() == number


@settings(max_examples=60, deadline=None)
@given(
    gap=st.tuples(*[st.integers(1, 5)] * 3),
    step=st.tuples(*[st.integers(0, 6)] * 3),
)
def test_parts_within_the_gap_touch_after_closing(gap, step):
    mask = np.zeros((15, 15, 15), bool)
    mask[4, 4, 4] = mask[tuple(4 + s for s in step)] = True
    num = components(closed(mask, gap)).max()
    if all(s <= g for s, g in zip(step, gap, strict=True)):
        assert num == 1
    elif any(s > g + 1 for s, g in zip(step, gap, strict=True)):  # an odd distance may be closed by one voxel more
        assert num == 2


def test_a_gap_of_one_leaves_a_mask_as_it_is():
    mask = random_mask((5, 6, 7), 0.3, 0)
    assert closed(mask, (1, 1, 1)) is mask and margin_for((1, 1, 1)) == (0, 0, 0)


def test_without_blocks_nothing_is_joined():
    joined = join([], Box.whole((0, 4, 4)))
    assert joined.boxes.shape == (0, 6) and joined.voxel.shape == (0, 3) and joined.number_of == []
