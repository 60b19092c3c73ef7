"""Windows and faint candidates: how they are drawn, asked, answered and learned from, and the recall they estimate."""

import csv
import json
import shutil

import cv2
import numpy as np
import pytest
from conftest import SHAPE_ZYX, TEST_BOX, TINY, VOXEL_SIZE_NM, toy_arrays
from scipy.stats import chi2
from test_answer_tables import FAINT, blob_at

from twostream.base.errors import InputError
from twostream.base.geometry import Box, grid
from twostream.candidates.faint import faint_candidates
from twostream.candidates.identity import found_by
from twostream.candidates.picture import sections_picture
from twostream.candidates.proposing import propose
from twostream.candidates.stored import StoredCandidates
from twostream.candidates.table import read_table
from twostream.candidates.truth import Truth
from twostream.models.segmentation.lessons import Lesson, Lessons
from twostream.project.answer_sheet import read_answer_sheet
from twostream.project.answer_tables import read_answers
from twostream.project.create import create_project, fork_project
from twostream.project.curated import export_dataset
from twostream.project.export import export
from twostream.project.missed_objects import MissedRows
from twostream.project.project import Project
from twostream.project.recall import recall_estimate
from twostream.project.records import Answer, Window
from twostream.project.status import answering_lines, status_lines
from twostream.project.tables import ANSWER_COLUMNS
from twostream.project.tiles import Tiles, tiles_of
from twostream.report import write_report
from twostream.rounds.annotator import SimulatedAnnotator
from twostream.rounds.finish import finish
from twostream.rounds.loop import open_truth, run
from twostream.rounds.refit import held_out
from twostream.rounds.remake import remake
from twostream.rounds.suggest import suggest_step
from twostream.rounds.teaching import collect
from twostream.rounds.windows import background_of, draw_systematically, drawing_sizes, sums_by_tile, window_lessons
from twostream.task import FOUND_IOU, Mitochondria, SynapsePolarity
from twostream.task.answers import AnswerKind
from twostream.task.metrics import weighted_poisson_interval
from twostream.volume import MemoryVolume, create_volume

# -- drawing ----------------------------------------------------------------------------------------------------------


def test_each_tile_is_drawn_with_the_probability_that_is_stated():
    sizes = drawing_sizes(np.array([8.0, 8, 8, 8, 4]), np.array([0.0, 6, 0, 1, 0]))
    assert sizes.sum() == pytest.approx(1) and (sizes > 0).all()
    np.testing.assert_allclose(drawing_sizes(np.array([3.0, 1]), np.zeros(2)), [0.75, 0.25])
    rng, drawn = np.random.default_rng(0), np.zeros(5)
    for _ in range(4000):
        rows, inclusion = draw_systematically(sizes, 2, rng)
        assert len(set(rows.tolist())) == 2
        drawn[rows] += 1
    assert inclusion.sum() == pytest.approx(2)
    np.testing.assert_allclose(inclusion, np.minimum(2 * sizes, 1), atol=0.15)
    np.testing.assert_allclose(drawn / 4000, inclusion, atol=4 * np.sqrt(0.25 / 4000))


def test_tiles_that_hold_most_are_drawn_for_certain():
    rng = np.random.default_rng(0)
    for _ in range(50):
        rows, inclusion = draw_systematically(np.array([0.7, 0.1, 0.1, 0.1]), 2, rng)
        assert 0 in rows and inclusion[0] == 1
        np.testing.assert_allclose(inclusion[1:], 1 / 3)
    rows, inclusion = draw_systematically(np.array([0.5, 0.5]), 7, rng)
    assert rows.tolist() == [0, 1] and inclusion.tolist() == [1, 1]


def test_weighing_by_the_inverse_probability_is_right_on_average():
    rng = np.random.default_rng(1)
    missed = rng.poisson(0.7, 40)
    sizes = drawing_sizes(np.ones(40), missed + rng.random(40))
    estimates = []
    for _ in range(3000):
        rows, inclusion = draw_systematically(sizes, 8, rng)
        estimates.append((missed[rows] / inclusion[rows]).sum())
    assert np.mean(estimates) == pytest.approx(missed.sum(), abs=4 * np.std(estimates) / np.sqrt(3000))


def test_the_interval_of_a_weighted_total_is_that_of_a_poisson_count_where_weights_are_equal():
    for num in (0, 1, 7):
        low, high = weighted_poisson_interval([num, 0, 0], [2.5, 2.5, 2.5])
        exact = chi2.ppf(0.025, 2 * num) / 2 if num else 0.0, chi2.ppf(0.975, 2 * num + 2) / 2
        assert (low, high) == pytest.approx((2.5 * exact[0], 2.5 * exact[1]))
    low, high = weighted_poisson_interval([3, 1], [1.0, 10.0])
    assert low < 13 < high
    rng, expected, held = np.random.default_rng(2), np.array([0.5, 2.0, 0.2, 1.0]), 0
    weights = np.array([4.0, 1.0, 9.0, 2.0])
    for _ in range(1000):
        low, high = weighted_poisson_interval(rng.poisson(expected), weights)
        held += low <= weights @ expected <= high
    assert held >= 930  # it promises 950 at least


def test_tiles_cover_what_may_be_asked_and_each_object_belongs_to_one():
    tiles = Tiles(Box.whole((5, 9, 9)), (2, 4, 4), (Box((0, 0, 0), (5, 9, 3)), Box((3, 8, 8), (1, 1, 1))))
    found = tiles.boxes()
    assert Box((0, 0, 4), (2, 4, 4)) in found and Box((4, 8, 8), (1, 1, 1)) in found
    assert not any(box.intersects(other) for box in found for other in tiles.excluded)
    for place in np.ndindex(5, 9, 9):
        voxel = Box(place, (1, 1, 1))
        mine = [box for box in found if box.contains(voxel)]
        assert [tiles.tile_of(voxel)] == (mine or [None])
    assert tiles.tile_of(Box((0, 0, 2), (1, 1, 6))) == Box((0, 0, 4), (2, 4, 4))  # by the middle, not by a corner
    window = Window(Box((0, 0, 4), (2, 4, 4)), 0.5)
    assert window.holds(Box((0, 0, 2), (1, 1, 6))) and not window.holds(Box((0, 0, 2), (1, 1, 3)))


def test_what_s_saw_is_summed_over_tiles_block_by_block():
    values = np.random.default_rng(0).random((5, 9, 10))
    whole, shape, num = Box.whole(values.shape), (2, 4, 3), (3, 3, 4)
    found = sum(
        sums_by_tile(values[block.write_box.slices], block.write_box, shape, num) for block in grid(whole, (3, 5, 4))
    )
    for tile in Tiles(whole, shape, ()).boxes():
        place = tuple(np.floor_divide(tile.offset_zyx, shape))
        assert found[place] == pytest.approx(values[tile.slices].sum())


# -- what is learned --------------------------------------------------------------------------------------------------


def test_background_keeps_away_from_all_objects():
    rng = np.random.default_rng(0)
    box, rim = Box((2, 3, 4), (4, 10, 12)), (1, 2, 2)
    objects = [
        (Box((1, 1, 1), (2, 3, 4)), np.ones((2, 3, 4), np.uint8)),
        (Box((4, 8, 9), (2, 3, 3)), rng.integers(0, 3, (2, 3, 3)).astype(np.uint8)),
    ]
    found = background_of(box, objects, rim)
    taken = {
        tuple(np.add(where.offset_zyx, place).tolist()) for where, mask in objects for place in np.argwhere(mask > 0)
    }
    for place in np.ndindex(box.shape_zyx):
        at = np.add(place, box.offset_zyx)
        near = any(all(abs(a - b) <= r for a, b, r in zip(at, other, rim, strict=True)) for other in taken)
        assert found[place] == (not near)
    assert 0 < found.sum() < box.num_voxels


def test_the_truth_of_a_window_is_whole_and_belongs_to_it():
    labels = np.zeros((3, 12, 12), np.uint32)
    labels[0, 1:3, 1:3], labels[1, 4:6, 2:10], labels[2, 9:11, 9:11] = 1, 2, 3
    truth = Truth(MemoryVolume(labels, (30.0, 10.0, 10.0)), None, Mitochondria((30.0, 10.0, 10.0)))
    left, right = Box((0, 0, 0), (3, 12, 6)), Box((0, 0, 6), (3, 12, 6))
    assert [box for box, _ in truth.objects_in(left)] == [Box((0, 1, 1), (1, 2, 2))]
    found = truth.objects_in(right)
    assert [box for box, _ in found] == [Box((1, 4, 2), (1, 2, 8)), Box((2, 9, 9), (1, 2, 2))]
    assert all(mask.all() and mask.dtype == np.uint8 for _, mask in found)


# -- a project --------------------------------------------------------------------------------------------------------

WINDOWS = ("query.window_share=0.5", "query.budget=12")


@pytest.fixture(scope="module")
def lab(tmp_path_factory, toy_file):
    """A project with a probability in place of S, in which two objects are too faint to be proposed."""
    folder = tmp_path_factory.mktemp("lab")
    level = np.where(toy_arrays()[0] > 115, 220, 5).astype(np.uint8)
    for place in FAINT:
        level[blob_at(place)] = 76
    volume = create_volume(
        str(folder / "theirs.zarr"), shape_zyx=SHAPE_ZYX, dtype=np.uint8, voxel_size_nm=VOXEL_SIZE_NM
    )
    volume.write(volume.box, level)
    create_project(
        folder / "p", task="mitochondria", image=f"{toy_file}:image", probability=str(folder / "theirs.zarr"),
        test_box=TEST_BOX, overrides=(*TINY, *WINDOWS),
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def searched(lab, toy_file):
    """The project after two batches that the simulated annotator has answered."""
    shutil.copytree(lab, lab.parent / "searched")
    project = Project(lab.parent / "searched" / "p")
    run(project, rounds=2, truth_uri=f"{toy_file}:mitochondria")
    return project


@pytest.fixture
def asked(lab, tmp_path):
    """A copy of the project, whose first batch waits."""
    shutil.copytree(lab, tmp_path / "lab")
    project = Project(tmp_path / "lab" / "p")
    run(project, rounds=1)
    return project


def test_windows_are_part_of_the_batch_and_never_drawn_twice(searched):
    for number in (0, 1):
        windows, queries = searched.ledger.windows(number), searched.ledger.queries(number)
        assert len(windows) == 6 and len(windows) + len(queries) <= 12
        assert all(0 < one.inclusion <= 1 and one.reason["faint"] >= 0 for one in windows)
        lines = [json.loads(line) for line in searched.path(number, "queries.jsonl").read_text().splitlines()]
        assert [row["about"] for row in lines] == ["candidate"] * len(queries) + ["window"] * 6
        assert searched.ledger.finished_steps()[(number, "suggest")]["num_windows"] == 6
    boxes = [one.box for one in searched.ledger.windows()]
    assert len(set(boxes)) == 12 and set(boxes) <= set(tiles_of(searched).boxes())
    assert not any(box.intersects(searched.guarded_box) for box in boxes)
    assert searched.next_step()[0] == 2 and searched.ledger.counts().open == 0


@pytest.mark.parametrize(
    ("settings", "num_windows", "sentence"),
    [
        (("query.window_share=0.1", "query.budget=4"), 0, "query.window_share 0.1 of 4 answers is less than one"),
        (("query.window_share=0.5", "query.budget=4", "query.window_nm=1e9"), 0, "left to search: 0, fewer than 2"),
        (("query.window_share=0.5", "query.budget=8", "query.window_nm=960"), 1, "left to search: 1, fewer than 4"),
    ],
)
def test_fewer_windows_than_their_share_are_said(lab, toy_file, tmp_path, capsys, settings, num_windows, sentence):
    project = create_project(
        tmp_path / "p", task="mitochondria", image=f"{toy_file}:image", probability=str(lab / "theirs.zarr"),
        test_box=TEST_BOX, overrides=(*TINY, *settings),
    )  # fmt: skip
    run(project, rounds=1)
    said = capsys.readouterr()
    assert len(project.ledger.windows()) == num_windows and sentence in said.out + said.err


def test_the_same_seed_draws_the_same_windows(searched, asked):
    assert [(w.box, w.inclusion) for w in asked.ledger.windows()] == [
        (w.box, w.inclusion) for w in searched.ledger.windows(0)
    ]
    detail = asked.ledger.finished_steps()[(0, "suggest")]
    again = suggest_step(asked, 0)  # killed after the batch was asked
    assert again == {name: detail[name] for name in again} and again["num_windows"] == 6
    outcome = run(asked, rounds=1)
    assert not outcome.finished and outcome.num_open == asked.ledger.counts().open
    assert len(asked.ledger.windows()) == 6


def test_what_s_faintly_saw_is_drawn_more_often(asked):
    faint = {one.box: one.inclusion for one in asked.ledger.windows() if one.reason["faint"] > 0}
    plain = [one.inclusion for one in asked.ledger.windows() if one.reason["faint"] == 0]
    held = [Box.from_corners(np.argwhere(blob_at(p)).min(0), np.argwhere(blob_at(p)).max(0) + 1) for p in FAINT]
    assert any(box.intersects(other) for box in faint for other in held)
    assert not plain or min(faint.values()) > max(plain)


def test_a_round_is_done_when_its_windows_are_answered_too(asked):
    ledger = asked.ledger
    ledger.tell_all([Answer(q.id, AnswerKind.TRUE, "ann") for q in ledger.open_queries()])
    assert not run(asked, rounds=2).finished
    first, *others = ledger.open_windows()
    assert f"waits for 6 of {len(ledger.queries()) + 6} answers" in status_lines(asked)[-1]
    ledger.tell_all([Answer(one.id, AnswerKind.NONE_MISSED, "ann") for one in others])
    assert run(asked, rounds=2).num_open == 1
    ledger.tell(Answer(first.id, AnswerKind.SKIPPED, "ann"))
    assert run(asked, rounds=2).round == 1


def test_the_annotator_marks_what_nothing_shows(asked, toy_file):
    truth = open_truth(asked, f"{toy_file}:mitochondria")
    shown = StoredCandidates.open(asked.path(0, "candidates.parquet")).proposed()
    SimulatedAnnotator(truth, proposed=lambda number: shown).answer_all(asked.ledger)
    masks = [(c.box, c.mask) for c in (*shown, *(q.candidate for q in asked.ledger.queries()))]
    verdicts = asked.ledger.window_verdicts()
    expected = 0
    for window in asked.ledger.windows():
        assert verdicts[window.id].kind == AnswerKind.NONE_MISSED
        objects = truth.objects_in(window.box)
        expected += int((~found_by(objects, masks, FOUND_IOU)).sum())
    marked = asked.ledger.missed_objects()
    assert len(marked) == expected and all(a.window is not None for a in marked)
    queries = asked.ledger.queries()
    assert asked.ledger.spent()[0] == len(queries) + 6 + expected


def test_an_annotator_who_errs_overlooks_objects(asked, toy_file):
    truth = open_truth(asked, f"{toy_file}:mitochondria")
    SimulatedAnnotator(truth, error_rate=1.0).answer_all(asked.ledger)
    assert asked.ledger.missed_objects() == [] and asked.ledger.open_windows() == []


def test_searched_windows_are_background_and_skipped_ones_are_not(asked):
    ledger = asked.ledger
    first, second, third, *_ = ledger.open_windows()
    place = Box(first.box.offset_zyx, (1, 3, 3))
    drawing = place, np.ones(place.shape_zyx, np.uint8)
    ledger.tell(Answer(None, AnswerKind.MISSED, "ann", drawing=drawing, window=first.id))
    for window, kind in zip((first, second, third), ("none_missed", "unsure", "skipped"), strict=True):
        ledger.tell(Answer(window.id, AnswerKind(kind), "ann"))
    assert window_lessons(asked, 0) == []
    ((asked_in, lesson),) = window_lessons(asked, 1)
    assert (asked_in, lesson.box, lesson.teaches, lesson.weight) == (0, first.box, "background", 0.0)
    candidates = [(c.box, c.mask) for c in StoredCandidates.open(asked.path(0, "candidates.parquet"))]
    np.testing.assert_array_equal(lesson.mask, background_of(first.box, [*candidates, drawing], (1, 2, 2)))
    assert lesson.mask[drawing[0].relative_to(first.box).slices].sum() == 0 < lesson.mask.sum()
    lessons = collect(ledger, 1, [(asked_in, lesson)]).lessons
    assert [one.teaches for one in lessons] == ["background", "drawn"]  # what was drawn overwrites


def test_a_searched_window_weighs_as_much_as_any_background():
    image, labels = np.full((4, 32, 32), 90, np.uint8), np.zeros((4, 32, 32), np.uint16)
    labels[1:3, 4:8, 4:8] = 1
    size, where = (30.0, 10.0, 10.0), Box((0, 8, 16), (4, 16, 16))
    found = {}
    for emphasised in (True, False):
        lesson = Lesson(where, np.ones(where.shape_zyx, np.uint8), "background", weight=float(emphasised))
        data = Lessons(
            MemoryVolume(image, size), MemoryVolume(labels, size), None, Mitochondria(size),
            labels_boxes=[Box((0, 0, 0), (4, 32, 12))], val_box=Box((0, 28, 0), (4, 4, 12)), test_box=None,
            guarded_box=None, crop_shape_zyx=(4, 16, 16), lessons=[lesson], emphasis=10,
        )  # fmt: skip
        found[emphasised] = data.answer_crop(np.random.default_rng(0), 0)
    assert found[True].weight.max() == 10 and found[False].weight.max() == 1
    np.testing.assert_array_equal(found[True].target, found[False].target)
    assert (found[False].target[0] == 0).any()


def test_s_is_refitted_to_searched_windows_and_finished_with_them(make_project, toy_file):
    settings = ("query.window_share=0.4", "query.faint_share=0.2")
    project = make_project(budget=10, overrides=settings)
    run(project, rounds=1, truth_uri=f"{toy_file}:mitochondria")
    windows, marks = project.ledger.windows(), project.ledger.missed_objects()
    assert len(windows) == 4 and len(project.ledger.queries(0)) <= 6
    plain = collect(project.ledger, 1).lessons
    searched = window_lessons(project, 1)
    assert searched and {lesson.box for _, lesson in searched} <= {window.box for window in windows}
    steps = project.ledger.finished_steps()
    num_held_out = int(held_out(project, collect(project.ledger, 1)).sum())
    assert steps[(1, "refit")]["num_lessons"] == len(plain) + len(searched) - num_held_out >= len(marks) + len(searched)
    assert json.loads(project.path(1, "metrics.json").read_text())["recall_by_windows"]["windows"] == 4
    finish(project)
    learned = json.loads((project.root / "finished" / "card.json").read_text())["trained_on"]
    assert learned["num_lessons"] == len(plain) + len(searched)  # what was held out too


# -- recall -----------------------------------------------------------------------------------------------------------


def test_recall_follows_from_what_was_marked(asked):
    ledger = asked.ledger
    assert recall_estimate(asked) is None
    tiles = tiles_of(asked)
    table = StoredCandidates.open(asked.path(0, "candidates.parquet")).proposed()
    inside = [c for c in table if tiles.tile_of(c.box)]
    for query in ledger.open_queries():
        ledger.tell(Answer(query.id, AnswerKind.NOTHING, "ann"))
    *windows, last = ledger.open_windows()
    for window in windows:
        for annotator in ("ann", "bob"):  # the same object, marked by two
            place = Box(window.box.middle.offset_zyx, (1, 1, 1))
            drawing = place, np.ones((1, 1, 1), np.uint8)
            ledger.tell(Answer(None, AnswerKind.MISSED, annotator, drawing=drawing, window=window.id))
        ledger.tell(Answer(window.id, AnswerKind.NONE_MISSED, "ann"))
    found = recall_estimate(asked)
    answered = {q.candidate.id for q in ledger.queries()}
    believed = sum(c.score for c in inside if c.id not in answered)  # no True yet: the scorer has not learned
    missed = sum(6 / 5 / window.inclusion for window in windows)
    assert (found.round, found.windows, found.drawn, found.marked) == (0, 5, 6, 5)
    assert found.found == pytest.approx(believed, rel=1e-6) and found.missed == pytest.approx(missed)
    assert found.value == pytest.approx(believed / (believed + missed))
    low, high = weighted_poisson_interval([1] * 5, [6 / 5 / window.inclusion for window in windows])
    assert (found.low, found.high) == pytest.approx((believed / (believed + high), believed / (believed + low)))
    assert 0 < found.share_of_image < 1
    assert "recall of the candidates of round 0 by windows" in status_lines(asked)[-2]
    ledger.tell(Answer(last.id, AnswerKind.UNSURE, "ann"))
    assert recall_estimate(asked) == found


def test_recall_counts_what_is_known_and_not_proposed_any_more(searched):
    found = recall_estimate(searched)
    assert found.round == 1 and found.windows == found.drawn == 6
    candidates = [(c.box, c.mask) for c in StoredCandidates.open(searched.path(1, "candidates.parquet")).proposed()]
    marked = [a.drawing for a in searched.ledger.missed_objects() if a.round == 0]
    assert found.known_missed >= int((~found_by(marked, candidates, FOUND_IOU)).sum())
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_a_faint_candidate_that_was_confirmed_was_missed(lab, toy_file, tmp_path):
    """It is outlined in the windows of its round, so nobody marks it there, and it is no proposal."""
    project = create_project(
        tmp_path / "p", task="mitochondria", image=f"{toy_file}:image", probability=str(lab / "theirs.zarr"),
        overrides=(*TINY, *WINDOWS, "query.faint_share=0.2"),
    )  # fmt: skip
    run(project, rounds=1)
    ledger = project.ledger
    dim = [q for q in ledger.open_queries() if q.strategy == "faint"]
    ledger.tell_all([Answer(q.id, AnswerKind.NOTHING, "ann") for q in ledger.open_queries() if q.strategy != "faint"])
    ledger.tell_all([Answer(w.id, AnswerKind.NONE_MISSED, "ann") for w in ledger.open_windows()])
    before = recall_estimate(project)
    assert (len(dim), before.known_missed, before.missed, before.value) == (2, 0, 0, 1)
    one, other = dim
    ledger.tell_all([Answer(one.id, AnswerKind.TRUE, "ann"), Answer(other.id, AnswerKind.NOTHING, "ann")])
    found = recall_estimate(project)
    assert (found.known_missed, found.missed, found.marked, found.found) == (1, 1, 0, before.found)
    assert found.value == found.high == pytest.approx(before.found / (before.found + 1))


def test_metrics_say_of_which_round_the_recall_is(searched):
    metrics = [json.loads(searched.path(i, "metrics.json").read_text()) for i in (0, 1, 2)]
    assert "recall_by_windows" not in metrics[0]
    assert [one["recall_by_windows"]["round"] for one in metrics[1:]] == [0, 1]
    assert metrics[2]["recall_by_windows"]["value"] == pytest.approx(recall_estimate(searched).value, abs=1e-5)


def test_without_a_test_box_recall_is_that_of_the_windows(lab, toy_file, tmp_path):
    project = create_project(
        tmp_path / "p", task="mitochondria", image=f"{toy_file}:image", probability=str(lab / "theirs.zarr"),
        overrides=(*TINY, *WINDOWS),
    )  # fmt: skip
    run(project, rounds=1, truth_uri=f"{toy_file}:mitochondria")
    assert sum(q.is_audit for q in project.ledger.queries(0)) == 1  # a tenth of the candidates, not of the windows
    export_dataset(project, tmp_path / "set", "zarr", None)
    recall = json.loads((tmp_path / "set" / "dataset.json").read_text())["recall"]
    found = recall_estimate(project)
    assert (recall["source"], recall["windows"], recall["round"]) == ("windows", 6, 0)
    assert recall["value"] == found.value and recall["interval"] == [found.low, found.high]
    assert f"{found.windows} windows" in recall["meaning"]
    write_report([project])
    assert "Recall estimated from windows" in (project.root / "report.html").read_text()


# -- tables -----------------------------------------------------------------------------------------------------------


def test_the_printed_steps_say_what_windows_are_answered_with(asked):
    look_at = next(line for line in answering_lines(asked, 0, None) if "index.html" in line)
    assert look_at.endswith(
        "true, nothing, shape, unsure, skipped; of windows: none_missed, unsure, skipped (that page says how missed "
        "objects are marked)"
    )
    asked.ledger.tell_all([Answer(one.id, AnswerKind.UNSURE, "ann") for one in asked.ledger.open_windows()])
    assert not any("windows" in line for line in answering_lines(asked, 0, None))


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def written(path, rows):
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_table_asks_windows_and_takes_their_answers(asked, tmp_path):
    export(asked, "queries", tmp_path / "open.csv")
    rows = rows_of(tmp_path / "open.csv")
    windows = asked.ledger.open_windows()
    about = [row for row in rows if row["about"] == "window"]
    assert [(int(row["query"]), row["box"], row["candidate"]) for row in about] == [
        (one.id, str(one.box), "") for one in windows
    ]
    free = next(one for one in windows if one.reason["faint"] > 0)
    blob = next(b for b in map(blob_at, FAINT) if b[free.box.slices].any())
    z, y, x = (np.argwhere(blob[free.box.slices]) + free.box.offset_zyx)[0].tolist()
    for row in about:
        row["kind"] = "none_missed"
    mark = {"query": free.id, "kind": "missed", "z": z, "y": y, "x": x}
    done = read_answers(asked, written(tmp_path / "filled.csv", [*rows, mark]), "ann")
    assert done.new == len(windows) + 1
    (marked,) = asked.ledger.missed_objects()
    assert marked.window == free.id and asked.ledger.open_windows() == []
    assert read_answers(asked, tmp_path / "filled.csv", "ann").passed_over == len(windows) + 1


def test_a_mark_that_its_window_does_not_count_is_said(asked, tmp_path):
    """The middle of the blob lies in section 4, which the upper one of two windows holds."""
    z, y, x = FAINT[0]
    row = {"query": 7, "kind": "missed", "z": 5, "y": y, "x": x}
    sheet = read_answer_sheet(written(tmp_path / "t.csv", [row]))
    for box, counts in (("0:5,16:32,80:96", True), ("5:8,16:32,80:96", False)):
        rows = MissedRows(asked, sheet, "ann", [])
        window = Window(Box.parse(box), 0.5, id=7)
        if counts:
            sheet.rows[0].cells["z"] = str(z)
        answer = rows.answer(sheet.rows[0], 0.0, window)
        sheet.rows[0].cells["z"] = "5"
        assert answer.window == 7 and window.holds(answer.drawing[0]) == counts
        assert rows.notes[0].endswith("its centre lies outside window 7, which does not count it") != counts


def test_rows_about_windows_that_do_not_fit_are_named(asked, tmp_path):
    window, query = asked.ledger.open_windows()[0], asked.ledger.open_queries()[0]
    inside = dict(zip("zyx", window.box.middle.offset_zyx, strict=True))
    for row, sentence in (
        ({"query": window.id, "kind": "true"}, "the query is a window; expected one of none_missed, unsure, skipped"),
        ({"query": query.id, "kind": "none_missed"}, "none_missed is said of windows"),
        ({"query": window.id, "kind": "missed", **inside, "x": window.box.stop_zyx[2] + 1}, "lies outside window"),
        ({"query": window.id, "kind": "missed"}, "missed needs the object's place"),
        ({"query": window.id, "kind": "unsure", "candidate": 1}, "is a window and has no candidate"),
        ({"query": window.id, "kind": "unsure", "center_x": 0}, "Were columns sorted apart"),
        ({"query": "", "kind": "none_missed"}, "needs a query"),
    ):
        with pytest.raises(InputError, match=sentence):
            read_answers(asked, written(tmp_path / "t.csv", [row]), "ann")
    assert asked.ledger.all_answers() == []


def test_a_fork_takes_what_was_said_of_the_same_windows(searched, asked, tmp_path, toy_file):
    fork = fork_project(searched, tmp_path / "fork", [])
    run(fork, rounds=1)
    assert [one.box for one in fork.ledger.windows()] == [one.box for one in searched.ledger.windows(0)]
    export(searched, "answers", tmp_path / "answers.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert all(set(row) == set(ANSWER_COLUMNS) for row in lines)
    done = read_answers(fork, tmp_path / "answers.jsonl", "x")
    first = [a for a in searched.ledger.all_answers() if a.round == 0]
    assert done.new == len(first) and fork.ledger.counts().open == 0
    assert [a.window is None for a in fork.ledger.all_answers()] == [a.window is None for a in first]
    assert read_answers(fork, tmp_path / "answers.jsonl", "x").new == 0


def test_every_window_has_its_picture(asked, tmp_path):
    export(asked, "queries", tmp_path / "folder", pictures=True)
    page = (tmp_path / "folder" / "index.html").read_text()
    for row in rows_of(tmp_path / "folder" / "queries.csv"):
        assert (tmp_path / "folder" / row["picture"]).exists()
    assert "none_missed" in page and all(str(one.box) in page for one in asked.ledger.open_windows())


def test_the_picture_of_a_window_shows_all_of_it_and_what_needs_no_mark(asked, tmp_path):
    windows = asked.ledger.open_windows()
    free = next(one for one in windows if one.reason["faint"] > 0)
    place = Box(free.box.offset_zyx, (1, 4, 4))
    export(asked, "queries", tmp_path / "before", pictures=True)
    asked.ledger.tell(
        Answer(None, AnswerKind.MISSED, "ann", drawing=(place, np.ones((1, 4, 4), np.uint8)), window=free.id)
    )
    export(asked, "queries", tmp_path / "after", pictures=True)
    yellow = (0x3F, 0xD2, 0xFF)  # OpenCV's order is blue, green, red
    shown = {}
    for window in windows:
        found = cv2.imread(str(tmp_path / "before" / "pictures" / f"{window.id:03d}.png"))
        num_sections, height, width = window.box.shape_zyx
        tile = found[:256, : width * 16]
        assert found.size >= num_sections * 3 * 256 * 256 * height * width / 16**2, "every section is there"
        assert tile.shape[0] >= 16 * height
        shown[window.id] = bool((found == yellow).all(-1).any())
    candidates = StoredCandidates.open(asked.path(0, "candidates.parquet")).proposed()
    for window in windows:
        assert shown[window.id] == any(
            c.mask[c.box.intersection(window.box).relative_to(c.box).slices].any()
            for c in candidates
            if c.box.intersects(window.box)
        )
    after = cv2.imread(str(tmp_path / "after" / "pictures" / f"{free.id:03d}.png"))
    assert (after[:70, :70] == yellow).all(-1).any(), "what was marked is outlined, too"


def test_sections_are_drawn_in_rows_with_both_sides_and_no_larger_than_a_browser_opens(monkeypatch):
    grey = np.full((3, 8, 16), 90, np.uint8)
    mask = np.zeros((2, 4, 12), np.uint8)
    mask[:, :, 6:], mask[:, :, 2:6] = 1, 2
    picture, times = sections_picture(grey, [(Box((1, 2, -6), mask.shape), mask)], 5, 10.0, 2)
    assert times == 16 and picture.shape == (2 * 128 + 4, 2 * 256 + 4, 3)
    orange = (0xFF, 0x9F, 0x1C)
    tiles = picture[:128, :256], picture[:128, -256:], picture[-128:, :256]
    assert [(tile == orange).all(-1).any() for tile in tiles] == [False, True, True]
    edge = np.argwhere((tiles[1] == orange).all(-1)).max(0)
    assert abs(edge[0] - 6 * 16) <= 2 and abs(edge[1] - 6 * 16) <= 2, "rows 2 to 6, columns 0 to 6"
    assert (picture[-128:, -256:] == 255).all(), "there is no fourth section"
    monkeypatch.setattr("twostream.candidates.picture.MAX_SECTIONS_PX", grey.size / 4)
    small, times = sections_picture(grey, [], 0, 10.0, 1)
    assert times == 0.5 and small.shape[:2] == (2 * 4 + 4, 2 * 8 + 4)


# -- faint candidates -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def faint(lab, toy_file, tmp_path_factory):
    """The project with faint candidates, after one batch; and the same without."""
    found = []
    for name, share in (("with", 0.25), ("without", 0.0)):
        project = create_project(
            lab / name, task="mitochondria", image=f"{toy_file}:image", probability=str(lab / "theirs.zarr"),
            test_box=TEST_BOX, budget=8, overrides=(*TINY, f"query.faint_share={share}"),
        )  # fmt: skip
        run(project, rounds=1, truth_uri=f"{toy_file}:mitochondria")
        found.append(project)
    return found


def test_faint_candidates_are_asked_and_are_no_proposals(faint):
    project, without = faint
    candidates, shown = (one.candidates(0) for one in faint)
    dim = candidates.take(candidates.faint)
    held = [Box.from_corners(np.argwhere(blob_at(p)).min(0), np.argwhere(blob_at(p)).max(0) + 1) for p in FAINT]
    assert len(dim) >= 2 and all(any(c.box.intersects(box) for c in dim) for box in held)
    assert [(c.id, c.box) for c in candidates.proposed()] == [(c.id, c.box) for c in shown] and not shown.faint.any()
    assert not any(c.label == other.label for c in dim for other in shown)
    asked = [q for q in project.ledger.queries(0) if q.strategy == "faint"]
    assert len(asked) == 2 and {q.candidate.id for q in asked} <= {c.id for c in dim}
    assert not any(q.candidate.id in {c.id for c in dim} for q in project.ledger.queries(0) if q.strategy != "faint")
    assert len(project.ledger.queries(0)) == len(without.ledger.queries(0)) == 8


def test_a_faint_synapse_has_its_sides():
    task = SynapsePolarity((30.0, 8.0, 8.0))
    labels = np.zeros((4, 24, 64), np.uint32)
    for number, x in enumerate((6, 38)):
        labels[:, 6:18, x : x + 6], labels[:, 6:18, x + 8 : x + 14] = 2 * number + 1, 2 * number + 2
    target = task.target(labels).astype(float)
    level = np.minimum(target, 254) / 254 * 240
    level[..., 32:] *= 0.4  # the second one is faint
    level = level.astype(np.uint8)
    volume = MemoryVolume(level, task.voxel_size_nm)
    bright = propose(volume, task, 0.5, 1)
    assert len(bright) == 1
    (dim,) = faint_candidates(volume, bright, task, 0.5, 1)
    assert dim.label == 2 and set(np.unique(dim.mask)) >= {1, 2} and dim.box.offset_zyx[2] >= 32


def test_lost_candidates_of_a_fork_come_back_with_the_faint_ones_of_their_origin_or_without(faint, tmp_path):
    for origin, share in zip(faint, (0.0, 0.25), strict=True):
        fork = fork_project(origin, tmp_path / f"fork{share}", [f"query.faint_share={share}"])
        run(fork, rounds=1)
        path = fork.path(0, "candidates.parquet")
        before = read_table(path)
        path.unlink()
        assert remake(fork) == [f"{path} was gone: made again."]
        assert read_table(path).equals(before) and fork.candidates(0).faint.any() == (share == 0)


def test_scores_do_not_see_faint_candidates(faint):
    one, other = (json.loads(project.path(0, "metrics.json").read_text()) for project in faint)
    for metrics in (one, other):
        metrics["scores"].pop("curated_accuracy")  # the scorer is standardised on the faint ones as well
    assert one == other


def test_a_faint_candidate_is_in_the_data_set_only_if_confirmed(faint, tmp_path):
    project, _ = faint
    export_dataset(project, tmp_path / "set", "zarr", 0.0)
    ids = {int(row["id"]) for row in rows_of(tmp_path / "set" / "objects.csv")}
    verdicts = project.ledger.verdicts()
    dim = project.candidates(0).ids[project.candidates(0).faint].tolist()
    assert {i for i in dim if i in ids} == {i for i in dim if i in verdicts and verdicts[i].y == 1}


def test_windows_and_faint_candidates_leave_something_of_the_batch(make_project):
    with pytest.raises(InputError, match="make a whole batch"):
        make_project(overrides=["query.window_share=0.6", "query.faint_share=0.4"])


def test_a_candidate_is_found_by_the_overlap_of_masks():
    mask = np.ones((1, 2, 2), np.uint8)
    one, other = (Box((0, 0, 0), (1, 2, 2)), mask), (Box((0, 0, 1), (1, 2, 2)), mask)
    assert found_by([one, one], [other], 0.3).all() and not found_by([one], [other], 0.34).any()
    assert found_by([], [one], 0.1).shape == (0,) and not found_by([one], [], 0.1).any()
