"""k-means nearly as good as scikit-learn's, for less: centres on a random share of the rows, as faiss does.

In single precision, for rows that are read when they are needed; it stops when little is won. The exact one is
``lloyd``.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any

import numpy as np

from twostream.query.lloyd import ROWS_AT_ONCE, Solution

SCORES_AT_ONCE = 2**22
"""Products of rows and centres that are held at once, however many centres there are."""
ROWS_PER_CENTER, FEWEST_PER_CENTER, SHARE_ROWS = 256, 40, 2**16
"""Rows of the share for every centre; fewer, but so many at least, where the share would be larger than this."""
MANY_ITERATIONS = 100
RESTARTS, SMALL_VALUES = 4, 2**16
"""Starts on a share that holds no more numbers than this."""
LITTLE = 1e-3
"""Part of the inertia that is not worth another iteration."""


def kmeans(
    read: Callable[[Any], np.ndarray],
    num_rows: int,
    rows_per_block: int,
    num_clusters: int,
    *,
    seed: int,
    weights: np.ndarray | None = None,
    executor: Executor | None = None,
) -> Solution:
    """k-means of any number of rows: centres on a share of them, then one step with all.

    Args:
        read: features of a slice of the rows, or of an ascending array of row numbers.
        num_rows: n.
        rows_per_block: rows that are read at once.
        num_clusters: centres wanted, at most n; a centre that no row is nearest to stays without rows.
        weights: (n,) float >= 0, what each row counts; not all 0.
        executor: threads for the steps with all rows.

    Returns:
        Labels of all n rows, (k, D) float32 centres, inertia and distances in single precision.
    """
    rng = np.random.default_rng(seed)
    weight = np.ones(num_rows, np.float32) if weights is None else weights.astype(np.float32)
    wanted = rows_wanted(num_clusters)
    is_share = num_rows > wanted
    share = np.sort(rng.choice(num_rows, wanted, replace=False)) if is_share else slice(0, num_rows)
    few = np.asarray(read(share), np.float32)
    middle = few.mean(0, dtype=float).astype(np.float32)
    few = few - middle  # products of what is far from the origin lose their digits; and what was read is not ours
    own = weight[share] if weight[share].any() else np.ones(len(few), np.float32)
    norm2 = np.einsum("ij,ij->i", few, few)
    # Where it costs next to nothing, the best of some: in few dimensions one start differs much from another.
    starts = RESTARTS if few.size <= SMALL_VALUES else 1
    runs = [_refined(few, norm2, own, _seeds(few, norm2, own, num_clusters, rng), executor) for _ in range(starts)]
    found = min(runs, key=lambda run: run.inertia)
    centers = found.centers
    if not is_share:
        return replace(found, centers=centers + middle)
    blocks = [slice(s, min(s + rows_per_block, num_rows)) for s in range(0, num_rows, rows_per_block)]
    # One step of Lloyd's with everybody takes away most of what the share is off by.
    sums, total = np.zeros(centers.shape), np.zeros((num_clusters, 1))
    for block in blocks:
        x = read(block) - middle
        _add_up(x, nearest(x, centers, executor)[0], weight[block], sums, total)
    centers = np.where(total > 0, sums / np.maximum(total, 1e-30), centers).astype(np.float32)
    labels, distance2, inertia = np.empty(num_rows, np.int32), np.empty(num_rows, np.float32), 0.0
    for block in blocks:
        labels[block], distance2[block] = nearest(read(block) - middle, centers, executor)
        inertia += float(weight[block] @ distance2[block])
    return Solution(labels, centers + middle, inertia, distance2)


def rows_wanted(num_clusters: int) -> int:
    """Rows of the share on which so many centres are found."""
    return min(ROWS_PER_CENTER * num_clusters, max(SHARE_ROWS, FEWEST_PER_CENTER * num_clusters))


def _refined(
    x: np.ndarray, norm2: np.ndarray, weight: np.ndarray, centers: np.ndarray, executor: Executor | None
) -> Solution:
    """Lloyd's iterations for as long as they win something."""
    least = np.inf
    for _ in range(MANY_ITERATIONS):
        labels, distance2 = nearest(x, centers, executor, norm2)
        inertia = float(weight @ distance2)
        if inertia > (1 - LITTLE) * least:
            break
        least, previous = inertia, centers
        centers = _means(x, labels, weight, centers)
    else:
        centers = previous
    return Solution(labels, centers, inertia, distance2)


def _seeds(x: np.ndarray, norm2: np.ndarray, weight: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """k-means++ with the best of some trials for every centre, (k, D) float32.

    Where centres are few, each decides much: more trials then do what restarts would, for less (LOG.md).
    """
    trials = max(2 + int(np.log(k)), min(8, 80 // k))
    chosen = [int(rng.choice(len(x), p=weight / weight.sum(dtype=float)))]
    closest = np.maximum(norm2 - 2 * (x @ x[chosen[0]]) + norm2[chosen[0]], 0)
    for _ in range(1, k):
        cumulated = np.cumsum(weight * closest, dtype=float)
        picks = np.minimum(np.searchsorted(cumulated, rng.random(trials) * cumulated[-1]), len(x) - 1)
        distance2 = x[picks] @ x.T
        distance2 *= -2
        distance2 += norm2
        distance2 += norm2[picks, None]
        np.clip(distance2, 0, closest, out=distance2)
        best = int((distance2 @ weight).argmin())
        chosen.append(int(picks[best]))
        closest = distance2[best]
    return x[chosen]


def _means(x: np.ndarray, labels: np.ndarray, weight: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Weighted mean of the rows of every centre; a centre without rows stays where it is."""
    sums, total = np.zeros_like(centers), np.zeros((len(centers), 1), np.float32)
    _add_up(x, labels, weight, sums, total)
    return np.where(total > 0, sums / np.maximum(total, 1e-30), centers).astype(np.float32)


def _add_up(x: np.ndarray, labels: np.ndarray, weight: np.ndarray, sums: np.ndarray, total: np.ndarray) -> None:
    """Add weighted rows to the (k, D) sums of their centres, and weights to the (k, 1) totals."""
    if x.shape[1] < len(sums):  # column by column; with many columns and few centres a product is faster
        for column in range(x.shape[1]):
            sums[:, column] += np.bincount(labels, weights=weight * x[:, column], minlength=len(sums))
        total[:, 0] += np.bincount(labels, weights=weight, minlength=len(sums))
        return
    names = np.arange(len(sums))[:, None]
    for start in range(0, len(x), ROWS_AT_ONCE):
        block = slice(start, start + ROWS_AT_ONCE)
        table = (labels[block] == names) * weight[block]
        sums += table @ x[block]
        total += table.sum(1, keepdims=True)


def nearest(
    x: np.ndarray, centers: np.ndarray, executor: Executor | None = None, norm2: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Index of the nearest of (k, D) centres to every row, (n,) int32, and the squared distance to it, (n,) float32.

    By |x|^2 - 2 x.c + |c|^2 in single precision: small distances lose digits in it, and so does all that lies far from
    the origin, so bring the rows near it first. ``norm2``: (n,) |x|^2, where they are known.
    """
    x, centers = np.asarray(x, np.float32), np.asarray(centers, np.float32)
    half = 0.5 * np.einsum("ij,ij->i", centers, centers)
    labels, distance2 = np.empty(len(x), np.int32), np.empty(len(x), np.float32)
    step = max(1, min(ROWS_AT_ONCE, SCORES_AT_ONCE // len(centers)))

    def work(start: int) -> None:
        rows = x[start : start + step]
        block = slice(start, start + len(rows))
        score = rows @ centers.T
        score -= half
        labels[block] = score.argmax(1)
        best = score[np.arange(len(rows)), labels[block]]
        length2 = np.einsum("ij,ij->i", rows, rows) if norm2 is None else norm2[block]
        distance2[block] = np.maximum(length2 - 2 * best, 0)

    starts = range(0, len(x), step)
    if executor is None:
        for start in starts:
            work(start)
    else:
        list(executor.map(work, starts))
    return labels, distance2
