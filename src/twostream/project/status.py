"""The command `status`: what is done, what comes next, and the criteria for stopping, as lines of text.

Knows the project and its ledger; must not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twostream.project.project import Project
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
    round_number, step = project.next_step()
    waiting = project.ledger.open_queries()
    num_answers, seconds = project.ledger.spent()
    lines = [
        f"{project.config.task} in {project.config.image.uri}",
        f"strategy {project.config.query.strategy}, {project.config.query.budget} answers a round, "
        f"{num_answers} given so far ({seconds / 60:.1f} minutes of annotation)",
    ]
    if source := project.config.source:
        lines.insert(1, f"{source.name} {source.uri} in place of S")
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
        lines += stopping_lines(scored, done)
    if step == "answer" and waiting:
        lines.append(
            f"round {round_number} waits for {len(waiting)} of {len(project.ledger.queries(round_number))} answers"
        )
    elif step == "suggest" and round_number >= project.config.rounds:
        lines.append(
            f"all {round_number} rounds are done; "
            f"`{project.command('run', '--rounds', str(round_number + 1))}` asks another batch"
        )
    else:
        lines.append(f"next: {step} of round {round_number}; `{project.command('run')}` does it")
    return lines


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
        return "the scorer needs a true and a false answer"
    if criteria["num_shared"] is None:
        return "which had learned nothing to compare with"
    if criteria["num_shared"] < MIN_SHARED * criteria["num_pool"]:
        return f"which knew {criteria['num_shared']} of {criteria['num_pool']} candidates"
    return "all labels are the same"


def _recall(on_labels: float | None) -> str:
    """Candidate recall on the labels boxes, as the end of a line."""
    return " unknown: no labels" if on_labels is None else f" on the labels: {on_labels:.2f}"
