"""Commands that do steps of the loop: run, and every step by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from twostream.base.errors import InputError
from twostream.cli.app import (
    Cluster,
    Debug,
    Dir,
    MemorySize,
    Truth,
    VoxelSizeText,
    Window,
    Workers,
    app,
    errors_as_sentences,
    memory_of,
    uri_option,
    voxel_size_of,
)


@app.command()
@errors_as_sentences
def run(
    directory: Dir,
    rounds: Annotated[
        Optional[int], typer.Option("--rounds", metavar="N", help="Rounds in all, counted from the first.")
    ] = None,
    truth: Truth = None,
    image: Annotated[Optional[str], uri_option("--image", "Where the image is now, if it was moved.")] = None,
    labels: Annotated[Optional[str], uri_option("--labels", "Where the labels are now, if they were moved.")] = None,
    accept_changed: Annotated[
        bool, typer.Option("--accept-changed", help="Go on although image, labels or source hold something else now.")
    ] = False,
    cluster: Cluster = None,
    workers: Workers = None,
    memory: MemorySize = None,
    debug: Debug = False,
) -> None:
    """Do every step that is due, and stop where people must answer. A run that was killed continues when repeated."""
    from twostream.project.project import Project
    from twostream.project.relocate import relocate
    from twostream.rounds.loop import run as run_loop
    from twostream.volume.cluster import open_executor

    project = Project(directory)
    if moved := {name: uri for name, uri in (("image", image), ("labels", labels)) if uri is not None}:
        relocate(project, accept=accept_changed, **moved)
    project.memory_limit = limit = memory_of(memory)
    with open_executor(cluster, workers, limit) as project.executor:
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
@errors_as_sentences
def train(
    directory: Dir,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what would be trained: parameters, crop, steps, memory.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Train the segmentation model S on the labels boxes (round 0)."""
    if dry_run:
        from twostream.project.project import Project
        from twostream.rounds.train import describe_training

        print("\n".join(describe_training(Project(directory)).lines()))
        return
    _do_step(directory, "train")


@app.command()
@errors_as_sentences
def tune(
    directory: Dir,
    write: Annotated[bool, typer.Option("--write", help="Write the best setting into twostream.yaml.")] = False,
    debug: Debug = False,
) -> None:
    """Try thresholds and decoding settings. They are scored on the validation box and listed, best first."""
    from twostream.project.project import Project
    from twostream.rounds.tune import tune_project

    print("\n".join(tune_project(Project(directory), write=write)))


@app.command()
@errors_as_sentences
def predict(
    directory: Annotated[Optional[Path], typer.Argument(metavar="[DIR]", help="The project folder.")] = None,
    model: Annotated[
        Optional[Path], typer.Option("--model", metavar="CARD", help="card.json of a finished model, or its folder.")
    ] = None,
    image: Annotated[Optional[str], uri_option("--image", "With --model: the image to predict.")] = None,
    output: Annotated[
        Optional[Path], typer.Option("-o", "--output", metavar="OUT", help="With --model: folder to create.")
    ] = None,
    voxel_size: VoxelSizeText = None,
    window: Window = None,
    engine: Annotated[
        Optional[str],
        typer.Option("--engine", metavar="torch|onnx", help="With --model: what computes it; torch where it is."),
    ] = None,
    threads: Annotated[
        Optional[int], typer.Option("--threads", metavar="N", help="With --model: threads; one per core.", min=1)
    ] = None,
    cluster: Cluster = None,
    workers: Workers = None,
    memory: MemorySize = None,
    debug: Debug = False,
) -> None:
    """Apply S to the whole image of a project; or, with --model, a finished model to any image."""
    if model is None:
        others = (image, output, voxel_size, window, engine, threads)
        if directory is None or any(value is not None for value in others):
            raise InputError(
                "predict takes a project folder, or --model CARD --image URI -o OUT for an image outside of a project."
            )
        _do_step(directory, "predict", cluster, workers, memory)
        return
    if directory is not None or image is None or output is None:
        raise InputError("predict --model CARD needs --image URI and -o OUT, and takes no project folder.")
    if engine not in (None, "torch", "onnx"):
        raise InputError(f"--engine is {engine!r}; expected torch or onnx.")
    from twostream.models.segmentation.apply import apply_model, open_image
    from twostream.models.segmentation.card import Model
    from twostream.volume.cluster import open_executor
    from twostream.volume.grey import parse_window

    found = Model(model)
    opened = open_image(image, voxel_size_of(voxel_size), None if window is None else parse_window(window))
    chosen: Any = engine
    limit = memory_of(memory)
    with open_executor(cluster, workers, limit) as executor:
        settings: dict[str, Any] = {"engine": chosen, "num_threads": threads}
        print(apply_model(found, opened, output, executor=executor, memory_limit=limit, **settings))


@app.command()
@errors_as_sentences
def finish(
    directory: Dir,
    license_: Annotated[
        str, typer.Option("--license", metavar="TEXT", help="Under which the model may be used, for its card.")
    ] = "",
    truth: Annotated[
        Optional[str], uri_option("--truth", "Labels of the test box, if those of the project do not cover it.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Train the final model on labels and all answers, judge it, and write it with its card and the data set."""
    from twostream.project.project import Project
    from twostream.rounds.finish import finish as finish_project

    print("\n".join(finish_project(Project(directory), license_=license_, truth_uri=truth)))


@app.command()
@errors_as_sentences
def propose(
    directory: Dir,
    cluster: Cluster = None,
    workers: Workers = None,
    memory: MemorySize = None,
    debug: Debug = False,
) -> None:
    """Turn the probability into candidates."""
    _do_step(directory, "propose", cluster, workers, memory)


def _do_step(
    directory: Path, name: str, cluster: str | None = None, workers: int | None = None, memory: str | None = None
) -> None:
    """Do one step of the current round, if it is due."""
    from twostream.project.project import Project
    from twostream.rounds.loop import run_step
    from twostream.volume.cluster import open_executor

    project = Project(directory)
    project.memory_limit = limit = memory_of(memory)
    with open_executor(cluster, workers, limit) as project.executor:
        round_number, done = run_step(project, name)
    print(f"round {round_number}: {name} {'done' if done else 'had been done already'}")


def _add_step_command(name: str, text: str) -> None:
    """Add a command that does one step of the current round."""

    @app.command(name, help=text)
    @errors_as_sentences
    def command(directory: Dir, debug: Debug = False) -> None:
        _do_step(directory, name)


for _name, _text in (
    ("embed", "Encode every candidate with both streams. Round 0 trains the streams first."),
    ("suggest", "Score the round, then choose the next batch of queries."),
    ("refit", "Fine-tune S and the unsupervised stream on the answers. This opens the next round."),
):
    _add_step_command(_name, _text)
