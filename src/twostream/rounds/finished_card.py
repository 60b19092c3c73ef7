"""The card of a finished model: what was known in the project, as ``card.json`` and as text for people.

Knows the project, its ledger and the form of the card; must not know how anything is trained or scored.
"""

from __future__ import annotations

import datetime
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from twostream.candidates.thresholds import Thresholds
from twostream.models.segmentation.card import (
    CHECKPOINT_NAME,
    ONNX_NAME,
    FileFact,
    GreyFacts,
    ModelCard,
    ThresholdFacts,
    sha256_of,
)
from twostream.models.segmentation.train import Segmenter, stride_of
from twostream.project.project import Project, versions
from twostream.project.status import judged_sentence

if TYPE_CHECKING:
    from twostream.rounds.finish import Taught

EXPECTED = "expected"
"""What a label of the scorer teaches (``lessons.Lesson``)."""
NAMES = {"finished": "finished model", "last_s": "last S of the loop", "s_0": "S_0 ({})"}
"""{model in the scores: its name for people}; what S_0 had learned from is filled in."""
TAUGHT = {
    "mask": "confirmed masks",
    "exchanged": "masks with exchanged sides",
    "drawn": "drawn masks",
    "background": "masks or windows that hold no object",
    "ignore": "wrong shapes, whose voxels teach nothing",
}
"""{what a lesson teaches: in words}."""


def card_of(
    project: Project,
    segmenter: Segmenter,
    taught: Taught,
    thresholds: Thresholds,
    scores: dict[str, Any],
    *,
    license_: str,
    folder: Path,
) -> ModelCard:
    """The card of the finished S, whose files lie in ``folder`` already."""
    config, image = project.config, project.image
    assert thresholds.threshold is not None and thresholds.final_threshold is not None
    fold_zyx = segmenter.network.fold_zyx
    z, y, x = (v * f for v, f in zip(image.voxel_size_nm, fold_zyx, strict=True))
    names = {"checkpoint": CHECKPOINT_NAME, "onnx": ONNX_NAME}
    files = {
        kind: FileFact(name=name, sha256=sha256_of(folder / name))
        for kind, name in names.items()
        if (folder / name).exists()
    }
    min_nm3 = config.candidates.min_object_nm3
    return ModelCard(
        task=config.task,
        voxel_size_nm=image.voxel_size_nm,
        channels=project.task.channels,
        pixel_size_nm=(z, y, x),
        fold_zyx=fold_zyx,
        stride_zyx=stride_of(segmenter),
        head=segmenter.architecture["head"],
        grey=GreyFacts(mean=segmenter.mean, std=segmenter.std, window=config.image.window),
        segmentation=config.segmentation,
        decoding=config.decoding,
        thresholds=ThresholdFacts(
            threshold=thresholds.threshold,
            final_threshold=thresholds.final_threshold,
            min_score=thresholds.min_score,
            min_object_nm3=project.task.min_object_nm3 if min_nm3 is None else min_nm3,
        ),
        files=files,
        trained_on=_trained_on(project, taught),
        scores=scores,
        project={"id": project.id, "seed": config.seed, "num_rounds": max(project.ledger.scores())},
        software=versions(),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        license=license_,
    )


def _trained_on(project: Project, taught: Taught) -> dict[str, Any]:
    """Labels and answers that S learned from, counted."""
    boxes = project.boxes
    num_expected = sum(lesson.teaches == EXPECTED for lesson in taught.lessons)
    answers = [answer for answer in project.ledger.current_answers() if not answer.is_retraction]
    return {
        "start": taught.start,
        "began_with_model": None if project.config.model is None else project.config.model.sha256,
        "num_steps": len(taught.training.losses),
        "labels_boxes": [str(box) for box in boxes.labels],
        "validation_box": str(boxes.val) if boxes.val else None,
        "test_box": str(boxes.test) if boxes.test else None,
        "num_label_voxels": sum(box.num_voxels for box in boxes.labels)
        - (boxes.val.num_voxels if boxes.val is not None else 0),
        "num_label_objects": _num_label_objects(project),
        "num_answers": project.ledger.spent()[0],
        "num_answers_by_kind": _counted(str(answer.kind) for answer in answers),
        "num_answers_by_annotator": _counted(answer.annotator for answer in answers),
        "annotation_seconds": project.ledger.spent()[1],
        "num_lessons": len(taught.lessons) - num_expected,
        "num_lessons_by_what_they_teach": _counted(one.teaches for one in taught.lessons if one.teaches != EXPECTED),
        "num_scorer_labels": num_expected,
        "judged": taught.choice.detail(),
    }


def _num_label_objects(project: Project) -> int:
    """Objects of the labels boxes that lie at least partly outside the validation box."""
    found: set[int] = set()
    for box in project.boxes.labels:
        instances = project.task.instances(project.labels.read(box)).copy()
        if project.boxes.val is not None:
            instances[project.boxes.val.intersection(box).relative_to(box).slices] = 0
        found |= set(np.unique(instances).tolist())
    return len(found - {0})


def _counted(words: Any) -> dict[str, int]:
    return dict(sorted(Counter(words).items()))


def card_text(card: ModelCard) -> str:
    """The card for people, as Markdown."""
    learned = card.trained_on
    size = " x ".join(f"{v:g}" for v in card.voxel_size_nm)
    lines = [
        f"# Model card: {card.task}",
        "",
        f"A segmentation model (S) for {card.task} in electron microscopy with voxels of {size} nm (Z, Y, X), finished "
        f"on {card.date} with twostream {card.software.get('twostream-connectomics', '')}. "
        f"Licence: {' '.join(card.license.split()) or 'not stated'}.",
        "",
        "    twostream predict --model card.json --image URI -o OUT",
        "",
        "## Trained on",
        "",
        f"- {learned['num_steps']} steps of training, {_told_start(learned)}",
        f"- labels: {_told_labels(learned)}",
        *_told_answers(learned),
        f"- {learned['num_scorer_labels']} labels of the scorer, of candidates that nobody was asked about",
        *_told_judged(learned),
        "",
        "## Scores",
        "",
        *(_score_table(card) or ["Nothing was scored: the project has no labels of a test box to compare with."]),
        "",
        "## How it is used",
        "",
        f"- input: grey values 0 to 255, normalised by mean {card.grey.mean:.1f} and standard deviation "
        f"{card.grey.std:.1f}{_told_window(card)}; pixels of {card.pixel_size_nm[1]:g} nm for the network",
        f"- output: probability of {', '.join(card.channels)}",
        f"- threshold {card.thresholds.final_threshold:g}, lowest mean probability {card.thresholds.min_score:.3f}, "
        f"smallest object {card.thresholds.min_object_nm3:g} nm^3, decoding by {card.decoding.method}",
        f"- files: {', '.join(fact.name for fact in card.files.values())}",
        "",
    ]
    return "\n".join(lines)


def _told(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in counts.items()) or "none"


def _told_start(learned: dict[str, Any]) -> str:
    """Which weights the training began with."""
    if sha256 := learned["began_with_model"]:
        return f"{learned['start']} (SHA-256 of its checkpoint: {sha256})"
    return f"{learned['start']}, which had learned from the labels alone"


def _told_answers(learned: dict[str, Any]) -> list[str]:
    """Answers by kind and by annotator, and which of them S learned from, as items of a list."""
    if not learned["num_answers_by_kind"]:
        return ["- answers: none"]
    taught = {TAUGHT.get(name, name): number for name, number in learned["num_lessons_by_what_they_teach"].items()}
    return [
        f"- {learned['num_answers']} answers by kind: {_told(learned['num_answers_by_kind'])}",
        f"- answers by annotator: {_told(learned['num_answers_by_annotator'])} "
        f"({learned['annotation_seconds'] / 3600:.2f} hours)",
        *(
            [f"- {learned['num_lessons']} of them were shown to the model, each with its surroundings: {_told(taught)}"]
            if learned["num_lessons"]
            else ["- none of them was shown to the model"]
        ),
    ]


def _told_judged(learned: dict[str, Any]) -> list[str]:
    """How much of the trained S was taken, as an item of a list; none in cards of older versions."""
    judged = learned.get("judged")
    if not judged:
        return []
    return [f"- {judged_sentence(judged, 'the S trained so', 'the last S of the loop')}"]


def _told_labels(learned: dict[str, Any]) -> str:
    if not learned["labels_boxes"]:
        return "none"
    boxes = " and ".join(learned["labels_boxes"])
    return (
        f"{learned['num_label_objects']} objects in {learned['num_label_voxels']} voxels ({boxes}, without the "
        f"validation box {learned['validation_box']})"
    )


def _told_window(card: ModelCard) -> str:
    return (
        ""
        if card.grey.window is None
        else " (the training image through the window {:g}:{:g})".format(*card.grey.window)
    )


def _score_table(card: ModelCard) -> list[str]:
    """Tables of scores, one for each box; with 95 percent intervals (bootstrap over objects)."""
    lines: list[str] = []
    s_0 = "the model that the project began with" if card.trained_on["began_with_model"] else "labels alone"
    for here in card.scores.values():
        lines += [
            f"{here['source'].capitalize()} ({here['box']}, {here['finished']['num_truth']} true objects).",
            "",
            "| model | F1 | precision | recall | foreground IoU |",
            "| --- | --- | --- | --- | --- |",
        ]
        for who, name in NAMES.items():
            one = here[who]
            shares = [_told_share(one[f"instance_{score}"]) for score in ("f1", "precision", "recall")]
            iou = one["foreground_iou"]
            lines.append(f"| {name.format(s_0)} | {' | '.join(shares)} | {'-' if iou is None else f'{iou:.3f}'} |")
        lines += [
            "",
            "In brackets: 95 percent intervals, of F1 by bootstrap over objects, of the others after Wilson.",
            "",
        ]
    return lines[:-1]


def _told_share(share: dict[str, Any]) -> str:
    if share["value"] is None:
        return "-"
    interval = "" if share["interval"] is None else " ({:.3f} to {:.3f})".format(*share["interval"])
    return f"{share['value']:.3f}{interval}"
