"""Answers as files: the stated schema, and the way back into a copy or a fork, in which nothing is lost."""

import csv
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from test_answer_tables import asked, call, project  # noqa: F401 - fixtures

from twostream.base.errors import InputError, LedgerError
from twostream.base.geometry import Box
from twostream.project import exported_answers
from twostream.project.answer_log import pack_drawing
from twostream.project.answer_tables import read_answers
from twostream.project.create import fork_project
from twostream.project.export import export
from twostream.project.project import Project
from twostream.project.records import Answer
from twostream.project.tables import ANSWER_COLUMNS
from twostream.rounds.loop import run
from twostream.task.answers import AnswerKind

SCHEMA = json.loads((Path(exported_answers.__file__).parent / "schemas" / "answer.schema.json").read_text())
DOCS = Path(__file__).parent.parent / "docs" / "answers.md"


def drawn(*corner):
    """A drawing, two sections of three rows, with a hole."""
    mask = np.ones((2, 3, 3), np.uint8)
    mask[0, 1, 1] = 0
    return Box(corner, mask.shape), mask


@pytest.fixture
def given(project):  # noqa: F811
    """The project with answers of three annotators: replaced, doubted, adjudicated, drawn, missed."""
    tell = project.ledger.tell
    first = tell(Answer(1, "true", "ann", seconds=2.25, reason='bright, "round"'))
    tell(Answer(1, "nothing", "eve", seconds=1.0))
    tell(Answer(1, "shape", "zoé", adjudicates=True, seconds=7.5, reason="two\nlines; β"))
    tell(Answer(1, "unsure", "ann", seconds=0.1 + 0.2, supersedes=first))
    tell(Answer(2, "corrected", "ann", seconds=30.0, drawing=drawn(1, 2, 100)))
    tell(Answer(3, "skipped", "eve"))
    missed = tell(Answer(None, "missed", "eve", seconds=12.0, drawing=drawn(2, 20, 120)))
    tell(Answer(None, "missed", "eve", seconds=3.0, drawing=drawn(3, 30, 120), supersedes=missed))
    return project


@pytest.fixture
def undone(given):
    """The project, with answers that were taken back and given again, from a program that draws keys."""
    tell = given.ledger.tell
    first = tell(Answer(5, "true", "bob", seconds=1.5, key="a/0"))
    tell(Answer(5, "retracted", "bob", seconds=0.5, key="undo:a/0", supersedes=first))
    tell(Answer(5, "nothing", "bob", seconds=2.5, key="b/0"))
    missed = tell(Answer(None, "missed", "bob", drawing=drawn(4, 40, 120)))
    tell(Answer(None, "retracted", "bob", supersedes=missed))
    return given


@pytest.fixture
def fork(given, tmp_path):
    """A fork that asks the same queries."""
    made = fork_project(given, tmp_path / "lab" / "fork", [])
    run(made, rounds=1)
    return made


def written(project, path, **columns):  # noqa: F811
    """The exported answers at ``path``, with some columns of all rows changed."""
    path.unlink(missing_ok=True)
    export(project, "answers", path)
    if columns:
        rows = [json.loads(line) | columns for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def contents(project):  # noqa: F811
    """All that was said: every answer by what it is about, and what it replaces by its place among them."""
    answers = project.ledger.all_answers()
    place = {answer.id: i for i, answer in enumerate(answers)}
    found = []
    for answer in answers:
        mask = answer.drawing and (str(answer.drawing[0]), answer.drawing[1].tobytes())
        plain = replace(answer, id=0, supersedes=place.get(answer.supersedes), drawing=None, query=None)
        found.append((plain, answer.query is None, mask))
    return found


def refuse(project, path, *sentences):  # noqa: F811
    before = contents(project)
    with pytest.raises(InputError) as error:
        read_answers(project, path, "somebody")
    for sentence in sentences:
        assert sentence in str(error.value), str(error.value)
    assert contents(project) == before


# -- the schema -------------------------------------------------------------------------------------------------------


def test_every_exported_line_is_what_the_schema_says(undone, tmp_path):
    given = undone
    validator = jsonschema.Draft202012Validator(SCHEMA)
    validator.check_schema(SCHEMA)
    rows = [json.loads(line) for line in written(given, tmp_path / "a.jsonl").read_text().splitlines()]
    assert len(rows) == 13 and not [error.message for row in rows for error in validator.iter_errors(row)]
    for row, said in zip(rows, given.ledger.all_answers(), strict=True):
        assert (row["annotator"], row["kind"], row["seconds"]) == (said.annotator, said.kind, said.seconds)
        assert (row["time"], row["supersedes"]) == (said.answered_at, said.supersedes)
    for wrong in (
        {"kind": "Two words"}, {"seconds": -1}, {"query": None}, {"time": "yesterday"}, {"more": 1}, {"answer": 0},
        {"drawing": {"box": "0:1,0:1,0:1"}}, {"box": "0,0,0"}, {"annotator": ""},
    ):  # fmt: skip
        assert list(validator.iter_errors(rows[0] | wrong)), wrong
    assert list(validator.iter_errors(rows[7] | {"drawing": None}))  # a missed object without one
    assert list(validator.iter_errors(rows[-1] | {"supersedes": None}))  # a retraction of nothing


def test_the_page_and_the_schema_have_the_columns_that_are_written(given, tmp_path):
    stated = [line.split("`")[1] for line in DOCS.read_text().splitlines() if line.startswith("| `")]
    assert stated == list(SCHEMA["properties"]) and set(stated) - {"source_id"} == set(SCHEMA["required"])
    row = json.loads(written(given, tmp_path / "a.jsonl").read_text().splitlines()[0])
    with open(written(given, tmp_path / "a.csv"), newline="") as file:
        header = next(csv.reader(file))
    assert list(row) == header == list(ANSWER_COLUMNS) == [name for name in stated if name != "source_id"]
    kinds = SCHEMA["properties"]["kind"]["description"]
    assert all(f"`{kind}`" in DOCS.read_text() and str(kind) in kinds for kind in AnswerKind)


def test_csv_says_that_drawings_are_not_in_it(given, tmp_path):
    said = export(given, "answers", tmp_path / "a.csv")
    assert said.endswith("of 3 drawings it has the boxes alone, --format jsonl has the masks")
    with open(tmp_path / "a.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["drawing"] for row in rows if row["drawing"]] == [
        "1:3,2:5,100:103", "2:4,20:23,120:123", "3:5,30:33,120:123",
    ]  # fmt: skip
    assert "boxes alone" not in export(given, "answers", tmp_path / "a.jsonl")


# -- into a fork ------------------------------------------------------------------------------------------------------


def test_a_fork_takes_all_answers_with_everything_that_was_said(given, fork, tmp_path):
    fork.ledger.tell(Answer(3, "true", "bob", seconds=1))  # so that numbers differ
    mine = contents(fork)
    table = written(given, tmp_path / "a.jsonl")
    done = read_answers(fork, table, "somebody")
    assert (done.new, done.corrected, done.passed_over, done.second, done.beside) == (6, 2, 0, 3, {"ann", "eve", "bob"})
    there = [
        (replace(a, supersedes=a.supersedes + 1) if a.supersedes is not None else a, *r) for a, *r in contents(given)
    ]
    assert contents(fork) == [*mine, *(tuple(one) for one in there)]
    assert fork.ledger.spent() == (given.ledger.spent()[0] + 1, pytest.approx(given.ledger.spent()[1] + 1))
    assert repr(fork.ledger.verdicts()[fork.ledger.query(1).candidate.id].kind) == "<AnswerKind.SHAPE: 'shape'>"
    assert f"answers of project {given.id} by ann, eve, zoé; each keeps its annotator" in "\n".join(done.lines())
    lines = (fork.root / "answers.jsonl").read_text().splitlines()
    assert len(lines) == 9 and {json.loads(line)["project"] for line in lines} == {fork.id}


def test_what_was_taken_back_is_taken_back_there_too(undone, fork, tmp_path):
    done = read_answers(fork, written(undone, tmp_path / "a.jsonl"), "x")
    assert (done.new, done.corrected, done.retracted, done.passed_over) == (9, 2, 2, 0)
    assert "2 taken back" in done.lines()[-1] and contents(fork) == contents(undone)
    assert fork.ledger.spent() == undone.ledger.spent() and fork.ledger.counts() == undone.ledger.counts()
    assert [a.kind for a in fork.ledger.current_answers(5)] == ["nothing"] and fork.ledger.answer_with_key("b/0")
    for name in ("a.jsonl", "a.csv"):
        assert read_answers(fork, written(undone, tmp_path / name), "x").passed_over == 13


def test_a_decision_that_was_sent_to_two_copies_is_one(given, fork, tmp_path):
    fork.ledger.tell(Answer(4, "true", "bob", seconds=1, key="k"))
    time.sleep(0.002)
    given.ledger.tell(Answer(4, "true", "bob", seconds=1, key="k"))
    assert read_answers(fork, written(given, tmp_path / "a.jsonl"), "x").passed_over == 1
    assert len(fork.ledger.all_answers()) == 9


def test_the_same_table_may_come_twice_and_a_longer_one_later(given, fork, tmp_path):
    read_answers(fork, written(given, tmp_path / "a.jsonl"), "x")
    before = contents(fork)
    done = read_answers(fork, tmp_path / "a.jsonl", "x")
    assert (done.new, done.corrected, done.passed_over) == (0, 0, 8) and contents(fork) == before
    assert read_answers(given, tmp_path / "a.jsonl", "x").passed_over == 8  # where it was written
    given.ledger.tell(Answer(4, "true", "ann", seconds=1.5))
    given.ledger.tell(Answer(2, "true", "ann", seconds=0.5, supersedes=5))
    done = read_answers(fork, written(given, tmp_path / "a.jsonl"), "x")
    assert (done.new, done.corrected, done.passed_over) == (1, 1, 8) and contents(fork) == contents(given)


def test_two_answers_within_a_millisecond_are_told_apart(given, fork, tmp_path, monkeypatch):
    from twostream.project import ledger

    monkeypatch.setattr(ledger, "now", lambda: "2026-01-31T12:00:00.000+00:00")
    first = given.ledger.tell(Answer(4, "true", "ann"))
    given.ledger.tell(Answer(4, "nothing", "ann", supersedes=first))
    table = written(given, tmp_path / "a.jsonl")
    read_answers(fork, table, "x")
    assert read_answers(fork, table, "x").passed_over == 10 and contents(fork) == contents(given)


def test_a_copy_takes_what_was_answered_in_the_other_one(given, tmp_path):
    given.ledger.close()
    shutil.copytree(given.root.parent, tmp_path / "copy")
    other = Project(tmp_path / "copy" / given.root.name)
    other.ledger.tell(Answer(4, "true", "bob", seconds=1))
    given.ledger.tell(Answer(4, "nothing", "ann", seconds=1))  # of the same number as bob's
    given.ledger.tell(Answer(5, "true", "ann", seconds=2))
    for table in (written(given, tmp_path / "a.jsonl"), given.root / "answers.jsonl"):
        done = read_answers(other, table, "x")
    assert (done.new, done.passed_over) == (0, 10) and len(other.ledger.all_answers()) == 11
    said = {(a.query, a.annotator, a.kind) for a in other.ledger.current_answers()}
    assert {(4, "bob", "true"), (4, "ann", "nothing"), (5, "ann", "true")} <= said


def test_csv_brings_all_but_drawings(given, fork, tmp_path):
    table = written(given, tmp_path / "a.csv")
    refuse(
        fork,
        table,
        "row 7, column drawing: '1:3,2:5,100:103' came; a drawing is not in CSV",
        "export the answers as JSONL",
    )
    read_answers(fork, written(given, tmp_path / "a.jsonl"), "x")
    assert read_answers(fork, table, "x").passed_over == 8
    lines = table.read_text().split("\n")
    whole = [line for line in lines if ",corrected," not in line and ",missed," not in line]
    (tmp_path / "without.csv").write_text("\n".join(whole))
    second = fork_project(given, tmp_path / "lab" / "second", [])
    run(second, rounds=1)
    assert read_answers(second, tmp_path / "without.csv", "x").passed_over == 0
    assert contents(second) == [one for one in contents(given) if one[0].kind not in ("corrected", "missed")]


def test_what_was_not_asked_here_waits(given, tmp_path):
    other = fork_project(given, tmp_path / "lab" / "other", ["query.strategy=random", "query.budget=1000"])
    table = written(given, tmp_path / "a.jsonl")
    about_queries = [row for row in map(json.loads, table.read_text().splitlines()) if row["query"]]
    queries = tmp_path / "q.jsonl"
    queries.write_text("".join(json.dumps(row) + "\n" for row in about_queries))
    refuse(other, queries, "holds 6 answers", "has asked about none of their candidates")  # it has asked nothing yet
    done = read_answers(other, table, "x")
    assert (done.new, done.corrected) == (1, 1)  # the missed object
    assert "6 answers are about candidates or windows that this project has not asked about: not recorded" in "\n".join(
        done.notes
    )
    run(other, rounds=1)  # asks about all candidates, in another order
    here = {q.candidate.id: q.id for q in other.ledger.queries()}
    about = [a for a in given.ledger.all_answers() if a.query]
    assert [here[a.candidate] for a in about] != [a.query for a in about]
    done = read_answers(other, table, "x")
    assert (done.new, done.corrected, done.passed_over) == (5, 1, 2)
    told = [(a.query, a.candidate, a.annotator, a.kind) for a in other.ledger.all_answers() if a.query]
    assert told == [(here[a.candidate], a.candidate, a.annotator, a.kind) for a in about]


@pytest.mark.parametrize(
    ("columns", "sentences"),
    [
        ({"task": "polarity"}, ["column task: 'polarity' came; this project looks for mitochondria"]),
        ({"answer": 7}, ["row 2, column answer: '7' came; row 1 is this answer already"]),
        ({"kind": "swapped"}, ["the objects of this project have no sides"]),
        ({"kind": "maybe"}, ["expected one of true, nothing"]),
        ({"annotator": ""}, ["expected the annotator of the answer"]),
        ({"seconds": -1}, ["column seconds: '-1' came; expected a time of at least 0"]),
        ({"time": "3.4.26 12:00"}, ["column time", "Did a spreadsheet save it?"]),
        ({"adjudicates": "perhaps"}, ["expected true or false"]),
        ({"supersedes": 99}, ["column supersedes: '99' came; the table has no answer 99 before it"]),
        ({"drawing": {"box": "0:1,0:1,0:1", "mask": "!"}}, ["column drawing", "the value is damaged"]),
        ({"query": None}, ["every answer has a query and a candidate; only missed has neither"]),
        ({"candidate": 10**9}, ["has asked about none of their candidates"]),
    ],
)
def test_rows_that_do_not_fit_are_named_and_nothing_is_recorded(given, fork, tmp_path, columns, sentences):
    rows = [json.loads(line) for line in written(given, tmp_path / "a.jsonl").read_text().splitlines()]
    rows = [row | columns for row in rows if row["kind"] in ("nothing", "shape")]
    (tmp_path / "wrong.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    refuse(fork, tmp_path / "wrong.jsonl", *sentences)


@pytest.mark.parametrize(
    ("drawing", "sentence"),
    [
        ((Box((7, 0, 0), (2, 1, 1)), np.ones((2, 1, 1), np.uint8)), "it lies outside the image"),
        (
            (Box((0, 0, 0), (1, 1, 1)), np.full((1, 1, 1), 2, np.uint8)),
            "its mask holds values up to 2; expected 1 to 1",
        ),
        ((Box((0, 0, 0), (1, 1, 1)), np.zeros((1, 1, 1), np.uint8)), "its mask holds values up to 0"),
    ],
)
def test_a_drawing_must_fit_the_image_and_the_task(given, fork, tmp_path, drawing, sentence):
    table = written(given, tmp_path / "a.jsonl", drawing=pack_drawing(*drawing))
    refuse(fork, table, sentence)


def test_columns_and_boxes_that_are_missing_are_asked_for(given, fork, tmp_path):
    rows = [json.loads(line) for line in written(given, tmp_path / "a.jsonl").read_text().splitlines()]
    for column, sentence in (("round", "lacks the columns round"), ("box", "has no column box")):
        path = tmp_path / f"{column}.jsonl"
        path.write_text("".join(json.dumps({k: v for k, v in row.items() if k != column}) + "\n" for row in rows))
        refuse(fork, path, sentence)
    refuse(fork, given.root / "answers.jsonl", "has no column box", f"is of project {given.id}")
    mixed = [rows[0], rows[1] | {"project": "p1"}]
    (tmp_path / "mixed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in mixed))
    refuse(fork, tmp_path / "mixed.jsonl", "import one project at a time")
    shrunk = written(given, tmp_path / "box.jsonl", box="0:1,0:1,0:1")
    done = read_answers(fork, shrunk, "x")  # another object under the same id: no answer to it
    assert (done.new, done.corrected) == (1, 1) and all(a.query is None for a in fork.ledger.all_answers())


def test_an_answer_that_was_changed_in_the_table_is_no_correction(given, fork, tmp_path):
    read_answers(fork, written(given, tmp_path / "a.jsonl"), "x")
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    mask = pack_drawing(drawn(1, 2, 100)[0], np.ones((2, 3, 3), np.uint8))
    for row, column, value in ((1, "kind", "true"), (0, "reason", "dark"), (0, "seconds", 9), (4, "drawing", mask)):
        path = tmp_path / "edited.jsonl"
        path.write_text("".join(json.dumps(r | {column: value} if i == row else r) + "\n" for i, r in enumerate(rows)))
        refuse(fork, path, f"row {row + 1}, column {column}", "remove the column answer, and pass --annotator")


def test_what_was_answered_otherwise_in_the_meantime_is_refused(given, fork, tmp_path):
    table = written(given, tmp_path / "a.jsonl")
    mine = fork.ledger.tell(Answer(2, "true", "ann"))
    refuse(
        fork,
        table,
        "row 5, column query: '2' came; ann has answered query 2 of this project otherwise (true, answer 1)",
    )
    fork.ledger.tell(Answer(2, "skipped", "eve", supersedes=mine))
    read_answers(fork, table, "x")
    replaced = [a for a in fork.ledger.current_answers() if a.annotator == "ann" and a.query == 1]
    fork.ledger.tell(Answer(1, "true", "ann", supersedes=replaced[0].id))
    time.sleep(0.002)  # the same person says another thing here at another time
    given.ledger.tell(Answer(1, "shape", "ann", supersedes=4))
    refuse(fork, written(given, table), "another answer has replaced it here; remove this row")


def test_what_is_recorded_stays_when_the_rest_cannot_be(given, fork, tmp_path, monkeypatch):
    """Another process takes a number in between."""
    table = written(given, tmp_path / "a.jsonl")
    restore, calls = fork.ledger.restore, []

    def meanwhile(answers):
        calls.append(answers)
        if len(calls) == 3:
            fork.ledger.tell(Answer(6, "true", "bob"))
        return restore(answers)

    monkeypatch.setattr(fork.ledger, "restore", meanwhile)
    with pytest.raises(LedgerError, match=r"row 3: the ledger has another answer 3.*2 of 8 answers are recorded"):
        read_answers(fork, table, "x")
    monkeypatch.undo()
    assert len((fork.root / "answers.jsonl").read_text().splitlines()) == 3
    done = read_answers(fork, table, "x")
    assert (done.passed_over, done.new + done.corrected) == (2, 6)
    assert [one[0].kind for one in contents(fork)] == [
        "true",
        "nothing",
        "true",
        *(o[0].kind for o in contents(given)[2:]),
    ]


def test_the_command_says_what_became_of_the_rows(given, fork, tmp_path):
    table = written(given, tmp_path / "a.jsonl")
    for words in ("6 answers recorded", "2 corrected"), ("0 answers recorded, 8 passed over, as recorded before",):
        result = call("answer", fork.root, table, "--annotator", "somebody")
        assert result.exit_code == 0 and all(word in result.output for word in words), result.output
