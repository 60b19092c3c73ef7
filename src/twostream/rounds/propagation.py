"""Propagation: what the scorer expects to be answered becomes lessons of S, weighted by its probability.

Equations: ``docs/segmentation.md``, *What the scorer knows reaches S*. Such a lesson is no answer: it is not recorded,
and it stands behind every answer. Audits give none.

Knows the pool, the scorer and lessons; must not know how S is trained.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from twostream.models.segmentation.lessons import Lesson
from twostream.project.project import Project
from twostream.query import Scorer
from twostream.query.kmeans.pooled import cluster
from twostream.query.pool import check_pool
from twostream.rounds.pool import RoundPool

NUM_CLUSTERS = 10
"""Clusters among which the lessons are spread: the coarse clusters of a laptop's batch."""
MIN_CERTAINTY = 0.5
"""A candidate about which the scorer is less certain has little to teach."""


@dataclass(frozen=True)
class Expectation:
    """What is expected of N candidates that nobody has answered.

    Attributes:
        true: (N,) float, probability that the mask is right.
        nothing: (N,) float, probability that nothing is there.
    """

    true: np.ndarray
    nothing: np.ndarray

    @property
    def known(self) -> np.ndarray:
        """(N,) float, probability that the answer would say something about the voxels of the mask."""
        return self.true + self.nothing

    @property
    def share(self) -> np.ndarray:
        """(N,) float, probability that the mask is foreground if the answer says something about it."""
        return self.true / np.maximum(self.known, 1e-12)

    @property
    def certainty(self) -> np.ndarray:
        """(N,) float in [0, 1]: 1 if it is certain what the answer teaches, 0 if it teaches nothing on balance."""
        return np.abs(self.true - self.nothing)


def expected(pool: RoundPool, teaches: np.ndarray) -> Expectation:
    """What the scorer expects of every row of a pool.

    Two scorers of one kind: one learns whether the answer is True, the other whether it is anything but *nothing*.

    Args:
        pool: N rows.
        teaches: (N,) str, what the answer to each row teaches, a value of ``answers.TEACHES``; "" without an answer.
    """
    foreground = np.where(teaches == "background", 0.0, np.where(teaches == "", math.nan, 1.0))
    foreground[np.isnan(pool.y)] = math.nan  # audits, and rows about which annotators disagree
    something = Scorer().predict(pool.streams, foreground, score=pool.score, num_voxels=pool.num_voxels)
    true = Scorer().predict(pool.streams, pool.y, score=pool.score, num_voxels=pool.num_voxels)
    return Expectation(true, np.minimum(1 - something, 1 - true))


def propagated(project: Project, pool: RoundPool, hidden: Collection[int] = ()) -> list[Lesson]:
    """Lessons from candidates that nobody was asked about, the surest of each kind and cluster.

    Args:
        project: gives the settings and the verdicts.
        pool: a round's pool after its batch was answered. It holds nothing of labels boxes, validation or test box.
        hidden: ids of answered candidates whose answers must have no influence, and that give no lesson themselves.

    Returns:
        In the order of their ids.
    """
    limit = project.config.refit.propagate_per_cluster
    ids = pool.ids
    masked = np.isin(ids, list(hidden))
    y = np.where(masked, math.nan, pool.y)
    rows = np.flatnonzero(~pool.excluded)
    if not project.config.refit.propagate or len(rows) == 0 or not ((y == 1).any() and (y == 0).any()):
        return []  # from answers of one kind alone the scorer would expect that kind everywhere
    verdicts = project.ledger.verdicts()
    teaches = np.array([verdicts[i].teaches if i in verdicts else "" for i in ids.tolist()], object)
    found = expected(replace(pool, y=y), teaches)
    certainty, is_true = found.certainty[rows], found.share[rows] >= 0.5
    checked = check_pool(pool.streams, np.where(pool.excluded, 0.0, math.nan)).in_own_order()
    places = cluster(
        checked, rows, min(NUM_CLUSTERS, len(rows)), seed=project.seed(0, "propagation"), stream="supervised"
    )
    chosen: list[int] = []
    for group in np.unique(places.labels):
        for kind in (True, False):
            members = np.flatnonzero((places.labels == group) & (is_true == kind) & (certainty >= MIN_CERTAINTY))
            surest = members[np.lexsort((ids[rows[members]], -certainty[members]))][:limit]
            chosen += rows[surest].tolist()
    return [
        Lesson(
            pool.candidates[row].box,
            pool.candidates[row].mask,
            "expected",
            share=round(float(found.share[row]), 6),
            weight=round(float(found.known[row]), 6),
            surprise=round(abs(float(found.share[row]) - float(pool.score[row])), 6),
        )
        for row in sorted(chosen, key=lambda row: ids[row])
    ]
