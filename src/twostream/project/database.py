"""The SQLite file of the ledger: its tables and versions, one connection per thread, copies, errors as sentences.

Rows can only be added: triggers refuse updates and deletions. Two tables are exceptions: ``waiting``, which lists the
queries without an answer and is kept up to date by triggers on ``query`` and ``answer``, and ``lease``, which says who
is looking at which query at this moment.

Knows SQL; must not know what candidates or answers mean.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
import tempfile
import threading
import weakref
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from twostream.base.errors import LedgerBusyError, LedgerError
from twostream.task.answers import RETRACTED

SCHEMA_VERSION = 5
PROJECT_ID = "project"
"""Name of the fact that holds the id of the project."""
_FIRST_TABLES = {
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


def new_project_id() -> str:
    """A random id for a project. It begins with a letter, so that no spreadsheet takes it for a number."""
    return f"p{secrets.token_hex(6)}"


def _first_version() -> Iterator[str]:
    """Statements that make the tables of schema 1 in an empty file."""
    for table, columns in _FIRST_TABLES.items():
        yield f"CREATE TABLE {table} ({columns})"
        yield from _refuse_changes(table)


def _refuse_changes(table: str) -> Iterator[str]:
    """Statements that make ``table`` append-only."""
    for verb in ("UPDATE", "DELETE"):
        yield (
            f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
            "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
        )


def _second_version(task: str) -> Iterator[str]:
    """Statements from schema 1 to 2: volume and task of each row, indices, and the table ``waiting``."""
    name = task.replace("'", "''")
    for table in ("query", "answer"):
        yield f"ALTER TABLE {table} ADD COLUMN volume TEXT NOT NULL DEFAULT 'image'"
        yield f"ALTER TABLE {table} ADD COLUMN task TEXT NOT NULL DEFAULT '{name}'"
    yield "CREATE INDEX query_by_candidate ON query (candidate, round)"
    yield "CREATE INDEX answer_by_query ON answer (query)"
    yield "CREATE INDEX answer_by_candidate ON answer (candidate)"
    yield "CREATE TABLE waiting (query INTEGER PRIMARY KEY REFERENCES query (id))"
    yield "INSERT INTO waiting SELECT id FROM query WHERE id NOT IN (SELECT query FROM answer WHERE query IS NOT NULL)"
    yield "CREATE TRIGGER query_waits AFTER INSERT ON query BEGIN INSERT INTO waiting VALUES (NEW.id); END"
    yield (
        "CREATE TRIGGER answer_ends_waiting AFTER INSERT ON answer WHEN NEW.query IS NOT NULL "
        "BEGIN DELETE FROM waiting WHERE query = NEW.query; END"
    )


def _third_version(project_id: str) -> Iterator[str]:
    """Statements from schema 2 to 3: facts about the project as (name, value); the newest row of a name counts."""
    yield "CREATE TABLE fact (id INTEGER PRIMARY KEY, name TEXT NOT NULL, value TEXT NOT NULL, stated_at TEXT NOT NULL)"
    yield "CREATE INDEX fact_by_name ON fact (name)"
    yield from _refuse_changes("fact")
    value = project_id.replace("'", "''")
    yield f"INSERT INTO fact (name, value, stated_at) VALUES ('{PROJECT_ID}', '{value}', '{now()}')"


def _fourth_version() -> Iterator[str]:
    """Statements from schema 3 to 4: keys of answers, retractions, leases."""
    yield "ALTER TABLE answer ADD COLUMN key TEXT"
    yield "CREATE UNIQUE INDEX answer_by_key ON answer (key)"
    yield "CREATE INDEX answer_by_annotator ON answer (annotator, id)"
    yield (
        "CREATE TABLE lease (query INTEGER NOT NULL REFERENCES query (id), annotator TEXT NOT NULL, "
        "until REAL NOT NULL, PRIMARY KEY (query, annotator))"
    )
    yield "DROP TRIGGER answer_ends_waiting"
    yield (
        "CREATE TRIGGER answer_ends_waiting AFTER INSERT ON answer "
        f"WHEN NEW.query IS NOT NULL AND NEW.kind != '{RETRACTED}' "
        "BEGIN DELETE FROM waiting WHERE query = NEW.query; END"
    )
    yield (
        "CREATE TRIGGER retraction_opens AFTER INSERT ON answer "
        f"WHEN NEW.query IS NOT NULL AND NEW.kind = '{RETRACTED}' AND NOT EXISTS "
        f"(SELECT 1 FROM answer WHERE query = NEW.query AND kind != '{RETRACTED}' "
        "AND NOT EXISTS (SELECT 1 FROM answer AS later WHERE later.supersedes = answer.id)) "
        "BEGIN INSERT OR IGNORE INTO waiting VALUES (NEW.query); END"
    )


_QUERY_COLUMNS = """id INTEGER PRIMARY KEY, round INTEGER NOT NULL, candidate INTEGER, position INTEGER NOT NULL,
    strategy TEXT NOT NULL, is_audit INTEGER NOT NULL, reason TEXT NOT NULL, label INTEGER, box TEXT NOT NULL,
    mask BLOB, score REAL, width_px INTEGER, image_patch BLOB, mask_patch BLOB, angle_deg REAL, section INTEGER,
    padded REAL, asked_at TEXT NOT NULL, volume TEXT NOT NULL, task TEXT NOT NULL, inclusion REAL,
    UNIQUE (round, candidate), UNIQUE (round, position), CHECK ((candidate IS NULL) = (inclusion IS NOT NULL))"""
"""Columns of ``query`` since schema 5. A window is a row without a candidate; ``inclusion`` is the probability with
which it was drawn."""
_BEFORE_WINDOWS = (
    "id, round, candidate, position, strategy, is_audit, reason, label, box, mask, score, width_px, image_patch, "
    "mask_patch, angle_deg, section, padded, asked_at, volume, task"
)
"""Columns of ``query`` in schema 4."""


def _fifth_version() -> Iterator[str]:
    """Statements from schema 4 to 5: windows among the queries, and the window in which an object was marked.

    SQLite cannot allow NULL in a column that exists, so the table of queries is made again.
    """
    yield f"CREATE TABLE query_with_windows ({_QUERY_COLUMNS})"
    yield f"INSERT INTO query_with_windows ({_BEFORE_WINDOWS}) SELECT {_BEFORE_WINDOWS} FROM query"
    yield "DROP TABLE query"  # with its triggers and its index
    yield "ALTER TABLE query_with_windows RENAME TO query"
    yield from _refuse_changes("query")
    yield "CREATE INDEX query_by_candidate ON query (candidate, round)"
    yield "CREATE TRIGGER query_waits AFTER INSERT ON query BEGIN INSERT INTO waiting VALUES (NEW.id); END"
    yield "ALTER TABLE answer ADD COLUMN window INTEGER REFERENCES query (id)"


def now() -> str:
    """The time as the ledger writes it: ISO 8601 in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def damage_of(path: Path) -> str:
    """What is wrong with a ledger's file; "" if it is sound. Reads all of it."""
    if not path.is_file():
        return "it is missing"
    if path.stat().st_size == 0:  # SQLite would take it for a new file, and delete the latest rows beside it
        return "it is empty"
    try:
        with closing(sqlite3.connect(path)) as connection:
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            connection.execute("SELECT 1 FROM registration").fetchone()
    except sqlite3.Error as error:
        return str(error)
    return "" if found == "ok" else str(found)


class _Connection(sqlite3.Connection):
    """A connection that allows weak references, so that it is closed when its thread ends."""


class _NotWritableError(LedgerBusyError):
    """The file or its folder cannot be written."""


class Database:
    """The file at ``path``, migrated to the current schema.

    Every thread has its own connection; writers wait for each other. SQLite cannot open such a file on a read-only
    disk; there it is read from a temporary copy.

    Args:
        path: the SQLite file; made if it is missing.
        task: name of the task, for rows of schema 1, which do not state it.
        project_id: id of the project, for a file that has none yet; "" draws one.
        advice: what to do if the file is damaged, as a sentence.
        timeout_seconds: how long to wait while another process writes.

    Raises:
        LedgerError: the file is not a ledger, is damaged or locked, cannot be written, or has a newer schema.
    """

    def __init__(
        self,
        path: Path,
        *,
        create: bool = False,
        task: str = "",
        project_id: str = "",
        advice: str = "Restore it from a copy.",
        timeout_seconds: float = 60.0,
    ) -> None:
        self.path, self._timeout, self._advice = path, timeout_seconds, advice
        self._opened, self.is_read_only = path, False
        self._local = threading.local()
        self._writing = threading.Lock()
        self._open: weakref.WeakSet[sqlite3.Connection] = weakref.WeakSet()
        if not create and path.is_file() and path.stat().st_size == 0:
            self._refuse_other_file()  # before SQLite opens it, takes it for new, and deletes the rows beside it
        try:
            self._migrate(create, task, project_id or new_project_id())
        except _NotWritableError:
            if create or not path.is_file():
                raise
            self.close()
            self._opened = self._temporary_copy()
            self._migrate(create, task, project_id)
            self.is_read_only = True

    @property
    def connection(self) -> sqlite3.Connection:
        """This thread's connection."""
        found: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if found is None:
            with self._errors_as_sentences():
                # ``close`` closes it from another thread, which SQLite would refuse otherwise.
                found = sqlite3.connect(
                    self._opened,
                    timeout=self._timeout,
                    isolation_level=None,
                    check_same_thread=False,
                    factory=_Connection,
                )
                found.row_factory = sqlite3.Row
                found.execute("PRAGMA journal_mode = WAL")
                found.execute("PRAGMA foreign_keys = ON")
            self._local.connection = found
            self._open.add(found)
        return found

    def rows(self, statement: str, *values: Any) -> list[sqlite3.Row]:
        """All rows of a SELECT."""
        with self._errors_as_sentences():
            return self.connection.execute(statement, values).fetchall()

    def row(self, statement: str, *values: Any) -> sqlite3.Row | None:
        """The first row of a SELECT; None if there is none."""
        with self._errors_as_sentences():
            found: sqlite3.Row | None = self.connection.execute(statement, values).fetchone()
            return found

    def insert(self, table: str, **values: Any) -> int:
        """Add a row to ``table``.

        Returns:
            The id of the row.
        """
        names, marks = ", ".join(values), ", ".join("?" * len(values))
        with self._errors_as_sentences():
            cursor = self.connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(values.values()))
            return int(cursor.lastrowid or 0)

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[None]:
        """Run the statements inside as one: at the end all of them are on disk, or none. Other writers wait.

        Threads of one process wait in line, because SQLite lets a writer look again only now and then, up to 0.1 s
        after the file is free.

        Args:
            durable: whether this waits for the disk. Without it the statements outlive this process, but perhaps not
                the machine's power; all or none of them, and nothing else is at risk.

        Raises:
            LedgerError: the file cannot be written.
        """
        if self.is_read_only:
            raise LedgerBusyError(_not_writable(self.path, "it was opened for reading"))
        with self._writing:
            with self._errors_as_sentences():
                self.connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                with self._errors_as_sentences():
                    self.connection.execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise

    def copy_to(self, path: Path) -> None:
        """Write a copy of the file as it is now, atomically. Other connections may read and write meanwhile.

        Raises:
            LedgerError: the copy cannot be written.
        """
        partial = path.with_name(path.name + ".partial")
        partial.unlink(missing_ok=True)
        with self._errors_as_sentences(path), closing(sqlite3.connect(partial)) as target:
            self.connection.backup(target)
            target.execute("PRAGMA journal_mode = DELETE")  # one file, which a read-only disk can hold as well
        os.replace(partial, path)

    def _temporary_copy(self) -> Path:
        """A copy of the file, with the rows that SQLite keeps beside it until they are moved into it.

        Raises:
            LedgerError: it cannot be read, or another machine writes it at this moment.
        """
        folder = Path(tempfile.mkdtemp(prefix="twostream-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        names = [name for name in (self.path.name, f"{self.path.name}-wal") if self.path.with_name(name).exists()]

        def stamps() -> list[tuple[int, int]]:
            return [(s.st_size, s.st_mtime_ns) for name in names for s in [self.path.with_name(name).stat()]]

        try:
            before = stamps()
            for name in names:
                shutil.copyfile(self.path.with_name(name), folder / name)
            changed = stamps() != before
        except OSError as error:
            raise LedgerError(f"{self.path} cannot be read: {error}. Make it readable for your account.") from None
        if changed:
            raise LedgerError(f"{self.path} is being written by another machine at this moment; try again.")
        return folder / self.path.name

    def close(self) -> None:
        """Close the connections of all threads. A thread that goes on gets a new one."""
        for connection in list(self._open):
            connection.close()
        self._local = threading.local()

    def fact(self, name: str) -> str | None:
        """What was stated last about ``name``; None if nothing was."""
        row = self.row("SELECT value FROM fact WHERE name = ? ORDER BY id DESC LIMIT 1", name)
        return None if row is None else str(row["value"])

    def state(self, name: str, value: str) -> None:
        """Record a fact about the project. It replaces what was stated about ``name`` before."""
        self.insert("fact", name=name, value=value, stated_at=now())

    def _migrate(self, create: bool, task: str, project_id: str) -> None:
        """Bring the file to ``SCHEMA_VERSION``, in one transaction.

        An empty file is what a failed copy leaves. It is not taken for a new ledger, or a project would start over.
        """
        has_tables = self.row("SELECT 1 FROM sqlite_master WHERE name = 'registration'") is not None
        if not (has_tables or create):
            self._refuse_other_file()
        if has_tables and self._version() == SCHEMA_VERSION:
            return
        with self._without_foreign_keys(), self.transaction():
            version = self._version()  # again, because another process may have migrated the file meanwhile
            if version > SCHEMA_VERSION:
                raise LedgerError(
                    f"{self.path} has schema {version}; this version reads up to {SCHEMA_VERSION}. Upgrade twostream."
                )
            steps = [
                _first_version,
                lambda: _second_version(task),
                lambda: _third_version(project_id),
                _fourth_version,
                _fifth_version,
            ]
            for step in steps[version:]:
                for statement in step():
                    self.rows(statement)
            self.rows(f"PRAGMA user_version = {SCHEMA_VERSION}")

    @contextmanager
    def _without_foreign_keys(self) -> Iterator[None]:
        """References to a table that is made again dangle until it has its name back; SQLite must not check them."""
        self.rows("PRAGMA foreign_keys = OFF")  # has no effect inside a transaction
        try:
            yield
        finally:
            self.rows("PRAGMA foreign_keys = ON")

    def _refuse_other_file(self) -> NoReturn:
        raise LedgerError(f"{self.path} holds no ledger: it is empty, or a file of another program. {self._advice}")

    def _version(self) -> int:
        row = self.row("PRAGMA user_version")
        assert row is not None
        return int(row[0])

    @contextmanager
    def _errors_as_sentences(self, path: Path | None = None) -> Iterator[None]:
        """Turn SQLite's errors into sentences, except IntegrityError, which shows a fault in this program.

        Args:
            path: the file that is written, if it is not the ledger.
        """
        path = path or self.path
        try:
            yield
        except sqlite3.IntegrityError:
            raise
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise LedgerBusyError(
                    f"{path} is locked by another program, which has not released it for {self._timeout:g} s. "
                    f"Close the program that holds it (another viewer, a backup) and try again; nothing was changed."
                ) from None
            if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
                raise LedgerError(f"{path} is damaged, or no ledger: {error}. {self._advice}") from None
            if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
                raise _NotWritableError(_not_writable(path, error)) from None
            if code == sqlite3.SQLITE_FULL:
                raise LedgerBusyError(
                    f"{path} cannot grow because the disk is full. Nothing was changed; free some space."
                ) from None
            if code == sqlite3.SQLITE_IOERR:
                raise LedgerBusyError(
                    f"{path} cannot be read or written: the disk failed ({error}). Nothing was changed."
                ) from None
            raise


def _not_writable(path: Path, why: object) -> str:
    return f"{path} cannot be written ({why}). Make the file and its folder writable for your account."
