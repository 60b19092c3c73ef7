"""Strategies compared: areas under curves, paired differences, ranks, and how many answers one needs beside another.

Every comparison is paired: two strategies on the same candidates with the same seed. Knows rows; must not know how they
were made.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import least_squares
from scipy.stats import rankdata, wilcoxon

NUM_RESAMPLES = 10_000
EXPERIMENT = ("level", "set", "side", "batch_size", "num_rounds", "error_rate")
"""Columns of which a table compares strategies at one value of each."""
RUN = (*EXPERIMENT, "project", "seed")
"""Columns that two strategies must share to be a pair."""

Row = Mapping[str, Any]
Run = tuple[Any, ...]
Curves = dict[str, dict[Run, list[Row]]]
"""{strategy, with its settings where it has some: {what tells its runs apart: its rows by round}}."""


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


def curves(rows: Iterable[Row], score: str) -> Curves:
    """The runs of every strategy.

    Args:
        rows: with "strategy", its "settings", the columns of ``RUN``, "round" and scores.
        score: runs without it are left out.
    """
    found: Curves = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if score in row:
            name = row["strategy"] + (f" {row['settings']}" if row["settings"] != "{}" else "")
            found[name][tuple(row[column] for column in RUN)].append(row)
    return {
        name: {run: sorted(points, key=lambda row: row["round"]) for run, points in runs.items()}
        for name, runs in found.items()
    }


def areas(found: Curves, score: str) -> dict[str, dict[Run, float]]:
    """{strategy: {run: mean of a score over its rounds without round 0, in which nobody has answered}}."""
    return {
        name: {
            run: float(np.mean(values))
            for run, points in runs.items()
            if (values := [p[score] for p in points if p["round"]])
        }
        for name, runs in found.items()
    }


def compare(first: Mapping[Any, float], second: Mapping[Any, float], *, seed: int = 0) -> Comparison:
    """Two strategies on the runs that both have.

    Raises:
        ValueError: they share no run.
    """
    shared = sorted(set(first) & set(second))
    if not shared:
        raise ValueError("the two strategies share no run.")
    gain = np.array([first[run] - second[run] for run in shared])
    low, high = _interval(gain, seed)
    p = float(wilcoxon(gain).pvalue) if gain.any() else 1.0
    wins = float(((gain > 0) + 0.5 * (gain == 0)).mean())
    return Comparison(float(gain.mean()), low, high, p, len(gain), wins)


def _interval(values: np.ndarray, seed: int) -> tuple[float, float]:
    """95 percent bootstrap interval of the mean."""
    drawn = np.random.default_rng(seed).integers(len(values), size=(NUM_RESAMPLES, len(values)))
    low, high = np.quantile(values[drawn].mean(1), [0.025, 0.975])
    return float(low), float(high)


def needed(points: Sequence[Row], score: str, level: float, amount: Callable[[Row], float]) -> float:
    """How much has to be spent until a score reaches a level for the first time, between rounds by a straight line.

    Args:
        points: one run, by round; one of them reaches the level.
        score: name of the score.
        level: to be reached.
        amount: what a row has spent, such as answers.
    """
    for before, after in zip([points[0], *points], points, strict=False):
        if after[score] >= level:
            part = (level - before[score]) / (after[score] - before[score]) if after[score] > before[score] else 1.0
            return amount(before) + max(0.0, part) * (amount(after) - amount(before))
    raise ValueError(f"no round reaches {level}.")


def share_needed(
    first: Mapping[Run, Sequence[Row]],
    second: Mapping[Run, Sequence[Row]],
    score: str,
    amount: Callable[[Row], float],
    *,
    seed: int = 0,
) -> tuple[float, float, float] | None:
    """What one strategy spends to reach a score, as a share of what another spends to reach the same.

    In every pair the score is the highest that both reach, so neither is cut off by the end of the budget. Pairs in
    which round 0 has that score already say nothing.

    Returns:
        Geometric mean over the pairs, and its 95 percent bootstrap interval; None where no pair says anything.
    """
    ratios = []
    for run in sorted(set(first) & set(second)):
        level = min(max(row[score] for row in points) for points in (first[run], second[run]))
        spent = [needed(points, score, level, amount) for points in (first[run], second[run])]
        if min(spent) > 0:
            ratios.append(np.log(spent[0] / spent[1]))
    if not ratios:
        return None
    logs = np.array(ratios)
    low, high = _interval(logs, seed)
    return float(np.exp(logs.mean())), float(np.exp(low)), float(np.exp(high))


def foreground_rate(runs: Iterable[Sequence[Row]], score: str, ceiling: float = 1.0) -> float:
    """How fast a score nears its ceiling with the foreground that was answered (foreground efficiency, nnActive 2025).

    The rate b of y = c - (c - y0) exp(-b (x - x0)), fitted by least squares to all runs together: y is the score, c
    ``ceiling``, x the answered foreground in thousands of voxels, x0 and y0 those of round 0.
    """
    x: list[float] = []
    gap: list[float] = []
    for points in runs:
        start = points[0]
        for row in points[1:]:
            x.append((row["foreground_voxels"] - start["foreground_voxels"]) / 1000)
            gap.append((ceiling - row[score]) / max(ceiling - start[score], 1e-12))
    at, left = np.array(x), np.array(gap)
    fitted = least_squares(lambda b: np.exp(-b[0] * at) - left, [1.0 / max(float(at.mean()), 1e-12)])
    return float(fitted.x[0])


def win_matrix(found: Mapping[str, Mapping[Run, float]]) -> dict[str, dict[str, float]]:
    """{strategy: {other: share of their pairs in which the first is ahead, ties count one half}}."""
    return {
        one: {
            other: compare(found[one], found[other]).wins
            for other in found
            if other != one and set(found[one]) & set(found[other])
        }
        for one in found
    }


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
