"""The loop: it does the next step until all rounds are done or somebody must answer.

Knows the functions of the steps and who answers; must not know what a step does. The order of the steps is in
``project/project.py``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from twostream.base import progress
from twostream.base.errors import ProjectError
from twostream.candidates.truth import Truth
from twostream.models.training import use_threads
from twostream.project.fingerprint import check_inputs
from twostream.project.project import LEDGER_NAME, Detail, Project
from twostream.project.repair import keep_copy
from twostream.project.round_files import check_files
from twostream.project.status import num_left_to_ask
from twostream.project.tables import export_answers
from twostream.rounds.annotator import SimulatedAnnotator
from twostream.rounds.embed import embed_step
from twostream.rounds.predict import predict_step
from twostream.rounds.propose import propose_step
from twostream.rounds.refit import refit_step
from twostream.rounds.score import score_step
from twostream.rounds.suggest import suggest_step
from twostream.rounds.train import train_step

STEPS: dict[str, Callable[[Project, int], Detail]] = {
    "train": train_step,
    "refit": refit_step,
    "predict": predict_step,
    "propose": propose_step,
    "embed": embed_step,
    "suggest": suggest_step,
}
"""{name of a step: its function}. Missing are `score`, which needs the truth as well, and `answer`."""

KEPT_AFTER = ("score", "suggest")
"""Steps after which the ledger is copied, as it is after `answer`: a round ends with `score` or `answer`, and what
people answer after `suggest` can be restored only if the copy holds their queries."""


@dataclass(frozen=True)
class Outcome:
    """Where a run stopped.

    Attributes:
        round: the round of the next step.
        step: the next step.
        num_open: number of queries and windows without an answer.
        finished: whether all rounds are done, or no candidate is left to ask.
    """

    round: int
    step: str
    num_open: int
    finished: bool


def run(
    project: Project, *, rounds: int | None = None, truth_uri: str | None = None, accept_changed: bool = False
) -> Outcome:
    """Do every step that is due, until the rounds are done, no candidate is left to ask, or queries wait for a person.

    Args:
        project: the project.
        rounds: number of batches to ask in total, including those of earlier runs; None takes ``rounds`` of the
            settings. After N batches N + 1 rounds have scores.
        truth_uri: labels of the whole image. With them, a simulated annotator answers the queries.
        accept_changed: whether an image, labels or a source whose content has changed are meant.

    Raises:
        ProjectError: another process works in the project, its image, labels or source were replaced, or S proposes no
            candidates.
        InputError: a volume or table of the project cannot be read, or does not fit the image.
        TrainingError: the loss is no longer a finite number.
    """
    wanted = project.config.rounds if rounds is None else rounds
    if wanted < 0:
        raise ProjectError(f"--rounds is {wanted}; expected at least 0.")
    with project.locked():
        project.check_frozen()
        check_inputs(project, accept=accept_changed)
        check_files(project)
        truth = open_truth(project, truth_uri) if truth_uri else None
        while True:
            round_number, step = project.next_step()
            if step == "suggest" and (round_number >= wanted or not num_left_to_ask(project, round_number)):
                return Outcome(round_number, step, 0, finished=True)
            if step == "answer" and not project.path(round_number, LEDGER_NAME).exists():
                keep_copy(project, round_number)  # killed before, or a project of an older version
            if step == "answer" and not _answer(project, round_number, truth):
                return Outcome(round_number, step, project.ledger.counts().open, finished=False)
            if step != "answer":
                perform(project, round_number, step, truth)


def run_step(project: Project, step: str, *, truth_uri: str | None = None) -> tuple[int, bool]:
    """Do the step called ``step`` if it is due.

    `score` has no command of its own: if it is due, `suggest` does it first.

    Args:
        project: the project.
        step: name of the step.
        truth_uri: labels of the whole image, for `score`.

    Returns:
        The round, and whether the step was done now; False if it had been done before.

    Raises:
        ProjectError: another step must be done first, or another process works in the project.
    """
    with project.locked():
        project.check_frozen()
        check_inputs(project)
        check_files(project)
        round_number, due = project.next_step()
        if due == "score" and step in ("suggest", "score"):
            truth = open_truth(project, truth_uri) if truth_uri else None
            perform(project, round_number, "score", truth)
            if step == "score":
                return round_number, True
            due = "suggest"
        if due == "answer" and step == "refit" and not project.ledger.counts().open:
            _finish_answer_step(project, round_number)
            round_number, due = project.next_step()
        if due == step:
            perform(project, round_number, step, None)
            return round_number, True
        if (round_number, step) in project.ledger.finished_steps():
            return round_number, False
    waiting = f" ({project.ledger.counts().open} queries wait for answers)" if due == "answer" else ""
    raise ProjectError(
        f"{step} cannot be done yet: the next step of round {round_number} is {due}{waiting}. Do that first, or let "
        f"`{project.command('run')}` do every step."
    )


def open_truth(project: Project, uri: str) -> Truth:
    """The labels at ``uri`` as truth.

    Raises:
        InputError: they cannot be read, do not fit the image, or break the label convention of the task.
    """
    labels = project.open_truth(uri)
    for line in (*labels.notes, *labels.questions):
        progress.say(f"  {line}")
    return Truth(labels.volume, labels.ignore, project.task)


def perform(project: Project, round_number: int, step: str, truth: Truth | None) -> None:
    """Do one step other than `answer`, and record in the ledger that it is done and how long it took."""
    use_threads(project.config.num_threads)
    project.open_round(round_number)
    progress.say(f"round {round_number}: {step}")
    start = time.monotonic()
    detail = score_step(project, round_number, truth) if step == "score" else STEPS[step](project, round_number)
    project.ledger.finish_step(round_number, step, time.monotonic() - start, detail)
    if step in KEPT_AFTER:
        keep_copy(project, round_number)


def _answer(project: Project, round_number: int, truth: Truth | None) -> bool:
    """The step `answer`. With ``truth`` the simulated annotator answers now.

    Returns:
        Whether the step is done: no query and no window is open.
    """
    if truth is not None and project.ledger.counts().open:
        settings = project.config.annotator
        annotator = SimulatedAnnotator(
            truth,
            error_rate=settings.error_rate,
            seconds_per_answer=settings.seconds_per_answer,
            corrects=settings.corrects,
            seconds_per_correction=settings.seconds_per_correction,
            seed=project.seed(0, "annotator"),
            proposed=lambda number: project.candidates(number).proposed(),
        )
        num_answers = annotator.answer_all(project.ledger)
        progress.say(f"round {round_number}: {num_answers} queries answered by the simulated annotator")
    if project.ledger.counts().open:
        return False
    _finish_answer_step(project, round_number)
    return True


def _finish_answer_step(project: Project, round_number: int) -> None:
    """Export the answers of a round, and record that its step `answer` is done."""
    export_answers(project, round_number)
    project.ledger.finish_step(round_number, "answer", 0.0, {})
    keep_copy(project, round_number)
