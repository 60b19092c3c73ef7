"""The ledger in SQLite: the tests that every ledger must pass, and what concerns its file."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from twostream.base.errors import InputError, LedgerError
from twostream.base.geometry import Box
from twostream.candidates.candidate import Candidate
from twostream.candidates.patches import PatchPair
from twostream.project.database import SCHEMA_VERSION, _first_version
from twostream.project.ledger import MAX_ID, Ledger
from twostream.project.records import Answer, Query
from twostream.task import Mitochondria
from twostream.task.answers import MEANING, AnswerKind, Meaning, answer_kind, register_answer_kind
from twostream.testing import LedgerExam


class TestLedger(LedgerExam):
    def open(self, folder, **settings):
        return Ledger(folder / "ledger.sqlite", **settings)


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "ledger.sqlite", create=True)


@pytest.fixture
def asking(ledger):
    """A ledger whose round 0 has candidates 1 to 9."""
    ledger.register(0, range(1, 10))
    return ledger


def query(identity, **settings):
    mask = np.array([[[1, 0], [2, 1]]], np.uint8)
    candidate = Candidate(identity, 5, Box((1, 2, 3), mask.shape), mask, 0.75)
    image, sides = np.arange(48, dtype=np.uint8).reshape(3, 4, 4), np.stack([np.eye(4, dtype=np.int8) * -1] * 3)
    patch = PatchPair(image, sides, 12.5, 1, 0.25)
    return Query(candidate, patch, "two-stream", {"coarse": 3}, **settings)


def tell(ledger, number, kind, annotator="ann", **settings):
    return ledger.tell(Answer(number, AnswerKind(kind), annotator, **settings))


def test_ids_stay_below_the_largest_integer_of_javascript(ledger):
    ledger._database.connection.execute("INSERT INTO registration VALUES (0, 1, ?)", (MAX_ID,))
    with pytest.raises(LedgerError, match="largest a browser can hold"):
        ledger.register(1, [MAX_ID + 1])


@pytest.mark.parametrize("statement", ["DELETE FROM answer", "UPDATE answer SET kind = 'true'", "DELETE FROM query"])
def test_the_ledger_forgets_nothing(asking, statement):
    asking.ask(0, [query(1)])
    tell(asking, 1, "nothing")
    with pytest.raises(sqlite3.DatabaseError, match="append-only"):
        asking._database.connection.execute(statement)


def test_a_step_is_finished_once(ledger):
    ledger.finish_step(0, "train", 1.5, {})
    with pytest.raises(sqlite3.IntegrityError):
        ledger.finish_step(0, "train", 1.5, {})


def test_a_closed_ledger_opens_again(asking):
    asking.ask(0, [query(1)])
    asking.close()
    assert asking.counts().open == 1


def test_other_files_are_refused(tmp_path):
    (tmp_path / "ledger.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(LedgerError, match="is damaged, or no ledger"):
        Ledger(tmp_path / "ledger.sqlite")


def test_a_newer_schema_is_refused(ledger):
    ledger._database.connection.execute("PRAGMA user_version = 99")
    with pytest.raises(LedgerError, match=r"schema 99; this version reads up to \d+"):
        Ledger(ledger.path)


def write_schema_1(path):
    """A ledger of schema 1: three queries, two of them answered; one answer was changed."""
    connection = sqlite3.connect(path)
    for statement in _first_version():
        connection.execute(statement)
    connection.execute("INSERT INTO registration VALUES (0, 1, 9)")
    other = Ledger(path.with_name("other.sqlite"), create=True)
    other.register(0, range(1, 10))
    other.ask(0, [query(1), query(2), query(3)])
    source = sqlite3.connect(other.path)
    columns = [row[1] for row in connection.execute("PRAGMA table_info(query)")]
    for row in source.execute(f"SELECT {', '.join(columns)} FROM query"):
        connection.execute(f"INSERT INTO query VALUES ({', '.join('?' * len(row))})", row)
    for row in (
        (1, 1, 1, 0, "true", "ann", "", None, 1.0, "2026-01-01", None, 0),
        (2, 2, 2, 0, "shape", "ann", "", None, 1.0, "2026-01-01", None, 0),
        (3, 2, 2, 0, "nothing", "ann", "", None, 1.0, "2026-01-01", 2, 0),
    ):
        connection.execute(f"INSERT INTO answer VALUES ({', '.join('?' * len(row))})", row)
    connection.execute("PRAGMA user_version = 1")
    connection.commit()
    connection.close()


def test_a_ledger_of_schema_1_is_migrated(tmp_path):
    path = tmp_path / "ledger.sqlite"
    write_schema_1(path)
    ledger = Ledger(path, task=Mitochondria)
    assert ledger._database.row("PRAGMA user_version")[0] == SCHEMA_VERSION
    assert ledger._database.rows("PRAGMA foreign_key_check") == []  # the table of queries was made again
    assert ledger._database.row("PRAGMA foreign_keys")[0] == 1
    assert [q.candidate.id for q in ledger.open_queries()] == [3]
    assert ledger.windows() == [] and ledger.counts().windows == 0
    assert {i: v.kind for i, v in ledger.verdicts().items()} == {1: "true", 2: "nothing", 3: None}
    assert {(q.volume, q.task) for q in ledger.queries()} == {("image", "mitochondria")}
    tell(ledger, 3, "unsure")
    assert ledger.open_queries() == [] and ledger.spent() == (3, 4.0 - 1.0)
    with pytest.raises(sqlite3.DatabaseError, match="append-only"):
        ledger._database.connection.execute("UPDATE query SET task = 'cleft'")


def test_a_project_id_is_given_once(tmp_path):
    given, drawn = (Ledger(tmp_path / name, create=True, project_id=i) for name, i in (("a", "p1"), ("b", "")))
    write_schema_1(tmp_path / "old")
    old = Ledger(tmp_path / "old", task=Mitochondria)
    assert given.project_id == Ledger(tmp_path / "a", project_id="p2").project_id == "p1"
    for ledger in (drawn, old):
        assert ledger.project_id.startswith("p") and Ledger(ledger.path).project_id == ledger.project_id
        with pytest.raises(sqlite3.DatabaseError, match="append-only"):
            ledger._database.connection.execute("UPDATE fact SET value = 'p2'")
    assert drawn.project_id != old.project_id


def test_a_failed_migration_changes_nothing(tmp_path, monkeypatch):
    path = tmp_path / "ledger.sqlite"
    write_schema_1(path)

    def fails(task):
        yield "CREATE TABLE half (id INTEGER)"
        yield "nonsense"

    with monkeypatch.context() as patch, pytest.raises(sqlite3.Error):
        patch.setattr("twostream.project.database._second_version", fails)
        Ledger(path)
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone()[0] == 1
    assert not connection.execute("SELECT name FROM sqlite_master WHERE name = 'half'").fetchall()
    assert len(Ledger(path).queries()) == 3


def test_a_locked_ledger_is_not_called_damaged(asking):
    asking.ask(0, [query(1)])
    other = sqlite3.connect(asking.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    impatient = Ledger(asking.path, timeout_seconds=0.05)
    with pytest.raises(LedgerError, match="is locked by another program"):
        tell(impatient, 1, "true")
    other.execute("ROLLBACK")
    assert tell(impatient, 1, "true") == 1


def test_threads_of_one_process_wait_in_line_to_write(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite", create=True, timeout_seconds=0.0)  # SQLite itself does not wait
    numbers = range(1, 101)
    ledger.register(0, numbers)
    ledger.ask(0, [query(i) for i in numbers])
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda one: ledger.tell(Answer(one.id, AnswerKind.TRUE, "ann")), ledger.open_queries()))
    assert sorted(told) == list(numbers)


def test_telling_and_reading_use_indices(asking):
    """Neither ``tell`` nor ``open_queries`` scans a whole table, so their time does not grow with the answers."""
    asking.ask(0, [query(1), query(2)])
    seen = []
    asking._database.connection.set_trace_callback(seen.append)
    tell(asking, 1, "true")
    asking.open_queries()
    asking.query(2)
    asking._database.connection.set_trace_callback(None)
    statements = [s for s in seen if s.startswith("SELECT")]
    assert len(statements) >= 4
    for statement in statements:
        for row in asking._database.rows(f"EXPLAIN QUERY PLAN {statement}"):
            assert not row["detail"].startswith(("SCAN answer", "SCAN query", "SCAN drawing")), statement


def test_another_package_can_register_a_kind_of_answer(asking):
    try:
        register_answer_kind("artefact", Meaning(0.0, "background", True))
        register_answer_kind("artefact", Meaning(0.0, "background", True))  # twice is no error
        asking.ask(0, [query(1)])
        asking.tell(Answer(1, answer_kind("artefact"), "ann"))
        verdict = Ledger(asking.path).verdicts()[1]
        assert verdict.y == 0 and verdict.kind == "artefact" and verdict.teaches == "background"
        assert asking.spent()[0] == 1
        with pytest.raises(InputError, match="exists already and means"):
            register_answer_kind("artefact", Meaning(1.0, "mask", True))
    finally:
        MEANING.pop("artefact", None)
    with pytest.raises(InputError, match="must be registered first"):
        asking.verdicts()
    with pytest.raises(LedgerError, match="an answer 'artefact' came; expected one of true, nothing"):
        asking.tell(Answer(1, "artefact", "eve"))
    for name in ("Artefact", "two words", ""):
        with pytest.raises(InputError, match="expected one lower-case word"):
            register_answer_kind(name, Meaning(0.0, "", True))
    with pytest.raises(InputError, match="expected one of 'mask'"):
        Meaning(0.0, "everything", True)
    with pytest.raises(InputError, match=r"expected 1, 0, or NaN"):
        Meaning(0.5, "", True)


def test_a_skipped_candidate_that_waits_again_is_not_asked_a_third_time(asking):
    asking.ask(0, [query(1)])
    tell(asking, 1, "skipped")
    assert asking.verdicts()[1].askable
    asking.ask(1, [query(1)])
    assert not asking.verdicts()[1].askable
    with pytest.raises(LedgerError, match="candidate 1 has been asked before"):
        asking.ask(2, [query(1)])
    tell(asking, 2, "true")
    assert asking.verdicts()[1].y == 1.0 and not asking.verdicts()[1].askable


@pytest.mark.parametrize("content", [b"", "foreign", "foreign, version 2"])
def test_an_empty_or_foreign_file_is_not_taken_for_a_new_ledger(tmp_path, content):
    path = tmp_path / "ledger.sqlite"
    if content == b"":
        path.write_bytes(content)
    else:
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE other (id INTEGER)")
        connection.execute(f"PRAGMA user_version = {2 if 'version' in content else 0}")
        connection.close()
    with pytest.raises(LedgerError, match="holds no ledger: it is empty, or a file of another program"):
        Ledger(path)
    Ledger(tmp_path / "new.sqlite", create=True).close()
    assert Ledger(tmp_path / "new.sqlite").counts().asked == 0


def test_a_missed_object_is_found_by_an_index_too(asking):
    asking.ask(0, [query(1)])
    drawing = Box((0, 0, 0), (1, 2, 2)), np.ones((1, 2, 2), np.uint8)
    seen = []
    asking._database.connection.set_trace_callback(seen.append)
    first = asking.tell(Answer(None, AnswerKind.MISSED, "ann", drawing=drawing))
    asking._database.connection.set_trace_callback(None)
    for statement in (s for s in seen if s.startswith("SELECT")):
        plan = asking._database.rows(f"EXPLAIN QUERY PLAN {statement}")
        assert not [row for row in plan if row["detail"].startswith("SCAN answer")], statement
    asking.tell(Answer(None, AnswerKind.MISSED, "ann", drawing=drawing, supersedes=first))
    with pytest.raises(LedgerError, match="cannot be superseded"):
        asking.tell(Answer(None, AnswerKind.MISSED, "ann", drawing=drawing, supersedes=first))


def test_meanings_that_contradict_themselves_are_refused(tmp_path):
    for y, teaches in ((1.0, "background"), (0.0, "mask"), (float("nan"), "exchanged"), (1.0, "")):
        with pytest.raises(InputError, match="contradict each other"):
            Meaning(y, teaches, True)
    with pytest.raises(InputError, match="expected 1, 0, or NaN"):
        Meaning(None, "", True)
    ledger = Ledger(tmp_path / "one_sided.sqlite", create=True, task=Mitochondria)
    ledger.register(0, [1])
    ledger.ask(0, [query(1)])
    try:
        register_answer_kind("turned", Meaning(1.0, "exchanged", True))
        with pytest.raises(LedgerError, match="'turned', but these objects have no sides"):
            ledger.tell(Answer(1, "turned", "ann"))
    finally:
        MEANING.pop("turned", None)
