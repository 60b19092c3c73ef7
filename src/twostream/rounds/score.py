"""The step `score`: scores of a round on the test box and on the pool, and the criteria for stopping.

What each score means is in ``docs/scores.md``.

Knows a round's files, its pool and the truth; must not know how anything is trained or asked.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from twostream.base import progress
from twostream.base.atomic import write_text
from twostream.base.geometry import Box
from twostream.candidates.candidate import Candidate, clean, drop_low_scores
from twostream.candidates.stored import StoredCandidates
from twostream.candidates.truth import Truth
from twostream.project.ledger import Ledger
from twostream.project.probabilities import read_probabilities, write_probabilities
from twostream.project.project import Detail, Project
from twostream.project.recall import recall_estimate
from twostream.project.segmentation import segmentation_of
from twostream.query.scorer import has_answers
from twostream.query.stopping import agreement, audited_right, expected_right
from twostream.rounds.pool import RoundPool, pool_of, probabilities_of
from twostream.rounds.predict import probability_of
from twostream.task import FOUND_IOU, GOOD_IOU, Judgement, Task
from twostream.task.answers import AnswerKind
from twostream.task.metrics import (
    CleftDistances,
    Detection,
    Overlaps,
    VoxelCounts,
    candidate_recall,
    hidden_voxels,
    match_one_to_one,
    roi_accuracy,
    wilson_interval,
)
from twostream.volume import Volume

STRICT_IOU = 0.75
"""IoU of the stricter scores (``instance_f1_75``, ``average_precision_75``), which show how well outlines fit."""


def score_step(project: Project, round_number: int, truth: Truth | None) -> Detail:
    """Write ``metrics.json`` and ``pool.npz`` of the round, and record the metrics in the ledger.

    Args:
        project: the project.
        round_number: the round.
        truth: labels of the whole image. Without them the labels of the project are used, if the test box has some.
    """
    recorded = project.ledger.scores()
    if round_number in recorded:  # the process was killed after the scores were recorded
        write_metrics(project, round_number, recorded[round_number])
        return {}
    num_answers, seconds = project.ledger.spent()
    proposed = project.ledger.finished_steps()[(round_number, "propose")]
    metrics: dict[str, Any] = {
        "round": round_number,
        "num_answers": num_answers,
        "annotation_seconds": seconds,
        "num_candidates": proposed["num_candidates"],
        "num_truth": None,
        "scores": {},
    }
    if judged_refit := project.ledger.finished_steps().get((round_number, "refit"), {}).get("judged"):
        metrics["refit"] = judged_refit
    judged: dict[int, bool] = {}
    if project.boxes.test is not None:
        on_test_box, judged = _metrics_on_test_box(project, round_number, truth, proposed)
        metrics |= on_test_box
    pool = pool_of(project, round_number)
    _store_probabilities(project, round_number, pool, judged)
    if truth is not None:
        y = np.where(np.isnan(pool.y) & pool.excluded, _answers_with_audits(project, pool), pool.y)
        shown = ~pool.faint
        members = pool.candidates.where(shown)
        metrics["scores"]["curated_accuracy"] = curated_accuracy(pool.probability[shown], y[shown], truth, members)
    if stopping := stopping_criteria(project, round_number, pool):
        metrics["stopping"] = stopping
    if project.boxes.test is None:
        # Accuracy is never shown without recall, which is known only where there are labels.
        metrics["audit"] = audit_estimate(project.ledger)
        metrics["candidate_recall_on_labels"] = proposed["recall_on_labels"]
    if estimate := recall_estimate(project, before_round=round_number):
        metrics["recall_by_windows"] = estimate.row()
    metrics = plain(metrics)
    write_metrics(project, round_number, metrics)
    project.ledger.store_score(round_number, metrics)
    return {}


def store_probabilities_again(project: Project, round_number: int) -> None:
    """Write ``pool.npz`` of a round that has been scored; what is true on the test box is read from the labels."""
    judged: dict[int, bool] = {}
    if project.boxes.test is not None and project.config.labels is not None:
        truth = Truth(project.labels, project.labels_ignore, project.task)
        candidates = project.candidates(round_number)
        judged = _judged(Region.read(segmentation_of(project, round_number), truth, project.boxes.test), candidates)
    _store_probabilities(project, round_number, pool_of(project, round_number), judged)


def _store_probabilities(project: Project, round_number: int, pool: RoundPool, judged: Mapping[int, bool]) -> None:
    """Write ``pool.npz``; ``judged`` is {candidate id: whether it is true} of those that count on the test box."""
    found = probabilities_of(project, round_number, pool)
    on_test_box = np.array([judged.get(i, math.nan) for i in found.ids.tolist()], float)
    write_probabilities(project, round_number, replace(found, on_test_box=on_test_box))


def _judged(region: Region, candidates: StoredCandidates) -> dict[int, bool]:
    """{candidate id: whether it is true} of the candidates that count in a region."""
    id_of = dict(zip(candidates.column("label").tolist(), candidates.ids.tolist(), strict=True))
    return {id_of[label]: judgement.kind is AnswerKind.TRUE for label, judgement in region.judged().items()}


def write_metrics(project: Project, round_number: int, metrics: Mapping[str, Any]) -> None:
    """Write ``metrics.json`` of a round."""
    write_text(project.path(round_number, "metrics.json"), json.dumps(metrics, indent=1) + "\n")


def _metrics_on_test_box(
    project: Project, round_number: int, truth: Truth | None, proposed: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[int, bool]]:
    """The part of ``metrics.json`` that is measured on the test box; empty if nothing says what is true there.

    Args:
        project: a project with a test box.
        round_number: the round.
        truth: labels of the whole image; None takes the labels of the project.
        proposed: what the ledger records of the step `propose`.

    Returns:
        The metrics, and {candidate id: whether it is true} of the candidates that count.
    """
    if truth is None:
        if project.config.labels is None:
            progress.say("  the test box is not scored: the project has no labels, and --truth was not given")
            return {}, {}
        truth = Truth(project.labels, project.labels_ignore, project.task)
    assert project.boxes.test is not None
    segmentation = segmentation_of(project, round_number)
    candidates = project.candidates(round_number)
    score_of = dict(zip(candidates.column("label").tolist(), candidates.column("score").tolist(), strict=True))
    region = Region.read(segmentation, truth, project.boxes.test)
    scores: dict[str, Any] = scores_on_test_box(
        segmentation,
        probability_of(project, round_number),
        truth,
        score_of,
        project.boxes.test,
        region=region,
        threshold=proposed["final_threshold"],
        min_voxels=project.min_voxels,
        min_score=proposed.get("min_score", 0.0),
    )
    num_truth, num_candidates = scores.pop("num_test_truth"), scores.pop("num_test_candidates")
    metrics = {"num_truth": num_truth, "num_test_candidates": num_candidates, "scores": scores}
    return metrics, _judged(region, candidates)


def scores_on_test_box(
    segmentation: Volume,
    probability: Volume,
    truth: Truth,
    score_of: Mapping[int, float],
    test_box: Box,
    *,
    threshold: float | None,
    min_voxels: int,
    min_score: float = 0.0,
    region: Region | None = None,
) -> dict[str, float]:
    """Scores of the candidates and of the final segmentation on the test box.

    Args:
        segmentation: (Z, Y, X) labels of the round's candidates.
        probability: (C, Z, Y, X) uint8, 255 = 1.
        truth: labels and ignore mask.
        score_of: {label: score} of the candidates of the round.
        test_box: the box to score. Objects that its border cuts count neither as found nor as missed, unless that
            border is also the border of the volume.
        threshold: probability at which the final segmentation is decoded; None if ``segmentation`` is the final one.
        min_voxels: smaller instances are dropped from the final segmentation.
        min_score: instances with a lower mean probability are dropped from the final segmentation.
        region: ``segmentation`` in the test box, if it has been compared with the truth already.

    Returns:
        {name: value}: the scores of ``docs/scores.md`` except ``curated_accuracy``, and ``num_test_candidates`` and
        ``num_test_truth``. NaN where there is nothing to score.
    """
    task = truth.task
    labels = truth.labels.read(test_box)
    ignore = None if truth.ignore is None else truth.ignore.read(test_box)
    proposed = region or Region.read(segmentation, truth, test_box)
    judged = proposed.judged()
    num_good = sum(judgement.kind is AnswerKind.TRUE for judgement in judged.values())
    if threshold is None:
        final_values = segmentation.read(test_box)
    else:
        level = probability.read(test_box)
        final_values = clean(task.decode(level, threshold), task, min_voxels)
        final_values = drop_low_scores(final_values, level[task.foreground], task, min_score)
    final = Region.of(final_values, labels, ignore, task, test_box, truth.labels.box)
    final_detection = final.detection()
    hidden = hidden_voxels(ignore, labels)
    voxels = VoxelCounts.of(final_values, labels, hidden)
    scores = {
        "candidate_recall": candidate_recall(proposed.instances, FOUND_IOU, truth=proposed.truth),
        "candidate_accuracy": num_good / len(judged) if judged else 0.0,
        "roi_accuracy": roi_accuracy(proposed.instances, FOUND_IOU, candidates=judged),
        "average_precision": proposed.detection().average_precision(score_of),
        "average_precision_75": proposed.detection(STRICT_IOU).average_precision(score_of),
        "instance_f1": final_detection.f1,
        "instance_f1_75": final.detection(STRICT_IOU).f1,
        "instance_precision": final_detection.precision,
        "instance_recall": final_detection.recall,
        "foreground_iou": voxels.foreground_iou,
        "mean_iou": voxels.mean_iou,
        "num_test_candidates": len(judged),
        "num_test_truth": len(proposed.truth),
    }
    if task.name == "cleft":
        distances = CleftDistances.of(final_values, labels, truth.labels.voxel_size_nm, ignore=hidden)
        scores["cleft_distance_false_positive_nm"] = distances.false_positive_nm
        scores["cleft_distance_false_negative_nm"] = distances.false_negative_nm
        scores["cremi_score_nm"] = distances.cremi_score_nm
    return scores


class Region:
    """A segmentation compared with the truth in one box, without the objects that the border of the box cuts.

    Attributes:
        table: overlaps of the label values of both.
        instances: overlaps of whole instances; for synapses both sides together.
        truth: labels of the true instances that count, because the border does not cut them.
        cut: labels of the segmented instances that the border cuts.
    """

    def __init__(self, table: Overlaps, truth: set[int], cut: set[int], task: Task) -> None:
        self.table, self.truth, self.cut, self._task = table, truth, cut, task
        self.instances = task.instance_overlaps(table)
        self._judgements = task.judge(table)

    @classmethod
    def of(
        cls, values: np.ndarray, labels: np.ndarray, ignore: np.ndarray | None, task: Task, box: Box, whole: Box
    ) -> Region:
        """Compare two arrays.

        Args:
            values: (Z, Y, X) labels of the segmentation in ``box``.
            labels: (Z, Y, X) true labels in ``box``.
            ignore: (Z, Y, X), non-zero where labels count neither as object nor as background, or None.
            task: gives the label convention and the truth rule.
            box: the box that is compared.
            whole: extent of the volume. Faces of ``box`` that are also faces of the volume cut nothing.
        """
        table = Overlaps.of(values, labels, ignore)
        instances = set(task.instance_overlaps(table).truth_sizes())
        cut_truth = _cut(task.instances(labels), box, whole)
        return cls(table, instances - cut_truth, _cut(task.instances(values), box, whole), task)

    @classmethod
    def read(cls, segmentation: Volume, truth: Truth, box: Box) -> Region:
        """Compare a segmentation with the truth in one box of both volumes."""
        ignore = None if truth.ignore is None else truth.ignore.read(box)
        return cls.of(segmentation.read(box), truth.labels.read(box), ignore, truth.task, box, truth.labels.box)

    def judged(self) -> dict[int, Judgement]:
        """{label: judgement by the truth rule} of every candidate that counts; see ``detection``."""
        counted = self.detection().truth_of
        return {label: judgement for label, judgement in self._judgements.items() if label in counted}

    def detection(self, min_iou: float = GOOD_IOU) -> Detection:
        """The candidates that count, each with the true instance that it finds.

        A candidate finds an instance if the two are matched one-to-one at ``min_iou`` or more and its sides are the
        right way round. It does not count if it lies on ignored voxels, if it is matched with an object that the
        border cuts, or if it has no match and is itself cut or lies mostly on cut objects. Whether it counts is decided
        at no more than ``GOOD_IOU``, so that a stricter ``min_iou`` turns hits into misses but excludes no candidate.
        """
        matched = match_one_to_one(self.instances, min(min_iou, GOOD_IOU))
        truth_of = {}
        for label, judgement in self._judgements.items():
            partner, iou = matched.get(label, (0, 0.0))
            right = partner > 0 and self._task.same_way_round(self.table, label, partner)
            if (partner and partner not in self.truth) or (judgement.kind is AnswerKind.UNSURE and not right):
                continue
            if partner or not (label in self.cut or self._over_cut_truth(label)):
                truth_of[label] = partner if right and iou >= min_iou else 0
        return Detection(truth_of, len(self.truth))

    def _over_cut_truth(self, label: int) -> bool:
        """Whether most voxels that a candidate shares with the truth belong to objects that the border cuts."""
        table = self.instances
        mine = (table.candidate == label) & (table.truth > 0)
        shared = int(table.count[mine].sum())
        counted = np.isin(table.truth[mine], list(self.truth))
        return shared > 0 and int(table.count[mine][counted].sum()) * 2 < shared


def _cut(instances: np.ndarray, box: Box, whole: Box) -> set[int]:
    """Instance labels on those faces of ``box`` that lie inside ``whole``."""
    cut: set[int] = set()
    for axis in range(3):
        if box.offset_zyx[axis] > whole.offset_zyx[axis]:
            cut |= set(np.unique(instances.take(0, axis)).tolist())
        if box.stop_zyx[axis] < whole.stop_zyx[axis]:
            cut |= set(np.unique(instances.take(-1, axis)).tolist())
    return cut - {0}


def curated_accuracy(probability: np.ndarray, y: np.ndarray, truth: Truth, candidates: Sequence[Candidate]) -> float:
    """Share of the pool whose curated label is right: the answer if there is one, else whether p >= 0.5.

    Args:
        probability: (N,) float in [0, 1], probability of True by the shared scorer.
        y: (N,) float, answers 1 or 0; NaN where unanswered.
        truth: judges every candidate by its mask.
        candidates: the N candidates.

    Returns:
        A share in [0, 1]; NaN if the truth says nothing about any candidate.
    """
    kinds = [truth.judge(candidate).kind for candidate in candidates]
    known = np.array([kind is not AnswerKind.UNSURE for kind in kinds], bool)
    is_true = np.array([kind is AnswerKind.TRUE for kind in kinds], bool)
    label = np.where(np.isnan(y), probability >= 0.5, y == 1)
    return float((label == is_true)[known].mean()) if known.any() else math.nan


def audit_estimate(ledger: Ledger) -> dict[str, Any]:
    """Accuracy of the candidates, estimated from the audits.

    Returns:
        "candidate_accuracy": share of the audits that were answered True, or None without audits; "interval": its 95
        percent Wilson interval (low, high); "num_audited": number of audits with an answer.
    """
    verdicts = ledger.verdicts()
    audited = {query.candidate.id for query in ledger.queries() if query.is_audit}
    values = [verdicts[i].y for i in sorted(audited) if not math.isnan(verdicts[i].y)]
    low, high = wilson_interval(sum(v == 1 for v in values), len(values))
    estimate = sum(values) / len(values) if values else None
    return {"candidate_accuracy": estimate, "interval": [low, high], "num_audited": len(values)}


def stopping_criteria(project: Project, round_number: int, pool: RoundPool) -> Detail:
    """Criteria for stopping after a round, which compare its ``pool.npz`` with that of the round before.

    They are shown and never acted on. See ``query.stopping`` and ``docs/scores.md``.

    Args:
        project: the project.
        round_number: the round.
        pool: the pool of the round.

    Returns:
        Empty for round 0, which has no answers. Otherwise:
        "learned": whether the scorer has learned from answers, because there is one;
        "num_pool": number of candidates in the pool;
        "agreement": kappa of the labels of this round and the previous one; None if the scorer had not learned in both
        rounds, NaN if kappa is undefined;
        "num_shared": number of candidates that were in both pools, or None;
        "audited", "expected": the fields of an ``Estimate`` of how many labels are right, by audits and by the scorer
        itself; None without audits, or if the scorer has not learned or nothing is unanswered.
    """
    if round_number == 0:
        return {}
    proposed = ~pool.faint
    ids, learned = pool.ids[proposed].astype(np.uint64), has_answers(pool.y)
    criteria: Detail = {"learned": learned, "num_pool": len(ids), "agreement": None, "num_shared": None}
    before = read_probabilities(project, round_number - 1)
    if learned and before is not None and before.learned:
        criteria["agreement"], criteria["num_shared"] = agreement(
            before.ids[before.in_pool], before.probability[before.in_pool], ids, pool.probability[proposed]
        )
    answers = _answers_with_audits(project, pool)
    audits = pool.excluded & np.isnan(pool.y) & ~np.isnan(answers)
    audited = audited_right(pool.probability[audits], answers[audits])
    criteria["audited"] = asdict(audited) if audited.num else None
    criteria["expected"] = None
    unanswered = ~pool.excluded & proposed
    if learned and unanswered.any():
        committee = pool.ensemble(project.seed(round_number, "committee"))[:, unanswered]
        criteria["expected"] = asdict(expected_right(pool.probability[unanswered], committee))
    return criteria


def _answers_with_audits(project: Project, pool: RoundPool) -> np.ndarray:
    """(N,) float, answers to the rows of the pool like ``pool.y``, but with the answers to audits."""
    verdicts = project.ledger.verdicts()
    return np.array([verdicts[i].y if i in verdicts else math.nan for i in pool.ids.tolist()], float)


def plain(value: Any) -> Any:
    """``value`` as JSON can hold it: NaN becomes None, numpy numbers become Python's; floats get 6 decimals."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (float, np.floating)):
        return None if math.isnan(value) else round(float(value), 6)
    if isinstance(value, list):
        return [plain(v) for v in value]
    return int(value) if isinstance(value, np.integer) else value
