"""Confidence intervals of a proportion and of a total. Knows counts and weights; must not know what they count."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import chi2


def wilson_interval(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """Confidence interval of a proportion (Wilson 1927, score interval).

    Args:
        successes: at most ``trials``.
        trials: number of observations.
        z: quantile of the normal distribution; 1.96 gives 95 percent.

    Returns:
        Lower and upper end, in [0, 1]; (0, 1) without trials.
    """
    if trials == 0:
        return 0.0, 1.0
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * np.sqrt(share * (1 - share) / trials + z * z / (4 * trials**2))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def weighted_poisson_interval(
    counts: Sequence[int], weights: Sequence[float], confidence: float = 0.95
) -> tuple[float, float]:
    """Confidence interval of a weighted sum of Poisson counts (Fay and Feuer 1997, gamma interval).

    With equal weights it is the exact interval of a Poisson count, times the weight; so it is wide where nothing was
    counted: up to 3.7 weights.

    Args:
        counts: (N,) counts, at least one.
        weights: (N,) weight of each, above 0.
        confidence: share of all repetitions whose interval holds the true total, in (0, 1).

    Returns:
        Lower and upper end, at least 0.
    """
    x, w = np.asarray(counts, float), np.asarray(weights, float)
    total, variance, largest = float(w @ x), float(w**2 @ x), float(w.max())
    tail = (1 - confidence) / 2
    low = 0.0
    if total > 0:
        low = variance / (2 * total) * chi2.ppf(tail, 2 * total**2 / variance)
    scale = (variance + largest**2) / (2 * (total + largest))
    high = scale * chi2.ppf(1 - tail, 2 * (total + largest) ** 2 / (variance + largest**2))
    return float(low), float(high)
