"""The ledger: one SQLite file that remembers what was proposed, asked, answered, done and scored.

Append-only: a mistake is mended by an answer that supersedes another, never by forgetting. Several threads and
processes may use it at once. What it costs to ask and to tell does not grow with what has been answered.

    registration  which new ids the candidates of a round brought
    query         a candidate that was asked about, with a snapshot of it: box, mask, patch pair
    drawing       a mask drawn by an annotator
    answer        what somebody said about a query (or a missed object, which has no query)
    step          a step of a round that is done: its output stands under its final name
    score         the metrics of a round

Knows ids, answers and time; must not know torch, volumes or strategies.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from twostream.base.errors import LedgerError
from twostream.base.geometry import Box
from twostream.candidates.candidate import Candidate
from twostream.candidates.patches import PatchPair
from twostream.candidates.table import pack_mask, unpack_mask
from twostream.project.database import Database
from twostream.project.records import Answer, Query, Verdict, adjudicate
from twostream.task import Task
from twostream.task.answers import MEANING, AnswerKind, answer_kind

MAX_ID = 2**53 - 1
"""The largest whole number that JavaScript, and so a web page, can hold exactly."""
ANSWERS = (
    "SELECT answer.*, drawing.box AS drawn_box, drawing.mask AS drawn_mask "
    "FROM answer LEFT JOIN drawing ON drawing.id = answer.drawing"
)
CURRENT = "NOT EXISTS (SELECT 1 FROM answer AS later WHERE later.supersedes = answer.id)"


@dataclass(frozen=True)
class Counts:
    """How far the annotators have come.

    Attributes:
        asked: queries.
        open: queries without an answer.
        answers: answers that no other one supersedes.
    """

    asked: int
    open: int
    answers: int


class Ledger:
    """Open the ledger at ``path``.

    Args:
        path: the file.
        create: make it if it is not there. Without this a missing ledger is an error: it is the only memory, and a
            project that has lost it must not begin again over its own rounds.
        image_box: gives the extent of the image, in which drawings must lie; None where it is not known.
        task: what the candidates are; None where it is not known. Drawn masks may hold as many values as its objects
            have sides.
        timeout_seconds: how long to wait for another writer.

    Raises:
        LedgerError: the file is missing, is not a ledger, is locked, or was written by a newer version.
    """

    def __init__(
        self,
        path: Path,
        *,
        create: bool = False,
        image_box: Callable[[], Box | None] | None = None,
        task: type[Task] | None = None,
        timeout_seconds: float = 60.0,
    ) -> None:
        self.path = path
        self._image_box, self._task = image_box, task
        if not create and not path.is_file():
            raise LedgerError(
                f"{path} is missing; restore it from a copy, or make a new project with `twostream init`."
            )
        self._database = Database(path, task=task.name if task else "", timeout_seconds=timeout_seconds)

    def close(self) -> None:
        """Close the file in all threads; it is opened again when it is used again."""
        self._database.close()

    # -- candidates -----------------------------------------------------------------------------------------------

    def next_id(self, round_number: int) -> int:
        """The first id that no round before ``round_number`` has given: the same however often it is asked."""
        row = self._database.row("SELECT MAX(first_id + num_ids) FROM registration WHERE round < ?", round_number)
        return (row and row[0]) or 1

    def register(self, round_number: int, ids: Sequence[int]) -> None:
        """Record the ids of a round's candidates; those from ``next_id`` on are new and must be consecutive.

        Registering the same ids for the same round again is no error: a step may be repeated after a kill.

        Raises:
            LedgerError: repeated ids, a gap, an id too large, or another registration for the round.
        """
        first = self.next_id(round_number)
        new = sorted(i for i in ids if i >= first)
        if len(set(ids)) != len(ids) or new != list(range(first, first + len(new))) or any(i < 1 for i in ids):
            raise LedgerError(
                f"round {round_number} registers ids that repeat or leave gaps; new ones start at {first}."
            )
        if first + len(new) - 1 > MAX_ID:
            raise LedgerError(f"round {round_number} would give an id above {MAX_ID}, the largest a browser can hold.")
        with self._database.transaction():
            old = self._database.row("SELECT * FROM registration WHERE round = ?", round_number)
            if old is None:
                self._database.insert("registration", round=round_number, first_id=first, num_ids=len(new))
            elif (old["first_id"], old["num_ids"]) != (first, len(new)):
                raise LedgerError(f"round {round_number} has registered {old['num_ids']} new ids, now {len(new)} came.")

    # -- queries --------------------------------------------------------------------------------------------------

    def ask(self, round_number: int, queries: Sequence[Query]) -> None:
        """Put the batch of a round before the annotators, all of it or nothing.

        Asking again for a round that has asked is no error if the candidates are the same.

        Raises:
            LedgerError: the round has asked others, or a candidate is unknown, not to be asked again, or was asked as
                an audit before and is not now (or the reverse: an audit must stay a random draw).
        """
        ids = [q.candidate.id for q in queries]
        first_free = self.next_id(round_number + 1)
        unknown = sorted(i for i in ids if not 1 <= i < first_free)
        if unknown:
            raise LedgerError(f"candidate {unknown[0]} was never registered; ask only about candidates of the round.")
        with self._database.transaction():
            rows = self._database.rows("SELECT candidate FROM query WHERE round = ? ORDER BY position", round_number)
            asked = [row["candidate"] for row in rows]
            if asked and asked != ids:
                raise LedgerError(f"round {round_number} has asked {len(asked)} candidates already; it asks only once.")
            if asked:
                return
            barred = sorted(i for i, verdict in self.verdicts(ids).items() if not verdict.askable)
            if barred:
                raise LedgerError(f"candidate {barred[0]} has been asked before and is not to be asked again.")
            audited = self._asked_as_audit(ids)
            for position, query in enumerate(queries):
                if audited.get(query.candidate.id, query.is_audit) != query.is_audit:
                    raise LedgerError(f"candidate {query.candidate.id} cannot change between audit and ordinary query.")
                self._insert_query(round_number, position, query)

    def _asked_as_audit(self, ids: Sequence[int]) -> dict[int, bool]:
        rows = self._database.rows(
            "SELECT candidate, is_audit FROM query WHERE candidate IN (SELECT value FROM json_each(?)) ORDER BY round",
            json.dumps(list(ids)),
        )
        return {row["candidate"]: bool(row["is_audit"]) for row in rows}

    def _insert_query(self, round_number: int, position: int, query: Query) -> None:
        candidate, patch = query.candidate, query.patch
        self._database.insert(
            "query",
            round=round_number,
            candidate=candidate.id,
            position=position,
            strategy=query.strategy,
            is_audit=int(query.is_audit),
            reason=json.dumps(query.reason),
            label=candidate.label,
            box=str(candidate.box),
            mask=pack_mask(candidate.mask),
            score=candidate.score,
            width_px=patch.image.shape[-1],
            image_patch=patch.image.tobytes(),
            mask_patch=patch.mask.tobytes(),
            angle_deg=patch.angle_deg,
            section=patch.section,
            padded=patch.padded,
            asked_at=_now(),
            volume=query.volume,
            task=query.task or self._task_name,
        )

    def query(self, query_id: int) -> Query:
        """One query.

        Raises:
            LedgerError: there is no such query.
        """
        row = self._database.row("SELECT * FROM query WHERE id = ?", query_id)
        if row is None:
            raise LedgerError(f"there is no query {query_id}; it was never asked.")
        return _query(row)

    def queries(self, round_number: int | None = None) -> list[Query]:
        """All queries (of one round), in the order in which they were asked."""
        rows = (
            self._database.rows("SELECT * FROM query ORDER BY round, position")
            if round_number is None
            else self._database.rows("SELECT * FROM query WHERE round = ? ORDER BY position", round_number)
        )
        return [_query(row) for row in rows]

    def newest_queries(self, before_round: int) -> dict[int, Query]:
        """{candidate id: its newest query} of all rounds before ``before_round``, by id."""
        rows = self._database.rows(
            "SELECT * FROM query WHERE round = (SELECT MAX(round) FROM query AS other "
            "WHERE other.candidate = query.candidate AND other.round < ?) ORDER BY candidate",
            before_round,
        )
        return {row["candidate"]: _query(row) for row in rows}

    def open_queries(self) -> list[Query]:
        """Queries without an answer, in the order in which they were asked."""
        rows = self._database.rows(
            "SELECT query.* FROM waiting CROSS JOIN query ON query.id = waiting.query ORDER BY round, position"
        )
        return [_query(row) for row in rows]

    def counts(self) -> Counts:
        """How many queries were asked and are open, and how many answers count."""
        row = self._database.row(
            "SELECT (SELECT COUNT(*) FROM query), (SELECT COUNT(*) FROM waiting), "
            "(SELECT COUNT(*) - COUNT(supersedes) FROM answer)"
        )
        assert row is not None
        return Counts(*row)

    # -- answers --------------------------------------------------------------------------------------------------

    def tell(self, answer: Answer) -> int:
        """Record an answer; it is on disk when this returns.

        Returns:
            The answer's id.

        Raises:
            LedgerError: no such query, a second answer by the same annotator that does not supersede the first,
                a superseded answer to another query, a drawing that is missing, not in the image or not a mask of the
                task, or *swapped* where objects have no sides.
        """
        return self.tell_all([answer])[0]

    def tell_all(self, answers: Sequence[Answer]) -> list[int]:
        """Record several answers, all of them or none; see ``tell``."""
        for answer in answers:
            answer.check()
            self._check_fit(answer)
        with self._database.transaction():
            return [self._tell(answer) for answer in answers]

    def _check_fit(self, answer: Answer) -> None:
        """Raise LedgerError where an answer does not fit the image or the task."""
        num_sides = self._task.num_sides if self._task else None
        if num_sides == 1 and answer.kind == AnswerKind.SWAPPED:
            raise LedgerError("an answer 'swapped' came, but these objects have no sides; answer 'true' or 'shape'.")
        if answer.drawing is None:
            return
        box, mask = answer.drawing
        image_box = self._image_box() if self._image_box else None
        if image_box is not None and not image_box.contains(box):
            raise LedgerError(
                f"a drawn mask lies at {box}, outside the image, which holds {image_box} (Z, Y, X voxels). "
                f"Are these nanometres, or X, Y, Z?"
            )
        top = int(mask.max(initial=0))
        if num_sides is not None and top > num_sides:
            wanted = "1 inside" if num_sides == 1 else "1 before and 2 after the cleft"
            raise LedgerError(f"a drawn mask holds the value {top}; expected 0 outside and {wanted}.")

    def _tell(self, answer: Answer) -> int:
        about = self._about(answer)
        self._check_superseding(answer)
        drawing = None
        if answer.drawing is not None:
            box, mask = answer.drawing
            drawing = self._database.insert("drawing", box=str(box), mask=pack_mask(mask))
        return self._database.insert(
            "answer",
            query=answer.query,
            kind=str(answer.kind),
            annotator=answer.annotator,
            reason=answer.reason,
            drawing=drawing,
            seconds=answer.seconds,
            answered_at=_now(),
            supersedes=answer.supersedes,
            adjudicates=int(answer.adjudicates),
            **about,
        )

    def _about(self, answer: Answer) -> dict[str, Any]:
        """Candidate, round, volume and task that an answer is about."""
        if answer.query is None:
            row = self._database.row("SELECT MAX(round) FROM query")
            newest = (row and row[0]) or 0
            return {"candidate": None, "round": newest, "volume": answer.volume, "task": answer.task or self._task_name}
        row = self._database.row("SELECT candidate, round, volume, task FROM query WHERE id = ?", answer.query)
        if row is None:
            raise LedgerError(f"there is no query {answer.query}; it was never asked.")
        return dict(row)

    def _check_superseding(self, answer: Answer) -> None:
        current = {
            row["id"]: row["annotator"]
            for row in self._database.rows(
                f"SELECT id, annotator FROM answer WHERE query IS ? AND {CURRENT} ORDER BY id", answer.query
            )
        }
        if answer.supersedes is not None and answer.supersedes not in current:
            raise LedgerError(
                f"answer {answer.supersedes} cannot be superseded: it is no current answer to this query."
            )
        earlier = [i for i, name in current.items() if name == answer.annotator and i != answer.supersedes]
        if answer.query is not None and earlier and not answer.adjudicates:
            raise LedgerError(
                f"{answer.annotator} has answered query {answer.query} already (answer {earlier[0]}); "
                f"to change it, supersede that answer."
            )

    def current_answers(self, query_id: int | None = None) -> list[Answer]:
        """Answers (to one query) that no other one supersedes, oldest first."""
        if query_id is None:
            rows = self._database.rows(f"{ANSWERS} WHERE {CURRENT} ORDER BY answer.id")
        else:
            rows = self._database.rows(f"{ANSWERS} WHERE query = ? AND {CURRENT} ORDER BY answer.id", query_id)
        return [_answer(row) for row in rows]

    def all_answers(self) -> list[Answer]:
        """Every answer ever given, superseded ones too, oldest first."""
        return [_answer(row) for row in self._database.rows(f"{ANSWERS} ORDER BY answer.id")]

    def verdicts(self, ids: Iterable[int] | None = None) -> dict[int, Verdict]:
        """{candidate id: what all its answers come to} of every candidate that was ever asked about.

        A candidate with an open query may not be asked again, even if it was skipped in an earlier round.

        Args:
            ids: only of these candidates; None takes all.
        """
        among, values = "1", []
        if ids is not None:
            among, values = "candidate IN (SELECT value FROM json_each(?))", [json.dumps(list(ids))]
        by_candidate: dict[int, list[Answer]] = {}
        for row in self._database.rows(
            f"{ANSWERS} WHERE candidate IS NOT NULL AND {among} AND {CURRENT} ORDER BY answer.id", *values
        ):
            by_candidate.setdefault(row["candidate"], []).append(_answer(row))
        asked = self._database.rows(f"SELECT DISTINCT candidate FROM query WHERE {among} ORDER BY candidate", *values)
        found = {row["candidate"]: Verdict(math.nan, None, askable=False) for row in asked}  # without an answer yet
        found |= {candidate: adjudicate(answers) for candidate, answers in by_candidate.items()}
        for row in self._database.rows("SELECT candidate FROM waiting CROSS JOIN query ON query.id = waiting.query"):
            if row["candidate"] in found:
                found[row["candidate"]] = replace(found[row["candidate"]], askable=False)
        return found

    def spent(self) -> tuple[int, float]:
        """Answers that count in the budget, and the seconds of annotation of all answers.

        A changed answer counts once: it was one question. Its seconds count: they were spent.
        """
        rows = self._database.rows(f"SELECT kind, COUNT(*) AS number FROM answer WHERE {CURRENT} GROUP BY kind")
        number = sum(row["number"] for row in rows if MEANING[answer_kind(row["kind"])].in_budget)
        row = self._database.row("SELECT TOTAL(seconds) FROM answer")
        return number, float(row[0]) if row else 0.0

    # -- steps and scores -----------------------------------------------------------------------------------------

    def finish_step(self, round_number: int, step: str, seconds: float, detail: dict[str, Any]) -> None:
        """Say that the output of a step stands under its final name."""
        with self._database.transaction():
            self._database.insert(
                "step", round=round_number, step=step, seconds=seconds, detail=json.dumps(detail), finished_at=_now()
            )

    def finished_steps(self) -> dict[tuple[int, str], dict[str, Any]]:
        """{(round, step): detail with "seconds"} of every step that is done, in the order in which they were."""
        rows = self._database.rows("SELECT * FROM step ORDER BY finished_at, rowid")
        return {(r["round"], r["step"]): json.loads(r["detail"]) | {"seconds": r["seconds"]} for r in rows}

    def store_score(self, round_number: int, metrics: dict[str, Any]) -> None:
        """Record the metrics of a round, once; the same metrics again are no error.

        Raises:
            LedgerError: other metrics stand there.
        """
        with self._database.transaction():
            old = self._database.row("SELECT metrics FROM score WHERE round = ?", round_number)
            if old is None:
                self._database.insert("score", round=round_number, metrics=json.dumps(metrics))
            elif old["metrics"] != json.dumps(metrics):
                raise LedgerError(f"round {round_number} has been scored already, with another result.")

    def scores(self) -> dict[int, dict[str, Any]]:
        """{round: metrics}."""
        rows = self._database.rows("SELECT * FROM score ORDER BY round")
        return {row["round"]: json.loads(row["metrics"]) for row in rows}

    @property
    def _task_name(self) -> str:
        return self._task.name if self._task else ""


def _query(row: sqlite3.Row) -> Query:
    box = Box.parse(row["box"])
    candidate = Candidate(row["candidate"], row["label"], box, unpack_mask(row["mask"], box), row["score"])
    shape = (-1, row["width_px"], row["width_px"])  # the number of planes follows from the length
    patch = PatchPair(
        image=np.frombuffer(row["image_patch"], np.uint8).reshape(shape),
        mask=np.frombuffer(row["mask_patch"], np.int8).reshape(shape),
        angle_deg=row["angle_deg"],
        section=row["section"],
        padded=row["padded"],
    )
    return Query(
        candidate,
        patch,
        row["strategy"],
        json.loads(row["reason"]),
        bool(row["is_audit"]),
        row["volume"],
        row["task"],
        row["id"],
        row["round"],
    )


def _answer(row: sqlite3.Row) -> Answer:
    drawing = None
    if row["drawing"] is not None:
        box = Box.parse(row["drawn_box"])
        drawing = box, unpack_mask(row["drawn_mask"], box)
    return Answer(
        query=row["query"],
        kind=answer_kind(row["kind"]),
        annotator=row["annotator"],
        reason=row["reason"],
        drawing=drawing,
        seconds=row["seconds"],
        supersedes=row["supersedes"],
        adjudicates=bool(row["adjudicates"]),
        volume=row["volume"],
        task=row["task"],
        id=row["id"],
        answered_at=row["answered_at"],
        candidate=row["candidate"],
        round=row["round"],
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
