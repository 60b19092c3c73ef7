"""The pool of a round."""

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
"""Scorers of the committee that some strategies need, and that says how surely the labels are right."""


@dataclass(frozen=True)
class RoundPool:
    """What strategies see in a round: unanswered candidates of the pool, and all answered snapshots.

    Attributes:
        candidates: (N,) rows.
        streams: {"supervised": (N, Ds), "unsupervised": (N, Du)}.
        y: (N,) 1, 0, NaN.
        excluded: (N,) bool, True where a row may not be asked.
        probability: (N,) of the shared scorer.
        score: (N,) of S, as the candidate was asked or is proposed now.
        num_voxels: (N,) int.
        position_nm: (N, 3) float, centre of the box (z, y, x).
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
        """(M, N) probabilities by a committee of scorers."""
        scorer = Scorer(num_members=NUM_MEMBERS, random_state=seed)
        return scorer.predict_ensemble(self.streams, self.y, score=self.score, num_voxels=self.num_voxels)


def pool_of(project: Project, round_number: int) -> RoundPool:
    """The pool of round ``round_number`` as it stood before that round asked."""
    verdicts = project.ledger.verdicts()
    asked = project.ledger.newest_queries(round_number)
    candidates = from_table(read_table(project.path(round_number, "candidates.parquet")))
    # Audits estimate, they do not teach: to every strategy and scorer they are rows that may not be asked.
    snapshots = [q for i, q in asked.items() if not verdicts[i].askable]
    gone = {q.candidate.id for q in snapshots}
    rows = [i for i, c in enumerate(candidates) if may_be_asked(project, c) and c.id not in gone]
    fresh = latents_of(project, round_number, [q.candidate for q in snapshots], [q.patch for q in snapshots])
    streams = {}
    for name in STREAMS:
        path = project.path(round_number, f"latents_{name}.npy")
        latents = read_array(path)
        if len(latents) != len(candidates):
            raise ProjectError(
                f"{path} has {len(latents)} rows, and there are {len(candidates)} candidates; it was changed since "
                f"it was made. Put it back, or make a new project."
            )
        streams[name] = np.concatenate([latents[rows], fresh[name]])
    y = np.array([math.nan] * len(rows) + [math.nan if q.is_audit else verdicts[q.candidate.id].y for q in snapshots])
    members = [candidates[i] for i in rows] + [q.candidate for q in snapshots]
    excluded = np.arange(len(y)) >= len(rows)
    score = np.array([c.score for c in members])
    num_voxels = np.array([c.num_voxels for c in members])
    probability = Scorer().predict(streams, y, score=score, num_voxels=num_voxels) if len(y) else score
    corners = np.array([(c.box.offset_zyx, c.box.stop_zyx) for c in members], float).reshape(-1, 2, 3)
    position_nm = corners.mean(1) * project.image.voxel_size_nm
    return RoundPool(members, streams, y, excluded, probability, score, num_voxels, position_nm)
