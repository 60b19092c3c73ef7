"""A table of exported answers as answers: what each row says, checked against the task and the image.

Knows the columns of ``docs/answers.md``; must not know what a ledger holds, and must not import torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from twostream.base.errors import InputError
from twostream.base.geometry import Box
from twostream.candidates.table import DEFAULT_VOLUME
from twostream.project.answer_log import unpack_drawing
from twostream.project.answer_sheet import AnswerSheet, Row
from twostream.project.project import Project
from twostream.project.records import Answer
from twostream.task.answers import MEANING, RETRACTED, WINDOW_KINDS, AnswerKind, answer_kind

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


WITHOUT_QUERY = (AnswerKind.MISSED, RETRACTED)
"""Kinds that may come without a query; a missed object that is taken back has none either."""


def is_exported(sheet: AnswerSheet) -> bool:
    """Whether a table is one of exported answers."""
    return set(sheet.columns) >= MARKS


@dataclass(frozen=True)
class GivenAnswer:
    """A row of the table.

    Attributes:
        row: the row.
        answer: with the numbers that it had where it was given.
        box: of its candidate or window, as text; "" if the table has none.
        drawn_box: of its drawing, as text; "" without a drawing. The answer has no drawing where the table has no mask.
        window_box: of the window in which an object was marked, as text; "" outside windows, or if the table has none.
    """

    row: Row
    answer: Answer
    box: str
    drawn_box: str
    window_box: str


def given_answers(project: Project, sheet: AnswerSheet) -> list[GivenAnswer]:
    """The answers of a table, sorted by their numbers.

    Args:
        project: the project that is to take them.
        sheet: the table.

    Raises:
        InputError: a column is missing, a row says nothing that can be recorded, or the table is of several projects.
    """
    missing = sorted(NEEDED - set(sheet.columns))
    if missing:
        raise InputError(
            f"{sheet.path} holds exported answers, but lacks the columns {', '.join(missing)}. Export them again, or "
            f"remove the column answer, to have it read as a table that a person has filled in."
        )
    reader = _Reader(project, sheet)
    given = sorted(map(reader.answer, sheet.rows), key=lambda one: one.answer.id)
    reader.check_origin(given)
    return given


class _Reader:
    """Reads the rows of one table for one project."""

    def __init__(self, project: Project, sheet: AnswerSheet) -> None:
        self.project, self.sheet = project, sheet

    def answer(self, row: Row) -> GivenAnswer:
        """The answer of a row as it was given."""
        sheet, cells = self.sheet, row.cells
        kind = cells["kind"].lower()
        if kind not in MEANING and kind != RETRACTED:
            raise sheet.error(row, "kind", f"expected one of {', '.join((*map(str, MEANING), RETRACTED))}")
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
            kind if kind == RETRACTED else answer_kind(kind),
            cells["annotator"],
            reason=cells["reason"],
            drawing=drawing,
            seconds=self._seconds(row),
            supersedes=self._number(row, "supersedes"),
            adjudicates=adjudicates,
            volume=cells.get("volume") or DEFAULT_VOLUME,
            task=cells["task"],
            key=cells.get("key", ""),
            window=self._number(row, "window") if cells.get("window") else None,
            id=sheet.whole(row, "answer"),
            answered_at=self._time(row),
            candidate=self._number(row, "candidate"),
            round=sheet.whole(row, "round"),
        )
        self._check(row, answer, drawn_box)
        return GivenAnswer(row, answer, cells.get("box", ""), drawn_box, cells.get("window_box", ""))

    def _check(self, row: Row, answer: Answer, drawn_box: str) -> None:
        """Raise InputError if the parts of an answer do not fit each other, or the task."""
        error = self.sheet.error
        if answer.query is None and (answer.candidate is not None or answer.kind not in WITHOUT_QUERY):
            raise error(row, "query", "every answer has a query and a candidate; only missed has neither")
        of_window = answer.query is not None and answer.candidate is None
        if of_window and answer.kind not in (*WINDOW_KINDS, RETRACTED):
            raise error(row, "candidate", f"an answer {answer.kind} is about a candidate; only windows have none")
        if answer.candidate is not None and answer.kind == AnswerKind.NONE_MISSED:
            raise error(row, "candidate", "none_missed is said of a window, which has no candidate")
        if answer.window is not None and answer.kind not in WITHOUT_QUERY:
            raise error(row, "window", "only an object that was marked in a window (missed) names one")
        if answer.kind == AnswerKind.MISSED and answer.query is not None:
            raise error(row, "query", "a missed object has none")
        if answer.is_retraction:
            if answer.supersedes is None:
                raise error(row, "supersedes", "a retraction names the answer that it takes back")
            return
        if MEANING[answer.kind].teaches == "drawn" and not drawn_box:
            raise error(row, "drawing", f"an answer {answer.kind} has a drawing")
        if MEANING[answer.kind].teaches == "exchanged" and self.project.task.num_sides == 1:
            raise error(row, "kind", "the objects of this project have no sides")

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

    def check_origin(self, given: Sequence[GivenAnswer]) -> None:
        """Raise InputError unless all answers are of one project, each once, and can be found in this one."""
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
