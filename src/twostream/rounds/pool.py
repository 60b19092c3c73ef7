"""The pool of a round: the rows that the strategy and the scorer see, with features, answers and probability.

Knows a round's candidates and latents, and the ledger's answers; must not know how a strategy chooses.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass

import numpy as np

from twostream.base.atomic import read_array
from twostream.base.errors import ProjectError
from twostream.candidates.stored import Joined
from twostream.project.probabilities import Probabilities
from twostream.project.project import Project
from twostream.query import Scorer
from twostream.query.scorer import has_answers
from twostream.rounds.asking import may_be_asked
from twostream.rounds.embed import STREAMS, latents_of

MAX_LATENT_BYTES, LATENT_ROWS = 1 << 29, 1 << 16
"""Latents of a pool above this size lie in a file, into which so many rows are written at once."""
NUM_MEMBERS = 20
"""Scorers in the committee, which some strategies need and from which `score` estimates how many labels are right."""


@dataclass(frozen=True)
class RoundPool:
    """N rows: first the candidates of the round that may be asked about, then those that were asked before.

    What was asked before stands here as it was asked about (``docs/contracts.md``, *Ids and candidates*).

    Attributes:
        candidates: the N candidates; masks of the round's stay in its table until they are asked for.
        ids: (N,) int64, their ids.
        streams: {"supervised": (N, Ds), "unsupervised": (N, Du)} float32 latents by the streams of the round.
        y: (N,) float, 1 or 0 for True or False; NaN where nobody has answered, where annotators disagree, and for
            audits, from which nothing may learn.
        excluded: (N,) bool, True for what was asked before and may not be asked again.
        probability: (N,) float in [0, 1], probability of True by the scorer that all strategies share.
        score: (N,) float in [0, 1], mean probability by S inside the mask, from the round of the mask.
        num_voxels: (N,) int, voxels of the mask.
        position_nm: (N, 3) float, centre of the box, (z, y, x) in nm.
        faint: (N,) bool, faint candidates of the round that nobody was asked about before. The scorer sees them; they
            are no proposals, so strategies, audits and scores leave them out.
    """

    candidates: Joined
    ids: np.ndarray
    streams: dict[str, np.ndarray]
    y: np.ndarray
    excluded: np.ndarray
    probability: np.ndarray
    score: np.ndarray
    num_voxels: np.ndarray
    position_nm: np.ndarray
    faint: np.ndarray

    def ensemble(self, seed: int) -> np.ndarray:
        """(M, N) probabilities of True by a committee of M = ``NUM_MEMBERS`` scorers."""
        scorer = Scorer(num_members=NUM_MEMBERS, random_state=seed)
        return scorer.predict_ensemble(self.streams, self.y, score=self.score, num_voxels=self.num_voxels)


def pool_of(project: Project, round_number: int, *, answered: bool = False) -> RoundPool:
    """The pool of a round before that round asks or, with ``answered``, after its batch was answered.

    Raises:
        ProjectError: a latents file of the round does not have one row per candidate.
    """
    verdicts = project.ledger.verdicts()
    candidates = project.candidates(round_number)
    asked_before = project.ledger.newest_queries(round_number + answered)
    snapshots = [query for i, query in asked_before.items() if not verdicts[i].askable]
    asked = [q.candidate for q in snapshots]
    rows = np.flatnonzero(may_be_asked(project, candidates) & ~np.isin(candidates.ids, [c.id for c in asked]))
    free = candidates.take(rows)
    latents = _latents(project, round_number, len(candidates))
    snapshot_latents = {name: latents[name][:0] for name in STREAMS}
    if asked:
        snapshot_latents = latents_of(project, round_number, asked, [q.patch for q in snapshots])
    streams = {name: _joined(latents[name], rows, snapshot_latents[name]) for name in STREAMS}
    # Audits measure the scorer and the candidates, so nothing may learn from them: here they have no answer.
    answers = [math.nan if q.is_audit else verdicts[q.candidate.id].y for q in snapshots]
    y = np.concatenate([np.full(len(rows), math.nan), np.array(answers, float)])
    excluded = np.arange(len(y)) >= len(rows)
    ids = np.concatenate([free.ids, np.array([c.id for c in asked], np.int64)])
    score = np.concatenate([free.column("score"), np.array([c.score for c in asked], float)])
    num_voxels = np.concatenate([free.column("num_voxels"), np.array([c.num_voxels for c in asked], np.int64)])
    probability = Scorer().predict(streams, y, score=score, num_voxels=num_voxels) if len(y) else score
    faint = np.concatenate([free.faint, np.zeros(len(asked), bool)])
    members = Joined([free, asked])
    position_nm = (members.corners[:, :3] + members.corners[:, 3:]) / 2 * project.image.voxel_size_nm
    return RoundPool(members, ids, streams, y, excluded, probability, score, num_voxels, position_nm, faint)


def _joined(latents: np.ndarray, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The latents of some rows, then others, (N, D) float32; in an unnamed file if they are large."""
    num_bytes = (len(rows) + len(others)) * others.shape[1] * others.itemsize
    if num_bytes <= MAX_LATENT_BYTES:
        return np.concatenate([latents[rows], others])
    with tempfile.TemporaryFile() as file:  # the map keeps the file when it has no name any more
        joined = np.memmap(file, np.float32, "w+", shape=(len(rows) + len(others), others.shape[1]))
    for start in range(0, len(rows), LATENT_ROWS):
        part = rows[start : start + LATENT_ROWS]
        joined[start : start + len(part)] = latents[part]
    joined[len(rows) :] = others
    return joined


def probabilities_of(project: Project, round_number: int, pool: RoundPool) -> Probabilities:
    """The scorer's probability of all candidates: those of the pool, and of the round those that nobody may be asked.

    Args:
        project: the project.
        round_number: the round.
        pool: its pool. The scorer learns from its answers alone, and is standardised on it alone.

    Returns:
        ``on_test_box`` is NaN everywhere.
    """
    candidates = project.candidates(round_number)
    rows = np.flatnonzero(~np.isin(candidates.ids, pool.ids))
    beside = candidates.take(rows)
    latents = _latents(project, round_number, len(candidates))
    num_voxels, outside = beside.column("num_voxels"), beside.column("score")
    if len(rows) and len(pool.y):
        in_pool = np.arange(len(pool.y) + len(rows)) < len(pool.y)
        outside = Scorer().predict(
            {name: _joined(pool.streams[name], np.arange(len(pool.y)), latents[name][rows]) for name in STREAMS},
            np.concatenate([pool.y, np.full(len(rows), np.nan)]),
            score=np.concatenate([pool.score, outside]),
            num_voxels=np.concatenate([pool.num_voxels, num_voxels]),
            excluded=~in_pool,
        )[~in_pool]
    ids = np.concatenate([pool.ids, beside.ids])
    return Probabilities(
        ids.astype(np.uint64),
        np.concatenate([pool.probability, outside]),
        np.concatenate([~pool.faint, np.zeros(len(rows), bool)]),
        has_answers(pool.y),
        np.full(len(ids), np.nan),
    )


def _latents(project: Project, round_number: int, num_candidates: int) -> dict[str, np.ndarray]:
    """Latents of the round's candidates, {stream: (N, D) float32}, mapped from their files.

    Raises:
        ProjectError: a file does not have one row per candidate.
    """
    result = {}
    for name in STREAMS:
        path = project.path(round_number, f"latents_{name}.npy")
        result[name] = read_array(path, in_place=True)
        if len(result[name]) != num_candidates:
            raise ProjectError(
                f"{path} has {len(result[name])} rows, and there are {num_candidates} candidates; the file was changed "
                f"after it was written. Put it back from a copy, or delete it and let `twostream repair` make it again."
            )
    return result
