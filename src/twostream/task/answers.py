"""What an annotator can say of a candidate, and what each answer means for learning and for the budget.

The table of ``CONTRACTS`` section 3 as code. Knows words and flags; must not know masks, models or storage.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class AnswerKind(StrEnum):
    """One kind per key on the annotator's keyboard."""

    TRUE = "true"
    NOTHING = "nothing"
    SHAPE = "shape"
    SWAPPED = "swapped"
    CORRECTED = "corrected"
    MISSED = "missed"
    UNSURE = "unsure"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Meaning:
    """What an answer of one kind means.

    Attributes:
        y: 1.0 true, 0.0 false, NaN where nothing is known.
        teaches: what S learns from the mask: "mask", "background", "exchanged", "drawn", "doubt" (ignored, and what S
            believed of the place is no longer held) or "" (nothing at all).
        in_budget: whether it counts as one of the answers that were paid for.
        may_be_asked_again: whether later rounds may ask about the candidate again.
    """

    y: float
    teaches: str
    in_budget: bool
    may_be_asked_again: bool = False


NAN = float("nan")

MEANING: dict[AnswerKind, Meaning] = {
    AnswerKind.TRUE: Meaning(1.0, "mask", True),
    AnswerKind.NOTHING: Meaning(0.0, "background", True),
    # Most voxels of a badly shaped candidate are true foreground: learned as background they would destroy S.
    AnswerKind.SHAPE: Meaning(0.0, "doubt", True),
    AnswerKind.SWAPPED: Meaning(1.0, "exchanged", True),
    AnswerKind.CORRECTED: Meaning(0.0, "drawn", True),
    AnswerKind.MISSED: Meaning(NAN, "drawn", True),
    AnswerKind.UNSURE: Meaning(NAN, "", True),
    AnswerKind.SKIPPED: Meaning(NAN, "", False, may_be_asked_again=True),
}
