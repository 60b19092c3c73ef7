"""The step `propose`: candidates from the probability of S, or the instances of a source; both get ids here.

Knows the round's probability, labels, earlier candidates and their answers; must not know the streams or strategies.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from twostream.base import progress
from twostream.base.errors import BlocksError, ProjectError, VolumeError
from twostream.base.geometry import Box
from twostream.candidates.candidate import Candidate, ManyCandidates, extract
from twostream.candidates.faint import faint_candidates
from twostream.candidates.identity import identify
from twostream.candidates.objects import UNKNOWN_SCORE
from twostream.candidates.padding import on_padding
from twostream.candidates.pose import candidate_angle
from twostream.candidates.proposing import propose, work_of
from twostream.candidates.sources import instances
from twostream.candidates.stored import Joined
from twostream.candidates.table import parts_of, write_parts
from twostream.candidates.thresholds import Beliefs, LabelledBox, Thresholds, choose_thresholds, recall_on_labels
from twostream.project.project import Detail, Project
from twostream.project.segmentation import SEGMENTATION_NAME, write_candidates
from twostream.rounds.asking import outside_boxes
from twostream.rounds.pool import pool_of
from twostream.rounds.predict import PROBABILITY_NAME, PROPOSE_UNFINISHED_NAME, probability_of
from twostream.volume import Volume
from twostream.volume.checks import check_all_chunks
from twostream.volume.stage import Journal, Stage, remove_work

CHECKED_TOGETHER = 1 << 16
"""Candidates whose place in the image is read together."""


@dataclass(frozen=True)
class Proposal:
    """What a round proposes, before ids are given.

    Attributes:
        candidates: the N candidates, without ids.
        thresholds: what was chosen, and the candidate recall on the labels boxes.
        columns: {name: N values}, further columns of the candidate table.
        faint: faint candidates, which stand behind the others in the table and in no segmentation.
    """

    candidates: Sequence[Candidate]
    thresholds: Thresholds
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    faint: Sequence[Candidate] = ()


def propose_step(project: Project, round_number: int) -> Detail:
    """Write ``segmentation.zarr`` and ``candidates.parquet``, and register the candidates' ids in the ledger.

    ``segmentation.zarr`` holds (Z, Y, X) uint32 labels of this round. After round 0 the previous round's
    ``probability.zarr`` and ``segmentation.zarr`` are deleted.

    Raises:
        ProjectError: S proposes no candidates.
        BlocksError, VolumeError: its probability cannot be read or decoded.
        InputError: the instances of the source do not fit the image or the task.
    """
    source = project.config.source
    if source and source.brings_instances:
        found = _take_instances(project)
    else:
        try:
            found = _decode_probability(project, round_number)
        except (BlocksError, VolumeError) as error:
            path = project.path(round_number, PROBABILITY_NAME)
            error.args = (f"{error} If {path} is damaged, remove it: the same command predicts it again.",)
            raise

    write_candidates(project, round_number, found.candidates)
    first = project.ledger.next_id(round_number)
    everything = Joined([found.candidates, found.faint])
    candidates = identify(everything, _known_candidates(project, round_number), first)
    askable, num_on_padding = _askable(project, candidates)
    columns: dict[str, Sequence[Any]] = dict(found.columns) | {"in_pool": askable.tolist()}
    if found.faint:
        columns["faint"] = [False] * len(found.candidates) + [True] * len(found.faint)
    each: dict[str, Callable[[Candidate], object]] = {
        "angle_deg": lambda candidate: candidate_angle(candidate, project.image.voxel_size_nm)
    }
    if project.task.num_sides == 2:
        each["sides"] = _sides_of
    parts = parts_of(candidates, task=project.task.name, columns=columns, each=each)
    write_parts(parts, project.path(round_number, "candidates.parquet"))
    project.ledger.register(round_number, candidates.ids.tolist())
    remove_work(project.path(round_number, PROPOSE_UNFINISHED_NAME))
    if round_number > 0:
        # These volumes are large, and no longer needed: the candidate tables of earlier rounds hold the masks.
        for name in (PROBABILITY_NAME, SEGMENTATION_NAME):
            shutil.rmtree(project.path(round_number - 1, name), ignore_errors=True)
    num_proposed = len(found.candidates)
    detail = {"num_candidates": num_proposed, "num_new": int((candidates.ids >= first).sum())}
    if found.faint:
        detail["num_faint"] = len(found.faint)
        progress.say(f"  {len(found.faint)} faint candidates below the threshold may be asked about as well")
    if project.task.num_sides == 2:
        sides = project.candidates(round_number).column("sides")[:num_proposed]
        num_alone = int((sides != "both").sum())
        detail["num_without_partner"] = num_alone
        if num_alone:
            progress.say(f"  {num_alone} of {num_proposed} candidates have one side only (column `sides`)")
    return detail | {"num_in_pool": int(askable.sum()), "num_on_padding": num_on_padding} | asdict(found.thresholds)


def _askable(project: Project, candidates: ManyCandidates) -> tuple[np.ndarray, int]:
    """Which candidates belong to the pool, (N,) bool, and how many would if they did not lie on padding.

    Those in the pool touch neither a labels box nor the guarded test box, and lie on no padding unless
    ``candidates.ask_on_padding`` is on.
    """
    askable = outside_boxes(project, candidates.corners)
    if project.config.candidates.ask_on_padding:
        return askable, 0
    rows = np.flatnonzero(askable)
    # Some at a time: neighbours have neighbouring rows, so that hardly a chunk of the image is read twice.
    parts = [rows[start : start + CHECKED_TOGETHER] for start in range(0, len(rows), CHECKED_TOGETHER)]
    on = [part[on_padding(project.image, [candidates[row] for row in part.tolist()])] for part in parts]
    padded = np.concatenate([np.zeros(0, np.int64), *on])
    askable[padded] = False
    if len(padded):
        progress.say(
            f"  {len(padded)} of {len(candidates)} candidates lie where the image is one single grey value (padding); "
            f"they are not asked about unless candidates.ask_on_padding is true"
        )
    return askable, len(padded)


def _decode_probability(project: Project, round_number: int) -> Proposal:
    """Instances decoded from the round's probability, without those smaller than ``project.min_voxels``.

    Raises:
        ProjectError: there are none.
    """
    probability = probability_of(project, round_number)
    check_all_chunks(probability)
    predicted = project.ledger.finished_steps().get((round_number, "predict"))
    work = work_of(probability, project.task, project.min_voxels) | {"predicted": predicted}
    with Journal(project.path(round_number, PROPOSE_UNFINISHED_NAME), work) as journal:
        return _decode(project, round_number, probability, Stage(project.executor, journal, project.memory_limit))


def _decode(project: Project, round_number: int, probability: Volume, stage: Stage) -> Proposal:
    task, config, min_voxels = project.task, project.config.candidates, project.min_voxels
    found = thresholds_of(project, probability, before_round=round_number, stage=stage)
    threshold = found.threshold
    assert threshold is not None
    if project.config.labels is None:
        why = "as set in candidates.threshold" if config.threshold else "without labels, set candidates.threshold"
        progress.say(f"  threshold {threshold:g} ({why})")
    proposed = propose(probability, task, threshold, min_voxels, stage=stage)
    if not proposed:
        name, advice = ("the source", "Set") if project.config.source else ("S", "Give S more labels or steps, or set")
        raise ProjectError(
            f"{name} proposed no candidates in round {round_number} (threshold {threshold:g}, at least {min_voxels} "
            f"voxels each). {advice} candidates.threshold or candidates.min_object_nm3 lower."
        )
    faint: Sequence[Candidate] = ()
    if _wants_faint(project, round_number):
        faint = faint_candidates(probability, proposed, task, threshold, min_voxels, stage)
    return Proposal(proposed, found, faint=faint)


def _wants_faint(project: Project, round_number: int) -> bool:
    """Whether the round has faint candidates. Made again, it has them if it had them, whatever a fork has set since."""
    before = project.ledger.finished_steps().get((round_number, "propose"))
    return bool(project.config.query.faint_share if before is None else before.get("num_faint"))


def thresholds_of(project: Project, probability: Volume, before_round: int, stage: Stage | None = None) -> Thresholds:
    """The thresholds for a probability of the whole image, by labels and by what is believed of earlier candidates.

    Args:
        project: the project.
        probability: (C, Z, Y, X) uint8, 255 = 1.
        before_round: the round before this one gives candidates and the thresholds that these stay near; 0: none does.
        stage: as for ``propose``.
    """
    return choose_thresholds(
        probability,
        project.task,
        project.config.candidates,
        project.min_voxels,
        labels=[_labelled(project, box) for box in project.boxes.labels],
        validation=_labelled(project, project.boxes.val) if project.boxes.val else None,
        believed=_beliefs(project, before_round - 1) if before_round and project.config.refit.use_answers else None,
        previous=_thresholds_of(project, before_round - 1) if before_round else None,
        stage=stage,
    )


def _beliefs(project: Project, round_number: int) -> Beliefs:
    """What is believed of the candidates of a round, now that its batch was answered."""
    pool = pool_of(project, round_number, answered=True)
    # Left out: audits, answers that do not say whether it is true, and faint candidates, which were not proposed.
    counted = ~(pool.excluded & np.isnan(pool.y)) & ~pool.faint
    true = np.where(np.isnan(pool.y), pool.probability, pool.y)[counted]
    return Beliefs(pool.candidates.where(counted), true, int((pool.y == 1).sum()), int((pool.y == 0).sum()))


def _thresholds_of(project: Project, round_number: int) -> Thresholds:
    """The thresholds of an earlier round, as the ledger records them."""
    recorded = project.ledger.finished_steps()[(round_number, "propose")]
    return Thresholds(
        recorded["threshold"], recorded["final_threshold"], recorded.get("min_score", 0.0), recorded["recall_on_labels"]
    )


def _labelled(project: Project, box: Box) -> LabelledBox:
    """The labels of ``box``."""
    ignore = project.labels_ignore
    return LabelledBox(box, project.labels.read(box), None if ignore is None else ignore.read(box))


def _take_instances(project: Project) -> Proposal:
    """The instances of a segmentation or a table, as they are: without a threshold, and small ones too."""
    source, task = project.source, project.task
    assert source is not None
    found = instances(source, project.image, task)
    if (found.scores == UNKNOWN_SCORE).all():
        progress.say(f"  the {source.name} does not say how likely its objects are: each gets the score 0.5")
    progress.say(f"  all {len(found.scores)} instances of the {source.name} are candidates, small ones too")
    certain = (found.segmentation > 0).astype(np.uint8) * np.uint8(255)
    bare = extract(found.segmentation, certain, task, (0, 0, 0))
    candidates = [replace(c, score=float(found.scores[c.label - 1])) for c in bare]
    labelled = [_labelled(project, box) for box in project.boxes.labels]
    recall = recall_on_labels(found.segmentation, labelled, task) if labelled else None
    thresholds = Thresholds(threshold=None, final_threshold=None, min_score=0.0, recall_on_labels=recall)
    return Proposal(candidates, thresholds, {"source_id": found.source_ids})


def _known_candidates(project: Project, before_round: int) -> Joined:
    """Candidates of all earlier rounds, with the mask that was asked about or, if none was, the one last proposed."""
    asked = {query.candidate.id: query.candidate for query in project.ledger.queries() if query.round < before_round}
    parts: list[Sequence[Candidate]] = [list(asked.values())]
    seen = np.array(list(asked), np.int64)
    for round_number in reversed(range(before_round)):
        candidates = project.candidates(round_number)
        ids = candidates.ids
        parts.append(candidates.take(~np.isin(ids, seen)))
        seen = np.union1d(seen, ids)
    return Joined(parts)


def _sides_of(candidate: Candidate) -> str:
    """Which sides of a synapse a candidate has: "both", "pre" or "post"."""
    values = set(np.unique(candidate.mask).tolist()) - {0}
    return "both" if values == {1, 2} else "pre" if values == {1} else "post"
