"""The commands bench ...: what strategies save, on candidates whose answers are known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from twostream.base.errors import InputError
from twostream.cli.app import App, Debug, Dir, app, errors_as_sentences, uri_option

bench = App(no_args_is_help=True, rich_markup_mode=None, help="Compare strategies where the truth is known.")
app.add_typer(bench, name="bench")


@bench.callback()
def _bench() -> None:
    """Compare strategies where the truth is known."""


@bench.command()
@errors_as_sentences
def efficiency(
    directory: Dir,
    truth: Annotated[str, uri_option("--truth", "Labels of the whole image: what an expert would answer.")],
    rows: Annotated[
        Path,
        typer.Option("--rows", metavar="FILE.jsonl", help="Keeps every run; runs that it holds are not run again."),
    ],
    strategies: Annotated[
        str, typer.Option("--strategies", metavar="NAME,NAME", help="docs/extending.md lists them.")
    ] = "random,entropy,clasp-pe,two-stream,look-ahead",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Runs of every strategy.")] = 20,
    budget: Annotated[int, typer.Option("--budget", min=1, help="Answers in each batch.")] = 10,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Batches.")] = 6,
    error_rate: Annotated[float, typer.Option("--error-rate", min=0, max=1, help="Share of wrong answers.")] = 0.0,
    name: Annotated[
        Optional[str], typer.Option("--name", help="Of the data set, in the rows (default: name of the folder).")
    ] = None,
    score: Annotated[str, typer.Option("--score", help="By which strategies are compared.")] = "accuracy",
    set_: Annotated[
        Optional[list[str]],
        typer.Option("--set", metavar="STRATEGY.NAME=VALUE", help="A setting of a strategy; may be repeated."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Ask about the candidates of round 0 with every strategy, and say what each gains beside asking at random."""
    from twostream.base.config import apply_overrides
    from twostream.bench.compare import IDENTITY, SCORES, as_text, run_missing, table
    from twostream.bench.runs import RowsFile
    from twostream.project.project import Project

    if score not in SCORES:
        raise InputError(f"--score is {score!r}; expected one of {', '.join(SCORES)}.")
    names = list(dict.fromkeys(part.strip() for part in strategies.split(",") if part.strip()))
    if not names:
        raise InputError(f"--strategies is {strategies!r}; expected names with commas between them.")
    settings = apply_overrides({}, set_ or [])
    unknown = sorted(set(settings) - set(names))
    if unknown:
        raise InputError(f"--set names {unknown[0]!r}, which is none of the strategies; expected {', '.join(names)}.")
    kept = RowsFile(rows, IDENTITY)
    project = Project(directory)
    run_missing(
        project, truth, kept, set_name=name or project.root.name, strategies=names, settings=settings,
        batch_size=budget, num_rounds=rounds, num_seeds=seeds, error_rate=error_rate,
    )  # fmt: skip
    print("\n".join(as_text(table(kept.rows, score), score)))
    print(f"areas under the curve of {score} over rounds; {len(kept.rows)} rows in {rows}")
