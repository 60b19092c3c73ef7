"""Growing a missed object from a point: where the probability shows it, where it does not, the sides of synapses."""

import numpy as np
import pytest

from twostream.base.errors import InputError, NoSidesError
from twostream.base.geometry import Box
from twostream.candidates.growing import Seed, grow
from twostream.task import get_task
from twostream.volume import MemoryVolume

SIZE_NM = (30.0, 10.0, 10.0)
SHAPE = (16, 120, 120)


def volume(array):
    return MemoryVolume(array, SIZE_NM, "memory")


def block(z, y, x, depth=4, height=30, width=30):
    return Box((z, y, x), (depth, height, width)).slices


@pytest.fixture
def level():
    """Probability of mitochondria: a faint object, and a bright one that is proposed."""
    level = np.full((1, *SHAPE), 3, np.uint8)
    level[(0, *block(4, 20, 20))] = 90
    level[(0, *block(4, 60, 60))] = 250
    return level


@pytest.fixture
def proposed():
    labels = np.zeros(SHAPE, np.uint32)
    labels[block(4, 60, 60)] = 1
    return labels


def test_the_object_is_what_the_probability_shows_at_half_its_height(level, proposed):
    level[(0, *block(4, 50, 30, height=4))] = 60  # fainter, and joined to the object: above half of 90
    level[(0, *block(4, 54, 30, height=4))] = 30  # below half of 90
    grown = grow(Seed((5, 30, 30)), get_task("mitochondria", SIZE_NM), volume(proposed), volume(level))
    assert not grown.is_ball and grown.box == Box((4, 20, 20), (4, 34, 40))
    assert grown.num_voxels == 4 * (30 * 30 + 4 * 30) == np.count_nonzero(grown.mask)
    assert grown.describe(SIZE_NM).startswith(f"{grown.num_voxels} voxels, 120 x 340 x 400 nm (Z, Y, X): grown where")
    assert "above 0.18" in grown.how  # half of 90 / 255


def test_what_is_proposed_already_does_not_belong_to_it(level, proposed):
    level[(0, *block(4, 50, 50, height=10, width=20))] = 90  # a bridge from the faint object to the bright one
    task = get_task("mitochondria", SIZE_NM)
    grown = grow(Seed((5, 30, 30)), task, volume(proposed), volume(level))
    assert not (proposed[grown.box.slices].astype(bool) & (grown.mask > 0)).any() and grown.box.stop_zyx[1] <= 60
    with pytest.raises(InputError, match="proposed at this point already"):
        grow(Seed((5, 70, 70)), task, volume(proposed), volume(level))
    with pytest.raises(InputError, match=r"outside the image, which holds 0:16,0:120,0:120"):
        grow(Seed((5, 70, 120)), task, volume(proposed), volume(level))


def test_the_rim_of_a_candidate_is_no_object(level, proposed):
    level[:] = 3
    level[(0, *block(4, 59, 59, height=61, width=61))] = 120  # what the proposed object is cut out of
    labels = np.zeros(SHAPE, np.uint32)
    labels[block(4, 60, 60, height=60, width=60)] = 1
    with pytest.raises(InputError, match="the rim of a proposed object"):
        grow(Seed((5, 59, 90)), get_task("mitochondria", SIZE_NM), volume(labels), volume(level))


def test_a_long_object_is_cut_off_and_that_is_said(level, proposed):
    level[(0, *block(4, 20, 0, width=120))] = 90
    grown = grow(Seed((5, 30, 60), radius_nm=100), get_task("mitochondria", SIZE_NM), volume(proposed), volume(level))
    assert grown.box.offset_zyx[2] == 60 - 40 and grown.box.stop_zyx[2] == 60 + 41
    assert "cut off 400 nm from the point" in grown.how


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda level: level.fill(20), "the probability there is only 0.08"),
        (lambda level: level.fill(90), "the probability is about equal all around"),
        (lambda level: level[(0, *block(4, 20, 20))].fill(3) or level[(0, *block(5, 29, 29, 1, 3, 3))].fill(90),
         "what the probability shows there is smaller than any object"),
    ],
)  # fmt: skip
def test_a_ball_where_the_probability_shows_no_object(level, proposed, change, why):
    change(level)
    task = get_task("mitochondria", SIZE_NM)
    grown = grow(Seed((5, 30, 30), radius_nm=60), task, volume(0 * proposed), volume(level))
    z, y, x = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    ball = (30 * (z - 5)) ** 2 + (10 * (y - 30)) ** 2 + (10 * (x - 30)) ** 2 <= 60**2
    drawn = np.zeros(SHAPE, bool)
    drawn[grown.box.slices] = grown.mask > 0
    assert grown.is_ball and (drawn == ball).all()
    assert f"a ball with a radius of 60 nm, because {why}" in grown.how
    without = grow(Seed((5, 30, 30), radius_nm=60), task, volume(0 * proposed), None)
    assert (without.mask == grown.mask).all() and "there is no probability" in without.how


def test_a_ball_at_the_border_of_the_image_and_beside_a_candidate(proposed):
    task = get_task("mitochondria", SIZE_NM)
    corner = grow(Seed((0, 0, 0), radius_nm=60), task, volume(proposed), None)
    assert corner.box == Box((0, 0, 0), (3, 7, 7))
    beside = grow(Seed((5, 58, 70), radius_nm=60), task, volume(proposed), None)
    assert beside.box.stop_zyx[1] == 60  # the candidate begins there


def synapse_level():
    """Probability of a faint synapse: pre on the left, post on the right, a cleft between."""
    level = np.full((3, *SHAPE), 3, np.uint8)
    level[(0, *block(4, 40, 40, width=12))] = 80
    level[(1, *block(4, 40, 55, width=12))] = 80
    level[(2, *block(4, 40, 40, width=27))] = 90
    return level


def test_the_sides_of_a_synapse_come_from_its_channels(proposed):
    task, nothing = get_task("polarity", SIZE_NM), volume(0 * proposed)
    for x in (45, 53, 60):  # also where the point lies in the cleft
        grown = grow(Seed((5, 50, x)), task, nothing, volume(synapse_level()))
        mask = np.zeros(SHAPE, np.uint8)
        mask[grown.box.slices] = grown.mask
        mask[5, 50, x] = 0
        assert set(np.unique(mask[block(4, 40, 40, width=12)])) <= {0, 1}
        assert (mask[block(4, 40, 40, width=12)] == 1).mean() > 0.99
        assert (mask[block(4, 40, 55, width=12)] == 2).mean() > 0.99 and not grown.is_ball
    points = Seed((5, 50, 53), None, pre_zyx=(5, 50, 60), post_zyx=(5, 50, 45))  # the person says the reverse
    grown = grow(points, task, nothing, volume(synapse_level()))
    assert grown.mask[..., 0].max() == 2 and grown.mask[..., -1].max() == 1


def test_a_ball_without_sides_is_refused_and_with_points_it_is_divided(proposed):
    task, nothing = get_task("polarity", SIZE_NM), volume(0 * proposed)
    with pytest.raises(NoSidesError, match="has no postsynaptic side; give a point on each side"):
        grow(Seed((5, 50, 53)), task, nothing, None)
    grown = grow(Seed((5, 50, 53), 100, (5, 50, 45), (5, 50, 60)), task, nothing, None)
    assert grown.is_ball and (grown.mask[..., :8].max(), grown.mask[..., -8:].max()) == (1, 2)
    level = synapse_level()
    level[1] = 0
    with pytest.raises(InputError, match=r"grown where .* has no postsynaptic side"):
        grow(Seed((5, 50, 45)), task, nothing, volume(level))
