"""The command `finish`: the model that a project ends with, trained once more on everything, judged and packed.

The S of round 0, which has learned from the labels boxes alone, is trained once more for as many steps, on the labels
boxes and on all answers. (New weights needed twice the steps for a worse model: LOG.md.) A project that began with a
finished model has no labels, so its S is fine-tuned from that model on all answers. The last S of the loop, which every
round has judged, stands in its place as far as the evidence says that it is better. The result, ``DIR/finished``, needs
no project.

Knows the project, its answers and the training of S; must not know strategies, streams or the order of steps.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from twostream.base import progress
from twostream.base.atomic import free_name, write_folder, write_text
from twostream.base.errors import ProjectError
from twostream.base.geometry import Box
from twostream.candidates.thresholds import Thresholds
from twostream.candidates.truth import Truth
from twostream.models.segmentation.card import CARD_NAME, CHECKPOINT_NAME, FINISHED, ONNX_NAME
from twostream.models.segmentation.lessons import Lesson
from twostream.models.segmentation.onnx_model import EXTRA, is_installed
from twostream.models.segmentation.predict import predict
from twostream.models.segmentation.train import Segmenter, Training
from twostream.models.training import use_threads
from twostream.project.curated import export_dataset
from twostream.project.fingerprint import check_inputs
from twostream.project.project import Project
from twostream.project.round_files import check_files
from twostream.project.status import judged_sentence
from twostream.rounds import teaching
from twostream.rounds.box_scores import Cut, score_box
from twostream.rounds.finished_card import card_of, card_text
from twostream.rounds.judging import Choice, blended
from twostream.rounds.loop import open_truth
from twostream.rounds.predict import probability_of
from twostream.rounds.propose import thresholds_of
from twostream.rounds.refit import all_lessons, evidence_of, refit, teaching_pool, testable
from twostream.rounds.teaching import collect, lessons_of, replay_of
from twostream.rounds.windows import window_lessons
from twostream.volume import Volume, create_volume

WORKING, DATASET = "finishing", "dataset"
"""Folders: what is needed until the result is written, and the curated data set in the result."""


@dataclass(frozen=True)
class Taught:
    """What the finished S was trained on.

    Attributes:
        lessons: labels of the scorer, then the answers, oldest first.
        training: losses.
        start: "from the S of round 0", or "from the model that the project began with".
        choice: how much of it was taken in place of the last S of the loop.
    """

    lessons: Sequence[Lesson]
    training: Training
    start: str
    choice: Choice


def finish(project: Project, *, license_: str = "", truth_uri: str | None = None) -> list[str]:
    """Train the final S, judge it and write ``DIR/finished``; one that is there is kept under another name.

    Args:
        project: a project with at least one scored round.
        license_: under which the model may be used; "" is not stated.
        truth_uri: labels of the test box, where those of the project do not cover it.

    Returns:
        Lines for a terminal.

    Raises:
        ProjectError: the project has a source in place of S, no scored round yet, or no box for ``truth_uri`` to score.
        TrainingError: the loss is no longer a finite number.
    """
    with project.locked():
        project.check_frozen()
        check_inputs(project)
        check_files(project)
        last_round = _last_round(project)
        use_threads(project.config.num_threads)
        _tell_what_is_left_out(project)
        truth = _truth(project, truth_uri)
        working = project.root / WORKING
        working.mkdir(exist_ok=True)
        segmenter, taught = _train(project, last_round, working)
        probability = _predicted(project, segmenter, working / "probability.zarr", None)
        thresholds = thresholds_of(project, probability, before_round=last_round + 1)
        scores = _scores(project, last_round, truth, probability, thresholds, working)
        lines: list[str] = []

        def fill(folder: Path) -> None:
            folder.mkdir(parents=True)
            segmenter.save(folder / CHECKPOINT_NAME, taught.training)
            if is_installed("onnx") and is_installed("onnxruntime"):
                from twostream.models.segmentation.onnx_export import export_onnx

                export_onnx(segmenter, project.config.segmentation, folder / ONNX_NAME)
            lines.extend(export_dataset(project, folder / DATASET).splitlines()[1:])
            card = card_of(project, segmenter, taught, thresholds, scores, license_=license_, folder=folder)
            write_text(folder / CARD_NAME, card.model_dump_json(indent=1) + "\n")
            write_text(folder / "card.md", card_text(card))
            lines.extend(_score_lines(card.scores))

        write_folder(working / FINISHED, fill)
        target = project.root / FINISHED
        if target.exists():
            kept = free_name(target, "old")
            os.replace(target, kept)
            lines.append(f"  the model that was finished before is kept in {kept}")
        os.replace(working / FINISHED, target)
        shutil.rmtree(working, ignore_errors=True)
    names = ", ".join(path.name for path in sorted(target.iterdir()))
    return [f"{target}: the model, its card and the curated data set ({names})", *lines]


def _last_round(project: Project) -> int:
    """The newest round that has been scored.

    Raises:
        ProjectError: there is none, or there is no S.
    """
    if project.config.source:
        raise ProjectError(
            f"{project.root} has a {project.config.source.name} in place of S, so there is no model to finish. The "
            f"curated data set is written by `{project.command('export', '--what', 'dataset', '-o', 'FOLDER')}`."
        )
    rounds = [number for number, step in project.ledger.finished_steps() if step == "score"]
    if not rounds:
        raise ProjectError(f"{project.root} has no scored round yet; run `{project.command('run')}` first.")
    return max(rounds)


def _tell_what_is_left_out(project: Project) -> None:
    """Say what will be missing, before hours of training."""
    if num_open := len(project.ledger.open_queries()) + len(project.ledger.open_windows()):
        progress.say(f"  {num_open} queries have no answer yet; the model does not learn from them")
    if not (is_installed("onnx") and is_installed("onnxruntime")):
        progress.say(f"  onnx or onnxruntime is not installed, so {ONNX_NAME} will not be written: {EXTRA}")


def _truth(project: Project, truth_uri: str | None) -> Truth | None:
    if truth_uri is not None:
        if project.boxes.test is None and project.boxes.val is None:
            raise ProjectError(
                f"{project.root} has no test box, so there is nothing to score; leave out --truth. A test box is fixed "
                f"when a project is made (init --test-box)."
            )
        return open_truth(project, truth_uri)
    if project.config.labels is None:
        if project.boxes.test is not None:
            progress.say("  the test box is not scored, as the project has no labels; --truth URI names them")
        return None
    return Truth(project.labels, project.labels_ignore, project.task)


def _train(project: Project, last_round: int, working: Path) -> tuple[Segmenter, Taught]:
    """The final S, trained on the labels boxes and on the answers to all rounds."""
    answers = collect(project.ledger, last_round + 1, window_lessons(project, last_round + 1))
    every = np.ones(len(answers.lessons), bool)
    lessons, asked_in = all_lessons(project, answers, teaching_pool(project, last_round), every)
    segmenter = Segmenter.load(project.path(0, "checkpoint.ckpt"))
    replay = replay_of(project, last_round)
    # No round is newer than another now: all answers are drawn equally often.
    changes: dict[str, Any] = {"start": "first", "judged": False, "recent_share": 0.0}
    start = "from the model that the project began with"
    if project.config.labels is not None:
        start = "from the S of round 0"
        changes["num_steps"] = project.config.segmentation.num_steps
    num_expected = len(lessons) - len(answers.lessons)
    progress.say(
        f"finish: S is trained {start} on {len(answers.lessons)} answers and {num_expected} labels of the scorer"
    )
    training = refit(
        segmenter,
        lessons_of(project, segmenter, lessons, probability_of(project, last_round), replay),
        asked_in,
        project.config.segmentation,
        project.config.refit.model_copy(update=changes),
        seed=project.seed(0, "finish"),
        resume_path=working / "model.resume",
    )
    choice = _judged(project, last_round, segmenter, answers, replay)
    return segmenter, Taught(lessons, training, start, choice)


def _judged(
    project: Project, last_round: int, segmenter: Segmenter, answers: teaching.Taught, replay: Sequence[Box]
) -> Choice:
    """Take the trained S, blend it with the last S of the loop, or put that one in its place, as a refit is judged.

    It has learned from the answers on which it is tested, so these speak against it only where it has unlearned what
    it was told; the validation box it has not seen.

    Args:
        project: the project.
        last_round: round of the last S.
        segmenter: the trained S; its weights become those that are taken.
        answers: what all answers teach.
        replay: see ``replay_of``.
    """
    last = Segmenter.load(project.path(last_round, "checkpoint.ckpt"))
    new = {name: value.clone() for name, value in segmenter.network.state_dict().items()}
    rows = np.flatnonzero(testable(answers) & project.config.refit.use_answers)
    choice = evidence_of(project, last, answers.lessons, rows, replay).judge(last, new)
    segmenter.network.load_state_dict(blended(last.network.state_dict(), new, choice.share))
    progress.say(f"  {judged_sentence(choice.detail(), 'the finished S', 'the last S of the loop')}")
    return choice


def _predicted(project: Project, segmenter: Segmenter, path: Path, boxes: Sequence[Box] | None) -> Volume:
    """The probability of an S in a volume of the image's extent, everywhere or only in boxes.

    Args:
        project: the project.
        segmenter: S.
        path: of the volume; one that is there is replaced.
        boxes: what is predicted; None: the whole image.
    """
    shutil.rmtree(path, ignore_errors=True)
    image = project.image
    output = create_volume(
        str(path),
        shape_zyx=image.shape_zyx,
        dtype=np.uint8,
        voxel_size_nm=image.voxel_size_nm,
        num_channels=len(project.task.channels),
    )
    fold_zyx = segmenter.network.fold_zyx
    for box in [image.box] if boxes is None else boxes:
        start = [o - o % f for o, f in zip(box.offset_zyx, fold_zyx, strict=True)]
        region = Box.from_corners(start, box.stop_zyx)
        predict(segmenter, image, output, project.config.segmentation, region=region)
    return output


def _scores(
    project: Project,
    last_round: int,
    truth: Truth | None,
    finished: Volume,
    thresholds: Thresholds,
    working: Path,
) -> dict[str, Any]:
    """Scores of the finished S, of S_0 and of the last S, on the validation box and on the test box.

    Args:
        project: the project.
        last_round: round of the last S.
        truth: labels; None: nothing is scored.
        finished: (C, Z, Y, X) uint8, probability of the finished S.
        thresholds: of the finished S.
        working: folder for probabilities.

    Returns:
        {"test_box", "validation_box": {"box", "source", "finished", "s_0", "last_s": scores of ``score_box``}}.
    """
    boxes = {"test_box": project.boxes.test, "validation_box": project.boxes.val}
    found = {name: box for name, box in boxes.items() if box is not None and truth is not None}
    if truth is None or not found:
        return {}
    scores: dict[str, Any] = {name: {"box": str(box), "source": SOURCES[name]} for name, box in found.items()}

    def add(who: str, level: Volume, cut: Cut) -> None:
        for name, box in found.items():
            scores[name][who] = score_box(level.read(box), truth, box, cut)

    add("finished", finished, _cut_of(project, thresholds.final_threshold, thresholds.min_score))
    for who, number in (("s_0", 0), ("last_s", last_round)):
        proposed = project.ledger.finished_steps()[(number, "propose")]
        cut = _cut_of(project, proposed["final_threshold"], proposed.get("min_score", 0.0))
        if number == last_round:
            level = probability_of(project, number)
        else:
            segmenter = Segmenter.load(project.path(number, "checkpoint.ckpt"))
            level = _predicted(project, segmenter, working / f"probability_{number}.zarr", list(found.values()))
        add(who, level, cut)
    return scores


SOURCES = {
    "test_box": "test box: never trained on, never asked about, no threshold was chosen on it",
    "validation_box": "validation box: never trained on, but thresholds were chosen on it; its scores are too high",
}
"""{name: where scores come from, in words}."""


def _cut_of(project: Project, final_threshold: float | None, min_score: float) -> Cut:
    assert final_threshold is not None  # only a source that brings instances has none
    return Cut(final_threshold, min_score, project.min_voxels)


def _score_lines(scores: dict[str, Any]) -> list[str]:
    """F1 of the three models on each box, as lines for a terminal; said where the finished model is not the best."""
    lines = []
    for name, here in scores.items():
        for who, words in (("s_0", "S_0"), ("last_s", "last S"), ("finished", "finished")):
            f1 = here[who]["instance_f1"]
            told = "no object counts" if f1["value"] is None else f"F1 {f1['value']:.3f}"
            interval = "" if f1["interval"] is None else " ({:.3f} to {:.3f})".format(*f1["interval"])
            lines.append(f"  {name.replace('_', ' ')}: {words} {told}{interval}, {here[who]['num_truth']} true objects")
        value = {who: here[who]["instance_f1"]["value"] or 0.0 for who in ("s_0", "last_s", "finished")}
        if value["finished"] < max(value.values()):
            better = "the last S of the loop" if value["last_s"] == max(value.values()) else "S_0"
            lines.append(
                f"  {name.replace('_', ' ')}: {better} does better here than the finished model. Where the intervals "
                f"overlap, that may be chance; or the training was too short (segmentation.num_steps)"
            )
    return lines
