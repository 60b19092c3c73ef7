"""The command line. Each command reads its options, calls one function and prints what it returns.

Modules that take long to import (torch, matplotlib) are imported inside the commands that need them, so that ``--help``
and ``status`` answer at once, even where torch is not installed.
"""

from __future__ import annotations

import errno
import os
import shlex
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from typer.core import TyperCommand, TyperOption

# Threads that wait by spinning make a shared machine ten times slower; this must be set before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from twostream import __version__
from twostream.base.errors import InputError, TwoStreamError

if TYPE_CHECKING:
    from twostream.project.project import Project


class _Command(TyperCommand):
    """A command that refuses an option with one value that is given twice: otherwise the second would win silently."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given = [
            param
            for param in self.make_parser(ctx).parse_args(list(args))[2]
            if isinstance(param, TyperOption) and not (param.multiple or param.is_flag or param.count)
        ]
        twice = next((param for param in given if given.count(param) > 1), None)
        if twice is not None:
            raise typer.BadParameter(f"{twice.opts[-1]} was given {given.count(twice)} times; it takes one value.", ctx)
        return super().parse_args(ctx, args)


class _App(typer.Typer):
    """An app all of whose commands are ``_Command``."""

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Any], Any]:
        return super().command(name, cls=_Command, **settings)


app = _App(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def _uri(option: str, text: str) -> Any:
    """An option that takes the URI of a volume."""
    return typer.Option(option, metavar="URI", help=text)


def _box(option: str, text: str) -> Any:
    """An option that takes a box of voxels."""
    return typer.Option(option, metavar="Z0:Z1,Y0:Y1,X0:X1", help=text)


Dir = Annotated[Path, typer.Argument(metavar="DIR", help="The project folder.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Truth = Annotated[Optional[str], _uri("--truth", "Labels of the whole image; a simulated annotator answers by them.")]
MinProbability = Annotated[
    Optional[float],
    typer.Option(
        "--min-probability",
        metavar="P",
        help="Data set: leave out unanswered objects to which the scorer gives less (default 0.5; 0 keeps all).",
    ),
]
Overrides = Annotated[
    Optional[list[str]], typer.Option("--set", metavar="A.B=VALUE", help="Change a setting; may be repeated.")
]


def _errors_as_sentences(command: Callable[..., Any]) -> Callable[..., Any]:
    """Print an error as one sentence and exit with status 1; with --debug, let it pass with its traceback."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except (typer.Exit, typer.Abort, typer.BadParameter, BrokenPipeError):
            raise
        except Exception as error:
            if kwargs.get("debug"):
                raise
            text = str(error) if isinstance(error, TwoStreamError) else _foreign_error_text(error)
            print(f"twostream: {text}", file=sys.stderr)
            raise typer.Exit(1) from None

    return wrapped


def _foreign_error_text(error: Exception) -> str:
    """A sentence for an error that is not a ``TwoStreamError``."""
    words = " ".join(str(error).split())
    if isinstance(error, OSError):
        hint = {errno.ENOSPC: " The disk is full.", errno.EROFS: " The file system is read-only."}
        return f"the system refused: {words}.{hint.get(error.errno or 0, '')}"
    return (
        f"unexpected {type(error).__name__}: {words}. A step that was interrupted does not count as done. Please "
        f"report this error with the traceback that --debug shows."
    )


def _command(*words: object) -> str:
    """A command that can be pasted into a shell, whatever its paths contain."""
    return shlex.join(["twostream", *map(str, words)])


@app.callback(invoke_without_command=True)
def main(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Active learning for connectomics: two streams decide what an expert should look at."""
    if version:
        print(f"twostream {__version__}")
        raise typer.Exit


@app.command()
@_errors_as_sentences
def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to create, or to continue in.")] = Path(
        "demo"
    ),
    task: Annotated[
        str, typer.Option("--task", metavar="polarity|mitochondria", help="What to look for.")
    ] = "polarity",
    rounds: Annotated[int, typer.Option("--rounds", help="Number of rounds; each asks one batch of queries.")] = 3,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the tissue and of everything random.")] = 0,
    debug: Debug = False,
) -> None:
    """Run the whole loop on synthetic tissue. A simulated annotator answers; random queries are run for comparison."""
    from twostream.demo import run_demo

    run_demo(out, task=task, rounds=rounds, seed=seed)


@app.command()
@_errors_as_sentences
def init(
    directory: Dir,
    image: Annotated[Optional[str], _uri("--image", "Image: grey values (Z, Y, X).")] = None,
    task: Annotated[
        Optional[str], typer.Option("--task", metavar="mitochondria|cleft|polarity", help="What to look for.")
    ] = None,
    recipe: Annotated[
        Optional[str], typer.Option("--recipe", metavar="NAME", help="A published configuration; needs --data.")
    ] = None,
    data: Annotated[
        Optional[Path], typer.Option("--data", metavar="DATA_DIR", help="Folder that `twostream data get` has filled.")
    ] = None,
    labels: Annotated[
        Optional[str], _uri("--labels", "Labels, from which S learns: instances, a mask, or the sides of synapses.")
    ] = None,
    labels_post: Annotated[
        Optional[str], _uri("--labels-post", "The postsynaptic side, if --labels holds only the presynaptic one.")
    ] = None,
    labels_kind: Annotated[
        Optional[str],
        typer.Option(
            "--labels-kind", metavar="instances|mask|sides|points", help="What labels mean, if found out wrongly."
        ),
    ] = None,
    ignore_value: Annotated[
        Optional[int], typer.Option("--ignore-value", help="Label of voxels that are neither object nor background.")
    ] = None,
    window: Annotated[
        Optional[str],
        typer.Option("--window", metavar="LOW:HIGH", help="Grey values shown as 0 and 255; found out if not uint8."),
    ] = None,
    probability: Annotated[Optional[str], _uri("--probability", "Another model's probability, in place of S.")] = None,
    segmentation: Annotated[Optional[str], _uri("--segmentation", "Instance labels to check, in place of S.")] = None,
    objects: Annotated[
        Optional[str],
        typer.Option("--objects", metavar="TABLE", help="Table of objects (CSV, Parquet, Feather), in place of S."),
    ] = None,
    labels_box: Annotated[
        Optional[list[str]],
        _box("--labels-box", "Where S may learn from the labels; once for each box. What lies between is unknown."),
    ] = None,
    val_box: Annotated[
        Optional[str], _box("--val-box", "Part of a labels box, or one of several, kept to choose thresholds.")
    ] = None,
    test_box: Annotated[Optional[str], _box("--test-box", "Scored; never trained on and never asked about.")] = None,
    voxel_size: Annotated[
        Optional[str], typer.Option("--voxel-size", metavar="Z,Y,X", help="In nm, for files that do not state it.")
    ] = None,
    preset: Annotated[
        str, typer.Option("--preset", metavar="laptop|paper", help="Sizes of models and length of training.")
    ] = "laptop",
    seed: Annotated[int, typer.Option("--seed", help="Seed of everything random.")] = 0,
    budget: Annotated[int, typer.Option("--budget", help="Answers per round.")] = 50,
    vae_config: Annotated[
        Optional[list[Path]],
        typer.Option("--vae-config", metavar="FILE", help="Published YAML with a TWOSTREAM: block; may be repeated."),
    ] = None,
    set_: Overrides = None,
    debug: Debug = False,
) -> None:
    """Make a project. Checks the volumes, fixes the boxes and writes twostream.yaml."""
    from twostream.project.create import create_project
    from twostream.volume.grey import parse_window

    given: dict[str, Any] = {"task": task, "image": image, "labels": labels}
    given |= {"labels_box": labels_box or None, "val_box": val_box, "test_box": test_box}
    if recipe is not None or data is not None:
        from twostream.project.recipes import recipe_arguments

        given = recipe_arguments(recipe, data, preset=preset, given=given)
    sources: dict[str, Any] = {"probability": probability, "segmentation": segmentation, "objects": objects}
    _check_init(given, sources)
    inputs: list[Any] = []
    project = create_project(
        directory,
        on_inputs=inputs.append,
        **given,
        **sources,
        labels_post=labels_post,
        labels_kind=_label_kind(labels_kind),
        ignore_value=ignore_value,
        window=None if window is None else parse_window(window),
        voxel_size_nm=_voxel_size_nm(voxel_size),
        preset=preset,
        seed=seed,
        budget=budget,
        overrides=[*_published_overrides(vae_config, preset, given), *(set_ or [])],
    )
    _print_inputs(directory, inputs[0], project)
    _print_new_project(directory, project)


def _label_kind(text: str | None) -> Any:
    """The kind of labels that --labels-kind names; None where it was not given."""
    from twostream.candidates.label_scan import KINDS

    if text is not None and text not in KINDS:
        raise InputError(f"--labels-kind is {text!r}; expected one of {', '.join(KINDS)}.")
    return text


def _check_init(given: dict[str, Any], sources: dict[str, Any]) -> None:
    """Raise InputError where ``init`` lacks an option."""
    if given["image"] is None or given["task"] is None:
        raise InputError("init needs --image URI and --task NAME, or --recipe NAME and --data DATA_DIR.")
    if given["labels"] is None and not any(sources.values()):
        raise InputError(
            "init needs --labels URI: S is trained on them. Pass a volume of the image's extent, 0 where unlabelled; "
            "or bring another model's output in place of S: --probability URI, --segmentation URI or --objects TABLE."
        )


def _published_overrides(paths: list[Path] | None, preset: str, given: dict[str, Any]) -> list[str]:
    """Overrides from configuration files of the published code; what was read of each is printed."""
    if not paths:
        return []
    from twostream.models.streams.published import read_published
    from twostream.project.settings import PRESETS, preset_settings

    task: str = given["task"]
    settings = given.get("settings") or (preset_settings(preset, task) if preset in PRESETS else {})
    reading = read_published(paths, task, settings)
    print("\n".join(reading.lines))
    return reading.overrides


def _print_inputs(directory: Path, inputs: Any, project: Project) -> None:
    """Print what was understood of image and labels; where something is questioned, a picture is written as well."""
    from twostream.candidates.sources import segmentation_labels
    from twostream.project.look import look_at_inputs, write_picture

    source, segmentation = project.source, None
    if source is not None and source.kind == "segmentation":
        segmentation = segmentation_labels(source, project.image, project.task)
    seen = look_at_inputs(inputs, project.task, segmentation)
    print("\n".join(seen.understood.printed))
    if seen.understood.questions:
        write_picture(seen.picture, directory / "inputs.png")
        print(f"picture of what is questioned: {directory / 'inputs.png'}")


def _print_new_project(directory: Path, project: Project) -> None:
    """Print what ``init`` has understood, and the next command."""
    boxes, source = project.boxes, project.config.source
    print(
        f"{directory / 'twostream.yaml'} written: {project.task.name}, {project.image.shape_zyx} voxels "
        f"of {project.image.voxel_size_nm} nm (Z, Y, X)"
    )
    print(
        f"labels {'boxes' if len(boxes.labels) > 1 else 'box'} {boxes.labels_text} "
        f"· validation box {boxes.val or 'none'} "
        f"· test box {boxes.test or 'none; audits, drawn at random, estimate the accuracy'}"
    )
    if source:
        print(f"{source.name} {source.uri} in place of S: only the streams are trained")
    if boxes.test and not boxes.labels:
        print("there are no labels, so the test box is scored only in runs with --truth")
    if project.leaves_nothing_to_ask:
        print("Labels boxes and the test box with its guard cover the whole image: S can be trained and scored, but no")
        print("candidate can be asked about. To ask, make a project with a smaller --labels-box.")
        print(f"next, to train and score S: {_command('run', directory, '--rounds', 0)}")
        return
    print(f"next, if people answer: {_command('run', directory)}")
    print(
        f"next, if a simulated annotator answers by the labels at URI: {_command('run', directory, '--truth', 'URI')}"
    )


data_app = _App(no_args_is_help=True, help="List and fetch public data sets.")
app.add_typer(data_app, name="data")


@data_app.command("list")
@_errors_as_sentences
def data_list(debug: Debug = False) -> None:
    """List the public data sets that can be fetched by name."""
    from twostream.volume.datasets import table

    print(table())


@data_app.command("get")
@_errors_as_sentences
def data_get(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the set; see `twostream data list`.")],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for the HDF5 files.")],
    url: Annotated[
        Optional[str],
        typer.Option("--url", metavar="URL", help="Another address of the folder that holds the set's files."),
    ] = None,
    voxel_size: Annotated[
        Optional[str], typer.Option("--voxel-size", metavar="Z,Y,X", help="In nm, in place of the set's own.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Fetch a public data set and write it as HDF5 files; files that exist are not fetched again."""
    from twostream.volume.datasets import find_dataset, get_dataset

    paths = get_dataset(name, directory, url=url, voxel_size_nm=_voxel_size_nm(voxel_size))
    print("\n".join(map(str, paths)))
    init_command = _command("init", "PROJECT", "--recipe", find_dataset(name).recipe, "--data", directory)
    print(f"next, with a folder of your choice as PROJECT: {init_command}")


@app.command()
@_errors_as_sentences
def run(
    directory: Dir,
    rounds: Annotated[
        Optional[int], typer.Option("--rounds", metavar="N", help="Rounds in all, counted from the first.")
    ] = None,
    truth: Truth = None,
    image: Annotated[Optional[str], _uri("--image", "Where the image is now, if it was moved.")] = None,
    labels: Annotated[Optional[str], _uri("--labels", "Where the labels are now, if they were moved.")] = None,
    accept_changed: Annotated[
        bool, typer.Option("--accept-changed", help="Go on although image, labels or source hold something else now.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Do every step that is due, and stop where people must answer. A run that was killed continues when repeated."""
    from twostream.project.project import Project
    from twostream.project.relocate import relocate
    from twostream.rounds.loop import run as run_loop

    project = Project(directory)
    if moved := {name: uri for name, uri in (("image", image), ("labels", labels)) if uri is not None}:
        relocate(project, accept=accept_changed, **moved)
    outcome = run_loop(project, rounds=rounds, truth_uri=truth, accept_changed=accept_changed)
    if outcome.finished:
        from twostream.project.status import end_lines
        from twostream.report import write_report

        print(f"done: {outcome.round} rounds asked and answered; report: {write_report([Project(directory)])}")
        print("\n".join(end_lines(project, outcome.round)))
    else:
        from twostream.project.status import answering_lines

        print(f"round {outcome.round} waits for {outcome.num_open} answers. To answer:")
        print("\n".join(answering_lines(project, outcome.round, rounds)))


@app.command()
@_errors_as_sentences
def train(
    directory: Dir,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what would be trained: parameters, crop, steps, memory.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Train the segmentation model S on the labels boxes (round 0)."""
    from twostream.project.project import Project
    from twostream.rounds.loop import run_step

    if dry_run:
        from twostream.rounds.train import describe_training

        print("\n".join(describe_training(Project(directory)).lines()))
        return
    round_number, done = run_step(Project(directory), "train")
    print(f"round {round_number}: train {'done' if done else 'had been done already'}")


@app.command()
@_errors_as_sentences
def tune(
    directory: Dir,
    write: Annotated[bool, typer.Option("--write", help="Write the best setting into twostream.yaml.")] = False,
    debug: Debug = False,
) -> None:
    """Try thresholds and decoding settings. They are scored on the validation box and listed, best first."""
    from twostream.project.project import Project
    from twostream.rounds.tune import tune_project

    print("\n".join(tune_project(Project(directory), write=write)))


def _add_step_command(name: str, text: str) -> None:
    """Add a command that does one step of the current round."""

    @app.command(name, help=text)
    @_errors_as_sentences
    def command(directory: Dir, debug: Debug = False) -> None:
        from twostream.project.project import Project
        from twostream.rounds.loop import run_step

        round_number, done = run_step(Project(directory), name)
        print(f"round {round_number}: {name} {'done' if done else 'had been done already'}")


for _name, _text in (
    ("predict", "Apply S to the whole image."),
    ("propose", "Turn the probability into candidates."),
    ("embed", "Encode every candidate with both streams. Round 0 trains the streams first."),
    ("suggest", "Score the round, then choose the next batch of queries."),
    ("refit", "Fine-tune S and the unsupervised stream on the answers. This opens the next round."),
):
    _add_step_command(_name, _text)


@app.command()
@_errors_as_sentences
def answer(
    directory: Dir,
    table: Annotated[
        Path, typer.Argument(metavar="TABLE", help="CSV, TSV, XLSX or JSONL with the columns query and kind.")
    ],
    annotator: Annotated[str, typer.Option("--annotator", help="Name of the person who answered.")] = os.environ.get(
        "USER", "annotator"
    ),
    false_is: Annotated[
        Optional[str],
        typer.Option("--false-is", metavar="nothing|shape", help="What FALSE, 0 or no means in the column kind."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Record the answers of a table that `twostream export --what queries` has written and a person has filled in.

    Kinds of answers: true, nothing (no object there), shape (an object, but merged, split or badly bounded), swapped
    (pre and post exchanged), unsure, skipped. A row without a kind stays open; a row that was recorded before is passed
    over; a changed kind or reason corrects the answer. An object that was missed is a row of the kind missed without a
    query, with its place in z, y, x (voxels of the image) or z_nm, y_nm, x_nm, and optionally radius_nm.
    """
    from twostream.project.answer_tables import read_answers
    from twostream.project.project import Project
    from twostream.project.status import next_line

    project = Project(directory)
    print("\n".join(read_answers(project, table, annotator, false_is=false_is).lines()))
    print(next_line(project))


@app.command()
@_errors_as_sentences
def fork(
    directory: Dir,
    target: Annotated[Path, typer.Argument(metavar="NEW", help="Folder to create.")],
    set_: Overrides = None,
    debug: Debug = False,
) -> None:
    """Make a second project that shares round 0. To compare strategies, pass --set query.strategy=random."""
    from twostream.project.create import fork_project
    from twostream.project.project import Project

    fork_project(Project(directory), target, set_ or [])
    print(f"{target} shares round 0 of {directory}")
    print(f"next: {_command('run', target)}")


@app.command()
@_errors_as_sentences
def look(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="URI of an image.")],
    other: Annotated[
        Optional[str],
        typer.Argument(metavar="[LABELS|SEGMENTATION|TABLE]", help="Labels, a segmentation or a table of objects."),
    ] = None,
    task: Annotated[
        str,
        typer.Option("--task", metavar="mitochondria|cleft|polarity", help="Label convention: polarity has two sides."),
    ] = "mitochondria",
    voxel_size: Annotated[
        Optional[str], typer.Option("--voxel-size", metavar="Z,Y,X", help="In nm, for files that do not state it.")
    ] = None,
    labels_post: Annotated[
        Optional[str], _uri("--labels-post", "The postsynaptic side, if it is another volume.")
    ] = None,
    labels_kind: Annotated[
        Optional[str],
        typer.Option(
            "--labels-kind", metavar="instances|mask|sides|points", help="What labels mean, if found out wrongly."
        ),
    ] = None,
    ignore_value: Annotated[
        Optional[int], typer.Option("--ignore-value", help="Label of voxels that are neither object nor background.")
    ] = None,
    window: Annotated[
        Optional[str], typer.Option("--window", metavar="LOW:HIGH", help="Grey values shown as 0 and 255.")
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="PNG", help="The picture; a file that is there is replaced.")
    ] = Path("look.png"),
    debug: Debug = False,
) -> None:
    """Print what is understood of files, and draw sections with what lies on them. `init` makes the same checks."""
    from twostream.project.inputs import Given
    from twostream.project.look import look as look_at
    from twostream.project.look import write_picture
    from twostream.volume.grey import parse_window

    given = Given(
        image,
        other,
        labels_post,
        _voxel_size_nm(voxel_size),
        None if window is None else parse_window(window),
        _label_kind(labels_kind),
        ignore_value,
    )
    seen = look_at(given, task)
    write_picture(seen.picture, output)
    print("\n".join(seen.understood.printed))
    print(f"picture: {output}")


@app.command()
@_errors_as_sentences
def status(directory: Dir, debug: Debug = False) -> None:
    """Show what is done and what comes next."""
    from twostream.project.project import Project
    from twostream.project.status import status_lines

    print("\n".join(status_lines(Project(directory))))


@app.command()
@_errors_as_sentences
def repair(directory: Dir, debug: Debug = False) -> None:
    """Restore settings, ledger and answers that are missing or damaged, and files of rounds that are gone."""
    from twostream.project.project import Project
    from twostream.project.repair import repair as repair_project
    from twostream.project.round_files import missing_files

    done = repair_project(directory)
    for line in done:
        print(line)
    project = Project(directory)
    if missing_files(project):
        from twostream.rounds.remake import remake

        made = remake(project)
        print("\n".join(made))
    elif not done:
        print(f"{directory}: nothing is to be done; settings, ledger, answers and the files of all rounds are there.")


@app.command()
@_errors_as_sentences
def report(
    directory: Dir,
    beside: Annotated[
        Optional[list[Path]],
        typer.Option("--beside", metavar="DIR", help="Another project to compare with; may be repeated."),
    ] = None,
    output: Annotated[
        Optional[Path], typer.Option("-o", "--output", metavar="FILE", help="In place of report.html in DIR.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Write report.html, a self-contained page of scores, queries and times."""
    from twostream.project.project import Project
    from twostream.report import write_report

    print(write_report([Project(directory), *(Project(path) for path in beside or [])], output))


@app.command()
@_errors_as_sentences
def export(
    directory: Dir,
    what: Annotated[
        str, typer.Option("--what", metavar="answers|queries|candidates|segmentation|dataset", help="What to write.")
    ],
    output: Annotated[str, typer.Option("-o", "--output", metavar="PATH", help="New file, volume or folder.")],
    format_: Annotated[
        Optional[str],
        typer.Option(
            "--format",
            metavar="csv|jsonl|parquet|zarr|hdf5|precomputed",
            help="Default: by the ending of PATH.",
        ),
    ] = None,
    pictures: Annotated[
        bool, typer.Option("--pictures", help="With queries: a folder with the table and a picture of each query.")
    ] = False,
    min_probability: MinProbability = None,
    debug: Debug = False,
) -> None:
    """Write results to files. Tables: CSV, JSONL or Parquet; volumes: OME-Zarr or HDF5; a data set: a folder."""
    from twostream.project.export import export as export_
    from twostream.project.project import Project

    print(export_(Project(directory), what, output, format_, min_probability, pictures=pictures))


@app.command()
@_errors_as_sentences
def merge(
    directories: Annotated[list[Path], typer.Argument(metavar="A B", help="Projects of one image, each of a task.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT", help="Folder to create.")],
    format_: Annotated[
        Optional[str], typer.Option("--format", metavar="zarr|precomputed", help="Of the volumes; default: zarr.")
    ] = None,
    min_probability: MinProbability = None,
    debug: Debug = False,
) -> None:
    """Write the curated data sets of several projects of one image as one: one table, a segmentation for each task."""
    from twostream.project.merge import merge_projects
    from twostream.project.project import Project

    print(merge_projects([Project(path) for path in directories], output, format_, min_probability))


@app.command()
@_errors_as_sentences
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


def _voxel_size_nm(text: str | None) -> list[float] | None:
    """(z, y, x) nm from the text of --voxel-size; None where it was not given."""
    if text is None:
        return None
    try:
        values = [float(v) for v in text.split(",")]
        if len(values) != 3:
            raise ValueError
    except ValueError:
        raise InputError(f"--voxel-size is {text!r}; expected Z,Y,X in nanometres, for example 40,4,4.") from None
    return values
