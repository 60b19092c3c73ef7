"""Point annotations of synapses as labels for polarity."""

import csv

import numpy as np
import pytest

from twostream.base.errors import InputError
from twostream.base.geometry import Box
from twostream.candidates.objects import read_objects
from twostream.candidates.point_labels import CLEFT_NM, paint_points
from twostream.task import SynapsePolarity
from twostream.volume import MemoryVolume

SIZE = np.array([30.0, 10.0, 10.0])
SHAPE = (12, 60, 80)
IMAGE = MemoryVolume(np.zeros(SHAPE, np.uint8), SIZE)
TASK = SynapsePolarity(IMAGE.voxel_size_nm)
RADIUS, RIM = 60.0, 150.0
PLACES = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1) * SIZE


def objects(tmp_path, *rows):
    """A table of rows (pre, post) or (pre, post, centre), each z, y, x in voxels."""
    path = tmp_path / "t.csv"
    with open(path, "w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow([f"{side}_{a}" for side in ("pre", "post", "center")[: len(rows[0])] for a in "zyx"])
        writer.writerows([value for point in row for value in point] for row in rows)
    return read_objects(path, IMAGE, TASK)


def paint(tmp_path, *rows, **settings):
    return paint_points(objects(tmp_path, *rows), IMAGE, "t.csv", **({"radius_nm": RADIUS, "rim_nm": RIM} | settings))


def to_segment(pre, post):
    """nm from every voxel to the nearest of 61 places on the line between two points, by brute force."""
    line = np.linspace(np.array(pre) * SIZE, np.array(post) * SIZE, 61)
    return np.min([np.linalg.norm(PLACES - place, axis=-1) for place in line], 0)


def test_balls_are_certain_the_cleft_and_the_rim_are_unknown_and_the_rest_is_background(tmp_path):
    pre, post, center = np.array([6, 30, 30]), np.array([6, 30, 42]), np.array([6, 30, 34])
    made = paint(tmp_path, (pre, post, center))
    past_cleft = PLACES[..., 2] - 340.0
    for label, point, beyond in ((1, pre, -past_cleft), (2, post, past_cleft)):
        ball = np.linalg.norm(PLACES - point * SIZE, axis=-1) <= RADIUS
        np.testing.assert_array_equal(made.labels == label, ball & (beyond >= CLEFT_NM / 2))
    assert made.labels.dtype == np.uint32 and set(np.unique(made.labels)) == {0, 1, 2}
    assert made.labels[6, 30, 34] == 0 and made.ignore[6, 30, 34]  # the centre lies in the cleft
    assert not (made.ignore & (made.labels > 0)).any()
    touched = made.ignore | (made.labels > 0)
    exact = to_segment(pre, post)
    # The 61 places are 2 nm apart, so that the distance to them is at most 0.01 nm more than the one to the line.
    assert touched[exact <= RIM].all() and not touched[exact > RIM + 0.1].any()
    assert "1 synapses as labels: balls of 60 nm around the points; unknown within 150 nm" in made.understood
    TASK.check_values(set(np.unique(made.labels).tolist()), "t.csv")


def test_the_cleft_lies_halfway_if_the_centre_does_not_lie_between_the_points(tmp_path):
    pre, post = np.array([6, 30, 30]), np.array([6, 30, 40])
    halfway = paint(tmp_path, (pre, post))
    aside = paint(tmp_path, (pre, post, np.array([6, 30, 60])))
    np.testing.assert_array_equal(aside.labels, halfway.labels)
    assert (halfway.labels[6, 30, 28:35] == 1).all() and (halfway.labels[6, 30, 36:43] == 2).all()
    assert halfway.labels[6, 30, 35] == 0


def test_each_side_keeps_its_point_however_small_the_ball_or_close_the_points(tmp_path):
    made = paint(tmp_path, ((6.4, 30.4, 30.4), (6.4, 30.4, 31.4)), radius_nm=0.1)
    assert np.argwhere(made.labels == 1).tolist() == [[6, 30, 30]]
    assert np.argwhere(made.labels == 2).tolist() == [[6, 30, 31]]
    corner = paint(tmp_path, ((0, 0, 0), (11.9, 59.9, 79.9)))
    assert corner.labels[0, 0, 0] == 1 and corner.labels[-1, -1, -1] == 2


def test_parts_fit_together_and_voxels_of_several_balls_go_to_the_nearest_point(tmp_path):
    rng = np.random.default_rng(0)
    pre = np.stack([rng.permutation(np.linspace(1, n - 2, 11).astype(int)) for n in SHAPE], 1)
    rows = [(p, np.minimum(p + rng.integers(1, 6, 3), np.array(SHAPE) - 1)) for p in pre]
    whole = paint(tmp_path, *rows)
    assert set(np.unique(whole.labels)) == set(range(23))
    for box in (Box((2, 10, 20), (5, 30, 40)), Box((0, 0, 0), (12, 60, 1)), Box((11, 59, 79), (1, 1, 1))):
        part = paint(tmp_path, *rows, box=box)
        np.testing.assert_array_equal(part.labels, whole.labels[box.slices])
        np.testing.assert_array_equal(part.ignore, whole.ignore[box.slices])
    points = np.array(rows).reshape(-1, 3)  # pre, post, pre, post, ...: label 1, 2, 3, 4, ...
    distance = np.linalg.norm(PLACES[..., None, :] - points * SIZE, axis=-1)
    forced = np.zeros(SHAPE, bool)
    forced[tuple(np.round(points).astype(int).T)] = True
    at = np.argwhere((whole.labels > 0) & ~forced)
    own = distance[tuple(at.T)][np.arange(len(at)), whole.labels[tuple(at.T)] - 1]
    assert (own <= RADIUS).all()
    # Where another point is nearer, the voxel lies beyond that synapse's cleft or in it.
    nearest = distance[tuple(at.T)].argmin(1)
    for place, label in zip(
        at[own > distance[tuple(at.T)].min(1)], nearest[own > distance[tuple(at.T)].min(1)], strict=True
    ):
        pre, post = (np.array(point) * SIZE for point in rows[label // 2])
        along = (place * SIZE - pre) @ (post - pre) / np.linalg.norm(post - pre) - np.linalg.norm(post - pre) / 2
        assert (along if label % 2 else -along) < CLEFT_NM / 2


def test_rows_with_one_presynaptic_point_are_one_synapse(tmp_path):
    pre, apart = (6, 30, 30), (2, 10, 70)
    made = paint(tmp_path, (pre, (6, 30, 42)), (apart, (2, 10, 60)), (pre, (6, 42, 30)))
    assert set(np.unique(made.labels)) == {0, 1, 2, 3, 4} and made.num_synapses == 2
    assert made.labels[pre] == 1 and made.labels[6, 30, 42] == made.labels[6, 42, 30] == 2
    assert made.labels[apart] == 3 and "2 synapses (3 rows, some with one presynaptic point)" in made.understood


def test_what_cannot_be_labels_is_refused(tmp_path):
    path = tmp_path / "centres.csv"
    path.write_text("z,y,x\n6,30,30\n")
    with pytest.raises(
        InputError, match="only centres; labels for polarity need a presynaptic and a postsynaptic point"
    ):
        paint_points(read_objects(path, IMAGE, TASK), IMAGE, str(path))
    with pytest.raises(
        InputError, match=r"row 1 \(id 1\) has its postsynaptic point in the voxel \(6, 30, 42\) .*, where row 2"
    ):
        paint(tmp_path, ((6, 30, 30), (6, 30, 42)), ((6, 30, 42), (6, 30, 50)))
    with pytest.raises(InputError, match=r"row 2 \(id 2\) has its postsynaptic point in .*, where row 1 \(id 1\)"):
        paint(tmp_path, ((6, 30, 30), (6, 30, 42)), ((6, 30, 50), (6, 30, 42)))
    with pytest.raises(InputError, match=r"radius 0 nm, rim 150 nm; expected a radius above 0"):
        paint(tmp_path, ((6, 30, 30), (6, 30, 42)), radius_nm=0)
