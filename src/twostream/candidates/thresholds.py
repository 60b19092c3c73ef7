"""The rules that choose the thresholds of a round.

A round needs three. ``threshold`` turns probability into candidates and is chosen for recall. ``final_threshold`` turns
it into the final segmentation and is chosen for foreground IoU. ``min_score`` drops instances of the final segmentation
with a low mean probability. Each is taken from the settings if they fix it, else chosen on labels; ``min_score`` is
chosen by what the scorer believes of the candidates once there are enough answers.

The final segmentation is what a lab takes home, and a threshold that jumps from round to round makes it worse without
any change of S. Therefore, among the values that are nearly as good as the best, ``final_threshold`` is the one nearest
to that of the round before, and ``min_score`` the lowest.

Knows volumes, labels and the truth rule; must not know projects, rounds or models.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from twostream.base.config import Config
from twostream.base.geometry import Box, overlapping
from twostream.candidates.candidate import Candidate, clean, corners, shared_voxels
from twostream.candidates.proposing import propose
from twostream.task import FOUND_IOU, Task
from twostream.task.metrics import Overlaps, foreground_iou, found_objects, hidden_voxels
from twostream.volume import Volume
from twostream.volume.stage import Stage

DEFAULT_THRESHOLD = 0.5
"""Used for candidates and the final segmentation if there are no labels and the settings fix none."""


class CandidateConfig(Config):
    """How probability becomes candidates and the final segmentation.

    Attributes:
        threshold: foreground probability above which a voxel belongs to a candidate; None chooses it on the labels
            boxes, for recall.
        final_threshold: the same for the final segmentation; None chooses it on the validation box, for foreground
            IoU.
        min_score: mean probability that an instance of the final segmentation needs; None chooses it by answers and
            scorer and, as long as there are too few answers, on the validation box.
        min_recall: candidate recall (IoU > 0.2) that ``threshold`` must reach on the labels boxes, if any threshold
            does.
        min_object_nm3: volume in nm^3 below which an instance is dropped as too small; None takes the task's.
        ask_on_padding: whether candidates may be asked about where the image holds one single grey value (``padding``).
    """

    threshold: float | None = Field(None, gt=0, lt=1)
    final_threshold: float | None = Field(None, gt=0, lt=1)
    min_score: float | None = Field(None, ge=0, le=1)
    min_recall: float = Field(0.9, ge=0, le=1)
    min_object_nm3: float | None = Field(None, ge=0)
    ask_on_padding: bool = False


@dataclass(frozen=True)
class Thresholds:
    """The thresholds of a round.

    Attributes:
        threshold: foreground probability above which a voxel belongs to a candidate, in [0, 1]; None if the instances
            come from a source (``sources``) and nothing is decoded.
        final_threshold: the same for the final segmentation.
        min_score: mean probability that an instance of the final segmentation needs, in [0, 1].
        recall_on_labels: candidate recall on the labels boxes with ``threshold``; None without labels.
    """

    threshold: float | None
    final_threshold: float | None
    min_score: float
    recall_on_labels: float | None


@dataclass(frozen=True)
class LabelledBox:
    """A box of the image with its true labels.

    Attributes:
        box: in voxels of the image.
        labels: (Z, Y, X) over ``box``, integers in the task's label convention.
        ignore: (Z, Y, X) over ``box``, non-zero where the truth is unknown; None if it is known everywhere.
    """

    box: Box
    labels: np.ndarray
    ignore: np.ndarray | None


@dataclass(frozen=True)
class Beliefs:
    """Candidates of a round after its batch was answered, and how probably each is true.

    Attributes:
        candidates: N candidates with the mask and the score that they had in that round. Audits must not be among
            them, because they estimate accuracy without influencing it.
        true: (N,) float in [0, 1]: 1 or 0 where an answer says so, else the scorer's probability.
        num_true, num_false: answers of either kind.
    """

    candidates: Sequence[Candidate]
    true: np.ndarray
    num_true: int
    num_false: int

    @property
    def are_enough(self) -> bool:
        """Whether ``min_score`` may be chosen by them."""
        return min(self.num_true, self.num_false) >= MIN_OF_EACH


def choose_thresholds(
    probability: Volume,
    task: Task,
    config: CandidateConfig,
    min_voxels: int,
    *,
    labels: Sequence[LabelledBox],
    validation: LabelledBox | None,
    believed: Beliefs | None = None,
    previous: Thresholds | None = None,
    stage: Stage | None = None,
) -> Thresholds:
    """Choose the thresholds of a round.

    Args:
        probability: (C, Z, Y, X) uint8 over the whole image, 255 = 1.
        task: gives channels, decoding and label convention.
        config: thresholds that the settings fix are used as they are.
        min_voxels: instances of fewer voxels are dropped.
        labels: the labels boxes; empty without labels.
        validation: the validation box; None without labels.
        believed: candidates of the round before, and how probably each is true; None before the first answers.
        previous: thresholds of the round before; None in round 0.
        stage: as for ``propose``.
    """
    near = DEFAULT_THRESHOLD if previous is None or previous.final_threshold is None else previous.final_threshold
    if not labels or validation is None:
        threshold = config.threshold or DEFAULT_THRESHOLD
        final, recall, min_score = config.final_threshold or threshold, None, 0.0
    else:
        threshold, recall = proposing_threshold(probability, labels, task, config, min_voxels)
        level = probability.read(validation.box)
        truth, ignore = validation.labels, validation.ignore
        final = config.final_threshold or final_threshold(level, truth, ignore, task, near=near)
        segmentation = clean(task.decode(level, final), task, min_voxels)
        min_score = min_score_by_labels(segmentation, level[task.foreground], truth, ignore, task)
    if config.min_score is not None:
        min_score = config.min_score
    elif believed is not None and believed.are_enough:
        now = mean_scores_at(believed.candidates, propose(probability, task, final, min_voxels, stage=stage))
        score = np.array([c.score for c in believed.candidates])
        min_score = min_score_by_beliefs(score, believed.true, now)
    return Thresholds(threshold, final, min_score, recall)


# -- candidates -------------------------------------------------------------------------------------------------------


PROPOSING_THRESHOLDS = (
    *(0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45),
    *(0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9),
)
"""Thresholds among which that of the candidates is chosen."""
F1_TOLERANCE = 0.05
"""F1 that the proposing threshold may lose against the best one: labels boxes hold few objects, so that a smaller
difference is chance."""


@dataclass(frozen=True)
class _Counts:
    """How well instances fit the truth of some boxes; objects are counted in each box, with their parts inside it.

    Attributes:
        num_found: truth objects that some instance overlaps with an IoU above ``FOUND_IOU``.
        num_truth: truth objects.
        num_good: instances that hit a truth object by the truth rule.
        num_judged: instances.
    """

    num_found: int
    num_truth: int
    num_good: int
    num_judged: int

    @classmethod
    def of(cls, segmentations: Iterable[np.ndarray], boxes: Sequence[LabelledBox], task: Task) -> _Counts:
        """Count over boxes.

        Args:
            segmentations: (Z, Y, X) labels in the task's convention, one array per box.
            boxes: with their truth.
            task: gives the truth rule.
        """
        rows = []
        for segmentation, box in zip(segmentations, boxes, strict=True):
            overlaps = Overlaps.of(segmentation, box.labels, box.ignore)
            table, judged = task.instance_overlaps(overlaps), task.judge(overlaps)
            num_good = sum(one.truth > 0 for one in judged.values())
            rows.append((len(found_objects(table, FOUND_IOU)), len(table.truth_sizes()), num_good, len(judged)))
        return cls(*map(sum, zip(*rows, strict=True)))

    @property
    def recall(self) -> float:
        """Share of the truth objects that were found; NaN without truth objects."""
        return self.num_found / self.num_truth if self.num_truth else math.nan


def recall_on_labels(segmentation: np.ndarray, boxes: Sequence[LabelledBox], task: Task) -> float | None:
    """Candidate recall (IoU > 0.2) of a segmentation of the whole image on labels boxes; None without truth objects.

    Args:
        segmentation: (Z, Y, X) labels in the task's convention.
        boxes: the labels boxes; an object that a face cuts counts with its part inside the box.
        task: gives the label convention.
    """
    recall = _Counts.of((segmentation[one.box.slices] for one in boxes), boxes, task).recall
    return None if math.isnan(recall) else recall


def proposing_threshold(
    probability: Volume, boxes: Sequence[LabelledBox], task: Task, config: CandidateConfig, min_voxels: int
) -> tuple[float, float]:
    """Choose the threshold of the candidates on the labels boxes: recall first, then F1.

    Only thresholds whose candidate recall (IoU > 0.2) reaches ``config.min_recall`` are considered; if none does, those
    with the highest recall. Of the ones whose F1 is within ``F1_TOLERANCE`` of the best, the one nearest to 0.5 is
    chosen.

    Args:
        probability: (C, Z, Y, X) uint8 over the whole image, 255 = 1.
        boxes: the labels boxes. Each is decoded by itself, and an object that a face cuts counts with its part inside.
        task: gives decoding and the truth rule.
        config: ``min_recall``; if ``threshold`` is set, that one is taken and only its recall is computed.
        min_voxels: instances of fewer voxels are dropped.

    Returns:
        The threshold, and the candidate recall with it on the labels boxes; both in [0, 1].
    """
    levels = [probability.read(one.box) for one in boxes]
    rows = []
    for threshold in PROPOSING_THRESHOLDS if config.threshold is None else [config.threshold]:
        decoded = (clean(task.decode(level, threshold), task, min_voxels) for level in levels)
        counts = _Counts.of(decoded, boxes, task)
        recall = counts.recall if counts.num_truth else 0.0
        rows.append((recall, 2 * counts.num_good / (counts.num_judged + max(counts.num_truth, 1)), float(threshold)))
    wanted = min(config.min_recall, max(row[0] for row in rows))
    enough = [row for row in rows if row[0] >= wanted]
    best = max(f1 for _, f1, _ in enough)
    # S was trained on these boxes, so that nearly all thresholds do equally well here. Without the tolerance, one
    # object could decide for an extreme threshold, with which all masks elsewhere would be too large or too small.
    recall, _, chosen = min((row for row in enough if row[1] >= best - F1_TOLERANCE), key=lambda row: abs(row[2] - 0.5))
    return chosen, recall


# -- the final segmentation -------------------------------------------------------------------------------------------


FINAL_THRESHOLDS = tuple(round(float(t), 2) for t in np.arange(0.2, 0.85, 0.05))
"""Thresholds among which that of the final segmentation is chosen."""
IOU_TOLERANCE = 0.02
"""Foreground IoU that the final threshold may lose against the best one, as a share of it: a smaller difference does
not justify a threshold far from that of the round before."""


def final_threshold(
    probability: np.ndarray,
    labels: np.ndarray,
    ignore: np.ndarray | None,
    task: Task,
    *,
    near: float = DEFAULT_THRESHOLD,
) -> float:
    """Choose the threshold of the final segmentation on the validation box, by foreground IoU.

    Of the thresholds within ``IOU_TOLERANCE`` of the best, the one nearest to ``near`` is chosen, because a validation
    box holds few objects.

    Args:
        probability: (C, Z, Y, X) uint8 over the validation box, 255 = 1.
        labels: (Z, Y, X) true labels of the same box.
        ignore: (Z, Y, X), non-zero where the truth is unknown; None if it is known everywhere.
        task: gives the foreground channel.
        near: the threshold of the round before.

    Returns:
        In [0, 1].
    """
    hidden = hidden_voxels(ignore, labels)
    foreground, truth = probability[task.foreground], labels > 0
    iou = {t: foreground_iou(foreground > 255 * t, truth, hidden) for t in FINAL_THRESHOLDS}
    best = max((v for v in iou.values() if not math.isnan(v)), default=0.0)
    # "not less" also accepts NaN, the IoU of two empty masks.
    enough = (t for t in FINAL_THRESHOLDS if not iou[t] < (1 - IOU_TOLERANCE) * best)
    return min(enough, key=lambda t: (round(abs(t - near), 6), t))


# -- the lowest mean probability of an instance -----------------------------------------------------------------------

MIN_SCORE_F1_TOLERANCE = 0.02
"""F1, or expected F1, that ``min_score`` may lose against the best: a smaller gain does not justify dropping instances.
Chosen on development tissue (LOG.md)."""
MAX_REJECTED = 0.1
"""Share of what is believed true that ``min_score`` may reject where answers and scorer choose it. The scores of a weak
S lie close together and differ from tissue to tissue, so a cut that rejects more can reject nearly all elsewhere.
Chosen on development data together with the tolerance (LOG.md)."""
MIN_OF_EACH = 5
"""``min_score`` is chosen by labels, or by answers and scorer, only if at least this many are true and this many are
false."""


def min_score_by_labels(
    segmentation: np.ndarray, probability: np.ndarray, labels: np.ndarray, ignore: np.ndarray | None, task: Task
) -> float:
    """Choose ``min_score`` on labels that S was not trained on, as long as there are too few answers.

    Objects cut by the faces of the box count too: only the parts inside the box are compared.

    Args:
        segmentation: (Z, Y, X) instances of the final segmentation over the box, in the task's label convention.
        probability: (Z, Y, X) uint8 foreground probability, 255 = 1.
        labels: (Z, Y, X) true labels of the same box.
        ignore: (Z, Y, X), non-zero where the truth is unknown; None if it is known everywhere.
        task: gives the label convention and the truth rule.

    Returns:
        In [0, 1]: the smallest value whose F1 is within ``MIN_SCORE_F1_TOLERANCE`` of the best, because the box holds
        few objects. 0, which keeps all, if fewer than ``MIN_OF_EACH`` instances are true or fewer than that are false.
    """
    found = task.detection(Overlaps.of(segmentation, labels, ignore))
    counted = sorted(found.truth_of)
    good = np.array([found.truth_of[label] > 0 for label in counted], bool)
    if min(good.sum(), (~good).sum()) < MIN_OF_EACH:
        return 0.0
    score = _mean_probabilities(task.instances(segmentation), probability)[counted]
    # Rounded down, because the scores that it is compared with later are summed in another order.
    tried = np.concatenate([[0.0], np.unique(np.floor(score * 1000) / 1000)])
    kept = score >= tried[:, None]
    f1 = 2 * (kept & good).sum(1) / (kept.sum(1) + found.num_truth)
    return float(tried[np.argmax(f1 >= f1.max() - MIN_SCORE_F1_TOLERANCE)])


def min_score_by_beliefs(score: np.ndarray, true: np.ndarray, score_now: np.ndarray) -> float:
    """Choose ``min_score`` by answers and scorer.

    On the labels boxes S is right about nearly everything, so only answers show how far its score can be trusted
    elsewhere, and the scorer carries them to the candidates that nobody answered. S has learned from them since, so its
    current scores of the same candidates are too good to choose by. Therefore two steps: of the cuts c of the old
    scores that reject at most ``MAX_REJECTED`` of what is true, those whose expected F1, 2 sum(p_i, s_i >= c) / (number
    of s_i >= c + sum(p_i)), is within ``MIN_SCORE_F1_TOLERANCE`` of their best, the lowest; then the current score that
    rejects the same share of what is true. Candidates in whose place nothing is found any more are left out of that
    share: no threshold rejects them. The lowest, because F1 falls slowly below the best cut and steeply above it, and
    the current scores are still higher here than where S has learned nothing.

    Args:
        score: (N,) score of each candidate in the round of its mask.
        true: (N,) probability that it is true, in [0, 1].
        score_now: (N,) mean probability of the instance that the current final segmentation has in the place of each
            candidate (``mean_scores_at``). Not that of the candidate's own mask, which had another threshold.

    Returns:
        In [0, 1]: that current score; 0 keeps all.
    """
    if true[score_now > 0].sum() == 0:  # nothing by which to choose
        return 0.0
    order = np.argsort(score, kind="stable")
    score, true, score_now = score[order], true[order], score_now[order]
    firsts = np.flatnonzero(np.diff(score, prepend=-1.0) > 0)  # equal scores stay together
    kept = len(score) - firsts  # instances with at least the score of each
    f1 = 2 * np.cumsum(true[::-1])[::-1][firsts] / (kept + true.sum())
    rejected = np.concatenate([[0.0], np.cumsum(true)])[firsts] / true.sum()
    allowed = rejected <= MAX_REJECTED
    allowed &= f1 >= f1[allowed].max() - MIN_SCORE_F1_TOLERANCE
    lowest = int(np.argmax(allowed))
    if lowest == 0:
        return 0.0
    true, score_now = true[score_now > 0], score_now[score_now > 0]
    by_now = np.argsort(score_now, kind="stable")
    reached = np.cumsum(true[by_now]) / true.sum()
    row = min(int(np.searchsorted(reached, rejected[lowest], side="right")), len(reached) - 1)
    return float(score_now[by_now][row])


def mean_scores_at(candidates: Sequence[Candidate], instances: Sequence[Candidate]) -> np.ndarray:
    """Scores of the instances that lie in the place of candidates.

    Args:
        candidates: N candidates.
        instances: of another segmentation of the same image.

    Returns:
        (N,) float in [0, 1]: for each candidate, the score of the instance that covers most of it; 0 if it overlaps
        none.
    """
    score, covered = np.zeros(len(candidates)), np.zeros(len(candidates), int)
    for row, other in overlapping(corners(candidates), corners(instances)).tolist():
        instance = instances[other]
        shared = shared_voxels(candidates[row], instance)[1]
        if shared > covered[row]:
            score[row], covered[row] = instance.score, shared
    return score


def _mean_probabilities(instances: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Mean probability of every instance.

    Args:
        instances: (Z, Y, X) instance labels 0..L.
        probability: (Z, Y, X) uint8, 255 = 1.

    Returns:
        (L + 1,) float in [0, 1], by label; 0 for labels that do not occur.
    """
    size = np.bincount(instances.ravel())
    return np.bincount(instances.ravel(), weights=probability.ravel()) / np.maximum(size, 1) / 255
