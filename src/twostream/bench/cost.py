"""What answers cost: seconds by the kind of answer and by how many sections the object has.

Not all answers cost the same. To confirm a small object takes a glance; a large one has to be followed through its
sections, and what is wrong with a shape has to be seen. Rows of the benchmark count answers, so that other seconds can
be tried without running anything again.

Knows kinds of answers and numbers; must not know candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from twostream.base.errors import InputError
from twostream.project.ledger import Ledger
from twostream.rounds.annotator import NAME as SIMULATED
from twostream.task.answers import MEANING, AnswerKind

SECTION = "section"
"""Name of the seconds of each further section, on the command line."""
MIN_MEASURED = 5
"""Answers of a kind by people, from which its seconds are taken."""


def _assumed() -> dict[str, float]:
    # Three seconds to look and press a key; two more to see what is wrong with a shape, or with the sides of a synapse.
    # A drawing takes as long as the simulated annotator's (``annotator.seconds_per_correction``).
    quick, slow, drawing = 3.0, 5.0, 30.0
    return {
        AnswerKind.TRUE: quick, AnswerKind.NOTHING: quick, AnswerKind.SHAPE: slow, AnswerKind.SWAPPED: slow,
        AnswerKind.UNSURE: slow, AnswerKind.CORRECTED: drawing,
    }  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """Seconds of an answer: those of its kind, and some for every section of the object after the first.

    The values are assumptions until ``measured`` replaces them.

    Attributes:
        seconds: {kind: seconds}.
        per_section: seconds for each further section.
    """

    seconds: Mapping[str, float] = field(default_factory=_assumed)
    per_section: float = 0.25

    def of(self, told: Mapping[str, int], further_sections: int) -> float:
        """Seconds of answers.

        Args:
            told: {kind: number of answers}.
            further_sections: of all their objects together, without the first section of each.

        Raises:
            InputError: a kind has no seconds.
        """
        unknown = sorted(set(told) - set(self.seconds))
        if unknown:
            raise InputError(f"an answer {unknown[0]!r} has no seconds; give some with --seconds {unknown[0]}=4.")
        return sum(self.seconds[kind] * number for kind, number in told.items()) + self.per_section * further_sections

    def overridden(self, texts: Sequence[str]) -> Cost:
        """With other values, as "KIND=SECONDS", or "section=SECONDS" for each further section.

        Raises:
            InputError: a text is not of this form, or names no kind of answer.
        """
        changed: dict[str, float] = {}
        for text in texts:
            name, _, value = text.partition("=")
            if name != SECTION and name not in MEANING:
                raise InputError(f"--seconds names {name!r}; expected {SECTION} or one of {', '.join(MEANING)}.")
            try:
                changed[name] = float(value)
            except ValueError:
                changed[name] = -1.0
            if not 0 <= changed[name] < float("inf"):
                raise InputError(f"--seconds is {text!r}; expected a kind of answer and its seconds, as true=2.5.")
        per_section = changed.pop(SECTION, self.per_section)
        return replace(self, seconds={**self.seconds, **changed}, per_section=per_section)

    def measured(self, ledger: Ledger) -> Cost:
        """With the median of the seconds that people took for each kind that they gave ``MIN_MEASURED`` times.

        Those are seconds of whole answers, so further sections cost nothing more.

        Raises:
            InputError: there is no such kind.
        """
        taken: dict[str, list[float]] = {}
        for answer in ledger.answers_after(0):
            if answer.annotator != SIMULATED and answer.kind in MEANING and answer.seconds > 0:
                taken.setdefault(answer.kind, []).append(answer.seconds)
        found = {kind: median(values) for kind, values in taken.items() if len(values) >= MIN_MEASURED}
        if not found:
            raise InputError(
                f"nobody has given {MIN_MEASURED} answers of one kind in that project, so it has no seconds to take; "
                "leave out --seconds-of."
            )
        return replace(self, seconds={**self.seconds, **found}, per_section=0.0)
