"""The rows of the ledger as values: queries, windows, answers, and the verdict that follows from all answers to one.

Knows candidates, patches and the meaning of answers; must not know how the ledger stores them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from twostream.base.errors import LedgerError
from twostream.base.geometry import Box
from twostream.candidates.candidate import Candidate
from twostream.candidates.patches import PatchPair
from twostream.candidates.table import DEFAULT_VOLUME
from twostream.task.answers import MEANING, RETRACTED, AnswerKind


@dataclass(frozen=True)
class Query:
    """A candidate as it was asked about.

    Attributes:
        candidate: with its mask at the time of asking.
        patch: its aligned patch pair.
        strategy: name of the strategy that chose it, or "audit".
        reason: why the strategy chose it, as plain values: {name: value}.
        is_audit: whether it is an audit: drawn at random to estimate accuracy, and never learned from.
        volume: name of the volume in which the candidate lies.
        task: name of the task; if it is "", the ledger fills it in.
        id: given by the ledger; 0 before.
        round: round in which it was asked.
    """

    candidate: Candidate
    patch: PatchPair
    strategy: str
    reason: dict[str, Any] = field(default_factory=dict)
    is_audit: bool = False
    volume: str = DEFAULT_VOLUME
    task: str = ""
    id: int = 0
    round: int = 0


@dataclass(frozen=True)
class Window:
    """A query without a candidate: a box of which a person says that nothing was missed in it, or marks what was.

    Attributes:
        box: in voxels of the image.
        inclusion: probability with which it was drawn, in (0, 1]; an estimate weighs what it finds by the inverse.
        strategy: how it was chosen.
        reason: why it was chosen, as plain values: {name: value}.
        volume, task, id, round: as in ``Query``.
    """

    box: Box
    inclusion: float
    strategy: str = "window"
    reason: dict[str, Any] = field(default_factory=dict)
    volume: str = DEFAULT_VOLUME
    task: str = ""
    id: int = 0
    round: int = 0

    def holds(self, box: Box) -> bool:
        """Whether an object with the bounding box ``box`` belongs to the window: its centre lies in it.

        Windows that tile a volume share no centre, so each object belongs to one of them.
        """
        return self.box.contains(box.middle)

    def check(self) -> None:
        """Check that the window can be asked about.

        Raises:
            LedgerError: it has no voxels, or its inclusion is no probability above 0.
        """
        if not self.box.num_voxels or not 0 < self.inclusion <= 1:
            raise LedgerError(
                f"a window at {self.box} came with the inclusion {self.inclusion}; expected a box of at least one "
                f"voxel, and a probability above 0 and at most 1."
            )


@dataclass(frozen=True)
class QueryLine:
    """A query in short: what it takes to put many of them in an order.

    Attributes:
        id: of the query.
        candidate: id of the candidate.
        strategy, reason, is_audit: as in ``Query``.
        score: of the candidate.
    """

    id: int
    candidate: int
    strategy: str
    reason: dict[str, Any]
    is_audit: bool
    score: float


@dataclass(frozen=True)
class Answer:
    """An annotator's answer to a query or window, an object that was missed, or the retraction of one of them.

    Attributes:
        query: id of the query or window; None for a missed object.
        kind: one of ``twostream.task.answers``, or ``RETRACTED``: the superseded answer is taken back.
        annotator: name of the person, or "simulated".
        reason: free text.
        drawing: (box, mask) that was drawn, the mask (Z, Y, X) uint8 with the values of a candidate's mask. Required
            for kinds that teach "drawn".
        seconds: time that the answer took.
        supersedes: id of the answer that this one replaces; None if it replaces none.
        adjudicates: whether it decides a disagreement between annotators.
        volume, task: of a missed object. For an answer to a query the ledger takes those of the query.
        key: a text that the program which sends the answer has drawn for it, or "". An answer that is sent again with
            the same key is recorded once.
        window: id of the window in which a missed object was marked; None outside windows. If such an answer is
            changed or taken back, the ledger fills it in.
        id: given by the ledger; 0 before.
        answered_at: time in ISO 8601, UTC; given by the ledger.
        candidate: id of the query's candidate, None for a window; given by the ledger.
        round: round of the query or window; of an object that was missed outside windows the newest round when it was
            added; given by the ledger.
    """

    query: int | None
    kind: str
    annotator: str
    reason: str = ""
    drawing: tuple[Box, np.ndarray] | None = None
    seconds: float = 0.0
    supersedes: int | None = None
    adjudicates: bool = False
    volume: str = DEFAULT_VOLUME
    task: str = ""
    key: str = ""
    window: int | None = None
    id: int = 0
    answered_at: str = ""
    candidate: int | None = None
    round: int = 0

    @property
    def is_retraction(self) -> bool:
        """Whether it takes an answer back."""
        return self.kind == RETRACTED

    def check(self) -> None:
        """Check that the parts of the answer fit each other.

        Raises:
            LedgerError: they do not.
        """
        if self.is_retraction:
            if self.supersedes is None or self.drawing is not None:
                raise LedgerError("a retraction names the answer that it takes back in supersedes, and draws nothing.")
            return
        if self.kind not in MEANING:
            raise LedgerError(f"an answer {self.kind!r} came; expected one of {', '.join(map(str, MEANING))}.")
        if MEANING[self.kind].teaches == "drawn" and self.drawing is None:
            raise LedgerError(f"an answer {str(self.kind)!r} needs a drawn mask; none came.")
        if (self.query is None) != (self.kind == AnswerKind.MISSED):
            raise LedgerError(
                f"an answer {str(self.kind)!r} came with query {self.query}; every kind has a query, only 'missed' has "
                f"none."
            )
        if self.window is not None and self.kind != AnswerKind.MISSED:
            raise LedgerError(
                f"an answer {str(self.kind)!r} names the window {self.window}; only an object that is marked in one "
                f"('missed') does. What is said of a window as a whole has its number as query."
            )
        if not (math.isfinite(self.seconds) and self.seconds >= 0):
            raise LedgerError(f"seconds is {self.seconds}; expected a time of at least 0.")
        if self.drawing is not None:
            box, mask = self.drawing
            if mask.shape != box.shape_zyx or mask.dtype != np.uint8 or not mask.any():
                raise LedgerError(
                    f"a drawn mask is {mask.shape} {mask.dtype} for a box of {box.shape_zyx}; "
                    f"expected uint8 of the box's shape with at least one voxel drawn."
                )


@dataclass(frozen=True)
class Verdict:
    """What all answers to a candidate, or to a window, together say.

    Attributes:
        y: 1 (True), 0 (False), or NaN without an answer, if nobody was sure, if annotators disagree, or of a window.
        kind: the kind of answer that counts; None without an answer, or if annotators disagree about the kind.
        askable: whether a later round may ask about it again.
        answer: the answer that counts, the newest if several agree; None if ``kind`` is None.
    """

    y: float
    kind: str | None
    askable: bool
    answer: Answer | None = None

    @property
    def teaches(self) -> str:
        """What S learns from the candidate, a value of ``answers.TEACHES``.

        If all annotators say that the candidate is wrong but disagree about the reason, its voxels are ignored.
        """
        if self.kind is None:
            return "ignore" if self.y == 0 else ""
        return MEANING[self.kind].teaches


def adjudicate(answers: Sequence[Answer]) -> Verdict:
    """The verdict that follows from all answers to a candidate or a window (``docs/contracts.md``, *Answers*).

    The newest adjudicating answer decides. Without one, ``y`` is what all annotators agree on, else NaN. *Skipped*
    counts only if there is no other answer. Annotators who call a candidate wrong for different reasons agree about
    ``y`` but not about ``kind``.

    Args:
        answers: at least one answer, none of them superseded, oldest first.
    """
    deciding = [a for a in answers if a.adjudicates][-1:] or answers
    kinds = {a.kind for a in deciding}
    askable = all(MEANING[kind].may_be_asked_again for kind in kinds)
    opinions = kinds - {AnswerKind.SKIPPED} or kinds
    values = {MEANING[kind].y for kind in opinions}
    agreed = len(opinions) == 1 or (len(values) == 1 and not any(map(math.isnan, values)))
    kind = next(iter(opinions)) if len(opinions) == 1 else None
    newest = next((a for a in reversed(deciding) if a.kind == kind), None)
    return Verdict(values.pop() if agreed else math.nan, kind, askable, newest)
