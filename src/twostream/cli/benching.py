"""The commands bench ...: what strategies save, where the truth is known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from twostream.base.errors import InputError
from twostream.cli.app import App, Debug, app, errors_as_sentences, uri_option

if TYPE_CHECKING:
    from twostream.bench.cost import Cost
    from twostream.bench.runs import RowsFile

Rows = Annotated[
    Path, typer.Option("--rows", metavar="FILE.jsonl", help="Keeps every run; runs that it holds are not run again.")
]
Settings = Annotated[
    Optional[list[str]],
    typer.Option("--set", metavar="STRATEGY.NAME=VALUE", help="A setting of a strategy; may be repeated."),
]
bench = App(no_args_is_help=True, rich_markup_mode=None, help="Compare strategies where the truth is known.")
app.add_typer(bench, name="bench")


@bench.callback()
def _bench() -> None:
    """Compare strategies where the truth is known."""


@bench.command()
@errors_as_sentences
def efficiency(
    rows: Rows,
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
    pools: Annotated[Path, typer.Option("--pools", metavar="FOLDER", help="Keeps the projects that are made.")] = Path(
        "pools"
    ),
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
    rounds: Annotated[Optional[int], typer.Option("--rounds", min=1, help="Batches (default: 6; --quick: 3).")] = None,
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
    set_: Settings = None,
    debug: Debug = False,
) -> None:
    """Let every strategy ask where the truth is known, and say what each gains beside asking at random."""
    from twostream.bench.compare import IDENTITY, SCORES, run_missing
    from twostream.bench.cost import Cost
    from twostream.bench.pools import pools_of_project, pools_of_recipe, seconds_of_rounds_0
    from twostream.bench.recipes import get_recipe
    from twostream.bench.runs import RowsFile
    from twostream.project.project import Project
    from twostream.report.words import duration

    if level not in ("candidates", "loop"):
        raise InputError(f"--level is {level!r}; expected candidates or loop.")
    score = score or SCORES[level][0]
    if score not in SCORES[level]:
        raise InputError(f"--score is {score!r}; of --level {level} expected one of {', '.join(SCORES[level])}.")
    names, settings = _chosen(strategies, set_ or [])
    cost = Cost() if seconds_of is None else Cost().measured(Project(seconds_of).ledger)
    cost = cost.overridden(seconds or [])
    if (directory is None) == (recipe is None):
        given = "both" if recipe else "neither"
        raise InputError(f"{given} of DIR and --recipe is given; name a project of yours, or a recipe.")
    usual = (3, 3, 3) if quick else (20, 10, 6)
    num_seeds, batch_size, num_rounds = (a or b for a, b in zip((seeds, budget, rounds), usual, strict=True))
    kept = RowsFile(rows, IDENTITY)
    if recipe is not None:
        if truth is not None or name is not None:
            raise InputError("--truth and --name belong to DIR; a recipe knows its truth and its name.")
        asked = pools_of_recipe(get_recipe(recipe), side, num_seeds, pools, data, quick=quick)
    else:
        assert directory is not None
        _check_options_of_project(truth, quick, level, seeds)
        project = Project(directory)
        num_seeds = 1 if level == "loop" else num_seeds
        asked = pools_of_project(project, str(truth), name or project.root.name, num_seeds, pools)
    run_missing(
        asked, kept, level=level, strategies=names, settings=settings, batch_size=batch_size,
        num_rounds=num_rounds, error_rate=error_rate,
    )  # fmt: skip
    _print_tables(kept, level, score, cost)
    if recipe is not None:
        made = [Project(path.parent) for path in sorted(pools.glob("*/base/twostream.yaml"))]
        print(f"{len(made)} pools in {pools}; their rounds 0 took {duration(seconds_of_rounds_0(made))}")
    print(f"{len(kept.rows)} rows in {rows}")


@bench.command()
@errors_as_sentences
def images(
    data: Annotated[Path, typer.Option("--data", metavar="FOLDER", help="Holds CIFAR-10 (docs/benchmarks.md).")],
    rows: Rows,
    classifier: Annotated[
        str,
        typer.Option("--classifier", help="probe: a small network on frozen features. resnet: ResNet-18, on a GPU."),
    ] = "probe",
    unsupervised: Annotated[
        str, typer.Option("--unsupervised", help="Network of the unsupervised stream: simclr or vae.")
    ] = "simclr",
    strategies: Annotated[
        str, typer.Option("--strategies", metavar="NAME,NAME", help="docs/extending.md lists them.")
    ] = "random,entropy,core-set,two-stream",
    seeds: Annotated[
        Optional[int], typer.Option("--seeds", min=1, help="Runs of every strategy (default: 5; --quick: 1).")
    ] = None,
    start: Annotated[
        Optional[int],
        typer.Option("--start", min=1, help="Labels that are there at first (default: 1000; --quick: 200)."),
    ] = None,
    budget: Annotated[
        Optional[int], typer.Option("--budget", min=1, help="Labels in each batch (default: 1000; --quick: 100).")
    ] = None,
    rounds: Annotated[Optional[int], typer.Option("--rounds", min=1, help="Batches (default: 9; --quick: 3).")] = None,
    steps: Annotated[
        Optional[int], typer.Option("--steps", min=1, help="Of training without labels (default: 4000; --quick: 60).")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="4,000 images, little training.")] = False,
    set_: Settings = None,
    debug: Debug = False,
) -> None:
    """Choose labels of CIFAR-10 with every strategy, and say what each gains beside choosing at random."""
    from twostream.bench.compare import IDENTITY
    from twostream.bench.images import run_images
    from twostream.bench.runs import RowsFile

    for option, given, known in (
        ("--classifier", classifier, ("probe", "resnet")),
        ("--unsupervised", unsupervised, ("simclr", "vae")),
    ):
        if given not in known:
            raise InputError(f"{option} is {given!r}; expected {' or '.join(known)}.")
    names, settings = _chosen(strategies, set_ or [])
    usual = (1, 200, 100, 3, 60) if quick else (5, 1000, 1000, 9, 4000)
    num_seeds, num_first, batch_size, num_rounds, num_steps = (
        given or number for given, number in zip((seeds, start, budget, rounds, steps), usual, strict=True)
    )
    kept = RowsFile(rows, IDENTITY)
    run_images(
        data, kept, classifier=classifier, unsupervised=unsupervised, strategies=names, settings=settings,
        num_seeds=num_seeds, start=num_first, batch_size=batch_size, num_rounds=num_rounds, num_steps=num_steps,
        quick=quick,
    )  # fmt: skip
    _print_tables(kept, "images", "test_accuracy")
    print(f"{len(kept.rows)} rows in {rows}")


def _print_tables(kept: RowsFile, level: str, score: str, cost: Cost | None = None) -> None:
    """A table for every experiment of a level."""
    from twostream.bench.compare import as_text, experiments, table, title

    for found in experiments(row for row in kept.rows if row["level"] == level).values():
        print(title(found, score))
        print("\n".join(as_text(table(found, score, cost))), end="\n\n")


def _check_options_of_project(truth: str | None, quick: bool, level: str, seeds: int | None) -> None:
    """Raise InputError for options that a project, in place of a recipe, lacks or cannot have."""
    if truth is None:
        raise InputError("--truth is missing: the labels of the whole image, by which an expert is simulated.")
    if quick:
        raise InputError("--quick belongs to --recipe; a project of yours is as large as it is.")
    if level == "loop" and (seeds or 1) > 1:
        raise InputError(
            f"--seeds is {seeds}; S of a project is trained from one seed, so --level loop runs each strategy once in "
            "it. More seeds need --recipe."
        )


def _chosen(strategies: str, overrides: list[str]) -> tuple[list[str], dict[str, Any]]:
    """Names of strategies, and {name: its settings}."""
    from twostream.base.config import apply_overrides

    names = list(dict.fromkeys(part.strip() for part in strategies.split(",") if part.strip()))
    if not names:
        raise InputError(f"--strategies is {strategies!r}; expected names with commas between them.")
    settings = apply_overrides({}, overrides)
    unknown = sorted(set(settings) - set(names))
    if unknown:
        raise InputError(f"--set names {unknown[0]!r}, which is none of the strategies; expected {', '.join(names)}.")
    return names, settings
