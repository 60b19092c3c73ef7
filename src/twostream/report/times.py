"""Time: how long each step of each round computed, and how long annotators worked. Knows the ledger alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twostream.project.project import LATER_STEPS, Project
from twostream.report.words import duration


def times(project: Project, name: str) -> dict[str, Any]:
    """A table of computing time, one row per step and one column per round, with totals; and annotation time."""
    # The step "answer" is people's time; it is shown apart.
    seconds = {
        key: float(detail["seconds"]) for key, detail in project.ledger.finished_steps().items() if key[1] != "answer"
    }
    rounds = sorted({r for r, _ in seconds})
    known = ("train", *LATER_STEPS)
    steps = [s for s in known if any(key[1] == s for key in seconds)] + sorted({s for _, s in seconds} - set(known))
    rows = [(step, [*(duration(seconds.get((r, step))) for r in rounds), _total(seconds, step=step)]) for step in steps]
    total = [*(_total(seconds, round_number=r) for r in rounds), duration(sum(seconds.values()))]
    num_answers, annotation_seconds = project.ledger.spent()
    return {
        "name": name,
        "rounds": rounds,
        "rows": rows,
        "total": total,
        "annotation": duration(annotation_seconds),
        "num_answers": num_answers,
    }


def _total(
    seconds: Mapping[tuple[int, str], float], *, step: str | None = None, round_number: int | None = None
) -> str:
    """The sum over one step or one round, as text."""
    return duration(sum(v for (r, s), v in seconds.items() if step in (None, s) and round_number in (None, r)))
