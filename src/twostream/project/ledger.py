"""The ledger: one SQLite file that records what was proposed, asked, answered, done and scored.

Rows are only added. A wrong answer is corrected by a new answer that supersedes it; nothing is deleted. Several threads
and processes may use the file at once. The time of ``ask`` and ``tell`` does not grow with the number of answers.

    registration  how many new ids the candidates of a round were given, and the first of them
    query         a candidate that was asked about, with a copy of its box, mask and patch pair; or a window, a box
                  that was searched for what nothing had been proposed for
    drawing       a mask that an annotator drew
    answer        an annotator's answer to a query, or an object that was missed, which has no query but may have been
                  marked in a window; or the retraction of either
    lease         who is looking at which query, and until when (``leases.py``)
    step          a finished step of a round
    score         the metrics of a round
    fact          the id of the project, and what else was stated about it

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

from twostream.base import progress
from twostream.base.errors import LedgerError
from twostream.base.geometry import Box
from twostream.project.answer_log import AnswerLog, LoggedAnswer
from twostream.project.asking import Asking
from twostream.project.database import PROJECT_ID, Database, now
from twostream.project.leases import Leases
from twostream.project.records import Answer, Query, QueryLine, Verdict, Window, adjudicate
from twostream.project.rows import (
    ANSWERS,
    CURRENT,
    PLAIN,
    answer_of,
    line_of,
    query_of,
    window_of,
)
from twostream.project.telling import Telling
from twostream.task import Task
from twostream.task.answers import MEANING, RETRACTED, AnswerKind, answer_kind

MAX_ID = 2**53 - 1
"""The largest integer that JavaScript, and so a web page, can hold exactly."""


@dataclass(frozen=True)
class Counts:
    """Numbers of queries and answers.

    Attributes:
        asked: all queries, windows among them.
        open: queries and windows without an answer.
        answers: answers that no other answer supersedes, marked objects among them.
        windows: all windows.
        open_windows: windows without an answer.
    """

    asked: int
    open: int
    answers: int
    windows: int = 0
    open_windows: int = 0


class Ledger:
    """The ledger in the file ``path``.

    Args:
        path: the SQLite file.
        create: whether to make the file if it is missing. Without it a missing file is an error, because a project that
            has lost its ledger must not start again and overwrite its rounds.
        image_box: returns the box of the image, inside which drawings must lie, or None if it is not known.
        task: the task, whose number of sides limits the values of drawn masks; None if it is not known.
        project_id: id of the project, for a file that has none yet: a new one, or an old one. "" draws one.
        answers_path: ``answers.jsonl``, to which every answer is appended as well; None for none.
        advice: what to do if the file is missing or damaged, as a sentence.
        timeout_seconds: how long to wait while another process writes.

    Raises:
        LedgerError: the file is missing, is not a ledger, is locked, or was written by a newer version; or
            ``answers_path`` holds answers of another project, or answers that the ledger lacks.
    """

    def __init__(
        self,
        path: Path,
        *,
        create: bool = False,
        image_box: Callable[[], Box | None] | None = None,
        task: type[Task] | None = None,
        project_id: str = "",
        answers_path: Path | None = None,
        advice: str = "Restore it from a copy.",
        timeout_seconds: float = 60.0,
    ) -> None:
        self.path = path
        self._task = task
        if not create and not path.is_file():
            raise LedgerError(f"{path} is missing. {advice}")
        self._database = Database(
            path,
            create=create,
            task=task.name if task else "",
            project_id=project_id,
            advice=advice,
            timeout_seconds=timeout_seconds,
        )

        self._asking = Asking(self._database, task.name if task else "")
        self._telling = Telling(self._database, task=task, image_box=image_box)
        self._log = None if answers_path is None else AnswerLog(answers_path)
        self._log_fails = False
        if self._log is not None and not create:
            self._check_log(self._log, advice)

    @property
    def project_id(self) -> str:
        """Id of the project to which the ledger belongs."""
        return self._database.fact(PROJECT_ID) or ""

    @property
    def leases(self) -> Leases:
        """Who is looking at which query."""
        return Leases(self._database)

    @property
    def is_read_only(self) -> bool:
        """Whether the file lies on a disk that can only be read."""
        return self._database.is_read_only

    def close(self) -> None:
        """Close the connections of all threads. The ledger can still be used; it connects again."""
        self._database.close()

    def copy_to(self, path: Path) -> None:
        """Write a copy of the ledger as it is now to ``path``, atomically.

        Raises:
            LedgerError: it cannot be written.
        """
        self._database.copy_to(path)

    def fact(self, name: str) -> str | None:
        """What was stated last about ``name``, see ``state``; None if nothing was."""
        return self._database.fact(name)

    def state(self, name: str, value: str) -> None:
        """Record a fact about the project. It replaces what was stated about ``name`` before, which is kept."""
        with self._database.transaction():
            self._database.state(name, value)

    def is_untouched(self) -> bool:
        """Whether nothing was registered, asked, answered, done or scored yet."""
        tables = ("registration", "query", "answer", "step", "score")
        return not any(self._database.row(f"SELECT 1 FROM {table} LIMIT 1") for table in tables)

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

    def ask(self, round_number: int, queries: Sequence[Query], windows: Sequence[Window] = ()) -> None:
        """Record the batch of a round as open queries, all of them or none.

        Asking the same candidates and windows for the same round again changes nothing.

        Args:
            round_number: the round.
            queries: the batch, in the order in which annotators should see it.
            windows: its windows, which come after the candidates.

        Raises:
            LedgerError: the round has asked about other candidates or windows before; or a candidate was never
                registered, may not be asked again, or was an audit before and now is none (or the reverse: audits are a
                random sample); or a window is empty, has no inclusion, or its box may not be asked again.
        """
        with self._database.transaction():
            self._asking.ask(
                round_number,
                queries,
                windows,
                next_id=self.next_id(round_number + 1),
                verdicts=self.verdicts([query.candidate.id for query in queries]),
                closed_boxes=self.closed_boxes() if windows else set(),
            )

    def query(self, query_id: int) -> Query:
        """The query with the id ``query_id``.

        Raises:
            LedgerError: there is no such query.
        """
        row = self._database.row("SELECT * FROM query WHERE id = ?", query_id)
        if row is None:
            raise LedgerError(f"there is no query {query_id}; it was never asked.")
        if row["candidate"] is None:
            raise LedgerError(f"query {query_id} is a window and has no candidate; Ledger.window returns it.")
        return query_of(row)

    def window(self, window_id: int) -> Window:
        """The window with the id ``window_id``.

        Raises:
            LedgerError: there is no such window.
        """
        row = self._database.row("SELECT * FROM query WHERE id = ? AND candidate IS NULL", window_id)
        if row is None:
            raise LedgerError(f"there is no window {window_id}; it was never asked, or is a query about a candidate.")
        return window_of(row)

    def windows(self, round_number: int | None = None) -> list[Window]:
        """Windows of all rounds, or of one round, in the order in which they were asked."""
        return [window_of(row) for row in self._asked("candidate IS NULL", round_number)]

    def _asked(self, which: str, round_number: int | None) -> list[sqlite3.Row]:
        """Rows of ``query`` in the order in which they were asked."""
        if round_number is None:
            return self._database.rows(f"SELECT * FROM query WHERE {which} ORDER BY round, position")
        return self._database.rows(f"SELECT * FROM query WHERE round = ? AND {which} ORDER BY position", round_number)

    def newest_asked_round(self) -> int | None:
        """The newest round that has asked anything; None if none has."""
        row = self._database.row("SELECT MAX(round) FROM query")
        return None if row is None or row[0] is None else int(row[0])

    def queries(self, round_number: int | None = None) -> list[Query]:
        """Queries about candidates of all rounds, or of one round, in the order in which they were asked."""
        return [query_of(row) for row in self._asked("candidate IS NOT NULL", round_number)]

    def query_lines(self, round_number: int) -> list[QueryLine]:
        """Queries about candidates in a round, without masks and patches, in the order in which they were asked."""
        rows = self._database.rows(
            "SELECT id, candidate, strategy, is_audit, reason, score FROM query WHERE round = ? "
            "AND candidate IS NOT NULL ORDER BY position",
            round_number,
        )
        return [line_of(row) for row in rows]

    def newest_queries(self, before_round: int) -> dict[int, Query]:
        """{candidate id: its newest query} over all rounds before ``before_round``, sorted by candidate id."""
        rows = self._database.rows(
            "SELECT * FROM query WHERE round = (SELECT MAX(round) FROM query AS other "
            "WHERE other.candidate = query.candidate AND other.round < ?) ORDER BY candidate",
            before_round,
        )
        return {row["candidate"]: query_of(row) for row in rows}

    def open_queries(self) -> list[Query]:
        """Queries about candidates without an answer, in the order in which they were asked."""
        return [query_of(row) for row in self._waiting("candidate IS NOT NULL")]

    def open_windows(self) -> list[Window]:
        """Windows without an answer, in the order in which they were asked."""
        return [window_of(row) for row in self._waiting("candidate IS NULL")]

    def _waiting(self, which: str) -> list[sqlite3.Row]:
        """Rows of ``query`` without an answer, in the order in which they were asked."""
        return self._database.rows(
            "SELECT query.* FROM waiting CROSS JOIN query ON query.id = waiting.query "
            f"WHERE {which} ORDER BY round, position"
        )

    def counts(self) -> Counts:
        """Numbers of queries and windows, of open ones, and of answers that are not superseded."""
        row = self._database.row(
            "SELECT (SELECT COUNT(*) FROM query), (SELECT COUNT(*) FROM waiting), "
            f"(SELECT COUNT(*) - COUNT(supersedes) - TOTAL(kind = '{RETRACTED}') FROM answer), "
            "(SELECT COUNT(*) FROM query WHERE candidate IS NULL), "
            "(SELECT COUNT(*) FROM waiting CROSS JOIN query ON query.id = waiting.query WHERE candidate IS NULL)"
        )
        assert row is not None
        return Counts(*map(int, row))

    # -- answers --------------------------------------------------------------------------------------------------

    def tell(self, answer: Answer) -> int:
        """Record an answer. It is on disk when this method returns.

        An answer whose ``key`` was recorded before is not recorded again.

        Returns:
            The id of the answer.

        Raises:
            LedgerError: there is no such query; the key belongs to another answer; the annotator has answered it before
                and does not supersede that answer; the superseded answer belongs to another query or is itself
                superseded; an answer is taken back by somebody else; a drawing is missing, lies outside the image or
                is not a mask of the task; *swapped* comes for objects without sides; a window gets an answer that
                speaks of a candidate, or the reverse; or an object is marked in a window that it does not touch.
        """
        return self.tell_all([answer])[0]

    def tell_all(self, answers: Sequence[Answer]) -> list[int]:
        """Record several answers, all of them or none; see ``tell``.

        Returns:
            The ids of the answers.
        """
        for answer in answers:
            answer.check()
            self._telling.check_fit(answer)
        with self._database.transaction():
            first = self._next_answer_id()
            ids = [self._telling.tell(answer, first + number, now()) for number, answer in enumerate(answers)]
        self.append_to_log()
        return ids

    def restore(self, answers: Sequence[Answer]) -> dict[int, str]:
        """Record answers that the ledger has lost, with the ids and times that it once gave them.

        Args:
            answers: from ``answers.jsonl``, in any order. Those that the ledger has are passed over.

        Returns:
            {id: why it cannot be recorded} of the others, as sentences.
        """
        refused = {}
        for answer in sorted(answers, key=lambda one: one.id):
            try:
                with self._database.transaction():
                    if self._holds(answer):
                        continue
                    answer.check()
                    if not self._fits_its_query(answer):
                        about = f"about candidate {answer.candidate}" if answer.candidate else "that is a window"
                        raise LedgerError(f"the ledger has no query {answer.query} {about} in round {answer.round}.")
                    if self._database.row("SELECT 1 FROM answer WHERE id = ?", answer.id):
                        raise LedgerError(f"the ledger has another answer {answer.id}.")
                    self._telling.tell(answer, answer.id, answer.answered_at)
            except LedgerError as error:
                refused[answer.id] = str(error)
        return refused

    def append_to_log(self) -> None:
        """Append to ``answers.jsonl`` what it lacks. If that fails, the next answer or `repair` tries again.

        The answers are in the ledger by then, so a failure is said and is no error.
        """
        if self._log is None:
            return
        try:
            self._log.append(self.logged)
            self._log_fails = False
        except (OSError, LedgerError) as error:
            if not self._log_fails:
                progress.say(
                    f"  {self._log.path} cannot be written ({error}). The answers are recorded in the ledger; their "
                    f"copies are added as soon as it can."
                )
            self._log_fails = True

    def logged(self, after: int = 0) -> list[LoggedAnswer]:
        """All answers whose id is above ``after``, as lines of ``answers.jsonl``, sorted by id."""
        rows = self._database.rows(f"{ANSWERS} WHERE answer.id > ? ORDER BY answer.id", after)
        return [LoggedAnswer(answer_of(row), self.project_id) for row in rows] if rows else []

    def _check_log(self, log: AnswerLog, advice: str) -> None:
        """Raise LedgerError if ``answers.jsonl`` belongs to another project, or has an answer that was lost here."""
        try:
            last = log.last()  # read before the ledger: an answer is here before it is there
        except OSError:
            return
        if last is None:
            return
        if last.project != self.project_id:
            raise LedgerError(
                f"{log.path} holds answers of project {last.project}, but {self.path} is of project {self.project_id}. "
                f"{advice}"
            )
        if not self._holds(last.answer) and self._fits_its_query(last.answer):
            raise LedgerError(f"{self.path} lacks answers that {log.path} holds: it is an older copy. {advice}")

    def _holds(self, answer: Answer) -> bool:
        """Whether this very answer is in the ledger."""
        row = self._database.row("SELECT query, annotator, answered_at FROM answer WHERE id = ?", answer.id)
        return row is not None and tuple(row) == (answer.query, answer.annotator, answer.answered_at)

    def _fits_its_query(self, answer: Answer) -> bool:
        """Whether the query of an answer is in the ledger; True for a missed object, which has none."""
        if answer.query is None:
            return True
        row = self._database.row("SELECT candidate, round FROM query WHERE id = ?", answer.query)
        return row is not None and tuple(row) == (answer.candidate, answer.round)

    def _next_answer_id(self) -> int:
        """The id of the next answer. No answer in ``answers.jsonl`` has it, even if the ledger has lost some."""
        row = self._database.row("SELECT MAX(id) FROM answer")
        try:
            last = self._log.last() if self._log else None
        except OSError:
            last = None
        return max((row and row[0]) or 0, last.answer.id if last else 0) + 1

    def current_answers(self, query_id: int | None = None) -> list[Answer]:
        """Answers to all queries, or to one, that no other answer supersedes; oldest first."""
        if query_id is None:
            rows = self._database.rows(f"{ANSWERS} WHERE {CURRENT} ORDER BY answer.id")
        else:
            rows = self._database.rows(f"{ANSWERS} WHERE query = ? AND {CURRENT} ORDER BY answer.id", query_id)
        return [answer_of(row) for row in rows]

    def all_answers(self) -> list[Answer]:
        """All answers, superseded ones as well, oldest first."""
        return [answer_of(row) for row in self._database.rows(f"{ANSWERS} ORDER BY answer.id")]

    def answers_after(self, answer_id: int) -> list[Answer]:
        """Answers and retractions whose id is above ``answer_id``, without their drawings, oldest first."""
        rows = self._database.rows(f"SELECT {PLAIN}, NULL AS drawing FROM answer WHERE id > ? ORDER BY id", answer_id)
        return [answer_of(row) for row in rows]

    def newest_answers_of(self, annotator: str, round_number: int, number: int) -> list[Answer]:
        """The newest answers and retractions of an annotator in a round, at most ``number``, oldest first."""
        rows = self._database.rows(
            f"{ANSWERS} WHERE annotator = ? AND round = ? ORDER BY answer.id DESC LIMIT ?",
            annotator,
            round_number,
            number,
        )
        return [answer_of(row) for row in reversed(rows)]

    def missed_objects(self) -> list[Answer]:
        """The objects that were missed, as they were drawn last, oldest first."""
        kind = str(AnswerKind.MISSED)
        return [answer_of(row) for row in self._database.rows(f"{ANSWERS} WHERE kind = ? AND {CURRENT}", kind)]

    def answer(self, answer_id: int) -> Answer | None:
        """The answer with the id ``answer_id``, superseded or not; None if there is none."""
        row = self._database.row(f"{ANSWERS} WHERE answer.id = ?", answer_id)
        return None if row is None else answer_of(row)

    def answer_with_key(self, key: str) -> Answer | None:
        """The answer that was sent with ``key``; None if there is none."""
        row = self._database.row(f"{ANSWERS} WHERE answer.key = ?", key)
        return None if row is None else answer_of(row)

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
            f"{ANSWERS} WHERE candidate IS NOT NULL AND {among} AND {CURRENT} ORDER BY answer.id", *values
        ):
            by_candidate.setdefault(row["candidate"], []).append(answer_of(row))
        asked = self._database.rows(
            f"SELECT DISTINCT candidate FROM query WHERE candidate IS NOT NULL AND {among} ORDER BY candidate", *values
        )
        found = {row["candidate"]: Verdict(math.nan, None, askable=False) for row in asked}  # without an answer yet
        found |= {candidate: adjudicate(answers) for candidate, answers in by_candidate.items()}
        for row in self._database.rows("SELECT candidate FROM waiting CROSS JOIN query ON query.id = waiting.query"):
            if row["candidate"] in found:
                found[row["candidate"]] = replace(found[row["candidate"]], askable=False)
        return found

    def window_verdicts(self) -> dict[int, Verdict]:
        """What the answers to each window amount to; see ``records.adjudicate``.

        Returns:
            {id of the window: verdict}. ``y`` is always NaN; the kind is ``NONE_MISSED`` where the window was searched
            and closed. Without an answer the window's box may not be asked again.
        """
        of_window: dict[int, list[Answer]] = {}
        for row in self._database.rows(
            f"{ANSWERS} JOIN query ON query.id = answer.query WHERE query.candidate IS NULL AND {CURRENT} "
            "ORDER BY answer.id"
        ):
            of_window.setdefault(row["query"], []).append(answer_of(row))
        open_verdict = Verdict(math.nan, None, askable=False)
        return {w.id: adjudicate(of_window[w.id]) if w.id in of_window else open_verdict for w in self.windows()}

    def closed_boxes(self) -> set[tuple[str, Box]]:
        """(volume, box) of every window that may not be asked again: it waits, or somebody has said something."""
        verdicts = self.window_verdicts()
        return {(window.volume, window.box) for window in self.windows() if not verdicts[window.id].askable}

    def spent(self) -> tuple[int, float]:
        """What annotation has cost.

        Returns:
            The number of answers that count in the budget, where an answer that was changed counts once, and the
            seconds of all answers, superseded ones as well.
        """
        rows = self._database.rows(f"SELECT kind, COUNT(*) AS num FROM answer WHERE {CURRENT} GROUP BY kind")
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
