"""Confidence interval of a proportion. Knows two counts; must not know what they count."""

from __future__ import annotations

import numpy as np


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
