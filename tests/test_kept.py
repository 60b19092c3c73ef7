"""What people give is never lost: the id of a project, files that are gone, and the copies they come from."""

import json
import os
import shutil
import sqlite3
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import LABELS_BOX, TEST_BOX, TO_SCHEMA_2
from test_cli import call, init, refused

from twostream.base.errors import LedgerError, ProjectError
from twostream.base.geometry import Box
from twostream.candidates.candidate import clean, extract, to_segmentation
from twostream.candidates.table import read_table
from twostream.project.answer_log import AnswerLog
from twostream.project.create import fork_project
from twostream.project.ledger import Ledger
from twostream.project.project import Project
from twostream.project.records import Answer
from twostream.project.repair import repair
from twostream.rounds.loop import run
from twostream.task import Mitochondria, SynapsePolarity
from twostream.volume import open_volume


def test_every_project_and_fork_has_an_id_that_nothing_depends_on(make_project, toy_file, tmp_path):
    first, second = make_project("first"), make_project("second")
    for project in (first, second):
        run(project, rounds=1, truth_uri=f"{toy_file}:mitochondria")
    fork = fork_project(first, tmp_path / "fork", [])
    assert len({first.id, second.id, fork.id}) == 3
    for project in (first, second, fork):
        assert Project(project.root).id == project.id == project.config.id != ""
    for a, b in zip(first.ledger.queries(), second.ledger.queries(), strict=True):
        assert (a.candidate.id, a.reason) == (b.candidate.id, b.reason)
    assert [a.kind for a in first.ledger.all_answers()] == [a.kind for a in second.ledger.all_answers()]
    assert [m["scores"] for m in first.ledger.scores().values()] == [
        m["scores"] for m in second.ledger.scores().values()
    ]


def test_a_project_without_an_id_in_its_settings_has_that_of_its_ledger(make_project):
    project = make_project()
    path = project.root / "twostream.yaml"
    values = yaml.safe_load(path.read_text())
    stated = values.pop("id")
    path.write_text(yaml.safe_dump(values))
    assert Project(project.root).config.id == "" and Project(project.root).id == stated


def test_settings_and_ledger_of_two_projects_are_refused(make_project):
    first, second = make_project("first"), make_project("second")
    first.ledger.close()
    second.ledger.close()
    shutil.copy(first.root / "ledger.sqlite", second.root)
    with pytest.raises(ProjectError) as error:
        _ = Project(second.root).ledger
    for words in (f"{second.root / 'twostream.yaml'} belongs to project {second.config.id}", f"to {first.id}"):
        assert words in str(error.value)
    refused(call("status", second.root), "Put back the file that belongs here")


def test_the_id_cannot_be_chosen(make_project):
    with pytest.raises(Exception, match="every project is given one of its own"):
        make_project(overrides=["id=mine"])


# -- what is missing or damaged, and `repair` -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def waiting(toy_file, tmp_path_factory):
    """A project whose round 1 waits for answers, two of which have been given: 8 answers in all."""
    root = tmp_path_factory.mktemp("waiting") / "p"
    made = init(root, toy_file, "--labels-box", LABELS_BOX, "--test-box", TEST_BOX, "--budget", "6")
    assert made.exit_code == 0, made.output
    project = Project(root)
    run(project, rounds=1, truth_uri=f"{toy_file}:mitochondria")
    run(project, rounds=2)
    for query, kind in zip(project.ledger.open_queries()[:2], ("true", "nothing"), strict=True):
        project.ledger.tell(Answer(query.id, kind, "ann", reason="seen"))
    project.ledger.close()
    return root


@pytest.fixture
def lab(waiting, tmp_path):
    """A copy of the project ``waiting``."""
    shutil.copytree(waiting, tmp_path / "lab")
    return tmp_path / "lab"


def answers(root):
    ledger = Project(root).ledger
    found = [(a.id, a.query, a.candidate, a.kind, a.annotator, a.answered_at) for a in ledger.all_answers()]
    ledger.close()
    return found


def test_a_sound_project_has_nothing_to_repair(lab):
    before = {path: path.read_bytes() for path in lab.rglob("*") if path.is_file()}
    done = call("repair", lab)
    assert done.exit_code == 0 and "nothing is to be done" in done.output
    assert {path: path.read_bytes() for path in before} == before
    assert len(answers(lab)) == 8 == len((lab / "answers.jsonl").read_text().splitlines())
    assert [p.parent.name for p in sorted(lab.glob("rounds/*/ledger.sqlite"))] == ["000", "001"]
    refused(call("repair", lab / "nothing"), "holds no project")


def test_a_round_copies_the_ledger_and_only_the_newest_copies_stay(lab, toy_file):
    copy = Ledger(lab / "rounds" / "001" / "ledger.sqlite")
    assert len(copy.open_queries()) == 6 and len(copy.all_answers()) == 6
    run(Project(lab), rounds=3, truth_uri=f"{toy_file}:mitochondria")
    assert [p.parent.name for p in sorted(lab.glob("rounds/*/ledger.sqlite"))] == ["002", "003"]
    copy = Ledger(lab / "rounds" / "003" / "ledger.sqlite")
    assert len(copy.all_answers()) == 18 and (3, "score") in copy.finished_steps()


@pytest.mark.parametrize("left", ["missing", "empty", "zeros"])
def test_missing_settings_are_written_again_and_init_takes_nothing(lab, toy_file, left, tmp_path):
    path, before = lab / "twostream.yaml", answers(lab)
    good = Project(lab).config
    path.unlink()
    if left != "missing":
        path.write_bytes(b"" if left == "empty" else b"\0" * 512)
    for command in ("status", "run", "report", "predict"):
        refused(call(command, lab), "is missing or empty, but", f"`twostream repair {lab}` writes it again")
    assert call("answer", lab, tmp_path / "none.csv").exit_code == 1
    content = {name: (lab / name).read_bytes() for name in ("ledger.sqlite", "answers.jsonl")}
    if left == "missing":
        refused(init(lab, toy_file), "holds the ledger, rounds or answers", "twostream repair")
        (lab / "old").symlink_to(lab)
        for way in (lab / "nope" / ".." / ".." / lab.name, lab / "old"):
            refused(init(way, toy_file), "holds the ledger, rounds or answers")
        assert not (lab / "nope").exists()
    assert {name: (lab / name).read_bytes() for name in content} == content
    done = call("repair", lab)
    assert done.exit_code == 0 and "written again from" in done.output and "001/config.yaml" in done.output
    assert Project(lab).config == good and answers(lab) == before
    assert "nothing is to be done" in call("repair", lab).output


def test_the_settings_of_a_fork_come_back_with_its_own_id(lab, tmp_path):
    fork = fork_project(Project(lab), tmp_path / "fork", ["query.strategy=random"])
    good = fork.config
    assert not list(fork.root.glob("rounds/*/ledger.sqlite"))  # it would hold the answers of the origin
    fork.ledger.close()
    (fork.root / "twostream.yaml").unlink()
    repair(fork.root)
    assert Project(fork.root).config == good and good.query.strategy == "random" and good.id != Project(lab).id


@pytest.mark.parametrize("damage", ["missing", "empty", "foreign", "torn", "older", "no log file"])
def test_a_lost_ledger_comes_back_with_every_answer(lab, damage):
    path, before = lab / "ledger.sqlite", answers(lab)
    bad = None
    if damage == "missing":
        path.unlink()
    elif damage == "older":
        shutil.copy(lab / "rounds" / "000" / "ledger.sqlite", path)
    elif damage == "no log file":
        (lab / "answers.jsonl").unlink()
    else:
        whole = path.read_bytes()
        bad = {"empty": b"", "foreign": b"something else" * 500, "torn": whole[: len(whole) // 2]}[damage]
        path.write_bytes(bad)
    if damage in ("missing", "empty", "foreign"):
        for command in ("status", "run", "report", "suggest"):
            refused(call(command, lab), "ledger.sqlite", f"`twostream repair {lab}` restores it")
        assert not path.exists() or path.read_bytes() == bad
    done = call("repair", lab)
    assert done.exit_code == 0, done.output
    if damage != "older":
        assert answers(lab) == before
        assert len(Project(lab).ledger.open_queries()) == 4
        assert len((lab / "answers.jsonl").read_text().splitlines()) == 8
        assert "round 1 waits for 4 of 6 answers" in call("status", lab).output
        assert "waits for 4 answers" in call("run", lab, "--rounds", "2").output
    if bad is not None:
        assert (lab / "ledger.sqlite.damaged").read_bytes() == bad and "ledger.sqlite.damaged" in done.output
    assert "nothing is to be done" in call("repair", lab).output or damage == "older"


def test_an_older_ledger_is_named_and_gets_its_answers_back(lab):
    before = answers(lab)
    shutil.copy(lab / "rounds" / "001" / "ledger.sqlite", lab / "ledger.sqlite")
    refused(call("status", lab), "lacks answers", "it is an older copy", f"`twostream repair {lab}`")
    assert "2 answers of" in call("repair", lab).output
    assert answers(lab) == before and "nothing is to be done" in call("repair", lab).output


def test_both_a_damaged_ledger_and_a_damaged_copy(lab, toy_file):
    """Then round 1 is asked again by the copy of round 0; its answers are recorded once its queries are there."""
    before = answers(lab)
    for path in (lab / "ledger.sqlite", lab / "rounds" / "001" / "ledger.sqlite"):
        path.write_bytes(b"damaged" * 1000)
    done = call("repair", lab)
    assert done.exit_code == 0 and "restored from" in done.output and "000/ledger.sqlite" in done.output
    assert "Answer 7 of" in done.output and "the ledger has no query 7" in done.output
    assert answers(lab) == before[:6]
    assert "waits for 6 answers" in call("run", lab, "--rounds", "2").output
    refused(call("status", lab), "lacks answers")
    assert "2 answers of" in call("repair", lab).output
    assert answers(lab) == before
    assert "nothing is to be done" in call("repair", lab).output


def test_without_any_copy_a_ledger_with_answers_is_not_begun_again(lab):
    for path in lab.rglob("ledger.sqlite"):
        path.unlink()
    refused(call("repair", lab), "cannot be restored (it is missing)", "Put a backup of ledger.sqlite there")
    assert not (lab / "ledger.sqlite").exists()


def test_a_ledger_in_which_nobody_was_asked_is_made_again(tmp_path, toy_file):
    root = tmp_path / "p"
    assert init(root, toy_file, "--labels-box", LABELS_BOX).exit_code == 0
    assert call("train", root).exit_code == 0
    stated = Project(root).id
    (root / "ledger.sqlite").write_bytes(b"")
    assert "nobody had been asked yet" in call("repair", root).output
    assert Project(root).id == stated and "next: train of round 0" in call("status", root).output


def test_the_rest_of_a_killed_init_is_replaced(tmp_path, toy_file):
    root = tmp_path / "p"
    assert init(root, toy_file, "--labels-box", LABELS_BOX).exit_code == 0
    project = Project(root)
    first = project.id
    project.ledger.close()  # an open ledger would write what it holds into the file that is emptied below
    (root / "twostream.yaml").unlink()
    assert init(root, toy_file, "--labels-box", LABELS_BOX).exit_code == 0
    project = Project(root)
    assert project.id != first
    project.ledger.close()
    (root / "twostream.yaml").unlink()
    (root / "ledger.sqlite").write_bytes(b"")
    assert init(root, toy_file, "--labels-box", LABELS_BOX).exit_code == 0
    (root / "twostream.yaml").unlink()
    Ledger(root / "ledger.sqlite").register(0, [1])
    refused(init(root, toy_file), "holds the ledger, rounds or answers")


def test_answers_of_another_project_are_put_aside(lab, make_project, toy_file):
    other = make_project("other")
    run(other, rounds=1, truth_uri=f"{toy_file}:mitochondria")
    stranger = (other.root / "answers.jsonl").read_bytes()
    before = answers(lab)
    (lab / "answers.jsonl").write_bytes(stranger)
    refused(call("status", lab), f"holds answers of project {other.id}", "twostream repair")
    assert "6 of another project" in call("repair", lab).output
    assert (lab / "answers.jsonl.damaged").read_bytes() == stranger and answers(lab) == before
    assert len(AnswerLog(lab / "answers.jsonl").answers()[0]) == 8


def test_a_changed_line_does_not_change_an_answer(lab):
    path, before = lab / "answers.jsonl", answers(lab)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[-1] |= {"kind": "shape", "time": "2020-01-01T00:00:00.000+00:00"}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "1 unlike the ledger's answer of that number" in call("repair", lab).output
    assert answers(lab) == before and "nothing is to be done" in call("repair", lab).output


def test_a_full_disk_beside_the_ledger_loses_no_answer(lab, monkeypatch, capfd):
    project = Project(lab)
    queries = project.ledger.open_queries()

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("twostream.project.answer_log.os.write", full)
        for query in queries[:2]:
            assert project.ledger.tell(Answer(query.id, "true", "ann"))
    assert capfd.readouterr().err.count("No space left on device") == 1  # said once
    assert len(answers(lab)) == 10 and len((lab / "answers.jsonl").read_text().splitlines()) == 8
    assert "written again with 10 answers" in call("repair", lab).output
    project.ledger.tell(Answer(queries[2].id, "true", "ann"))
    assert len((lab / "answers.jsonl").read_text().splitlines()) == 11


def test_every_door_appends(lab, tmp_path, toy_file):
    """A table, Python, and the simulated annotator."""
    project = Project(lab)
    (tmp_path / "a.csv").write_text(f"query,kind\n{project.ledger.open_queries()[0].id},shape\n")
    assert call("answer", lab, tmp_path / "a.csv", "--annotator", "eve").exit_code == 0
    assert json.loads((lab / "answers.jsonl").read_text().splitlines()[-1])["annotator"] == "eve"
    run(project, rounds=2, truth_uri=f"{toy_file}:mitochondria")
    rows = [json.loads(line) for line in (lab / "answers.jsonl").read_text().splitlines()]
    assert [row["answer"] for row in rows] == [a.id for a in project.ledger.all_answers()]
    assert {row["annotator"] for row in rows} == {"eve", "ann", "simulated"}
    assert {(row["project"], row["task"]) for row in rows} == {(project.id, "mitochondria")}
    (lab / "answers.jsonl").unlink()
    assert run(Project(lab), rounds=2).finished  # the loop never reads it


def test_a_damaged_page_is_restored_too(lab):
    """The file opens, and only reading a table shows that it is damaged."""
    path, before = lab / "ledger.sqlite", answers(lab)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    whole = bytearray(path.read_bytes())
    whole[4096:] = b"\xff" * (len(whole) - 4096)
    path.write_bytes(whole)
    refused(call("status", lab), f"`twostream repair {lab}` restores it")
    with pytest.raises(LedgerError, match="damaged"):
        Project(lab).ledger.all_answers()
    assert "restored from" in call("repair", lab).output and answers(lab) == before


@pytest.mark.parametrize(
    "words",
    [
        ("export", "--what", "dataset"),
        ("export", "--what", "dataset", "--format", "hdf5"),
        ("export", "--what", "answers", "--format", "csv"),
        ("export", "--what", "queries", "--pictures"),
        ("export", "--what", "segmentation", "--format", "zarr"),
        ("fork",),
        ("init",),
    ],
)
def test_no_path_leads_into_a_project_unseen(lab, toy_file, words, monkeypatch):
    """`nope/../lab` is not there as long as `nope` is not, and is `lab` once a command has made `nope`."""
    monkeypatch.chdir(lab.parent)
    files = {path: path.read_bytes() for path in lab.rglob("*") if path.is_file()}
    way = Path("nope") / ".." / "lab"
    if words == ("init",):
        done = init(way, toy_file)
    else:
        done = call(words[0], lab, way) if words == ("fork",) else call(words[0], lab, *words[1:], "-o", way)
    refused(done, "lab")
    assert {path: path.read_bytes() for path in files} == files


# -- forks, and files of rounds that are gone -----------------------------------------------------------------------


def finished_scores(project):
    return [
        (m["scores"], m["num_candidates"], m["stopping"] if r else None) for r, m in project.ledger.scores().items()
    ]


def test_a_fork_past_round_0_goes_on_like_one_made_before(make_project, toy_file, tmp_path):
    truth = f"{toy_file}:mitochondria"
    origin = make_project("origin")
    run(origin, rounds=0)
    segmentation = open_volume(str(origin.path(0, "segmentation.zarr")))
    before = segmentation.read(segmentation.box)
    early = fork_project(origin, tmp_path / "early", ["query.strategy=random"])
    run(origin, rounds=1, truth_uri=truth)
    assert not origin.path(0, "probability.zarr").exists()
    late = fork_project(origin, tmp_path / "late", ["query.strategy=random"])
    assert not late.path(0, "segmentation.zarr").exists()
    assert call("export", late.root, "--what", "segmentation", "-o", tmp_path / "s.zarr").exit_code == 0
    again = open_volume(str(tmp_path / "s.zarr"))
    np.testing.assert_array_equal(again.read(again.box), before, strict=True)
    run(late, rounds=1)
    assert len(late.ledger.open_queries()) == 6
    for fork in (early, late):
        assert run(fork, rounds=2, truth_uri=truth).finished
    assert finished_scores(early) == finished_scores(late)
    assert [q.candidate.id for q in early.ledger.queries()] == [q.candidate.id for q in late.ledger.queries()]
    assert not late.path(0, "probability.zarr").exists()  # what was predicted again goes as usual


@pytest.mark.parametrize("task", [Mitochondria, SynapsePolarity])
def test_candidates_give_their_segmentation_again(task):
    rng = np.random.default_rng(0)
    small = rng.integers(0, 5, (2, 4, 4)).repeat(3, 0).repeat(3, 1).repeat(3, 2).astype(np.uint32)
    task = task(voxel_size_nm=(30, 10, 10))
    segmentation = clean(small, task, 1)
    found = extract(segmentation, np.full(small.shape, 200, np.uint8), task, (0, 0, 0))
    assert len(found) > 1
    np.testing.assert_array_equal(to_segmentation(found[::-1], Box.whole(small.shape), task), segmentation, strict=True)


GONE = {
    "config.yaml": "named, goes on",  # of round 0, with whose settings today's are compared; of later rounds
    "checkpoint.ckpt": "goes on, named",  # round 1 has learned, so the networks of round 0 are no longer read
    "supervised.ckpt": "named",
    "unsupervised.ckpt": "goes on, named",
    "candidates.parquet": "named, named",
    "probability.zarr": "-, goes on",
    "segmentation.zarr": "-, goes on",
    "latents_supervised.npy": "goes on, goes on",  # both rounds have asked, so latents are for the report
    "latents_unsupervised.npy": "goes on, goes on",
    "ids.npy": "goes on, goes on",
    "pool.npz": "goes on, goes on",
    "pictures_supervised.npz": "goes on",
    "pictures_unsupervised.npz": "goes on",
    "queries.jsonl": "goes on, goes on",
    "answers.jsonl": "goes on",
    "metrics.json": "goes on, goes on",
    "ledger.sqlite": "goes on, goes on",
}
"""{file of a round: what `run` does where it is gone, for round 0 and round 1}."""


def content(path):
    """What a file or a Zarr folder holds, as a value that can be compared."""
    if path.suffix == ".ckpt":
        state = torch.load(path, weights_only=True)
        return {name: value.tolist() for name, value in state["weights"].items()}
    if path.suffix == ".npy":
        return np.load(path).tolist()
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return {name: repr(arrays[name].tolist()) for name in arrays}  # NaN is not equal to itself
    if path.suffix == ".zarr":
        volume = open_volume(str(path))
        return volume.read(volume.box).tolist()
    if path.suffix == ".sqlite":
        return len(Ledger(path).queries())
    return read_table(path).to_pylist() if path.suffix == ".parquet" else path.read_text()


def test_the_table_names_every_file_of_a_round(waiting):
    found = {path.name for path in waiting.glob("rounds/*/*")}
    assert found == set(GONE)
    for name, outcomes in GONE.items():
        rounds = [(waiting / "rounds" / f"{r:03d}" / name).exists() for r in (0, 1)]
        said = [word != "-" for word in outcomes.split(", ")]
        assert rounds == [*said, False][:2], name


@pytest.mark.parametrize(("name", "number"), [(n, r) for n, o in GONE.items() for r in range(o.count(",") + 1)])
def test_a_file_of_a_round_that_is_gone(lab, toy_file, name, number):
    """`run` names it, and what it advises helps; or it can be done without."""
    outcome = GONE[name].split(", ")[number]
    path = lab / "rounds" / f"{number:03d}" / name
    if outcome == "-":
        assert not path.exists()
        return
    before = content(path)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    done = call("run", lab, "--rounds", "2")
    if outcome == "named":
        refused(done, str(path), f"`twostream repair {lab}` makes again what is gone")
        repaired = call("repair", lab)
        assert repaired.exit_code == 0 and f"{path} was gone: made again" in repaired.output, repaired.output
        if name == "config.yaml":
            assert yaml.safe_load(path.read_text())["config"] == yaml.safe_load(before)["config"]
        else:
            assert content(path) == before
        assert {p.name for p in lab.glob("rounds/000/*.zarr")} == set()
        done = call("run", lab, "--rounds", "2")
    assert done.exit_code == 0 and "round 1 waits for 4 answers" in done.output, done.output
    assert call("report", lab).exit_code == 0 and call("status", lab).exit_code == 0
    assert call("repair", lab).exit_code == 0 and "nothing is to be done" in call("repair", lab).output
    if outcome == "goes on" and path.exists() and name not in ("config.yaml", "ledger.sqlite"):
        assert content(path) == before


def test_a_project_goes_on_with_files_that_were_made_again(lab, toy_file, tmp_path):
    """Everything that can be made again is deleted, and the next round has the same scores."""
    whole = Project(Path(shutil.copytree(lab, tmp_path / "whole")))
    for path in lab.glob("rounds/*/*"):
        if path.name not in ("config.yaml", "ledger.sqlite"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    refused(call("run", lab), "files that later steps read are gone, among them")
    assert call("repair", lab).exit_code == 0
    for project in (whole, Project(lab)):
        run(project, rounds=2, truth_uri=f"{toy_file}:mitochondria")
    assert finished_scores(whole) == finished_scores(Project(lab))
    assert [q.candidate.id for q in whole.ledger.queries()] == [q.candidate.id for q in Project(lab).ledger.queries()]


def test_candidates_that_would_be_others_are_refused(lab):
    path = lab / "rounds" / "001" / "candidates.parquet"
    path.unlink()
    values = yaml.safe_load((lab / "rounds" / "001" / "config.yaml").read_text())
    values["config"]["candidates"]["threshold"] = 0.97
    (lab / "rounds" / "001" / "config.yaml").write_text(yaml.safe_dump(values))
    refused(call("repair", lab), "cannot be made again as it was", "Put it back from a copy")
    assert not path.exists()


# -- disks that can only be read --------------------------------------------------------------------------------------


@pytest.fixture
def read_only():
    """Function that makes a folder read-only, by a mount where that is allowed, else by its permissions."""
    undo = []

    def make(root):
        if os.getuid() == 0:
            done = subprocess.run(["mount", "--bind", "-o", "ro", root, root], capture_output=True)
            if done.returncode:
                pytest.skip("this account may write everywhere and cannot mount")
            undo.append(lambda: subprocess.run(["umount", "--lazy", root], check=True))
        else:
            folders = [root, *(path for path in root.rglob("*") if path.is_dir())]
            for folder in folders:
                folder.chmod(0o555)
            undo.append(lambda: [folder.chmod(0o755) for folder in folders])

    yield make
    for act in undo:
        act()


@pytest.mark.parametrize("state", ["closed", "in use", "older version"])
def test_a_project_is_read_from_a_disk_that_cannot_be_written(lab, tmp_path, read_only, state):
    before = answers(lab)
    if state == "in use":  # the newest rows are still in the file beside the ledger
        connection = sqlite3.connect(lab / "ledger.sqlite")
        connection.execute("INSERT INTO fact (name, value, stated_at) VALUES ('place', 'here', 'now')")
        connection.commit()
        lab = Path(shutil.copytree(lab, tmp_path / "copied"))
        connection.close()
        assert (lab / "ledger.sqlite-wal").stat().st_size > 0
    if state == "older version":
        connection = sqlite3.connect(lab / "ledger.sqlite")
        connection.executescript(TO_SCHEMA_2)
        (lab / "answers.jsonl").unlink()
        values = yaml.safe_load((lab / "twostream.yaml").read_text())
        del values["id"]
        (lab / "twostream.yaml").write_text(yaml.safe_dump(values))
        connection.close()
    files = {path: path.read_bytes() for path in lab.rglob("*") if path.is_file()}
    read_only(lab)
    assert "round 1 waits for 4 of 6 answers" in call("status", lab).output
    assert answers(lab) == before
    if state == "in use":
        assert Project(lab).ledger.fact("place") == "here"
    table = tmp_path / "queries.csv"
    for words in (
        ("export", lab, "--what", "queries", "-o", table),
        ("export", lab, "--what", "answers", "-o", tmp_path / "answers.csv"),
        ("export", lab, "--what", "candidates", "-o", tmp_path / "candidates.parquet"),
        ("export", lab, "--what", "segmentation", "-o", tmp_path / "segmentation.h5"),
        ("export", lab, "--what", "dataset", "-o", tmp_path / "dataset"),
        ("report", lab, "-o", tmp_path / "report.html"),
        ("fork", lab, tmp_path / "fork"),
    ):
        done = call(*words)
        assert done.exit_code == 0, (words, done.output)
    refused(call("report", lab), "report.html cannot be written", "-o FILE")
    for command in ("run", "refit", "repair"):
        refused(call(command, lab), f"{lab} cannot be written", "copy the folder to a disk that can be written")
    table.write_text("query,kind\n9,true\n")
    refused(call("answer", lab, table, "--annotator", "eve"), "ledger.sqlite cannot be written")
    assert {path: path.read_bytes() for path in lab.rglob("*") if path.is_file()} == files


def test_what_cannot_be_written_is_read_from_a_copy(lab, monkeypatch):
    """The same without a mount: SQLite refuses to open the file where it lies."""
    before, connect = answers(lab), sqlite3.connect

    def refuses(path, *args, **settings):
        if path == lab / "ledger.sqlite":
            error = sqlite3.OperationalError("unable to open database file")
            error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
            raise error
        return connect(path, *args, **settings)

    monkeypatch.setattr("twostream.project.database.sqlite3.connect", refuses)
    project = Project(lab)
    assert project.ledger.is_read_only and project.id == project.config.id
    assert answers(lab) == before
    with pytest.raises(LedgerError, match="cannot be written"):
        project.ledger.tell(Answer(project.ledger.open_queries()[0].id, "true", "ann"))


def test_a_ledger_that_another_program_holds_is_named_as_locked(lab):
    other = sqlite3.connect(lab / "ledger.sqlite", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")  # readers are not kept out
    assert "round 1 waits for 4 of 6 answers" in call("status", lab).output
    with pytest.raises(LedgerError, match="is locked by another program"):
        Ledger(lab / "ledger.sqlite", timeout_seconds=0.05).tell(Answer(9, "true", "ann"))
