"""k-means on a subsample: nearly as good as scikit-learn's, at a fraction of the cost.

Centres are found on a random subsample of the rows, then one Lloyd step with all rows follows. Rows far from most
others are likelier to be drawn and count for less (a coreset, Bachem 2018), so that rare kinds are not missed.
Everything is computed in single precision, rows are read as they are needed, and the iterations end when they gain
little. Small problems are solved side by side in a few long array operations, because many short ones would wait for
Python's lock.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np
from scipy.sparse import csc_matrix

from twostream.query.kmeans.distances import ROWS_AT_ONCE, nearest, robust_center, squared_lengths
from twostream.query.kmeans.problem import Problem, Solution
from twostream.query.workers import Workers

ROWS_PER_CENTER, FEWEST_PER_CENTER, SAMPLE_ROWS = 256, 40, 2**16
"""Rows of the subsample per centre; fewer, but at least the second number, where it would exceed the third."""
SOME_COLUMNS = 128
"""Of more columns than this, the search begins on those with the largest variance and ends on all (after Boutsidis
2009)."""
ROWS_SIDE_BY_SIDE = 2048
"""Rows of subsamples that are worked on at once."""
BATCH_ROWS = 8192
"""Rows of the problems that one worker solves side by side: the same on every machine, because a last digit may depend
on it."""
MAX_ITERATIONS = 100
RESTARTS, SMALL_VALUES = 4, 2**16
"""Starts on a subsample that holds no more values than the second number."""
TIE = 1e-5
"""Relative difference of two inertias that may be rounding; the earlier run is taken then."""
LITTLE = 1e-3
"""Iterations end when they lower the inertia by less than this part."""


def subsampled_kmeans(
    problems: Sequence[Problem], num_clusters: int, *, seed: int, workers: Workers | None = None
) -> list[Solution]:
    """k-means of any number of rows: centres on a subsample, then one step with all rows.

    Args:
        problems: of one D, each with at least ``num_clusters`` rows.
        num_clusters: centres wanted; a centre that no row is nearest to stays without rows.
        seed: of each problem, whatever others stand beside it.
        workers: threads for the blocks of large problems; None inside a worker.

    Returns:
        For each problem, labels of all n rows, (k, D) float32 centres, inertia and distances in single precision.
    """
    samples = [_Subsample(problem, num_clusters, seed) for problem in problems]
    for group in _side_by_side(samples):
        _find_centers(group, num_clusters, workers)
    return [sample.extend_to_all(workers) for sample in samples]


def subsampled_batches(
    problems: Sequence[Problem], num_clusters: Sequence[int], *, seed: int, workers: Workers
) -> list[Solution]:
    """``subsampled_kmeans`` of many problems, each with its own k; small ones with the same k go side by side."""
    batches: list[list[int]] = []
    num_rows = 0
    for i in sorted(range(len(problems)), key=lambda i: num_clusters[i]):
        size = problems[i].num_rows
        if batches and num_clusters[batches[-1][0]] == num_clusters[i] and num_rows + size <= BATCH_ROWS:
            batches[-1].append(i)
            num_rows += size
        else:
            batches.append([i])
            num_rows = size
    found = workers.map(
        lambda batch: subsampled_kmeans([problems[i] for i in batch], num_clusters[batch[0]], seed=seed), batches
    )
    solution_of = dict(zip(chain(*batches), chain(*found), strict=True))
    return [solution_of[i] for i in range(len(problems))]


def rows_wanted(num_clusters: int) -> int:
    """About how many rows the subsample has on which so many centres are found."""
    return min(ROWS_PER_CENTER * num_clusters, max(SAMPLE_ROWS, FEWEST_PER_CENTER * num_clusters))


class _Subsample:
    """A subsample of the rows of a problem, on which its centres are found.

    Attributes:
        x: (n, D) float32, centred on ``middle`` to avoid cancellation in products.
        middle: (D,) float32, see ``robust_center``.
        norm2: (n,) squared lengths.
        weight: (n,) float32, what each row counts: the inverse of its chance to be drawn, times its own weight.
        narrow: (n, d) the columns with the largest variance; x itself where there are few.
        starts: runs of which the best is taken; several where they cost next to nothing, because in few dimensions one
            start differs much from another.
        rng: draws the subsample and the first centres.
        found: centres (centred), labels and distances of the subsample.
    """

    found: Solution

    def __init__(self, problem: Problem, num_clusters: int, seed: int) -> None:
        self.problem, self.rng, number = problem, np.random.default_rng(seed), problem.num_rows
        self._weights = np.ones(number, np.float32) if problem.weights is None else problem.weights.astype(np.float32)
        wanted = rows_wanted(num_clusters)
        self._is_all = number <= wanted
        rows: slice | np.ndarray = slice(0, number)
        self.weight = self._weights
        if not self._is_all:
            chance = _chances(problem, self._weights, wanted)
            rows = np.flatnonzero(self.rng.random(number, np.float32) < chance)
            self.weight = self._weights[rows] / chance[rows]
        x = np.asarray(problem.read(rows), np.float32)
        self.middle = robust_center(x)
        self.x = x - self.middle  # a new array, because what was read may be the caller's
        self.norm2 = squared_lengths(self.x)
        self.narrow = self.x
        if x.shape[1] > SOME_COLUMNS:
            mean = np.full(len(x), 1 / len(x), np.float32) @ self.x
            variance = np.einsum("ij,ij->j", self.x, self.x) / len(x) - mean * mean
            self.narrow = self.x.take(np.sort(np.argsort(variance, kind="stable")[-SOME_COLUMNS:]), 1)
        self.starts = RESTARTS if x.size <= SMALL_VALUES else 1

    def extend_to_all(self, workers: Workers | None) -> Solution:
        """The clusters of all rows, after one Lloyd step with all of them."""
        problem, centers = self.problem, self.found.centers
        if self._is_all:
            return Solution(self.found.labels, centers + self.middle, self.found.inertia, self.found.distance2)
        number, size, weights = problem.num_rows, problem.rows_per_block, self._weights
        blocks = [slice(start, min(start + size, number)) for start in range(0, number, size)]
        # This one step removes most of the error that the subsample has left.
        sums, total = np.zeros(centers.shape), np.zeros(len(centers))
        for block in blocks:
            x = problem.read(block) - self.middle
            labels = nearest(x, centers, workers)[0]
            total += np.bincount(labels, weights[block], len(centers))
            for start in range(0, len(x), ROWS_AT_ONCE):  # few enough for sums in single precision
                part = slice(start, start + ROWS_AT_ONCE)
                sums += _table(labels[part], weights[block][part], len(centers)) @ x[part]
        centers = _means(sums, total, centers)
        labels, distance2, inertia = np.empty(number, np.int32), np.empty(number, np.float32), 0.0
        for block in blocks:
            labels[block], distance2[block] = nearest(problem.read(block) - self.middle, centers, workers)
            inertia += float(weights[block] @ distance2[block])
        return Solution(labels, centers + self.middle, inertia, distance2)


def _chances(problem: Problem, weights: np.ndarray, wanted: int) -> np.ndarray:
    """(n,) float32, each row's chance to be drawn into a subsample of ``wanted`` rows (Bachem 2018).

    One half in proportion to the weight, one half to the weight times the squared distance to a robust centre. Chances
    are capped at 1, so that a few fewer may be drawn.
    """
    number, size = problem.num_rows, problem.rows_per_block
    middle = robust_center(problem.read(np.array([0, number // 2, number - 1])))
    far = np.empty(number, np.float32)
    for start in range(0, number, size):
        far[start : start + size] = squared_lengths(problem.read(slice(start, min(start + size, number))) - middle)
    far *= weights
    total = float(far.sum(dtype=float)) or 1.0
    return np.minimum(wanted / 2 * (weights / float(weights.sum(dtype=float)) + far / total), 1).astype(np.float32)


def _side_by_side(samples: list[_Subsample]) -> Iterator[list[_Subsample]]:
    """Groups of subsamples of about the same number of rows, small enough to be worked on at once."""
    group: list[_Subsample] = []
    for sample in sorted(samples, key=lambda sample: (sample.starts, len(sample.x))):
        rows = (len(group) + 1) * sample.starts * len(sample.x)
        if group and (sample.starts != group[0].starts or rows > ROWS_SIDE_BY_SIDE):
            yield group
            group = []
        group.append(sample)
    if group:
        yield group


def _find_centers(group: list[_Subsample], k: int, workers: Workers | None) -> None:
    """Centres of these subsamples: found in some columns, side by side, and then, one by one, in all columns."""
    starts = group[0].starts
    runs = [sample for sample in group for _ in range(starts)]
    longest = max(len(sample.x) for sample in group)
    if len(runs) == 1:
        x, weight = runs[0].narrow[None], runs[0].weight[None]
    else:
        x, weight = (np.zeros((len(runs), longest, *rest), np.float32) for rest in (runs[0].narrow.shape[1:], ()))
        for i, sample in enumerate(runs):
            x[i, : len(sample.x)], weight[i, : len(sample.x)] = sample.narrow, sample.weight
    # More trials per centre do what restarts would for less (LOG.md), as long as there are few centres.
    trials = max(2 + int(np.log(k)), min(16, 1600 // k))
    draws = np.stack([sample.rng.random((k, trials)) for sample in runs])
    norm2 = squared_lengths(x)
    ends = _lloyd(x, norm2, weight, _first_centers(x, norm2, weight, draws), workers)
    for i, sample in enumerate(group):
        own_runs, own = ends[starts * i : starts * (i + 1)], slice(0, len(sample.x))
        least = min(end.inertia for end in own_runs)
        best = next(end for end in own_runs if end.inertia <= least * (1 + TIE))
        assert best.distance2 is not None
        sample.found = replace(best, labels=best.labels[own], distance2=best.distance2[own])
        if sample.narrow is not sample.x:
            labels = sample.found.labels
            sums, total = _table(labels, sample.weight, k) @ sample.x, np.bincount(labels, sample.weight, k)
            means = _means(sums, total, np.zeros_like(sums))  # a cluster without rows begins in the middle
            sample.found = _lloyd(sample.x[None], sample.norm2[None], sample.weight[None], means[None], workers)[0]


def _first_centers(x: np.ndarray, norm2: np.ndarray, weight: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """k-means++ (Arthur 2007) with the best of some trials for every centre.

    Args:
        x: (P, n, D) float32, of P runs; rows that only fill up a shorter run have weight 0.
        norm2: (P, n) squared lengths.
        weight: (P, n).
        draws: (P, k, trials) in [0, 1).

    Returns:
        (P, k, D) float32.
    """
    runs, picks = np.arange(len(x)), np.empty(draws.shape[:2], int)
    wide = np.concatenate([x, norm2[..., None], np.ones_like(norm2)[..., None]], 2)

    def distances_to(rows: np.ndarray) -> np.ndarray:
        left = wide[runs[:, None], rows] * -2
        left[..., -2], left[..., -1] = 1, norm2[runs[:, None], rows]
        return left @ wide.swapaxes(1, 2)

    picks[:, 0] = _drawn(weight, draws[:, 0, :1])[:, 0]
    closest = np.maximum(distances_to(picks[:, :1])[:, 0], 0)
    for c in range(1, draws.shape[1]):
        rows = _drawn(weight * closest, draws[:, c])
        distance2 = distances_to(rows)
        np.minimum(distance2, closest[:, None], out=distance2)
        best = (distance2 @ weight[..., None])[..., 0].argmin(1)
        picks[:, c] = rows[runs, best]
        closest = np.maximum(distance2[runs, best], 0)
    return x[runs[:, None], picks]


def _drawn(weight: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """(P, n) weights and (P, m) draws from [0, 1) -> (P, m) positions, drawn in proportion to the weights."""
    runs = np.arange(len(weight))[:, None]
    cumulated = np.cumsum(weight, 1, dtype=float)
    cumulated /= np.maximum(cumulated[:, -1:], np.finfo(float).tiny)
    # One ascending row for all runs, so that one search serves all: the first from 0 to 1, the second from 1 to 2.
    found = np.searchsorted((cumulated + runs).ravel(), draws + runs, side="right") - runs * weight.shape[1]
    return found.clip(0, weight.shape[1] - 1)


def _lloyd(
    x: np.ndarray, norm2: np.ndarray, weight: np.ndarray, centers: np.ndarray, workers: Workers | None
) -> list[Solution]:
    """Lloyd's iterations of P runs side by side from (P, k, D) centres; each run ends when it gains little."""
    num_runs, k, width = centers.shape
    least, table = np.full(num_runs, np.inf), _table(np.zeros(norm2.size, np.int32), weight.ravel(), num_runs * k)
    first = k * np.arange(num_runs, dtype=np.int32)[:, None]
    for iteration in range(MAX_ITERATIONS + 1):
        labels, distance2 = nearest(x, centers, workers, norm2)
        inertia = np.einsum("ij,ij->i", weight, distance2)
        gains = inertia < (1 - LITTLE) * least
        if iteration == MAX_ITERATIONS or not gains.any():
            break
        least[gains] = inertia[gains]
        least[~gains] = 0  # for good
        table.indices = (labels + first).ravel()
        sums, total = table @ x.reshape(-1, width), np.bincount(table.indices, weight.ravel(), num_runs * k)
        new = _means(sums, total, centers.reshape(-1, width)).reshape(centers.shape)
        centers = np.where(gains[:, None, None], new, centers)
    return [Solution(*of_run) for of_run in zip(labels, centers, inertia.tolist(), distance2, strict=True)]


def _table(labels: np.ndarray, weight: np.ndarray, k: int) -> csc_matrix:
    """(k, n) sparse: times (n, D) rows, the weighted sum of the rows of every label."""
    return csc_matrix((weight, labels, np.arange(len(labels) + 1, dtype=np.int32)), shape=(k, len(labels)))


def _means(sums: np.ndarray, total: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """(k, D) float32 means; a cluster without rows keeps its centre."""
    total = total[:, None]
    return np.where(total > 0, sums / np.maximum(total, 1e-30), centers).astype(np.float32)
