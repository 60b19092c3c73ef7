"""Strategies compared: areas under curves, paired differences, ranks.

Every comparison is paired: two strategies on the same candidates with the same seed. Knows rows; must not know how they
were made.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata, wilcoxon

NUM_RESAMPLES = 10_000
RUN = ("set", "project", "batch_size", "num_rounds", "error_rate", "seed")
"""Columns that two strategies must share to be a pair."""


@dataclass(frozen=True)
class Comparison:
    """One strategy beside another, over M pairs.

    Attributes:
        mean: of the differences of the areas under the curve.
        low, high: 95 percent bootstrap interval of the mean.
        p: of Wilcoxon's signed-rank test, two-sided; 1 where no pair differs.
        num_pairs: M.
        wins: share of the pairs in which the strategy is ahead; a tie counts one half.
    """

    mean: float
    low: float
    high: float
    p: float
    num_pairs: int
    wins: float


def areas(rows: Iterable[Mapping[str, Any]], score: str) -> dict[str, dict[tuple[Any, ...], float]]:
    """Mean of a score over the rounds of each run, without round 0, in which nobody has answered.

    Args:
        rows: with "strategy", its "settings", "set", "project", "batch_size", "num_rounds", "error_rate", "seed",
            "round" and scores.
        score: name of the score.

    Returns:
        {strategy, with its settings where it has some: {what tells its runs apart: area}}; runs without the score are
        left out.
    """
    found: dict[str, dict[tuple[Any, ...], list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["round"] and score in row:
            name = row["strategy"] + (f" {row['settings']}" if row["settings"] != "{}" else "")
            found[name][tuple(row[column] for column in RUN)].append(row[score])
    return {name: {run: float(np.mean(values)) for run, values in runs.items()} for name, runs in found.items()}


def compare(first: Mapping[Any, float], second: Mapping[Any, float], *, seed: int = 0) -> Comparison:
    """Two strategies on the runs that both have.

    Raises:
        ValueError: they share no run.
    """
    shared = sorted(set(first) & set(second))
    if not shared:
        raise ValueError("the two strategies share no run.")
    gain = np.array([first[run] - second[run] for run in shared])
    drawn = np.random.default_rng(seed).integers(len(gain), size=(NUM_RESAMPLES, len(gain)))
    low, high = np.quantile(gain[drawn].mean(1), [0.025, 0.975])
    p = float(wilcoxon(gain).pvalue) if gain.any() else 1.0
    wins = float(((gain > 0) + 0.5 * (gain == 0)).mean())
    return Comparison(float(gain.mean()), float(low), float(high), p, len(gain), wins)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """p-values of several tests, corrected so that any of them is wrong with at most their chance (Holm 1979)."""
    corrected, largest = {}, 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p))
        corrected[name] = largest
    return corrected


def mean_ranks(found: Mapping[str, Mapping[Any, float]]) -> dict[str, float]:
    """Mean rank of each strategy over the runs that all of them have; 1 is the largest area, ties share a rank.

    Raises:
        ValueError: there is no such run.
    """
    names = list(found)
    shared = sorted(set.intersection(*(set(found[name]) for name in names)))
    if not shared:
        raise ValueError("no run is there for all strategies.")
    ranks = np.array([rankdata([-found[name][run] for name in names]) for run in shared]).mean(0)
    return dict(zip(names, ranks.tolist(), strict=True))
