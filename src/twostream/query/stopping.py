"""When to stop asking: two criteria, computed and shown, never acted on unasked. Pure functions of arrays.

*Stabilised predictions* (Bloodgood and Vijay-Shanker 2009): the scorer's labels hardly change any more from round to
round. This says that more answers of the same kind would change little, not that the labels are right. Where it holds,
F1 of successive scorers differs by little, too: by at most 4 (1 - kappa) / kappa (Bloodgood and Grothendieck 2013).

*Right often enough*: what share of the unanswered labels is right, with an interval. The answers to what a strategy
asked cannot tell: it chose what is hard, or rare, or far from the rest, and without known chances of being chosen there
is nothing to weigh by; held out or not, they estimate something else. So this is measured on audits, drawn at random
and never learned from, or else expected by the scorer itself (*minimum expected error*, Zhu, Wang and Hovy 2008), which
is worth as much as the scorer is calibrated.
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
"""Share of the candidates that must have been there the round before: of a pool that is mostly new, the rest says
little."""
TARGET = 0.95
"""Share of right labels that is enough, and of which the interval's lower end must be sure."""


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
        1 for the same labels, about 0 for unrelated ones, down to -1; NaN where both hold one and the same label
        throughout, or nothing: chance alone would agree then.
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
        ``kappa``, NaN where fewer than ``MIN_SHARED`` of the candidates of now were there before; and how many were.
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
    return recent_agreement(agreements, window) >= stable - 1e-9  # a mean of three is off by a last digit


def audited_right(probability: np.ndarray, y: np.ndarray, *, confidence: float = 0.95) -> Estimate:
    """Share of right labels, measured on audits: candidates drawn at random, whose answers the scorer never saw.

    An audit was drawn from what was unanswered in its round. Where a strategy has since asked what is hard, older
    audits show a harder pool than what is left, and the share is a cautious one.

    Args:
        probability: (N,) of a True, by a scorer that has not learned from these answers; at least 0.5 is a True.
        y: (N,) 1 or 0, the answers.
        confidence: of Wilson's interval (Wilson 1927).

    Returns:
        Its value is NaN, and its interval all there is, without audits.
    """
    if not len(y):
        return Estimate(float("nan"), 0.0, 1.0, 0)
    right = int(np.sum((np.asarray(probability) >= 0.5) == (np.asarray(y) == 1)))
    interval = binomtest(right, len(y)).proportion_ci(confidence, method="wilson")
    return Estimate(right / len(y), float(interval.low), float(interval.high), len(y))


def expected_right(probability: np.ndarray, ensemble: np.ndarray, *, confidence: float = 0.95) -> Estimate:
    """Share of right labels that the scorer expects of itself: the mean of max(p, 1 - p) (Zhu, Wang and Hovy 2008).

    A belief, not a measurement: answers enter only through the scorer. The interval holds what the committee disagrees
    about, each member judging the labels that stand, and the chance of a finite number of labels. It does not hold that
    the scorer's kind of model may be wrong.

    Args:
        probability: (N,) of a True, of what is unanswered; at least 0.5 is a True.
        ensemble: (M, N), M >= 2, by scorers that could all be right (``Scorer.predict_ensemble``).
        confidence: of the interval.

    Returns:
        Its value is NaN, and its interval all there is, where nothing is unanswered.
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
    """Whether at least ``target`` of the labels are right, as surely as the interval is."""
    return estimate.low >= target
