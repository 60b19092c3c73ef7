"""The command `status`: what is done, what comes next, and the criteria for stopping, as lines of text.

Knows the project and its ledger; must not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from twostream.base.errors import InputError
from twostream.models.segmentation.card import CARD_NAME, FINISHED, Model
from twostream.project.answer_tables import table_kinds
from twostream.project.lock import is_locked
from twostream.project.project import Project
from twostream.project.recall import recall_estimate, said
from twostream.query.stopping import (
    MIN_SHARED,
    STABLE,
    TARGET,
    WINDOW,
    Estimate,
    has_stabilised,
    is_right_enough,
    recent_agreement,
)
from twostream.task.answers import WINDOW_KINDS
from twostream.volume.stage import unfinished

SHOWN = (
    "candidate_recall",
    "candidate_accuracy",
    "roi_accuracy",
    "average_precision",
    "instance_f1",
    "foreground_iou",
    "curated_accuracy",
)
"""Scores that are printed; ``metrics.json`` and the report hold the others."""


def status_lines(project: Project) -> list[str]:
    """What the project is, the scores of each round, and what to do next, as lines for a terminal."""
    num_answers, seconds = project.ledger.spent()
    lines = [
        f"{project.config.task} in {project.config.image.uri}",
        f"strategy {project.config.query.strategy}, {project.config.query.budget} answers a round, "
        f"{num_answers} given so far ({seconds / 60:.1f} minutes of annotation)",
    ]
    if source := project.config.source:
        lines.insert(1, f"{source.name} {source.uri} in place of S")
    if model := project.config.model:
        lines.insert(1, f"S began as the finished model {model.uri}")
    scored = project.ledger.scores()
    for done, metrics in scored.items():
        scores = {name: metrics["scores"].get(name) for name in SHOWN}
        known = [f"{name} {value:.3f}" for name, value in scores.items() if value is not None]
        why = "not scored: no truth" if project.config.boxes.test else "not scored: no test box"
        lines.append(f"round {done}: {metrics['num_candidates']} candidates; {', '.join(known) or why}")
        if "audit" in metrics:
            low, high = metrics["audit"]["interval"]
            lines.append(
                f"  accuracy by audit: {low:.2f} to {high:.2f} ({metrics['audit']['num_audited']} audited); "
                f"candidate recall{_recall(metrics['candidate_recall_on_labels'])}"
            )
        if sentence := refit_sentence(metrics):
            lines.append(f"  {sentence}")
        lines += stopping_lines(scored, done)
    if estimate := recall_estimate(project):
        lines.append(said(estimate.row()))
    return [*lines, *_finished_lines(project, num_answers), *_unfinished_lines(project), next_line(project)]


def _unfinished_lines(project: Project) -> list[str]:
    """How far the step is that is being done in blocks, or was interrupted, as a line; empty where none is."""
    round_number, step = project.next_step()
    stage = unfinished(project.path(round_number, f"{step}.partial"))
    if stage is None:
        return []
    done = f"{stage.num_done} of {stage.num_blocks} blocks are done"
    return [f"round {round_number}: {stage.description}, {done}, the last one {_time_since(stage.seconds)} ago"]


def _time_since(seconds: float) -> str:
    for size, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} seconds"


def _finished_lines(project: Project, num_answers: int) -> list[str]:
    """Which model was finished, and how many answers were given since, as a line; empty where none was."""
    folder = project.root / FINISHED
    if not (folder / CARD_NAME).is_file():
        return []
    try:
        card = Model(folder).card
    except InputError as error:
        return [f"finished model: its card cannot be read: {error}"]
    since = num_answers - card.trained_on.get("num_answers", num_answers)
    news = f"; {since} answers were given since, and `{project.command('finish')}` takes them in" if since > 0 else ""
    return [f"finished model of {card.date}: {folder}{news}"]


REFIT_OUTCOMES = {
    "accepted": "{new} was taken",
    "blended": "{new} was blended with {old} (a share of {share:g})",
    "kept": "{new} was left, and {old} kept",
}
"""{outcome of judging a refit: as a sentence}."""


def refit_sentence(metrics: Mapping[str, Any]) -> str:
    """What became of a round's refit, and why; "" where none was judged.

    Args:
        metrics: of the round.
    """
    judged = metrics.get("refit")
    return judged_sentence(judged, "the refitted S", "the one before") if judged else ""


def judged_sentence(judged: Mapping[str, Any], new_name: str, old_name: str) -> str:
    """What became of a trained S, and why.

    Args:
        judged: as ``rounds.judging.Choice.detail`` gives it.
        new_name, old_name: what the trained S and its predecessor are called.
    """
    share, errors = judged["share"], judged["errors"]
    what = REFIT_OUTCOMES[judged["outcome"]].format(new=new_name, old=old_name, share=share)
    if not errors:
        return (
            f"{what}: there was nothing to judge it by (no validation box, and fewer than two answers of one kind, "
            f"true or nothing)"
        )
    mixed = f", blended {errors[str(float(share))]:.4f}" if judged["outcome"] == "blended" else ""
    chances = judged.get("chances", {})
    chance = chances.get("1.0") or chances.get("0.0")  # beside the lowest error, which may be that of the new one
    give = f"; chance alone may make differences of {chance:.4f}" if chance else ""
    by = [f"{judged['num_held_out']} answers"] if judged["num_held_out"] else []
    by += [f"{n} objects of the validation box"] if (n := judged["num_validation_objects"]) else []
    return f"{what}: error {errors['1.0']:.4f}, before {errors['0.0']:.4f}{mixed}{give} (by {' and '.join(by)})"


def next_line(project: Project) -> str:
    """What to do next, in a line."""
    round_number, step = project.next_step()
    num_waiting = project.ledger.counts().open
    if step == "answer" and num_waiting:
        num_asked = len(project.ledger.query_lines(round_number)) + len(project.ledger.windows(round_number))
        return (
            f"round {round_number} waits for {num_waiting} of {num_asked} answers; "
            f"`{project.command('serve')}` opens them in the browser"
        )
    if step == "answer":
        return f"all queries of round {round_number} are answered; next: {project.command('run')}"
    if step == "suggest" and not num_left_to_ask(project, round_number):
        return f"no candidate is left to ask in round {round_number}; next: {_dataset_command(project)}"
    if step == "suggest" and round_number >= project.config.rounds:
        another = project.command("run", "--rounds", str(round_number + 1))
        final = "" if project.config.source else f", `{project.command('finish')}` trains the final model"
        return f"all {round_number} rounds are done; `{another}` asks another batch{final}"
    if is_locked(project.root):
        return f"next: {step} of round {round_number}; another process is at work in the project"
    return f"next: {step} of round {round_number}; `{project.command('run')}` does it"


def num_left_to_ask(project: Project, round_number: int) -> int:
    """Number of candidates that the step `suggest` of a round may choose from, or has chosen from."""
    if asked := [*project.ledger.query_lines(round_number), *project.ledger.windows(round_number)]:
        return len(asked)
    candidates = project.candidates(round_number).proposed()
    closed = [identity for identity, verdict in project.ledger.verdicts().items() if not verdict.askable]
    return int((candidates.column("in_pool").astype(bool) & ~np.isin(candidates.ids, closed)).sum())


def answering_lines(project: Project, round_number: int, rounds: int | None) -> list[str]:
    """How to answer the open queries of a round, as lines for a terminal; every command can be pasted.

    Args:
        project: the project.
        round_number: the round that waits.
        rounds: the option ``--rounds`` of the command that stopped here; None if it was not given.
    """
    folder = Path(f"{project.root.resolve().name}_queries_round_{round_number}")
    kinds = ", ".join(table_kinds(project.config.task))
    if project.ledger.open_windows():
        kinds += f"; of windows: {', '.join(WINDOW_KINDS)} (that page says how missed objects are marked)"
    more = () if rounds is None else ("--rounds", str(rounds))
    by_table = [
        project.command("export", "--what", "queries", "--pictures", "-o", str(folder)),
        f"look at {folder / 'index.html'} in a browser, fill in the column `kind` of {folder / 'queries.csv'}: {kinds}",
        project.command("answer", str(folder / "queries.csv")),
        project.command("run", *more),
    ]
    if folder.exists():  # exported before, and perhaps half filled in
        del by_table[0]
    return [
        f"in the browser: {project.command('serve')}",
        "or by a table:",
        *(f"{number}. {text}" for number, text in enumerate(by_table, start=1)),
    ]


def end_lines(project: Project, round_number: int) -> list[str]:
    """What may follow when all rounds are done or no candidate is left, as lines for a terminal."""
    num_left = num_left_to_ask(project, round_number)
    more = project.command("run", "--rounds", str(round_number + 1))
    return [
        f"next, to ask another batch ({num_left} candidates are left): {more}"
        if num_left
        else "no candidate is left to ask: all are answered, or lie in the labels box or near the test box",
        f"next, to write the curated data set: {_dataset_command(project)}",
        *(
            []
            if project.config.source
            else [f"next, to train the final model, with its card: {project.command('finish')}"]
        ),
    ]


def _dataset_command(project: Project) -> str:
    """The command that exports the curated data set to a folder that does not exist yet."""
    name = f"{project.root.resolve().name.replace('.', '_')}_dataset"  # without an ending, which `export` would refuse
    names = [name, *(f"{name}_{number}" for number in range(2, 1000))]
    return project.command("export", "--what", "dataset", "-o", next(name for name in names if not Path(name).exists()))


def agreements(scores: Mapping[int, Mapping[str, Any]], until: int) -> list[float | None]:
    """Agreement of each round's labels with the previous round's, for rounds 1 to ``until``; None if undefined."""
    return [(m.get("stopping") or {}).get("agreement") for r, m in sorted(scores.items()) if 1 <= r <= until]


def stopping_lines(scores: Mapping[int, Mapping[str, Any]], round_number: int) -> list[str]:
    """The criteria for stopping after a round, each with its advice. The program never stops by itself.

    Args:
        scores: {round: metrics}.
        round_number: the round.

    Returns:
        Lines for a terminal; empty for round 0 and for rounds that were scored by a version without these criteria.
    """
    criteria = scores[round_number].get("stopping")
    if not criteria:
        return []
    lines = [f"predictions {_stability(agreements(scores, round_number), criteria)}"]
    for name, whose in (("audited", "audited"), ("expected", "unanswered")):
        if criteria[name]:
            found = Estimate(**criteria[name])
            lines.append(
                f"{found.value:.3f} of {found.num} {whose} labels are right"
                f"{', the scorer believes' if name == 'expected' else ''} "
                f"({found.low:.3f} to {found.high:.3f}; stop when {TARGET:g} is sure): "
                f"{advice(is_right_enough(found))}"
            )
    return [f"  stopping: {line}" for line in lines]


def advice(fulfilled: bool) -> str:
    """The advice of a criterion for stopping."""
    return "may stop" if fulfilled else "go on"


def _stability(agreed: list[float | None], criteria: Mapping[str, Any]) -> str:
    """How well the newest labels agree with those of the round before, on average, and the advice that follows."""
    advised = advice(has_stabilised(agreed))
    if agreed[-1] is None:
        return f"cannot be compared with the round before ({why_no_agreement(criteria)}): {advised}"
    mean = recent_agreement(agreed)
    over = f", {mean:.3f} over {WINDOW} rounds (stop at {STABLE:g})" if mean == mean else ""
    over = over or f" (stop at {STABLE:g} over {WINDOW} rounds)"
    return f"agree {agreed[-1]:.3f} with the round before{over}: {advised}"


def why_no_agreement(criteria: Mapping[str, Any]) -> str:
    """Why the labels of a round cannot be compared with those of the round before.

    Args:
        criteria: "stopping" of the round's metrics, in which "agreement" is None.
    """
    if not criteria["learned"]:
        return "the scorer needs an answer"
    if criteria["num_shared"] is None:
        return "which had learned nothing to compare with"
    if criteria["num_shared"] < MIN_SHARED * criteria["num_pool"]:
        return f"which knew {criteria['num_shared']} of {criteria['num_pool']} candidates"
    return "all labels are the same"


def _recall(on_labels: float | None) -> str:
    """Candidate recall on the labels boxes, as the end of a line."""
    return " unknown: no labels" if on_labels is None else f" on the labels: {on_labels:.2f}"
