"""k-means of some rows of a pool, exact up to ``EXACT_ROWS`` rows and on a subsample above."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from twostream.query.kmeans.problem import Problem
from twostream.query.kmeans.solve import medoids, solve
from twostream.query.kmeans.subsampled import rows_wanted
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
        rows, clusters, sizes = medoids(self.distance, self.labels, len(np.unique(self.labels)))
        yield from zip(clusters.tolist(), rows.tolist(), sizes.tolist(), strict=True)


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
        exact = len(rows) <= EXACT_ROWS and weights is None
        if exact:
            problem = Problem.of(pool.take(rows, stream, np.float64))
        else:
            size = rows_per_block(pool.num_features(stream))
            problem = Problem(lambda part: pool.take(rows[part], stream), len(rows), size, weights)
        (found,) = solve([problem], [num_clusters], exact=exact, seed=seed, workers=workers)
        wanted = rows_wanted(num_clusters)
        if not exact and wanted < len(rows):
            note = f"{num_clusters} centres were found on about {wanted} of {len(rows)} rows"
        distance = np.empty(len(rows))
        for part, features in pool.blocks(rows, stream):
            distance[part] = np.sqrt(((features - found.centers[found.labels[part]]) ** 2).sum(1))
    return Clusters(found.labels, distance, found.centers, note)
