"""How a batch is shared out over coarse clusters."""

from __future__ import annotations

import numpy as np


def cluster_numbers(num_clusters: tuple[int, int], batch_size: int) -> tuple[int, int]:
    """Coarse clusters, and fine ones in each, for a batch: as given where their product is the batch."""
    coarse, fine = num_clusters
    if coarse * fine == batch_size:
        return coarse, fine
    coarse = min(coarse, max(batch_size, 1))
    return coarse, max(1, batch_size // coarse)


def share_budget(sizes: list[int], batch_size: int, num_fine: int) -> list[int]:
    """Queries per coarse cluster by the published rule (``docs/method.md``, steps 4 and 5 of the script).

    Every cluster gets ``num_fine``, or its size if that is smaller. What is left goes, one query each and the largest
    first, to the clusters that have more members than queries, until nothing is left.

    Args:
        sizes: members that may be asked, per cluster; their sum is at least ``batch_size``.
        batch_size: queries in all.
        num_fine: queries that a cluster gets first.
    """
    size = np.asarray(sizes)
    budget = np.minimum(num_fine, size)
    while budget.sum() > batch_size:  # there are more clusters than queries
        budget[np.argmin(np.where(budget > 0, size, size.max() + 1))] -= 1
    level, extra = num_fine, batch_size - int(budget.sum())
    while extra > 0:
        larger = np.flatnonzero(size > level)
        chosen = larger[np.argsort(-size[larger], kind="stable")][:extra]
        budget[chosen] += 1
        extra -= len(chosen)
        level += 1
    return [int(b) for b in budget]


def apportion(weights: np.ndarray, sizes: list[int], batch_size: int) -> list[int]:
    """Share a batch out by weight, never more than a cluster holds (largest remainders, Hamilton 1792).

    Args:
        weights: (K,) float >= 0; where the clusters with free members weigh nothing, their free members count instead.
        sizes: members that may be asked, per cluster; their sum is at least ``batch_size``.
        batch_size: queries in all.
    """
    size, budget = np.asarray(sizes), np.zeros(len(sizes), int)
    while (left := batch_size - int(budget.sum())) > 0:
        free = budget < size
        weight = np.where(free, weights, 0.0)
        if weight.sum() <= 0:
            weight = np.where(free, size - budget, 0).astype(float)
        ideal = left * weight / weight.sum()
        whole = np.minimum(np.floor(ideal).astype(int), size - budget)
        budget += whole
        if (rest := batch_size - int(budget.sum())) > 0 and (whole == np.floor(ideal)).all():
            order = np.argsort(-(ideal - whole), kind="stable")
            budget[order[free[order] & (budget[order] < size[order])][:rest]] += 1
    return [int(b) for b in budget]


def most_of_batch(sizes: list[int], errors: list[float] | None, batch_size: int) -> np.ndarray:
    """How many queries each coarse cluster may get at most, where they compete for the batch.

    Before any answer nobody knows where the error is, and a batch that covers the pool shares it out by size; later a
    cluster gets at most twice its share by expected error.

    Args:
        sizes: members that may be asked, per cluster; their sum is at least ``batch_size``.
        errors: expected error, per cluster; None before any answer.
        batch_size: queries in all.

    Returns:
        (K,) int, together at least ``batch_size``.
    """
    size = np.asarray(sizes)
    if errors is None:
        return np.asarray(apportion(size.astype(float), sizes, batch_size))
    share = np.asarray(errors) / max(sum(errors), np.finfo(float).tiny)
    most = np.minimum(np.ceil(2 * batch_size * share).astype(int), size)
    return most if most.sum() >= batch_size else size
