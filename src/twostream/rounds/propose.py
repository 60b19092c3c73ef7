"""What a round proposes: instances of S's probability, or those of a source, with the thresholds that made them.

Knows a round's probability, labels, candidates of earlier rounds and what may be asked; must not know steps, models
or answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from twostream.base import progress
from twostream.base.errors import ProjectError
from twostream.candidates.candidate import (
    Candidate,
    belief_where,
    choose_threshold,
    clean,
    extract,
    from_table,
    least_believed,
    read_table,
)
from twostream.candidates.sources import UNKNOWN_SCORE, instances
from twostream.project.project import CONFIG_NAME, Project
from twostream.rounds.score import choose_final_threshold, choose_min_score
from twostream.rounds.tune import FEW_OBJECTS, tune
from twostream.task import FOUND_IOU
from twostream.task.metrics import Overlaps, candidate_recall
from twostream.volume import Volume, open_volume

Detail = dict[str, Any]
DEFAULT_THRESHOLD = 0.5
"""Of somebody else's probability, where there are neither labels nor a setting to choose one by."""

NUM_SHOWN = 10
"""Settings that `tune` prints."""


@dataclass(frozen=True)
class Proposal:
    """What a round proposes.

    Attributes:
        segmentation: (Z, Y, X) uint32 labels in the task's convention.
        candidates: in raster order, without ids.
        thresholds: what was chosen, and the recall on the labelled box; None where there is no such thing.
        columns: of the candidate table, beside those that every table has.
    """

    segmentation: np.ndarray
    candidates: list[Candidate]
    thresholds: Detail
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)


def decoded(project: Project, number: int) -> Proposal:
    """Instances of the round's probability, above a threshold and above dust.

    Raises:
        ProjectError: there are none.
    """
    task, min_voxels = project.task, project.min_voxels
    probability = open_volume(str(project.path(number, "probability.zarr")))
    thresholds = _thresholds(project, probability)
    believed = thresholds["min_score"]
    everything = probability.read(probability.box)
    final = thresholds["final_threshold"]
    thresholds["min_score"] = _min_score(project, number, everything, final_threshold=final, until_then=believed)
    threshold = thresholds["threshold"]
    segmentation = clean(task.decode(everything, threshold), task, min_voxels)
    proposed = extract(segmentation, everything[task.foreground], task, (0, 0, 0))
    if not proposed:
        who, more = ("the source", "") if project.config.source else ("S", "Give it more labels or steps, or set ")
        raise ProjectError(
            f"{who} proposed no candidates in round {number} (threshold {threshold:g}, at least {min_voxels} voxels "
            f"each). {more or 'Set '}candidates.threshold or candidates.min_object_nm3 lower."
        )
    return Proposal(segmentation, proposed, thresholds)


def _thresholds(project: Project, probability: Volume) -> Detail:
    """Thresholds of proposing and of the final segmentation: chosen on the labels, else as set, else the middle."""
    config = project.config.candidates
    if project.config.labels is None:
        threshold = config.threshold or DEFAULT_THRESHOLD
        why = "as set in candidates.threshold" if config.threshold else "without labels, set candidates.threshold"
        progress.say(f"  threshold {threshold:g} ({why})")
        return {"threshold": threshold, "recall_on_labels": None, "final_threshold": threshold, "min_score": 0.0}
    labels_box, val_box = project.labelled_boxes()
    ignore = project.labels_ignore
    on_labels = probability.read(labels_box)
    known = project.labels.read(labels_box)
    hidden = None if ignore is None else ignore.read(labels_box)
    threshold, recall = choose_threshold(on_labels, known, hidden, project.task, config, project.min_voxels)
    inside = val_box.relative_to(labels_box).slices
    level, known, hidden = on_labels[(slice(None), *inside)], known[inside], None if hidden is None else hidden[inside]
    final = config.final_threshold or choose_final_threshold(level, known, hidden, project.task)
    segmentation = clean(project.task.decode(level, final), project.task, project.min_voxels)
    believed = least_believed(segmentation, level[project.task.foreground], known, hidden, project.task)
    return {"threshold": threshold, "recall_on_labels": recall, "final_threshold": final, "min_score": believed}


def _min_score(
    project: Project, number: int, everything: np.ndarray, *, final_threshold: float, until_then: float
) -> float:
    """As set, else by the answers to all queries of earlier rounds, audits excepted; until those say enough, given."""
    if project.config.candidates.min_score is not None:
        return project.config.candidates.min_score
    verdicts, task = project.ledger.pool(), project.task
    asked = [query.candidate for query in project.ledger.newest_queries(number).values() if not query.is_audit]
    if not asked:
        return until_then
    final = clean(task.decode(everything, final_threshold), task, project.min_voxels)
    now = belief_where(asked, final, everything[task.foreground], task)
    y = [verdicts[c.id].y for c in asked]
    return choose_min_score(np.array([c.score for c in asked]), np.array(y), now, until_then=until_then)


def brought(project: Project) -> Proposal:
    """Instances of a source that brings them."""
    source, task = project.config.source, project.task
    assert source is not None
    found = instances(source, project.image, task)
    if (found.scores == UNKNOWN_SCORE).all():
        progress.say(f"  the {source.name} does not say how likely its objects are: each has the score 0.5")
    progress.say(f"  {len(found.scores)} instances of the {source.name}, small ones too: dust is not dropped")
    certain = (found.segmentation > 0).astype(np.uint8) * np.uint8(255)
    bare = extract(found.segmentation, certain, task, (0, 0, 0))
    candidates = [replace(c, score=float(found.scores[c.label - 1])) for c in bare]
    recall = None
    if project.config.labels is not None:
        box, ignore = project.labelled_boxes()[0], project.labels_ignore
        hidden = None if ignore is None else ignore.read(box)
        overlaps = Overlaps.of(found.segmentation[box.slices], project.labels.read(box), hidden)
        table = task.instance_overlaps(overlaps)
        recall = candidate_recall(table, FOUND_IOU) if table.truth_sizes() else None
    thresholds = {"threshold": None, "recall_on_labels": recall, "final_threshold": None, "min_score": 0.0}
    return Proposal(found.segmentation, candidates, thresholds, {"source_id": found.source_ids})


def sides_of(candidate: Candidate) -> str:
    """Which sides of a synapse a candidate has: both, pre or post."""
    values = set(np.unique(candidate.mask).tolist()) - {0}
    return "both" if values == {1, 2} else "pre" if values == {1} else "post"


def tune_project(project: Project, *, write: bool = False) -> list[str]:
    """Tune decoding on the validation box, with the probability of the newest round that has one.

    Returns:
        Lines for a terminal, the best settings first.

    Raises:
        ProjectError: no round has been predicted.
        InputError: the validation box holds no object.
    """
    if project.config.labels is None or (project.config.source and project.config.source.brings_instances):
        raise ProjectError(f"{project.root} has no labels, or nothing that is decoded: there is nothing to tune.")
    predicted = [n for n, step in project.ledger.finished_steps() if step == "predict"]
    if not predicted:
        raise ProjectError(f"{project.root} has no probability yet; run `twostream predict {project.root}` first.")
    number = max(predicted)
    val_box = project.labelled_boxes()[1]
    probability = open_volume(str(project.path(number, "probability.zarr"))).read(val_box)
    ignore = None if project.labels_ignore is None else project.labels_ignore.read(val_box)
    trials = tune(probability, project.labels.read(val_box), ignore, project.task, project.min_voxels)
    lines = [f"round {number}, validation box {val_box}: {trials[0].num_truth} objects, {len(trials)} distinct results"]
    if trials[0].num_truth < FEW_OBJECTS:
        lines.append(f"fewer than {FEW_OBJECTS} objects: the order below is mostly luck")
    for trial in trials[:NUM_SHOWN]:
        words = " ".join(f"{k}={v}" for k, v in trial.decoding.items())
        lines.append(
            f"F1 {trial.instance_f1:.3f}  foreground IoU {trial.foreground_iou:.3f}  "
            f"candidates.final_threshold={trial.threshold} {words}  (min_score {trial.min_score:g})"
        )
    if write:
        best = trials[0]
        changes = {f"decoding.{k}": v for k, v in best.decoding.items()}
        project.rewrite(changes | {"candidates.final_threshold": best.threshold})
        lines.append(f"the first is now in {project.root / CONFIG_NAME}; the old file is beside it, ending in .old")
    return lines


def known_candidates(project: Project, before_round: int) -> list[Candidate]:
    """Every candidate of earlier rounds: with the mask as it was asked, else as last proposed."""
    known: dict[int, Candidate] = {}
    for number in range(before_round):
        known |= {c.id: c for c in from_table(read_table(project.path(number, "candidates.parquet")))}
    known |= {query.candidate.id: query.candidate for query in project.ledger.queries() if query.round < before_round}
    return list(known.values())


def may_be_asked(project: Project, candidate: Candidate) -> bool:
    """Whether a candidate lies in the pool: clear of the test box, its guard, and what is labelled already."""
    barred = (project.boxes()[0], project.guarded_box)
    return not any(box and candidate.box.intersects(box) for box in barred)
