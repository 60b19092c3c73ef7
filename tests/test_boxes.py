"""Several labels boxes in one volume: what lies between them is unknown. With one box all is as it was."""

import json
from collections import Counter
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import yaml
from conftest import LABELS_BOX, SHAPE_ZYX, TEST_BOX, VOXEL_SIZE_NM
from test_cli import call, init, refused

from twostream.base.errors import ConfigError, ProjectError
from twostream.base.geometry import Box
from twostream.candidates.candidate import Candidate
from twostream.candidates.table import to_table, write_parts
from twostream.candidates.thresholds import CandidateConfig, LabelledBox, proposing_threshold, recall_on_labels
from twostream.models.segmentation.config import SegmentationConfig
from twostream.models.segmentation.labelled import LabelsBoxes, grey_values
from twostream.models.segmentation.lessons import Lesson, Lessons
from twostream.project.boxes import Boxes
from twostream.project.export import export
from twostream.project.project import Project
from twostream.report import write_report
from twostream.rounds.asking import may_be_asked, outside_boxes
from twostream.rounds.loop import run
from twostream.task import CERTAIN, IGNORE
from twostream.task.kinds import Mitochondria
from twostream.task.metrics import FOUND_IOU
from twostream.volume import MemoryVolume, open_volume

LEFT, RIGHT = "0:8,0:96,0:48", "0:8,0:64,112:144"
SIZE = (30.0, 10.0, 10.0)


def two_boxes(root, toy_file, *words):
    return init(root, toy_file, "--labels-box", LEFT, "--labels-box", RIGHT, *words)


def stored(root):
    return yaml.safe_load((root / "twostream.yaml").read_text())["boxes"]


# -- init -------------------------------------------------------------------------------------------------------------


def test_init_takes_several_labels_boxes(tmp_path, toy_file):
    made = two_boxes(tmp_path / "p", toy_file)
    assert made.exit_code == 0, made.output
    assert f"labels boxes {LEFT} and {RIGHT} · validation box 0:8,77:96,0:48 · test box none" in made.stdout
    # The last fifth of the larger box. No test box by default: between the boxes the truth is unknown.
    assert stored(tmp_path / "p") == {"labels": [LEFT, RIGHT], "val": "0:8,77:96,0:48", "test": None}
    boxes = Project(tmp_path / "p").boxes
    assert boxes == Boxes((Box.parse(LEFT), Box.parse(RIGHT)), Box.parse("0:8,77:96,0:48"), None)


@pytest.mark.parametrize("given", [LABELS_BOX, [LABELS_BOX]])
def test_one_labels_box_is_stored_as_one_text(make_project, given):
    project = make_project(labels_box=given)
    assert stored(project.root)["labels"] == LABELS_BOX == project.config.boxes.labels
    assert project.boxes.labels == (Box.parse(LABELS_BOX),)


@pytest.mark.parametrize(
    ("words", "sentences"),
    [
        (["--labels-box", "0:8,0:96,40:60"], ["overlap", "count twice", "Move one of them"]),
        (["--labels-box", LEFT], [f"labels boxes {LEFT} and {LEFT} overlap"]),
        (["--labels-box", "0:8,0:96,200:241"], ["--labels-box 0:8,0:96,200:241 reaches outside the image"]),
        (["--test-box", "0:8,0:96,140:200"], [f"labels box {RIGHT} overlaps the test box", "never learn"]),
        (["--labels-box", "0:8,0:96,180:188", "--test-box", TEST_BOX], ["0:8,0:96,180:188 is left", "leave it out"]),
        (["--val-box", "0:8,0:64,40:120"], [f"one, or a part of one, of the labels boxes {LEFT} and {RIGHT}"]),
        (["--val-box", "0:8,0:64,60:80"], ["one, or a part of one, of the labels boxes"]),
    ],
)
def test_boxes_that_contradict_each_other_are_refused(tmp_path, toy_file, words, sentences):
    refused(two_boxes(tmp_path / "p", toy_file, *words), *sentences)
    assert not (tmp_path / "p" / "twostream.yaml").exists()


def test_foreground_in_one_of_the_boxes_is_enough_but_some_must_be_left_to_train_on(tmp_path, toy_file):
    empty, full = ("0:1,0:2,0:2", "--labels-box", "0:1,0:2,10:12"), ("0:1,0:2,0:2", "--labels-box", RIGHT)
    refused(
        init(tmp_path / "p", toy_file, "--labels-box", *empty), "holds no foreground in the labels boxes 0:1,0:2,0:2"
    )
    refused(init(tmp_path / "p", toy_file, "--labels-box", *full, "--val-box", RIGHT), "is left to train on")
    assert init(tmp_path / "p", toy_file, "--labels-box", *full).exit_code == 0


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ("[]", "expected a box as text, Z0:Z1,Y0:Y1,X0:X1, or a list of such texts; got []"),
        ("7", "or a list of such texts; got 7"),
        ("[1:20]", "or a list of such texts; got [80]"),  # YAML 1.1 reads this as a number to the base 60
        ("[0:8,0:96,0:64]", "expected Z0:Z1,Y0:Y1,X0:X1"),  # a list of three texts, because of the commas
        (f"['{LEFT}', '{LEFT}']", "overlap"),
    ],
)
def test_boxes_written_by_hand_are_checked(make_project, labels, sentence):
    project = make_project()
    path = project.root / "twostream.yaml"
    path.write_text(path.read_text().replace(f"labels: {LABELS_BOX}", f"labels: {labels}"))
    with pytest.raises(ConfigError) as error:
        Project(project.root)
    assert sentence in str(error.value)


def test_a_list_of_one_box_is_the_same_frozen_setting_as_its_text(make_project):
    project = make_project()
    project.open_round(0)
    path, text = project.root / "twostream.yaml", (project.root / "twostream.yaml").read_text()
    assert f"labels: {LABELS_BOX}\n" in text
    path.write_text(text.replace(f"labels: {LABELS_BOX}\n", f"labels: ['{LABELS_BOX}']\n"))
    Project(project.root).open_round(1)
    path.write_text(text.replace(f"labels: {LABELS_BOX}\n", f"labels: ['{LABELS_BOX}', '{RIGHT}']\n"))
    with pytest.raises(ProjectError, match=r"boxes.labels in .* it is frozen"):
        Project(project.root).open_round(1)


def test_what_the_boxes_cover_is_what_a_loop_over_voxels_says():
    whole, rng = Box.whole((2, 4, 6)), np.random.default_rng(0)
    seen = Counter()
    for _ in range(300):
        drawn = [Box(tuple(rng.integers(0, 3, 3).tolist()), tuple(rng.integers(1, 7, 3).tolist())) for _ in range(3)]
        *labels, guarded = (box.intersection(whole) for box in drawn)
        labels = [box for box in labels if box.num_voxels]
        if len(labels) == 2 and labels[0].intersects(labels[1]):
            continue
        boxes = Boxes(tuple(labels), None, None)
        for guard in (None, drawn[2]):
            covered = np.zeros(whole.shape_zyx, bool)
            for box in [*labels, *([guarded] if guard else [])]:
                covered[box.slices] = True
            assert boxes.cover(whole, guard) == covered.all()
            seen[bool(covered.all())] += 1
        for box in drawn:
            touched = np.zeros((9, 9, 9), bool)
            for one in labels:
                touched[one.slices] = True
            project = SimpleNamespace(boxes=boxes, guarded_box=None)
            outside = outside_boxes(project, np.array([[*box.offset_zyx, *box.stop_zyx]]))
            assert outside.tolist() == [not touched[box.slices].any()]
    assert seen[True] > 3 and seen[False] > 3


# -- what S is taught -------------------------------------------------------------------------------------------------


def ramp_world():
    """A (4, 40, 100) image whose grey values tell X, with objects in two labels boxes and one, not known, between."""
    image = np.broadcast_to(np.arange(100, dtype=np.uint8) * 2, (4, 40, 100)).copy()
    labels = np.zeros((4, 40, 100), np.uint32)
    labels[:, 5:15, 5:15], labels[:, 10:20, 45:55], labels[:, 5:10, 75:85] = 1, 2, 3
    return MemoryVolume(image, SIZE), MemoryVolume(labels, SIZE)


A, B = Box((0, 0, 0), (4, 40, 30)), Box((0, 0, 70), (4, 20, 20))
TINY = SegmentationConfig(filters=(4, 8, 8), patch_shape_zyx=(4, 16, 16), num_steps=4)


def lessons_of(val_box, lessons=(), **options):
    return Lessons(
        *ramp_world(), None, Mitochondria(SIZE), labels_boxes=[A, B], val_box=val_box, test_box=None, guarded_box=None,
        crop_shape_zyx=(4, 24, 24), lessons=lessons, **options,
    )  # fmt: skip


def test_between_the_labels_boxes_nothing_is_known():
    lessons = lessons_of(Box((0, 30, 0), (4, 10, 30)))
    truth = ramp_world()[1].read(Box.whole((4, 40, 100)))
    known = np.zeros((4, 40, 100), bool)
    known[:, :30, :30] = known[:, :20, 70:90] = True
    seen = np.zeros((4, 40, 100), bool)
    for seed in range(60):
        image, target, _ = lessons.labelled_crop(np.random.default_rng(seed), TINY)
        left = int(image[0, 0, 0]) // 2
        # Rows are not in the image: a crop is found by its target, which must fit at one height at least.
        expected = np.where(known, np.where(truth > 0, CERTAIN, 0), IGNORE)[:, :, left : left + 24]
        tops = [y for y in range(17) if np.array_equal(expected[:, y : y + 24], target[0])]
        assert tops
        seen[:, tops[0] : tops[0] + 24, left : left + 24] |= target[0] != IGNORE
    assert seen[:, :, :30].any() and seen[:, :, 70:90].any()


def test_an_answer_between_the_boxes_is_learned_and_the_boxes_decide_where_it_reaches_into_them():
    drawn = Lesson(Box((0, 0, 60), (4, 20, 20)), np.ones((4, 20, 20), np.uint8), "drawn")
    lessons = lessons_of(Box((0, 30, 0), (4, 10, 30)), [drawn])
    target = lessons._crop(0, Box((0, 10, 70), (1, 1, 1)), Box((0, 0, 58), (4, 24, 24))).target[0, 0, :20]
    assert (target[:, 2:12] == CERTAIN).all()  # X 60 to 70, between the boxes
    truth = ramp_world()[1].read(Box((0, 0, 70), (1, 20, 12)))[0]
    np.testing.assert_array_equal(target[:, 12:24], np.where(truth > 0, CERTAIN, 0))


def test_crops_are_drawn_in_proportion_to_the_boxes_and_to_their_foreground():
    labels = LabelsBoxes(ramp_world()[1], None, Mitochondria(SIZE), [A, B], Box((0, 0, 70), (4, 1, 1)))
    rng, number = np.random.default_rng(0), 4000
    for share, sizes in ((0.0, [A.num_voxels, B.num_voxels]), (1.0, [4 * 10 * 10, 4 * 5 * 10])):
        rows = []
        for _ in range(number):
            row, voxel = labels.draw(rng, share)
            assert [A, B][row].contains(Box(tuple(voxel.tolist()), (1, 1, 1)))
            assert share == 0.0 or ramp_world()[1].read(Box(tuple(voxel.tolist()), (1, 1, 1))) > 0
            rows.append(row)
        assert np.mean(rows) == pytest.approx(sizes[1] / sum(sizes), abs=0.03)


def test_one_box_draws_the_crops_that_it_drew_before_there_could_be_several():
    labels = LabelsBoxes(ramp_world()[1], None, Mitochondria(SIZE), [A], Box((0, 30, 0), (4, 10, 30)))
    foreground = np.argwhere(labels.parts[0].target[0] == CERTAIN)
    mine, before = np.random.default_rng(3), np.random.default_rng(3)
    for _ in range(50):
        voxel = labels.draw(mine, 0.5)[1]
        if before.random() < 0.5:
            expected = foreground[before.integers(len(foreground))]
        else:
            expected = before.integers(A.shape_zyx)
        np.testing.assert_array_equal(voxel, expected)


def test_a_whole_labels_box_may_be_the_validation_box():
    lessons = lessons_of(B)
    for seed in range(30):
        image, target, _ = lessons.labelled_crop(np.random.default_rng(seed), TINY)
        assert (target != IGNORE).any()  # no crop is drawn around B
        assert (target[0][:, :, image[0, 0] >= 60] == IGNORE).all()
    drawn = Lesson(B, np.ones(B.shape_zyx, np.uint8), "drawn")
    target = lessons_of(B, [drawn])._crop(0, B, Box((0, 0, 68), (4, 24, 24))).target
    assert (target == IGNORE).all()


def test_grey_values_are_those_of_all_boxes():
    image = ramp_world()[0]
    values = grey_values(image, [A, B])
    assert sorted(values.tolist()) == sorted([*image.read(A).ravel().tolist(), *image.read(B).ravel().tolist()])


# -- thresholds and queries -------------------------------------------------------------------------------------------


def test_threshold_and_recall_count_over_all_boxes():
    truth = np.zeros((1, 10, 60), np.uint32)
    probability = np.zeros((1, 1, 10, 60), np.uint8)
    for i, level in enumerate((230, 140, 60, 230, 60, 230)):
        truth[0, 2:8, 10 * i + 2 : 10 * i + 8] = i + 1
        probability[0, 0, 2:8, 10 * i + 2 : 10 * i + 8] = level
    task = Mitochondria((30.0, 8.0, 8.0))
    places = [Box((0, 0, 0), (1, 10, 20)), Box((0, 0, 20), (1, 10, 5)), Box((0, 0, 40), (1, 10, 20))]
    boxes = [LabelledBox(box, truth[box.slices], None) for box in places]
    volume = MemoryVolume(probability, (30.0, 8.0, 8.0))
    # Five objects, one of them cut in half by the face of a box: it counts with the part inside.
    assert proposing_threshold(volume, boxes, task, CandidateConfig(threshold=0.7), 1) == (
        0.7,
        pytest.approx(2 / 5),
    )
    assert proposing_threshold(volume, boxes, task, CandidateConfig(threshold=0.5), 1) == (
        0.5,
        pytest.approx(3 / 5),
    )
    assert proposing_threshold(volume, boxes, task, CandidateConfig(min_recall=1.0), 1)[1] == 1.0
    found = np.where(probability[0] > 178, truth, 0)
    assert recall_on_labels(found, boxes, task) == pytest.approx(2 / 5)
    assert recall_on_labels(found, [LabelledBox(places[0], np.zeros((1, 10, 20), np.uint32), None)], task) is None


def test_a_run_with_two_labels_boxes_asks_between_them(make_project, toy_file):
    truth = f"{toy_file}:mitochondria"

    def outcome(name):
        project = make_project(name, labels_box=[LEFT, RIGHT], val_box="0:8,32:64,112:144")
        assert run(project, rounds=1, truth_uri=truth).finished
        return project, [(q.candidate.id, str(q.candidate.box)) for q in project.ledger.queries()]

    project, asked = outcome("first")
    assert outcome("second")[1] == asked and len(asked) == 6
    left, right = map(Box.parse, (LEFT, RIGHT))
    candidates = project.candidates(0)
    pool = candidates.take(candidates.column("in_pool"))
    for candidate, askable in zip(candidates, may_be_asked(project, candidates), strict=True):
        free = not any(candidate.box.intersects(box) for box in (left, right, project.guarded_box))
        assert askable == free == (candidate.id in {c.id for c in pool})
    assert any(c.box.offset_zyx[2] >= 48 and c.box.stop_zyx[2] <= 112 for c in pool)  # between the boxes
    # Recall over both boxes, as a loop over the objects in each of them finds it.
    segmentation, labels = open_volume(str(project.path(1, "segmentation.zarr"))), project.labels
    threshold = project.ledger.finished_steps()[(1, "propose")]["threshold"]
    probability = open_volume(str(project.path(1, "probability.zarr")))
    assert segmentation.shape_zyx == SHAPE_ZYX and segmentation.voxel_size_nm == VOXEL_SIZE_NM
    found = num = 0
    for box in (left, right):
        theirs = labels.read(box)
        mine = project.task.decode(probability.read(box), threshold)
        names, sizes = np.unique(mine, return_counts=True)
        mine[np.isin(mine, names[sizes < project.min_voxels])] = 0
        for blob in set(np.unique(theirs).tolist()) - {0}:
            beneath = set(np.unique(mine[theirs == blob]).tolist()) - {0}
            iou = [((mine == c) & (theirs == blob)).sum() / ((mine == c) | (theirs == blob)).sum() for c in beneath]
            found, num = found + (max(iou, default=0.0) > FOUND_IOU), num + 1
    assert project.ledger.finished_steps()[(1, "propose")]["recall_on_labels"] == pytest.approx(found / num)
    page = write_report([project]).read_text()
    assert f"<dt>labels boxes</dt><dd>{LEFT} and {RIGHT}</dd>" in page


def test_a_candidate_between_the_boxes_may_be_asked_even_inside_their_hull(make_project):
    project = make_project(labels_box=[LEFT, RIGHT])
    places = [Box.parse(box) for box in ("2:4,10:20,60:70", "2:4,10:20,47:60", "2:4,10:20,143:150")]
    candidates = [Candidate(1, 1, place, np.ones(place.shape_zyx, np.uint8), 0.5) for place in places]
    for older in (True, False):  # tables of older versions have no column in_pool; where it is, it counts
        extra = {} if older else {"in_pool": [False, True, True]}
        project.round_dir(0).mkdir(parents=True, exist_ok=True)
        write_parts([to_table(candidates, task="mitochondria", extra=extra)], project.path(0, "candidates.parquet"))
        found = may_be_asked(project, project.candidates(0)).tolist()
        assert found == ([True, False, False] if older else [False, True, True])


def test_the_curated_data_set_names_the_boxes_that_its_labels_come_from(make_project, toy_file, tmp_path):
    for name, given in (("two", [LEFT, RIGHT]), ("one", [LABELS_BOX])):
        project = make_project(name, labels_box=given)
        run(project, rounds=0, truth_uri=f"{toy_file}:mitochondria")
        export(project, "dataset", str(tmp_path / f"{name}_data"), None)
        facts = json.loads((tmp_path / f"{name}_data" / "dataset.json").read_text())
        assert facts["labels_boxes"] == given
        truth = project.labels.read(Box.whole(SHAPE_ZYX))
        blobs = set()
        for box in project.boxes.labels:
            blobs |= set(np.unique(truth[box.slices]).tolist()) - {0}
        assert facts["num_objects_by_origin"]["labels"] == len(blobs)


def test_each_labels_box_must_lie_where_the_labels_lie(tmp_path, toy_file):
    with h5py.File(toy_file) as stored, h5py.File(tmp_path / "crop.h5", "w") as file:
        file["labels"] = stored["mitochondria"][:, :, :128]
        file.attrs["voxel_size_nm"], file["labels"].attrs["offset"] = VOXEL_SIZE_NM, (0.0, 0.0, 0.0)
    words = ("--labels-box", LEFT, "--labels-box", RIGHT)
    given = ("--image", f"{toy_file}:image", "--labels", f"{tmp_path / 'crop.h5'}:labels")
    refused(
        call("init", tmp_path / "p", *given, "--task", "mitochondria", *words),
        f"labels box {RIGHT} reaches beyond",
    )
