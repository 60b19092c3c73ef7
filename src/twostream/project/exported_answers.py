"""Answers that `export --what answers` has written, recorded in a copy or a fork of the project they come from.

Every answer keeps its annotator, time, seconds, drawing, and what it supersedes; it gets a number of its own here. What
is recorded already is passed over, so the same table may be imported twice. All rows are checked before the first is
recorded. ``docs/answers.md`` explains the columns and the rules.

Knows the ledger and tables; must not read images, and must not import torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from twostream.base.errors import InputError, LedgerError
from twostream.base.geometry import Box
from twostream.candidates.table import DEFAULT_VOLUME
from twostream.project.agreement import RETRACTED
from twostream.project.answer_log import unpack_drawing
from twostream.project.answer_sheet import AnswerSheet, Row
from twostream.project.project import Project
from twostream.project.recorded import Recorded
from twostream.project.records import Answer, Query
from twostream.task.answers import MEANING, AnswerKind, answer_kind

MARKS = {"answer", "annotator", "time", "supersedes"}
"""Columns by which a table of exported answers is known; no other table has all of them."""
NEEDED = MARKS | {
    "project",
    "task",
    "round",
    "query",
    "candidate",
    "kind",
    "reason",
    "seconds",
    "adjudicates",
    "drawing",
}
TRUTH = {"true": True, "1": True, "false": False, "0": False}


def is_exported(sheet: AnswerSheet) -> bool:
    """Whether a table is one of exported answers."""
    return set(sheet.columns) >= MARKS


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
    missing = sorted(NEEDED - set(sheet.columns))
    if missing:
        raise InputError(
            f"{sheet.path} holds exported answers, but lacks the columns {', '.join(missing)}. Export them again, or "
            f"remove the column answer, to have it read as a table that a person has filled in."
        )
    return _Import(project, sheet).record()


@dataclass(frozen=True)
class _Given:
    """A row of the table.

    Attributes:
        row: the row.
        answer: with the numbers that it had where it was given.
        box: of its candidate, as text; "" if the table has none.
        drawn_box: of its drawing, as text; "" without a drawing. The answer has no drawing where the table has no mask.
    """

    row: Row
    answer: Answer
    box: str
    drawn_box: str


class _Import:
    """Imports one table into one project; see ``read_exported_answers``."""

    def __init__(self, project: Project, sheet: AnswerSheet) -> None:
        self.project, self.sheet, self.ledger = project, sheet, project.ledger
        self.done, self.unasked = Recorded(), 0
        self.queries: dict[int, list[Query]] = {}
        for query in self.ledger.queries():
            self.queries.setdefault(query.candidate.id, []).append(query)
        round_number, step = project.next_step()
        self.round, self.num_learned = round_number, round_number - (step == "refit")
        here = self.ledger.all_answers()
        self.recorded: dict[tuple[object, ...], list[Answer]] = {}
        for answer in here:
            self.recorded.setdefault(_identity(answer, str(answer.drawing[0]) if answer.drawing else ""), []).append(
                answer
            )
        replaced = {a.supersedes for a in here}
        self.current: dict[int | None, dict[int, Answer]] = {}  # by query, then by number
        for answer in here:
            if answer.id not in replaced:
                self.current.setdefault(answer.query, {})[answer.id] = answer
        self.next_id = max([0, *(a.id for a in here)]) + 1
        self.number_here: dict[int, int] = {}  # of each answer of the table that is recorded, or will be

    def record(self) -> Recorded:
        """Check all rows, then record what is new."""
        sheet, done = self.sheet, self.done
        given = sorted((self._given(row) for row in sheet.rows), key=lambda one: one.answer.id)
        source = self._check_origin(given)
        names = ", ".join(sorted({one.answer.annotator for one in given}))
        done.notes += [sheet.understood] if sheet.understood else []
        done.notes.append(f"answers of project {source} by {names}; each keeps its annotator, time and seconds")
        new = [(one, answer) for one in given if (answer := self._new(one)) is not None]
        if self.unasked == len(given):
            raise InputError(
                f"{sheet.path} holds {len(given)} answers, and {self.project.root} has asked about none of their "
                f"candidates. Expected answers of a copy or a fork of this project that asked about the same ones."
            )
        if self.unasked:
            done.notes.append(
                f"{self.unasked} answers are about candidates that this project has not asked about: not recorded; "
                f"import the table again when it has"
            )
        self._write(new)
        return done

    # -- the table ----------------------------------------------------------------------------------------------------

    def _given(self, row: Row) -> _Given:
        """The answer of a row as it was given."""
        sheet, cells = self.sheet, row.cells
        kind = cells["kind"].lower()
        if kind not in MEANING:
            raise sheet.error(row, "kind", f"expected one of {', '.join(map(str, MEANING))}")
        if cells["task"] != self.project.config.task:
            raise sheet.error(row, "task", f"this project looks for {self.project.config.task}")
        for column in ("annotator", "project"):
            if not cells[column]:
                raise sheet.error(row, column, f"expected the {column} of the answer")
        adjudicates = TRUTH.get(cells["adjudicates"].lower())
        if adjudicates is None:
            raise sheet.error(row, "adjudicates", "expected true or false")
        drawing, drawn_box = self._drawing(row)
        answer = Answer(
            self._number(row, "query"),
            answer_kind(kind),
            cells["annotator"],
            reason=cells["reason"],
            drawing=drawing,
            seconds=self._seconds(row),
            supersedes=self._number(row, "supersedes"),
            adjudicates=adjudicates,
            volume=cells.get("volume") or DEFAULT_VOLUME,
            task=cells["task"],
            id=sheet.whole(row, "answer"),
            answered_at=self._time(row),
            candidate=self._number(row, "candidate"),
            round=sheet.whole(row, "round"),
        )
        if (answer.query is None) != (kind == AnswerKind.MISSED) or (answer.query is None) != (
            answer.candidate is None
        ):
            raise sheet.error(row, "query", "every answer has a query and a candidate; only missed has neither")
        if MEANING[kind].teaches == "drawn" and not drawn_box:
            raise sheet.error(row, "drawing", f"an answer {kind} has a drawing")
        return _Given(row, answer, cells.get("box", ""), drawn_box)

    def _number(self, row: Row, column: str) -> int | None:
        return self.sheet.whole(row, column) if row.cells[column] else None

    def _seconds(self, row: Row) -> float:
        seconds = self.sheet.number(row, "seconds")
        if not (math.isfinite(seconds) and seconds >= 0):
            raise self.sheet.error(row, "seconds", "expected a time of at least 0")
        return seconds

    def _time(self, row: Row) -> str:
        text = row.cells["time"]
        try:
            known = datetime.fromisoformat(text).tzinfo is not None
        except ValueError:
            known = False
        if not known:
            raise self.sheet.error(
                row,
                "time",
                "expected a time as export writes it, 2026-01-31T12:00:00.000+00:00. Did a spreadsheet save it?",
            )
        return text

    def _drawing(self, row: Row) -> tuple[tuple[Box, np.ndarray] | None, str]:
        """What was drawn, None if the table has no mask; and its box as text, "" if nothing was drawn."""
        text = row.cells["drawing"]
        if not text.startswith("{"):
            return None, text
        try:
            box, mask = unpack_drawing(json.loads(text))
        except Exception:  # damaged base64 and zlib raise many kinds
            raise self.sheet.error(
                row, "drawing", "expected box and mask as export writes them; the value is damaged"
            ) from None
        top, num_sides = int(mask.max(initial=0)), self.project.task.num_sides
        if not self.project.image.box.contains(box):
            raise self.sheet.error(
                row, "drawing", f"it lies outside the image, which holds {self.project.image.box} (Z, Y, X voxels)"
            )
        if not 1 <= top <= num_sides:
            raise self.sheet.error(row, "drawing", f"its mask holds values up to {top}; expected 1 to {num_sides}")
        return (box, mask), str(box)

    def _check_origin(self, given: Sequence[_Given]) -> str:
        """The id of the project that the answers come from, after checking that it is one."""
        first: dict[int, Row] = {}
        if not given:
            raise InputError(f"{self.sheet.path} holds no answers.")
        source = given[0].row.cells["project"]
        for one in given:
            if one.row.cells["project"] != source:
                raise self.sheet.error(one.row, "project", f"other rows are of {source}; import one project at a time")
            if one.answer.id in first:
                other = first[one.answer.id].number
                raise self.sheet.error(one.row, "answer", f"row {other} is this answer already; keep one")
            first[one.answer.id] = one.row
        if source != self.project.id and "box" not in self.sheet.columns:
            raise InputError(
                f"{self.sheet.path} has no column box, by which its candidates could be found in {self.project.root}, "
                f"and is of project {source}. Write it there by `twostream export --what answers --format jsonl`."
            )
        return source

    # -- what is new --------------------------------------------------------------------------------------------------

    def _new(self, one: _Given) -> Answer | None:
        """The answer to record, with the numbers of this project; None if it is recorded, or was not asked here."""
        answer, query = one.answer, self._query(one)
        if answer.query is not None:
            if query is None:
                self.unasked += 1
                return None
            answer = replace(answer, query=query.id, round=query.round)
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
        if MEANING[answer.kind].teaches == "exchanged" and self.project.task.num_sides == 1:
            raise self.sheet.error(one.row, "kind", "the objects of this project have no sides")
        answer = replace(answer, supersedes=self._superseded(one, answer), id=self.next_id)
        current = self.current.setdefault(answer.query, {})
        self._check_current(one, answer, current)
        self._count(answer, current)
        current.pop(answer.supersedes or 0, None)
        current[answer.id] = answer
        self.number_here[one.answer.id] = answer.id
        self.next_id += 1
        return answer

    def _query(self, one: _Given) -> Query | None:
        """The query of this project about the candidate of an answer; None if it was not asked, or looked otherwise."""
        found = [
            query
            for query in self.queries.get(one.answer.candidate or 0, [])
            if not one.box or str(query.candidate.box) == one.box
        ]
        found.sort(key=lambda query: (query.id == one.answer.query, query.round == one.answer.round, query.round))
        return found[-1] if found else None

    def _known(self, one: _Given, answer: Answer) -> Answer | None:
        """The answer of this project that is the one in the table, or None.

        Raises:
            InputError: it says something else in the table.
        """
        found = self.recorded.get(_identity(answer, one.drawn_box), [])
        if not found:
            return None
        known = min(
            found, key=lambda other: len(_differences(answer, other))
        )  # two within a millisecond are told apart
        for column, recorded in _differences(answer, known).items():
            raise self.sheet.error(
                one.row,
                column,
                f"answer {known.id} of this project is the same one, and is recorded with {recorded}. To correct "
                f"answers, remove the column answer, and pass --annotator",
            )
        return known

    def _superseded(self, one: _Given, answer: Answer) -> int | None:
        """Number here of the answer that an answer replaces."""
        replaced = one.answer.supersedes
        if replaced is None:
            return None
        if replaced not in self.number_here:
            raise self.sheet.error(
                one.row, "supersedes", f"the table has no answer {replaced} before it; export all answers"
            )
        return self.number_here[replaced]

    def _check_current(self, one: _Given, answer: Answer, current: dict[int, Answer]) -> None:
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
            if mine and other.kind != RETRACTED:
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
            done.corrected += 1
            return
        done.new += 1
        beside = {a.annotator for a in current.values() if a.query is not None} - {answer.annotator}
        done.second += bool(beside)
        done.beside |= beside

    # -- recording ----------------------------------------------------------------------------------------------------

    def _write(self, new: Sequence[tuple[_Given, Answer]]) -> None:
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
        for name in ("seconds", "adjudicates")
        if getattr(given, name) != getattr(recorded, name)
    }
    if given.kind != recorded.kind:
        found["kind"] = repr(str(recorded.kind))
    if given.reason != recorded.reason.strip():
        found["reason"] = repr(recorded.reason)
    if given.drawing and recorded.drawing and given.drawing[1].tobytes() != recorded.drawing[1].tobytes():
        found["drawing"] = "another mask"
    return found
