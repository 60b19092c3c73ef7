"""The loop: the next step that is due, until the rounds are done or a person must answer.

Knows the order of steps and who answers; what a step does is in ``steps.py``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from twostream.base import progress
from twostream.base.errors import ProjectError
from twostream.candidates.truth import Truth
from twostream.models.training import use_threads
from twostream.project.project import Detail, Project
from twostream.project.tables import export_answers
from twostream.rounds.annotator import SimulatedAnnotator
from twostream.rounds.embed import embed_step
from twostream.rounds.predict import predict_step
from twostream.rounds.propose import propose_step
from twostream.rounds.refit import refit_step
from twostream.rounds.score import score_step
from twostream.rounds.suggest import suggest_step
from twostream.rounds.train import train_step
from twostream.volume import open_ignore_mask

STEPS: dict[str, Callable[[Project, int], Detail]] = {
    "train": train_step,
    "refit": refit_step,
    "predict": predict_step,
    "propose": propose_step,
    "embed": embed_step,
    "suggest": suggest_step,
}
"""What each step of a round does; ``score`` takes the truth as well."""


@dataclass(frozen=True)
class Outcome:
    """Where a run stopped.

    Attributes:
        round: the round of the next step.
        step: the next step.
        num_open: queries that wait for an answer.
        finished: all rounds are done.
    """

    round: int
    step: str
    num_open: int
    finished: bool


def run(project: Project, *, rounds: int | None = None, truth_uri: str | None = None) -> Outcome:
    """Do every step that is due.

    Args:
        project: where.
        rounds: batches to ask in all, those of earlier runs included; None takes the configuration's.
            N batches leave the metrics of N + 1 rounds.
        truth_uri: labels of the whole image; given, a simulated annotator answers by them.

    Raises:
        ProjectError: another process is at work, or nothing is left to ask.
    """
    wanted = project.config.rounds if rounds is None else rounds
    if wanted < 0:
        raise ProjectError(f"--rounds is {wanted}; expected a number of at least 0.")
    with project.locked():
        truth = open_truth(project, truth_uri) if truth_uri else None
        while True:
            round_number, step = project.next_step()
            if step == "suggest" and round_number >= wanted:
                return Outcome(round_number, step, 0, finished=True)
            if step == "answer" and not _answered(project, round_number, truth):
                return Outcome(round_number, step, len(project.ledger.open_queries()), finished=False)
            if step != "answer":
                perform(project, round_number, step, truth)


def run_step(project: Project, step: str, *, truth_uri: str | None = None) -> tuple[int, bool]:
    """Do the steps up to and with the next one called ``step``, if it is the next one due.

    Returns:
        The round, and whether the step was done now (False: it had been done already).

    Raises:
        ProjectError: another step must come first.
    """
    with project.locked():
        round_number, due = project.next_step()
        if due == "score" and step in ("suggest", "score"):
            truth = open_truth(project, truth_uri) if truth_uri else None
            perform(project, round_number, "score", truth)
            due = "suggest" if step == "suggest" else due
            if step == "score":
                return round_number, True
        if due == "answer" and step == "refit" and not project.ledger.open_queries():
            _close_answers(project, round_number)
            round_number, due = project.next_step()
        if due == step:
            perform(project, round_number, step, None)
            return round_number, True
        if (round_number, step) in project.ledger.finished_steps():
            return round_number, False
    wait = f" ({len(project.ledger.open_queries())} queries wait for answers)" if due == "answer" else ""
    raise ProjectError(
        f"{step} is not due: the next step of round {round_number} is {due}{wait}. Run that first, or `twostream run`."
    )


def open_truth(project: Project, uri: str) -> Truth:
    """The truth at ``uri``, checked against the image."""
    labels = project.open_truth(uri)
    return Truth(labels, open_ignore_mask(uri, labels.voxel_size_nm), project.task)


def perform(project: Project, round_number: int, step: str, truth: Truth | None) -> None:
    """One step, timed, and recorded as done."""
    use_threads(project.config.num_threads)
    project.open_round(round_number)
    progress.say(f"round {round_number}: {step}")
    start = time.monotonic()
    detail = score_step(project, round_number, truth) if step == "score" else STEPS[step](project, round_number)
    project.ledger.finish_step(round_number, step, time.monotonic() - start, detail)


def _answered(project: Project, round_number: int, truth: Truth | None) -> bool:
    """Whether the batch is answered; a simulated annotator answers it now."""
    if truth is not None and project.ledger.open_queries():
        settings = project.config.annotator
        annotator = SimulatedAnnotator(
            truth,
            error_rate=settings.error_rate,
            seconds_per_answer=settings.seconds_per_answer,
            corrects=settings.corrects,
            seconds_per_correction=settings.seconds_per_correction,
            seed=project.seed(0, "annotator"),
        )
        progress.say(
            f"round {round_number}: {annotator.answer_all(project.ledger)} queries answered by the simulated annotator"
        )
    if project.ledger.open_queries():
        return False
    _close_answers(project, round_number)
    return True


def _close_answers(project: Project, round_number: int) -> None:
    export_answers(project, round_number)
    project.ledger.finish_step(round_number, "answer", 0.0, {})
