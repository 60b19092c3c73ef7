"""The ledger: one SQLite file that records what was proposed, asked, answered, done and scored.

Rows are only added. A wrong answer is corrected by a new answer that supersedes it; nothing is deleted. Several threads
and processes may use the file at once. The time of ``ask`` and ``tell`` does not grow with the number of answers.

    registration  how many new ids the candidates of a round were given, and the first of them
    query         a candidate that was asked about, with a copy of its box, mask and patch pair
    drawing       a mask that an annotator drew
    answer        an annotator's answer to a query, or an object that was missed, which has no query
    step          a finished step of a round
    score         the metrics of a round
    fact          the id of the project

Knows ids, answers and time; must not know torch, volumes or strategies.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from twostream.base.errors import LedgerError
from twostream.base.geometry import Box
from twostream.candidates.candidate import Candidate
from twostream.candidates.patches import PatchPair
from twostream.candidates.table import pack_mask, unpack_mask
from twostream.project.database import PROJECT_ID, Database, now
from twostream.project.records import Answer, Query, Verdict, adjudicate
from twostream.task import Task
from twostream.task.answers import MEANING, answer_kind

MAX_ID = 2**53 - 1
"""The largest integer that JavaScript, and so a web page, can hold exactly."""
_ANSWERS = (
    "SELECT answer.*, drawing.box AS drawn_box, drawing.mask AS drawn_mask "
    "FROM answer LEFT JOIN drawing ON drawing.id = answer.drawing"
)
_CURRENT = "NOT EXISTS (SELECT 1 FROM answer AS later WHERE later.supersedes = answer.id)"


@dataclass(frozen=True)
class Counts:
    """Numbers of queries and answers.

    Attributes:
        asked: all queries.
        open: queries without an answer.
        answers: answers that no other answer supersedes.
    """

    asked: int
    open: int
    answers: int


class Ledger:
    """The ledger in the file ``path``.

    Args:
        path: the SQLite file.
        create: whether to make the file if it is missing. Without it a missing file is an error, because a project that
            has lost its ledger must not start again and overwrite its rounds.
        image_box: returns the box of the image, inside which drawings must lie, or None if it is not known.
        task: the task, whose number of sides limits the values of drawn masks; None if it is not known.
        project_id: id of the project, for a file that has none yet: a new one, or an old one. "" draws one.
        timeout_seconds: how long to wait while another process writes.

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
        project_id: str = "",
        timeout_seconds: float = 60.0,
    ) -> None:
        self.path = path
        self._image_box, self._task = image_box, task
        if not create and not path.is_file():
            raise LedgerError(
                f"{path} is missing; restore it from a copy, or make a new project with `twostream init`."
            )
        self._database = Database(
            path,
            create=create,
            task=task.name if task else "",
            project_id=project_id,
            timeout_seconds=timeout_seconds,
        )

    @property
    def project_id(self) -> str:
        """Id of the project to which the ledger belongs."""
        return self._database.fact(PROJECT_ID) or ""

    def close(self) -> None:
        """Close the connections of all threads. The ledger can still be used; it connects again."""
        self._database.close()

    # -- candidates -----------------------------------------------------------------------------------------------

    def next_id(self, round_number: int) -> int:
        """The first id that no round before ``round_number`` has used. Repeating the round gives the same id."""
        row = self._database.row("SELECT MAX(first_id + num_ids) FROM registration WHERE round < ?", round_number)
        return (row and row[0]) or 1

    def register(self, round_number: int, ids: Sequence[int]) -> None:
        """Record the ids of a round's candidates.

        Registering the same ids for the same round again changes nothing: a step may be repeated after a kill.

        Args:
            round_number: the round.
            ids: ids of its candidates. Those from ``next_id`` on are new, and must be consecutive.

        Raises:
            LedgerError: an id is repeated, left out, below 1 or above ``MAX_ID``, or the round has registered another
                number of new ids before.
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
        """Record the batch of a round as open queries, all of them or none.

        Asking the same candidates for the same round again changes nothing.

        Args:
            round_number: the round.
            queries: the batch, in the order in which annotators should see it.

        Raises:
            LedgerError: the round has asked about other candidates before; or a candidate was never registered, may not
                be asked again, or was an audit before and now is none (or the reverse: audits are a random sample).
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
            closed = sorted(i for i, verdict in self.verdicts(ids).items() if not verdict.askable)
            if closed:
                raise LedgerError(f"candidate {closed[0]} has been asked before and is not to be asked again.")
            audited = self._asked_as_audit(ids)
            for position, query in enumerate(queries):
                if audited.get(query.candidate.id, query.is_audit) != query.is_audit:
                    raise LedgerError(f"candidate {query.candidate.id} cannot change between audit and ordinary query.")
                self._insert_query(round_number, position, query)

    def _asked_as_audit(self, ids: Sequence[int]) -> dict[int, bool]:
        """{candidate id: whether its newest query was an audit} of those among ``ids`` that were asked before."""
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
            asked_at=now(),
            volume=query.volume,
            task=query.task or self._task_name,
        )

    def query(self, query_id: int) -> Query:
        """The query with the id ``query_id``.

        Raises:
            LedgerError: there is no such query.
        """
        row = self._database.row("SELECT * FROM query WHERE id = ?", query_id)
        if row is None:
            raise LedgerError(f"there is no query {query_id}; it was never asked.")
        return _query(row)

    def queries(self, round_number: int | None = None) -> list[Query]:
        """Queries of all rounds, or of one round, in the order in which they were asked."""
        rows = (
            self._database.rows("SELECT * FROM query ORDER BY round, position")
            if round_number is None
            else self._database.rows("SELECT * FROM query WHERE round = ? ORDER BY position", round_number)
        )
        return [_query(row) for row in rows]

    def newest_queries(self, before_round: int) -> dict[int, Query]:
        """{candidate id: its newest query} over all rounds before ``before_round``, sorted by candidate id."""
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
        """Numbers of queries, of open queries, and of answers that are not superseded."""
        row = self._database.row(
            "SELECT (SELECT COUNT(*) FROM query), (SELECT COUNT(*) FROM waiting), "
            "(SELECT COUNT(*) - COUNT(supersedes) FROM answer)"
        )
        assert row is not None
        return Counts(*row)

    # -- answers --------------------------------------------------------------------------------------------------

    def tell(self, answer: Answer) -> int:
        """Record an answer. It is on disk when this method returns.

        Returns:
            The id of the answer.

        Raises:
            LedgerError: there is no such query; the annotator has answered it before and does not supersede that
                answer; the superseded answer belongs to another query or is itself superseded; a drawing is missing,
                lies outside the image or is not a mask of the task; or *swapped* comes for objects without sides.
        """
        return self.tell_all([answer])[0]

    def tell_all(self, answers: Sequence[Answer]) -> list[int]:
        """Record several answers, all of them or none; see ``tell``.

        Returns:
            The ids of the answers.
        """
        for answer in answers:
            answer.check()
            self._check_fit(answer)
        with self._database.transaction():
            return [self._tell(answer) for answer in answers]

    def _check_fit(self, answer: Answer) -> None:
        """Raise LedgerError if an answer does not fit the image or the task."""
        num_sides = self._task.num_sides if self._task else None
        if num_sides == 1 and MEANING[answer.kind].teaches == "exchanged":
            raise LedgerError(
                f"an answer is {str(answer.kind)!r}, but these objects have no sides; answer 'true' or 'shape'."
            )
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
        subject = self._subject(answer)
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
            answered_at=now(),
            supersedes=answer.supersedes,
            adjudicates=int(answer.adjudicates),
            **subject,
        )

    def _subject(self, answer: Answer) -> dict[str, Any]:
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
        """Raise LedgerError if an answer supersedes the wrong one, or the annotator's earlier answer stands."""
        if answer.query is None and answer.supersedes is None:
            return  # missed objects do not exclude each other
        current = {
            row["id"]: row["annotator"]
            for row in self._database.rows(
                f"SELECT id, annotator FROM answer WHERE query IS ? AND {_CURRENT} ORDER BY id", answer.query
            )
        }
        if answer.supersedes is not None and answer.supersedes not in current:
            raise LedgerError(
                f"answer {answer.supersedes} cannot be superseded: it is no current answer to this query. "
                f"Supersede the newest answer."
            )
        earlier = [i for i, name in current.items() if name == answer.annotator and i != answer.supersedes]
        if answer.query is not None and earlier and not answer.adjudicates:
            raise LedgerError(
                f"{answer.annotator} has answered query {answer.query} already (answer {earlier[0]}); "
                f"to change it, supersede that answer."
            )

    def current_answers(self, query_id: int | None = None) -> list[Answer]:
        """Answers to all queries, or to one, that no other answer supersedes; oldest first."""
        if query_id is None:
            rows = self._database.rows(f"{_ANSWERS} WHERE {_CURRENT} ORDER BY answer.id")
        else:
            rows = self._database.rows(f"{_ANSWERS} WHERE query = ? AND {_CURRENT} ORDER BY answer.id", query_id)
        return [_answer(row) for row in rows]

    def all_answers(self) -> list[Answer]:
        """All answers, superseded ones as well, oldest first."""
        return [_answer(row) for row in self._database.rows(f"{_ANSWERS} ORDER BY answer.id")]

    def verdicts(self, ids: Iterable[int] | None = None) -> dict[int, Verdict]:
        """What the answers to each candidate that was asked about amount to; see ``records.adjudicate``.

        A candidate with an open query may not be asked again, even if it was skipped in an earlier round.

        Args:
            ids: only these candidates; None takes all.

        Returns:
            {candidate id: verdict}. Without an answer ``y`` is NaN and the candidate may not be asked again.
        """
        among, values = "1", []
        if ids is not None:
            among, values = "candidate IN (SELECT value FROM json_each(?))", [json.dumps(list(ids))]
        by_candidate: dict[int, list[Answer]] = {}
        for row in self._database.rows(
            f"{_ANSWERS} WHERE candidate IS NOT NULL AND {among} AND {_CURRENT} ORDER BY answer.id", *values
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
        """What annotation has cost.

        Returns:
            The number of answers that count in the budget, where an answer that was changed counts once, and the
            seconds of all answers, superseded ones as well.
        """
        rows = self._database.rows(f"SELECT kind, COUNT(*) AS num FROM answer WHERE {_CURRENT} GROUP BY kind")
        num_answers = sum(row["num"] for row in rows if MEANING[answer_kind(row["kind"])].in_budget)
        row = self._database.row("SELECT TOTAL(seconds) FROM answer")
        return num_answers, float(row[0]) if row else 0.0

    # -- steps and scores -----------------------------------------------------------------------------------------

    def finish_step(self, round_number: int, step: str, seconds: float, detail: dict[str, Any]) -> None:
        """Record that a step is done. Call it after the step's output has been renamed to its final name.

        Args:
            round_number: the round.
            step: name of the step.
            seconds: time that the step took.
            detail: what else to record, as plain values.
        """
        with self._database.transaction():
            self._database.insert(
                "step", round=round_number, step=step, seconds=seconds, detail=json.dumps(detail), finished_at=now()
            )

    def finished_steps(self) -> dict[tuple[int, str], dict[str, Any]]:
        """{(round, step): its detail and "seconds"} of every finished step, in the order in which they finished."""
        rows = self._database.rows("SELECT * FROM step ORDER BY finished_at, rowid")
        return {(r["round"], r["step"]): json.loads(r["detail"]) | {"seconds": r["seconds"]} for r in rows}

    def store_score(self, round_number: int, metrics: dict[str, Any]) -> None:
        """Record the metrics of a round. Recording the same metrics again changes nothing.

        Raises:
            LedgerError: the round has other metrics already.
        """
        with self._database.transaction():
            old = self._database.row("SELECT metrics FROM score WHERE round = ?", round_number)
            if old is None:
                self._database.insert("score", round=round_number, metrics=json.dumps(metrics))
            elif old["metrics"] != json.dumps(metrics):
                raise LedgerError(
                    f"round {round_number} has been scored already, with another result. Were its files changed?"
                )

    def scores(self) -> dict[int, dict[str, Any]]:
        """{round: metrics}, sorted by round."""
        rows = self._database.rows("SELECT * FROM score ORDER BY round")
        return {row["round"]: json.loads(row["metrics"]) for row in rows}

    @property
    def _task_name(self) -> str:
        return self._task.name if self._task else ""


def _query(row: sqlite3.Row) -> Query:
    box = Box.parse(row["box"])
    candidate = Candidate(row["candidate"], row["label"], box, unpack_mask(row["mask"], box), row["score"])
    shape = (-1, row["width_px"], row["width_px"])  # NumPy infers the number of planes from the length
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
