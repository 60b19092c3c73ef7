"""Commands that do steps of the loop: run, and every step by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from twostream.cli.app import (
    Debug,
    Dir,
    Truth,
    app,
    errors_as_sentences,
    uri_option,
)

if TYPE_CHECKING:
    pass


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
@errors_as_sentences
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


def _add_step_command(name: str, text: str) -> None:
    """Add a command that does one step of the current round."""

    @app.command(name, help=text)
    @errors_as_sentences
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
