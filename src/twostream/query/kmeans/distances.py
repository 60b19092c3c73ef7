"""The nearest of some points to every row, block by block, in single precision.

Squared distances come from the product |x|^2 - 2 x.c + |c|^2, which is fast and loses digits of small distances to
cancellation. Inputs are centred first, so that nothing is lost to a large common offset.
"""

from __future__ import annotations

import numpy as np

from twostream.query.pool import Pool
from twostream.query.workers import Workers

ROWS_AT_ONCE = 8192
"""Rows of a block at most: their products with all centres stay in the cache."""
VALUES_AT_ONCE, FEWEST_AT_ONCE, MOST_VALUES = 2**18, 128, 2**22
"""Values per block, that is rows times centres, that stay in the cache; at least ``FEWEST_AT_ONCE`` rows, unless that
exceeds ``MOST_VALUES``."""


def rows_at_once(num_centers: int, width: int) -> int:
    """Rows of a block that is compared with so many centres; ``width`` of the copy that is made of it, or 1."""
    few = min(FEWEST_AT_ONCE, MOST_VALUES // max(num_centers, width))
    return max(1, min(ROWS_AT_ONCE, max(VALUES_AT_ONCE // max(num_centers, width), few)))


def robust_center(x: np.ndarray) -> np.ndarray:
    """(n, D) -> (D,): the median of the first, the middle and the last row, column by column.

    Near most rows even if a few lie far away, and it costs next to nothing.
    """
    a, b, c = x[0], x[len(x) // 2], x[-1]
    return np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))


def squared_lengths(x: np.ndarray) -> np.ndarray:
    """(..., D) -> (...)."""
    return np.einsum("...j,...j->...", x, x)


def nearest(
    x: np.ndarray, centers: np.ndarray, workers: Workers | None = None, norm2: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest centre of every row.

    Args:
        x: (..., n, D) float; several problems may stand side by side along first axes that all arguments share.
        centers: (..., k, D) float.
        workers: threads for the blocks; None computes them one after the other.
        norm2: (..., n) squared lengths of float32 rows that are centred already; None centres here.

    Returns:
        Its index, (..., n) int32, and the squared distance to it, (..., n) float32.
    """
    middle = robust_center(centers) if norm2 is None else np.float32(0)
    about = (centers - middle).astype(np.float32)
    half = 0.5 * squared_lengths(about)[..., None, :]
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
        length2 = squared_lengths(rows) if norm2 is None else norm2[block]
        distance2[block] = np.maximum(length2 - 2 * best, 0)

    starts = range(0, x.shape[-2], step)
    if workers is None:
        for start in starts:
            work(start)
    else:
        workers.map(work, starts)
    return labels, distance2


def nearest_with_distance(features: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of the nearest of (k, D) centres to each of (n, D) rows, and the distance to it, both (n,).

    The index comes from a product in single precision, the distance from the difference, which does not cancel: a last
    digit of it may decide (the radius of a ball).
    """
    index = nearest(features, centers)[0]
    difference = features - centers[index]
    return index, np.sqrt(np.einsum("ij,ij->i", difference, difference))


def nearest_distance(pool: Pool, rows: np.ndarray, others: np.ndarray, stream: str | None = None) -> np.ndarray:
    """Distance of each row to the nearest of ``others``, rows of the same pool; infinite where there are none. (n,)."""
    distance = np.full(len(rows), np.inf)
    if len(others) == 0:
        return distance
    for part, features in pool.blocks(rows, stream):
        for _, centers in pool.blocks(others, stream):
            distance[part] = np.minimum(distance[part], nearest_with_distance(features, centers)[1])
    return distance


def distance_to_nearest(features: np.ndarray, others: np.ndarray, *, exact: bool) -> np.ndarray:
    """Distance of each of (n, D) rows to the nearest of (s, D) others, (n,).

    A product finds which one is nearest. Its distance comes from the difference if ``exact``, else from the product in
    single precision, which is good enough to tell near rows from far ones.
    """
    if not exact:
        return np.sqrt(nearest(features, others)[1])
    middle = others.mean(0)
    about = others - middle
    half, distance = 0.5 * squared_lengths(about), np.empty(len(features))
    step = rows_at_once(*others.shape)
    for start in range(0, len(features), step):
        x = features[start : start + step]
        difference = x - others[((x - middle) @ about.T - half).argmax(1)]
        distance[start : start + step] = np.sqrt(squared_lengths(difference))
    return distance
