"""Many k-means problems by one door: exactly, or on subsamples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from twostream.query.kmeans.exact import exact_kmeans
from twostream.query.kmeans.problem import Problem, Solution
from twostream.query.kmeans.subsampled import subsampled_batches, subsampled_kmeans
from twostream.query.workers import Workers


def solve(
    problems: Sequence[Problem],
    num_clusters: Sequence[int],
    *,
    exact: bool,
    seed: int,
    workers: Workers,
    restarts: int = 1,
    max_iter: int = 300,
) -> list[Solution]:
    """Clusters of every problem.

    Args:
        problems: of one D.
        num_clusters: one k for each problem, at most as many as it has rows.
        exact: scikit-learn's k-means of all rows; False finds centres on a subsample.
        seed: of every problem.
        workers: threads.
        restarts, max_iter: of the exact one.
    """
    if exact:
        return exact_kmeans(problems, num_clusters, seed=seed, workers=workers, restarts=restarts, max_iter=max_iter)
    if len(problems) == 1:
        return subsampled_kmeans(problems, num_clusters[0], seed=seed, workers=workers)
    return subsampled_batches(problems, num_clusters, seed=seed, workers=workers)


def medoids(distance2: np.ndarray, labels: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The row nearest the centre of every cluster; where there are fewer clusters than wanted, the last rows fill up.

    Args:
        distance2: (n,) squared distance of every row to its own centre.
        labels: (n,) cluster of every row.
        number: rows wanted, n at most. Equal rows leave k-means with fewer clusters than that.

    Returns:
        Positions of the rows, their clusters (-1 for those that fill up), and the number of rows that each stands for,
        all (number,) int64.
    """
    order = np.lexsort((distance2, labels))
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    nearest, sizes = order[starts], np.diff(starts, append=len(order))
    missing = number - len(nearest)
    filling = np.setdiff1d(np.arange(len(labels)), nearest)[::-1][:missing] if missing else nearest[:0]
    return (
        np.concatenate([nearest, filling]),
        np.concatenate([labels[nearest].astype(np.int64), np.full(missing, -1)]),
        np.concatenate([sizes, np.ones(missing, np.int64)]),
    )
