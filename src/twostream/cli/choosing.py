"""The command query: rows of latents, without a project."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from twostream.cli.app import (
    Debug,
    app,
    errors_as_sentences,
)

if TYPE_CHECKING:
    pass


@app.command()
@errors_as_sentences
def query(
    supervised: Annotated[
        Path,
        typer.Option(
            "--supervised",
            metavar="A.npy",
            help="(N, Ds) latents; .npy, or .npz with one array or one called supervised.",
        ),
    ],
    unsupervised: Annotated[Path, typer.Option("--unsupervised", metavar="B.npy", help="(N, Du) latents.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="rows.csv", help="New file: the rows, with reasons.")
    ],
    answered: Annotated[
        Optional[Path], typer.Option("--answered", metavar="ROWS.txt", help="Rows that are answered, one per line.")
    ] = None,
    probability: Annotated[
        Optional[Path], typer.Option("--probability", metavar="P.npy", help="(N,) or (M, N) probabilities of True.")
    ] = None,
    position: Annotated[
        Optional[Path], typer.Option("--position-nm", metavar="ZYX.npy", help="(N, 3) positions of the candidates.")
    ] = None,
    clusters: Annotated[
        tuple[int, int], typer.Option("--clusters", metavar="COARSE FINE", help="Clusters on each level.")
    ] = (100, 10),
    budget: Annotated[
        Optional[int], typer.Option("--budget", help="Number of rows to choose (default: COARSE x FINE).")
    ] = None,
    strategy: Annotated[
        str, typer.Option("--strategy", help="Name of a strategy; docs/extending.md lists them.")
    ] = "two-stream",
    variant: Annotated[
        Optional[str], typer.Option("--variant", metavar="corrected|published|adaptive", help="Of two-stream.")
    ] = None,
    first: Annotated[
        Optional[str], typer.Option("--first", metavar="supervised|unsupervised", help="Stream of the coarse level.")
    ] = None,
    set_: Annotated[
        Optional[list[str]],
        typer.Option("--set", metavar="NAME=VALUE", help="A setting of the strategy (docs/query.md)."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of everything random.")] = 0,
    debug: Debug = False,
) -> None:
    """Choose rows of latents, without a project. Reads .npy or .npz and writes CSV."""
    from twostream.base.config import apply_overrides
    from twostream.project.query_files import query_files

    settings = {name: value for name, value in (("variant", variant), ("first", first)) if value is not None}
    chosen = query_files(
        supervised,
        unsupervised,
        output,
        answered=answered,
        probability=probability,
        position_nm=position,
        clusters=clusters,
        budget=budget,
        strategy=strategy,
        settings=apply_overrides(settings, set_ or []),
        seed=seed,
    )
    for note in chosen.notes:
        print(f"  {note}")
    print(f"{len(chosen.rows)} rows written to {output}")
