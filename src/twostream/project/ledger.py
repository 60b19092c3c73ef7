"""The ledger: one SQLite file that remembers what was proposed, asked, answered, done and scored.

Append-only: triggers refuse every update and delete, so a mistake is mended by an answer that supersedes, never by
forgetting. Knows ids, answers and time; must not know torch, volumes or strategies.

    registration  which new ids a round's candidates brought
    query         a candidate that was asked, with a snapshot of it as it was: box, mask, patch pair
    drawing       a mask drawn by an annotator
    answer        what somebody said of a query (or a missed object, without one)
    step          a step of a round that is done: its output stands under its final name
    score         the metrics of a round
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from twostream.base.errors import LedgerError
from twostream.base.geometry import Box
from twostream.candidates.candidate import Candidate
from twostream.candidates.patches import PatchPair
from twostream.candidates.table import pack_mask, unpack_mask
from twostream.task.answers import MEANING, AnswerKind

SCHEMA_VERSION = 1
MAX_ID = 2**53 - 1
"""The largest whole number that JavaScript, and so the proofreading page, can hold exactly."""

_TABLES = {
    "registration": "round INTEGER PRIMARY KEY, first_id INTEGER NOT NULL, num_ids INTEGER NOT NULL",
    "query": """id INTEGER PRIMARY KEY, round INTEGER NOT NULL, candidate INTEGER NOT NULL, position INTEGER NOT NULL,
        strategy TEXT NOT NULL, is_audit INTEGER NOT NULL, reason TEXT NOT NULL, label INTEGER NOT NULL,
        box TEXT NOT NULL, mask BLOB NOT NULL, score REAL NOT NULL, width_px INTEGER NOT NULL,
        image_patch BLOB NOT NULL, mask_patch BLOB NOT NULL, angle_deg REAL NOT NULL, section INTEGER NOT NULL,
        padded REAL NOT NULL, asked_at TEXT NOT NULL, UNIQUE (round, candidate), UNIQUE (round, position)""",
    "drawing": "id INTEGER PRIMARY KEY, box TEXT NOT NULL, mask BLOB NOT NULL",
    "answer": """id INTEGER PRIMARY KEY, query INTEGER REFERENCES query (id), candidate INTEGER, round INTEGER NOT NULL,
        kind TEXT NOT NULL, annotator TEXT NOT NULL, reason TEXT NOT NULL, drawing INTEGER REFERENCES drawing (id),
        seconds REAL NOT NULL, answered_at TEXT NOT NULL, supersedes INTEGER UNIQUE REFERENCES answer (id),
        adjudicates INTEGER NOT NULL""",
    "step": """round INTEGER NOT NULL, step TEXT NOT NULL, seconds REAL NOT NULL, detail TEXT NOT NULL,
        finished_at TEXT NOT NULL, PRIMARY KEY (round, step)""",
    "score": "round INTEGER PRIMARY KEY, metrics TEXT NOT NULL",
}


@dataclass(frozen=True)
class Query:
    """A candidate as it was asked.

    Attributes:
        candidate: with its mask at the time of asking.
        patch: its aligned patch pair.
        strategy: which strategy asked, or "audit".
        reason: why, as plain values.
        is_audit: part of the random share that estimates accuracy and is never trained on.
        id: given by the ledger; 0 before.
        round: round in which it was asked.
    """

    candidate: Candidate
    patch: PatchPair
    strategy: str
    reason: dict[str, Any] = field(default_factory=dict)
    is_audit: bool = False
    id: int = 0
    round: int = 0


@dataclass(frozen=True)
class Answer:
    """What an annotator said.

    Attributes:
        query: id of the query; None for a missed object.
        kind: see ``AnswerKind``.
        annotator: who.
        reason: free text.
        drawing: (box, mask) that was drawn, for "corrected" and "missed"; mask (Z, Y, X) uint8 as a candidate's.
        seconds: time spent.
        supersedes: id of the answer that this one replaces.
        adjudicates: settles a disagreement between annotators.
        id: given by the ledger; 0 before.
        answered_at: ISO 8601, UTC; given by the ledger.
        candidate: the candidate's id, from the query.
        round: the query's round; for a missed object the round in which it was added.
    """

    query: int | None
    kind: AnswerKind
    annotator: str
    reason: str = ""
    drawing: tuple[Box, np.ndarray] | None = None
    seconds: float = 0.0
    supersedes: int | None = None
    adjudicates: bool = False
    id: int = 0
    answered_at: str = ""
    candidate: int | None = None
    round: int = 0


@dataclass(frozen=True)
class Verdict:
    """What all answers to one candidate come to.

    Attributes:
        y: 1, 0, or NaN.
        kind: the answer that counts; None where annotators disagree.
        askable: whether a later round may ask again.
        answer: the answer that decided (of several that agree, the newest); None without one.
    """

    y: float
    kind: AnswerKind | None
    askable: bool
    answer: Answer | None = None


class Ledger:
    """Open the ledger at ``path``.

    Args:
        path: the file.
        create: make it if it is not there. Without this a missing ledger is an error: it is the only memory, and a
            project that has lost it must not begin again over its own rounds.
        image_box: gives the extent of the image, in which drawings must lie; None where it is not known.
        num_sides: values that a drawn mask may have, 2 for synapses with polarity; None where it is not known.

    Raises:
        LedgerError: the file is missing, is no ledger, or was written by a newer version.
    """

    def __init__(
        self,
        path: Path,
        *,
        create: bool = False,
        image_box: Callable[[], Box | None] | None = None,
        num_sides: int | None = None,
    ) -> None:
        self.path = path
        self._image_box, self._num_sides = image_box, num_sides
        if not create and not path.is_file():
            raise LedgerError(
                f"{path} is missing; restore it from a copy, or make a new project with `twostream init`."
            )
        self._connection = sqlite3.connect(path, timeout=60, isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        try:
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA foreign_keys = ON")
            self._migrate()
        except sqlite3.DatabaseError as error:
            raise LedgerError(f"{path} is no ledger: {error}. Is it another file, or damaged?") from None

    def _migrate(self) -> None:
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise LedgerError(f"{self.path} has schema {version}; this version reads up to {SCHEMA_VERSION}. Upgrade.")
        if version == SCHEMA_VERSION:
            return
        with self._transaction():
            for table, columns in _TABLES.items():
                self._connection.execute(f"CREATE TABLE IF NOT EXISTS {table} ({columns})")
                for verb in ("UPDATE", "DELETE"):
                    self._connection.execute(
                        f"CREATE TRIGGER IF NOT EXISTS {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
                        "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
                    )
            self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def close(self) -> None:
        self._connection.close()

    # -- candidates -----------------------------------------------------------------------------------------------

    def next_id(self, round_number: int) -> int:
        """The first id that no round before ``round_number`` has given: the same however often it is asked."""
        row = self._connection.execute(
            "SELECT MAX(first_id + num_ids) FROM registration WHERE round < ?", (round_number,)
        ).fetchone()
        return row[0] or 1

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
        with self._transaction():
            old = self._connection.execute("SELECT * FROM registration WHERE round = ?", (round_number,)).fetchone()
            if old is None:
                self._insert("registration", round=round_number, first_id=first, num_ids=len(new))
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
        unknown = sorted(i for i in ids if not 1 <= i < self.next_id(round_number + 1))
        if unknown:
            raise LedgerError(f"candidate {unknown[0]} was never registered; ask only about candidates of the round.")
        with self._transaction():
            rows = self._connection.execute(
                "SELECT candidate FROM query WHERE round = ? ORDER BY position", (round_number,)
            )
            asked = [row["candidate"] for row in rows]
            if asked and asked != ids:
                raise LedgerError(f"round {round_number} has asked {len(asked)} candidates already; it asks only once.")
            if asked:
                return
            barred = {i for i, verdict in self.verdicts().items() if not verdict.askable}
            repeated = sorted(barred & set(ids))
            if repeated:
                raise LedgerError(f"candidate {repeated[0]} has been asked before and is not to be asked again.")
            audited = {query.candidate.id: query.is_audit for query in self.queries()}
            for position, query in enumerate(queries):
                if audited.get(query.candidate.id, query.is_audit) != query.is_audit:
                    raise LedgerError(f"candidate {query.candidate.id} cannot change between audit and ordinary query.")
                self._insert_query(round_number, position, query)

    def _insert_query(self, round_number: int, position: int, query: Query) -> None:
        candidate, patch = query.candidate, query.patch
        self._insert(
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
        )

    def queries(self, round_number: int | None = None) -> list[Query]:
        """All queries (of one round), in the order in which they were asked."""
        rows = self._connection.execute("SELECT * FROM query ORDER BY round, position").fetchall()
        return [_query(row) for row in rows if round_number in (None, row["round"])]

    def newest_queries(self, before_round: int) -> dict[int, Query]:
        """{candidate id: its newest query} of all rounds before ``before_round``, by id."""
        newest = {query.candidate.id: query for query in self.queries() if query.round < before_round}
        return dict(sorted(newest.items()))

    def open_queries(self) -> list[Query]:
        """Queries without an answer, in the order in which they were asked."""
        answered = {answer.query for answer in self.current_answers()}
        return [query for query in self.queries() if query.id not in answered]

    # -- answers --------------------------------------------------------------------------------------------------

    def tell(self, answer: Answer) -> int:
        """Record an answer; it is on disk when this returns.

        Returns:
            The answer's id.

        Raises:
            LedgerError: no such query, a second answer by the same annotator that does not supersede the first,
                a superseded answer to another query, a drawing that is missing, not in the image or no mask of the
                task, or *swapped* where objects have no sides.
        """
        return self.tell_all([answer])[0]

    def tell_all(self, answers: Sequence[Answer]) -> list[int]:
        """Record several answers, all of them or none; see ``tell``."""
        for answer in answers:
            _check_answer(answer)
            self._check_fit(answer)
        with self._transaction():
            return [self._tell(answer) for answer in answers]

    def _check_fit(self, answer: Answer) -> None:
        """Raise LedgerError where an answer does not fit the image or the task."""
        if self._num_sides == 1 and answer.kind is AnswerKind.SWAPPED:
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
        if self._num_sides is not None and top > self._num_sides:
            wanted = "1 inside" if self._num_sides == 1 else "1 before and 2 after the cleft"
            raise LedgerError(f"a drawn mask holds the value {top}; expected 0 outside and {wanted}.")

    def _tell(self, answer: Answer) -> int:
        candidate, round_number = self._about(answer)
        self._check_superseding(answer)
        drawing = None
        if answer.drawing is not None:
            box, mask = answer.drawing
            drawing = self._insert("drawing", box=str(box), mask=pack_mask(mask))
        return self._insert(
            "answer",
            query=answer.query,
            candidate=candidate,
            round=round_number,
            kind=answer.kind.value,
            annotator=answer.annotator,
            reason=answer.reason,
            drawing=drawing,
            seconds=answer.seconds,
            answered_at=_now(),
            supersedes=answer.supersedes,
            adjudicates=int(answer.adjudicates),
        )

    def _about(self, answer: Answer) -> tuple[int | None, int]:
        if answer.query is None:
            newest = self._connection.execute("SELECT MAX(round) FROM query").fetchone()[0]
            return None, newest or 0
        row = self._connection.execute("SELECT candidate, round FROM query WHERE id = ?", (answer.query,)).fetchone()
        if row is None:
            raise LedgerError(f"there is no query {answer.query}; it was never asked.")
        return row["candidate"], row["round"]

    def _check_superseding(self, answer: Answer) -> None:
        current = {a.id: a for a in self.current_answers() if a.query == answer.query}
        if answer.supersedes is not None and answer.supersedes not in current:
            raise LedgerError(
                f"answer {answer.supersedes} cannot be superseded: it is no current answer to this query."
            )
        earlier = [a for a in current.values() if a.annotator == answer.annotator and a.id != answer.supersedes]
        if answer.query is not None and earlier and not answer.adjudicates:
            raise LedgerError(
                f"{answer.annotator} has answered query {answer.query} already (answer {earlier[0].id}); "
                f"to change it, supersede that answer."
            )

    def current_answers(self) -> list[Answer]:
        """Answers that no other one supersedes, oldest first."""
        rows = self._connection.execute(
            "SELECT * FROM answer WHERE id NOT IN "
            "(SELECT supersedes FROM answer WHERE supersedes IS NOT NULL) ORDER BY id"
        ).fetchall()
        return [self._answer(row) for row in rows]

    def all_answers(self) -> list[Answer]:
        """Every answer ever given, superseded ones too, oldest first."""
        return [self._answer(row) for row in self._connection.execute("SELECT * FROM answer ORDER BY id").fetchall()]

    def _answer(self, row: sqlite3.Row) -> Answer:
        drawing = None
        if row["drawing"] is not None:
            drawn = self._connection.execute("SELECT * FROM drawing WHERE id = ?", (row["drawing"],)).fetchone()
            box = Box.parse(drawn["box"])
            drawing = box, unpack_mask(drawn["mask"], box)
        return Answer(
            query=row["query"],
            kind=AnswerKind(row["kind"]),
            annotator=row["annotator"],
            reason=row["reason"],
            drawing=drawing,
            seconds=row["seconds"],
            supersedes=row["supersedes"],
            adjudicates=bool(row["adjudicates"]),
            id=row["id"],
            answered_at=row["answered_at"],
            candidate=row["candidate"],
            round=row["round"],
        )

    def verdicts(self) -> dict[int, Verdict]:
        """{candidate id: verdict} of every candidate that was ever asked.

        Where several people answered: the adjudicated answer, else what they agree on, else NaN.
        """
        by_candidate: dict[int, list[Answer]] = {}
        for answer in self.current_answers():
            if answer.candidate is not None:
                by_candidate.setdefault(answer.candidate, []).append(answer)
        asked = self._connection.execute("SELECT DISTINCT candidate FROM query").fetchall()
        waiting = Verdict(math.nan, None, askable=False)
        return {
            row["candidate"]: _verdict(by_candidate[row["candidate"]]) if row["candidate"] in by_candidate else waiting
            for row in asked
        }

    def spent(self) -> tuple[int, float]:
        """Answers that count in the budget, and the seconds of annotation of all answers.

        A changed answer counts once: it was one question. Its seconds count: they were spent.
        """
        number = sum(MEANING[answer.kind].in_budget for answer in self.current_answers())
        seconds = self._connection.execute("SELECT TOTAL(seconds) FROM answer").fetchone()[0]
        return number, float(seconds)

    # -- steps and scores -----------------------------------------------------------------------------------------

    def finish_step(self, round_number: int, step: str, seconds: float, detail: dict[str, Any]) -> None:
        """Say that the output of a step stands under its final name."""
        with self._transaction():
            self._insert(
                "step", round=round_number, step=step, seconds=seconds, detail=json.dumps(detail), finished_at=_now()
            )

    def finished_steps(self) -> dict[tuple[int, str], dict[str, Any]]:
        """{(round, step): detail with "seconds"} of every step that is done, in the order in which they were."""
        rows = self._connection.execute("SELECT * FROM step ORDER BY finished_at, rowid").fetchall()
        return {(r["round"], r["step"]): json.loads(r["detail"]) | {"seconds": r["seconds"]} for r in rows}

    def store_score(self, round_number: int, metrics: dict[str, Any]) -> None:
        """Record the metrics of a round, once; the same metrics again are no error.

        Raises:
            LedgerError: other metrics stand there.
        """
        with self._transaction():
            old = self.scores().get(round_number)
            if old is not None and json.dumps(old) != json.dumps(metrics):
                raise LedgerError(f"round {round_number} has been scored already, with another result.")
            if old is None:
                self._insert("score", round=round_number, metrics=json.dumps(metrics))

    def scores(self) -> dict[int, dict[str, Any]]:
        """{round: metrics}."""
        rows = self._connection.execute("SELECT * FROM score ORDER BY round").fetchall()
        return {row["round"]: json.loads(row["metrics"]) for row in rows}

    def _insert(self, table: str, **values: Any) -> int:
        names, marks = ", ".join(values), ", ".join("?" * len(values))
        cursor = self._connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(values.values()))
        return int(cursor.lastrowid or 0)


def _check_answer(answer: Answer) -> None:
    """Raise LedgerError where an answer contradicts itself."""
    if MEANING[answer.kind].teaches == "drawn" and answer.drawing is None:
        raise LedgerError(f"an answer {answer.kind.value!r} needs a drawn mask; none came.")
    if (answer.query is None) != (answer.kind is AnswerKind.MISSED):
        raise LedgerError(f"an answer {answer.kind.value!r} came with query {answer.query}; only 'missed' has none.")
    if not (math.isfinite(answer.seconds) and answer.seconds >= 0):
        raise LedgerError(f"seconds is {answer.seconds}; expected a time of at least 0.")
    if answer.drawing is not None:
        box, mask = answer.drawing
        if mask.shape != box.shape_zyx or mask.dtype != np.uint8 or not mask.any():
            raise LedgerError(
                f"a drawn mask is {mask.shape} {mask.dtype} for a box of {box.shape_zyx}; "
                f"expected uint8 of the box's shape with at least one voxel drawn."
            )


def _verdict(answers: list[Answer]) -> Verdict:
    settled = [a for a in answers if a.adjudicates] or answers
    kinds = {a.kind for a in settled[-1:]} if settled[-1].adjudicates else {a.kind for a in settled}
    askable = all(MEANING[kind].may_be_asked_again for kind in kinds)
    said = kinds - {AnswerKind.SKIPPED} or kinds
    values = {MEANING[kind].y for kind in said}
    y = values.pop() if len(said) == 1 or (len(values) == 1 and not any(map(math.isnan, values))) else math.nan
    decided = next(iter(said)) if len(said) == 1 else None
    newest = next((a for a in reversed(settled) if a.kind is decided), None)
    return Verdict(y, decided, askable, newest)


def _query(row: sqlite3.Row) -> Query:
    box = Box.parse(row["box"])
    candidate = Candidate(row["candidate"], row["label"], box, unpack_mask(row["mask"], box), row["score"])
    shape = (-1, row["width_px"], row["width_px"])  # planes follow from the length
    patch = PatchPair(
        image=np.frombuffer(row["image_patch"], np.uint8).reshape(shape),
        mask=np.frombuffer(row["mask_patch"], np.int8).reshape(shape),
        angle_deg=row["angle_deg"],
        section=row["section"],
        padded=row["padded"],
    )
    return Query(
        candidate, patch, row["strategy"], json.loads(row["reason"]), bool(row["is_audit"]), row["id"], row["round"]
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
