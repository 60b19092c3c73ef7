"""Exact k-means: scikit-learn's own, many problems side by side."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from twostream.query.kmeans.problem import Problem, Solution
from twostream.query.workers import Workers


def exact_kmeans(
    problems: Sequence[Problem],
    num_clusters: Sequence[int],
    *,
    seed: int,
    workers: Workers,
    restarts: int = 1,
    max_iter: int = 300,
) -> list[Solution]:
    """``KMeans(k, random_state=seed, n_init=restarts, max_iter=max_iter).fit`` of every problem.

    Args:
        problems: without weights.
        num_clusters: one k for each problem, at most as many as it has rows.
        seed: of every problem.
        workers: each problem is solved by one of them, on one thread.
        restarts: runs of which the best is taken.
        max_iter: iterations of a run at most.

    Returns:
        For each problem; where there are fewer distinct rows than clusters, some clusters have no members.
    """
    solve = partial(_solve, seed=seed, restarts=restarts, max_iter=max_iter)
    with warnings.catch_warnings():  # once for all threads: the filters are the process's
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than clusters is no fault
        return workers.map(solve, list(zip(problems, num_clusters, strict=True)))


def _solve(problem_and_k: tuple[Problem, int], *, seed: int, restarts: int, max_iter: int) -> Solution:
    problem, k = problem_and_k
    features = problem.read(slice(0, problem.num_rows))
    model = KMeans(k, random_state=seed, n_init=restarts, max_iter=max_iter).fit(features)
    return Solution(model.labels_.astype(np.int32, copy=False), model.cluster_centers_, float(model.inertia_))
