"""k-means nearly as good as scikit-learn's, for less: centres on a random share of the rows.

Rows far from most others are likelier to be in the share, and count less there (Bachem 2018), so that rare kinds are
seen. In single precision, for rows that are read when they are needed; it stops when little is won. Small problems are
solved side by side, in a few long steps instead of many short ones, for which threads would queue. The exact one is
``lloyd``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.sparse import csc_matrix

from twostream.query.lloyd import ROWS_AT_ONCE, Solution

VALUES_AT_ONCE, FEWEST_AT_ONCE, MOST_VALUES = 2**18, 128, 2**22
"""Features of a block of rows, and their products with all centres, that stay in the cache. Where there are so many
centres that a block would be smaller than this, it is larger, up to so many products."""
ROWS_PER_CENTER, FEWEST_PER_CENTER, SHARE_ROWS = 256, 40, 2**16
"""Rows of the share for every centre; fewer, but so many at least, where the share would be larger than this."""
SOME_COLUMNS = 128
"""Where there are more, the search begins on those that vary most, and ends on all (after Boutsidis 2009)."""
ROWS_SIDE_BY_SIDE = 2048
"""Rows of shares that are worked on at once."""
MANY_ITERATIONS = 100
RESTARTS, SMALL_VALUES = 4, 2**16
"""Starts on a share that holds no more numbers than this."""
ALIKE = 1e-5
"""Relative difference of inertias that may be nothing but rounding."""
LITTLE = 1e-3
"""Part of the inertia that is not worth another iteration."""


@dataclass(frozen=True)
class Problem:
    """Rows that want clusters.

    Attributes:
        read: features, float32 or float64, of a slice of the rows, or of an ascending array of row numbers.
        num_rows: n.
        rows_per_block: rows that are read at once.
        weights: (n,) float >= 0, what each row counts; not all 0. None: all alike.
    """

    read: Callable[[Any], np.ndarray]
    num_rows: int
    rows_per_block: int
    weights: np.ndarray | None = None


def kmeans(
    problems: Sequence[Problem], num_clusters: int, *, seed: int, executor: Executor | None = None
) -> list[Solution]:
    """k-means of any number of rows: centres on a share of them, then one step with all.

    Args:
        problems: of one D, each with at least ``num_clusters`` rows.
        num_clusters: centres wanted; a centre that no row is nearest to stays without rows.
        seed: of each problem, whatever others stand beside it.
        executor: threads for the steps with many rows; None where problems are dealt to threads themselves.

    Returns:
        For each, labels of all n rows, (k, D) float32 centres, inertia and distances in single precision.
    """
    shares = [_Share(problem, num_clusters, seed) for problem in problems]
    for some in _side_by_side(shares):
        _begin(some, num_clusters, executor)
    return [share.spread_out(executor) for share in shares]


def rows_wanted(num_clusters: int) -> int:
    """About how many rows the share has on which so many centres are found."""
    return min(ROWS_PER_CENTER * num_clusters, max(SHARE_ROWS, FEWEST_PER_CENTER * num_clusters))


class _Share:
    """A share of the rows of a problem, on which its centres are found.

    Attributes:
        x: (n, D) float32, about ``middle``: products of what is far from the origin lose their digits.
        middle: (D,) float32, amid most of them.
        norm2: (n,) squared lengths.
        weight: (n,) float32, what each counts: more, where rows like it are less likely to be in the share.
        narrow: (n, d) the columns that vary most; x, where there are few.
        starts: how often the search begins: in few dimensions one start differs much from another, and where it costs
            next to nothing the best of some is taken.
        rng: what chance decides.
        found: centres about ``middle``, labels and distances of the share.
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
        self.middle = amid(x)
        self.x = x - self.middle  # what was read is not ours
        self.norm2 = _squared_lengths(self.x)
        self.narrow = self.x
        if x.shape[1] > SOME_COLUMNS:
            mean = np.full(len(x), 1 / len(x), np.float32) @ self.x
            variance = np.einsum("ij,ij->j", self.x, self.x) / len(x) - mean * mean
            self.narrow = self.x.take(np.sort(np.argsort(variance, kind="stable")[-SOME_COLUMNS:]), 1)
        self.starts = RESTARTS if x.size <= SMALL_VALUES else 1

    def spread_out(self, executor: Executor | None) -> Solution:
        """From the share to all rows."""
        problem, centers = self.problem, self.found.centers
        if self._is_all:
            return Solution(self.found.labels, centers + self.middle, self.found.inertia, self.found.distance2)
        number, size, weights = problem.num_rows, problem.rows_per_block, self._weights
        blocks = [slice(start, min(start + size, number)) for start in range(0, number, size)]
        # One step of Lloyd's with everybody takes away most of what the share is off by.
        sums, total = np.zeros(centers.shape), np.zeros(len(centers))
        for block in blocks:
            x = problem.read(block) - self.middle
            labels = nearest(x, centers, executor)[0]
            total += np.bincount(labels, weights[block], len(centers))
            for start in range(0, len(x), ROWS_AT_ONCE):  # single precision holds the sum of so many
                part = slice(start, start + ROWS_AT_ONCE)
                sums += _table(labels[part], weights[block][part], len(centers)) @ x[part]
        centers = _divided(sums, total, centers)
        labels, distance2, inertia = np.empty(number, np.int32), np.empty(number, np.float32), 0.0
        for block in blocks:
            labels[block], distance2[block] = nearest(problem.read(block) - self.middle, centers, executor)
            inertia += float(weights[block] @ distance2[block])
        return Solution(labels, centers + self.middle, inertia, distance2)


def _chances(problem: Problem, weights: np.ndarray, wanted: int) -> np.ndarray:
    """(n,) float32, how likely each row is to be in a share of so many, or of fewer where some are sure to be.

    Half goes by weight alone, half by weight times squared distance to where most rows are.
    """
    number, size = problem.num_rows, problem.rows_per_block
    middle = amid(problem.read(np.array([0, number // 2, number - 1])))
    far = np.empty(number, np.float32)
    for start in range(0, number, size):
        far[start : start + size] = _squared_lengths(problem.read(slice(start, min(start + size, number))) - middle)
    far *= weights
    total = float(far.sum(dtype=float)) or 1.0
    return np.minimum(wanted / 2 * (weights / float(weights.sum(dtype=float)) + far / total), 1).astype(np.float32)


def amid(x: np.ndarray) -> np.ndarray:
    """(D,) a place near most of (n, D) rows, wherever a few may be: column by column the median of three rows."""
    a, b, c = x[0], x[len(x) // 2], x[-1]
    return np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))


def _side_by_side(shares: list[_Share]) -> Iterator[list[_Share]]:
    """Shares of about as many rows, few enough at a time."""
    some: list[_Share] = []
    for share in sorted(shares, key=lambda share: (share.starts, len(share.x))):
        rows = (len(some) + 1) * share.starts * len(share.x)
        if some and (share.starts != some[0].starts or rows > ROWS_SIDE_BY_SIDE):
            yield some
            some = []
        some.append(share)
    if some:
        yield some


def _begin(shares: list[_Share], k: int, executor: Executor | None) -> None:
    """Centres of these shares, found in some columns, side by side, and then, one by one, in all."""
    starts = shares[0].starts
    runs = [share for share in shares for _ in range(starts)]
    most = max(len(share.x) for share in shares)
    if len(runs) == 1:
        x, weight = runs[0].narrow[None], runs[0].weight[None]
    else:
        x, weight = (np.zeros((len(runs), most, *rest), np.float32) for rest in (runs[0].narrow.shape[1:], ()))
        for i, share in enumerate(runs):
            x[i, : len(share.x)], weight[i, : len(share.x)] = share.narrow, share.weight
    # More trials do what restarts would, for less (LOG.md), as long as there are not many centres to be tried for.
    trials = max(2 + int(np.log(k)), min(16, 1600 // k))
    draws = np.stack([share.rng.random((k, trials)) for share in runs])
    norm2 = _squared_lengths(x)
    ends = _refined(x, norm2, weight, _seeds(x, norm2, weight, draws), executor)
    for i, share in enumerate(shares):
        of_share, own = ends[starts * i : starts * (i + 1)], slice(0, len(share.x))
        least = min(end.inertia for end in of_share)
        best = next(end for end in of_share if end.inertia <= least * (1 + ALIKE))
        assert best.distance2 is not None
        share.found = replace(best, labels=best.labels[own], distance2=best.distance2[own])
        if share.narrow is not share.x:
            labels = share.found.labels
            sums, total = _table(labels, share.weight, k) @ share.x, np.bincount(labels, share.weight, k)
            means = _divided(sums, total, np.zeros_like(sums))  # what lost its rows begins in the middle
            share.found = _refined(share.x[None], share.norm2[None], share.weight[None], means[None], executor)[0]


def _seeds(x: np.ndarray, norm2: np.ndarray, weight: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """k-means++ with the best of some trials for every centre.

    Args:
        x: (P, n, D) float32, of P runs; what is there to fill up has weight 0.
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
    """(P, n) weights and (P, m) draws from [0, 1) -> (P, m) positions, each as likely as it weighs."""
    runs = np.arange(len(weight))[:, None]
    cumulated = np.cumsum(weight, 1, dtype=float)
    cumulated /= np.maximum(cumulated[:, -1:], np.finfo(float).tiny)
    # One ascending row for all runs: the first from 0 to 1, the second from 1 to 2.
    found = np.searchsorted((cumulated + runs).ravel(), draws + runs, side="right") - runs * weight.shape[1]
    return found.clip(0, weight.shape[1] - 1)


def _refined(
    x: np.ndarray, norm2: np.ndarray, weight: np.ndarray, centers: np.ndarray, executor: Executor | None
) -> list[Solution]:
    """Lloyd's iterations of P runs, side by side from (P, k, D) centres, each for as long as it wins something."""
    num_runs, k, width = centers.shape
    least, table = np.full(num_runs, np.inf), _table(np.zeros(norm2.size, np.int32), weight.ravel(), num_runs * k)
    first = k * np.arange(num_runs, dtype=np.int32)[:, None]
    for iteration in range(MANY_ITERATIONS + 1):
        labels, distance2 = nearest(x, centers, executor, norm2)
        inertia = np.einsum("ij,ij->i", weight, distance2)
        wins = inertia < (1 - LITTLE) * least
        if iteration == MANY_ITERATIONS or not wins.any():
            break
        least[wins] = inertia[wins]
        least[~wins] = 0  # for good
        table.indices = (labels + first).ravel()
        sums, total = table @ x.reshape(-1, width), np.bincount(table.indices, weight.ravel(), num_runs * k)
        new = _divided(sums, total, centers.reshape(-1, width)).reshape(centers.shape)
        centers = np.where(wins[:, None, None], new, centers)
    return [Solution(*of_run) for of_run in zip(labels, centers, inertia.tolist(), distance2, strict=True)]


def _table(labels: np.ndarray, weight: np.ndarray, k: int) -> csc_matrix:
    """(k, n): its product with (n, D) rows are the weighted sums of those of every label."""
    return csc_matrix((weight, labels, np.arange(len(labels) + 1, dtype=np.int32)), shape=(k, len(labels)))


def _divided(sums: np.ndarray, total: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """(k, D) float32 means; of nothing, the centre as it was."""
    total = total[:, None]
    return np.where(total > 0, sums / np.maximum(total, 1e-30), centers).astype(np.float32)


def _squared_lengths(x: np.ndarray) -> np.ndarray:
    return np.einsum("...j,...j->...", x, x)


def rows_at_once(num_centers: int, width: int) -> int:
    """Rows of a block that is compared with so many centres; ``width``: of what the block is copied to, or 1."""
    few = min(FEWEST_AT_ONCE, MOST_VALUES // max(num_centers, width))
    return max(1, min(ROWS_AT_ONCE, max(VALUES_AT_ONCE // max(num_centers, width), few)))


def nearest(
    x: np.ndarray, centers: np.ndarray, executor: Executor | None = None, norm2: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Index of the nearest of (k, D) centres to every row, (n,) int32, and the squared distance to it, (n,) float32.

    By |x|^2 - 2 x.c + |c|^2 in single precision, in which small distances lose digits. All digits are lost far from the
    origin, so most centres are first brought near it, and the rows with them, unless ``norm2`` is given: (n,) |x|^2 of
    single-precision rows that are there. Several problems may then stand side by side, along first axes that all have.
    """
    middle = amid(centers) if norm2 is None else np.float32(0)
    about = (centers - middle).astype(np.float32)
    half = 0.5 * _squared_lengths(about)[..., None, :]
    labels, distance2 = np.empty(x.shape[:-1], np.int32), np.empty(x.shape[:-1], np.float32)
    step = rows_at_once(about.shape[-2], about.shape[-1] if norm2 is None else 1)

    def work(start: int) -> None:
        block = (..., slice(start, start + step))
        rows = x[..., start : start + step, :]
        if norm2 is None:
            rows = (rows - middle).astype(np.float32, copy=False)
        score = rows @ about.swapaxes(-1, -2)
        score -= half
        labels[block] = score.argmax(-1)
        best = np.take_along_axis(score, labels[block][..., None], -1)[..., 0]
        length2 = _squared_lengths(rows) if norm2 is None else norm2[block]
        distance2[block] = np.maximum(length2 - 2 * best, 0)

    starts = range(0, x.shape[-2], step)
    if executor is None:
        for start in starts:
            work(start)
    else:
        list(executor.map(work, starts))
    return labels, distance2
