"""k-means for pools of any size, and distances to the nearest of some rows.

Up to ``EXACT_ROWS`` rows all are clustered. Above, centres are found on a random share of the rows, as faiss does, and
every row is given to its nearest centre block by block: the memory is that of the share.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from twostream.query.pool import Pool

EXACT_ROWS = 20_000
"""Rows up to which all are clustered."""
ROWS_PER_CLUSTER = 256
"""Rows for each centre, where centres are found on a share of the rows."""


@dataclass(frozen=True)
class Clusters:
    """Rows, each with the centre that it belongs to.

    Attributes:
        labels: (n,) int32.
        distance: (n,) float, from each row to its centre.
        centers: (K, D) float; K may be smaller than was asked for where rows are equal.
        note: how it was done where that is not as usual, else "".
    """

    labels: np.ndarray
    distance: np.ndarray
    centers: np.ndarray
    note: str = ""

    def medoids(self) -> Iterator[tuple[int, int, int]]:
        """(cluster, position of the row nearest its centre, number of its rows), clusters without rows left out."""
        order = np.lexsort((self.distance, self.labels))
        names, starts, counts = np.unique(self.labels[order], return_index=True, return_counts=True)
        for name, start, count in zip(names, starts, counts, strict=True):
            yield int(name), int(order[start]), int(count)


def cluster(
    pool: Pool,
    rows: np.ndarray,
    num_clusters: int,
    *,
    seed: int,
    stream: str | None = None,
    weights: np.ndarray | None = None,
) -> Clusters:
    """k-means (k-means++, Lloyd) of some rows of a pool.

    Args:
        rows: (n,) int64, n >= 1, in an order that does not hang on how they were passed.
        num_clusters: centres wanted; at most one per row is given.
        stream: see ``Pool.take``.
        weights: (n,) float >= 0, what each row counts; not all 0.
    """
    num_clusters = min(num_clusters, len(rows))
    rng = np.random.default_rng(seed)
    share, note = np.arange(len(rows)), ""
    wanted = max(EXACT_ROWS, ROWS_PER_CLUSTER * num_clusters)
    if len(rows) > wanted:
        share = np.sort(rng.choice(len(rows), wanted, replace=False))
        note = f"{num_clusters} centres were found on {wanted} of {len(rows)} rows"
    model = fit(
        pool.take(rows[share], stream).astype(np.float32),
        num_clusters, seed, sample_weight=None if weights is None else weights[share],
    )  # fmt: skip
    labels, distance = assign(pool, rows, model.cluster_centers_, stream)
    return Clusters(labels, distance, model.cluster_centers_, note)


def fit(
    features: np.ndarray, num_clusters: int, seed: int, *, sample_weight: np.ndarray | None = None, **settings: object
) -> KMeans:
    """scikit-learn's k-means on one thread; fewer centres than asked for, without a warning, where rows are equal.

    One thread: several would add their partial sums in the order in which they happen to finish, and a last digit
    decides between near ties. The same pool and seed must give the same rows.
    """
    with warnings.catch_warnings(), threadpool_limits(limits=1):
        warnings.filterwarnings("ignore", category=ConvergenceWarning)
        return KMeans(min(num_clusters, len(features)), random_state=seed, **settings).fit(
            features, sample_weight=sample_weight
        )


def assign(pool: Pool, rows: np.ndarray, centers: np.ndarray, stream: str | None) -> tuple[np.ndarray, np.ndarray]:
    """The nearest of (K, D) centres to every row, (n,) int32, and the distance to it, (n,) float32."""
    labels, distance = np.empty(len(rows), np.int32), np.empty(len(rows), np.float32)
    for part, features in pool.blocks(rows, stream):
        labels[part], distance[part] = nearest(features, centers)
    return labels, distance


def nearest(features: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of the nearest of (K, D) centres to each of (n, D) rows, and the distance to it, both (n,).

    By |x|^2 - 2 x.c + |c|^2, in single precision where the features are; the distance itself is then taken from the
    difference, since the sum cancels where rows are near.
    """
    centers = centers.astype(features.dtype, copy=False)
    half = 0.5 * (centers**2).sum(1)
    index = np.empty(len(features), np.int32)
    step = max(1, 2**22 // len(centers))
    for start in range(0, len(features), step):
        index[start : start + step] = np.argmax(features[start : start + step] @ centers.T - half, axis=1)
    return index, np.sqrt(((features - centers[index]) ** 2).sum(1))


def nearest_distance(pool: Pool, rows: np.ndarray, others: np.ndarray, stream: str | None = None) -> np.ndarray:
    """Distance of each row to the nearest of ``others``, rows of the same pool; infinite where there are none. (n,)."""
    distance = np.full(len(rows), np.inf)
    if len(others) == 0:
        return distance
    for part, features in pool.blocks(rows, stream):
        for _, centers in pool.blocks(others, stream):
            distance[part] = np.minimum(distance[part], nearest(features, centers)[1])
    return distance
