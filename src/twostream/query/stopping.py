"""When to stop asking: two criteria, computed and shown; nothing stops by itself. Pure functions of arrays.

*Stabilised predictions* (Bloodgood and Vijay-Shanker 2009): the scorer's labels hardly change any more from round to
round. This means that more answers of the same kind would change little, not that the labels are right. It also bounds
the difference in F1 of successive scorers by 4 (1 - kappa) / kappa (Bloodgood and Grothendieck 2013).

*Right often enough*: the share of the scorer's labels of unanswered candidates that is right, with an interval. Answers
to queries of a strategy cannot estimate it, even if they are held out: the strategy prefers hard, rare or isolated
candidates with unknown probability. So it is measured on audits, which are drawn at random and never learned from, or
else predicted by the scorer itself (*minimum expected error*, Zhu, Wang and Hovy 2008), as far as the scorer is
calibrated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, norm

from twostream.base.errors import InputError

STABLE = 0.99
"""Mean agreement at which predictions count as stable (Bloodgood and Vijay-Shanker 2009)."""
WINDOW = 3
"""Agreements that are averaged (the same)."""
MIN_SHARED = 0.5
"""Share of the candidates that must have existed the round before; of a mostly new pool the rest says little."""
TARGET = 0.95
"""Share of right labels that is enough; the lower end of the interval must reach it."""


@dataclass(frozen=True)
class Estimate:
    """A share with its interval.

    Attributes:
        value: in [0, 1].
        low, high: its interval.
        num: audits, or labels, that it rests on.
    """

    value: float
    low: float
    high: float
    num: int


def kappa(before: np.ndarray, now: np.ndarray) -> float:
    """Agreement of two rows of labels beyond chance (Cohen 1960).

    Args:
        before, now: (N,) bool.

    Returns:
        1 for the same labels, about 0 for unrelated ones, down to -1; NaN where there are no labels or all are the
        same, because then chance alone agrees.
    """
    before, now = np.asarray(before, bool), np.asarray(now, bool)
    if before.shape != now.shape or before.ndim != 1:
        raise InputError(f"labels have shapes {before.shape} and {now.shape}; expected two of (N,).")
    if len(now) == 0:
        return float("nan")
    by_chance = before.mean() * now.mean() + (~before).mean() * (~now).mean()
    return float((np.mean(before == now) - by_chance) / (1 - by_chance)) if by_chance < 1 else float("nan")


def agreement(ids_before: np.ndarray, before: np.ndarray, ids_now: np.ndarray, now: np.ndarray) -> tuple[float, int]:
    """Agreement of a round's labels with those of the round before, over the candidates of both.

    Args:
        ids_before, ids_now: (M,), (N,) whole numbers without repeats.
        before, now: (M,), (N,) probabilities of a True; at least 0.5 is a True.

    Returns:
        ``kappa``, or NaN where less than ``MIN_SHARED`` of the current candidates existed before; and how many did.
    """
    shared, at_before, at_now = np.intersect1d(ids_before, ids_now, assume_unique=True, return_indices=True)
    if len(shared) < MIN_SHARED * len(ids_now):
        return float("nan"), len(shared)
    return kappa(np.asarray(before)[at_before] >= 0.5, np.asarray(now)[at_now] >= 0.5), len(shared)


def recent_agreement(agreements: Sequence[float | None], window: int = WINDOW) -> float:
    """Mean of the last agreements, oldest first; NaN where there are fewer than ``window``, or one is missing."""
    last = [float("nan") if value is None else value for value in agreements[-window:]]
    return float(np.mean(last)) if len(last) == window else float("nan")


def has_stabilised(agreements: Sequence[float | None], *, window: int = WINDOW, stable: float = STABLE) -> bool:
    """Whether predictions have stabilised: the mean of the last ``window`` agreements is at least ``stable``."""
    return recent_agreement(agreements, window) >= stable - 1e-9  # 1e-9 for the rounding of the mean


def audited_right(probability: np.ndarray, y: np.ndarray, *, confidence: float = 0.95) -> Estimate:
    """Share of right labels, measured on audits: candidates drawn at random, whose answers the scorer never saw.

    An audit was drawn from the candidates that were unanswered in its round. If a strategy has asked about hard ones
    since, older audits come from a harder pool than the remaining one, and the estimate is cautious.

    Args:
        probability: (N,) of a True, by a scorer that has not learned from these answers; at least 0.5 is a True.
        y: (N,) 1 or 0, the answers.
        confidence: of Wilson's interval (Wilson 1927).

    Returns:
        Without audits its value is NaN and its interval [0, 1].
    """
    if not len(y):
        return Estimate(float("nan"), 0.0, 1.0, 0)
    right = int(np.sum((np.asarray(probability) >= 0.5) == (np.asarray(y) == 1)))
    interval = binomtest(right, len(y)).proportion_ci(confidence, method="wilson")
    return Estimate(right / len(y), float(interval.low), float(interval.high), len(y))


def expected_right(probability: np.ndarray, ensemble: np.ndarray, *, confidence: float = 0.95) -> Estimate:
    """Share of right labels that the scorer predicts of itself: the mean of max(p, 1 - p) (Zhu, Wang and Hovy 2008).

    A prediction, not a measurement: answers enter only through the scorer. The interval covers the disagreement of the
    committee, each member judging the current labels, and the sampling error of a finite number of labels. It does not
    cover that the model itself may be wrong.

    Args:
        probability: (N,) of a True, of the unanswered candidates; at least 0.5 is a True.
        ensemble: (M, N), M >= 2, by a committee of plausible scorers (``Scorer.predict_ensemble``).
        confidence: of the interval.

    Returns:
        Where everything is answered its value is NaN and its interval [0, 1].
    """
    p, ensemble = np.asarray(probability, float), np.asarray(ensemble, float)
    if p.ndim != 1 or ensemble.ndim != 2 or len(ensemble) < 2 or ensemble.shape[1] != len(p):
        raise InputError(f"probability and ensemble have shapes {p.shape}, {ensemble.shape}; expected (N,), (M, N).")
    if not len(p):
        return Estimate(float("nan"), 0.0, 1.0, 0)
    right = np.where(p >= 0.5, ensemble, 1 - ensemble).mean(1)
    chance = (ensemble * (1 - ensemble)).mean() / len(p)
    half = norm.ppf(0.5 + confidence / 2) * np.sqrt(right.var(ddof=1) + chance)
    value = float(np.maximum(p, 1 - p).mean())
    return Estimate(value, max(0.0, float(value - half)), min(1.0, float(value + half)), len(p))


def is_right_enough(estimate: Estimate, target: float = TARGET) -> bool:
    """Whether at least ``target`` of the labels are right, with the confidence of the interval."""
    return estimate.low >= target
