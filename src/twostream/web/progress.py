"""Progress as the page shows it: what is left, who did what, how far people agree, what the next round does.

Knows the desk and agreement; must not know requests.
"""

from __future__ import annotations

import threading
import time
from dataclasses import asdict
from typing import Any

from twostream.base.errors import LedgerError
from twostream.project.agreement import agreements, disagreements
from twostream.project.status import next_line
from twostream.web.desk import Desk, answer_values

FRESH_SECONDS = 1.0
_lock = threading.Lock()


def progress_values(desk: Desk, annotator: str) -> dict[str, Any]:
    """What is done and left, as plain values for one person."""
    number, step = desk.queue.step()
    left = desk.queue.left(annotator)
    people = [
        {
            "name": name,
            "answers": person.answers,
            "seconds": person.seconds,
            "per_minute": 60 * person.decided / person.seconds if person.seconds > 0 else None,
        }
        for name, person in sorted(desk.queue.people.items())
    ]
    run = desk.runner.state()
    return {
        "round": number,
        "step": step,
        "left": asdict(left),
        "people": people,
        "num_disagreements": len(disagreements(desk.queue.current())),
        "agreements": [asdict(one) for one in agreements(desk.queue.current())],
        "next": next_line(desk.project) if left.open == 0 else "",
        "run": asdict(run),
        "may_run": desk.may_run,
        "time": time.time(),
    }


def disagreement_values(desk: Desk, annotator: str) -> dict[str, Any]:
    """Queries about which people disagree, as plain values."""
    rows = []
    for one in disagreements(desk.queue.current()):
        try:
            described = desk.described(one.query, annotator)
        except LedgerError:
            continue
        rows.append(described | {"answers": [answer_values(a) for a in one.answers]})
    return {"disagreements": rows}
