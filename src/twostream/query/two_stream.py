"""Two-stream hierarchical clustering (Lin 2020): coarse clusters in one stream, fine ones in the other.

One query per fine cluster, the member nearest its centre, away from what has been answered. ``published`` selects
what the published script selects, ``corrected`` what it meant: the script looks medoids up among rows that its own
distance filter has dropped.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from twostream.errors import InputError
from twostream.query.pool import Pool
from twostream.query.strategy import Selection, Strategy, register_strategy

FARTHEST_SHARE = 0.2
"""Share of a crowded coarse cluster, farthest from its answers, that stays in the running (published code)."""
ROWS_PER_BLOCK = 4096
"""Rows whose distances to all answers are held at once, so that memory does not grow with their product."""


@register_strategy("two-stream")
class TwoStream(Strategy):
    """Hierarchical clustering over two streams.

    Args:
        num_clusters: (coarse, fine per coarse). Their product is the published batch; with another
            ``batch_size`` the fine number follows from it.
        first: stream of the coarse level: "supervised" (published code) or "unsupervised" (published figure).
        variant: "corrected" or "published".
        random_state: seed of both k-means levels.

    X must be {"supervised": (N, Ds), "unsupervised": (N, Du)}.
    """

    def __init__(
        self,
        *,
        num_clusters: tuple[int, int] = (100, 10),
        first: str = "supervised",
        variant: str = "corrected",
        random_state: int = 0,
    ) -> None:
        super().__init__(random_state=random_state)
        self.keeps_row_order = True
        if first not in ("supervised", "unsupervised"):
            raise InputError(f"first is {first!r}; expected 'supervised' or 'unsupervised'.")
        if variant not in ("corrected", "published"):
            raise InputError(f"variant is {variant!r}; expected 'corrected' or 'published'.")
        self.num_clusters = _two_numbers(num_clusters)
        self.first = first
        self.variant = variant

    def _select(self, pool: Pool, batch_size: int, rng: np.random.Generator) -> Selection:
        coarse_features, fine_features = self._streams(pool)
        num_coarse, num_fine = self._shape(batch_size)
        known = np.union1d(pool.askable, pool.answered)
        coarse = np.full(len(pool.y), -1)
        coarse[known] = _kmeans(coarse_features[known], num_coarse, self.random_state)[0]
        names = np.unique(coarse[pool.askable])
        members = [pool.askable[coarse[pool.askable] == name] for name in names]
        budgets = share_budget([len(m) for m in members], batch_size, num_fine)
        round_number = len(pool.answered) // batch_size
        rows: list[int] = []
        reasons: list[dict[str, Any]] = []
        for name, rows_in, budget in zip(names, members, budgets, strict=True):
            if budget == 0:
                continue
            answers = pool.answered[coarse[pool.answered] == name]
            crowded = len(answers) > round_number * num_fine
            left = far_from_answers(rows_in, answers, fine_features, budget) if crowded else rows_in
            for row, reason in self._medoids(left, rows_in, fine_features, budget):
                nearest = _nearest(fine_features[[row]], fine_features[answers])[0] if len(answers) else None
                rows.append(row)
                reasons.append(
                    {"coarse": int(name), **reason, "distance_to_answer": None if nearest is None else float(nearest)}
                )
        return Selection(np.asarray(rows, np.int64), np.full(len(pool.y), np.nan), reasons)

    def _streams(self, pool: Pool) -> tuple[np.ndarray, np.ndarray]:
        missing = {"supervised", "unsupervised"} - set(pool.streams)
        if missing:
            raise InputError(
                f"two-stream got the streams {sorted(pool.streams)}; expected X = "
                "{'supervised': (N, Ds), 'unsupervised': (N, Du)}."
            )
        second = "unsupervised" if self.first == "supervised" else "supervised"
        return pool.streams[self.first], pool.streams[second]

    def _shape(self, batch_size: int) -> tuple[int, int]:
        """Coarse and fine numbers for this batch: as given where their product is the batch."""
        coarse, fine = self.num_clusters
        if coarse * fine == batch_size:
            return coarse, fine
        coarse = min(coarse, batch_size)
        return coarse, max(1, batch_size // coarse)

    def _medoids(
        self, rows: np.ndarray, unfiltered: np.ndarray, features: np.ndarray, num_clusters: int
    ) -> list[tuple[int, dict[str, Any]]]:
        """One row per fine cluster, nearest its centre, with the reason."""
        labels, centers = _kmeans(features[rows], num_clusters, self.random_state, n_init=10, max_iter=200)
        # The published script takes positions among the filtered rows for positions among all of the cluster's.
        looked_up = features[unfiltered if self.variant == "published" else rows]
        picked: list[tuple[int, dict[str, Any]]] = []
        for fine in range(num_clusters):
            positions = np.flatnonzero(labels == fine)
            if len(positions) == 0:
                continue
            distance = ((looked_up[positions] - centers[fine]) ** 2).sum(1)
            row = int(rows[positions[np.argmin(distance)]])
            to_center = float(np.sqrt(((features[row] - centers[fine]) ** 2).sum()))
            picked.append((row, {"fine": fine, "stands_for": len(positions), "distance_to_center": to_center}))
        return picked + self._top_up(rows, [row for row, _ in picked], num_clusters - len(picked))

    def _top_up(self, rows: np.ndarray, picked: list[int], number: int) -> list[tuple[int, dict[str, Any]]]:
        """Rows beside the medoids where duplicates left k-means with fewer clusters than queries."""
        spare = rows[~np.isin(rows, picked)][:number]
        return [(int(r), {"fine": -1, "stands_for": 1, "distance_to_center": 0.0}) for r in spare]


def _two_numbers(num_clusters: Any) -> tuple[int, int]:
    try:
        coarse, fine = num_clusters
        if int(coarse) != coarse or int(fine) != fine or min(coarse, fine) < 1:
            raise ValueError
    except (TypeError, ValueError):
        raise InputError(
            f"num_clusters is {num_clusters!r}; expected two whole numbers >= 1: coarse, and fine per coarse."
        ) from None
    return int(coarse), int(fine)


def share_budget(sizes: list[int], batch_size: int, num_fine: int) -> list[int]:
    """Queries per coarse cluster (METHOD: steps 4 and 5 of the published script).

    Every cluster gets ``num_fine``, or its size if that is smaller; what is left goes, one each and the largest
    first, to the clusters that have more members than queries, until nothing is left.

    Args:
        sizes: members that may be asked, per cluster; their sum is at least ``batch_size``.
    """
    size = np.asarray(sizes)
    budget = np.minimum(num_fine, size)
    while budget.sum() > batch_size:  # more clusters than the batch is large
        budget[np.argmin(np.where(budget > 0, size, size.max() + 1))] -= 1
    level, extra = num_fine, batch_size - int(budget.sum())
    while extra > 0:
        larger = np.flatnonzero(size > level)
        chosen = larger[np.argsort(-size[larger], kind="stable")][:extra]
        budget[chosen] += 1
        extra -= len(chosen)
        level += 1
    return [int(b) for b in budget]


def far_from_answers(rows: np.ndarray, answers: np.ndarray, features: np.ndarray, at_least: int) -> np.ndarray:
    """The rows farthest from their nearest answer: a fifth of them, but ``at_least``; nearest of these first."""
    if len(answers) == 0:
        return rows
    keep = max(int(FARTHEST_SHARE * len(rows)), at_least)
    return rows[np.argsort(_nearest(features[rows], features[answers]))[-keep:]]


def _nearest(features: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Distance of each of (N, D) rows to the nearest of (L, D) answers, (N,)."""
    starts = range(0, len(features), ROWS_PER_BLOCK)
    return np.concatenate([cdist(features[s : s + ROWS_PER_BLOCK], answers).min(1) for s in starts])


def _kmeans(features: np.ndarray, num_clusters: int, seed: int, **settings: Any) -> tuple[np.ndarray, np.ndarray]:
    # One thread: several would add their partial sums in the order in which they happen to finish, and a last digit
    # decides between near ties. The same pool and seed must give the same rows.
    with warnings.catch_warnings(), threadpool_limits(limits=1):
        # Duplicates give fewer clusters than asked for; the caller tops up.
        warnings.filterwarnings("ignore", category=ConvergenceWarning)
        model = KMeans(min(num_clusters, len(features)), random_state=seed, **settings).fit(features)
    return model.labels_, model.cluster_centers_
