"""Answers that `export --what answers` has written, recorded in a copy or a fork of the project they come from.

Every answer keeps its annotator, time, seconds, drawing, and what it supersedes; it gets a number of its own here. What
is recorded already is passed over, so the same table may be imported twice. All rows are checked before the first is
recorded. ``docs/answers.md`` explains the columns and the rules.

Knows the ledger and tables; must not read images, and must not import torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from twostream.base.errors import InputError, LedgerError
from twostream.project.answer_sheet import AnswerSheet
from twostream.project.exported_rows import GivenAnswer, given_answers
from twostream.project.project import Project
from twostream.project.recorded import Recorded
from twostream.project.records import Answer, Query, Window


def read_exported_answers(project: Project, sheet: AnswerSheet) -> Recorded:
    """Record the answers of a table that `export --what answers` has written, or of ``answers.jsonl`` of a project.

    Args:
        project: a copy or a fork of the project they come from, or that project itself.
        sheet: the table.

    Returns:
        What became of the rows.

    Raises:
        InputError: a row does not fit; nothing is recorded.
        LedgerError: somebody answered the same queries in the meantime; the error says how much is recorded.
    """
    return _Import(project, sheet).record()


class _Import:
    """Imports one table into one project; see ``read_exported_answers``."""

    def __init__(self, project: Project, sheet: AnswerSheet) -> None:
        self.project, self.sheet, self.ledger = project, sheet, project.ledger
        self.done, self.unasked = Recorded(), 0
        self.queries: dict[int, list[Query]] = {}
        for query in self.ledger.queries():
            self.queries.setdefault(query.candidate.id, []).append(query)
        self.windows = self.ledger.windows()
        round_number, step = project.next_step()
        self.round, self.num_learned = round_number, round_number - (step == "refit")
        here = self.ledger.all_answers()
        self.recorded: dict[tuple[object, ...], list[Answer]] = {}
        for answer in here:
            self.recorded.setdefault(_identity(answer, str(answer.drawing[0]) if answer.drawing else ""), []).append(
                answer
            )
        self.of_key = {a.key: a for a in here if a.key}
        replaced = {a.supersedes for a in here}
        self.current: dict[int | None, dict[int, Answer]] = {}  # by query, then by number
        for answer in here:
            if answer.id not in replaced and not answer.is_retraction:
                self.current.setdefault(answer.query, {})[answer.id] = answer
        self.next_id = max([0, *(a.id for a in here)]) + 1
        self.number_here: dict[int, int] = {}  # of each answer of the table that is recorded, or will be

    def record(self) -> Recorded:
        """Check all rows, then record what is new."""
        sheet, done = self.sheet, self.done
        given = given_answers(self.project, sheet)
        source = given[0].row.cells["project"]
        names = ", ".join(sorted({one.answer.annotator for one in given}))
        done.notes += [sheet.understood] if sheet.understood else []
        done.notes.append(f"answers of project {source} by {names}; each keeps its annotator, time and seconds")
        new = [(one, answer) for one in given if (answer := self._new(one)) is not None]
        if self.unasked == len(given):
            raise InputError(
                f"{sheet.path} holds {len(given)} answers, and {self.project.root} has asked about none of their "
                f"candidates and windows. Expected answers of a copy or a fork of this project that asked about the "
                f"same ones."
            )
        if self.unasked:
            done.notes.append(
                f"{self.unasked} answers are about candidates or windows that this project has not asked about: not "
                f"recorded; import the table again when it has"
            )
        self._write(new)
        return done

    # -- the table ----------------------------------------------------------------------------------------------------

    # -- what is new --------------------------------------------------------------------------------------------------

    def _new(self, one: GivenAnswer) -> Answer | None:
        """The answer to record, with the numbers of this project; None if it is recorded, or was not asked here."""
        answer = one.answer
        if answer.query is not None or answer.window is not None:
            asked = self._query(one) if answer.candidate is not None else self._window(one)
            if asked is None:
                self.unasked += 1
                return None
            if answer.query is None:
                answer = replace(answer, window=asked.id, round=asked.round)
            else:
                answer = replace(answer, query=asked.id, round=asked.round)
        else:
            answer = replace(answer, round=min(answer.round, self.round))
        known = self._known(one, answer)
        if known is not None:
            self.number_here[one.answer.id] = known.id
            self.done.passed_over += 1
            return None
        if one.drawn_box and answer.drawing is None:
            raise self.sheet.error(
                one.row,
                "drawing",
                "a drawing is not in CSV, only its box; export the answers as JSONL, which has the mask",
            )
        answer = replace(answer, supersedes=self._superseded(one, answer), id=self.next_id)
        current = self.current.setdefault(answer.query, {})
        self._check_current(one, answer, current)
        self._count(answer, current)
        current.pop(answer.supersedes or 0, None)
        if not answer.is_retraction:
            current[answer.id] = answer
        self.number_here[one.answer.id] = answer.id
        self.next_id += 1
        return answer

    def _query(self, one: GivenAnswer) -> Query | None:
        """The query of this project about the candidate of an answer; None if it was not asked, or looked otherwise."""
        found = [
            query
            for query in self.queries.get(one.answer.candidate or 0, [])
            if not one.box or str(query.candidate.box) == one.box
        ]
        found.sort(key=lambda query: (query.id == one.answer.query, query.round == one.answer.round, query.round))
        return found[-1] if found else None

    def _window(self, one: GivenAnswer) -> Window | None:
        """The window of this project that an answer is about, or in which an object was marked; None without one."""
        answer = one.answer
        number, box = (answer.window, one.window_box) if answer.query is None else (answer.query, one.box)
        found = [w for w in self.windows if (str(w.box) == box if box else w.id == number)]
        found.sort(key=lambda window: (window.id == number, window.round == answer.round, window.round))
        return found[-1] if found else None

    def _known(self, one: GivenAnswer, answer: Answer) -> Answer | None:
        """The answer of this project that is the one in the table, or None.

        Raises:
            InputError: it says something else in the table.
        """
        found = self.recorded.get(_identity(answer, one.drawn_box), [])
        if answer.key in self.of_key:  # one decision that was sent to two copies, at different times
            found = [self.of_key[answer.key]]
        if not found:
            return None
        # Two answers of one millisecond are told apart by what they say.
        known = min(found, key=lambda other: len(_differences(answer, other)))
        for column, recorded in _differences(answer, known).items():
            raise self.sheet.error(
                one.row,
                column,
                f"answer {known.id} of this project is the same one, and is recorded with {recorded}. To correct "
                f"answers, remove the column answer, and pass --annotator",
            )
        return known

    def _superseded(self, one: GivenAnswer, answer: Answer) -> int | None:
        """Number here of the answer that an answer replaces."""
        replaced = one.answer.supersedes
        if replaced is None:
            return None
        if replaced not in self.number_here:
            raise self.sheet.error(
                one.row, "supersedes", f"the table has no answer {replaced} before it; export all answers"
            )
        return self.number_here[replaced]

    def _check_current(self, one: GivenAnswer, answer: Answer, current: dict[int, Answer]) -> None:
        """Raise InputError if an answer contradicts those that stand here, ``current`` of the same query."""
        if answer.supersedes is not None and answer.supersedes not in current:
            raise self.sheet.error(
                one.row,
                "supersedes",
                f"that is answer {answer.supersedes} of this project, and another answer has replaced it here; remove "
                f"this row",
            )
        if answer.query is None or answer.adjudicates:
            return
        for other in current.values():
            mine = other.annotator == answer.annotator and other.id != answer.supersedes
            if mine:
                raise self.sheet.error(
                    one.row,
                    "query",
                    f"{answer.annotator} has answered query {answer.query} of this project otherwise ({other.kind}, "
                    f"answer {other.id}); remove this row",
                )

    def _count(self, answer: Answer, current: dict[int, Answer]) -> None:
        done = self.done
        done.late += answer.query is not None and answer.round < self.num_learned
        if answer.supersedes is not None:
            done.retracted += answer.is_retraction
            done.corrected += not answer.is_retraction
            return
        done.new += 1
        beside = {a.annotator for a in current.values() if a.query is not None} - {answer.annotator}
        done.second += bool(beside)
        done.beside |= beside

    # -- recording ----------------------------------------------------------------------------------------------------

    def _write(self, new: Sequence[tuple[GivenAnswer, Answer]]) -> None:
        """Record answers in their order. Each is on disk before the next one."""
        try:
            for number, (one, answer) in enumerate(new):
                if refused := self.ledger.restore([answer]).get(answer.id):
                    raise LedgerError(
                        f"{self.sheet.path}, row {one.row.number}: {refused} Is somebody else answering just now? "
                        f"{number} of {len(new)} answers are recorded; import the table again for the rest."
                    )
        finally:
            self.ledger.append_to_log()


def _identity(answer: Answer, drawn_box: str) -> tuple[object, ...]:
    """What tells an answer from all others, whatever its number: about what, by whom, when."""
    return answer.query, answer.annotator, answer.answered_at, drawn_box if answer.query is None else ""


def _differences(given: Answer, recorded: Answer) -> dict[str, str]:
    """{column: what is recorded} of all that two answers with one identity say differently."""
    found = {
        name: repr(getattr(recorded, name))
        for name in ("query", "window", "annotator", "seconds", "adjudicates")
        if getattr(given, name) != getattr(recorded, name)
    }
    if given.kind != recorded.kind:
        found["kind"] = repr(str(recorded.kind))
    if given.reason != recorded.reason.strip():
        found["reason"] = repr(recorded.reason)
    if given.drawing and recorded.drawing and given.drawing[1].tobytes() != recorded.drawing[1].tobytes():
        found["drawing"] = "another mask"
    return found
