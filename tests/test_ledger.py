"""The only memory: what is told is kept, what contradicts is refused."""

import math
import sqlite3

import numpy as np
import pytest

from twostream.base.errors import LedgerError
from twostream.base.geometry import Box
from twostream.candidates.candidate import Candidate
from twostream.candidates.patches import PatchPair
from twostream.project.ledger import MAX_ID, Answer, Ledger, Query
from twostream.task.answers import AnswerKind


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
    ledger._connection.execute("INSERT INTO registration VALUES (0, 1, ?)", (MAX_ID,))
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
        asking._connection.execute(statement)


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
    ledger._connection.execute("PRAGMA user_version = 99")
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
            num_sides=num_sides,
        )
        answer = Answer(None, kind, "ann", drawing=drawing)
        if wrong is None:
            ledger.tell(answer)
        else:
            with pytest.raises(LedgerError, match=wrong):
                ledger.tell(answer)
            assert ledger.current_answers() == []
