"""A project can be moved, alone or together with its data, and then gives the same results."""

import shlex
import shutil
import sqlite3

import h5py
import numpy as np
import pytest
import yaml
from conftest import SHAPE_ZYX, TEST_BOX, TINY, TO_SCHEMA_2, VOXEL_SIZE_NM
from test_cli import call, refused

from twostream.base.errors import InputError, ProjectError
from twostream.base.geometry import Box
from twostream.project.create import create_project, fork_project
from twostream.project.fingerprint import NUM_BOXES, sample_boxes
from twostream.project.project import Project
from twostream.project.relocate import relocate
from twostream.rounds.loop import run


@pytest.fixture
def lab(tmp_path, toy_file):
    """A folder with the data in ``data/``. Projects are made in it, with a segmentation in place of S."""
    (tmp_path / "lab" / "data").mkdir(parents=True)
    shutil.copy(toy_file, tmp_path / "lab" / "data" / "toy.h5")
    return tmp_path / "lab"


def project_in(lab, name="project"):
    data = lab / "data" / "toy.h5"
    return create_project(
        lab / name,
        task="mitochondria",
        image=f"{data}:image",
        segmentation=f"{data}:mitochondria",
        test_box=TEST_BOX,
        budget=6,
        overrides=[option for option in TINY if not option.startswith("segmentation.")],
    )


def asked(project):
    return [(q.round, q.candidate.id) for q in project.ledger.queries()]


def run_rounds(project, rounds):
    """Run with a simulated annotator; (round, candidate) of all queries."""
    run(project, rounds=rounds, truth_uri=project.locate("source", project.config.source.uri))
    return asked(project)


def test_a_project_moved_together_with_its_data_continues(lab, tmp_path):
    unmoved = run_rounds(project_in(lab, "unmoved"), 2)
    project = project_in(lab)
    assert project.config.image.uri == "../data/toy.h5:image"
    assert project.config.source.uri == "../data/toy.h5:mitochondria"
    run_rounds(project, 1)
    lab.rename(tmp_path / "elsewhere")
    moved = Project(tmp_path / "elsewhere" / "project")
    assert run_rounds(moved, 2) == unmoved and len(unmoved) == 12


def test_data_inside_a_project_moves_with_it(lab, tmp_path):
    (lab / "project").mkdir()
    shutil.copytree(lab / "data", lab / "project" / "data")
    data = lab / "project" / "data" / "toy.h5"
    project = create_project(
        lab / "project", task="mitochondria", image=f"{data}:image", segmentation=f"{data}:mitochondria", budget=6
    )
    assert project.config.image.uri == "data/toy.h5:image"
    (lab / "project").rename(tmp_path / "alone")
    assert Project(tmp_path / "alone").image.shape_zyx == SHAPE_ZYX


def test_missing_data_is_named_and_the_printed_advice_works(toy_file, tmp_path):
    data = tmp_path / "data.h5"
    shutil.copy(toy_file, data)
    root = tmp_path / "lab" / "project"  # the data is neither inside nor beside it
    box = ("--labels-box", "0:8,0:96,0:64", "--test-box", TEST_BOX)
    done = call(
        "init", root, "--image", f"{data}:image", "--labels", f"{data}:mitochondria", "--task", "mitochondria", *box,
        *(word for option in TINY for word in ("--set", option)),
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert Project(root).config.image.uri == f"{data}:image"
    (tmp_path / "archive").mkdir()
    data.rename(tmp_path / "archive" / "data.h5")
    refused(call("run", root, "--rounds", "0"), f"{root} finds no image at {data}", f"twostream run {root} --image URI")
    there = tmp_path / "archive" / "data.h5"
    refused(call("run", root, "--rounds", "0", "--image", f"{there}:image"), f"{root} finds no labels at {data}")
    again = call("run", root, "--rounds", "0", "--labels", f"{there}:mitochondria")
    assert again.exit_code == 0, again.output
    assert Project(root).config.image.uri == f"{there}:image"
    assert (root / "twostream.yaml.old").is_file()


def test_a_different_volume_is_refused_as_the_new_location(lab, tmp_path):
    project = project_in(lab)
    run_rounds(project, 0)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.attrs["voxel_size_nm"] = VOXEL_SIZE_NM
        file["image"] = np.zeros((8, 96, 96), np.uint8)
        file["fine"] = np.zeros(SHAPE_ZYX, np.uint8)
        file["fine"].attrs["voxel_size_nm"] = (30.0, 5.0, 5.0)
    before = (project.root / "twostream.yaml").read_text()
    for dataset, sentence in (
        ("image", "they must be equal"),
        ("fine", "has voxels of"),
        ("none", "no dataset 'none'"),
    ):
        with pytest.raises(InputError, match=sentence):
            relocate(project, image=f"{tmp_path / 'other.h5'}:{dataset}")
    with pytest.raises(InputError, match="was made without labels"):
        relocate(project, labels=f"{tmp_path / 'other.h5'}:image")
    assert (project.root / "twostream.yaml").read_text() == before


def test_a_fork_finds_the_data_of_its_origin(lab, tmp_path):
    project = project_in(lab)
    run_rounds(project, 0)
    fork = fork_project(project, project.root / "deeper" / "fork", ["query.strategy=random"])
    assert fork.config.image.uri == str(lab / "data" / "toy.h5") + ":image"  # neither inside nor beside the fork
    beside = fork_project(project, lab / "fork", ["query.strategy=random"])
    assert beside.config.image.uri == "../data/toy.h5:image"
    assert fork.image.shape_zyx == beside.image.shape_zyx == SHAPE_ZYX
    run_rounds(beside, 1)


def test_projects_with_absolute_paths_continue(lab):
    project = project_in(lab)
    path = project.root / "twostream.yaml"
    values = yaml.safe_load(path.read_text())
    for name in ("image", "source"):
        values[name]["uri"] = project.locate(name, values[name]["uri"])
    path.write_text(yaml.safe_dump(values))
    run_rounds(project, 0)
    dataset = values["source"]["uri"].rpartition(":")[2]
    shutil.copy(lab / "data" / "toy.h5", lab / "data" / "other.h5")
    values["source"]["uri"] = f"../data/other.h5:{dataset}"  # another volume than round 0 was made with
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(ProjectError, match=r"source\.uri .* it is frozen"):
        run_rounds(Project(project.root), 1)


def test_a_volume_of_another_kind_is_not_taken_for_the_moved_one(lab, tmp_path):
    project = project_in(lab)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.attrs["voxel_size_nm"] = VOXEL_SIZE_NM
        file["float"] = np.zeros(SHAPE_ZYX, np.float32)
        file["small"] = np.zeros((8, 96, 200), np.uint8)
    for dataset, sentence in (("float", "expected uint8, or a grey window"), ("small", "has the box 0:8,0:96,192:240")):
        with pytest.raises(InputError, match=sentence):
            relocate(project, image=f"{tmp_path / 'other.h5'}:{dataset}")


@pytest.fixture
def made(lab, toy_file):
    """A project with labels, whose files are copies of its own; round 0 is proposed."""
    data = lab / "data" / "toy.h5"
    project = create_project(
        lab / "project", task="mitochondria", image=f"{data}:image", labels=f"{data}:mitochondria",
        labels_box="0:8,0:96,0:64", test_box=TEST_BOX, budget=6, overrides=TINY,
    )  # fmt: skip
    run(project, rounds=0)
    return project


def change(lab, name, where, value):
    """Put another file in the place of the data: a copy in which ``value`` stands at ``where`` in dataset ``name``."""
    path = lab / "data" / "toy.h5"
    shutil.copy(path, path.with_suffix(".new"))
    with h5py.File(path.with_suffix(".new"), "r+") as file:
        array = file[name][:]
        array[where] = value
        file[name][:] = array
    path.with_suffix(".new").replace(path)


@pytest.mark.parametrize("name", ["image", "labels"])
def test_a_volume_replaced_under_the_same_path_is_noticed(lab, made, name):
    dataset = {"image": "image", "labels": "mitochondria"}[name]
    change(lab, dataset, np.s_[:], 7)
    for command in ("run", "suggest"):
        refused(call(command, made.root), f"the {name} is not the one with which {made.root} was made", "boxes differ")
    done = call("run", made.root, "--rounds", "1")
    advice = done.stderr[done.stderr.index("`twostream run") + 1 :].split("`")[0]
    accepted = call(*shlex.split(advice)[1:])
    assert accepted.exit_code == 0 and "waits for 6 answers" in accepted.output
    assert call("run", made.root, "--rounds", "1").exit_code == 0  # what was accepted counts from now on
    change(lab, dataset, np.s_[:], 8)
    refused(call("run", made.root), "boxes differ")


def test_one_voxel_of_a_small_image_is_noticed(lab, made):
    with h5py.File(lab / "data" / "toy.h5") as file:
        value = int(file["image"][7, 95, 239])
    change(lab, "image", np.s_[7, 95, 239], value ^ 1)
    refused(call("run", made.root), "1 of 1 boxes differ that were compared, the first at 0:8,0:96,0:240")


def test_sampled_boxes_are_spread_and_always_the_same():
    whole = Box((10, 20, 30), (1000, 4000, 6000))
    boxes = sample_boxes(whole)
    assert boxes == sample_boxes(whole) and len(boxes) == NUM_BOXES
    assert all(whole.contains(box) for box in boxes)
    middles = np.array([np.add(b.offset_zyx, b.stop_zyx) / 2 for b in boxes])
    parts = np.floor((middles - whole.offset_zyx) / whole.shape_zyx * 2).astype(int)
    assert len({tuple(part) for part in parts}) == 8  # every eighth of the volume has some
    assert sample_boxes(Box.whole((1, 2, 3))) == [Box.whole((1, 2, 3))]


def test_a_replaced_table_of_objects_is_noticed(lab):
    table = lab / "data" / "objects.csv"
    rows = "".join(f"{i},4,{8 + 16 * (i % 5)},{8 + 16 * i}\n" for i in range(1, 11))
    table.write_text("id,z,y,x\n" + rows)
    project = create_project(
        lab / "project", task="mitochondria", image=f"{lab / 'data' / 'toy.h5'}:image", objects=str(table), budget=6,
        overrides=[option for option in TINY if not option.startswith("segmentation.")],
    )  # fmt: skip
    run(project, rounds=0)
    table.write_text("id,z,y,x\n" + rows.replace("1,4", "1,5"))
    refused(call("run", project.root), "the source is not the one", "the file has another content")


def test_moving_to_a_volume_with_another_content_is_refused(lab, made, tmp_path):
    with h5py.File(lab / "data" / "toy.h5") as toy, h5py.File(tmp_path / "other.h5", "w") as file:
        file.attrs["voxel_size_nm"] = VOXEL_SIZE_NM
        file["wider"] = toy["mitochondria"][:].astype(np.int64)
        file["other"] = np.roll(toy["image"][:], 5, axis=2)
        file["image"] = toy["image"][:]
    other = f"{tmp_path / 'other.h5'}:other"
    before = (made.root / "twostream.yaml").read_text()
    done = call("run", made.root, "--image", other)
    refused(done, "the image is not the one", f"twostream run {made.root} --image {other} --accept-changed")
    assert (made.root / "twostream.yaml").read_text() == before
    with made.locked(), pytest.raises(ProjectError, match="another process is at work"):
        relocate(made, image=other)
    # The same values in another dtype and file are the same labels; every former file of settings is kept.
    for number, (name, dataset) in enumerate((("labels", "wider"), ("image", "image")), start=1):
        assert call("run", made.root, "--rounds", "0", f"--{name}", f"{tmp_path / 'other.h5'}:{dataset}").exit_code == 0
        assert len(list(made.root.glob("twostream.yaml.old*"))) == number
    assert (made.root / "twostream.yaml.old").read_text() == before
    assert call("run", made.root, "--rounds", "0", "--image", other, "--accept-changed").exit_code == 0
    assert call("run", made.root, "--rounds", "0").exit_code == 0


def test_a_fork_and_an_older_project_know_the_image_too(lab, made):
    fork = fork_project(made, lab / "fork", [])
    older = made.root.rename(lab / "older")
    connection = sqlite3.connect(older / "ledger.sqlite")
    connection.executescript(TO_SCHEMA_2)
    connection.close()
    values = yaml.safe_load((older / "twostream.yaml").read_text())
    del values["id"]
    (older / "twostream.yaml").write_text(yaml.safe_dump(values))
    assert call("run", older, "--rounds", "0").exit_code == 0  # states what is there
    change(lab, "image", np.s_[:], 7)
    for root in (fork.root, older):
        refused(call("run", root, "--rounds", "0"), "the image is not the one")


def test_brought_files_of_older_projects_are_found_in_the_working_directory(lab, monkeypatch, capfd):
    project = project_in(lab)
    monkeypatch.chdir(lab)
    assert project.locate_file("z.npy") == str(project.root / "z.npy")
    (lab / "z.npy").touch()
    assert project.locate_file("z.npy") == str(lab / "z.npy")
    assert "z.npy is read from the working directory" in capfd.readouterr().err
    (project.root / "z.npy").touch()
    assert project.locate_file("z.npy") == str(project.root / "z.npy")


def test_a_second_annotator_answers_by_table(lab, tmp_path):
    project = project_in(lab)
    run(project, rounds=1)
    table = tmp_path / "answers.csv"
    queries = project.ledger.open_queries()
    table.write_text("query,kind\n" + "".join(f"{q.id},true\n" for q in queries))
    for annotator in ("ann", "bob"):
        done = call("answer", project.root, table, "--annotator", annotator)
        assert done.exit_code == 0 and "6 answers recorded" in done.output, done.output
    again = call("answer", project.root, table, "--annotator", "bob")
    assert again.exit_code == 0 and "0 answers recorded, 6 passed over" in again.output, again.output
    assert len(project.ledger.current_answers()) == 12
