"""The only memory: what is told is kept, what contradicts is refused."""

import math
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
from twostream.task import Mitochondria, SynapsePolarity
from twostream.task.answers import MEANING, AnswerKind, Meaning, answer_kind, register_answer_kind


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


def test_a_snapshot_comes_back_as_it_was_asked(asking):
    asking.ask(0, [query(1), query(2, is_audit=True)])
    first, second = asking.open_queries()
    original = query(1)
    np.testing.assert_array_equal(first.candidate.mask, original.candidate.mask)
    np.testing.assert_array_equal(first.patch.image, original.patch.image)
    np.testing.assert_array_equal(first.patch.mask, original.patch.mask)
    assert first.candidate.box == original.candidate.box and first.reason == {"coarse": 3}
    assert (first.round, first.patch.angle_deg, first.patch.padded) == (0, 12.5, 0.25)
    assert second.is_audit and not first.is_audit


def test_ids_are_given_once_and_the_same_however_often_asked(ledger):
    assert ledger.next_id(0) == 1
    for _ in range(2):  # a step that is repeated after a kill
        ledger.register(0, [1, 2, 3])
    assert ledger.next_id(0) == 1 and ledger.next_id(1) == 4
    ledger.register(1, [2, 4, 5])
    assert ledger.next_id(2) == 6
    with pytest.raises(LedgerError, match="repeat or leave gaps; new ones start at 6"):
        ledger.register(2, [7])
    with pytest.raises(LedgerError, match="repeat or leave gaps"):
        ledger.register(2, [6, 6])
    with pytest.raises(LedgerError, match="has registered 2 new ids, now 1 came"):
        ledger.register(1, [2, 4])


def test_ids_stay_within_what_javascript_holds(ledger):
    ledger._database.connection.execute("INSERT INTO registration VALUES (0, 1, ?)", (MAX_ID,))
    with pytest.raises(LedgerError, match="largest a browser can hold"):
        ledger.register(1, [MAX_ID + 1])


def test_a_round_asks_once(asking):
    for _ in range(2):
        asking.ask(0, [query(1), query(2)])
    assert len(asking.queries()) == 2
    with pytest.raises(LedgerError, match="round 0 has asked 2 candidates already"):
        asking.ask(0, [query(3)])


def test_nothing_is_asked_twice_but_what_was_skipped(asking):
    asking.ask(0, [query(1), query(2), query(3)])
    for number, kind in ((1, "true"), (2, "unsure"), (3, "skipped")):
        tell(asking, number, kind)
    for identity in (1, 2):
        with pytest.raises(LedgerError, match=f"candidate {identity} has been asked before"):
            asking.ask(1, [query(identity)])
    asking.ask(1, [query(3)])
    assert asking.spent()[0] == 2  # skipped does not count


def test_an_open_query_is_not_asked_again(asking):
    asking.ask(0, [query(1)])
    with pytest.raises(LedgerError, match="asked before"):
        asking.ask(1, [query(1)])


@pytest.mark.parametrize(
    ("kind", "y"),
    [("true", 1.0), ("nothing", 0.0), ("shape", 0.0), ("swapped", 1.0), ("unsure", None), ("skipped", None)],
)
def test_every_answer_has_its_y(asking, kind, y):
    asking.ask(0, [query(1)])
    assert math.isnan(asking.verdicts()[1].y) and not asking.verdicts()[1].askable
    tell(asking, 1, kind)
    verdict = asking.verdicts()[1]
    assert verdict.kind == kind and (math.isnan(verdict.y) if y is None else verdict.y == y)
    assert asking.open_queries() == [] and verdict.askable == (kind == "skipped")


def test_two_people(asking):
    asking.ask(0, [query(1)])
    tell(asking, 1, "true", "ann")
    tell(asking, 1, "shape", "bob")
    assert math.isnan(asking.verdicts()[1].y) and asking.verdicts()[1].kind is None
    tell(asking, 1, "nothing", "eve", adjudicates=True)
    assert asking.verdicts()[1].y == 0.0 and asking.verdicts()[1].kind is AnswerKind.NOTHING


def test_two_people_agree_on_y_if_not_on_the_kind(asking):
    asking.ask(0, [query(1)])
    tell(asking, 1, "nothing", "ann")
    tell(asking, 1, "shape", "bob")
    assert asking.verdicts()[1].y == 0.0 and asking.verdicts()[1].kind is None


def test_changing_ones_mind_supersedes(asking):
    asking.ask(0, [query(1)])
    first = tell(asking, 1, "true", seconds=3.0)
    with pytest.raises(LedgerError, match=r"ann has answered query 1 already \(answer 1\)"):
        tell(asking, 1, "nothing")
    tell(asking, 1, "nothing", seconds=2.0, supersedes=first)
    assert asking.verdicts()[1].y == 0.0
    assert asking.spent() == (1, 5.0)
    assert len(asking.all_answers()) == 2 and len(asking.current_answers()) == 1
    with pytest.raises(LedgerError, match="no current answer"):
        tell(asking, 1, "true", supersedes=first)


def test_drawings_and_missed_objects(asking):
    asking.ask(0, [query(1)])
    drawn = np.ones((1, 2, 2), np.uint8)
    with pytest.raises(LedgerError, match="needs a drawn mask"):
        tell(asking, 1, "corrected")
    tell(asking, 1, "corrected", drawing=(Box((0, 0, 0), drawn.shape), drawn))
    asking.tell(Answer(None, AnswerKind.MISSED, "ann", drawing=(Box((5, 5, 5), drawn.shape), drawn)))
    box, mask = asking.current_answers()[1].drawing
    assert box == Box((5, 5, 5), (1, 2, 2)) and (mask == drawn).all()
    assert asking.spent()[0] == 2


def test_nonsense_is_refused(asking):
    with pytest.raises(LedgerError, match="there is no query 9"):
        tell(asking, 9, "true")
    with pytest.raises(LedgerError, match="only 'missed' has none"):
        asking.tell(Answer(None, AnswerKind.TRUE, "ann"))
    asking.ask(0, [query(1)])
    with pytest.raises(LedgerError, match="expected a time of at least 0"):
        tell(asking, 1, "true", seconds=-1.0)
    assert asking.all_answers() == []


@pytest.mark.parametrize("statement", ["DELETE FROM answer", "UPDATE answer SET kind = 'true'", "DELETE FROM query"])
def test_the_ledger_forgets_nothing(asking, statement):
    asking.ask(0, [query(1)])
    tell(asking, 1, "nothing")
    with pytest.raises(sqlite3.DatabaseError, match="append-only"):
        asking._database.connection.execute(statement)


def test_it_is_on_disk_at_once_and_opens_again(asking):
    asking.ask(0, [query(1)])
    tell(asking, 1, "true")
    assert Ledger(asking.path).verdicts()[1].y == 1.0


def test_scores_and_steps_are_recorded_once(ledger):
    ledger.store_score(0, {"a": 1.0})
    ledger.store_score(0, {"a": 1.0})
    with pytest.raises(LedgerError, match="scored already"):
        ledger.store_score(0, {"a": 2.0})
    ledger.finish_step(0, "train", 1.5, {"num_steps": 3})
    assert ledger.finished_steps() == {(0, "train"): {"num_steps": 3, "seconds": 1.5}}
    with pytest.raises(sqlite3.IntegrityError):
        ledger.finish_step(0, "train", 1.5, {})


def test_other_files_are_refused(tmp_path):
    (tmp_path / "ledger.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(LedgerError, match="is no ledger"):
        Ledger(tmp_path / "ledger.sqlite")


def test_a_newer_schema_is_refused(ledger):
    ledger._database.connection.execute("PRAGMA user_version = 99")
    with pytest.raises(LedgerError, match=r"schema 99; this version reads up to \d+"):
        Ledger(ledger.path)


def test_only_registered_candidates_are_asked(asking):
    with pytest.raises(LedgerError, match="candidate 77 was never registered"):
        asking.ask(0, [query(77)])


def test_audits_stay_audits(asking):
    asking.ask(0, [query(1), query(2, is_audit=True)])
    tell(asking, 1, "skipped")
    tell(asking, 2, "skipped")
    for other in (query(1, is_audit=True), query(2)):
        with pytest.raises(LedgerError, match="cannot change between audit and ordinary query"):
            asking.ask(1, [other])
    asking.ask(1, [query(1), query(2, is_audit=True)])
    assert [q.round for q in asking.newest_queries(2).values()] == [1, 1]
    assert [q.round for q in asking.newest_queries(1).values()] == [0, 0]


def test_several_answers_are_recorded_all_or_none(asking):
    asking.ask(0, [query(1), query(2)])
    good, bad = Answer(1, AnswerKind.TRUE, "ann"), Answer(9, AnswerKind.TRUE, "ann")
    with pytest.raises(LedgerError, match="there is no query 9"):
        asking.tell_all([good, bad])
    assert asking.all_answers() == []
    assert len(asking.tell_all([good, Answer(2, AnswerKind.SHAPE, "ann")])) == 2


def test_a_drawing_must_fit_its_box(asking):
    asking.ask(0, [query(1)])
    for mask in (np.ones((2, 2, 2), np.uint8), np.zeros((1, 2, 2), np.uint8), np.ones((1, 2, 2), bool)):
        with pytest.raises(LedgerError, match="a drawn mask is"):
            tell(asking, 1, "corrected", drawing=(Box((0, 0, 0), (1, 2, 2)), mask))


def test_the_answer_that_decided_is_known(asking):
    asking.ask(0, [query(1)])
    drawn = np.ones((1, 2, 2), np.uint8)
    tell(asking, 1, "true", "ann")
    tell(asking, 1, "corrected", "boss", adjudicates=True, drawing=(Box((0, 0, 0), drawn.shape), drawn))
    tell(asking, 1, "true", "eve")
    verdict = asking.verdicts()[1]
    assert verdict.kind is AnswerKind.CORRECTED and verdict.answer.annotator == "boss"


def test_a_lost_ledger_is_not_replaced(tmp_path):
    with pytest.raises(LedgerError, match="is missing; restore it"):
        Ledger(tmp_path / "ledger.sqlite")


def test_a_drawing_fits_the_image_and_the_task(tmp_path):
    box, mask = Box((0, 0, 0), (1, 2, 2)), np.ones((1, 2, 2), np.uint8)
    for num_sides, kind, drawing, wrong in (
        (1, AnswerKind.MISSED, (Box((0, 7, 7), mask.shape), mask), "outside the image, which holds 0:1,0:8,0:8"),
        (1, AnswerKind.MISSED, (box, mask * 255), "holds the value 255; expected 0 outside and 1 inside"),
        (2, AnswerKind.MISSED, (box, mask * 3), "holds the value 3; expected 0 outside and 1 before and 2 after"),
        (1, AnswerKind.MISSED, (box, mask), None),
        (2, AnswerKind.MISSED, (box, mask * 2), None),
    ):
        ledger = Ledger(
            tmp_path / f"{wrong}{num_sides}.sqlite",
            create=True,
            image_box=lambda: Box.whole((1, 8, 8)),
            task=SynapsePolarity if num_sides == 2 else Mitochondria,
        )
        answer = Answer(None, kind, "ann", drawing=drawing)
        if wrong is None:
            ledger.tell(answer)
        else:
            with pytest.raises(LedgerError, match=wrong):
                ledger.tell(answer)
            assert ledger.current_answers() == []


def test_two_who_say_false_for_different_reasons_agree_that_it_is_false(asking):
    asking.ask(0, [query(1), query(2)])
    tell(asking, 1, "nothing", "ann")
    tell(asking, 1, "shape", "eve")
    verdict = asking.verdicts()[1]
    assert verdict.y == 0 and verdict.kind is None and verdict.teaches == "ignore"
    tell(asking, 2, "true", "ann")
    tell(asking, 2, "swapped", "eve")
    assert asking.verdicts()[2].y == 1 and asking.verdicts()[2].teaches == ""


def test_verdicts_of_some_candidates_are_those_of_all(asking):
    asking.ask(0, [query(i) for i in range(1, 6)])
    for i, kind in ((1, "true"), (2, "shape"), (3, "skipped")):
        tell(asking, i, kind)
    every = asking.verdicts()
    assert list(every) == [1, 2, 3, 4, 5]
    some = asking.verdicts([2, 4, 77])
    assert list(some) == [2, 4] and some[2].kind is every[2].kind and math.isnan(some[4].y)


def test_one_query_and_counts(asking):
    asking.ask(0, [query(4), query(7)])
    assert asking.query(2).candidate.id == 7 and asking.query(2).round == 0
    with pytest.raises(LedgerError, match="there is no query 3"):
        asking.query(3)
    first = tell(asking, 1, "true")
    tell(asking, 1, "nothing", supersedes=first)
    counts = asking.counts()
    assert (counts.asked, counts.open, counts.answers) == (2, 1, 1)
    assert [a.kind for a in asking.current_answers(1)] == ["nothing"] and asking.current_answers(2) == []


def test_rows_carry_their_volume_and_task(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite", create=True, task=SynapsePolarity)
    ledger.register(0, [1, 2])
    ledger.ask(0, [query(1), query(2, volume="block-7", task="cleft")])
    assert [(q.volume, q.task) for q in ledger.queries()] == [("image", "polarity"), ("block-7", "cleft")]
    tell(ledger, 2, "true")
    drawn = Box((0, 0, 0), (1, 2, 2)), np.ones((1, 2, 2), np.uint8)
    ledger.tell(Answer(None, AnswerKind.MISSED, "ann", drawing=drawn, volume="block-7"))
    assert [(a.volume, a.task) for a in ledger.all_answers()] == [("block-7", "cleft"), ("block-7", "polarity")]


def first_version(path):
    """A ledger as the version before wrote it: three queries, two of them answered, one of these answers changed."""
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


def test_a_ledger_of_the_version_before_is_migrated(tmp_path):
    path = tmp_path / "ledger.sqlite"
    first_version(path)
    ledger = Ledger(path, task=Mitochondria)
    assert ledger._database.row("PRAGMA user_version")[0] == SCHEMA_VERSION
    assert [q.candidate.id for q in ledger.open_queries()] == [3]
    assert {i: v.kind for i, v in ledger.verdicts().items()} == {1: "true", 2: "nothing", 3: None}
    assert {(q.volume, q.task) for q in ledger.queries()} == {("image", "mitochondria")}
    tell(ledger, 3, "unsure")
    assert ledger.open_queries() == [] and ledger.spent() == (3, 4.0 - 1.0)
    with pytest.raises(sqlite3.DatabaseError, match="append-only"):
        ledger._database.connection.execute("UPDATE query SET task = 'cleft'")


def test_a_migration_that_is_cut_short_changes_nothing(tmp_path, monkeypatch):
    path = tmp_path / "ledger.sqlite"
    first_version(path)

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


def test_eight_threads_answer_at_once_and_nothing_is_lost(asking):
    asking.register(1, range(10, 210))
    asking.ask(1, [query(i) for i in range(10, 210)])
    waiting = [q.id for q in asking.open_queries()]

    def work(worker):
        for query_id in waiting[worker::8]:
            asking.tell(Answer(query_id, AnswerKind.TRUE, f"ann{worker}"))
            assert query_id not in {q.id for q in asking.open_queries()}
        return len(waiting[worker::8])

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(work, range(8))) == 200
    assert asking.open_queries() == [] and len(asking.all_answers()) == 200
    assert len({a.query for a in asking.all_answers()}) == 200
    asking.close()
    assert asking.counts().answers == 200  # a closed ledger opens again


def test_one_query_is_answered_once_however_many_threads_try(asking):
    asking.ask(0, [query(1)])

    def work(_):
        try:
            return asking.tell(Answer(1, AnswerKind.TRUE, "ann"))
        except LedgerError as error:
            assert "has answered query 1 already" in str(error)
            return None

    with ThreadPoolExecutor(8) as pool:
        assert [found for found in pool.map(work, range(8)) if found] == [1]


def test_locked_is_not_damaged(asking):
    asking.ask(0, [query(1)])
    other = sqlite3.connect(asking.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    impatient = Ledger(asking.path, timeout_seconds=0.05)
    with pytest.raises(LedgerError, match="is locked by another program"):
        tell(impatient, 1, "true")
    other.execute("ROLLBACK")
    assert tell(impatient, 1, "true") == 1


def test_what_is_asked_for_is_found_by_an_index(asking):
    """Costs do not grow with what has been answered: nothing that tell or open_queries does scans a growing table."""
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


def test_a_kind_of_another_package(asking):
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
