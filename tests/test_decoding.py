"""Targets and decoding: contours, signed distances, watersheds, and the pairing of synapse sides."""

import numpy as np
import pytest
from pydantic import ValidationError

from twostream.task import CERTAIN, IGNORE, DecodingConfig, Mitochondria, SynapsePolarity
from twostream.task.targets import contour, signed_distance

SIZE = (30.0, 8.0, 8.0)


def two_discs(gap=0):
    """Two discs of radius 6 side by side: (3, 20, 40) labels 1 and 2."""
    y, x = np.mgrid[:20, :40]
    labels = np.zeros((3, 20, 40), np.uint64)
    labels[:, (y - 10) ** 2 + (x - 12) ** 2 <= 36] = 10**15  # ids of large volumes do not fit into 32 bits
    labels[:, (y - 10) ** 2 + (x - 25 - gap) ** 2 <= 36] = 7
    return labels


@pytest.mark.parametrize(("depth", "width"), [(0, 1), (0, 2), (1, 2)])
def test_contour_equals_a_loop_over_voxels(depth, width):
    labels = two_discs()
    labels[2] = 0
    band = contour(labels, (depth, width, width))
    for z, y, x in np.ndindex(labels.shape):
        window = labels[
            max(z - depth, 0) : z + depth + 1, max(y - width, 0) : y + width + 1, max(x - width, 0) : x + width + 1
        ]
        assert band[z, y, x] == (len(np.unique(window)) > 1)


def test_signed_distance_is_the_distance_to_the_nearest_voxel_across_the_border():
    labels = two_discs(gap=4)
    level = signed_distance(labels, SIZE, 50.0).astype(float)
    voxels = np.argwhere(np.ones(labels.shape)) * SIZE
    inside = (labels > 0).ravel()
    edge = np.isin(np.arange(labels.size), np.flatnonzero(inside))
    for flat in range(0, labels.size, 97):
        others = voxels[edge != inside[flat]]
        distance = np.sqrt(((others - voxels[flat]) ** 2).sum(1)).min() * (1 if inside[flat] else -1)
        wanted = (np.tanh(distance / 50) + 1) / 2 * CERTAIN
        # Inside, the outermost voxels (those with a neighbour of another label) already count as the border.
        assert wanted - 26 <= level.ravel()[flat] <= wanted + 1
    assert level[1, 10, 12] > 0.8 * CERTAIN > 0.5 * CERTAIN > level[1, 0, 0]
    assert (signed_distance(np.zeros((2, 3, 3), int), SIZE, 50.0) == 0).all()
    assert (signed_distance(np.ones((2, 3, 3), int), SIZE, 50.0) == CERTAIN).all()


def test_touching_objects_are_separated_by_contour_and_distance_channels():
    labels = two_discs()
    channels = ("foreground", "contour", "distance")
    for used in (channels, channels[:2], ("foreground", "distance")):
        settings = DecodingConfig(channels=used, method="watershed", min_seed_nm3=1e4, seed_distance=0.7)
        task = Mitochondria(SIZE, settings)
        target = task.target(labels)
        assert target.shape == (len(used), *labels.shape)
        decoded = task.decode(target, 0.5)
        assert len(np.unique(decoded)) == 3
        for label in (10**15, 7):
            values, counts = np.unique(decoded[labels == label], return_counts=True)
            assert counts.max() > 0.95 * (labels == label).sum() and values[counts.argmax()] > 0
        np.testing.assert_array_equal(decoded > 0, labels > 0)
    merged = Mitochondria(SIZE).decode(Mitochondria(SIZE).target(labels), 0.5)
    assert merged.max() == 1


def test_foreground_without_a_seed_is_an_instance_of_its_own():
    probability = np.zeros((1, 2, 10, 20), np.uint8)
    probability[0, :, 2:8, 2:8] = 250
    probability[0, :, 2:8, 12:18] = 150
    decoded = Mitochondria(SIZE, DecodingConfig(method="watershed", seed_threshold=0.9, min_seed_nm3=0)).decode(
        probability, 0.5
    )
    assert sorted(np.unique(decoded)) == [0, 1, 2] and (decoded[0, 4, 4], decoded[0, 4, 14]) == (1, 2)


def test_the_background_level_of_the_distance_channel_is_ignore():
    task = Mitochondria(SIZE, DecodingConfig(channels=("foreground", "contour", "distance")))
    assert task.background.tolist() == [0, 0, IGNORE]
    assert SynapsePolarity(SIZE).background.tolist() == [0, 0, 0]


def test_invalid_channels_are_errors():
    for channels in ((), ("contour",), ("foreground", "contour", "contour"), ("foreground", "depth")):
        with pytest.raises(ValidationError):
            DecodingConfig(channels=channels)


def sides(*spans, width=40):
    """(3, 1, 5, width) probability with bars (channel, start, stop) along X; the union covers all of them."""
    probability = np.zeros((3, 1, 5, width), np.uint8)
    for channel, start, stop in spans:
        probability[channel, 0, :, start:stop] = 200
        probability[2, 0, :, start:stop] = 220
    return probability


def row(segmentation):
    return segmentation[0, 2].tolist()


def one_sided(segmentation):
    """Instance labels with a presynaptic side only, and instance labels with a postsynaptic side only."""
    values = set(np.unique(segmentation).tolist()) - {0}
    instances = sorted({(v + 1) // 2 for v in values})
    return [n for n in instances if 2 * n not in values], [n for n in instances if 2 * n - 1 not in values]


def test_synapses_one_voxel_apart_are_not_merged():
    task = SynapsePolarity(SIZE)
    decoded = task.decode(sides((0, 2, 6), (1, 6, 10), (0, 11, 15), (1, 15, 19)), 0.5)
    assert row(decoded)[2:19] == [1] * 4 + [2] * 4 + [0] + [3] * 4 + [4] * 4
    assert one_sided(decoded) == ([], [])


def test_a_voxel_goes_to_the_side_with_the_higher_probability():
    probability = sides((0, 2, 8), (1, 6, 12))
    probability[0, 0, :, 6:8], probability[1, 0, :, 6:8] = 150, 230
    assert row(SynapsePolarity(SIZE).decode(probability, 0.5))[2:12] == [1] * 4 + [2] * 6
    probability[0, 0, :, 6:8] = 240
    assert row(SynapsePolarity(SIZE).decode(probability, 0.5))[2:12] == [1] * 6 + [2] * 4


def test_unpaired_sides_are_joined_within_join_nm():
    probability = sides((0, 2, 6), (1, 8, 12))  # centres of the nearest voxels are 3 apart: 24 nm
    joined = SynapsePolarity(SIZE, DecodingConfig(join_nm=24.0)).decode(probability, 0.5)
    assert row(joined)[2:12] == [1] * 4 + [0] * 2 + [2] * 4
    task = SynapsePolarity(SIZE, DecodingConfig(join_nm=23.0))
    apart = task.decode(probability, 0.5)
    assert row(apart)[2:12] == [1] * 4 + [0] * 2 + [4] * 4  # both keep their label: 1 has no 2, and 4 has no 3
    assert one_sided(apart) == ([1], [2])


def test_an_unpaired_side_joins_the_nearest_unpaired_side_of_the_other_type():
    task = SynapsePolarity(SIZE, DecodingConfig(join_nm=40.0))
    pair_and_pre = task.decode(sides((0, 2, 6), (1, 6, 10), (0, 12, 15)), 0.5)
    assert row(pair_and_pre)[2:15] == [1] * 4 + [2] * 4 + [0] * 2 + [3] * 3
    assert one_sided(pair_and_pre) == ([2], [])
    two_pre = task.decode(sides((0, 2, 6), (1, 10, 14), (0, 16, 20)), 0.5)  # the post is nearer to the second
    assert row(two_pre)[2:20] == [1] * 4 + [0] * 4 + [4] * 4 + [0] * 2 + [3] * 4
    like = task.decode(sides((0, 2, 6), (0, 8, 12)), 0.5)
    assert one_sided(like) == ([1, 2], [])


def test_the_gap_that_the_union_fills_is_in_nanometres():
    labels = np.zeros((1, 20, 60), np.uint32)
    labels[:, 4:16, 10:20], labels[:, 4:16, 26:36] = 1, 2  # a gap of six voxels
    for size, spans in ((8.0, True), (16.0, False)):
        target = SynapsePolarity((30.0, size, size)).target(labels)
        assert (target[2, 0, 10, 20:26] == CERTAIN).all() == spans


def faint_beside_bright():
    """A bright object with a wide faint rim, and a faint object that touches the rim: (1, 1, 5, 30) uint8."""
    probability = np.zeros((1, 1, 5, 30), np.uint8)
    probability[..., 2:14], probability[..., 5:11] = 60, 250
    probability[..., 14:22], probability[..., 16:20] = 55, 130
    return probability


def test_a_low_threshold_finds_faint_objects_without_enlarging_bright_ones():
    settings = DecodingConfig(min_seed_nm3=0)
    low = Mitochondria(SIZE, settings).decode(faint_beside_bright(), 0.1)[0, 2].tolist()
    assert low[5:11] == [low[5]] * 6 and low[16:20] == [low[16]] * 4 and low[5] != low[16]
    assert low[2:5] == [0] * 3 == low[11:14]  # less than half as likely as the brightest voxel of their object
    untrimmed = Mitochondria(SIZE, settings.model_copy(update={"trim": 0.0})).decode(faint_beside_bright(), 0.1)
    assert (untrimmed > 0).sum() == 5 * 20
    merged = Mitochondria(SIZE, DecodingConfig(method="components")).decode(faint_beside_bright(), 0.1)
    assert merged.max() == 1


def test_synapses_are_trimmed_by_their_union():
    probability = sides((0, 2, 6), (1, 6, 10))
    probability[:, :, :, 10:14] = probability[:, :, :, 9:10] // 4
    assert row(SynapsePolarity(SIZE).decode(probability, 0.1))[2:14] == [1] * 4 + [2] * 4 + [0] * 4


def test_a_few_stray_voxels_do_not_make_a_side():
    probability = sides((0, 2, 6), (1, 8, 12))
    probability[0, 0, 2, 5], probability[1, 0, 2, 5] = 200, 202  # one voxel of twenty
    task = SynapsePolarity(SIZE, DecodingConfig(join_nm=24.0))
    assert row(task.decode(probability, 0.5))[2:12] == [1] * 3 + [1] + [0] * 2 + [2] * 4
    probability[1, 0, :3, 4:6] = 210  # six of twenty voxels are a side
    assert 2 in row(SynapsePolarity(SIZE, DecodingConfig(join_nm=0)).decode(probability, 0.5))[2:6]


@pytest.mark.parametrize("axis", [0, 2])
def test_the_border_between_touching_objects_includes_voxels_of_both(axis):
    labels = np.zeros((12, 14, 14), np.uint32)
    first, second = [slice(2, -2)] * 3, [slice(2, -2)] * 3
    first[axis], second[axis] = slice(2, 6), slice(6, 10)
    labels[tuple(first)], labels[tuple(second)] = 1, 2
    for swapped in (labels, np.where(labels > 0, 3 - labels, 0)):
        level = signed_distance(swapped, (10.0, 10.0, 10.0), 50.0)
        line = np.moveaxis(level, axis, 0)[:, 6, 6]
        assert line[5] == line[6] == CERTAIN // 2 and line[4] > line[5] and line[7] > line[6]
        band = contour(swapped, (1, 1, 1))
        assert np.moveaxis(band, axis, 0)[5:7, 6, 6].all()
