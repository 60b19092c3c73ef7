"""Candidates of a volume in blocks are those of the whole volume."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from twostream.base.geometry import Box
from twostream.candidates.candidate import clean, extract, write_segmentation
from twostream.candidates.proposing import Island, grouped, propose
from twostream.task import DecodingConfig, Mitochondria, SynapsePolarity
from twostream.volume import MemoryVolume
from twostream.volume.execution import PickledInProcess
from twostream.volume.stage import Stage

SIZE = (30.0, 10.0, 10.0)
SHAPE = (10, 40, 48)


def tasks():
    small = {"min_seed_nm3": 2e4}
    return {
        "watershed": Mitochondria(SIZE, DecodingConfig(**small)),
        "components": Mitochondria(SIZE, DecodingConfig(method="components")),
        "contour": Mitochondria(SIZE, DecodingConfig(channels=("foreground", "contour", "distance"), **small)),
        "polarity": SynapsePolarity(SIZE, DecodingConfig(join_nm=45, **small)),
    }


def probability(task, seed):
    """Smooth blobs, saturated in the middle as those of S, some of which touch."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=(len(task.channels), *SHAPE)), (0, 1.0, 2.5, 2.5))
    level = (noise / noise.std() - rng.uniform(0.6, 1.4)) * 200 + 128
    if task.num_sides == 2:
        level[2] = level[:2].max(0)
    return MemoryVolume(np.clip(level, 0, 255).astype(np.uint8), SIZE)


def of_the_whole(volume, task, threshold, min_voxels):
    level = volume.read(volume.box)
    segmentation = clean(task.decode(level, threshold), task, min_voxels)
    return segmentation, extract(segmentation, level[task.foreground], task, (0, 0, 0))


def same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert replace(one, mask=other.mask) == other
        np.testing.assert_array_equal(one.mask, other.mask)


@pytest.mark.parametrize("name", tasks())
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    block=st.tuples(st.integers(2, 10), st.integers(6, 40), st.integers(6, 48)),
    threshold=st.sampled_from([0.2, 0.5, 0.85]),
    min_voxels=st.sampled_from([1, 40]),
)
def test_candidates_in_blocks_are_those_of_the_whole(name, seed, block, threshold, min_voxels):
    task = tasks()[name]
    volume = probability(task, seed)
    segmentation, expected = of_the_whole(volume, task, threshold, min_voxels)
    found = propose(volume, task, threshold, min_voxels, block_shape_zyx=block)
    same(found, expected)
    painted = MemoryVolume(np.zeros(SHAPE, np.uint32), SIZE)
    write_segmentation(found, painted, task)
    np.testing.assert_array_equal(painted.read(painted.box), segmentation)


def test_the_default_block_and_pickling_change_nothing():
    task = tasks()["polarity"]
    volume = probability(task, 3)
    _, expected = of_the_whole(volume, task, 0.5, 5)
    assert len(expected) > 10 and any(set(np.unique(c.mask)) >= {1, 2} for c in expected)
    same(propose(volume, task, 0.5, 5), expected)
    same(propose(volume, task, 0.5, 5, block_shape_zyx=(4, 16, 16), stage=Stage(PickledInProcess())), expected)


def test_sides_of_a_synapse_are_joined_across_a_face_of_blocks():
    """Each side is an island; decoding joins them only where it sees both."""
    level = np.zeros((3, 6, 20, 40), np.uint8)
    level[0, 1:5, 5:15, 8:16] = level[2, 1:5, 5:15, 8:16] = 250
    level[1, 1:5, 5:15, 18:26] = level[2, 1:5, 5:15, 18:26] = 250
    volume, task = MemoryVolume(level, SIZE), tasks()["polarity"]
    for width in (17, 18, 19, 40):
        (synapse,) = propose(volume, task, 0.5, 1, block_shape_zyx=(6, 20, width))
        assert set(np.unique(synapse.mask)) == {0, 1, 2} and synapse.num_voxels == 2 * 4 * 10 * 8


def test_an_object_is_measured_whole_and_not_by_its_pieces():
    level = np.zeros((1, 4, 8, 60), np.uint8)
    level[0, 1:3, 2:6, 3:57] = 240
    volume, task = MemoryVolume(level, SIZE), tasks()["watershed"]
    for min_voxels, number in ((2 * 4 * 54, 1), (2 * 4 * 54 + 1, 0)):
        assert len(propose(volume, task, 0.5, min_voxels, block_shape_zyx=(4, 8, 10))) == number


def test_an_empty_volume_has_no_candidates():
    volume = MemoryVolume(np.zeros((1, 4, 8, 60), np.uint8), SIZE)
    assert len(propose(volume, tasks()["watershed"], 0.5, 1, block_shape_zyx=(4, 8, 10))) == 0


def test_islands_are_read_together_while_their_hull_is_small():
    near = [Island(Box((0, 0, 10 * i), (2, 4, 4)), (0, 0, 10 * i)) for i in range(3)]
    long = Island(Box((0, 0, 0), (2, 4, 40)), (0, 0, 0))
    groups = list(grouped([*near, long], (2, 4, 10)))
    assert {island for group in groups for island in group} == {*near, long} and sum(map(len, groups)) == 4
    assert (long,) in groups
    together = list(grouped([near[0], Island(Box((0, 0, 6), (2, 4, 4)), (0, 0, 6))], (2, 4, 20)))
    assert [len(group) for group in together] == [2]
