"""Every strategy on every pool, and what came out of all runs, as tables.

Knows pools, curves and rows; must not know the command line.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from twostream.base.errors import InputError
from twostream.bench.cost import Cost
from twostream.bench.efficiency import curve
from twostream.bench.loop import loop_curve
from twostream.bench.pools import Pool
from twostream.bench.runs import Row, RowsFile
from twostream.bench.summary import (
    EXPERIMENT,
    RUN,
    areas,
    compare,
    curves,
    foreground_rate,
    holm,
    mean_ranks,
    share_needed,
)
from twostream.query import get_strategy

IDENTITY = (*RUN, "strategy", "settings")
"""Columns that tell runs apart."""
REFERENCE = "random"
"""The strategy to which all others are compared."""
SCORES = {
    "candidates": ("accuracy", "average_precision", "held_out_accuracy", "held_out_auc", "kinds_seen"),
    "loop": ("instance_f1", "average_precision", "foreground_iou", "candidate_recall", "curated_accuracy"),
    "images": ("test_accuracy",),
}
"""{level: scores by which strategies can be compared, of which the larger is the better; the first is the default}."""


def run_missing(
    pools: Sequence[Pool],
    rows: RowsFile,
    *,
    level: str = "candidates",
    strategies: Sequence[str],
    settings: Mapping[str, Mapping[str, Any]],
    batch_size: int,
    num_rounds: int,
    error_rate: float = 0.0,
) -> None:
    """Run every strategy on every pool, unless ``rows`` has the run already.

    Args:
        pools: what is asked about, with the seeds of the strategies.
        rows: to which runs are added.
        level: "candidates": S is fixed and the scorer learns; "loop": S and the streams learn as well.
        strategies: names.
        settings: {strategy: its settings}.
        batch_size, num_rounds, error_rate: see ``efficiency.curve`` and ``loop.loop_curve``.

    Raises:
        InputError: a strategy is not known, the round has no latents, or there is nothing to choose between.
    """
    for name in strategies:
        get_strategy(name, settings.get(name))
    wanted: list[tuple[Pool, Row]] = [
        (pool, {
            "level": level, "set": pool.set_name, "side": pool.side, "project": pool.name, "batch_size": batch_size,
            "num_rounds": num_rounds, "error_rate": error_rate, "seed": pool.seed, "strategy": name,
            "settings": json.dumps(settings.get(name, {}), sort_keys=True),
        })
        for pool in pools
        for name in strategies
    ]  # fmt: skip
    rows.add_missing([(run, partial(_points, pool, run, settings)) for pool, run in wanted], pools[0].set_name)


def _points(asked_about: Pool, run: Row, all_settings: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The curve of one run."""
    pool, settings = asked_about.opened(), all_settings.get(run["strategy"])
    asked = {name: run[name] for name in ("batch_size", "num_rounds", "error_rate")}
    if run["level"] == "loop":
        return loop_curve(pool, run["strategy"], settings, **asked)
    num_asked, num_pool = run["batch_size"] * run["num_rounds"], int((~pool.candidates.is_held_out).sum())
    if num_asked > num_pool:
        raise InputError(
            f"{run['num_rounds']} batches of {run['batch_size']} are {num_asked} answers, and {pool.project.root} has "
            f"{num_pool} candidates: all strategies would ask about all of them. Ask fewer (--budget, --rounds)."
        )
    return curve(pool.candidates, run["strategy"], settings, seed=run["seed"], **asked)


def experiments(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[Any, ...], list[Mapping[str, Any]]]:
    """{values of ``EXPERIMENT``: rows}: within each, strategies are compared."""
    found: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(tuple(row[column] for column in EXPERIMENT), []).append(row)
    return found


def table(rows: Sequence[Mapping[str, Any]], score: str, cost: Cost | None = None) -> list[dict[str, Any]]:
    """One line for each strategy, the best first.

    Args:
        rows: of one experiment.
        score: one of ``SCORES``.
        cost: of answers, in seconds.

    Returns:
        ``strategy``; ``area``: mean over its runs of the score's mean over rounds; where there are runs of
        ``REFERENCE``: ``gain`` beside it with ``low`` and ``high``, ``p`` after Holm's correction, ``wins`` and
        ``num_pairs``, ``answers`` and ``seconds``: what it spends as a share of what ``REFERENCE`` spends
        (``summary.share_needed``), ``foreground``: the same of ``summary.foreground_rate``, of scores with a ceiling
        of 1 where S is fixed; where several strategies have the same runs: ``rank``, the mean one.

    Raises:
        InputError: no row has the score.
    """
    found = curves(rows, score)
    if not found:
        raise InputError(f"no row has the score {score!r}; without a test box there is nothing that is held out.")
    sizes, priced = areas(found, score), cost or Cost()
    lines: dict[str, dict[str, Any]] = {
        name: {"strategy": name, "num_runs": len(runs), "area": sum(runs.values()) / len(runs)}
        for name, runs in sizes.items()
    }
    others = [name for name in found if name != REFERENCE and set(found[name]) & set(found.get(REFERENCE, {}))]
    compared = {name: compare(sizes[name], sizes[REFERENCE]) for name in others}
    corrected = holm({name: one.p for name, one in compared.items()})
    for name, one in compared.items():
        lines[name] |= {
            "gain": one.mean, "low": one.low, "high": one.high, "p": corrected[name], "wins": one.wins,
            "num_pairs": one.num_pairs,
            "answers": share_needed(found[name], found[REFERENCE], score, lambda row: row["num_answers"]),
        }  # fmt: skip
        if rows[0]["level"] != "images":
            lines[name]["seconds"] = share_needed(
                found[name], found[REFERENCE], score, lambda row: priced.of(row["told"], row["further_sections"])
            )
        if rows[0]["level"] == "candidates":
            pairs = set(found[name]) & set(found[REFERENCE])
            rates = [foreground_rate([found[n][run] for run in sorted(pairs)], score) for n in (name, REFERENCE)]
            lines[name]["foreground"] = rates[0] / rates[1]
    if len(sizes) > 1 and set.intersection(*(set(runs) for runs in sizes.values())):
        for name, rank in mean_ranks(sizes).items():
            lines[name]["rank"] = rank
    return sorted(lines.values(), key=lambda line: -line["area"])


def title(rows: Sequence[Mapping[str, Any]], score: str) -> str:
    """What a table compares, in one line."""
    level, name, side, batch_size, num_rounds, error_rate = (rows[0][column] for column in EXPERIMENT)
    where = f"{name}, {side}" if side else str(name)
    wrong = f", {error_rate:.0%} of the answers wrong" if error_rate else ""
    learns = {"candidates": "the scorer learns", "loop": "S and the scorer learn", "images": "the classifier learns"}
    return f"{where}: {num_rounds} batches of {batch_size}{wrong}; {learns[level]}; area under the curve of {score}"


def as_text(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """The table for a terminal."""
    head = f"{'strategy':<24}{'runs':>5}{'area':>8}{f'minus {REFERENCE}':>27}{'p (Holm)':>9}{'wins':>6}{'rank':>6}"
    said = [f"{head}{'answers':>9}{'seconds':>9}"]
    for line in lines:
        gain = f"{line['gain']:+.4f} [{line['low']:+.4f}, {line['high']:+.4f}]" if "gain" in line else ""
        p = f"{line['p']:.3f}" if "p" in line else ""
        wins = f"{line['wins']:.0%}" if "wins" in line else ""
        rank = f"{line['rank']:.2f}" if "rank" in line else ""
        answers, seconds = (f"{line[n][0]:.0%}" if line.get(n) else "" for n in ("answers", "seconds"))
        first = f"{line['strategy']:<24}{line['num_runs']:>5}{line['area']:>8.4f}{gain:>27}{p:>9}{wins:>6}{rank:>6}"
        said.append(f"{first}{answers:>9}{seconds:>9}")
    return said
