"""What a round proposes: instances of S's probability, or those of a source, with the thresholds that made them.

Knows a round's probability, labels, candidates of earlier rounds and what may be asked; must not know steps, models
or answers.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from twostream.base import progress
from twostream.base.atomic import write_folder
from twostream.base.errors import ProjectError
from twostream.base.geometry import Box
from twostream.candidates.candidate import Candidate, clean, extract
from twostream.candidates.identity import identify
from twostream.candidates.objects import UNKNOWN_SCORE
from twostream.candidates.pose import candidate_angle
from twostream.candidates.sources import instances
from twostream.candidates.table import from_table, read_table, to_table, write_table
from twostream.candidates.thresholds import LabelledBox, Thresholds, choose_thresholds
from twostream.project.project import Detail, Project
from twostream.task import FOUND_IOU
from twostream.task.metrics import Overlaps, candidate_recall
from twostream.volume import create_volume, open_volume


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
    thresholds: Thresholds
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)


def decoded(project: Project, round_number: int) -> Proposal:
    """Instances of the round's probability, above a threshold and above dust.

    Raises:
        ProjectError: there are none.
    """
    task, config, min_voxels = project.task, project.config.candidates, project.min_voxels
    probability = open_volume(str(project.path(round_number, "probability.zarr")))
    everything = probability.read(probability.box)
    verdicts = project.ledger.verdicts()
    asked = [q.candidate for q in project.ledger.newest_queries(round_number).values() if not q.is_audit]
    found = choose_thresholds(
        everything,
        task,
        config,
        min_voxels,
        labels=_labelled(project, project.boxes.labels),
        validation=_labelled(project, project.boxes.val),
        asked=asked,
        y=np.array([verdicts[c.id].y for c in asked]),
    )
    threshold = found.threshold
    assert threshold is not None
    if project.config.labels is None:
        why = "as set in candidates.threshold" if config.threshold else "without labels, set candidates.threshold"
        progress.say(f"  threshold {threshold:g} ({why})")
    segmentation = clean(task.decode(everything, threshold), task, min_voxels)
    proposed = extract(segmentation, everything[task.foreground], task, (0, 0, 0))
    if not proposed:
        who, more = ("the source", "") if project.config.source else ("S", "Give it more labels or steps, or set ")
        raise ProjectError(
            f"{who} proposed no candidates in round {round_number} (threshold {threshold:g}, at least {min_voxels} "
            f"voxels each). {more or 'Set '}candidates.threshold or candidates.min_object_nm3 lower."
        )
    return Proposal(segmentation, proposed, found)


def _labelled(project: Project, box: Box | None) -> LabelledBox | None:
    """Labels of a box; None without labels."""
    if box is None:
        return None
    ignore = project.labels_ignore
    return LabelledBox(box, project.labels.read(box), None if ignore is None else ignore.read(box))


def brought(project: Project) -> Proposal:
    """Instances of a source that brings them."""
    source, task = project.source, project.task
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
        box, ignore = project.boxes.labelled[0], project.labels_ignore
        hidden = None if ignore is None else ignore.read(box)
        overlaps = Overlaps.of(found.segmentation[box.slices], project.labels.read(box), hidden)
        table = task.instance_overlaps(overlaps)
        recall = candidate_recall(table, FOUND_IOU) if table.truth_sizes() else None
    thresholds = Thresholds(threshold=None, final_threshold=None, min_score=0.0, recall_on_labels=recall)
    return Proposal(found.segmentation, candidates, thresholds, {"source_id": found.source_ids})


def sides_of(candidate: Candidate) -> str:
    """Which sides of a synapse a candidate has: both, pre or post."""
    values = set(np.unique(candidate.mask).tolist()) - {0}
    return "both" if values == {1, 2} else "pre" if values == {1} else "post"


def known_candidates(project: Project, before_round: int) -> list[Candidate]:
    """Every candidate of earlier rounds: with the mask as it was asked, else as last proposed."""
    known: dict[int, Candidate] = {}
    for round_number in range(before_round):
        known |= {c.id: c for c in from_table(read_table(project.path(round_number, "candidates.parquet")))}
    known |= {query.candidate.id: query.candidate for query in project.ledger.queries() if query.round < before_round}
    return list(known.values())


def may_be_asked(project: Project, candidate: Candidate) -> bool:
    """Whether a candidate lies in the pool: clear of the test box, its guard, and what is labelled already."""
    barred = (project.boxes.labels, project.guarded_box)
    return not any(box and candidate.box.intersects(box) for box in barred)


def propose_step(project: Project, round_number: int) -> Detail:
    """Probability -> segmentation.zarr and candidates.parquet, ids from the ledger.

    A source that brings instances is taken at its word: nothing is thresholded, nothing is dropped as dust.
    """
    source = project.config.source
    found = brought(project) if source and source.brings_instances else decoded(project, round_number)

    def fill(path: Path) -> None:
        size = project.image.voxel_size_nm
        output = create_volume(str(path), shape_zyx=found.segmentation.shape, dtype=np.uint32, voxel_size_nm=size)
        output.write(output.box, found.segmentation)

    write_folder(project.path(round_number, "segmentation.zarr"), fill)
    candidates = identify(
        found.candidates, known_candidates(project, round_number), project.ledger.next_id(round_number)
    )
    askable = [may_be_asked(project, c) for c in candidates]
    extra: dict[str, Sequence[object]] = {
        "angle_deg": [candidate_angle(c, project.image.voxel_size_nm) for c in candidates],
        "in_pool": askable,
    }
    extra |= found.columns
    if project.task.num_sides == 2:
        extra["sides"] = [sides_of(c) for c in candidates]
    table = to_table(candidates, task=project.task.name, extra=extra)
    write_table(table, project.path(round_number, "candidates.parquet"))
    project.ledger.register(round_number, [c.id for c in candidates])
    if round_number > 0:
        # Masks travel with the candidates, so the large volumes of earlier rounds have done their work.
        for name in ("probability.zarr", "segmentation.zarr"):
            shutil.rmtree(project.path(round_number - 1, name), ignore_errors=True)
    first = project.ledger.next_id(round_number)
    detail = {"num_candidates": len(candidates), "num_new": sum(c.id >= first for c in candidates)}
    if project.task.num_sides == 2:
        alone = sum(side != "both" for side in extra["sides"])
        detail["num_without_partner"] = alone
        if alone:
            progress.say(f"  {alone} of {len(candidates)} candidates have one side only (column `sides`)")
    return detail | {"num_in_pool": sum(askable)} | asdict(found.thresholds)
