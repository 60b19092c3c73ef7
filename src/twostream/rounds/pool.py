"""The pool of a round: the rows that the strategy and the scorer see, with features, answers and probability.

Knows a round's candidates and latents, and the ledger's answers; must not know how a strategy chooses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from twostream.base.atomic import read_array
from twostream.base.errors import ProjectError
from twostream.candidates.candidate import Candidate
from twostream.candidates.table import from_table, read_table
from twostream.project.project import Project
from twostream.query import Scorer
from twostream.rounds.embed import STREAMS, latents_of
from twostream.rounds.propose import may_be_asked

NUM_MEMBERS = 20
"""Scorers in the committee, which some strategies need and from which `score` estimates how many labels are right."""


@dataclass(frozen=True)
class RoundPool:
    """N rows: first the candidates of the round that may be asked about, then those that were asked before.

    What was asked before stands here as it was asked about (``docs/contracts.md``, *Ids and candidates*).

    Attributes:
        candidates: the N candidates.
        streams: {"supervised": (N, Ds), "unsupervised": (N, Du)} float32 latents by the streams of the round.
        y: (N,) float, 1 or 0 for True or False; NaN where nobody has answered, where annotators disagree, and for
            audits, from which nothing may learn.
        excluded: (N,) bool, True for what was asked before and may not be asked again.
        probability: (N,) float in [0, 1], probability of True by the scorer that all strategies share.
        score: (N,) float in [0, 1], mean probability by S inside the mask, from the round of the mask.
        num_voxels: (N,) int, voxels of the mask.
        position_nm: (N, 3) float, centre of the box, (z, y, x) in nm.
    """

    candidates: list[Candidate]
    streams: dict[str, np.ndarray]
    y: np.ndarray
    excluded: np.ndarray
    probability: np.ndarray
    score: np.ndarray
    num_voxels: np.ndarray
    position_nm: np.ndarray

    def ensemble(self, seed: int) -> np.ndarray:
        """(M, N) probabilities of True by a committee of M = ``NUM_MEMBERS`` scorers."""
        scorer = Scorer(num_members=NUM_MEMBERS, random_state=seed)
        return scorer.predict_ensemble(self.streams, self.y, score=self.score, num_voxels=self.num_voxels)


def pool_of(project: Project, round_number: int) -> RoundPool:
    """The pool of a round before that round asks.

    Raises:
        ProjectError: a latents file of the round does not have one row per candidate.
    """
    verdicts = project.ledger.verdicts()
    candidates = from_table(read_table(project.path(round_number, "candidates.parquet")))
    snapshots = [q for i, q in project.ledger.newest_queries(round_number).items() if not verdicts[i].askable]
    asked = {q.candidate.id for q in snapshots}
    rows = [i for i, c in enumerate(candidates) if may_be_asked(project, c) and c.id not in asked]
    snapshot_latents = latents_of(project, round_number, [q.candidate for q in snapshots], [q.patch for q in snapshots])
    streams = {}
    for name in STREAMS:
        path = project.path(round_number, f"latents_{name}.npy")
        latents = read_array(path)
        if len(latents) != len(candidates):
            raise ProjectError(
                f"{path} has {len(latents)} rows, and there are {len(candidates)} candidates; the file was changed "
                f"after it was written. Restore it from a copy, or make a new project."
            )
        streams[name] = np.concatenate([latents[rows], snapshot_latents[name]])
    # Audits measure the scorer and the candidates, so nothing may learn from them: here they have no answer.
    answers = [math.nan if q.is_audit else verdicts[q.candidate.id].y for q in snapshots]
    y = np.array([math.nan] * len(rows) + answers)
    members = [candidates[i] for i in rows] + [q.candidate for q in snapshots]
    excluded = np.arange(len(y)) >= len(rows)
    score = np.array([c.score for c in members])
    num_voxels = np.array([c.num_voxels for c in members])
    probability = Scorer().predict(streams, y, score=score, num_voxels=num_voxels) if len(y) else score
    corners = np.array([(c.box.offset_zyx, c.box.stop_zyx) for c in members], float).reshape(-1, 2, 3)
    position_nm = corners.mean(1) * project.image.voxel_size_nm
    return RoundPool(members, streams, y, excluded, probability, score, num_voxels, position_nm)
