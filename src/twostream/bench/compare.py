"""Every strategy on the candidates of a project, and what came out of all runs, as a table.

Knows projects, candidates, curves and rows; must not know the command line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from twostream import __version__
from twostream.base import progress
from twostream.base.errors import InputError
from twostream.bench.candidates import Candidates
from twostream.bench.efficiency import curve
from twostream.bench.runs import Row, RowsFile
from twostream.bench.summary import areas, compare, holm, mean_ranks
from twostream.project.project import Project
from twostream.query import get_strategy
from twostream.rounds.loop import open_truth

IDENTITY = ("set", "project", "strategy", "settings", "batch_size", "num_rounds", "error_rate", "seed")
"""Columns that tell runs apart."""
REFERENCE = "random"
"""The strategy to which all others are compared."""
SCORES = ("accuracy", "average_precision", "held_out_accuracy", "held_out_auc")
"""Scores of which the larger is the better."""


def run_missing(
    project: Project,
    truth_uri: str,
    rows: RowsFile,
    *,
    set_name: str,
    strategies: Sequence[str],
    settings: Mapping[str, Mapping[str, Any]],
    batch_size: int,
    num_rounds: int,
    num_seeds: int,
    error_rate: float = 0.0,
) -> None:
    """Run every strategy with every seed on the candidates of round 0, unless ``rows`` has the run already.

    Args:
        project: with a finished round 0.
        truth_uri: labels of the whole image.
        rows: to which runs are added.
        set_name: of the data set, in the rows.
        strategies: names.
        settings: {strategy: its settings}.
        batch_size, num_rounds, error_rate: see ``curve``.
        num_seeds: seeds 0, 1, ... of every strategy.

    Raises:
        InputError: a strategy is not known, the round has no latents, or there is nothing to choose between.
    """
    for name in strategies:
        get_strategy(name, settings.get(name))
    wanted: list[Row] = [
        {
            "set": set_name, "project": project.id, "strategy": name,
            "settings": json.dumps(settings.get(name, {}), sort_keys=True), "batch_size": batch_size,
            "num_rounds": num_rounds, "error_rate": error_rate, "seed": seed,
        }
        for seed in range(num_seeds)
        for name in strategies
    ]  # fmt: skip
    missing = [one for one in wanted if not rows.has(one)]
    if not missing:
        return
    candidates = Candidates.of_round(project, open_truth(project, truth_uri))
    num_asked = batch_size * num_rounds
    if num_asked > (num_pool := int((~candidates.is_held_out).sum())):
        raise InputError(
            f"{num_rounds} batches of {batch_size} are {num_asked} answers, and {project.root} has {num_pool} "
            f"candidates: all strategies would ask about all of them. Ask fewer (--budget, --rounds)."
        )
    with progress.task(f"{set_name}: runs", len(missing)) as advance:
        for one in missing:
            points = curve(
                candidates, one["strategy"], settings.get(one["strategy"]), batch_size=batch_size,
                num_rounds=num_rounds, seed=one["seed"], error_rate=error_rate,
            )  # fmt: skip
            rows.add([one | {"version": __version__} | point for point in points])
            advance(1)


def table(rows: Sequence[Row], score: str) -> list[dict[str, Any]]:
    """One line for each strategy, the best first.

    Args:
        rows: of any number of runs.
        score: one of ``SCORES``.

    Returns:
        ``strategy``; ``area``: mean over its runs of the score's mean over rounds; where there are runs of
        ``REFERENCE``: ``gain`` beside it with ``low`` and ``high``, ``p`` after Holm's correction, ``wins`` and
        ``num_pairs``; where several strategies have the same runs: ``rank``, the mean one.

    Raises:
        InputError: no row has the score.
    """
    found = areas(rows, score)
    if not found:
        raise InputError(f"no row has the score {score!r}; without a test box there is nothing that is held out.")
    lines: dict[str, dict[str, Any]] = {
        name: {"strategy": name, "num_runs": len(runs), "area": sum(runs.values()) / len(runs)}
        for name, runs in found.items()
    }
    others = [name for name in found if name != REFERENCE and set(found[name]) & set(found.get(REFERENCE, {}))]
    compared = {name: compare(found[name], found[REFERENCE]) for name in others}
    corrected = holm({name: one.p for name, one in compared.items()})
    for name, one in compared.items():
        lines[name] |= {
            "gain": one.mean, "low": one.low, "high": one.high, "p": corrected[name], "wins": one.wins,
            "num_pairs": one.num_pairs,
        }  # fmt: skip
    if len(found) > 1 and set.intersection(*(set(runs) for runs in found.values())):
        for name, rank in mean_ranks(found).items():
            lines[name]["rank"] = rank
    return sorted(lines.values(), key=lambda line: -line["area"])


def as_text(lines: Sequence[Mapping[str, Any]], score: str) -> list[str]:
    """The table for a terminal."""
    said = [f"{'strategy':<28}{'runs':>5}{score:>20}{f'minus {REFERENCE}':>28}{'p (Holm)':>10}{'wins':>7}{'rank':>7}"]
    for line in lines:
        gain = f"{line['gain']:+.4f} [{line['low']:+.4f}, {line['high']:+.4f}]" if "gain" in line else ""
        p = f"{line['p']:.3f}" if "p" in line else ""
        wins = f"{line['wins']:.0%}" if "wins" in line else ""
        rank = f"{line['rank']:.2f}" if "rank" in line else ""
        said.append(
            f"{line['strategy']:<28}{line['num_runs']:>5}{line['area']:>20.4f}{gain:>28}{p:>10}{wins:>7}{rank:>7}"
        )
    return said
