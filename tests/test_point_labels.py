"""Point annotations of synapses as labels for polarity."""

import csv
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from conftest import LABELS_BOX, TEST_BOX, TINY, toy_arrays
from test_cli import call, refused

from twostream.base.errors import InputError
from twostream.base.geometry import Box
from twostream.candidates.labels import LabelsConfig, open_labels
from twostream.candidates.objects import read_objects
from twostream.candidates.point_labels import CLEFT_NM, PointLabels
from twostream.project.project import Project
from twostream.rounds.loop import run
from twostream.task import Mitochondria, SynapsePolarity
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


def paint(tmp_path, *rows, box=IMAGE.box, **settings):
    points = PointLabels(objects(tmp_path, *rows), IMAGE, "t.csv", **({"radius_nm": RADIUS, "rim_nm": RIM} | settings))
    labels, ignore = points.paint(box)
    return SimpleNamespace(labels=labels, ignore=ignore, num_synapses=points.num_synapses, understood=points.understood)


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
        PointLabels(read_objects(path, IMAGE, TASK), IMAGE, str(path))
    with pytest.raises(
        InputError, match=r"row 1 \(id 1\) has its postsynaptic point in the voxel \(6, 30, 42\) .*, where row 2"
    ):
        paint(tmp_path, ((6, 30, 30), (6, 30, 42)), ((6, 30, 42), (6, 30, 50)))
    with pytest.raises(InputError, match=r"row 2 \(id 2\) has its postsynaptic point in .*, where row 1 \(id 1\)"):
        paint(tmp_path, ((6, 30, 30), (6, 30, 42)), ((6, 30, 50), (6, 30, 42)))
    with pytest.raises(InputError, match=r"radius 0 nm, rim 150 nm; expected a radius above 0"):
        paint(tmp_path, ((6, 30, 30), (6, 30, 42)), radius_nm=0)


# -- as labels of a project -------------------------------------------------------------------------------------------


def table_of_blobs(path, scale=(1, 1, 1), offset=(0, 0, 0)):
    """A table with a point on the left (pre) and on the right (post) half of every true blob of the toy world."""
    truth = toy_arrays()[1]
    with open(path, "w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow([f"{side}_{axis}" for side in ("pre", "post") for axis in "zyx"])
        for label in range(1, truth.max() + 1):
            middle = np.argwhere(truth == label).mean(0).round()
            points = [(middle + np.array([0, 0, step])) * scale + offset for step in (-2, 2)]
            writer.writerow([f"{value:g}" for point in points for value in point])
    return path


def init(root, toy_file, labels, *words):
    sets = [word for setting in TINY for word in ("--set", setting)]
    boxes = ["--labels-box", LABELS_BOX, "--test-box", TEST_BOX, "--budget", "6"]
    image = ["--image", f"{toy_file}:image", "--labels", str(labels)]
    return call("init", root, "--task", "polarity", *image, *boxes, *sets, *words)


NARROW = ("--set", "labels.radius_nm=25", "--set", "labels.rim_nm=30")


def test_a_project_learns_polarity_from_a_table_of_points(toy_file, tmp_path):
    table = table_of_blobs(tmp_path / "points of blobs.csv")
    result = init(tmp_path / "project", toy_file, table, *NARROW)
    assert result.exit_code == 0, result.output
    num = toy_arrays()[1].max()
    for sentence in (
        f"{num} synapses as labels: balls of 25 nm around the points; unknown within 30 nm",
        "balls around points have no borders",
        f"points: {num} synapses of",
    ):
        assert sentence in result.output
    stored = yaml.safe_load((tmp_path / "project" / "twostream.yaml").read_text())["labels"]
    assert stored["uri"] == "../points of blobs.csv" and stored["kind"] == "points"
    assert (stored["radius_nm"], stored["rim_nm"]) == (25, 30)

    project = Project(tmp_path / "project")
    labels, ignore = project.labels.read(project.image.box), project.labels_ignore.read(project.image.box)
    truth = toy_arrays()[1]
    pairs = {(int(t), int((v + 1) // 2)) for t, v in zip(truth[labels > 0], labels[labels > 0], strict=True) if t}
    assert len(pairs) == num and len({t for t, _ in pairs}) == num  # each blob has its own synapse
    assert ignore.any() and not (ignore[labels > 0] > 0).any()
    again = pickle.loads(pickle.dumps(project.labels))
    np.testing.assert_array_equal(again.read(project.image.box), labels)

    done = run(project, rounds=1, truth_uri=str(table))
    assert done.finished
    steps = project.ledger.finished_steps()
    assert (0, "train") in steps and (1, "refit") in steps
    assert project.ledger.scores()[0]["scores"]
    assert len(project.ledger.all_answers()) == len(project.ledger.queries()) == 6


def test_the_default_labels_box_is_the_extent_of_what_is_painted(toy_file, tmp_path):
    table = table_of_blobs(tmp_path / "points.csv")
    sets = [word for setting in TINY for word in ("--set", setting)]
    words = ("--task", "polarity", "--image", f"{toy_file}:image", "--labels", table, "--test-box", TEST_BOX)
    result = call("init", tmp_path / "project", *words, *sets, *NARROW)
    assert result.exit_code == 0, result.output
    project = Project(tmp_path / "project")
    (box,) = project.boxes.labels
    where = np.argwhere(project.labels.read(project.image.box) > 0)
    assert box.offset_zyx == tuple(where.min(0)) and box.stop_zyx[:2] == tuple(where.max(0) + 1)[:2]
    assert not box.intersects(project.guarded_box)


def test_a_table_of_labels_is_read_by_the_settings_of_the_labels(toy_file, tmp_path):
    plain = table_of_blobs(tmp_path / "voxels.csv")
    scaled = table_of_blobs(tmp_path / "scaled.csv", scale=(1, 2, 2))
    refused(init(tmp_path / "a", toy_file, scaled, *NARROW), "a position in the image")
    named = init(tmp_path / "a", toy_file, plain, "--set", "labels.columns={pre_z: nope, pre_y: pre_y, pre_x: pre_x}")
    refused(named, "no column nope; labels.columns names it")
    result = init(tmp_path / "a", toy_file, scaled, *NARROW, "--set", "labels.table_resolution_nm=30,5,5")
    assert result.exit_code == 0, result.output
    assert init(tmp_path / "b", toy_file, plain, *NARROW).exit_code == 0
    one, other = Project(tmp_path / "a"), Project(tmp_path / "b")
    np.testing.assert_array_equal(one.labels.read(one.image.box), other.labels.read(other.image.box))
    # A table of truth is read as the table of labels is.
    again = one.open_truth(str(scaled))
    np.testing.assert_array_equal(again.volume.read(one.image.box), one.labels.read(one.image.box))


def test_points_as_labels_are_refused_where_they_make_no_sense(toy_file, tmp_path):
    table = str(table_of_blobs(tmp_path / "points.csv"))
    volume = f"{toy_file}:mitochondria"
    result = call("init", tmp_path / "p", "--task", "mitochondria", "--image", f"{toy_file}:image", "--labels", table)
    refused(result, "from which only polarity can be learned")
    for words, sentence in (
        (("--labels-kind", "mask"), "a kind can be stated for volumes only"),
        (("--ignore-value", "7"), "an ignored value can be stated for volumes only"),
        (("--labels-post", volume), "a postsynaptic volume can be stated for volumes only"),
        (("--set", "labels.radius_nm=0"), "labels: radius_nm"),
        (("--set", "labels.columns={pre_q: x}"), "none of our columns"),
    ):
        refused(init(tmp_path / "p", toy_file, table, *words), sentence)
    for words in (NARROW, ("--labels-kind", "points"), ("--set", "labels.list_order=zyx")):
        refused(init(tmp_path / "p", toy_file, volume, *words), "is read as a volume")
    assert not (tmp_path / "p").exists()


def test_points_of_a_given_place_lie_on_the_image(tmp_path):
    path = tmp_path / "t.csv"
    objects(tmp_path, ((6, 30, 30), (6, 30, 42)))
    labels = open_labels(LabelsConfig(uri=f"file://{path}"), IMAGE, TASK)
    assert labels.kind == "points" and labels.covered == IMAGE.box
    assert labels.volume.read(Box((6, 30, 30), (1, 1, 1))).item() == 1
    with pytest.raises(InputError, match="only polarity"):
        open_labels(LabelsConfig(uri=str(path)), IMAGE, Mitochondria(IMAGE.voxel_size_nm))
