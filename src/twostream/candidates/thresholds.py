"""Every rule that chooses a threshold, in one place.

A round needs three: ``threshold`` makes candidates (recall counts), ``final_threshold`` makes the final segmentation
(foreground IoU counts), and ``min_score`` drops instances of the final segmentation that S hardly believes in. Each is
taken from the settings where they say so, else from labels, and ``min_score`` from answers once there are enough.
``tune`` searches the decoding settings on the validation box by the same rules.

Knows arrays, labels and the truth rule; must not know projects, rounds, models or people.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from pydantic import Field

from twostream.base import progress
from twostream.base.config import Config
from twostream.base.errors import InputError
from twostream.base.geometry import Box
from twostream.candidates.candidate import Candidate, clean, without_doubtful
from twostream.task import FOUND_IOU, Task
from twostream.task.answers import AnswerKind
from twostream.task.metrics import Overlaps, candidate_recall, foreground_iou, precision_recall_f1

DEFAULT_THRESHOLD = 0.5
"""Where there are neither labels nor a setting to choose one by."""
F1_TOLERANCE = 0.05
"""Of the proposing threshold. One object in twenty is worth as much; a labelled box holds few, so less is chance."""
IOU_TOLERANCE = 0.02
"""Of the final threshold, relative to the best foreground IoU; less is not worth a threshold far from 0.5."""
MIN_SCORE_F1_TOLERANCE = 0.02
"""Of ``min_score`` by labels: less does not justify dropping instances. Chosen on development tissue (LOG.md)."""
FEW = 5
"""With fewer true, or fewer false, instances or answers than this, ``min_score`` is not chosen by them."""


class CandidateConfig(Config):
    """How probability becomes candidates.

    Attributes:
        threshold: of the foreground probability; None chooses it on the labelled box, for recall.
        final_threshold: of the final segmentation; None chooses it on the validation box, for foreground IoU.
        min_score: of an instance of the final segmentation, its mean probability; None chooses it by the answers and,
            as long as there are few, on the validation box.
        min_recall: candidate recall (IoU > 0.2) wanted on the labelled box where S allows it.
        min_object_nm3: smaller ones are dust; None takes the task's.
    """

    threshold: float | None = Field(None, gt=0, lt=1)
    final_threshold: float | None = Field(None, gt=0, lt=1)
    min_score: float | None = Field(None, ge=0, le=1)
    min_recall: float = Field(0.9, ge=0, le=1)
    min_object_nm3: float | None = Field(None, ge=0)


@dataclass(frozen=True)
class Thresholds:
    """What turns a round's probability into candidates and into the final segmentation.

    Attributes:
        threshold: of the candidates, in [0, 1]; None where a source brings its instances.
        final_threshold: of the final segmentation, likewise.
        min_score: mean probability that an instance of the final segmentation needs.
        recall_on_labels: candidate recall on the labels box with ``threshold``; None without labels.
    """

    threshold: float | None
    final_threshold: float | None
    min_score: float
    recall_on_labels: float | None


@dataclass(frozen=True)
class Labelled:
    """A labelled box.

    Attributes:
        box: where it lies, in the voxels of the probability.
        labels: (Z, Y, X) in the task's label convention.
        ignore: (Z, Y, X), non-zero where nothing counts, or None.
    """

    box: Box
    labels: np.ndarray
    ignore: np.ndarray | None


def choose_thresholds(
    probability: np.ndarray,
    task: Task,
    config: CandidateConfig,
    min_voxels: int,
    *,
    labels: Labelled | None,
    validation: Labelled | None,
    asked: Sequence[Candidate] = (),
    y: np.ndarray | None = None,
) -> Thresholds:
    """The thresholds of a round.

    Args:
        probability: (C, Z, Y, X) uint8 of the whole image, 255 = 1.
        task: channels, decoding and label convention.
        config: what is fixed by the settings.
        min_voxels: smaller instances are dust.
        labels: the labels box; None without labels.
        validation: the validation box; None without labels.
        asked: candidates that were answered, with the mask and score they had when they were asked; no audits.
        y: (N,) answers to ``asked``: 1, 0, or NaN.

    Returns:
        See ``Thresholds``.
    """
    if labels is None or validation is None:
        threshold = config.threshold or DEFAULT_THRESHOLD
        recall, final = None, threshold
        min_score = 0.0
    else:
        level = probability[(slice(None), *labels.box.slices)]
        threshold, recall = proposing_threshold(level, labels.labels, labels.ignore, task, config, min_voxels)
        level = probability[(slice(None), *validation.box.slices)]
        truth, ignore = validation.labels, validation.ignore
        final = config.final_threshold or final_threshold(level, truth, ignore, task)
        segmentation = clean(task.decode(level, final), task, min_voxels)
        min_score = min_score_by_labels(segmentation, level[task.foreground], truth, ignore, task)
    if config.min_score is not None:
        min_score = config.min_score
    elif asked:
        assert y is not None
        segmentation = clean(task.decode(probability, final), task, min_voxels)
        now = mean_scores_at(asked, segmentation, probability[task.foreground], task)
        min_score = min_score_by_answers(np.array([c.score for c in asked]), y, now, until_then=min_score)
    return Thresholds(threshold, final, min_score, recall)


# -- candidates -------------------------------------------------------------------------------------------------------


def thresholds_to_try() -> np.ndarray:
    """Thresholds among which one is chosen; dense at the low end, where recall is won."""
    return np.array([0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9])


def proposing_threshold(
    probability: np.ndarray,
    truth: np.ndarray,
    ignore: np.ndarray | None,
    task: Task,
    config: CandidateConfig,
    min_voxels: int,
) -> tuple[float, float]:
    """Threshold of the candidates, on the labels box: recall first, then as many good candidates as possible.

    Args:
        probability: (C, Z, Y, X) uint8 of the labelled box.
        truth: (Z, Y, X) labels of the same box; ``ignore`` likewise or None.

    Returns:
        Threshold, and candidate recall on the labels box with it, both in [0, 1]. Thresholds must reach ``min_recall``
        at IoU > 0.2 (if none does: the highest recall there is). Of those whose F1 (good candidates against candidates
        and truth) comes within ``F1_TOLERANCE`` of the best, the one nearest to 0.5 is taken.
    """
    rows = []
    for threshold in thresholds_to_try() if config.threshold is None else [config.threshold]:
        segmentation = clean(task.decode(probability, threshold), task, min_voxels)
        overlaps = Overlaps.of(segmentation, truth, ignore)
        judged = task.judge(overlaps)
        table = task.instance_overlaps(overlaps)
        num_truth = max(len(table.truth_sizes()), 1)
        recall = candidate_recall(table, FOUND_IOU) if table.truth_sizes() else 0.0
        good = sum(j.truth > 0 for j in judged.values())
        rows.append((recall, 2 * good / (len(judged) + num_truth), float(threshold)))
    wanted = min(config.min_recall, max(row[0] for row in rows))
    enough = [row for row in rows if row[0] >= wanted]
    best = max(f1 for _, f1, _ in enough)
    # S was trained on this box and is sharp in it, so that all thresholds do about as well. A single object would pick
    # an extreme one, which swells or shrinks every mask elsewhere.
    recall, _, chosen = min((row for row in enough if row[1] >= best - F1_TOLERANCE), key=lambda row: abs(row[2] - 0.5))
    return chosen, recall


# -- the final segmentation -------------------------------------------------------------------------------------------


def final_threshold(probability: np.ndarray, labels: np.ndarray, ignore: np.ndarray | None, task: Task) -> float:
    """Threshold of the final segmentation over (C, Z, Y, X) uint8 and (Z, Y, X) labels.

    Of those within ``IOU_TOLERANCE`` of the best foreground IoU the one nearest to 0.5, because a validation box holds
    few objects.
    """
    hidden = None if ignore is None else (ignore > 0) & (labels == 0)
    foreground, truth = probability[task.foreground], labels > 0
    tried = [round(float(t), 2) for t in np.arange(0.2, 0.85, 0.05)]
    iou = {t: foreground_iou(foreground > 255 * t, truth, hidden) for t in tried}
    best = max((v for v in iou.values() if not math.isnan(v)), default=0.0)
    return min((t for t in tried if not iou[t] < (1 - IOU_TOLERANCE) * best), key=lambda t: (abs(t - 0.5), t))


def min_score_by_labels(
    segmentation: np.ndarray, probability: np.ndarray, labels: np.ndarray, ignore: np.ndarray | None, task: Task
) -> float:
    """Mean probability that an instance of the final segmentation needs, by labels that S was not trained on.

    Used until there are enough answers (``min_score_by_answers``). Objects cut by the faces of the box are compared as
    they are cut.

    Args:
        segmentation: (Z, Y, X) instances of the final segmentation, in the task's convention.
        probability: (Z, Y, X) uint8 foreground probability.
        labels: (Z, Y, X) in the task's convention; ``ignore`` likewise, non-zero where nothing counts, or None.

    Returns:
        The smallest value whose F1 comes within ``MIN_SCORE_F1_TOLERANCE`` of the best, because few objects decide
        here. 0, which keeps all, where fewer than ``FEW`` instances are true or fewer than ``FEW`` are false.
    """
    overlaps = Overlaps.of(segmentation, labels, ignore)
    kinds = {label: judged.kind for label, judged in task.judge(overlaps).items()}
    known = [label for label, kind in kinds.items() if kind is not AnswerKind.UNSURE]
    good = np.array([kinds[label] is AnswerKind.TRUE for label in known], bool)
    if min(good.sum(), (~good).sum()) < FEW:
        return 0.0
    instance = task.instances(segmentation).ravel()
    mean = np.bincount(instance, weights=probability.ravel()) / np.maximum(np.bincount(instance), 1) / 255
    score = mean[known]
    # Rounded down, because the score it is compared with later is summed in another order.
    tried = np.concatenate([[0.0], np.unique(np.floor(score * 1000) / 1000)])
    kept = score >= tried[:, None]
    num_truth = len(task.instance_overlaps(overlaps).truth_sizes())
    f1 = 2 * (kept & good).sum(1) / (kept.sum(1) + num_truth)
    return float(tried[np.argmax(f1 >= f1.max() - MIN_SCORE_F1_TOLERANCE)])


def min_score_by_answers(score: np.ndarray, y: np.ndarray, score_now: np.ndarray, *, until_then: float = 0.0) -> float:
    """Mean probability that an instance of the final segmentation needs, by the answers.

    On the labels box S is right about nearly everything, so only answers show how far its score can be trusted
    elsewhere. Two steps, because S has learned from these answers since: find the score cut with the best F1 among the
    answered candidates, by the scores that they had when they were asked; return the current score that rejects the
    same share of the true candidates.

    Args:
        score: (N,) score of each answered candidate when it was asked.
        y: (N,) 1, 0, or NaN.
        score_now: (N,) mean probability of the instance that the current final segmentation holds in its place, see
            ``mean_scores_at``. (Not that of the mask that was asked about, which ends at another threshold.)
        until_then: returned while fewer than ``FEW`` answers are true or fewer than ``FEW`` are false.

    Returns:
        In [0, 1]; 0 keeps all.
    """
    known = ~np.isnan(y)
    score, good, score_now = score[known], y[known] == 1, score_now[known]
    if min(good.sum(), (~good).sum()) < FEW:
        return until_then
    tried = np.concatenate([[0.0], np.unique(score)])
    kept = score >= tried[:, None]
    f1 = 2 * (kept & good).sum(1) / (kept.sum(1) + good.sum())
    cut = tried[np.argmax(f1)]
    return float(np.quantile(score_now[good], np.mean(score[good] < cut))) if cut else 0.0


def mean_scores_at(
    candidates: Sequence[Candidate], segmentation: np.ndarray, probability: np.ndarray, task: Task
) -> np.ndarray:
    """Mean probability of the instances that a segmentation holds in the place of candidates.

    Args:
        candidates: in the voxels of both volumes.
        segmentation: (Z, Y, X) in the task's label convention.
        probability: (Z, Y, X) uint8 foreground probability.
        task: joins the sides of an instance.

    Returns:
        (N,) of the instance that covers most of each candidate, in [0, 1]; 0 where none does.
    """
    instance = task.instances(segmentation)
    size = np.bincount(instance.ravel())
    mean = np.bincount(instance.ravel(), weights=probability.ravel()) / np.maximum(size, 1) / 255
    mean[0] = 0.0
    inside = [np.bincount(instance[c.box.slices][c.mask > 0], minlength=1) for c in candidates]
    return np.array([mean[1 + int(n[1:].argmax())] if n[1:].any() else 0.0 for n in inside])


# -- tuning of the decoding -------------------------------------------------------------------------------------------

FEW_OBJECTS = 10
"""With fewer objects in the validation box the best setting is mostly luck."""


MASK_THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)


SEED_THRESHOLDS = (0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
"""The longer S has trained, the surer it is of what lies between two neighbours: only a high level parts them."""


CONTOUR_THRESHOLDS = (0.3, 0.5, 0.8)


DISTANCE_LEVELS = (0.5, 0.6, 0.75)


@dataclass(frozen=True)
class Trial:
    """One setting and how it did.

    Attributes:
        threshold: of the mask.
        decoding: settings of the decoding that differ from the task's.
        min_score: mean probability that an instance needs, chosen with these settings; `propose` chooses it again.
        instance_f1: one-to-one at IoU 0.5, polarity with the sides the right way round.
        foreground_iou: of the mask.
        num_truth: objects that were there to be found.
    """

    threshold: float
    decoding: dict[str, Any]
    min_score: float
    instance_f1: float
    foreground_iou: float
    num_truth: int


def settings_to_try(task: Task) -> Iterator[tuple[float, dict[str, Any]]]:
    """(mask threshold, decoding settings) of components, and of watersheds with the channels that the task has."""
    for threshold in MASK_THRESHOLDS:
        yield threshold, {"method": "components"}
    contours = CONTOUR_THRESHOLDS if "contour" in task.channels else (task.decoding.seed_contour,)
    distances = DISTANCE_LEVELS if "distance" in task.channels else (task.decoding.seed_distance,)
    for threshold, seed, contour, distance in product(MASK_THRESHOLDS, SEED_THRESHOLDS, contours, distances):
        if seed > threshold or (len(task.channels) > 1 and task.num_sides == 1):
            yield (
                threshold,
                {
                    "method": "watershed",
                    "seed_threshold": seed,
                    "seed_contour": contour,
                    "seed_distance": distance,
                },
            )


def tune(
    probability: np.ndarray, labels: np.ndarray, ignore: np.ndarray | None, task: Task, min_voxels: int
) -> list[Trial]:
    """Try every setting on one box.

    What its faces cut is compared as it is cut, on both sides: a validation box holds few objects, and setting the cut
    ones aside, as the scores do, would leave next to none.

    Args:
        probability: (C, Z, Y, X) uint8.
        labels: (Z, Y, X) in the task's convention; ``ignore`` likewise, non-zero where nothing counts, or None.
        task: gives channels and the truth rule.
        min_voxels: smaller instances are dust.

    Returns:
        Best first: by instance F1, then foreground IoU, then the plainer setting; of settings with the same mask
        threshold and the same outcome one.

    Raises:
        InputError: the box holds no object.
    """
    hidden = None if ignore is None else (ignore > 0) & (labels == 0)
    if not (labels > 0).any():
        raise InputError("the validation box holds no object to tune on; make the project with another --val-box.")
    trials = []
    settings = list(settings_to_try(task))
    with progress.task("tune", total=len(settings)) as advance:
        for threshold, decoding in settings:
            tried = type(task)(task.voxel_size_nm, task.decoding.model_copy(update=decoding))
            segmentation = clean(tried.decode(probability, threshold), task, min_voxels)
            min_score = min_score_by_labels(segmentation, probability[task.foreground], labels, ignore, task)
            segmentation = without_doubtful(segmentation, probability[task.foreground], task, min_score)
            overlaps = Overlaps.of(segmentation, labels, ignore)
            judged = [j.kind for j in task.judge(overlaps).values() if j.kind is not AnswerKind.UNSURE]
            num_truth = len(task.instance_overlaps(overlaps).truth_sizes())
            hits = sum(kind is AnswerKind.TRUE for kind in judged)
            iou = foreground_iou(segmentation > 0, labels > 0, hidden)
            f1 = precision_recall_f1(hits, len(judged), num_truth)[2]
            trials.append(Trial(threshold, decoding, min_score, f1, iou, num_truth))
            advance(1)
    trials.sort(key=lambda t: (-t.instance_f1, -t.foreground_iou, t.decoding["method"] != "components"))
    distinct: dict[tuple[object, ...], Trial] = {}
    for trial in trials:  # settings that change nothing on this box say nothing: the plainest stands for them
        distinct.setdefault((trial.threshold, trial.decoding["method"], trial.instance_f1, trial.foreground_iou), trial)
    return list(distinct.values())
