"""The scores of a round: how good S's proposals are on the test box, how good the curated pool is.

Knows a round's files and the truth; must not know models. What each score means is said in ``docs/scores.md``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from twostream.base import progress
from twostream.base.atomic import write_arrays, write_text
from twostream.base.geometry import Box
from twostream.candidates.candidate import Candidate, clean, drop_low_scores
from twostream.candidates.table import from_table, read_table
from twostream.candidates.truth import Truth
from twostream.project.ledger import Ledger
from twostream.project.project import Detail, Project
from twostream.query.scorer import has_both
from twostream.query.stopping import agreement, audited_right, expected_right
from twostream.rounds.pool import RoundPool, pool_of
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
from twostream.volume import Volume, open_volume

STRICT_IOU = 0.75
"""A second threshold beside ``GOOD_IOU``: what is found may still be drawn badly."""


def scores_on_test_box(
    segmentation: Volume,
    probability: Volume,
    truth: Truth,
    candidates: Sequence[Candidate],
    test_box: Box,
    *,
    threshold: float | None,
    min_voxels: int,
    min_score: float = 0.0,
) -> dict[str, float]:
    """Scores on the test box.

    Args:
        segmentation: (Z, Y, X) labels of the round's candidates.
        probability: (C, Z, Y, X) uint8.
        truth: labels and ignore mask.
        candidates: of the round.
        test_box: where to score. Objects cut by its border (unless that is the border of the volume) count neither
            as found nor as missed.
        threshold: of the final segmentation; None where ``segmentation`` is final as it stands.
        min_voxels: smaller instances of the final segmentation are dust.
        min_score: those of a lower mean probability are not believed.

    Returns:
        The scores of ``docs/scores.md`` but for ``curated_accuracy``; NaN where there is nothing to score.
    """
    task = truth.task
    labels = truth.labels.read(test_box)
    ignore = None if truth.ignore is None else truth.ignore.read(test_box)
    score_of = {c.label: c.score for c in candidates}
    values = segmentation.read(test_box)
    proposed = Region.of(values, labels, ignore, task, test_box, truth.labels.box)
    judged = proposed.judged()
    good = sum(judgement.kind is AnswerKind.TRUE for judgement in judged.values())
    final_values = values
    if threshold is not None:
        level = probability.read(test_box)
        final_values = clean(task.decode(level, threshold), task, min_voxels)
        final_values = drop_low_scores(final_values, level[task.foreground], task, min_score)
    final = Region.of(final_values, labels, ignore, task, test_box, truth.labels.box)
    final_detection = final.detection()
    hidden = hidden_voxels(ignore, labels)
    voxels = VoxelCounts.of(final_values, labels, hidden)
    scores = {
        "candidate_recall": candidate_recall(proposed.instances, FOUND_IOU, truth=proposed.truth),
        "candidate_accuracy": good / len(judged) if judged else 0.0,
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
    """A box of segmentation against truth, with what its border cuts set aside.

    Attributes:
        table: overlaps of raw label values.
        instances: the same with the sides of one object joined.
        truth: instance labels that count as objects to be found.
        cut: instance labels of the segmentation that the border cuts.
    """

    def __init__(self, table: Overlaps, truth: set[int], cut: set[int], task: Task) -> None:
        self.table, self.truth, self.cut, self._task = table, truth, cut, task
        self.instances = task.instance_overlaps(table)
        self._said = task.judge(table)

    @classmethod
    def of(
        cls, values: np.ndarray, labels: np.ndarray, ignore: np.ndarray | None, task: Task, box: Box, whole: Box
    ) -> Region:
        """From arrays over ``box``, which lies in the volume ``whole``."""
        table = Overlaps.of(values, labels, ignore)
        instances = set(task.instance_overlaps(table).truth_sizes())
        cut_truth = _cut(task.instances(labels), box, whole)
        return cls(table, instances - cut_truth, _cut(task.instances(values), box, whole), task)

    def judged(self) -> dict[int, Judgement]:
        """What the truth says of every candidate that counts at ``GOOD_IOU``; see ``detection``."""
        counted = self.detection().truth_of
        return {label: said for label, said in self._said.items() if label in counted}

    def detection(self, min_iou: float = GOOD_IOU) -> Detection:
        """Candidates that count, and the truth instances that they hit, the right way round, at ``min_iou`` or more.

        Candidates that count: not ignored, not matched with a cut object, not cut themselves without a match. For
        this, a match needs the smaller of ``min_iou`` and ``GOOD_IOU``: a stricter threshold turns hits into misses,
        it takes no candidate out of the count.
        """
        matched = match_one_to_one(self.instances, min(min_iou, GOOD_IOU))
        truth_of = {}
        for label, said in self._said.items():
            partner, iou = matched.get(label, (0, 0.0))
            right = partner > 0 and self._task.same_way_round(self.table, label, partner)
            if (partner and partner not in self.truth) or (said.kind is AnswerKind.UNSURE and not right):
                continue
            if partner or not (label in self.cut or self._over_cut_truth(label)):
                truth_of[label] = partner if right and iou >= min_iou else 0
        return Detection(truth_of, len(self.truth))

    def _over_cut_truth(self, label: int) -> bool:
        """Whether most of what a candidate shares with the truth belongs to objects that the border cuts."""
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
    """Share of the whole pool whose curated label is right: the answer where there is one, else the scorer's side.

    Args:
        probability: (N,) of the shared scorer.
        y: (N,) answers, NaN where unanswered.
        truth: judges every candidate by the mask that it carries.
        candidates: the N rows.
    """
    kinds = [truth.judge(candidate).kind for candidate in candidates]
    known = np.array([kind is not AnswerKind.UNSURE for kind in kinds], bool)
    is_true = np.array([kind is AnswerKind.TRUE for kind in kinds], bool)
    label = np.where(np.isnan(y), probability >= 0.5, y == 1)
    return float((label == is_true)[known].mean()) if known.any() else math.nan


def audit_estimate(ledger: Ledger) -> dict[str, Any]:
    """Accuracy of the candidates estimated from the audit share: value, 95 percent interval, number of audits."""
    verdicts = ledger.verdicts()
    audited = {query.candidate.id for query in ledger.queries() if query.is_audit}  # audits stay audits
    values = [verdicts[i].y for i in sorted(audited) if not math.isnan(verdicts[i].y)]
    low, high = wilson_interval(sum(v == 1 for v in values), len(values))
    estimate = sum(values) / len(values) if values else None
    return {"candidate_accuracy": estimate, "interval": [low, high], "num_audited": len(values)}


def plain(value: Any) -> Any:
    """JSON without NaN: NaN becomes null, floats are rounded beyond what means anything."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (float, np.floating)):
        return None if math.isnan(value) else round(float(value), 6)
    return int(value) if isinstance(value, np.integer) else value


POOL_NAME = "pool.npz"
"""What the scorer believed of every candidate of a round, for the next round to compare with."""


def score_step(project: Project, round_number: int, truth: Truth | None) -> Detail:
    """metrics.json of the round."""
    if round_number in project.ledger.scores():  # killed after the score was recorded
        write_text(
            project.path(round_number, "metrics.json"),
            json.dumps(project.ledger.scores()[round_number], indent=1) + "\n",
        )
        return {}
    num_answers, seconds = project.ledger.spent()
    detail = project.ledger.finished_steps()[(round_number, "propose")]
    labels_only = truth is None
    metrics: dict[str, Any] = {
        "round": round_number,
        "num_answers": num_answers,
        "annotation_seconds": seconds,
        "num_candidates": detail["num_candidates"],
        "num_truth": None,
        "scores": {},
    }
    test_box = project.boxes.test
    if test_box is not None and labels_only and project.config.labels is None:
        progress.say("  the test box is not scored: there are no labels, and no --truth came")
    elif test_box is not None:
        judge = truth or Truth(project.labels, project.labels_ignore, project.task)
        scores = scores_on_test_box(
            open_volume(str(project.path(round_number, "segmentation.zarr"))),
            open_volume(str(project.path(round_number, "probability.zarr"))),
            judge,
            from_table(read_table(project.path(round_number, "candidates.parquet"))),
            test_box,
            threshold=detail["final_threshold"],
            min_voxels=project.min_voxels,
            min_score=detail.get("min_score", 0.0),
        )
        metrics["num_truth"] = scores.pop("num_test_truth")
        metrics["num_test_candidates"] = scores.pop("num_test_candidates")
        metrics["scores"] = scores
    pool = pool_of(project, round_number)
    if not labels_only:
        assert truth is not None
        y = np.where(np.isnan(pool.y) & pool.excluded, _audited(project, pool), pool.y)
        metrics["scores"]["curated_accuracy"] = curated_accuracy(pool.probability, y, truth, pool.candidates)
    if stopping := _stopping(project, round_number, pool):
        metrics["stopping"] = stopping
    if test_box is None:
        # Accuracy never stands alone: without a test box, recall is known only where S has learned.
        metrics["audit"] = audit_estimate(project.ledger)
        metrics["candidate_recall_on_labels"] = detail["recall_on_labels"]
    metrics = plain(metrics)
    write_text(project.path(round_number, "metrics.json"), json.dumps(metrics, indent=1) + "\n")
    project.ledger.store_score(round_number, metrics)
    return {}


def _audited(project: Project, pool: RoundPool) -> np.ndarray:
    """Answers of rows, audits included: in the curated set an audited candidate is an answered one."""
    verdicts = project.ledger.verdicts()
    return np.array([verdicts[c.id].y if c.id in verdicts else math.nan for c in pool.candidates])


def _stopping(project: Project, round_number: int, pool: RoundPool) -> Detail:
    """What can be said of whether to stop -> pool.npz; nothing in round 0, which has no answers.

    Shown, never acted on. None stands for what cannot be said: agreement, where the scorer had learned nothing in one
    of the two rounds, or as in ``stopping.agreement``; the others, where there is nothing that they could rest on.
    """
    ids, learned = np.array([c.id for c in pool.candidates], np.uint64), has_both(pool.y)
    believed = {"ids": ids, "probability": pool.probability, "learned": np.array(learned)}
    write_arrays(project.path(round_number, POOL_NAME), believed)
    if round_number == 0:
        return {}
    said: Detail = {"learned": learned, "num_pool": len(ids), "agreement": None, "num_shared": None}
    path = project.path(round_number - 1, POOL_NAME)
    if learned and path.exists():  # rounds of an older version left none
        with np.load(path, allow_pickle=False) as before:
            if before["learned"]:
                said["agreement"], said["num_shared"] = agreement(
                    before["ids"], before["probability"], ids, pool.probability
                )
    audits, answers = pool.excluded & np.isnan(pool.y), _audited(project, pool)
    audits &= ~np.isnan(answers)
    audited = audited_right(pool.probability[audits], answers[audits])
    said["audited"] = asdict(audited) if audited.num else None
    said["expected"] = None
    if learned and not pool.excluded.all():
        committee = pool.ensemble(project.seed(round_number, "committee"))[:, ~pool.excluded]
        said["expected"] = asdict(expected_right(pool.probability[~pool.excluded], committee))
    return said
