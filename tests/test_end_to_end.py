"""The whole loop: the same results twice, and after a kill at any moment; the test box is never used."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import TINY
from scipy import ndimage
from typer.testing import CliRunner

from twostream.base.errors import ConfigError, ProjectError
from twostream.base.geometry import Box
from twostream.bench.candidates import Candidates
from twostream.bench.pools import pools_of_recipe, seconds_of_rounds_0
from twostream.bench.recipes import Recipe
from twostream.candidates.candidate import Candidate
from twostream.candidates.stored import StoredCandidates
from twostream.candidates.table import read_table
from twostream.cli import app
from twostream.project.answer_tables import read_answers
from twostream.project.create import fork_project
from twostream.project.export import export
from twostream.project.project import Project
from twostream.project.status import status_lines
from twostream.rounds.annotator import SimulatedAnnotator
from twostream.rounds.loop import open_truth, run, run_step
from twostream.rounds.teaching import lessons_of
from twostream.rounds.train import new_s
from twostream.task import CERTAIN
from twostream.task.metrics import wilson_interval
from twostream.volume import open_volume

ROUND_FILES = {
    "config.yaml", "checkpoint.ckpt", "candidates.parquet", "ids.npy", "latents_supervised.npy",
    "latents_unsupervised.npy", "metrics.json",
}  # fmt: skip


def outcome(root):
    """What two runs must have in common: queries, answers, scores and latents, but no times."""
    project = Project(root)
    queries = [(q.round, q.candidate.id, str(q.candidate.box), q.reason, q.is_audit) for q in project.ledger.queries()]
    answers = [(a.query, a.candidate, a.kind) for a in project.ledger.all_answers()]
    latents = [np.load(path).tobytes() for path in sorted(root.glob("rounds/*/latents_*.npy"))]
    return queries, answers, project.ledger.scores(), latents


@pytest.fixture(scope="module")
def truth(toy_file):
    return f"{toy_file}:mitochondria"


@pytest.fixture(scope="module")
def finished(tmp_path_factory, toy_file, truth):
    """A run of two rounds that is not interrupted."""
    from conftest import LABELS_BOX, TEST_BOX, TINY

    from twostream.project.create import create_project

    project = create_project(
        tmp_path_factory.mktemp("finished") / "project",
        task="mitochondria",
        image=f"{toy_file}:image",
        labels=truth,
        labels_box=LABELS_BOX,
        test_box=TEST_BOX,
        budget=6,
        overrides=TINY,
    )
    result = run(project, rounds=2, truth_uri=truth)
    assert result.finished
    return project


def test_every_refit_is_judged_and_it_is_said_what_became_of_it(finished):
    scores, lines = finished.ledger.scores(), "\n".join(status_lines(finished))
    assert "refit" not in scores[0]
    for number in (1, 2):
        judged = scores[number]["refit"]
        assert judged["outcome"] in ("accepted", "blended", "kept") and len(judged["errors"]) == 5
        assert judged["num_validation_objects"] > 0
        share = str(judged["share"])
        assert judged["errors"][share] - min(judged["errors"].values()) <= judged["chances"][share] + 1e-4
        excess = judged["errors"]["1.0"] - min(judged["errors"].values())
        assert share == "1.0" or excess > judged["chances"]["1.0"] - 1e-4
        assert not list(finished.round_dir(number).glob("*.resume"))
    assert lines.count(", before 0.") == 2


def bench(*words):
    """Standard output, standard error and status of `twostream bench efficiency`."""
    done = CliRunner().invoke(app, ["bench", "efficiency", *map(str, words)])
    return done.stdout, done.stderr, done.exit_code


def test_strategies_are_compared_on_the_candidates_of_round_0(finished, tmp_path, truth):
    rows = tmp_path / "rows.jsonl"
    asked = (finished.root, "--truth", truth, "--rows", rows, "--budget", "2", "--rounds", "2", "--seeds", "2")
    said, error, status = bench(*asked, "--strategies", "random,look-ahead")
    assert status == 0, error
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    assert len(lines) == 2 * 2 * 3 and {line["set"] for line in lines} == {finished.root.name}
    found = Candidates.of_round(finished, open_truth(finished, truth))
    assert found.is_held_out.any() and not found.is_held_out.all() and set(np.unique(found.y)) == {0, 1}
    first = lines[0]
    assert first["accuracy"] == pytest.approx(((found.score >= 0.5) == found.y)[~found.is_held_out].mean())
    assert "look-ahead" in said and "12 rows in" in said
    before = rows.read_bytes()
    again, _, status = bench(*asked, "--strategies", "random,look-ahead")
    assert (status, again) == (0, said) and rows.read_bytes() == before
    _, error, status = bench(*asked, "--strategies", "random", "--name", "other")
    assert status == 0 and len(rows.read_text().splitlines()) == 12 + 6


def test_strategies_are_compared_in_the_loop(finished, tmp_path, truth):
    words = (finished.root, "--truth", truth, "--rows", tmp_path / "rows.jsonl", "--pools", tmp_path / "pools")
    words += ("--level", "loop", "--budget", "3", "--rounds", "1", "--strategies", "random,entropy")
    said, error, status = bench(*words)
    assert status == 0, error
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [(row["strategy"], row["round"], row["num_answers"]) for row in lines] == [
        ("random", 0, 0), ("random", 1, 3), ("entropy", 0, 0), ("entropy", 1, 3)
    ]  # fmt: skip
    forks = {path.name: Project(path) for path in (tmp_path / "pools" / finished.id).iterdir()}
    assert sorted(forks) == ["loop-entropy-3-0", "loop-random-3-0"]
    for row in lines:
        metrics = forks[f"loop-{row['strategy']}-3-0"].ledger.scores()[row["round"]]
        assert row["instance_f1"] == pytest.approx(metrics["scores"]["instance_f1"], abs=1e-6)
        assert sum(row["told"].values()) == row["num_answers"]
    assert "S and the scorer learn; area under the curve of instance_f1" in said
    before = (tmp_path / "rows.jsonl").read_bytes()
    assert bench(*words)[0].splitlines()[-4:] == said.splitlines()[-4:]
    assert (tmp_path / "rows.jsonl").read_bytes() == before


@pytest.mark.parametrize(("patience", "is_said"), [(50, True), (1, False)])
def test_train_says_that_the_steps_were_spent_before_validation_ended_it(
    make_project, capfd, monkeypatch, patience, is_said
):
    from twostream.models.segmentation.train import SegmentationModule

    losses = iter([1.0, 2.0, 3.0, 4.0])
    monkeypatch.setattr(SegmentationModule, "validation_loss", lambda module: next(losses))
    short = ("segmentation.num_steps=8", "segmentation.watch.every_steps=2", f"segmentation.watch.patience={patience}")
    project = make_project(overrides=short)
    run_step(project, "train")
    assert project.ledger.finished_steps()[(0, "train")]["is_cut_short"] is is_said
    assert ("the 8 steps were spent before the validation box" in capfd.readouterr().err) is is_said


def test_a_recipe_makes_its_project_once(tmp_path, toy_file):
    tiny = Recipe("tiny", "mitochondria", 64, 2, toy_file.name, "mitochondria", settings=TINY)
    (opened,) = pools_of_recipe(tiny, "confirmation", 1, tmp_path / "pools", toy_file.parent)
    found = opened.opened()
    assert opened.opened() is found and found.project.root == tmp_path / "pools" / "tiny-confirmation-0" / "base"
    assert (0, "score") in found.project.ledger.finished_steps()
    before = found.project.ledger.finished_steps()
    (again,) = pools_of_recipe(tiny, "confirmation", 1, tmp_path / "pools", None)
    assert again.opened().project.ledger.finished_steps() == before
    assert seconds_of_rounds_0([found.project]) == pytest.approx(sum(d["seconds"] for d in before.values()))


@pytest.mark.parametrize(
    "words, said",
    [
        (("--strategies", "random,randon"), "strategy is 'randon'"),
        (("--strategies", ","), "--strategies is ','"),
        (("--score", "f1"), "--score is 'f1'; of --level candidates expected one of accuracy"),
        (("--set", "entropy.x=1", "--strategies", "random"), "--set names 'entropy'"),
        (("--set", "random.x=1", "--strategies", "random"), "has no setting 'x'"),
        (("--set", "random=1", "--strategies", "random"), "settings of random"),
        (("--budget", "500"), "candidates: all strategies would ask about all of them"),
        (("--truth", "nowhere.h5:x"), "nowhere.h5"),
        (("--level", "both"), "--level is 'both'; expected candidates or loop"),
        (("--level", "loop", "--score", "accuracy"), "of --level loop expected one of instance_f1"),
        (("--level", "loop", "--seeds", "2"), "--seeds is 2; S of a project is trained from one seed"),
        (("--seconds", "tru=1"), "--seconds names 'tru'"),
        (("--recipe", "synthetic"), "both of DIR and --recipe is given"),
        (("--quick",), "--quick belongs to --recipe"),
    ],
)
def test_a_benchmark_that_cannot_be_run_says_why(finished, tmp_path, truth, words, said):
    more = [] if "--truth" in words else ["--truth", truth]
    _, error, status = bench(finished.root, "--rows", tmp_path / "rows.jsonl", *more, *words)
    assert status == 1 and said in error, error
    assert not (tmp_path / "rows.jsonl").exists()


def test_a_project_without_round_0_cannot_be_compared_on(tmp_path, toy_file, truth):
    from conftest import LABELS_BOX, TEST_BOX, TINY

    from twostream.project.create import create_project

    create_project(
        tmp_path / "p", task="mitochondria", image=f"{toy_file}:image", labels=truth, labels_box=LABELS_BOX,
        test_box=TEST_BOX, budget=6, overrides=TINY,
    )  # fmt: skip
    _, error, status = bench(tmp_path / "p", "--truth", truth, "--rows", tmp_path / "rows.jsonl")
    assert status == 1 and "round 0" in error and "twostream run" in error


def test_a_project_that_uses_no_answer_learns_from_none(finished, tmp_path, truth):
    control = fork_project(finished, tmp_path / "control", ["refit.use_answers=false"])
    run(control, rounds=1, truth_uri=truth)
    detail = control.ledger.finished_steps()[(1, "refit")]
    assert detail["num_propagated"] == detail["num_lessons"] == 0
    assert detail["judged"]["outcome"] in (
        "accepted",
        "blended",
        "kept",
    )


def test_n_batches_give_n_plus_1_scored_rounds(finished):
    for number in range(3):
        names = {path.name for path in finished.round_dir(number).iterdir()}
        assert names >= ROUND_FILES
        assert ("queries.jsonl" in names) == ("answers.jsonl" in names) == (number < 2)
        assert ("probability.zarr" in names) == ("segmentation.zarr" in names) == (number == 2)
        assert not any("partial" in name or "resume" in name for name in names)
    metrics = [json.loads(finished.path(number, "metrics.json").read_text()) for number in range(3)]
    assert [m["num_answers"] for m in metrics] == [0, 6, 12]
    assert [m["round"] for m in metrics] == [0, 1, 2]
    expected = {
        "candidate_recall", "candidate_accuracy", "roi_accuracy", "average_precision", "average_precision_75",
        "instance_f1", "instance_f1_75", "instance_precision", "instance_recall", "foreground_iou", "mean_iou",
        "curated_accuracy",
    }  # fmt: skip
    assert all(set(m["scores"]) == expected for m in metrics)


def test_s_is_taught_that_true_blobs_are_bright(finished):
    """What S is shown, not how well it has learned it: that differs from one processor to the next."""
    lessons = lessons_of(finished, new_s(finished))
    for seed in range(10):
        image, target, _ = lessons.labelled_crop(np.random.default_rng(seed), finished.config.segmentation)
        assert image[target[0] == CERTAIN].mean() > 140 > 100 > image[target[0] == 0].mean()  # decoys are few


def test_the_recall_is_that_of_a_loop_over_the_true_blobs(finished, truth):
    box, labels = finished.boxes.test, open_volume(truth)
    theirs = labels.read(box)
    mine = open_volume(str(finished.path(2, "segmentation.zarr"))).read(box)
    found = 0
    blobs = set(np.unique(theirs).tolist()) - {0}
    for blob in blobs:
        beneath = set(np.unique(mine[theirs == blob]).tolist()) - {0}
        iou = [((mine == c) & (theirs == blob)).sum() / ((mine == c) | (theirs == blob)).sum() for c in beneath]
        found += max(iou, default=0.0) > 0.2
    metrics = finished.ledger.scores()[2]
    assert metrics["num_truth"] == len(blobs) > 0
    assert metrics["scores"]["candidate_recall"] == pytest.approx(found / len(blobs), abs=1e-6)


def test_the_candidate_table_ids_and_latents_have_the_same_rows(finished):
    for number in range(3):
        table = read_table(finished.path(number, "candidates.parquet"))
        ids = np.load(finished.path(number, "ids.npy"))
        assert table["id"].to_pylist() == ids.tolist() and len(set(ids.tolist())) == len(ids)
        assert {"label", "parent_ids", "box_z0", "center_z", "num_voxels", "score", "angle_deg"} <= set(
            table.column_names
        )
        for name, width in (("supervised", 3), ("unsupervised", 4)):
            latents = np.load(finished.path(number, f"latents_{name}.npy"))
            assert latents.shape == (len(ids), width) and latents.dtype == np.float32


def test_labels_of_candidates_are_the_values_in_the_segmentation(finished):
    segmentation = open_volume(str(finished.path(2, "segmentation.zarr")))
    for candidate in StoredCandidates.open(finished.path(2, "candidates.parquet")):
        np.testing.assert_array_equal(segmentation.read(candidate.box) == candidate.label, candidate.mask > 0)


def test_no_candidate_in_the_labels_box_or_near_the_test_box_was_asked(finished):
    (labels_box,), test_box = finished.boxes.labels, finished.boxes.test
    asked = finished.ledger.queries()
    assert len(asked) == 12 and len({q.candidate.id for q in asked}) == 12
    for query in asked:
        assert not query.candidate.box.intersects(finished.guarded_box)
        assert not query.candidate.box.intersects(labels_box)
    assert finished.guarded_box.contains(test_box) and finished.guarded_box != test_box


def test_answers_follow_the_truth_rule(finished, truth):
    rule = open_truth(finished, truth)
    kinds = {a.candidate: a.kind for a in finished.ledger.current_answers()}
    for query in finished.ledger.queries():
        assert kinds[query.candidate.id] is rule.judge(query.candidate).kind


def test_true_blobs_are_true_and_decoys_are_nothing(finished, truth):
    """Every bright blob of the toy world, whatever S proposed and the strategy asked."""
    annotator = SimulatedAnnotator(open_truth(finished, truth))
    labels = open_volume(truth)
    theirs = labels.read(labels.box)
    bright, number = ndimage.label(ndimage.median_filter(finished.image.read(finished.image.box), 3) > 115)
    said = []
    for blob, window in enumerate(ndimage.find_objects(bright), start=1):
        mask = (bright[window] == blob).astype(np.uint8)
        candidate = Candidate(blob, 1, Box([s.start for s in window], mask.shape), mask, 0.5)
        said.append(str(annotator.kind(candidate).value))
        assert said[-1] == ("true" if theirs[window][mask > 0].any() else "nothing")
    assert number == 90 and set(said) == {"true", "nothing"}


def test_two_runs_give_the_same_results(finished, make_project, truth):
    again = make_project()
    run(again, rounds=2, truth_uri=truth)
    assert outcome(again.root) == outcome(finished.root)


MOMENTS = {
    "training S": "rounds/000/checkpoint.resume",
    "writing the probability": "rounds/000/probability.zarr.partial",
    "training a stream": "rounds/000/supervised.ckpt",
    "first scores": "rounds/000/metrics.json",
    "answering": "rounds/000/queries.jsonl",
    "refitting": "rounds/001/config.yaml",
    "proposing again": "rounds/001/candidates.parquet",
    "asking again": "rounds/001/queries.jsonl",
}


def test_a_run_killed_at_any_moment_gives_the_same_results(finished, make_project, truth):
    """A run is killed with SIGKILL as soon as the file of each moment exists, and started again each time."""
    project = make_project("killed")
    command = [sys.executable, "-m", "twostream", "run", str(project.root), "--rounds", "2", "--truth", truth]
    survived = []
    for moment, name in MOMENTS.items():
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 240
        while process.poll() is None and not (project.root / name).exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        else:
            survived.append((moment, process.stderr.read().decode()[-2000:]))
        process.stderr.close()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(survived) < len(MOMENTS) / 2, survived  # otherwise this test kills next to nothing
    assert outcome(project.root) == outcome(finished.root)


def test_a_fork_shares_round_0_and_asks_its_own_queries(finished, make_project, truth, tmp_path):
    project = make_project()
    run(project, rounds=0, truth_uri=truth)
    fork = fork_project(project, tmp_path / "fork", ["query.strategy=random"])
    assert fork.ledger.scores() == {0: finished.ledger.scores()[0]}
    run(fork, rounds=1, truth_uri=truth)
    assert fork.ledger.scores()[1]["num_answers"] == 6
    assert {q.strategy for q in fork.ledger.queries()} == {"random"}
    other = fork_project(project, tmp_path / "other", ["streams.active_clustering.num_steps=0"])
    assert other.config.streams.active_clustering.num_steps == 0
    with pytest.raises(ConfigError, match=r"only query, .* streams\.active_clustering may differ"):
        fork_project(project, tmp_path / "no", ["streams.active_clusteringx=0"])
    same = fork_project(project, tmp_path / "same", [])
    run(same, rounds=1, truth_uri=truth)
    assert same.ledger.scores()[1] == finished.ledger.scores()[1]


def test_a_person_can_answer_instead(make_project, tmp_path, toy_file):
    project = make_project()
    waiting = run(project, rounds=1)
    assert (waiting.step, waiting.num_open, waiting.finished) == ("answer", 6, False)
    assert "round 0 waits for 6 of 6 answers" in "\n".join(status_lines(project))
    export(project, "queries", tmp_path / "queries.csv", "csv")
    lines = (tmp_path / "queries.csv").read_text().splitlines()
    kinds = ["true", "true", "true", "nothing", "nothing", ""]
    header = lines[0].split(",")
    column = header.index("kind")

    def filled(line, kind):
        head, tail = line.rsplit(",", len(header) - column)[0], line.rsplit(",", len(header) - column)[2:]
        return ",".join([head, kind, *tail])

    answers = tmp_path / "answers.csv"
    answers.write_text("\n".join([lines[0], *(filled(a, k) for a, k in zip(lines[1:], kinds, strict=True))]))
    assert read_answers(project, answers, "ann").new == 5
    assert run(project, rounds=1).num_open == 1
    last = project.ledger.open_queries()[0].id
    answers.write_text(f"query,kind\n{last},unsure\n")
    assert read_answers(project, answers, "ann").new == 1
    assert run(project, rounds=1).finished
    assert project.ledger.scores()[1]["num_answers"] == 6


def test_without_a_test_box_audits_estimate_accuracy(make_project, truth, toy_file, tmp_path):
    import h5py

    with h5py.File(tmp_path / "part.h5", "w") as file, h5py.File(toy_file) as toy:
        file.attrs["voxel_size_nm"] = toy.attrs["voxel_size_nm"]
        labels = toy["mitochondria"][:]
        labels[:, :, 64:] = 0
        file["labels"] = labels
    project = make_project(
        labels=f"{tmp_path / 'part.h5'}:labels", test_box=None, budget=10, overrides=("query.audit_share=0.3",)
    )
    assert project.boxes.test is None
    run(project, rounds=1, truth_uri=truth)
    audits = [q for q in project.ledger.queries() if q.is_audit]
    assert len(audits) == 3
    metrics = project.ledger.scores()[1]
    assert metrics["audit"]["num_audited"] == 3 and set(metrics["scores"]) == {"curated_accuracy"}
    rule = open_truth(project, truth)
    num_true = sum(rule.judge(q.candidate).kind == "true" for q in audits)
    assert metrics["audit"]["candidate_accuracy"] == pytest.approx(num_true / 3, abs=1e-6)
    assert metrics["audit"]["interval"] == pytest.approx(wilson_interval(num_true, 3), abs=1e-6)
    from twostream.rounds.teaching import collect

    trained_on = {str(lesson.box) for lesson in collect(project.ledger, 1).lessons}
    assert trained_on and not trained_on & {str(q.candidate.box) for q in audits}


def test_an_empty_pool_is_explained(make_project, truth, capfd):
    project = make_project(budget=500, overrides=("refit.num_steps=0",))  # the same S proposes the same again
    end = run(project, rounds=3, truth_uri=truth)
    assert (end.round, end.step, end.finished) == (1, "suggest", True)
    assert "no candidate is left to ask in round 1" in status_lines(project)[-1]
    again = CliRunner().invoke(app, ["run", str(project.root)])
    assert again.exit_code == 0 and "no candidate is left to ask" in again.output and "--what dataset" in again.output
    with pytest.raises(ProjectError, match="no candidate is left to ask in round 1"):
        run_step(project, "suggest")
    assert "fewer than the budget of 500: asking them all" in capfd.readouterr().err
    assert len(project.ledger.queries()) == project.ledger.finished_steps()[(0, "propose")]["num_in_pool"] > 0


def test_s_is_trained_and_scored_if_everything_is_labelled(make_project, truth, capfd):
    project = make_project(labels_box="0:8,0:96,0:176", overrides=("segmentation.num_steps=60",))
    assert project.leaves_nothing_to_ask
    assert run(project, rounds=0, truth_uri=truth).finished
    assert "none to ask" in capfd.readouterr().err
    assert project.ledger.scores()[0]["scores"]["candidate_recall"] is not None
    assert run(project, rounds=1, truth_uri=truth).finished and not project.ledger.queries()


def test_no_proposed_candidates_is_explained(make_project):
    project = make_project(overrides=("candidates.min_object_nm3=1e15", "segmentation.num_steps=1"))
    with pytest.raises(ProjectError, match="S proposed no candidates in round 0"):
        run(project, rounds=1)


def test_a_second_process_is_refused(make_project):
    project = make_project()
    with project.locked(), pytest.raises(ProjectError, match="another process is at work"):
        run(Project(project.root), rounds=1)


def test_exports(finished, tmp_path):
    import csv

    import h5py

    for what, name in (
        ("answers", "a.jsonl"),
        ("candidates", "c.csv"),
        ("candidates", "c.parquet"),
        ("answers", "a.csv"),
    ):
        export(finished, what, tmp_path / name, None)
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 12
    export(finished, "segmentation", tmp_path / "s.h5", None)
    with h5py.File(tmp_path / "s.h5") as file:
        assert file["main"].shape == finished.image.shape_zyx
        assert file["main"].attrs["voxel_size_nm"].tolist() == [30.0, 10.0, 10.0]
    export(finished, "dataset", tmp_path / "d", None)
    rows = list(csv.DictReader((tmp_path / "d" / "objects.csv").read_text().splitlines()))
    volume = open_volume(str(tmp_path / "d" / "segmentation.zarr"))
    values = volume.read(volume.box)
    answers = {a.candidate: a.kind for a in finished.ledger.current_answers()}
    true = {c for c, kind in answers.items() if kind == "true"}
    assert not {int(r["id"]) for r in rows} & {c for c, kind in answers.items() if kind in ("nothing", "shape")}
    painted = np.zeros(values.shape, np.uint64)  # true answers stand on top, the newer id over the older
    for query in sorted(finished.ledger.queries(), key=lambda query: query.candidate.id):
        if query.candidate.id in true:
            painted[query.candidate.box.slices][query.candidate.mask > 0] = query.candidate.id
    np.testing.assert_array_equal(values[painted > 0], painted[painted > 0])
    assert {int(r["id"]) for r in rows if r["origin"] == "true"} == set(np.unique(painted).tolist()) - {0}


def test_frozen_settings_cannot_be_changed_later(make_project):
    project = make_project()
    run(project, rounds=0)
    path = project.root / "twostream.yaml"
    path.write_text(path.read_text().replace("test: 0:8,0:96,192:240", "test: 0:8,0:96,200:240"))
    with pytest.raises(
        ProjectError,
        match=r"boxes\.test in .* is 0:8,0:96,200:240, but round 0 was made with 0:8,0:96,192:240 \(.*\); it is frozen",
    ):
        run(Project(project.root), rounds=1)


def test_a_damaged_checkpoint_is_not_resumed(make_project, capfd):
    project = make_project(overrides=("segmentation.num_steps=2",))
    project.open_round(0)
    project.path(0, "checkpoint.resume").write_bytes(b"cut off")
    assert run_step(project, "train") == (0, True)
    assert (
        "is damaged, or was made with other settings or data: training starts from the beginning"
        in capfd.readouterr().err
    )
