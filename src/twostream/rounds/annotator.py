"""The simulated annotator: it answers open queries by the truth rule, through the ledger, as a person does.

Knows the truth volume and two calls of the ledger, ``open_queries`` and ``tell``; must not know the loop or the models.
"""

from __future__ import annotations

import numpy as np

from twostream.candidates.candidate import Candidate
from twostream.candidates.truth import Truth
from twostream.project.ledger import Ledger
from twostream.project.records import Answer
from twostream.task.answers import AnswerKind

NAME = "simulated"
"""Name of the annotator in the ledger."""


class SimulatedAnnotator:
    """Answers by the truth rule (``docs/contracts.md``, *Answers*), with errors at a given rate.

    Args:
        truth: labels of the whole image.
        error_rate: probability that an answer is wrong: *nothing* instead of *true*, *true* instead of any other.
            *Unsure* is never changed.
        seconds_per_answer: time that is recorded with each answer.
        corrects: whether a badly shaped candidate is answered with a drawing of the true objects (*corrected*) rather
            than with *shape*.
        seconds_per_correction: time that is recorded with each drawing.
        seed: of the errors. Whether an answer is wrong depends only on the seed and the candidate's id.
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

    def answer_all(self, ledger: Ledger) -> int:
        """Answer every open query.

        Returns:
            The number of answers given.
        """
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

    def kind(self, candidate: Candidate) -> AnswerKind:
        """The kind of answer that this annotator gives to a candidate."""
        kind = self._truth.judge(candidate).kind
        rng = np.random.default_rng([self._seed, candidate.id])
        if kind is AnswerKind.UNSURE or rng.random() >= self._error_rate:
            return kind
        return AnswerKind.NOTHING if kind is AnswerKind.TRUE else AnswerKind.TRUE
