"""Answers from tables: what each row means, half a sheet today and the whole one tomorrow, whose table, missed objects.

The project asks about a probability that shows some objects of the toy world clearly, and some too faintly to be
proposed.
"""

import csv
import json
import shlex
import shutil
from pathlib import Path

import cv2
import numpy as np
import openpyxl
import pytest
from conftest import SHAPE_ZYX, SPACING, TEST_BOX, TINY, VOXEL_SIZE_NM, toy_arrays
from scipy import ndimage
from typer.testing import CliRunner

from twostream.base.errors import InputError
from twostream.cli import app
from twostream.project.answer_tables import read_answers
from twostream.project.create import create_project, fork_project
from twostream.project.export import export
from twostream.project.project import Project
from twostream.project.records import Answer
from twostream.rounds.loop import run
from twostream.volume import create_volume

FAINT = (4, 24, 88), (4, 40, 120)
"""Voxels in two blobs that the probability shows too faintly."""


def blob_at(place):
    """The blob of the toy world around a voxel: bright, whether it is true or a decoy."""
    rows, columns = (slice(v // SPACING * SPACING, (v // SPACING + 1) * SPACING) for v in place[1:])
    cell = np.zeros(SHAPE_ZYX, bool)
    cell[:, rows, columns] = toy_arrays()[0][:, rows, columns] > 115
    labels = ndimage.label(cell)[0]
    return labels == np.bincount(labels[labels > 0]).argmax()  # without single bright voxels of the noise


@pytest.fixture(scope="module")
def asked(tmp_path_factory, toy_file):
    """A project whose queries of round 0 wait for answers."""
    folder = tmp_path_factory.mktemp("mein Labor é")
    level = np.where(toy_arrays()[0] > 115, 220, 5).astype(np.uint8)
    for place in FAINT:
        level[blob_at(place)] = 76
    volume = create_volume(
        str(folder / "theirs.zarr"), shape_zyx=SHAPE_ZYX, dtype=np.uint8, voxel_size_nm=VOXEL_SIZE_NM
    )
    volume.write(volume.box, level)
    project = create_project(
        folder / "p", task="mitochondria", image=f"{toy_file}:image", probability=str(folder / "theirs.zarr"),
        test_box=TEST_BOX, budget=6, overrides=TINY,
    )  # fmt: skip
    run(project, rounds=1)
    project.ledger.close()
    return folder


@pytest.fixture
def project(asked, tmp_path):
    """A copy of the project, with its probability and its image."""
    shutil.copytree(asked, tmp_path / "lab")
    return Project(tmp_path / "lab" / "p")


@pytest.fixture
def sheet(project, tmp_path):
    """Function that exports the open queries and fills columns in; returns the path."""

    def fill(name="sheet.csv", drop=(), **columns):
        export(project, "queries", tmp_path / "open.csv", "csv")
        with open(tmp_path / "open.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        (tmp_path / "open.csv").unlink()
        for column, values in columns.items():
            for row, value in zip(rows, values, strict=False):
                row[column] = value
        with open(tmp_path / name, "w", newline="") as file:
            writer = csv.DictWriter(file, [c for c in rows[0] if c not in drop], extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        return tmp_path / name

    return fill


def kinds_of(project, annotator="ann"):
    """{query: kind} of an annotator's current answers."""
    return {a.query: str(a.kind) for a in project.ledger.current_answers() if a.annotator == annotator}


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def refuse(project, path, *sentences, **options):
    before = len(project.ledger.all_answers())
    with pytest.raises(InputError) as error:
        read_answers(project, path, "ann", **options)
    for sentence in sentences:
        assert sentence in str(error.value)
    assert len(project.ledger.all_answers()) == before


def test_kinds_in_any_case_and_what_spreadsheets_make_of_true(project, sheet):
    done = read_answers(project, sheet(kind=["TRUE", "True", "1.0", "yes", " Shape ", "WAHR"]), "ann")
    assert done.new == 6 and list(kinds_of(project).values()) == ["true"] * 4 + ["shape", "true"]


def test_a_bare_false_needs_to_be_told_what_it_means(project, sheet):
    table = sheet(kind=["FALSE", "0", "no", "nothing", "", ""])
    refuse(project, table, "row 2, column kind: 'FALSE' came", "S learns different things", "--false-is shape")
    refuse(project, table, "--false-is is 'true'; expected nothing or shape", false_is="true")
    assert read_answers(project, table, "ann", false_is="shape").new == 4
    assert list(kinds_of(project).values()) == ["shape", "shape", "shape", "nothing"]


def test_half_a_sheet_today_and_the_whole_one_tomorrow(project, sheet, tmp_path):
    half = sheet(kind=["true", "nothing", ""], seconds=["4", "5", "", "", "", ""])
    whole = sheet("whole.csv", kind=["true", "shape", "true", "nothing", "", "unsure"], seconds=["4", "5"])
    assert read_answers(project, half, "ann").lines() == ["2 answers recorded, 4 left empty"]
    assert read_answers(project, whole, "ann").lines() == [
        "3 answers recorded, 1 corrected, 1 passed over, as recorded before, 1 left empty"
    ]
    assert read_answers(project, half, "eve").lines() == [
        "2 answers recorded (2 of them second opinions beside ann), 4 left empty"
    ]
    second = project.ledger.all_answers()[1]
    (correction,) = [a for a in project.ledger.all_answers() if a.supersedes]
    assert (correction.supersedes, correction.kind, correction.annotator) == (second.id, "shape", "ann")
    assert project.ledger.spent() == (7, 4 + 5 + 4 + 5)  # of a corrected row the same seconds count once
    again = read_answers(project, half, "ann")
    assert (again.new, again.corrected, again.passed_over) == (0, 1, 1) and kinds_of(project)[2] == "nothing"
    emptied = write(tmp_path / "e.csv", "query,kind\n1,\n2,nothing\n")
    assert (
        "1 of the empty rows were answered before; those answers stand" in read_answers(project, emptied, "ann").lines()
    )


def test_a_changed_reason_is_a_correction_and_an_empty_one_is_not(project, tmp_path):
    table = tmp_path / "t.csv"
    for reason, corrected in (("faint", 0), ("", 0), ("faint", 0), ("very faint", 1)):
        done = read_answers(project, write(table, f"query,kind,reason\n1,true,{reason}\n"), "ann")
        assert done.corrected == corrected
    assert [a.reason for a in project.ledger.all_answers()] == ["faint", "very faint"]


def test_answers_to_earlier_rounds_may_be_corrected(project, sheet, tmp_path):
    read_answers(project, sheet(kind=["true", "nothing"] * 3), "ann")
    assert run(project, rounds=2).round == 1
    done = read_answers(project, write(tmp_path / "c.csv", "query,kind\n1,nothing\n2,nothing\n"), "ann")
    assert (done.corrected, done.passed_over, done.late) == (1, 1, 1)
    assert "1 of them are about earlier rounds: the next round learns from them" in done.lines()
    assert project.ledger.verdicts()[project.ledger.query(1).candidate.id].y == 0


def test_a_correction_by_an_adjudicator_still_adjudicates(project, tmp_path):
    project.ledger.tell(Answer(1, "true", "ann"))
    project.ledger.tell(Answer(1, "nothing", "eve", adjudicates=True))
    read_answers(project, write(tmp_path / "t.csv", "query,kind\n1,shape\n"), "eve")
    assert project.ledger.verdicts()[project.ledger.query(1).candidate.id].kind == "shape"


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        (
            "query,kind\n1,\n2,\n",
            ["has 2 rows, and none of them holds a kind; fill in the column kind with true, nothing"],
        ),
        ("query,kind\n", ["has 0 rows"]),
        ("id,kind\n1,true\n", ["has the columns id, kind; expected query and kind"]),
        ("query,kind\n1,true\n2,nothng\n", ["row 3, column kind: 'nothng' came", "the nearest is nothing"]),
        ("query,kind\n1,swapped\n", ["the objects of this project have no sides"]),
        ("query,kind\n1,corrected\n", ["corrected needs a drawing, which a table cannot hold; say shape here"]),
        ("query,kind\n1,missed\n", ["missed stands for an object without a query"]),
        ("query,kind\n,true\n", ["row 2, column query: nothing came; the kind true needs a query"]),
        ("query,kind\n77,true\n", ["row 2, column query: '77' came; this project has asked queries 1 to 6"]),
        ("query,kind\n1.0E+15,true\n", ["its last digits are lost"]),
        ("query,kind\n1,true\n1,nothing\n", ["row 3, column query: '1' came; row 2 answers the same query with true"]),
        ("query,kind,seconds\n1,true,soon\n", ["column seconds: 'soon' came; expected a number"]),
        ("query,kind,seconds\n1,true,-3\n", ["expected a time of at least 0"]),
        ("query,kind,annotator\n1,true,eve\n", ["are to be recorded for ann; pass --annotator"]),
    ],
)
def test_rows_that_do_not_fit_are_named_and_nothing_is_recorded(project, tmp_path, text, sentences):
    refuse(project, write(tmp_path / "t.csv", text), *sentences)


def test_a_table_of_another_project_or_of_a_fork_is_refused(project, sheet, asked, toy_file, tmp_path):
    table = sheet(kind=["true"] * 6)
    other = create_project(
        tmp_path / "other", task="mitochondria", image=f"{toy_file}:image",
        probability=str(asked / "theirs.zarr"), test_box=TEST_BOX, budget=6, overrides=(*TINY, "seed=7"),
    )  # fmt: skip
    run(other, rounds=1)
    fork = fork_project(project, tmp_path / "fork", ["query.strategy=random"])
    run(fork, rounds=1)
    for stranger in (other, fork):
        refuse(stranger, table, f"column project: '{project.id}' came", f"is project {stranger.id}", "project or fork")
    without = sheet("without.csv", drop=("project",), kind=["true"] * 6)
    refuse(fork, without, "Were columns sorted apart, or is it another project's table?")
    done = read_answers(project, without, "ann")
    assert done.lines()[0].endswith(
        "has no column project: its rows were checked by candidate, center_z, center_y, center_x"
    )
    bare = write(tmp_path / "bare.csv", "query,kind\n1,true\n")
    assert "its query numbers are taken as they are" in read_answers(project, bare, "ann").lines()[0]


def test_candidate_and_place_must_be_those_of_the_query(project, sheet):
    numbers = [query.candidate.id for query in project.ledger.open_queries()]
    refuse(project, sheet(kind=["true"] * 6, candidate=numbers[::-1]), "row 2, column candidate", "query 1 is about")
    places = [query.candidate.center_zyx[2] for query in project.ledger.open_queries()]
    refuse(project, sheet(kind=["true"] * 6, center_x=[p + 2 for p in places]), "row 2, column center_x", "lies at")
    done = read_answers(
        project, sheet(kind=["true"] * 6, center_x=[round(p) for p in places], center_z=["03. Apr"]), "ann"
    )
    assert done.new == 6 and done.notes == [
        "row 2: center_z is '03. Apr', which is no number any more, and was not checked"
    ]


def test_the_strategys_reason_does_not_come_back_as_the_annotators(project, sheet, tmp_path):
    table = sheet(kind=["true"] * 5, reason=["", "blurred", "", "", ""])
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    assert json.loads(rows[0]["asked_because"]) == project.ledger.query(1).reason and rows[0]["reason"] == ""
    read_answers(project, table, "ann")
    assert [a.reason for a in project.ledger.all_answers()] == ["", "blurred", "", "", ""]
    older = json.dumps(project.ledger.query(6).reason).replace('"', '""')
    read_answers(project, write(tmp_path / "older.csv", f'query,kind,reason\n6,true,"{older}"\n'), "ann")
    assert project.ledger.all_answers()[-1].reason == ""


@pytest.mark.parametrize("form", ["csv", "jsonl", "xlsx"])
def test_what_was_exported_is_read_again(project, tmp_path, form):
    path = tmp_path / f"queries.{form}"
    export(project, "queries", tmp_path / "q.jsonl", "jsonl")
    rows = [json.loads(line) | {"kind": "true"} for line in (tmp_path / "q.jsonl").read_text().splitlines()]
    if form == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif form == "xlsx":
        book = openpyxl.Workbook()
        flat = [[json.dumps(v) if isinstance(v, dict) else v for v in row.values()] for row in rows]
        for row in (list(rows[0]), *flat):
            book.active.append(row)
        book.save(path)
    else:
        export(project, "queries", path, "csv")
        path.write_text("\ufeff" + path.read_text().replace(",,,", ",true,,").replace("kind,true,", "kind,,"))
    assert read_answers(project, path, "ann").new == 6
    export(project, "answers", tmp_path / "answers.csv", "csv")
    done = read_answers(project, tmp_path / "answers.csv", "ann")
    assert (done.new, done.corrected, done.passed_over) == (0, 0, 6)


def test_every_exported_table_carries_the_project(project, sheet, tmp_path):
    read_answers(project, sheet(kind=["true"] * 2), "ann")
    for what in ("queries", "answers", "candidates"):
        export(project, what, tmp_path / f"{what}.csv", "csv")
        with open(tmp_path / f"{what}.csv", newline="") as file:
            assert {row["project"] for row in csv.DictReader(file)} == {project.id}


# -- missed objects -----------------------------------------------------------------------------------------------


def test_a_missed_object_is_grown_from_its_centre_and_recorded_once(project, tmp_path):
    (z, y, x), (_, y2, x2) = FAINT
    table = write(tmp_path / "m.csv", f"kind,Z,y,x,reason\nmissed,{z},{y},{x},small\n")
    done = read_answers(project, table, "ann")
    (answer,) = project.ledger.current_answers()
    box, mask = answer.drawing
    drawn = np.zeros(SHAPE_ZYX, bool)
    drawn[box.slices] = mask > 0
    assert (drawn == blob_at(FAINT[0])).all()
    assert (answer.query, answer.kind, answer.reason) == (None, "missed", "small")
    assert done.new == 1 and f"{drawn.sum()} voxels" in done.notes[0] and "grown where the probability" in done.notes[0]
    nm = write(
        tmp_path / "nm.csv", f"kind,z_nm,y_nm,x_nm\nmissed,{z * 30},{y * 10},{x * 10}\nmissed,120,{y2 * 10},{x2 * 10}\n"
    )
    done = read_answers(project, nm, "ann")
    assert (done.new, done.passed_over) == (1, 1) and len(project.ledger.current_answers()) == 2
    done = read_answers(project, table, "eve")
    assert (done.new, done.passed_over) == (0, 1) and "the missed object that ann has marked" in done.notes[0]


def test_where_the_probability_shows_nothing_a_ball_is_drawn(project, tmp_path):
    table = write(tmp_path / "m.csv", "kind,z,y,x,radius_nm\nmissed,4,16,112,30\n")
    done = read_answers(project, table, "ann")
    (answer,) = project.ledger.current_answers()
    assert answer.drawing[1].sum() == 29 + 2  # a disc of 3 pixels, and one voxel in each neighbouring section
    assert "a ball with a radius of 30 nm, because the probability there is only 0.02" in done.notes[0]


def test_points_where_nothing_can_be_missed_are_refused(project, tmp_path):
    asked = project.ledger.query(1).candidate
    at = ",".join(map(str, (np.argwhere(asked.mask)[0] + asked.box.offset_zyx).tolist()))
    for text, sentence in (
        (
            "z,y,x\nmissed,4,16,400",
            "row 2: missed object at z, y, x = 4, 16, 400 (voxels): the point lies outside the image",
        ),
        ("z,y,x\nmissed,4,16,210", "the point lies in the test box or its guard"),
        (f"z,y,x\nmissed,{at}", f"the point lies in candidate {asked.id}, so the object was not missed"),
        ("z,y,x\nmissed,4,,100", "row 2, column y: nothing came; expected a number"),
        ("z,y,x\nmissed,,,", "missed needs the object's place"),
        ("z,y,x,radius_nm\nmissed,4,16,112,0", "expected a radius above 0 nm"),
        ("z,y,x,z_nm,y_nm,x_nm\nmissed,4,16,112,1,2,3", "the place in voxels is"),
    ):
        refuse(project, write(tmp_path / "m.csv", f"kind,{text}\n"), sentence)


# -- pictures, and the commands as they are printed ---------------------------------------------------------------


def call(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_every_query_has_its_picture(project, tmp_path):
    result = call("export", project.root, "--what", "queries", "--pictures", "-o", tmp_path / "my sheet")
    assert result.exit_code == 0, result.output
    with open(tmp_path / "my sheet" / "queries.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    page = (tmp_path / "my sheet" / "index.html").read_text()
    for row, query in zip(rows, project.ledger.open_queries(), strict=True):
        image = cv2.imread(str(tmp_path / "my sheet" / row["picture"]))
        planes = len(query.patch.image)
        assert image.shape == (2 * 256 + 4, planes * 256 + (planes - 1) * 4, 3)
        raw, drawn = image[:256], image[-256:]
        middle = query.patch.central[0]
        assert (
            np.abs(
                cv2.resize(raw[:, 260:516, 0], middle.shape, interpolation=cv2.INTER_AREA) - middle.astype(int)
            ).mean()
            < 5
        )
        assert (raw.max(-1) == raw.min(-1)).all() and (drawn[:, 260:516].max(-1) > drawn[:, 260:516].min(-1)).any()
        assert row["picture"] in page and int(row["query"]) == query.id
    for words in (("--what", "answers"), ("--what", "queries", "--format", "jsonl")):
        result = call("export", project.root, *words, "--pictures", "-o", tmp_path / "no")
        assert result.exit_code == 1 and "--pictures is for --what queries as csv" in result.stderr


def test_a_refused_table_ends_the_command_with_an_error(project, tmp_path):
    result = call(
        "answer", project.root, write(tmp_path / "t.csv", "query,kind\n1,true\n2,maybe\n"), "--annotator", "ann"
    )
    assert result.exit_code == 1 and result.stderr.startswith("twostream: ") and not project.ledger.all_answers()
    result = call("answer", project.root, write(tmp_path / "t.csv", "query,kind\n1,\n"), "--annotator", "ann")
    assert result.exit_code == 1 and "none of them holds a kind" in result.stderr


def test_the_end_says_what_may_follow_in_commands_that_can_be_pasted(project, sheet, monkeypatch):
    read_answers(project, sheet(kind=["true", "nothing"] * 3), "ann")
    project.ledger.close()
    monkeypatch.chdir(project.root.parent)

    def paste(line):
        name, *words = shlex.split(line[line.index("twostream ") :])
        done = call(*words)
        assert name == "twostream" and done.exit_code == 0, done.output
        return done.stdout.splitlines()

    done, another, dataset = paste("twostream run p --rounds 1")
    assert done.startswith("done: 1 rounds asked and answered; report: p") and Path("p/report.html").is_file()
    assert paste(dataset) and Path("p_dataset").is_dir()
    assert paste("twostream run p --rounds 1")[-1].endswith("p_dataset_2")
    export_command, _, answer, go_on = paste(another)[-4:]
    assert paste(export_command) and Path("p_queries_round_1/index.html").is_file()
    assert go_on.endswith("twostream run p --rounds 2")
    refused = call(*shlex.split(answer[answer.index("twostream ") :])[1:])
    assert refused.exit_code == 1 and "none of them holds a kind" in refused.stderr
    assert len(paste(another)) == 1 + 2 + 3  # exported already: that step is left out
