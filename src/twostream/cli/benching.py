"""The commands bench ...: what strategies save, where the truth is known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from twostream.base.errors import InputError
from twostream.cli.app import App, Debug, app, errors_as_sentences, uri_option

bench = App(no_args_is_help=True, rich_markup_mode=None, help="Compare strategies where the truth is known.")
app.add_typer(bench, name="bench")


@bench.callback()
def _bench() -> None:
    """Compare strategies where the truth is known."""


@bench.command()
@errors_as_sentences
def efficiency(
    rows: Annotated[
        Path,
        typer.Option("--rows", metavar="FILE.jsonl", help="Keeps every run; runs that it holds are not run again."),
    ],
    directory: Annotated[
        Optional[Path], typer.Argument(metavar="[DIR]", help="A project whose round 0 is done.")
    ] = None,
    truth: Annotated[
        Optional[str], uri_option("--truth", "Of DIR: labels of the whole image, what an expert would answer.")
    ] = None,
    recipe: Annotated[
        Optional[str], typer.Option("--recipe", metavar="NAME", help="In place of DIR: docs/benchmarks.md lists them.")
    ] = None,
    data: Annotated[
        Optional[Path], typer.Option("--data", metavar="FOLDER", help="Of --recipe: where its files lie.")
    ] = None,
    pools: Annotated[
        Path, typer.Option("--pools", metavar="FOLDER", help="Keeps the projects that are made.")
    ] = Path("pools"),
    side: Annotated[str, typer.Option("--side", help="Of --recipe: development or confirmation.")] = "development",
    quick: Annotated[bool, typer.Option("--quick", help="Of --recipe: little tissue, little training.")] = False,
    level: Annotated[
        str, typer.Option("--level", help="candidates: S stays as it is. loop: S learns from every batch.")
    ] = "candidates",
    strategies: Annotated[
        str, typer.Option("--strategies", metavar="NAME,NAME", help="docs/extending.md lists them.")
    ] = "random,entropy,clasp-pe,two-stream,look-ahead",
    seeds: Annotated[
        Optional[int], typer.Option("--seeds", min=1, help="Runs of every strategy (default: 20; --quick: 3).")
    ] = None,
    budget: Annotated[
        Optional[int], typer.Option("--budget", min=1, help="Answers in each batch (default: 10; --quick: 3).")
    ] = None,
    rounds: Annotated[
        Optional[int], typer.Option("--rounds", min=1, help="Batches (default: 6; --quick: 3).")
    ] = None,
    error_rate: Annotated[float, typer.Option("--error-rate", min=0, max=1, help="Share of wrong answers.")] = 0.0,
    name: Annotated[
        Optional[str], typer.Option("--name", help="Of the data set, in the rows (default: name of the folder).")
    ] = None,
    score: Annotated[
        Optional[str], typer.Option("--score", help="By which strategies are compared (default: the level's first).")
    ] = None,
    seconds: Annotated[
        Optional[list[str]],
        typer.Option("--seconds", metavar="KIND=SECONDS", help="Cost of a kind of answer; may be repeated."),
    ] = None,
    seconds_of: Annotated[
        Optional[Path], typer.Option("--seconds-of", metavar="DIR", help="Costs as people took them in a project.")
    ] = None,
    set_: Annotated[
        Optional[list[str]],
        typer.Option("--set", metavar="STRATEGY.NAME=VALUE", help="A setting of a strategy; may be repeated."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Let every strategy ask where the truth is known, and say what each gains beside asking at random."""
    from twostream.base.config import apply_overrides
    from twostream.bench.compare import IDENTITY, SCORES, as_text, experiments, run_missing, table, title
    from twostream.bench.cost import Cost
    from twostream.bench.pools import hours, pools_of_project, pools_of_recipe
    from twostream.bench.recipes import get_recipe
    from twostream.bench.runs import RowsFile
    from twostream.project.project import Project

    if level not in SCORES:
        raise InputError(f"--level is {level!r}; expected {' or '.join(SCORES)}.")
    score = score or SCORES[level][0]
    if score not in SCORES[level]:
        raise InputError(f"--score is {score!r}; of --level {level} expected one of {', '.join(SCORES[level])}.")
    names = list(dict.fromkeys(part.strip() for part in strategies.split(",") if part.strip()))
    if not names:
        raise InputError(f"--strategies is {strategies!r}; expected names with commas between them.")
    settings = apply_overrides({}, set_ or [])
    unknown = sorted(set(settings) - set(names))
    if unknown:
        raise InputError(f"--set names {unknown[0]!r}, which is none of the strategies; expected {', '.join(names)}.")
    cost = Cost()
    if seconds_of is not None:
        cost = cost.measured(Project(seconds_of).ledger)
    cost = cost.overridden(seconds or [])
    if (directory is None) == (recipe is None):
        given = "both" if recipe else "neither"
        raise InputError(f"{given} of DIR and --recipe is given; name a project of yours, or a recipe.")
    if recipe is not None and (truth is not None or name is not None):
        raise InputError("--truth and --name belong to DIR; a recipe knows its truth and its name.")
    if quick and recipe is None:
        raise InputError("--quick belongs to --recipe; a project of yours is as large as it is.")
    if level == "loop" and recipe is None:
        if (seeds or 1) > 1:
            raise InputError(
                f"--seeds is {seeds}; S of a project is trained from one seed, so --level loop runs each strategy once "
                "in it. More seeds need --recipe."
            )
        seeds = 1
    num_seeds, batch_size, num_rounds = (
        given or usual for given, usual in zip((seeds, budget, rounds), (3, 3, 3) if quick else (20, 10, 6), strict=True)
    )
    kept = RowsFile(rows, IDENTITY)
    if recipe is not None:
        asked = pools_of_recipe(get_recipe(recipe), side, num_seeds, pools, data, quick=quick)
    else:
        assert directory is not None
        if truth is None:
            raise InputError("--truth is missing: the labels of the whole image, by which an expert is simulated.")
        project = Project(directory)
        asked = pools_of_project(project, truth, name or project.root.name, num_seeds, pools)
    run_missing(
        asked, kept, level=level, strategies=names, settings=settings, batch_size=batch_size,
        num_rounds=num_rounds, error_rate=error_rate,
    )  # fmt: skip
    for found in experiments(row for row in kept.rows if row["level"] == level).values():
        print(title(found, score))
        print("\n".join(as_text(table(found, score, cost))), end="\n\n")
    if recipe is not None:
        made = [Project(path.parent) for path in sorted(pools.glob("*/base/twostream.yaml"))]
        print(f"{len(made)} pools in {pools}; their rounds 0 took {hours(made):.1f} hours")
    print(f"{len(kept.rows)} rows in {rows}")
