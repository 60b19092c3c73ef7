"""Recipes: each has the published values and makes a project of its data set; one of them is trained."""

import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from twostream.base.config import parse_config
from twostream.base.errors import ConfigError, InputError
from twostream.base.geometry import Box
from twostream.cli import app
from twostream.models.segmentation.config import fold_for
from twostream.models.segmentation.network import strides_for, total_stride
from twostream.project.project import Project
from twostream.project.recipes import RECIPES, find_recipe, recipe_arguments
from twostream.project.settings import ProjectConfig
from twostream.volume.datasets import DATASETS

ROOT = Path(__file__).parent.parent
PUBLISHED = {
    # filters, training crop, crops per step, steps, learning rate, rejection, flips (docs/method.md, Configurations)
    "cremi_cleft": ((32, 64, 96, 128, 160), (17, 257, 257), 2 * 3, 150_000, 0.02, 1000, 8),
    "jwr15_polarity": ((32, 64, 96, 128, 192), (17, 257, 257), 2 * 2, 200_000, 0.04, 2000, 1),
    "lucchi_mitochondria": ((28, 36, 48, 64, 80), (112, 112, 112), 2 * 4, 100_000, 0.04, 0, 16),
    "mitoem_r": ((32, 64, 96, 128, 160), (17, 225, 225), 2 * 4, 150_000, 0.04, 0, 4),
    "mitoem_h": ((32, 64, 96, 128, 160), (17, 225, 225), 2 * 4, 150_000, 0.04, 0, 4),
}
LOSSES = {
    "cremi_cleft": (1.0, 0.0, 0.0),
    "jwr15_polarity": (1.0, 0.5, 4.0),
    "lucchi_mitochondria": (1.0, 1.0, 0.0),
    "mitoem_r": (1.0, 0.5, 0.0),
    "mitoem_h": (1.0, 0.5, 0.0),
}
TINY = (
    "segmentation.filters=[4,8,8]",
    "segmentation.patch_shape_zyx=[4,16,16]",
    "segmentation.num_steps=2",
    "segmentation.batch_size=1",
    "segmentation.block_shape_zyx=[32,32,32]",
    "segmentation.context_zyx=[1,4,4]",
    "segmentation.window_shape_zyx=[8,32,32]",
    "patches.width_px=8",
    "streams.supervised.hidden_dims=[8,8]",
    "streams.unsupervised.hidden_dims=[8,8]",
)


def configuration(recipe, preset):
    some = {"uri": "x.h5:image"}
    values = recipe.settings(preset) | {"task": recipe.task, "image": some, "labels": some}
    values["boxes"] = {"labels": "0:2,0:2,0:2", "val": "0:1,0:2,0:2"}
    return parse_config(ProjectConfig, values, source=recipe.name)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Every volume that a recipe names, with its number of sections and voxel size but small sections."""
    folder = tmp_path_factory.mktemp("data")
    for recipe in RECIPES.values():
        dataset = DATASETS[recipe.dataset]
        shape = (recipe.num_sections or 40, 24, 32)
        labels = np.zeros(shape, np.uint32)
        for number, z in enumerate(range(2, shape[0] - 4, 8), start=1):
            side = 2 if dataset.labels == "synapses" else 1
            labels[z : z + 4, 1:10, 1:10] = side * number - (side - 1)
            labels[z : z + 4, 1:10, 10:16] = side * number
            labels[z : z + 4, 14:20, 20:31] = side * (number + 1000) - (side - 1)
            labels[z : z + 4, 20:23, 20:31] = side * (number + 1000)
        image = np.where(labels > 0, 200, 60).astype(np.uint8)
        with h5py.File(folder / f"{recipe.volume}.h5", "w") as file:
            file.attrs["voxel_size_nm"] = dataset.voxel_size_nm
            file["image"], file[dataset.labels] = image, labels
    return folder


def init(root, *words, sets=TINY):
    options = [o for s in sets for o in ("--set", s)]
    return CliRunner().invoke(app, [str(w) for w in ("init", root, *words, *options)])


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda r: r.name)
def test_the_paper_form_holds_the_published_values(recipe):
    config = configuration(recipe, "paper")
    s = config.segmentation
    filters, crop, batch, steps, rate, reject, flips = PUBLISHED[recipe.name]
    assert (s.filters, s.batch_size, s.num_steps, s.learning_rate) == (filters, batch, steps, rate)
    assert (s.reject_below_voxels, s.test_time_flips) == (reject, flips)
    assert not reject or s.reject_chance == 0.95
    assert (s.loss.cross_entropy, s.loss.dice, s.loss.non_overlap) == LOSSES[recipe.name]
    assert (s.loss.max_positive_weight, s.loss.dice_smooth) == (19, 100)
    assert (s.optimizer.name, s.optimizer.weight_decay, s.optimizer.warmup_steps) == ("sgd", 1e-4, 1000)
    a = s.augment
    assert (a.flip, a.rescale, a.elastic, a.elastic_sigma_px, a.grey) == (True, 0.5, 0.75, 4, 0.75)
    assert (a.missing_part, a.missing_section, a.misalignment, a.misalignment_px) == (0.9, 0.5, 0.5, 16)
    assert (a.motion_blur, a.cut_blur, a.cut_noise) == (0.5, 0.5, 0.75)
    assert (config.streams.unsupervised.latent_dim, config.streams.supervised.latent_dim) == (1024, 16)
    voxel_size = DATASETS[recipe.dataset].voxel_size_nm
    fold = fold_for(voxel_size, s.max_pixel_size_nm)
    assert fold == (1, 1, 1)  # the published network works on the voxels as they are
    strides, _ = strides_for(voxel_size, fold, len(s.filters), recipe.num_sections or 100)
    stride = total_stride(fold, strides)
    assert all(p % n == 0 for p, n in zip(s.patch_shape_zyx, stride, strict=True))
    assert all(p % n == 0 for p, n in zip(s.window_shape_zyx, stride, strict=True))
    assert all(0 <= c - p < max(n, 2) for p, c, n in zip(s.patch_shape_zyx, crop, stride, strict=True))


def test_mitoem_predicts_contours_as_published():
    for name in ("mitoem_r", "mitoem_h"):
        decoding = configuration(RECIPES[name], "paper").decoding
        assert decoding.channels == ("foreground", "contour") and decoding.method == "watershed"
        assert (decoding.seed_threshold, decoding.seed_contour) == (0.85, 0.6)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda r: r.name)
def test_the_laptop_form_is_the_default_with_a_longer_training(recipe):
    default = ProjectConfig.model_fields["segmentation"].default
    longer = {"num_steps": 2500, "test_time_flips": 8, "exclusive": recipe.task == "polarity"}
    assert configuration(recipe, "laptop").segmentation == default.model_copy(update=longer)


def test_every_data_set_names_its_recipe_and_the_reverse():
    assert {d.recipe: d.name for d in DATASETS.values()} == {r.name: r.dataset for r in RECIPES.values()}
    for recipe in RECIPES.values():
        assert recipe.volume in DATASETS[recipe.dataset].volumes
        if recipe.boxes:
            labels, val, test = (recipe.boxes[name] for name in ("labels", "val", "test"))
            assert labels[0] <= val[0] < val[1] <= labels[1] <= test[0] < test[1] <= recipe.num_sections


@pytest.mark.parametrize("preset", ["laptop", "paper"])
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda r: r.name)
def test_each_recipe_makes_a_project(tmp_path, data, recipe, preset):
    words = ["--recipe", recipe.name, "--data", data, "--preset", preset]
    result = init(tmp_path / "p", *words)
    assert result.exit_code == 0, result.output
    project = Project(tmp_path / "p")
    assert project.task.name == recipe.task and project.image.voxel_size_nm == DATASETS[recipe.dataset].voxel_size_nm
    assert project.config.segmentation.filters == (4, 8, 8)  # --set overrides the recipe
    assert project.config.segmentation.optimizer.name == ("sgd" if preset == "paper" else "adamw")
    (labels,), val, test = project.boxes.labels, project.boxes.val, project.boxes.test
    assert labels.contains(val) and test is not None and not test.intersects(labels)
    for box, name in ((labels, "labels"), (val, "val"), (test, "test")):
        if recipe.boxes:
            start, stop = recipe.boxes[name]
            assert box == Box((start, 0, 0), (stop - start, 24, 32))


def test_the_laptop_form_uses_part_of_wide_sections(tmp_path):
    with h5py.File(tmp_path / "cremi_a.h5", "w") as file:
        file.attrs["voxel_size_nm"] = (40, 4, 4)
        file.create_dataset("image", (125, 1250, 1250), np.uint8)
    given = dict.fromkeys(("task", "image", "labels", "labels_box", "val_box", "test_box"))
    for preset, width in (("laptop", 640), ("paper", 1250)):
        arguments = recipe_arguments("cremi_cleft", tmp_path, preset=preset, given=given)
        assert arguments["labels_box"] == f"0:92,0:{width},0:{width}"
        assert arguments["test_box"] == f"100:125,0:{width},0:{width}"


def test_the_laptop_form_leaves_candidates_to_ask(tmp_path):
    given = dict.fromkeys(("task", "image", "labels", "labels_box", "val_box", "test_box"))
    with h5py.File(tmp_path / "jwr15_vol3.h5", "w") as file:
        file.attrs["voxel_size_nm"] = (30, 8, 8)
        file.create_dataset("image", (96, 1000, 1100), np.uint8)
    arguments = recipe_arguments("jwr15_polarity", tmp_path, preset="laptop", given=given)
    assert arguments["labels_box"] == "0:96,0:500,0:512" and arguments["test_box"] == "0:96,0:1000,880:1100"
    assert "labels_box" not in recipe_arguments("jwr15_polarity", tmp_path, preset="paper", given=given)
    with h5py.File(tmp_path / "lucchi_train.h5", "w") as file:
        file.attrs["voxel_size_nm"] = (5, 5, 5)
        file.create_dataset("image", (165, 768, 1024), np.uint8)
    arguments = recipe_arguments("lucchi_mitochondria", tmp_path, preset="laptop", given=given)
    assert arguments["labels_box"] == "0:107,0:512,0:512" and arguments["test_box"] == "135:165,0:512,0:512"


def test_given_boxes_replace_those_of_the_recipe(tmp_path, data):
    words = ["--recipe", "lucchi_mitochondria", "--data", data]
    result = init(tmp_path / "p", *words, "--labels-box", "0:60,0:24,0:32", "--test-box", "100:165,0:24,0:32")
    assert result.exit_code == 0, result.output
    boxes = Project(tmp_path / "p").boxes
    (labels,), test = boxes.labels, boxes.test
    assert labels.stop_zyx[0] == 60 and test.offset_zyx[0] == 100


def test_a_recipe_trains_and_the_documented_code_applies_s(tmp_path, data, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    shutil.copy(data / "lucchi_train.h5", tmp_path / "data" / "lucchi_test.h5")
    words = ["--recipe", "lucchi_mitochondria", "--data", data, "--preset", "paper"]
    result = init(tmp_path / "lucchi", *words, sets=(*TINY, "segmentation.optimizer.warmup_steps=1"))
    assert result.exit_code == 0, result.output
    result = CliRunner().invoke(app, ["train", str(tmp_path / "lucchi")])
    assert result.exit_code == 0, result.output
    (lines,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "recipes.md").read_text(), re.DOTALL)
    exec(compile(lines, "docs/recipes.md", "exec"), {})
    assert 0 <= float(capsys.readouterr().out.split()[-1]) <= 1
    assert (tmp_path / "lucchi_test.zarr").is_dir()


def test_the_documented_table_agrees_with_the_recipes():
    text = (ROOT / "docs" / "recipes.md").read_text()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    rows = {first: rest for first, *rest in cells}
    names = ("cremi_cleft", "jwr15_polarity", "lucchi_mitochondria", "mitoem_r")
    for column, name in enumerate(names):
        s = configuration(RECIPES[name], "paper").segmentation
        assert name in rows[""][column]
        for row, value in (
            ("filters", ", ".join(map(str, s.filters))),
            ("training crop, here", " x ".join(map(str, s.patch_shape_zyx))),
            ("steps", f"{s.num_steps:,}"),
            ("peak learning rate", f"{s.learning_rate:g}"),
            ("window, here", " x ".join(map(str, s.window_shape_zyx))),
            ("overlap of windows", ", ".join(map(str, s.context_zyx))),
            ("predictions averaged", str(s.test_time_flips)),
            ("loss: cross-entropy, Dice, non-overlap", ", ".join(f"{w:g}" for w in LOSSES[name])),
        ):
            assert rows[row][column] == value, row
        assert rows["crops per step (per GPU x GPUs)"][column].startswith(f"{s.batch_size} ")


def refused(result, *sentences):
    assert result.exit_code == 1, result.output
    for sentence in sentences:
        assert sentence in " ".join(result.stderr.split())


def test_wrong_options_are_explained(tmp_path, data):
    root = tmp_path / "p"
    refused(init(root, "--recipe", "cremi_cleft"), "needs --data DATA_DIR", "`twostream data get cremi DATA_DIR`")
    refused(init(root, "--recipe", "cremi_clef", "--data", data), "did you mean 'cremi_cleft'?", "mitoem_h")
    refused(init(root, "--recipe", "mitoem_r", "--data", tmp_path), "mitoem_r.h5 does not exist", "data get mitoem-r")
    refused(init(root, "--data", data), "belongs to --recipe NAME", "cremi_cleft")
    refused(init(root, "--recipe", "mitoem_r", "--data", data, "--task", "cleft"), "is for mitochondria")
    refused(init(root, "--recipe", "mitoem_r", "--data", data, "--preset", "desktop"), "preset is 'desktop'")
    refused(init(root), "init needs --image URI and --task NAME, or --recipe NAME")
    with h5py.File(tmp_path / "lucchi_train.h5", "w") as file:
        file.attrs["voxel_size_nm"] = (5, 5, 5)
        file["image"] = file["mitochondria"] = np.ones((9, 8, 8), np.uint8)
    short = init(root, "--recipe", "lucchi_mitochondria", "--data", tmp_path)
    refused(short, "has 9 sections", "belong to 165", "--labels-box")
    assert not (root / "twostream.yaml").exists()
    with pytest.raises(InputError):
        find_recipe("x")
    with pytest.raises(ConfigError):
        RECIPES["mitoem_r"].settings("x")
