"""`twostream look`, and what `init` prints and keeps: what was understood of image and labels."""

import re

import cv2
import h5py
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from twostream.cli import app
from twostream.project.inputs import Given, read_inputs
from twostream.project.project import Project
from twostream.volume import open_volume

SHAPE = "24,256,256"
SIZE_NM = (30.0, 8.0, 8.0)


@pytest.fixture(scope="module")
def tissue(tmp_path_factory):
    """An HDF5 file of synthetic tissue: image, mitochondria, and the same in other forms."""
    path = tmp_path_factory.mktemp("tissue") / "tissue.h5"
    image, labels = (open_volume(f"synthetic://seed=5&kind={kind}&shape={SHAPE}") for kind in ("image", "mitochondria"))
    grey, objects = image.read(image.box), labels.read(labels.box).astype(np.uint32)
    with h5py.File(path, "w") as file:
        file.attrs["voxel_size_nm"] = SIZE_NM
        file["image"], file["labels"] = grey, objects
        file["wide"] = grey.astype(np.uint16) * 90 + 20000
        file["flipped"] = objects[:, :, ::-1]
        file["mask"] = (objects > 0).astype(np.uint8) * 255
        file["crop"] = objects[:, :128, 64:192]
        file["crop"].attrs["offset"] = (0.0, 0.0, 64 * 8.0)
        file["padded"] = np.where(np.arange(256) < 160, 0, grey).astype(np.uint8)
        file["next section"] = np.roll(objects, 1, 0)
        file["elsewhere"] = np.roll(objects, (60, 60), (1, 2))
    return path


def run(*words):
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_look_prints_what_is_understood_and_draws_it(tissue, tmp_path):
    result = run("look", f"{tissue}:image", f"{tissue}:labels", "-o", tmp_path / "a look.png")
    assert result.exit_code == 0, result.output
    for words in (
        "axes z y x, presumed, as nothing names them",
        "(24, 256, 256) voxels of (30, 8, 8) nm (from attribute voxel_size_nm): 0.72 x 2.05 x 2.05 µm",
        "states no place; uint8",
        "instances: ",
        "0% of the image is unknown",
        "they lie on the image",
    ):
        assert words in result.output
    assert "question" not in result.output
    picture = cv2.imread(str(tmp_path / "a look.png"))
    assert picture.shape[1] > 3 * 256 and picture.std() > 20
    saturation = cv2.cvtColor(picture, cv2.COLOR_BGR2HSV)[..., 1]
    upper, lower = np.array_split(saturation[:, :250], 2)  # the first section
    assert (upper > 100).mean() < 0.001 < (lower > 100).mean()  # raw above, coloured outlines below


@pytest.mark.parametrize(
    ("image", "labels", "sentence"),
    [
        ("image", "flipped", "fits much better if its axes are read as z y -x"),
        ("image", "elsewhere", "Do they belong to this image?"),
        ("image", "next section", "fit the image only roughly"),
        ("padded", None, "seems to be empty"),
    ],
)
def test_look_questions_what_looks_wrong(tissue, tmp_path, image, labels, sentence):
    words = [f"{tissue}:{name}" for name in (image, labels) if name]
    result = run("look", *words, "-o", tmp_path / "look.png")
    assert result.exit_code == 0 and sentence in result.output.replace("\n", " ")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mask", "is a mask: its connected pieces are taken as instances"),
        ("crop", "covered: 0:24,0:128,64:192 (Z, Y, X voxels of the image); 75% of the image is unknown"),
    ],
)
def test_look_names_the_kind_and_the_place_of_labels(tissue, tmp_path, name, words):
    result = run("look", f"{tissue}:image", f"{tissue}:{name}", "-o", tmp_path / "look.png")
    assert result.exit_code == 0 and words in result.output.replace("\n", " ")


def test_look_reads_a_table(tissue, tmp_path):
    (tmp_path / "objects.csv").write_text("id,z,y,x\n7,4,30,40\n9,12,100,200\n")
    result = run("look", f"{tissue}:image", tmp_path / "objects.csv", "-o", tmp_path / "look.png")
    assert result.exit_code == 0 and "2 " in result.output and (tmp_path / "look.png").exists()


def test_look_takes_the_option_that_an_error_about_a_table_prints(tissue, tmp_path):
    rows = [f"{i},{30 * (i % 24)},{8 * (9 * i % 250)},{8 * (31 * i % 250)}" for i in range(1, 40)]
    (tmp_path / "nm.csv").write_text("\n".join(["id,z,y,x", *rows]))
    words = ["look", f"{tissue}:image", tmp_path / "nm.csv", "-o", tmp_path / "look.png"]
    refused = run(*words)
    option = re.search(r"--set (source\.table_resolution_nm=\S+) reads them so", refused.output)
    assert refused.exit_code == 1 and option
    assert run(*words, "--set", option[1]).exit_code == 0
    for word in ("query.budget=3", "source.radius=3"):
        assert run(*words, "--set", option[1], "--set", word).exit_code == 1
    about_labels = run("look", f"{tissue}:image", f"{tissue}:labels", "--set", option[1])
    assert about_labels.exit_code == 1 and "how a table of objects is read" in about_labels.output


def test_look_prints_what_the_file_holds_and_not_what_is_made_of_it(tissue, tmp_path):
    result = run("look", f"{tissue}:wide", f"{tissue}:crop", "-o", tmp_path / "look.png")
    image, labels = result.output.split("labels ")
    assert "states no place; uint16" in image and "are shown as 0 to 255" in image
    assert "(24, 128, 128) voxels of" in labels and "begins at (0, 0, 512) nm, from attribute offset; uint32" in labels
    assert "begins at voxel (0, 0, 64)" in labels


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nowhere.h5:image"], "nowhere.h5 does not exist"),
        (["IMAGE", "-o", "look.jpg"], "expected a path that ends in .png"),
        (["IMAGE", "--window", "5"], "expected LOW:HIGH"),
        (["IMAGE", "--labels-kind", "mask"], "is about labels, but there are none"),
        (["IMAGE", "LABELS", "--labels-kind", "maske"], "expected one of instances, mask, sides"),
        (["IMAGE", "sheet.xlsx"], "Save the sheet as CSV UTF-8"),
        (["file://nowhere/a.h5:image"], "nowhere/a.h5 does not exist"),
        (["~nobody-of-that-name/a.h5:image"], "a.h5 does not exist"),
    ],
)
def test_look_refuses_in_a_sentence(tissue, tmp_path, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    named = {"IMAGE": f"{tissue}:image", "LABELS": f"{tissue}:labels"}
    result = run("look", *(named.get(word, word) for word in words))
    assert result.exit_code == 1 and sentence in result.output.replace("\n", " ")


def test_init_keeps_what_was_understood_and_shows_what_is_questioned(tissue, tmp_path):
    boxes = ["--labels-box", "0:24,0:256,0:100", "--test-box", "0:24,0:256,220:256"]
    given = ["--image", f"{tissue}:wide", "--labels", f"{tissue}:mask", "--task", "mitochondria"]
    result = run("init", tmp_path / "p", *given, *boxes)
    assert result.exit_code == 0, result.output
    settings = yaml.safe_load((tmp_path / "p" / "twostream.yaml").read_text())
    low, high = settings["image"]["window"]
    assert 20000 < low < high < 20000 + 255 * 90 and settings["labels"]["kind"] == "mask"
    assert "they lie on the image" in result.output and not (tmp_path / "p" / "inputs.png").exists()
    project = Project(tmp_path / "p")
    assert project.image.dtype == np.uint8
    with h5py.File(tissue) as file:
        expected = np.clip((file["wide"][:].astype(float) - low) * 255 / (high - low), 0, 255)
        assert np.abs(project.image.read(project.image.box) - expected).max() <= 0.51
        assert (project.labels.read(project.labels.box) > 0).sum() <= (file["mask"][:] > 0).sum()
    given[3] = f"{tissue}:flipped"
    result = run("init", tmp_path / "q", *given, *boxes)
    assert "question: " in result.output and cv2.imread(str(tmp_path / "q" / "inputs.png")) is not None


def test_labels_of_a_crop_teach_only_where_they_are(tissue, tmp_path):
    given = ["--image", f"{tissue}:image", "--labels", f"{tissue}:crop", "--task", "mitochondria"]
    result = run("init", tmp_path / "p", *given)
    assert result.exit_code == 0, result.output
    project = Project(tmp_path / "p")
    inputs = read_inputs(Given(f"{tissue}:image", f"{tissue}:crop"), "mitochondria")
    assert all(inputs.labels.covered.contains(box) for box in project.boxes.labels)
    result = run("init", tmp_path / "q", *given, "--labels-box", "0:24,0:128,0:192")
    assert result.exit_code == 1 and "outside of it nothing is known" in result.output.replace("\n", " ")
