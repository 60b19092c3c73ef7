"""One answer becomes a row: what it is about, what it may replace, and whether it fits the image and the task.

Knows the ledger's database and the meaning of answers; must not know who asks, or the copy of the answers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twostream.base.errors import LedgerError
from twostream.base.geometry import Box
from twostream.candidates.table import pack_mask
from twostream.project.database import Database
from twostream.project.leases import Leases
from twostream.project.records import Answer
from twostream.project.rows import CURRENT
from twostream.task import Task
from twostream.task.answers import MEANING, WINDOW_KINDS, candidate_kinds


class Telling:
    """Records answers in a ledger's database.

    Args:
        database: of the ledger.
        task, image_box: as of ``Ledger``.
    """

    def __init__(
        self, database: Database, *, task: type[Task] | None, image_box: Callable[[], Box | None] | None
    ) -> None:
        self._database, self._task, self._image_box = database, task, image_box

    def check_fit(self, answer: Answer) -> None:
        """Check that an answer fits the image and the task.

        Raises:
            LedgerError: it does not.
        """
        num_sides = self._task.num_sides if self._task else None
        if num_sides == 1 and not answer.is_retraction and MEANING[answer.kind].teaches == "exchanged":
            raise LedgerError(
                f"an answer is {str(answer.kind)!r}, but these objects have no sides; answer 'true' or 'shape'."
            )
        if answer.drawing is None:
            return
        box, mask = answer.drawing
        image_box = self._image_box() if self._image_box else None
        if image_box is not None and not image_box.contains(box):
            raise LedgerError(
                f"a drawn mask lies at {box}, outside the image, which holds {image_box} (Z, Y, X voxels). "
                f"Are these nanometres, or X, Y, Z?"
            )
        top = int(mask.max(initial=0))
        if num_sides is not None and top > num_sides:
            wanted = "1 inside" if num_sides == 1 else "1 before and 2 after the cleft"
            raise LedgerError(f"a drawn mask holds the value {top}; expected 0 outside and {wanted}.")

    def tell(self, answer: Answer, identity: int, time: str) -> int:
        """Add an answer, inside a transaction of the caller.

        Args:
            answer: the answer, checked already.
            identity: its id.
            time: when it was given.

        Returns:
            The id; that of the recorded answer if its key was recorded before.

        Raises:
            LedgerError: it contradicts what is recorded; see ``Ledger.tell``.
        """
        if answer.key and (known := self._database.row("SELECT * FROM answer WHERE key = ?", answer.key)):
            if (known["query"], known["annotator"], known["kind"]) == (answer.query, answer.annotator, answer.kind):
                return int(known["id"])
            raise LedgerError(
                f"the key {answer.key!r} belongs to answer {known['id']}; draw a new one for each answer."
            )
        subject = self._subject(answer)
        self._check_superseding(answer)
        drawing = None
        if answer.drawing is not None:
            box, mask = answer.drawing
            drawing = self._database.insert("drawing", box=str(box), mask=pack_mask(mask))
        if answer.query is not None:
            Leases(self._database).end(answer.annotator, answer.query)
        return self._database.insert(
            "answer",
            id=identity,
            query=answer.query,
            kind=str(answer.kind),
            annotator=answer.annotator,
            reason=answer.reason,
            drawing=drawing,
            seconds=answer.seconds,
            answered_at=time,
            supersedes=answer.supersedes,
            adjudicates=int(answer.adjudicates),
            key=answer.key or None,
            **subject,
        )

    def _subject(self, answer: Answer) -> dict[str, Any]:
        """Candidate, round, volume and task that an answer is about, and the window in which an object was marked."""
        window = self._window(answer)
        if window is not None:
            return self._marked_in(window, answer)
        if answer.query is None:
            row = self._database.row("SELECT MAX(round) FROM query")
            newest = answer.round if answer.id else (row and row[0]) or 0  # a restored one keeps its round
            task = answer.task or (self._task.name if self._task else "")
            return {"candidate": None, "round": newest, "volume": answer.volume, "task": task}
        row = self._database.row("SELECT candidate, round, volume, task FROM query WHERE id = ?", answer.query)
        if row is None:
            raise LedgerError(f"there is no query {answer.query}; it was never asked.")
        is_window = row["candidate"] is None
        kinds = [str(kind) for kind in (WINDOW_KINDS if is_window else candidate_kinds())]
        if not answer.is_retraction and answer.kind not in kinds:
            what = "a window" if is_window else f"about candidate {row['candidate']}"
            raise LedgerError(
                f"an answer {str(answer.kind)!r} came to query {answer.query}, which is {what}; expected one of "
                f"{', '.join(kinds)}."
            )
        return dict(row)

    def _window(self, answer: Answer) -> int | None:
        """Id of the window in which an object was marked; what changes or takes back a mark belongs to its window."""
        if answer.query is not None or answer.supersedes is None:
            return answer.window
        row = self._database.row("SELECT window FROM answer WHERE id = ?", answer.supersedes)
        before = None if row is None else row["window"]
        if answer.window not in (None, before):
            raise LedgerError(
                f"an object came as marked in window {answer.window}, but answer {answer.supersedes}, which it "
                f"replaces, was not marked there. Take that answer back, and mark the object anew."
            )
        return None if before is None else int(before)

    def _marked_in(self, window: int, answer: Answer) -> dict[str, Any]:
        """What an object is about that was marked in a window."""
        row = self._database.row("SELECT candidate, round, volume, task, box FROM query WHERE id = ?", window)
        if row is None or row["candidate"] is not None:
            raise LedgerError(f"there is no window {window} in which an object could be marked.")
        if answer.drawing is not None and not answer.drawing[0].intersects(Box.parse(row["box"])):
            raise LedgerError(
                f"an object at {answer.drawing[0]} was marked in window {window}, which holds {row['box']} (Z, Y, X "
                f"voxels). Mark it without a window, or in the one that it lies in."
            )
        return {name: row[name] for name in ("candidate", "round", "volume", "task")} | {"window": window}

    def _check_superseding(self, answer: Answer) -> None:
        """Raise LedgerError if an answer supersedes the wrong one, or the annotator's earlier answer stands."""
        if answer.query is None and answer.supersedes is None:
            return  # missed objects do not exclude each other
        current = {
            row["id"]: row["annotator"]
            for row in self._database.rows(
                f"SELECT id, annotator FROM answer WHERE query IS ? AND {CURRENT} ORDER BY id", answer.query
            )
        }
        if answer.supersedes is not None and answer.supersedes not in current:
            raise LedgerError(
                f"answer {answer.supersedes} cannot be superseded: it is no current answer to this query. "
                f"Supersede the newest answer."
            )
        if answer.is_retraction and current[answer.supersedes or 0] != answer.annotator:
            whose = current[answer.supersedes or 0]
            raise LedgerError(
                f"answer {answer.supersedes} is by {whose}; {answer.annotator} cannot take it back. Give another "
                f"answer, or settle the disagreement."
            )
        earlier = [i for i, name in current.items() if name == answer.annotator and i != answer.supersedes]
        if answer.query is not None and earlier and not answer.adjudicates:
            raise LedgerError(
                f"{answer.annotator} has answered query {answer.query} already (answer {earlier[0]}); "
                f"to change it, supersede that answer."
            )
