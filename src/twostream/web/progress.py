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

REST = 20.0
"""What all people share is computed again after this many times the time that it took, so that it costs little."""


class Progress:
    """What is done and left.

    Args:
        desk: the project.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._lock = threading.Lock()
        self._shared: dict[str, Any] = {}
        self._known, self._again_at = -1, 0.0

    def values(self, annotator: str) -> dict[str, Any]:
        """What is done and left, as plain values for one person."""
        desk = self._desk
        number, step = desk.queue.step()
        left, run = desk.queue.left(annotator), desk.runner.state()
        return {
            "round": number,
            "step": step,
            "left": asdict(left),
            "next": next_line(desk.project) if left.open == 0 and run.state != "running" else "",
            "run": asdict(run),
            "may_run": desk.may_run,
            **self._of_all(),
        }

    def _of_all(self) -> dict[str, Any]:
        """What does not depend on who asks."""
        queue = self._desk.queue
        with self._lock:
            start = time.monotonic()
            if queue.last == self._known or start < self._again_at:
                return self._shared
            self._known = queue.last
            shared = queue.shared()
            people = [
                {
                    "name": name,
                    "answers": person.answers,
                    "decided": person.decided,
                    "seconds": person.seconds,
                    "per_minute": person.per_minute,
                }
                for name, person in sorted(queue.people.items())
            ]
            self._shared = {
                "people": people,
                "num_disagreements": len(disagreements(shared)),
                "agreements": [asdict(one) for one in agreements(shared) if one.num_common],
            }
            now = time.monotonic()
            self._again_at = now + REST * (now - start)
            return self._shared


def disagreement_values(desk: Desk, annotator: str) -> dict[str, Any]:
    """Queries about which people disagree, as plain values."""
    rows = []
    for one in disagreements(desk.queue.shared()):
        try:
            described = desk.described(one.query, annotator)
        except LedgerError:
            continue
        rows.append(described | {"answers": [answer_values(a) for a in one.answers]})
    return {"disagreements": rows}
