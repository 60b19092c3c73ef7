"""Where a project stands, in a few lines. Knows the ledger; must not import torch."""

from __future__ import annotations

from twostream.project import Project

SHOWN = (
    "candidate_recall",
    "candidate_accuracy",
    "roi_accuracy",
    "average_precision",
    "instance_f1",
    "foreground_iou",
    "curated_accuracy",
)
"""Scores of a line; metrics.json and the report hold the others."""


def status_lines(project: Project) -> list[str]:
    """What is done, what is due, what waits for whom."""
    number, step = project.next_step()
    waiting = project.ledger.open_queries()
    num_answers, seconds = project.ledger.spent()
    lines = [
        f"{project.config.task} in {project.config.image.uri}",
        f"strategy {project.config.query.strategy}, {project.config.query.budget} answers a round, "
        f"{num_answers} given so far ({seconds / 60:.1f} minutes of annotation)",
    ]
    if source := project.config.source:
        lines.insert(1, f"{source.name} {source.uri} in place of S")
    for done, metrics in project.ledger.scores().items():
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
    if step == "answer" and waiting:
        lines.append(f"round {number} waits for {len(waiting)} of {len(project.ledger.queries(number))} answers")
    elif step == "suggest" and number >= project.config.rounds:
        lines.append(f"all {number} rounds are done; `twostream run {project.root} --rounds {number + 1}` asks another")
    else:
        lines.append(f"next: {step} of round {number}; `twostream run {project.root}` does it")
    return lines


def _recall(on_labels: float | None) -> str:
    return " unknown: no labels" if on_labels is None else f" on the labelled box: {on_labels:.2f}"
