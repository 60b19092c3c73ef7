"""The simulated annotator: answers open queries by the truth rule, through the same door as a person.

Knows truth volumes and the ledger's two calls; must not know the loop or the models.
"""

from __future__ import annotations

import numpy as np

from twostream.candidates.candidate import Candidate
from twostream.candidates.truth import Truth
from twostream.project.ledger import Ledger
from twostream.project.records import Answer
from twostream.task.answers import AnswerKind

NAME = "simulated"


class SimulatedAnnotator:
    """Answers by the truth rule, wrong with a set rate.

    Args:
        truth: what is true.
        error_rate: share of the answers that are turned round.
        seconds_per_answer: recorded with each answer.
        corrects: whether a badly shaped candidate is answered with the true objects in its place, drawn.
        seconds_per_correction: recorded with a drawing.
        seed: of the errors; an error depends on (seed, candidate id) alone, whatever else was asked.
    """

    def __init__(
        self,
        truth: Truth,
        *,
        error_rate: float = 0.0,
        seconds_per_answer: float = 4.0,
        corrects: bool = False,
        seconds_per_correction: float = 30.0,
        seed: int = 0,
    ) -> None:
        self._truth, self._error_rate, self._corrects = truth, error_rate, corrects
        self._seconds, self._seconds_per_correction, self._seed = seconds_per_answer, seconds_per_correction, seed

    def kind(self, candidate: Candidate) -> AnswerKind:
        """What this annotator says of a candidate."""
        kind = self._truth.judge(candidate).kind
        rng = np.random.default_rng([self._seed, candidate.id])
        if kind is AnswerKind.UNSURE or rng.random() >= self._error_rate:
            return kind
        return AnswerKind.NOTHING if kind is AnswerKind.TRUE else AnswerKind.TRUE

    def answer_all(self, ledger: Ledger) -> int:
        """Answer every open query; returns how many answers were given."""
        queries = ledger.open_queries()
        for query in queries:
            kind = self.kind(query.candidate)
            if self._corrects and kind is AnswerKind.SHAPE:
                drawing = self._truth.drawing(query.candidate)
                seconds = self._seconds_per_correction
                ledger.tell(Answer(query.id, AnswerKind.CORRECTED, NAME, drawing=drawing, seconds=seconds))
            else:
                ledger.tell(Answer(query.id, kind, NAME, seconds=self._seconds))
        return len(queries)
