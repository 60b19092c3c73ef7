"""Answers from a table that a person has filled in: what each row means, and what of it is new.

A table may come half filled in today and whole tomorrow, from any spreadsheet. What is recorded already is passed over,
a changed kind or reason is a correction, and everything else is a new answer. Either the whole table is recorded
(``Ledger.tell_all``) or, after an error, nothing.

Knows the ledger and tables; must not know images, and must not import torch.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from pathlib import Path

from twostream.base.errors import InputError
from twostream.project.answer_sheet import AnswerSheet, Row, read_answer_sheet
from twostream.project.exchange import read_exchange
from twostream.project.exported_answers import read_exported_answers
from twostream.project.exported_rows import is_exported
from twostream.project.missed_objects import MissedRows
from twostream.project.project import Project
from twostream.project.recorded import Recorded
from twostream.project.records import Answer, Query, Window
from twostream.project.tables import window_row
from twostream.task import TASKS
from twostream.task.answers import MEANING, WINDOW_KINDS, AnswerKind, answer_kind, candidate_kinds

TRUE_WORDS = ("true", "1", "1.0", "1,0", "yes", "y", "ja", "oui", "wahr", "vrai")
FALSE_WORDS = ("false", "0", "0.0", "0,0", "no", "n", "nein", "non", "falsch", "faux")
"""What people and spreadsheets write for True and for False: in English, and in German and French as Excel does."""
CENTER = ("center_z", "center_y", "center_x")
CENTER_TOLERANCE = 1.0
"""Voxels by which a centre in a table may differ from the query's: exports and spreadsheets round it."""


def table_kinds(task_name: str) -> list[str]:
    """Kinds of answers that a query can be given in a table: those without a drawing that make sense for the task."""
    without = {"drawn"} if TASKS[task_name].num_sides == 2 else {"drawn", "exchanged"}
    return [str(kind) for kind in candidate_kinds() if MEANING[kind].teaches not in without]


def read_answers(project: Project, path: Path, annotator: str, *, false_is: str | None = None) -> Recorded:
    """Record the answers of a table (docs/contracts.md, *Command line*).

    Args:
        project: the project.
        path: the table; see ``answer_sheet.py`` for the formats. Files of other tools (``exchange/``) are tables too.
        annotator: name of the person who answered. Rows that name somebody else in a column ``annotator`` are refused,
            but in a table that ``export --what answers`` has written every answer keeps its own annotator.
        false_is: the kind that a bare False means, "nothing" or "shape"; None refuses it.

    Returns:
        What became of the rows.

    Raises:
        InputError: the file cannot be read or belongs to another project, no row holds a kind, or a row does not fit.
    """
    if false_is not in (None, AnswerKind.NOTHING, AnswerKind.SHAPE):
        raise InputError(f"--false-is is {false_is!r}; expected nothing or shape.")
    sheet = read_exchange(project, path) or read_answer_sheet(path)
    if is_exported(sheet):
        return read_exported_answers(project, sheet)
    if "kind" not in sheet.columns or not {"query", "z", "z_nm"} & set(sheet.columns):
        raise InputError(
            f"{path} has the columns {', '.join(sheet.columns) or 'none'}; expected query and kind among them."
        )
    reader = _Reader(project, sheet, annotator, false_is)
    return reader.record()


class _Reader:
    """Reads one table for one project; see ``read_answers``."""

    def __init__(self, project: Project, sheet: AnswerSheet, annotator: str, false_is: str | None) -> None:
        self.project, self.sheet, self.annotator, self.false_is = project, sheet, annotator, false_is
        self.queries: dict[int, Query | Window] = {query.id: query for query in project.ledger.queries()}
        self.queries |= {window.id: window for window in project.ledger.windows()}
        round_number, step = project.next_step()
        self.num_learned = round_number - (step == "refit")
        current = project.ledger.current_answers()
        self.own = {a.query: a for a in current if a.query is not None and a.annotator == annotator}
        self.others = {a.query: a.annotator for a in current if a.query is not None and a.annotator != annotator}
        self.missed = MissedRows(project, sheet, annotator, [a for a in current if a.query is None])
        self.rows_of: dict[int, tuple[Row, str]] = {}
        self.unreadable: dict[str, Row] = {}
        self.done = Recorded()

    def record(self) -> Recorded:
        """Check all rows, then record what is new."""
        done, sheet = self.done, self.sheet
        if sheet.understood:
            done.notes.append(sheet.understood)
        self._check_project()
        filled = [row for row in sheet.rows if row.cells.get("kind")]
        if not filled:
            raise InputError(
                f"{sheet.path} has {len(sheet.rows)} rows, and none of them holds a kind; fill in the column kind with "
                f"{', '.join(table_kinds(self.project.config.task))}."
            )
        for row in sheet.rows:
            if not row.cells.get("kind"):
                done.empty += 1
                text = row.cells.get("query", "")
                done.reopened += text.isdecimal() and int(text) in self.own
        answers = [answer for answer in map(self._answer, filled) if answer is not None]
        done.notes += self.missed.notes
        for column, row in self.unreadable.items():  # German Excel makes a date of 3.4
            text = row.cells[column]
            done.notes.append(
                f"{sheet.unit} {row.number}: {column} is {text!r}, which is no number any more, and was not checked"
            )
        self.project.ledger.tell_all(answers)
        return done

    def _check_project(self) -> None:
        """Refuse the table of another project, and say so where nothing tells whose table it is."""
        sheet, identity = self.sheet, self.project.id
        for row in sheet.rows:
            named = row.cells.get("project", "")
            if named and named != identity:
                raise sheet.error(
                    row,
                    "project",
                    f"{self.project.root} is project {identity}, so this table was exported from another project or "
                    f"fork. Answer there, or export the queries of this one",
                )
        if "query" in sheet.columns and "project" not in sheet.columns:
            checks = [name for name in ("candidate", *CENTER) if name in sheet.columns]
            by = (
                f"its rows were checked by {', '.join(checks)}" if checks else "its query numbers are taken as they are"
            )
            self.done.notes.append(f"{sheet.path} has no column project: {by}")

    def _answer(self, row: Row) -> Answer | None:
        """The answer of a row; None if it is recorded already."""
        self._check_annotator(row)
        kind = self._kind(row)
        if not row.cells.get("query"):
            if kind != AnswerKind.MISSED:
                raise self.sheet.error(row, "query", f"the kind {kind} needs a query; only missed has none")
            return self._missed(row, None)
        query = self._query(row)
        if isinstance(query, Window) and kind == AnswerKind.MISSED:
            return self._missed(row, query)
        earlier = self.own.get(query.id)
        reason = self._reason(row, query)
        if not self._is_first(row, query, kind):
            return None
        if earlier is not None and kind == earlier.kind and reason in ("", earlier.reason):
            self.done.passed_over += 1
            return None
        is_window = isinstance(query, Window)
        kinds = list(map(str, WINDOW_KINDS)) if is_window else table_kinds(self.project.config.task)
        if kind not in kinds:
            raise self.sheet.error(row, "kind", self._why_not(kind, kinds, is_window=is_window))
        seconds = self._seconds(row)
        self.done.late += query.round < self.num_learned
        if earlier is None:
            self.done.new += 1
            self.done.second += query.id in self.others
            self.done.beside |= {self.others[query.id]} if query.id in self.others else set()
            return Answer(query.id, answer_kind(kind), self.annotator, reason=reason, seconds=seconds)
        self.done.corrected += 1
        # The seconds of both answers count: what the table says of the first one must not count twice.
        seconds = 0.0 if seconds == earlier.seconds else seconds
        return Answer(
            query.id,
            answer_kind(kind),
            self.annotator,
            reason=reason,
            seconds=seconds,
            supersedes=earlier.id,
            adjudicates=earlier.adjudicates,
        )

    def _missed(self, row: Row, window: Window | None) -> Answer | None:
        """The answer of a row about a missed object, outside windows or marked in one; None if it is recorded."""
        answer = self.missed.answer(row, self._seconds(row), window)
        self.done.new += answer is not None
        self.done.passed_over += answer is None
        return answer

    def _is_first(self, row: Row, query: Query | Window, kind: str) -> bool:
        """Whether no earlier row of the table answers the same query; a row that repeats one is passed over."""
        if query.id not in self.rows_of:
            self.rows_of[query.id] = row, kind
            return True
        first, its_kind = self.rows_of[query.id]
        if kind != its_kind:
            raise self.sheet.error(
                row, "query", f"{self.sheet.unit} {first.number} answers the same query with {its_kind}; keep one"
            )
        self.done.passed_over += 1
        return False

    def _why_not(self, kind: str, kinds: Sequence[str], *, is_window: bool) -> str:
        """Why a kind that exists cannot be given to a query in a table."""
        if is_window:
            return f"the query is a window; expected one of {', '.join(kinds)}, or missed with z, y, x for each object"
        if kind == AnswerKind.NONE_MISSED:
            return f"none_missed is said of windows, and this query is a candidate; expected one of {', '.join(kinds)}"
        if kind == AnswerKind.MISSED:
            return "missed stands for an object without a query; leave its column query empty and give z, y, x"
        if MEANING[kind].teaches == "drawn":
            return f"{kind} needs a drawing, which a table cannot hold; say shape here"
        return f"the objects of this project have no sides; expected one of {', '.join(kinds)}"

    def _check_annotator(self, row: Row) -> None:
        named = row.cells.get("annotator", "")
        if named and named != self.annotator:
            raise self.sheet.error(
                row,
                "annotator",
                f"the answers are to be recorded for {self.annotator}; pass --annotator with the table's name",
            )

    def _kind(self, row: Row) -> str:
        """The kind of a row: a kind of answer, or what a spreadsheet makes of True and False."""
        text = row.cells["kind"].lower()
        if text in FALSE_WORDS and text not in MEANING:
            if self.false_is is None:
                raise self.sheet.error(
                    row,
                    "kind",
                    "nothing (no object here) and shape (an object, but badly bounded) are both False, and S learns "
                    "different things from them; write one of the two, or pass --false-is nothing or --false-is shape",
                )
            return self.false_is
        if text in MEANING:
            return text
        if text in TRUE_WORDS:
            return AnswerKind.TRUE
        kinds = [*table_kinds(self.project.config.task), str(AnswerKind.MISSED), str(AnswerKind.NONE_MISSED)]
        nearest = difflib.get_close_matches(text, kinds, n=1, cutoff=0.5)
        hint = f"; the nearest is {nearest[0]}" if nearest else ""
        raise self.sheet.error(row, "kind", f"expected one of {', '.join(kinds)}{hint}")

    def _query(self, row: Row) -> Query | Window:
        """The query of a row, after checking that the row's candidate and position are the query's."""
        number = self.sheet.whole(row, "query")
        query = self.queries.get(number)
        if query is None:
            raise self.sheet.error(row, "query", f"this project has asked queries 1 to {max(self.queries, default=0)}")
        if isinstance(query, Window):
            what, identity, expected = "a window and has no candidate", None, window_row(query)
            center = [float(expected[name]) for name in CENTER]
        else:
            identity, center = query.candidate.id, query.candidate.center_zyx.tolist()
            what = f"about candidate {identity}"
        if row.cells.get("candidate") and self.sheet.whole(row, "candidate") != identity:
            raise self.sheet.error(
                row,
                "candidate",
                f"query {number} is {what}. Were columns sorted apart, or is it another project's table?",
            )
        for column, place in zip(CENTER, center, strict=True):
            if not row.cells.get(column):
                continue
            try:
                given = self.sheet.number(row, column)
            except InputError:
                self.unreadable.setdefault(column, row)
                continue
            if abs(given - place) > CENTER_TOLERANCE:
                raise self.sheet.error(
                    row,
                    column,
                    f"query {number} lies at {place:.1f}. Were columns sorted apart, or is it another project's table?",
                )
        return query

    def _reason(self, row: Row, query: Query | Window) -> str:
        """What the annotator says; not the strategy's reason, which older exports have in the same column."""
        text = row.cells.get("reason", "")
        try:
            is_strategys = text.startswith("{") and set(json.loads(text)) == set(query.reason)
        except json.JSONDecodeError:
            is_strategys = False
        return "" if is_strategys else text

    def _seconds(self, row: Row) -> float:
        seconds = self.sheet.number(row, "seconds") if row.cells.get("seconds") else 0.0
        if seconds < 0:
            raise self.sheet.error(row, "seconds", "expected a time of at least 0")
        return seconds
