"""The simulated annotator: it answers open queries and windows by the truth, through the ledger, as a person does.

Knows the truth volume and the ledger's open queries, open windows and ``tell``; must not know the loop or the models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from twostream.candidates.candidate import Candidate
from twostream.candidates.identity import found_by
from twostream.candidates.truth import Truth
from twostream.project.ledger import Ledger
from twostream.project.records import Answer, Window
from twostream.task import FOUND_IOU
from twostream.task.answers import AnswerKind

NAME = "simulated"
"""Name of the annotator in the ledger."""


class SimulatedAnnotator:
    """Answers by the truth rule (``docs/contracts.md``, *Answers*), with errors at a given rate.

    Args:
        truth: labels of the whole image.
        error_rate: probability that an answer is wrong: *nothing* instead of *true*, *true* instead of any other.
            *Unsure* is never changed. In a window, probability that an object is overlooked.
        seconds_per_answer: time that is recorded with each answer, also with each object that is marked.
        corrects: whether a badly shaped candidate is answered with a drawing of the true objects (*corrected*) rather
            than with *shape*.
        seconds_per_correction: time that is recorded with each drawing.
        seed: of the errors. Whether an answer is wrong depends only on the seed and the candidate's id.
        proposed: returns the candidates that a round shows in its windows; without them nothing is shown there.
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
        proposed: Callable[[int], Sequence[Candidate]] = lambda round_number: (),
    ) -> None:
        self._truth, self._error_rate, self._corrects = truth, error_rate, corrects
        self._seconds, self._seconds_per_correction, self._seed = seconds_per_answer, seconds_per_correction, seed
        self._proposed = proposed

    def answer_all(self, ledger: Ledger) -> int:
        """Answer every open query, then every open window.

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
        windows = ledger.open_windows()
        return len(queries) + sum(self._search(ledger, window) for window in windows)

    def _search(self, ledger: Ledger, window: Window) -> int:
        """Mark the objects of a window that nothing shows, and close it.

        An object belongs to the window that holds the middle of its bounding box (``Truth.objects_in``). What a
        candidate of the round, a query or a missed object finds at ``FOUND_IOU`` needs no mark.

        Returns:
            The number of answers given.
        """
        asked = [query.candidate for query in ledger.queries() if query.round <= window.round]
        shown = [(c.box, c.mask) for c in (*self._proposed(window.round), *asked)]
        shown += [a.drawing for a in ledger.missed_objects() if a.drawing is not None]
        rng = np.random.default_rng([self._seed, 0, window.id])  # a candidate's is made of two numbers
        objects = self._truth.objects_in(window.box)
        unseen = [
            one for one, is_found in zip(objects, found_by(objects, shown, FOUND_IOU), strict=True) if not is_found
        ]
        answers = [
            Answer(None, AnswerKind.MISSED, NAME, drawing=drawing, seconds=self._seconds, window=window.id)
            for drawing in unseen
            if rng.random() >= self._error_rate
        ]
        answers.append(Answer(window.id, AnswerKind.NONE_MISSED, NAME, seconds=self._seconds))
        ledger.tell_all(answers)
        return len(answers)

    def kind(self, candidate: Candidate) -> AnswerKind:
        """The kind of answer that this annotator gives to a candidate."""
        kind = self._truth.judge(candidate).kind
        rng = np.random.default_rng([self._seed, candidate.id])
        if kind is AnswerKind.UNSURE or rng.random() >= self._error_rate:
            return kind
        return AnswerKind.NOTHING if kind is AnswerKind.TRUE else AnswerKind.TRUE
