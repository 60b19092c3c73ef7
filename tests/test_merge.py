"""`twostream merge`: the curated data sets of several projects of one image as one."""

import csv
import json
import shutil

import h5py
import numpy as np
import pytest
import zarr
from conftest import SHAPE_ZYX, TINY, VOXEL_SIZE_NM
from test_cli import call, refused
from test_curated import answered, make, world  # noqa: F401 - world is a fixture

from twostream.project import merge
from twostream.project.create import create_project, fork_project
from twostream.project.export import export
from twostream.project.project import Project

TASKS = ("mitochondria", "polarity")


@pytest.fixture(scope="module")
def projects(tmp_path_factory, world):  # noqa: F811
    """{task: project} of one image; the labels box of the synapses lies elsewhere. Tests must not change them."""
    folder = tmp_path_factory.mktemp("projects")
    boxes = {"mitochondria": "0:8,0:96,0:56", "polarity": "0:8,0:48,0:72"}
    return {task: answered(make(folder / task, world, task, labels_box=boxes[task]), world, rounds=1) for task in TASKS}


def table(path):
    with path.open() as handle:
        return list(csv.DictReader(handle))


def test_two_tasks_of_one_image_become_one_data_set(projects, tmp_path):
    mito, synapses = projects.values()
    result = call("merge", mito.root, synapses.root, "-o", tmp_path / "m", "--min-probability", "0.3")
    assert result.exit_code == 0, result.stderr
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == [
        "dataset.json", "left_out.csv", "objects.csv", "segmentation_mitochondria.zarr", "segmentation_polarity.zarr"
    ]  # fmt: skip
    facts = json.loads((tmp_path / "m" / "dataset.json").read_text())
    merged = {name: table(tmp_path / "m" / f"{name}.csv") for name in ("objects", "left_out")}
    volumes = {task: zarr.open(str(tmp_path / "m" / f"segmentation_{task}.zarr"))["0"][:] for task in TASKS}
    ids = {name: [int(row["id"]) for row in rows] for name, rows in merged.items()}
    assert len(set(ids["objects"] + ids["left_out"])) == len(ids["objects"]) + len(ids["left_out"])
    for task, described in zip(TASKS, facts["projects"], strict=True):
        alone, shift, sides = tmp_path / task, described["id_shift"], 2 if task == "polarity" else 1
        export(projects[task], "dataset", alone, min_probability=0.3)
        assert described == json.loads((alone / "dataset.json").read_text()) | {
            "id_shift": shift, "volume": f"segmentation_{task}.zarr"
        }  # fmt: skip
        values = zarr.open(str(alone / "segmentation.zarr"))["0"][:]
        np.testing.assert_array_equal(volumes[task], np.where(values > 0, values + np.uint64(sides * shift), 0))
        for name, rows in merged.items():
            mine = [row for row in rows if row["task"] == task]
            assert {row["project"] for row in mine} == {projects[task].id} == {described["project"]}
            assert [int(row["id"]) - shift for row in mine] == [int(row["id_in_project"]) for row in mine]
            own = table(alone / f"{name}.csv")
            assert len(own) == len(mine) > 5
            for row, other in zip(own, mine, strict=True):
                same = set(row) - {"id", "joined"}
                assert row["id"] == other["id_in_project"] and {k: row[k] for k in same} == {k: other[k] for k in same}
                assert [int(i) + shift for i in row["joined"].split()] == [int(i) for i in other["joined"].split()]
    assert facts["projects"][0]["id_shift"] == 0 and facts["num_objects"] == len(merged["objects"])
    pre, post = volumes["polarity"] % 2 == 1, (volumes["polarity"] > 0) & (volumes["polarity"] % 2 == 0)
    left = np.broadcast_to(np.arange(SHAPE_ZYX[2]) % 16 < 8, SHAPE_ZYX)
    assert pre.any() and post.any() and not (pre & ~left).any() and not (post & left).any()
    check_overlaps(facts, merged["objects"], volumes, result.output)


def check_overlaps(facts, rows, volumes, said):
    """Compare what is said of overlaps with a loop over all voxels."""
    pairs, number = set(), 0
    for a, b in zip(volumes["mitochondria"].ravel().tolist(), volumes["polarity"].ravel().tolist(), strict=True):
        if a and b:
            number += 1
            pairs.add((a, (b + 1) // 2))
    (found,) = facts["overlaps"]
    counts = [len({a for a, _ in pairs}), len({b for _, b in pairs})]
    assert found == {"tasks": list(TASKS), "num_pairs": len(pairs), "num_objects": counts, "num_voxels": number}
    assert f"{counts[0]} objects of mitochondria and {counts[1]} of polarity overlap ({number} voxels" in said
    for row in rows:
        identity = int(row["id"])
        partners = sorted({b for a, b in pairs if a == identity} | {a for a, b in pairs if b == identity})
        assert [int(i) for i in row["overlaps"].split()] == partners
    assert number > 100 and any(not row["overlaps"] for row in rows)


def test_what_cannot_be_merged_is_refused(projects, world, tmp_path):  # noqa: F811
    mito, synapses = projects.values()

    def tried(*roots):
        return call("merge", *roots, "-o", tmp_path / "out")

    refused(tried(mito.root), "merge needs two projects or more")
    refused(tried(mito.root, synapses.root, mito.root.parent / "." / "mitochondria"), "was given twice")
    fork_project(mito, tmp_path / "fork", [])
    refused(tried(mito.root, tmp_path / "fork"), "both look for mitochondria: two answers to one question")
    refused(tried(mito.root, tmp_path / "none"), "holds no twostream.yaml")
    refused(call("merge", mito.root, synapses.root, "-o", tmp_path / "out.zarr"), "a data set is a folder")
    (tmp_path / "full").mkdir()
    refused(call("merge", mito.root, synapses.root, "-o", tmp_path / "full"), "exists already")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("grey", "differ in"),
        ("last voxel", "differ in"),
        ("extent", "voxels, .* they must be equal"),
        ("voxel size", "has voxels of"),
        ("flipped", "differ in"),
        ("place", "begins at"),
    ],
)
def test_projects_of_other_images_are_refused(projects, world, tmp_path, change, sentence):  # noqa: F811
    other = tmp_path / "other.h5"
    shutil.copy(world, other)
    with h5py.File(other, "r+") as file:
        image, blobs = file["image"][:], file["blobs"][:]
        if change == "grey":
            image = 255 - image
        elif change == "last voxel":
            image[-1, -1, -1] ^= 1
        elif change == "flipped":
            image = image[:, ::-1]
        elif change == "extent":
            image, blobs = image[:, :, :-1], blobs[:, :, :-1]
        if change == "place":
            file.attrs["offset"] = (60.0, 10.0, 50.0)
        del file["image"], file["blobs"]
        file["image"], file["blobs"] = image, blobs
        file.attrs["voxel_size_nm"] = (40.0, 10.0, 10.0) if change == "voxel size" else VOXEL_SIZE_NM
    overrides = [option for option in TINY if not option.startswith("segmentation.")]
    create_project(
        tmp_path / "p", task="cleft", image=f"{other}:image", segmentation=f"{other}:blobs", overrides=overrides
    )
    result = call("merge", projects["mitochondria"].root, tmp_path / "p", "-o", tmp_path / "out")
    assert result.exit_code == 1 and "are not projects of one image" in result.stderr
    import re

    assert re.search(sentence, " ".join(result.stderr.split()))
    assert not (tmp_path / "out").exists()


def test_a_copy_of_the_image_elsewhere_is_the_same_image(projects, world, tmp_path):  # noqa: F811
    shutil.copy(world, tmp_path / "copy.h5")
    merge._check([projects["mitochondria"], make(tmp_path / "p", tmp_path / "copy.h5", "polarity")])


def test_half_a_merge_is_never_taken_for_a_whole_one(projects, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(merge, "_pairs", full)
    result = call("merge", *(project.root for project in projects.values()), "-o", tmp_path / "m")
    refused(result, "No space left on device")
    assert not list(tmp_path.iterdir())


def test_a_project_without_candidates_is_named(projects, world, tmp_path):  # noqa: F811
    new = make(tmp_path / "p", world, "polarity")
    result = call("merge", projects["mitochondria"].root, new.root, "-o", tmp_path / "m")
    refused(result, "has not done the step propose yet")
    assert isinstance(Project(new.root), Project)
