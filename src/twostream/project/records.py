"""What the ledger holds, as values: queries, answers, and what all answers to one candidate come to.

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
from twostream.task.answers import MEANING, AnswerKind


@dataclass(frozen=True)
class Query:
    """A candidate as it was asked about.

    Attributes:
        candidate: with its mask at the time of asking.
        patch: its aligned patch pair.
        strategy: name of the strategy that asked, or "audit".
        reason: why it asked, as plain values.
        is_audit: part of the random share that estimates accuracy and is never trained on.
        volume: name of the volume that the candidate lies in.
        task: name of the task; the ledger fills it in where it is "".
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
class Answer:
    """What an annotator said.

    Attributes:
        query: id of the query; None for a missed object.
        kind: see ``twostream.task.answers``.
        annotator: name of the person, or "simulated".
        reason: free text.
        drawing: (box, mask) that was drawn; mask (Z, Y, X) uint8 as a candidate's. Required where the kind teaches
            "drawn".
        seconds: time spent.
        supersedes: id of the answer that this one replaces.
        adjudicates: settles a disagreement between annotators.
        volume, task: of a missed object; those of the query otherwise.
        id: given by the ledger; 0 before.
        answered_at: ISO 8601, UTC; given by the ledger.
        candidate: the candidate's id, from the query.
        round: the query's round; for a missed object the round in which it was added.
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
    id: int = 0
    answered_at: str = ""
    candidate: int | None = None
    round: int = 0

    def check(self) -> None:
        """Raise LedgerError where the answer contradicts itself."""
        if self.kind not in MEANING:
            raise LedgerError(f"an answer {self.kind!r} came; expected one of {', '.join(map(str, MEANING))}.")
        if MEANING[self.kind].teaches == "drawn" and self.drawing is None:
            raise LedgerError(f"an answer {str(self.kind)!r} needs a drawn mask; none came.")
        if (self.query is None) != (self.kind == AnswerKind.MISSED):
            raise LedgerError(f"an answer {str(self.kind)!r} came with query {self.query}; only 'missed' has none.")
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
    """What all answers to one candidate come to.

    Attributes:
        y: 1, 0, or NaN.
        kind: the kind of answer that counts; None without an answer, and where annotators disagree about it.
        askable: whether a later round may ask again.
        answer: the answer that decided (of several that agree, the newest); None without one.
    """

    y: float
    kind: str | None
    askable: bool
    answer: Answer | None = None

    @property
    def teaches(self) -> str:
        """What S learns from it, see ``answers.Meaning``.

        Where all say that the candidate is wrong, and only disagree about why, its voxels are ignored.
        """
        if self.kind is None:
            return "ignore" if self.y == 0 else ""
        return MEANING[self.kind].teaches


def adjudicate(answers: Sequence[Answer]) -> Verdict:
    """What several answers to one candidate come to.

    The newest adjudicating answer decides; without one, ``y`` is what all annotators agree on, else NaN. *Skipped*
    counts only where nobody said anything else. Two who say that a candidate is wrong, for different reasons, agree
    about ``y`` and not about ``kind``.

    Args:
        answers: that no other one supersedes, oldest first; at least one.
    """
    settling = [a for a in answers if a.adjudicates][-1:] or answers
    kinds = {a.kind for a in settling}
    askable = all(MEANING[kind].may_be_asked_again for kind in kinds)
    opinions = kinds - {AnswerKind.SKIPPED} or kinds
    values = {MEANING[kind].y for kind in opinions}
    agreed = len(opinions) == 1 or (len(values) == 1 and not any(map(math.isnan, values)))
    kind = next(iter(opinions)) if len(opinions) == 1 else None
    newest = next((a for a in reversed(settling) if a.kind == kind), None)
    return Verdict(values.pop() if agreed else math.nan, kind, askable, newest)
