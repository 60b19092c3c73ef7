"""Recipes: named, complete configurations of published work on public data sets.

A recipe needs its data set, which ``twostream data get`` downloads. It has two forms. The form ``paper`` has the
published values (``docs/method.md``, *Configurations*) on top of the preset ``paper``, and needs a GPU. The form
``laptop`` has this package's defaults with a longer training of 2,500 steps, which takes up to 20 minutes on 2 cores;
its scores are in LOG.md. ``docs/recipes.md`` has a table of both.

The form ``paper`` differs from the published work in the following, because S is another network here:

- S is MONAI's DynUNet with residual blocks and batch normalisation, instead of unet_plus_3d (Lucchi: unet_3d) with
  squeeze-excitation. Its activation is like ReLU instead of ELU. Its levels have the published numbers of channels.
- Crops must be multiples of the stride of S, so 17 x 257 x 257 becomes 16 x 256 x 256, and so on.
- One process draws all crops of a step: batch_size is the published number of crops per GPU times that of GPUs.
- elastic_alpha_px is the largest shift of a pixel. The published alpha of 16 instead multiplies smoothed noise; at
  sigma 4 that shifts pixels by at most 2.6 and typically by 0.6 (calculated).
- Volumes are not padded, because crops are mirrored at the borders.

As published, crops are chosen by rejection sampling alone (foreground_share is 0).

Knows data sets, tasks, boxes and settings; must not know how a project is made, nor import torch.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twostream.base.errors import ConfigError, InputError
from twostream.base.geometry import Box
from twostream.project.settings import PRESETS, preset_settings
from twostream.volume import open_volume
from twostream.volume.datasets import DATASETS

PUBLISHED_AUGMENT: dict[str, Any] = {
    "flip": True,
    "rotate": 0.0,
    "rescale": 0.5,
    "elastic": 0.75,
    "elastic_sigma_px": 4.0,
    "elastic_alpha_px": 2.6,
    "grey": 0.75,
    "noise": 0.0,
    "missing_section": 0.5,
    "missing_part": 0.9,
    "misalignment": 0.5,
    "misalignment_px": 16,
    "motion_blur": 0.5,
    "cut_noise": 0.75,
    "cut_blur": 0.5,
}
PUBLISHED_OPTIMIZER: dict[str, Any] = {"name": "sgd", "weight_decay": 1e-4, "warmup_steps": 1000}
PUBLISHED_LOSS: dict[str, Any] = {"max_positive_weight": 19.0, "dice_smooth": 100.0}
SHARED: dict[str, Any] = {
    "foreground_share": 0.0,
    "augment": PUBLISHED_AUGMENT,
    "optimizer": PUBLISHED_OPTIMIZER,
}
"""Settings of S in the form ``paper`` of every recipe."""
LAPTOP: dict[str, Any] = {"num_steps": 2500, "test_time_flips": 8}
"""Settings of S in the form ``laptop`` of every recipe."""


@dataclass(frozen=True)
class Recipe:
    """A complete configuration.

    Attributes:
        name: name on the command line.
        about: what it is, and how it differs from the published work besides what the module's docstring lists.
        task: "polarity", "cleft" or "mitochondria".
        dataset: a name of ``datasets.DATASETS``.
        volume: name of the converted file, without its suffix.
        num_sections: number of sections of that volume, which ``boxes`` rely on; None if there are no ``boxes``.
        boxes: {"labels", "val", "test"}: first and last + 1 section of each box, which covers whole sections; empty
            leaves the boxes to ``init``.
        laptop_width_px: in the form ``laptop`` the boxes cover only this many rows and columns; None covers all.
        segmentation: settings of S in the form ``paper``, on top of the preset.
        decoding: settings of decoding in the form ``paper``.
    """

    name: str
    about: str
    task: str
    dataset: str
    volume: str
    num_sections: int | None = None
    boxes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    laptop_width_px: int | None = None
    segmentation: Mapping[str, Any] = field(default_factory=dict)
    decoding: Mapping[str, Any] = field(default_factory=dict)

    def settings(self, preset: str) -> dict[str, Any]:
        """The recipe's part of ``twostream.yaml``: the settings of the preset and, on top, those of the form.

        Args:
            preset: "laptop" or "paper"; it also chooses the form.

        Raises:
            ConfigError: there is no such preset.
        """
        if preset not in PRESETS:
            raise ConfigError(f"preset is {preset!r}; expected one of {', '.join(PRESETS)}.")
        values = preset_settings(preset, self.task)
        if preset == "paper":
            values["segmentation"] = values.get("segmentation", {}) | SHARED | dict(self.segmentation)
            if self.decoding:
                values["decoding"] = dict(self.decoding)
        else:
            values["segmentation"] = LAPTOP | ({"exclusive": True} if self.task == "polarity" else {})
        return values


def find_recipe(name: str) -> Recipe:
    """The recipe called ``name``.

    Raises:
        InputError: there is no such recipe; the message names the most similar one.
    """
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=1, cutoff=0.0)[0]
        raise InputError(f"there is no recipe {name!r}; did you mean {near!r}? There are: {', '.join(RECIPES)}.")
    return RECIPES[name]


def recipe_arguments(name: str | None, data: Path | None, *, preset: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of ``create.create_project`` for a recipe.

    Args:
        name: name of the recipe.
        data: folder into which ``twostream data get`` has written its data set.
        preset: "laptop" or "paper".
        given: the options "task", "image", "labels", "labels_box", "val_box" and "test_box", None where not given. They
            replace what the recipe says; if any but the task is given, the recipe sets no boxes.

    Raises:
        InputError: there is no such recipe, its data set is missing, ``given`` has another task, or the boxes of the
            recipe do not fit the volume.
        ConfigError: there is no such preset.
    """
    if name is None:
        raise InputError(f"--data {data} belongs to --recipe NAME, one of {', '.join(RECIPES)}; or pass --image.")
    recipe = find_recipe(name)
    get = f"`{shlex.join(['twostream', 'data', 'get', recipe.dataset, str(data or 'DATA_DIR')])}`"
    if data is None:
        raise InputError(f"--recipe {name} needs --data DATA_DIR, the folder that {get} fills.")
    if given.get("task") not in (None, recipe.task):
        raise InputError(f"--task is {given['task']}, but the recipe {name} is for {recipe.task}; leave --task out.")
    path = data / f"{recipe.volume}.h5"
    if not path.is_file():
        raise InputError(f"{path} does not exist; the recipe {name} needs it. Fetch it with {get}.")
    uris = {"image": f"{path}:image", "labels": f"{path}:{DATASETS[recipe.dataset].labels}"}
    values: dict[str, Any] = {"settings": recipe.settings(preset), "task": recipe.task} | uris
    values |= {key: value for key, value in given.items() if value is not None}
    if not any(given.get(key) for key in ("image", "labels", "labels_box", "val_box", "test_box")):
        values |= _boxes(recipe, preset, open_volume(uris["image"]).box)
    return values


def _boxes(recipe: Recipe, preset: str, image: Box) -> dict[str, str]:
    """The recipe's boxes: {"labels_box", "val_box", "test_box"} or some of them, as text.

    Raises:
        InputError: ``image`` does not have the number of sections that the recipe expects.
    """
    depth, height, width = image.shape_zyx
    is_part = preset == "laptop" and recipe.laptop_width_px is not None
    if recipe.num_sections is None:
        if not is_part:
            return {}
        # No split is published: a corner is the labels box, the last fifth along X the test box, the rest the pool.
        part = [min(v // 2, recipe.laptop_width_px or v) for v in (height, width)]
        labels = Box.from_corners((0, 0, 0), (depth, *part))
        test = Box.from_corners((0, 0, width - max(1, width // 5)), image.stop_zyx)
        return {"labels_box": str(labels), "test_box": str(test)}
    if depth != recipe.num_sections:
        raise InputError(
            f"{recipe.volume}.h5 has {depth} sections, but the boxes of the recipe {recipe.name} belong to "
            f"{recipe.num_sections}. Pass --labels-box, --val-box and --test-box of your own."
        )
    if is_part and recipe.laptop_width_px is not None:
        height, width = min(height, recipe.laptop_width_px), min(width, recipe.laptop_width_px)
    return {
        f"{name}_box": str(Box.from_corners((start, 0, 0), (stop, height, width)))
        for name, (start, stop) in recipe.boxes.items()
    }


_COMPONENTS: dict[str, Any] = {"method": "components", "trim": 0.0}

_MITOEM_SEGMENTATION: dict[str, Any] = {
    "filters": [32, 64, 96, 128, 160],
    "max_pixel_size_nm": 8.0,
    "patch_shape_zyx": [16, 224, 224],
    "batch_size": 8,
    "num_steps": 150_000,
    "learning_rate": 0.04,
    "loss": PUBLISHED_LOSS | {"cross_entropy": 1.0, "dice": 0.5},
    "window_shape_zyx": [16, 256, 256],
    "context_zyx": [8, 128, 128],
    "test_time_flips": 4,
}
_MITOEM_DECODING: dict[str, Any] = {
    "channels": ["foreground", "contour"],
    "method": "watershed",
    "seed_threshold": 0.85,
    "seed_contour": 0.6,
    "trim": 0.0,
}
_MITOEM_ABOUT = (
    "Mitochondria of {what}, 8 x 8 x 30 nm; S predicts foreground and contour (published: BC). The labels box is the "
    "published training sections without the last 8, which are a guard; its last 40 sections are the validation box. "
    "The test box is the published validation sections 400-499. The published test sections 500-999 have no public "
    "labels; candidates are asked there. The contour target is `decoding.contour_nm` wide; the published one is given "
    "in pixels."
)

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="cremi_cleft",
            about="Synaptic clefts of CREMI sample A, 4 x 4 x 40 nm. Published: trained on all of A, B and C after "
            "alignment, tested on A+, B+ and C+, whose labels are not public. Here: sample A as it is published; its "
            "last 25 sections are the test box. The loss is cross-entropy alone, as published.",
            task="cleft",
            dataset="cremi",
            volume="cremi_a",
            num_sections=125,
            boxes={"labels": (0, 92), "val": (76, 92), "test": (100, 125)},
            laptop_width_px=640,
            decoding=_COMPONENTS,
            segmentation={
                "filters": [32, 64, 96, 128, 160],
                "max_pixel_size_nm": 4.0,
                "patch_shape_zyx": [16, 256, 256],
                "batch_size": 6,
                "num_steps": 150_000,
                "learning_rate": 0.02,
                "reject_below_voxels": 1000,
                "reject_chance": 0.95,
                "loss": PUBLISHED_LOSS | {"cross_entropy": 1.0, "dice": 0.0},
                "window_shape_zyx": [16, 256, 256],
                "context_zyx": [8, 128, 128],
                "test_time_flips": 8,
            },
        ),
        Recipe(
            name="jwr15_polarity",
            about="Synapses with polarity of JWR15 volume 3, 8 x 8 x 30 nm. Published: trained on volumes 3 and 4, "
            "applied to the whole cube. Here: volume 3; no split is published, so the boxes are those of `init`. Batch "
            "normalisation replaces group normalisation, as in all recipes.",
            task="polarity",
            dataset="jwr15",
            volume="jwr15_vol3",
            laptop_width_px=512,
            decoding=_COMPONENTS,
            segmentation={
                "filters": [32, 64, 96, 128, 192],
                "max_pixel_size_nm": 8.0,
                "patch_shape_zyx": [16, 256, 256],
                "batch_size": 4,
                "num_steps": 200_000,
                "learning_rate": 0.04,
                "reject_below_voxels": 2000,
                "reject_chance": 0.95,
                "loss": PUBLISHED_LOSS | {"cross_entropy": 1.0, "dice": 0.5, "non_overlap": 4.0},
                "window_shape_zyx": [32, 256, 256],
                "context_zyx": [16, 128, 128],
                "test_time_flips": 1,
            },
        ),
        Recipe(
            name="lucchi_mitochondria",
            about="Mitochondria of the EPFL hippocampus, 5 x 5 x 5 nm. Published: trained on the whole training "
            "volume, tested on the test volume. Here: a project on the training volume; its last 30 sections are the "
            "test box of the rounds. Windows overlap by 28 instead of 56 voxels, because that is also the guard. "
            "docs/recipes.md says how S is then applied to the test volume.",
            task="mitochondria",
            dataset="lucchi",
            volume="lucchi_train",
            num_sections=165,
            boxes={"labels": (0, 107), "val": (87, 107), "test": (135, 165)},
            laptop_width_px=512,
            decoding=_COMPONENTS,
            segmentation={
                "filters": [28, 36, 48, 64, 80],
                "max_pixel_size_nm": 5.0,
                "patch_shape_zyx": [112, 112, 112],
                "batch_size": 8,
                "num_steps": 100_000,
                "learning_rate": 0.04,
                "loss": PUBLISHED_LOSS | {"cross_entropy": 1.0, "dice": 1.0},
                "window_shape_zyx": [112, 112, 112],
                "context_zyx": [28, 28, 28],
                "test_time_flips": 16,
            },
        ),
        Recipe(
            name="mitoem_r",
            about=_MITOEM_ABOUT.format(what="rat cortex"),
            task="mitochondria",
            dataset="mitoem-r",
            volume="mitoem_r",
            num_sections=1000,
            boxes={"labels": (0, 392), "val": (352, 392), "test": (400, 500)},
            laptop_width_px=512,
            segmentation=_MITOEM_SEGMENTATION,
            decoding=_MITOEM_DECODING,
        ),
        Recipe(
            name="mitoem_h",
            about=_MITOEM_ABOUT.format(what="human cortex") + " The published number of steps is that of R alone.",
            task="mitochondria",
            dataset="mitoem-h",
            volume="mitoem_h",
            num_sections=1000,
            boxes={"labels": (0, 392), "val": (352, 392), "test": (400, 500)},
            laptop_width_px=512,
            segmentation=_MITOEM_SEGMENTATION,
            decoding=_MITOEM_DECODING,
        ),
    )
}
