"""The command line: a thin porch. Each command reads its options and calls one function.

Heavy rooms (torch, matplotlib) are imported inside the commands that need them, so that ``--help`` and ``status``
answer at once and everywhere.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

# Threads that wait by spinning make a shared machine ten times slower; this must be said before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from twostream import __version__
from twostream.base.errors import InputError, TwoStreamError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

Dir = Annotated[Path, typer.Argument(metavar="DIR", help="The project folder.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Truth = Annotated[
    Optional[str],
    typer.Option("--truth", metavar="URI", help="Labels of the whole image; a simulated annotator answers by them."),
]
Set = Annotated[
    Optional[list[str]], typer.Option("--set", metavar="A.B=VALUE", help="Override a setting; may be repeated.")
]


def _helpful(command: Callable[..., Any]) -> Callable[..., Any]:
    """Errors of ours become one sentence and exit status 1; with --debug they keep their traceback."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except TwoStreamError as error:
            if kwargs.get("debug"):
                raise
            print(f"twostream: {error}", file=sys.stderr)
            raise typer.Exit(1) from None
        except (typer.Exit, typer.Abort, typer.BadParameter, BrokenPipeError):
            raise
        except Exception as error:
            if kwargs.get("debug"):
                raise
            print(f"twostream: {_sentence(error)}", file=sys.stderr)
            raise typer.Exit(1) from None

    return wrapped


def _sentence(error: Exception) -> str:
    """Words for an error that is not ours."""
    words = " ".join(str(error).split())
    if isinstance(error, OSError):
        hint = {errno.ENOSPC: " The disk is full.", errno.EROFS: " The file system is read-only."}
        return f"the system refused: {words}.{hint.get(error.errno or 0, '')}"
    return (
        f"unexpected {type(error).__name__}: {words}. Nothing half-done counts as done; the traceback that --debug "
        f"shows helps us to mend it."
    )


@app.callback(invoke_without_command=True)
def main(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Active learning for connectomics: two streams decide what an expert should look at."""
    if version:
        print(f"twostream {__version__}")
        raise typer.Exit


@app.command()
@_helpful
def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to make.")] = Path("demo"),
    task: Annotated[
        str, typer.Option("--task", metavar="polarity|mitochondria", help="What to look for.")
    ] = "polarity",
    rounds: Annotated[int, typer.Option("--rounds", help="Batches to ask.")] = 3,
    seed: Annotated[int, typer.Option("--seed", help="Of the tissue and of everything random.")] = 0,
    debug: Debug = False,
) -> None:
    """The whole loop on synthetic tissue with a simulated annotator, beside asking at random; ends with a report."""
    from twostream.demo import run_demo

    run_demo(out, task=task, rounds=rounds, seed=seed)


@app.command()
@_helpful
def init(
    directory: Dir,
    image: Annotated[
        Optional[str], typer.Option("--image", metavar="URI", help="Grey values, uint8 (Z, Y, X).")
    ] = None,
    task: Annotated[Optional[str], typer.Option("--task", metavar="mitochondria|cleft|polarity")] = None,
    recipe: Annotated[
        Optional[str], typer.Option("--recipe", metavar="NAME", help="A published configuration; with --data.")
    ] = None,
    data: Annotated[
        Optional[Path], typer.Option("--data", metavar="DATA_DIR", help="What `twostream data get` has filled.")
    ] = None,
    labels: Annotated[
        Optional[str], typer.Option("--labels", metavar="URI", help="Integer labels of the image's extent.")
    ] = None,
    probability: Annotated[
        Optional[str], typer.Option("--probability", metavar="URI", help="Another model's probability, in place of S.")
    ] = None,
    segmentation: Annotated[
        Optional[str], typer.Option("--segmentation", metavar="URI", help="Instance labels to check, in place of S.")
    ] = None,
    objects: Annotated[
        Optional[str], typer.Option("--objects", metavar="TABLE", help="CSV or Parquet of objects, in place of S.")
    ] = None,
    labels_box: Annotated[
        Optional[str], typer.Option("--labels-box", metavar="Z0:Z1,Y0:Y1,X0:X1", help="What S may learn from.")
    ] = None,
    val_box: Annotated[
        Optional[str], typer.Option("--val-box", metavar="Z0:Z1,Y0:Y1,X0:X1", help="Part of it kept for thresholds.")
    ] = None,
    test_box: Annotated[
        Optional[str], typer.Option("--test-box", metavar="Z0:Z1,Y0:Y1,X0:X1", help="Never learned from, never asked.")
    ] = None,
    voxel_size: Annotated[
        Optional[str], typer.Option("--voxel-size", metavar="Z,Y,X", help="In nm, where the file does not say.")
    ] = None,
    preset: Annotated[str, typer.Option("--preset", metavar="laptop|paper")] = "laptop",
    seed: Annotated[int, typer.Option("--seed")] = 0,
    budget: Annotated[int, typer.Option("--budget", help="Answers per round.")] = 50,
    vae_config: Annotated[
        Optional[list[Path]],
        typer.Option("--vae-config", metavar="FILE", help="YAML with a TWOSTREAM: block; once for each VAE."),
    ] = None,
    set_: Set = None,
    debug: Debug = False,
) -> None:
    """Make a project: check the volumes, freeze the boxes, write twostream.yaml."""
    from twostream.project.create import create_project

    given: dict[str, Any] = {"task": task, "image": image, "labels": labels}
    given |= {"labels_box": labels_box, "val_box": val_box, "test_box": test_box}
    if recipe is not None or data is not None:
        from twostream.project.recipes import founding_arguments

        given = founding_arguments(recipe, data, preset=preset, given=given)
    if given["image"] is None or given["task"] is None:
        raise InputError("init needs --image URI and --task NAME, or --recipe NAME and --data DATA_DIR.")
    if given["labels"] is None and (probability or segmentation or objects) is None:
        raise InputError(
            "init needs --labels URI: S is trained on them. Pass a volume of the image's extent, 0 where unlabelled; "
            "or bring somebody else's output in place of S: --probability URI, --segmentation URI or --objects TABLE."
        )
    published = []
    if vae_config:
        from twostream.models.streams.published import published_overrides

        published = published_overrides(vae_config, given["task"])
    project = create_project(
        directory,
        **given,
        probability=probability,
        segmentation=segmentation,
        objects=objects,
        voxel_size_nm=_numbers(voxel_size),
        preset=preset,
        seed=seed,
        budget=budget,
        overrides=[*published, *(set_ or [])],
    )
    boxes = project.config.boxes
    print(
        f"{directory / 'twostream.yaml'} written: {project.task.name}, {project.image.shape_zyx} voxels "
        f"of {project.image.voxel_size_nm} nm (Z, Y, X)"
    )
    print(
        f"labels box {boxes.labels or 'none'} · validation box {boxes.val or 'none'} "
        f"· test box {boxes.test or 'none: a random audit share instead'}"
    )
    if source := project.config.source:
        print(f"{source.name} {source.uri} in place of S: nothing is trained but the streams")
    if boxes.test and not boxes.labels:
        print("the test box is scored in runs with --truth alone: there are no labels")
    if project.leaves_nothing_to_ask:
        print("labels box, test box and its guard cover the image: S can be trained and scored, but nothing is left")
        print(f"to ask; a smaller --labels-box leaves a pool. next: twostream run {directory} --rounds 0")
        return
    print(f"next: twostream run {directory} --truth URI (simulated annotator), or twostream run {directory}")


data_app = typer.Typer(no_args_is_help=True, help="Public data sets: list them, fetch them.")
app.add_typer(data_app, name="data")


@data_app.command("list")
@_helpful
def data_list(debug: Debug = False) -> None:
    """The public data sets that can be fetched by name."""
    from twostream.volume.datasets import table

    print(table())


@data_app.command("get")
@_helpful
def data_get(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As `twostream data list` has it.")],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for the HDF5 files.")],
    url: Annotated[
        Optional[str], typer.Option("--url", metavar="URL", help="A mirror: the folder that holds the set's files.")
    ] = None,
    voxel_size: Annotated[
        Optional[str], typer.Option("--voxel-size", metavar="Z,Y,X", help="In nm, where the set's own is wrong.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Fetch a public data set and make HDF5 files of it; what is there already is not fetched again."""
    from twostream.volume.datasets import find_dataset, get_dataset

    paths = get_dataset(name, directory, url=url, voxel_size_nm=_numbers(voxel_size))
    print("\n".join(map(str, paths)))
    print(f"next: twostream init PROJECT --recipe {find_dataset(name).recipe} --data {directory}")


@app.command()
@_helpful
def run(
    directory: Dir,
    rounds: Annotated[Optional[int], typer.Option("--rounds", metavar="N", help="Batches to ask in all.")] = None,
    truth: Truth = None,
    image: Annotated[
        Optional[str], typer.Option("--image", metavar="URI", help="Where the image is now, if it was moved.")
    ] = None,
    labels: Annotated[
        Optional[str], typer.Option("--labels", metavar="URI", help="Where the labels are now, if they were moved.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Do every step that is due; stop where a person must answer. Killed and called again, it goes on."""
    from twostream.project.project import Project
    from twostream.rounds.loop import run as run_loop

    project = Project(directory)
    if moved := {name: uri for name, uri in (("image", image), ("labels", labels)) if uri is not None}:
        project.relocate(**moved)
    outcome = run_loop(project, rounds=rounds, truth_uri=truth)
    if outcome.finished:
        from twostream.report import write_report

        print(f"done: {outcome.round} rounds asked and answered; report: {write_report([Project(directory)])}")
    else:
        print(
            f"round {outcome.round} waits for {outcome.num_open} answers. Next: answer them "
            f"(`twostream export {directory} --what queries --format csv -o queries.csv`, fill in the column `kind`, "
            f"`twostream answer {directory} queries.csv`), then `twostream run {directory}`."
        )


@app.command()
@_helpful
def train(
    directory: Dir,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be trained: parameters, crop, steps, memory.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Train S on the labelled box (round 0)."""
    from twostream.project.project import Project
    from twostream.rounds.loop import run_step

    if dry_run:
        from twostream.rounds.train import describe_training

        print("\n".join(describe_training(Project(directory)).lines()))
        return
    round_number, done = run_step(Project(directory), "train")
    print(f"round {round_number}: train {'done' if done else 'had been done already'}")


@app.command()
@_helpful
def tune(
    directory: Dir,
    write: Annotated[bool, typer.Option("--write", help="Put the best setting into twostream.yaml.")] = False,
    debug: Debug = False,
) -> None:
    """Try thresholds and decoding on the validation box, best first."""
    from twostream.project.project import Project
    from twostream.rounds.tune import tune_project

    print("\n".join(tune_project(Project(directory), write=write)))


def _step_command(name: str, text: str) -> None:
    @app.command(name, help=text)
    @_helpful
    def command(directory: Dir, debug: Debug = False) -> None:
        from twostream.project.project import Project
        from twostream.rounds.loop import run_step

        round_number, done = run_step(Project(directory), name)
        print(f"round {round_number}: {name} {'done' if done else 'had been done already'}")


for _name, _text in (
    ("predict", "S over the whole image."),
    ("propose", "Probability to candidates."),
    ("embed", "Both streams see every candidate (round 0 trains them first)."),
    ("suggest", "Score the round, then choose and ask the next batch."),
    ("refit", "Fine-tune S and the unsupervised stream on the answers; opens the next round."),
):
    _step_command(_name, _text)


@app.command()
@_helpful
def answer(
    directory: Dir,
    table: Annotated[Path, typer.Argument(metavar="CSV", help="Columns query, kind; optional reason, seconds.")],
    annotator: Annotated[str, typer.Option("--annotator", help="Who answered.")] = os.environ.get("USER", "annotator"),
    debug: Debug = False,
) -> None:
    """Record answers from a table of queries and kinds: true, nothing, shape, swapped, unsure, skipped."""
    from twostream.project.project import Project
    from twostream.project.tables import read_answers

    print(f"{read_answers(Project(directory), table, annotator)} answers recorded")


@app.command()
@_helpful
def fork(
    directory: Dir,
    target: Annotated[Path, typer.Argument(metavar="NEW", help="Folder to make.")],
    set_: Set = None,
    debug: Debug = False,
) -> None:
    """A second project that shares round 0, to compare strategies: --set query.strategy=random."""
    from twostream.project.create import fork_project
    from twostream.project.project import Project

    fork_project(Project(directory), target, set_ or [])
    print(f"{target} shares round 0 of {directory}; next: twostream run {target}")


@app.command()
@_helpful
def status(directory: Dir, debug: Debug = False) -> None:
    """What is done, what is due, what waits for whom."""
    from twostream.project.project import Project
    from twostream.project.status import status_lines

    print("\n".join(status_lines(Project(directory))))


@app.command()
@_helpful
def report(
    directory: Dir,
    beside: Annotated[
        Optional[list[Path]], typer.Option("--beside", metavar="DIR", help="Another project to compare.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Curves, galleries and times as one self-contained report.html."""
    from twostream.project.project import Project
    from twostream.report import write_report

    print(write_report([Project(directory), *(Project(path) for path in beside or [])]))


@app.command()
@_helpful
def export(
    directory: Dir,
    what: Annotated[str, typer.Option("--what", metavar="answers|queries|candidates|segmentation|dataset")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="PATH")],
    format_: Annotated[Optional[str], typer.Option("--format", metavar="csv|jsonl|parquet|zarr|hdf5")] = None,
    debug: Debug = False,
) -> None:
    """Take results out: tables as CSV, JSONL or Parquet, volumes as OME-Zarr or HDF5."""
    from twostream.project.export import export as export_
    from twostream.project.project import Project

    print(export_(Project(directory), what, output, format_))


@app.command()
@_helpful
def query(
    supervised: Annotated[
        Path,
        typer.Option(
            "--supervised", metavar="A.npy", help="(N, Ds) latents; .npy, or .npz with one array or one of that name."
        ),
    ],
    unsupervised: Annotated[Path, typer.Option("--unsupervised", metavar="B.npy", help="(N, Du) latents.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="rows.csv", help="Rows and why; must not exist.")],
    answered: Annotated[
        Optional[Path], typer.Option("--answered", metavar="ROWS.txt", help="Rows answered already, one per line.")
    ] = None,
    probability: Annotated[
        Optional[Path], typer.Option("--probability", metavar="P.npy", help="(N,) or (M, N), probability of a True.")
    ] = None,
    position: Annotated[
        Optional[Path], typer.Option("--position-nm", metavar="ZYX.npy", help="(N, 3), where candidates lie.")
    ] = None,
    clusters: Annotated[tuple[int, int], typer.Option("--clusters", metavar="COARSE FINE")] = (100, 10),
    budget: Annotated[Optional[int], typer.Option("--budget", help="Rows wanted (default: COARSE x FINE).")] = None,
    strategy: Annotated[str, typer.Option("--strategy", help="Any name of docs/extending.md.")] = "two-stream",
    variant: Annotated[Optional[str], typer.Option("--variant", metavar="corrected|published|adaptive")] = None,
    first: Annotated[
        Optional[str], typer.Option("--first", metavar="supervised|unsupervised", help="Stream of the coarse level.")
    ] = None,
    set_: Annotated[
        Optional[list[str]], typer.Option("--set", metavar="NAME=VALUE", help="Its settings (docs/query.md).")
    ] = None,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    debug: Debug = False,
) -> None:
    """Choose rows from latents alone, without a project: .npy or .npz in, CSV out."""
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


def _numbers(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        values = [float(v) for v in text.split(",")]
        if len(values) != 3:
            raise ValueError
    except ValueError:
        raise InputError(f"--voxel-size is {text!r}; expected Z,Y,X in nanometres, for example 40,4,4.") from None
    return values
