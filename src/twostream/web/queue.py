"""The queue: which queries are left for whom, in which order, and who has answered what.

The state of all answers is kept in memory and brought up to date by reading the answers that are newer than the last
one known, so that it costs the same with a hundred answers as with a hundred thousand, and answers that other processes
record are seen as well.

Knows the ledger and the settings of proofreading; must not know requests or pictures.
"""

from __future__ import annotations

import math
import threading
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from twostream.base.errors import InputError
from twostream.project.probabilities import read_probabilities
from twostream.project.project import Project
from twostream.project.records import Answer, QueryLine
from twostream.report.gallery import by_cluster

ORDERS = ("cluster", "score", "uncertainty", "shuffled")
STEP_SECONDS = 1.0
"""How long the project's next step is remembered before it is read again."""


@dataclass
class Person:
    """What a person has done.

    Attributes:
        answers: their current answers.
        seconds: time of all their answers, also of those that were changed or taken back.
        decided: answers that a time was recorded for.
    """

    answers: int = 0
    seconds: float = 0.0
    decided: int = 0


@dataclass(frozen=True)
class Left:
    """What is left of a round.

    Attributes:
        asked: queries of the round.
        open: queries without any answer.
        mine: queries that this person could be given now.
        second: answered queries that wait for a second opinion.
        by_others: open queries that other people are looking at.
    """

    asked: int
    open: int
    mine: int
    second: int
    by_others: int


@dataclass
class _Round:
    """The queries of a round."""

    number: int
    lines: list[QueryLine]
    wanted: dict[int, int]
    probability: dict[int, float]
    orders: dict[str, list[int]] = field(default_factory=dict)


class Queue:
    """The queue of a project. Threads may use it at once.

    Args:
        project: the project.
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self._lock = threading.RLock()
        self._last = 0  # id of the newest answer that is known
        self._answers: dict[int, Answer] = {}
        self._current: dict[int, dict[int, str]] = {}  # {query: {answer id: annotator}}
        self.people: dict[str, Person] = {}
        self._round: _Round | None = None
        self._step: tuple[int, str] = (0, "")
        self._step_read = -math.inf

    @property
    def last(self) -> int:
        """Id of the newest answer that is known."""
        return self._last

    # -- answers --------------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Take in the answers that were recorded since the last call, by whatever process."""
        with self._lock:
            for answer in self._project.ledger.answers_after(self._last):
                self._last = answer.id
                self._take_in(answer)

    def _take_in(self, answer: Answer) -> None:
        """Take in one answer."""
        person = self.people.setdefault(answer.annotator, Person())
        person.seconds += answer.seconds
        person.decided += answer.seconds > 0
        if answer.supersedes is not None and (old := self._answers.pop(answer.supersedes, None)):
            self.people[old.annotator].answers -= 1
            if old.query is not None:
                self._current[old.query].pop(old.id)
        if answer.is_retraction:
            return
        person.answers += 1
        self._answers[answer.id] = answer
        if answer.query is not None:
            self._current.setdefault(answer.query, {})[answer.id] = answer.annotator

    def answered_by(self, query: int) -> set[str]:
        """Names of the people whose current answers a query has."""
        return set(self._current.get(query, {}).values())

    def current(self) -> list[Answer]:
        """All current answers, oldest first, without their drawings."""
        with self._lock:
            self.refresh()
            return [self._answers[i] for i in sorted(self._answers)]

    # -- the round ------------------------------------------------------------------------------------------------

    def step(self, *, fresh: bool = False) -> tuple[int, str]:
        """(round, name) of the project's next step, as it was at most ``STEP_SECONDS`` ago, or now if ``fresh``."""
        with self._lock:
            if fresh or time.monotonic() - self._step_read > STEP_SECONDS:
                self._step, self._step_read = self._project.next_step(), time.monotonic()
            return self._step

    def open_round(self) -> int | None:
        """The round whose queries may be answered now; None while the next one is computed."""
        number, step = self.step()
        return number if step == "answer" else None

    def _lines(self) -> _Round | None:
        """The queries of the open round."""
        number = self.open_round()
        if number is None:
            return None
        if self._round is None or self._round.number != number:
            lines = self._project.ledger.query_lines(number)
            share, identity = self._project.config.proofreading.double_share, self._project.id
            wanted = {one.id: 2 for one in lines if _fraction(f"{identity}:{one.id}") < share}
            self._round = _Round(number, lines, wanted, self._probabilities(number))
        return self._round

    def _probabilities(self, number: int) -> dict[int, float]:
        """{candidate id: the scorer's probability} of a round; empty if it is not known."""
        found = read_probabilities(self._project, number)
        return {} if found is None else found.of_id

    def probability(self, line: QueryLine) -> float:
        """What the scorer believes of a candidate; S's score if it has learned nothing yet."""
        found = self._round.probability.get(line.candidate) if self._round else None
        return line.score if found is None else found

    def order(self, name: str, annotator: str) -> list[int]:
        """All queries of the open round in an order.

        Args:
            name: "cluster" (alike ones follow each other), "score" (highest first), "uncertainty" (least sure first) or
                "shuffled" (the same for a person at every call).
            annotator: name of the person.

        Raises:
            InputError: there is no such order.
        """
        if name not in ORDERS:
            raise InputError(f"the order is {name!r}; expected one of {', '.join(ORDERS)}.")
        with self._lock:
            found = self._lines()
            if found is None:
                return []
            key = name if name != "shuffled" else f"shuffled:{annotator}"
            if key not in found.orders:
                found.orders[key] = [line.id for line in self._sorted(found.lines, name, annotator)]
            return found.orders[key]

    def _sorted(self, lines: list[QueryLine], name: str, annotator: str) -> list[QueryLine]:
        if name == "cluster":
            return by_cluster(lines)
        if name == "score":
            return sorted(lines, key=lambda line: -line.score)
        if name == "uncertainty":
            return sorted(lines, key=lambda line: abs(self.probability(line) - 0.5))
        rng = np.random.default_rng(zlib.crc32(f"{self._project.id}:{annotator}".encode()))
        return [lines[i] for i in rng.permutation(len(lines))]

    # -- giving out -----------------------------------------------------------------------------------------------

    def lease(self, annotator: str, order: str, number: int) -> list[int]:
        """Queries for a person, leased to them: first those without any answer, then second opinions.

        Args:
            annotator: name of the person.
            order: see ``order``.
            number: how many the person should hold.

        Returns:
            Ids of queries; fewer than ``number`` if no more are left.
        """
        with self._lock:
            self.refresh()
            wanted: Mapping[int, int] = self._round.wanted if self._lines() and self._round else {}
            free = [i for i in self.order(order, annotator) if self._is_wanted(i, annotator, wanted)]
        free.sort(key=lambda i: bool(self._current.get(i)))
        now = time.time()
        seconds = self._project.config.proofreading.lease_seconds
        return self._project.ledger.leases.take(
            annotator, free, number=number, wanted=wanted, until=now + seconds, now=now
        )

    def _is_wanted(self, query: int, annotator: str, wanted: Mapping[int, int]) -> bool:
        answered = self._current.get(query)
        if not answered:
            return True
        names = set(answered.values())
        return annotator not in names and len(names) < wanted.get(query, 1)

    def left(self, annotator: str) -> Left:
        """What is left of the open round for everybody, and for one person."""
        with self._lock:
            self.refresh()
            found = self._lines()
            if found is None:
                return Left(0, 0, 0, 0, 0)
            ids = [line.id for line in found.lines]
            open_ = {i for i in ids if not self._current.get(i)}
            second = [i for i in ids if 0 < len(self.answered_by(i)) < found.wanted.get(i, 1)]
            mine = [i for i in ids if self._is_wanted(i, annotator, found.wanted)]
        by_others = self._project.ledger.leases.held_by_others(annotator, time.time())
        taken = len(open_ & by_others)
        return Left(len(ids), len(open_), len(set(mine) - {i for i in by_others if i in open_}), len(second), taken)


def _fraction(text: str) -> float:
    """A number in [0, 1) that belongs to a text."""
    return zlib.crc32(text.encode()) / 2**32
