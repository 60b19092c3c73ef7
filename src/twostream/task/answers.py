"""What an annotator can say about a candidate or a window, and what it means for learning and for the budget.

The kinds and their meanings stand in one table (``docs/contracts.md``, *Answers*); the ledger, the lessons of S, the
streams and the curated data set all read it. Other packages may add kinds with ``register_answer_kind``.

Knows words and flags; must not know masks, models or storage.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from twostream.base.errors import InputError


class AnswerKind(StrEnum):
    """The kinds of the house; each is one key on the annotator's keyboard."""

    TRUE = "true"
    NOTHING = "nothing"
    SHAPE = "shape"
    SWAPPED = "swapped"
    CORRECTED = "corrected"
    MISSED = "missed"
    NONE_MISSED = "none_missed"
    UNSURE = "unsure"
    SKIPPED = "skipped"


RETRACTED = "retracted"
"""What the ledger records when an annotator takes an answer back. It is no kind of answer: nothing is left that could
mean anything, and the query is open again."""
TEACHES = ("mask", "background", "exchanged", "drawn", "ignore", "")


@dataclass(frozen=True)
class Meaning:
    """What an answer of one kind means.

    Attributes:
        y: 1.0 the candidate is right, 0.0 it is wrong, NaN nothing is known.
        teaches: what S learns from it.
            "mask": the candidate's mask is foreground.
            "background": it is background.
            "exchanged": it is foreground, with the pre- and postsynaptic sides exchanged.
            "drawn": the mask that the annotator drew is exact.
            "ignore": its voxels are unknown, and the previous S gives no pseudo-labels there.
            "": nothing.
        in_budget: whether it counts as one of the answers that were paid for.
        may_be_asked_again: whether later rounds may ask about the candidate again.

    Raises:
        InputError: ``y`` or ``teaches`` is none of these.
    """

    y: float
    teaches: str
    in_budget: bool
    may_be_asked_again: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.y, (int, float)) or (self.y not in (0.0, 1.0) and not math.isnan(self.y)):
            raise InputError(f"the y of an answer kind is {self.y}; expected 1, 0, or NaN where nothing is known.")
        if self.teaches not in TEACHES:
            raise InputError(
                f"an answer kind teaches {self.teaches!r}; expected one of {', '.join(map(repr, TEACHES))}."
            )
        if (self.teaches in ("mask", "exchanged")) != (self.y == 1) or (self.teaches == "background" and self.y != 0):
            raise InputError(
                f"an answer kind has y = {self.y:g} and teaches {self.teaches!r}, which contradict each other: y = 1 "
                f"goes with 'mask' or 'exchanged', and 'background' with y = 0."
            )


NAN = float("nan")

MEANING: dict[str, Meaning] = {
    AnswerKind.TRUE: Meaning(1.0, "mask", True),
    AnswerKind.NOTHING: Meaning(0.0, "background", True),
    # Most voxels of a badly shaped candidate are true foreground: learned as background they would destroy S.
    AnswerKind.SHAPE: Meaning(0.0, "ignore", True),
    AnswerKind.SWAPPED: Meaning(1.0, "exchanged", True),
    AnswerKind.CORRECTED: Meaning(0.0, "drawn", True),
    AnswerKind.MISSED: Meaning(NAN, "drawn", True),
    # A window is no candidate and has no y; what S learns from one is in ``rounds/teaching.py``.
    AnswerKind.NONE_MISSED: Meaning(NAN, "", True),
    AnswerKind.UNSURE: Meaning(NAN, "", True),
    AnswerKind.SKIPPED: Meaning(NAN, "", False, may_be_asked_again=True),
}
"""{kind: its meaning}; registered kinds stand behind those of the house."""


WINDOW_KINDS = (AnswerKind.NONE_MISSED, AnswerKind.UNSURE, AnswerKind.SKIPPED)
"""What a person can say about a window as a whole, beside the objects that they mark in it as ``MISSED``."""
NOT_OF_CANDIDATES = (AnswerKind.MISSED, AnswerKind.NONE_MISSED)
"""Kinds that say nothing about a candidate."""


def candidate_kinds() -> list[str]:
    """The kinds of answers that a query about a candidate may get, registered ones too."""
    return [kind for kind in MEANING if kind not in NOT_OF_CANDIDATES]


def register_answer_kind(name: str, meaning: Meaning) -> None:
    """Add a kind of answer. Do so in every process that opens the project, before it does.

    Args:
        name: one lower-case word, as it stands in tables and in the ledger.
        meaning: what it means.

    Raises:
        InputError: the name is not one lower-case word, or has another meaning already.
    """
    if not (name.isidentifier() and name.islower()) or name == RETRACTED:
        raise InputError(f"an answer kind is called {name!r}; expected one lower-case word, not {RETRACTED!r}.")
    known = MEANING.setdefault(name, meaning)
    if repr(known) != repr(meaning):  # not ==, for which NaN differs from itself
        raise InputError(f"the answer kind {name!r} exists already and means {known}; choose another name.")


def answer_kind(name: str) -> str:
    """The kind called ``name``: an ``AnswerKind`` of the house, or a registered one as plain text.

    Raises:
        InputError: no such kind.
    """
    if name not in MEANING:
        raise InputError(
            f"the answer kind is {name!r}; expected one of {', '.join(map(str, MEANING))}. A kind of another package "
            f"must be registered first (twostream.task.answers.register_answer_kind)."
        )
    return AnswerKind(name) if name in set(AnswerKind) else name
