"""Decisions: what a person decided becomes an answer in the ledger; undo and redo of decisions.

A *gesture* is what a person did at once: one decision, or "the rest of this page is True". Its answers have keys that
begin alike (``KEY/0``, ``KEY/1``), so that it is undone at once. Undo and redo are gestures as well (``undo:KEY/0``),
so what can be undone follows from the ledger alone, whatever became of browser and server.

Knows the ledger; must not know requests or pictures.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from twostream.base.errors import InputError, LedgerError
from twostream.base.geometry import Box
from twostream.project.ledger import Ledger
from twostream.project.records import Answer
from twostream.task.answers import MEANING, RETRACTED, WINDOW_KINDS, AnswerKind, candidate_kinds

UNDO, REDO = "undo:", "redo:"
REACH = 20_000
"""Answers back to which undo reaches."""


@dataclass(frozen=True)
class Decision:
    """What a person decided.

    Attributes:
        key: drawn by the browser; the same decision that is sent again is recorded once.
        query: id of the query or window; None for an object that was missed.
        kind: kind of answer.
        reason: free text, or what is wrong with the shape.
        seconds: time that the decision took, without idle time.
        drawing: (box, mask) that was drawn.
        adjudicates: whether it settles a disagreement.
        is_first: whether the page knew of no answer of the person; then none that they gave elsewhere is replaced.
        window: id of the window in which a missed object was marked.
    """

    key: str
    query: int | None
    kind: str
    reason: str = ""
    seconds: float = 0.0
    drawing: tuple[Box, np.ndarray] | None = None
    adjudicates: bool = False
    is_first: bool = False
    window: int | None = None


class Decisions:
    """Records the decisions of people.

    Args:
        ledger: the project's.
        lease_seconds: how long a query that was opened again by undo is kept for the person.
    """

    def __init__(self, ledger: Ledger, lease_seconds: float) -> None:
        self._ledger, self._lease_seconds = ledger, lease_seconds

    def record(self, annotator: str, decision: Decision) -> int:
        """Record a decision; it is on disk when this returns. One that was recorded before is passed over.

        A decision about a query that the person has answered replaces their answer.

        Returns:
            The id of the answer.

        Raises:
            LedgerError: it does not fit the query, the task or the image.
        """
        if decision.kind not in MEANING:
            raise LedgerError(f"the decision is {decision.kind!r}; expected one of {', '.join(map(str, MEANING))}.")
        if known := self._ledger.answer_with_key(decision.key):
            if (known.annotator, known.query, known.kind) == (annotator, decision.query, decision.kind):
                return known.id
            raise LedgerError(f"the key {decision.key!r} was used for another decision; reload the page.")
        earlier = None if decision.query is None else self._own(annotator, decision.query)
        if earlier is not None and decision.is_first:
            raise LedgerError(
                f"{annotator} has answered query {decision.query} elsewhere meanwhile ({earlier.kind}); that answer "
                f"stands."
            )
        return self._ledger.tell(
            Answer(
                decision.query,
                decision.kind,
                annotator,
                reason=decision.reason,
                drawing=decision.drawing,
                seconds=decision.seconds,
                supersedes=earlier.id if earlier else None,
                adjudicates=decision.adjudicates,
                key=decision.key,
                window=decision.window,
            )
        )

    def _own(self, annotator: str, query: int) -> Answer | None:
        """The current answer of a person to a query."""
        return next((a for a in reversed(self._ledger.current_answers(query)) if a.annotator == annotator), None)

    def undo(self, annotator: str, round_number: int, key: str, of: str | None = None) -> list[Answer]:
        """Take back the newest gesture of a person that was not undone; earlier answers that it replaced count again.

        Args:
            annotator: name of the person.
            round_number: the open round. What earlier rounds have learned from can only be changed.
            key: drawn by the browser.
            of: the gesture that is meant, if the browser cannot know whether it was recorded.

        Returns:
            The answers that were taken back; empty if the newest gesture is not ``of``.

        Raises:
            InputError: there is nothing to undo.
            LedgerError: somebody has changed an answer of the gesture meanwhile.
        """
        newest = self._ledger.newest_answers_of(annotator, round_number, REACH)
        if any(_gesture(a) == UNDO + key for a in newest):
            return []  # the request came twice
        done, _ = _replay(newest)
        if of is not None and (not done or _gesture(done[-1][0]) != of):
            return []
        if not done:
            raise InputError("nothing is left to undo in this round.")
        gesture = done[-1]
        by_id = {a.id: a for a in newest}
        rows = []
        for number, answer in enumerate(gesture):
            name = f"{UNDO}{key}/{number}"
            rows.append(Answer(answer.query, RETRACTED, annotator, supersedes=self._standing(answer), key=name))
            before = by_id.get(answer.supersedes or 0)
            if before is None and answer.supersedes is not None:
                before = self._ledger.answer(answer.supersedes)
            if before is not None:
                rows.append(replace(before, seconds=0.0, supersedes=None, key=f"{name}/before", id=0))
        self._ledger.tell_all(rows)
        again = [answer.query for answer in gesture if answer.query is not None]
        self._ledger.leases.renew(annotator, again, time.time() + self._lease_seconds)
        return gesture

    def _standing(self, answer: Answer) -> int:
        """Id under which an answer counts now: its own, or that of its copy if undo has restored it."""
        own = answer if answer.query is None else self._own(answer.annotator, answer.query)
        if own is None or (own.kind, own.reason) != (answer.kind, answer.reason):
            raise LedgerError("the answer was changed elsewhere meanwhile; reload the page to see what counts now.")
        return own.id

    def redo(self, annotator: str, round_number: int, key: str) -> list[Answer]:
        """Give the answers again that the newest undo took back.

        Returns:
            Those answers.

        Raises:
            InputError: there is nothing to redo.
        """
        newest = self._ledger.newest_answers_of(annotator, round_number, REACH)
        if any(_gesture(a) == REDO + key for a in newest):
            return []
        _, undone = _replay(newest)
        if not undone:
            raise InputError("nothing is left to redo; a new decision ends what could be redone.")
        rows = []
        for number, answer in enumerate(undone[-1]):
            own = None if answer.query is None else self._own(annotator, answer.query)
            supersedes = own.id if own else None
            rows.append(replace(answer, seconds=0.0, supersedes=supersedes, key=f"{REDO}{key}/{number}", id=0))
        self._ledger.tell_all(rows)
        return undone[-1]

    def history(self, annotator: str, round_number: int, number: int) -> list[Answer]:
        """The current answers of a person in a round that were given last, at most ``number``, newest first."""
        newest = self._ledger.newest_answers_of(annotator, round_number, REACH)
        replaced = {a.supersedes for a in newest}
        current = [a for a in newest if not a.is_retraction and a.id not in replaced]
        return current[::-1][:number]


def _gesture(answer: Answer) -> str:
    """Name of the gesture to which an answer belongs."""
    return answer.key.split("/")[0] if answer.key else f"answer {answer.id}"


def _replay(answers: Sequence[Answer]) -> tuple[list[list[Answer]], list[list[Answer]]]:
    """What can be undone and what can be redone, from the answers of a person, oldest first.

    Returns:
        Two stacks of gestures, the next one last: those that are done, and those that were undone.
    """
    gestures: dict[str, list[Answer]] = {}
    for answer in answers:
        gestures.setdefault(_gesture(answer), []).append(answer)
    done: list[list[Answer]] = []
    undone: list[list[Answer]] = []
    for name, gesture in gestures.items():
        if name.startswith(UNDO):
            undone += [done.pop()] if done else []
        elif name.startswith(REDO):
            undone = undone[:-1]
            done.append(gesture)
        else:
            done.append(gesture)
            undone = []
    return done, undone


def is_drawn(kind: str) -> bool:
    """Whether an answer of a kind needs a drawing."""
    return MEANING[kind].teaches == "drawn"


def answer_keys(num_sides: int) -> list[tuple[str, str, str]]:
    """The decisions that one key each stands for: (kind, reason, words), in the order of the page's buttons.

    ``asked_about`` says which of them a candidate and which a window can get.
    """
    found = [
        (AnswerKind.TRUE, "", "True"),
        (AnswerKind.NOTHING, "", "Nothing there"),
        (AnswerKind.SHAPE, "merge", "Merged objects"),
        (AnswerKind.SHAPE, "split", "Part of an object"),
        (AnswerKind.SHAPE, "boundary", "Wrong boundary"),
        (AnswerKind.SWAPPED, "", "Sides swapped"),
        (AnswerKind.NONE_MISSED, "", "Nothing (more) was missed"),
        (AnswerKind.UNSURE, "", "Unsure"),
        (AnswerKind.SKIPPED, "", "Skip"),
    ]
    known = [(str(kind), reason, words) for kind, reason, words in found]
    others = [(str(kind), "", str(kind)) for kind in MEANING if kind not in set(AnswerKind) and not is_drawn(kind)]
    return [row for row in (*known, *others) if num_sides == 2 or MEANING[row[0]].teaches != "exchanged"]


def asked_about(kind: str) -> list[str]:
    """What an answer of a kind can be about: "candidate", "window", or both."""
    return [what for what, kinds in (("candidate", candidate_kinds()), ("window", WINDOW_KINDS)) if kind in kinds]
