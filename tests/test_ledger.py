"""The only memory: what is told is kept, what contradicts is refused."""

import math
import sqlite3

import numpy as np
import pytest

from twostream.answers import AnswerKind
from twostream.candidates import Candidate
from twostream.errors import LedgerError
from twostream.geometry import Box
from twostream.ledger import MAX_ID, Answer, Ledger, Query
from twostream.patches import PatchPair


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "ledger.sqlite")


def query(identity, **settings):
    mask = np.array([[[1, 0], [2, 1]]], np.uint8)
    candidate = Candidate(identity, 5, Box((1, 2, 3), mask.shape), mask, 0.75)
    patch = PatchPair(np.arange(16, dtype=np.uint8).reshape(4, 4), np.eye(4, dtype=np.int8) * -1, 12.5, 1, 0.25)
    return Query(candidate, patch, "two-stream", {"coarse": 3}, **settings)


def tell(ledger, number, kind, annotator="ann", **settings):
    return ledger.tell(Answer(number, AnswerKind(kind), annotator, **settings))


def test_a_snapshot_comes_back_as_it_was_asked(ledger):
    ledger.ask(0, [query(1), query(2, is_audit=True)])
    first, second = ledger.open_queries()
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
    ledger._connection.execute("INSERT INTO registration VALUES (0, 1, ?)", (MAX_ID,))
    with pytest.raises(LedgerError, match="largest a browser can hold"):
        ledger.register(1, [MAX_ID + 1])


def test_a_round_asks_once(ledger):
    for _ in range(2):
        ledger.ask(0, [query(1), query(2)])
    assert len(ledger.queries()) == 2
    with pytest.raises(LedgerError, match="round 0 has asked 2 candidates already"):
        ledger.ask(0, [query(3)])


def test_nothing_is_asked_twice_but_what_was_skipped(ledger):
    ledger.ask(0, [query(1), query(2), query(3)])
    for number, kind in ((1, "true"), (2, "unsure"), (3, "skipped")):
        tell(ledger, number, kind)
    for identity in (1, 2):
        with pytest.raises(LedgerError, match=f"candidate {identity} has been asked before"):
            ledger.ask(1, [query(identity)])
    ledger.ask(1, [query(3)])
    assert ledger.spent()[0] == 2  # skipped does not count


def test_an_open_query_is_not_asked_again(ledger):
    ledger.ask(0, [query(1)])
    with pytest.raises(LedgerError, match="asked before"):
        ledger.ask(1, [query(1)])


@pytest.mark.parametrize(
    ("kind", "y"),
    [("true", 1.0), ("nothing", 0.0), ("shape", 0.0), ("swapped", 1.0), ("unsure", None), ("skipped", None)],
)
def test_every_answer_has_its_y(ledger, kind, y):
    ledger.ask(0, [query(1)])
    assert math.isnan(ledger.pool()[1].y) and not ledger.pool()[1].askable
    tell(ledger, 1, kind)
    verdict = ledger.pool()[1]
    assert verdict.kind == kind and (math.isnan(verdict.y) if y is None else verdict.y == y)
    assert ledger.open_queries() == [] and verdict.askable == (kind == "skipped")


def test_two_people(ledger):
    ledger.ask(0, [query(1)])
    tell(ledger, 1, "true", "ann")
    tell(ledger, 1, "shape", "bob")
    assert math.isnan(ledger.pool()[1].y) and ledger.pool()[1].kind is None
    tell(ledger, 1, "nothing", "eve", adjudicates=True)
    assert ledger.pool()[1].y == 0.0 and ledger.pool()[1].kind is AnswerKind.NOTHING


def test_two_people_agree_on_y_if_not_on_the_kind(ledger):
    ledger.ask(0, [query(1)])
    tell(ledger, 1, "nothing", "ann")
    tell(ledger, 1, "shape", "bob")
    assert ledger.pool()[1].y == 0.0 and ledger.pool()[1].kind is None


def test_changing_ones_mind_supersedes(ledger):
    ledger.ask(0, [query(1)])
    first = tell(ledger, 1, "true", seconds=3.0)
    with pytest.raises(LedgerError, match=r"ann has answered query 1 already \(answer 1\)"):
        tell(ledger, 1, "nothing")
    tell(ledger, 1, "nothing", seconds=2.0, supersedes=first)
    assert ledger.pool()[1].y == 0.0
    assert ledger.spent() == (1, 5.0)
    assert len(ledger.all_answers()) == 2 and len(ledger.current_answers()) == 1
    with pytest.raises(LedgerError, match="no current answer"):
        tell(ledger, 1, "true", supersedes=first)


def test_drawings_and_missed_objects(ledger):
    ledger.ask(0, [query(1)])
    drawn = np.ones((1, 2, 2), np.uint8)
    with pytest.raises(LedgerError, match="needs a drawn mask"):
        tell(ledger, 1, "corrected")
    tell(ledger, 1, "corrected", drawing=(Box((0, 0, 0), drawn.shape), drawn))
    ledger.tell(Answer(None, AnswerKind.MISSED, "ann", drawing=(Box((5, 5, 5), drawn.shape), drawn)))
    box, mask = ledger.current_answers()[1].drawing
    assert box == Box((5, 5, 5), (1, 2, 2)) and (mask == drawn).all()
    assert ledger.spent()[0] == 2


def test_nonsense_is_refused(ledger):
    with pytest.raises(LedgerError, match="there is no query 9"):
        tell(ledger, 9, "true")
    with pytest.raises(LedgerError, match="only 'missed' has none"):
        ledger.tell(Answer(None, AnswerKind.TRUE, "ann"))
    ledger.ask(0, [query(1)])
    with pytest.raises(LedgerError, match="expected a time of at least 0"):
        tell(ledger, 1, "true", seconds=-1.0)
    assert ledger.all_answers() == []


@pytest.mark.parametrize("statement", ["DELETE FROM answer", "UPDATE answer SET kind = 'true'", "DELETE FROM query"])
def test_the_ledger_forgets_nothing(ledger, statement):
    ledger.ask(0, [query(1)])
    tell(ledger, 1, "nothing")
    with pytest.raises(sqlite3.DatabaseError, match="append-only"):
        ledger._connection.execute(statement)


def test_it_is_on_disk_at_once_and_opens_again(ledger):
    ledger.ask(0, [query(1)])
    tell(ledger, 1, "true")
    assert Ledger(ledger.path).pool()[1].y == 1.0


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
    ledger._connection.execute("PRAGMA user_version = 99")
    with pytest.raises(LedgerError, match=r"schema 99; this version reads up to \d+"):
        Ledger(ledger.path)
