"""k-means for pools of any size, and distances to the nearest of some rows.

Up to ``EXACT_ROWS`` rows all are clustered. Above, centres are found on a random share of the rows, as faiss does, and
every row is given to its nearest centre block by block: the memory is that of the share.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from twostream.query import lloyd, quick
from twostream.query.pool import Pool, rows_per_block

EXACT_ROWS = 20_000
"""Rows up to which all are clustered."""


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
    num_clusters, note = min(num_clusters, len(rows)), ""
    with threadpool_limits(limits=1):  # the same sums in the same order, whatever else runs
        if len(rows) <= EXACT_ROWS and weights is None:
            found = lloyd.kmeans([pool.take(rows, stream, np.float64)], num_clusters, seed=seed)[0]
        else:
            size = rows_per_block(pool.num_features(stream))
            problem = quick.Problem(lambda part: pool.take(rows[part], stream), len(rows), size, weights)
            found = quick.kmeans([problem], num_clusters, seed=seed)[0]
            wanted = quick.rows_wanted(num_clusters)
            note = (
                f"{num_clusters} centres were found on about {wanted} of {len(rows)} rows" if wanted < len(rows) else ""
            )
    distance = np.empty(len(rows))
    for part, features in pool.blocks(rows, stream):
        distance[part] = np.sqrt(((features - found.centers[found.labels[part]]) ** 2).sum(1))
    return Clusters(found.labels, distance, found.centers, note)


def nearest(features: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of the nearest of (k, D) centres to each of (n, D) rows, and the distance to it, both (n,).

    The index comes from a product in single precision, the distance from the difference, which does not cancel.
    """
    index = quick.nearest(features, centers)[0]
    difference = features - centers[index]  # not of what is about the middle: a last digit may be the radius of a ball
    return index, np.sqrt(np.einsum("ij,ij->i", difference, difference))


def nearest_distance(pool: Pool, rows: np.ndarray, others: np.ndarray, stream: str | None = None) -> np.ndarray:
    """Distance of each row to the nearest of ``others``, rows of the same pool; infinite where there are none. (n,)."""
    distance = np.full(len(rows), np.inf)
    if len(others) == 0:
        return distance
    for part, features in pool.blocks(rows, stream):
        for _, centers in pool.blocks(others, stream):
            distance[part] = np.minimum(distance[part], nearest(features, centers)[1])
    return distance
