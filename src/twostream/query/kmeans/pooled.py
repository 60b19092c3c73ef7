"""k-means of some rows of a pool, exact up to ``EXACT_ROWS`` rows and on a subsample above."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from twostream.query.kmeans.exact import exact_kmeans
from twostream.query.kmeans.problem import Problem
from twostream.query.kmeans.subsampled import rows_wanted, subsampled_kmeans
from twostream.query.pool import Pool, rows_per_block
from twostream.query.workers import Workers

EXACT_ROWS = 20_000
"""Rows up to which k-means is exact, unless it is told otherwise."""


@dataclass(frozen=True)
class Clusters:
    """Rows, each with the centre that it belongs to.

    Attributes:
        labels: (n,) int32.
        distance: (n,) float, from each row to its centre.
        centers: (K, D) float.
        note: a sentence where the centres were found on a subsample, else "".
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
        rows: (n,) int64, n >= 1, in an order that does not depend on how they were passed.
        num_clusters: centres wanted; at most one per row is given.
        stream: see ``Pool.take``.
        weights: (n,) float >= 0, what each row counts; not all 0. With weights, centres are found on a subsample.
    """
    num_clusters, note = min(num_clusters, len(rows)), ""
    with Workers() as workers:
        if len(rows) <= EXACT_ROWS and weights is None:
            problem = Problem.of(pool.take(rows, stream, np.float64))
            found = exact_kmeans([problem], [num_clusters], seed=seed, workers=workers)[0]
        else:
            size = rows_per_block(pool.num_features(stream))
            problem = Problem(lambda part: pool.take(rows[part], stream), len(rows), size, weights)
            found = subsampled_kmeans([problem], num_clusters, seed=seed)[0]
            wanted = rows_wanted(num_clusters)
            if wanted < len(rows):
                note = f"{num_clusters} centres were found on about {wanted} of {len(rows)} rows"
        distance = np.empty(len(rows))
        for part, features in pool.blocks(rows, stream):
            distance[part] = np.sqrt(((features - found.centers[found.labels[part]]) ** 2).sum(1))
    return Clusters(found.labels, distance, found.centers, note)
