"""The queue: which queries are left for whom, in which order, and who has answered what.

The windows of a round are queries as its candidates are, and come after them in every order: whoever looks for what was
missed knows by then what was found.

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
from collections.abc import Callable, Collection
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

    @property
    def per_minute(self) -> float | None:
        """Decisions a minute, of those that have a recorded time; None if none has one."""
        return 60 * self.decided / self.seconds if self.seconds > 0 else None


@dataclass(frozen=True)
class Left:
    """What is left of a round.

    Attributes:
        asked: queries of the round, windows among them.
        open: queries without any answer, windows among them.
        mine: queries that this person could be given now.
        second: answered queries that wait for a second opinion.
        by_others: open queries that other people are looking at.
        windows: windows of the round.
        open_windows: windows without any answer.
    """

    asked: int
    open: int
    mine: int
    second: int
    by_others: int
    windows: int
    open_windows: int


@dataclass
class _Round:
    """The queries of a round.

    Attributes:
        number: of the round.
        lines: its queries about candidates.
        windows: ids of its windows, in the order in which they were asked.
        wanted: {query id: how many people should answer it}; 1 for those that it lacks.
        probability: {candidate id: what the scorer believes}.
        open: queries without any answer.
        second: answered queries that wait for a second opinion.
        orders: {name: ids of queries}.
    """

    number: int
    lines: list[QueryLine]
    windows: list[int]
    wanted: dict[int, int]
    probability: dict[int, float]
    open: set[int] = field(default_factory=set)
    second: set[int] = field(default_factory=set)
    orders: dict[str, list[int]] = field(default_factory=dict)

    def place(self, query: int, answered_by: Collection[str]) -> None:
        """Note whether a query of the round is open or waits for a second opinion."""
        self.open.discard(query)
        self.second.discard(query)
        if not answered_by:
            self.open.add(query)
        elif len(answered_by) < self.wanted.get(query, 1):
            self.second.add(query)


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
        self._of_candidate: dict[int, set[int]] = {}  # {candidate: ids of answers}
        self._several: set[int] = set()  # candidates with several current answers
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
                if self._round and answer.query is not None and answer.round == self._round.number:
                    self._round.place(answer.query, self.answered_by(answer.query))

    def _take_in(self, answer: Answer) -> None:
        """Take in one answer."""
        person = self.people.setdefault(answer.annotator, Person())
        person.seconds += answer.seconds
        person.decided += answer.seconds > 0 and not answer.is_retraction
        if answer.supersedes is not None and (old := self._answers.pop(answer.supersedes, None)):
            self.people[old.annotator].answers -= 1
            if old.query is not None:
                self._current[old.query].pop(old.id)
                self._note(old, set.discard)
        if answer.is_retraction:
            return
        person.answers += 1
        self._answers[answer.id] = answer
        if answer.query is not None:
            self._current.setdefault(answer.query, {})[answer.id] = answer.annotator
            self._note(answer, set.add)

    def _note(self, answer: Answer, change: Callable[[set[int], int], None]) -> None:
        """Note that a candidate has one current answer more or less."""
        if answer.candidate is None:
            return
        ids = self._of_candidate.setdefault(answer.candidate, set())
        change(ids, answer.id)
        change_several = self._several.add if len(ids) > 1 else self._several.discard
        change_several(answer.candidate)

    def answered_by(self, query: int) -> set[str]:
        """Names of the people whose current answers a query has."""
        return set(self._current.get(query, {}).values())

    def shared(self) -> list[Answer]:
        """The current answers to candidates that have several, oldest first, without their drawings.

        Agreement and disagreements follow from these alone, and they are few.
        """
        with self._lock:
            self.refresh()
            return [self._answers[i] for i in sorted(i for one in self._several for i in self._of_candidate[one])]

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
            # Of a window nobody gives a second opinion: people would mark the same objects twice.
            wanted = {one.id: 2 for one in lines if _fraction(f"{identity}:{one.id}") < share}
            windows = [window.id for window in self._project.ledger.windows(number)]
            self._round = _Round(number, lines, windows, wanted, self._probabilities(number, lines))
            for query in (*(one.id for one in lines), *windows):
                self._round.place(query, self.answered_by(query))
        return self._round

    def _probabilities(self, number: int, lines: list[QueryLine]) -> dict[int, float]:
        """{candidate id: the scorer's probability} of a round's queries; empty if it is not known."""
        found = read_probabilities(self._project, number)
        if found is None:
            return {}
        asked = np.isin(found.ids, np.array([line.candidate for line in lines], found.ids.dtype))
        return dict(zip(found.ids[asked].tolist(), found.probability[asked].tolist(), strict=True))

    def probability(self, line: QueryLine) -> float:
        """What the scorer believes of a candidate; S's score if it has learned nothing yet."""
        found = self._round.probability.get(line.candidate) if self._round else None
        return line.score if found is None else found

    def order(self, name: str, annotator: str) -> list[int]:
        """All queries of the open round in an order, windows last.

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
                found.orders[key] = [line.id for line in self._sorted(found.lines, name, annotator)] + found.windows
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
            ordered, found = self.order(order, annotator), self._lines()
            if found is None:
                return []
            second = self._second_for(found, annotator)
            free = [i for i in ordered if i in found.open] + [i for i in ordered if i in second]
        now = time.time()
        seconds = self._project.config.proofreading.lease_seconds
        return self._project.ledger.leases.take(
            annotator, free, number=number, wanted=found.wanted, until=now + seconds, now=now
        )

    def _second_for(self, found: _Round, annotator: str) -> set[int]:
        """Queries about which a person could give the second opinion."""
        return {i for i in found.second if annotator not in self.answered_by(i)}

    def left(self, annotator: str) -> Left:
        """What is left of the open round for everybody, and for one person."""
        with self._lock:
            self.refresh()
            found = self._lines()
            if found is None:
                return Left(0, 0, 0, 0, 0, 0, 0)
            by_others = self._project.ledger.leases.held_by_others(annotator, time.time())
            num_open, taken = len(found.open), len(found.open & by_others)
            mine = num_open - taken + len(self._second_for(found, annotator))
            asked, num_windows = len(found.lines) + len(found.windows), len(found.windows)
            open_windows = len(found.open & set(found.windows))
            return Left(asked, num_open, mine, len(found.second), taken, num_windows, open_windows)


def _fraction(text: str) -> float:
    """A number in [0, 1) that belongs to a text."""
    return zlib.crc32(text.encode()) / 2**32
