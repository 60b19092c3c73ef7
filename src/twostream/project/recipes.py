"""Recipes: named full configurations of published work, ready to run once ``twostream data get`` has fetched the set.

Knows data sets, tasks, boxes and settings; must not know how a project is made, nor torch.

A recipe has two forms. ``paper`` holds the published values (docs/method.md, Configurations: those of PyTorch
Connectomics at b927a5d) on top of the preset ``paper``; it wants a GPU. ``laptop`` holds the package's own defaults,
trained to the end (2,500 steps, within 20 minutes on 2 cores): what it reaches is in LOG.md.

Where every ``paper`` form departs from what was published, because S is another network here:

- S is MONAI's DynUNet with residual blocks and batch normalisation, not unet_plus_3d (Lucchi: unet_3d) with
  squeeze-excitation; ReLU-like activation, not ELU; its levels have the published widths.
- Its input must be a multiple of its stride, so 17 x 257 x 257 becomes 16 x 256 x 256, and so on.
- All crops of a step are drawn by one process: batch_size is the published crops per GPU times the published GPUs.
- Rejection sampling alone chooses the crops (foreground_share is 0), as published.
- elastic_alpha_px says how far a pixel moves at most; the published alpha of 16 multiplies smoothed noise, which at
  sigma 4 moves pixels by 2.6 at most and 0.6 as a rule (derived).
- Published padding of the volumes is not needed: crops are mirrored at the borders.

``docs/recipes.md`` has the table.
"""

from __future__ import annotations

import difflib
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
LAPTOP: dict[str, Any] = {"num_steps": 2500, "test_time_flips": 8}


@dataclass(frozen=True)
class Recipe:
    """A full configuration.

    Attributes:
        name: as on the command line.
        about: what it is, and where it departs from the published work beyond what the module says.
        task: polarity, cleft or mitochondria.
        dataset: a name of ``datasets.DATASETS``.
        volume: the converted file, without suffix.
        num_sections: of that volume, to which the boxes belong; None where they are left to ``init``.
        boxes: labels, val and test of the paper form, as sections Z0:Z1; whole planes.
        laptop_width_px: the laptop form keeps its boxes to this many rows and columns; None keeps whole planes.
        segmentation: settings of S in the paper form, on top of the preset.
        decoding: likewise, of what S predicts and how that becomes instances.
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
        """The recipe's part of ``twostream.yaml``: the preset, and in the paper form the published values, in the
        laptop form a training to its end.

        Raises:
            ConfigError: no such preset.
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
        InputError: there is none; the nearest name is given.
    """
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=1, cutoff=0.0)[0]
        raise InputError(f"there is no recipe {name!r}; did you mean {near!r}? There are: {', '.join(RECIPES)}.")
    return RECIPES[name]


def founding_arguments(
    name: str | None, data: Path | None, *, preset: str, given: Mapping[str, str | None]
) -> dict[str, Any]:
    """Arguments of ``founding.create_project`` for a recipe; what was given by hand is the last word.

    Args:
        name: of the recipe.
        data: folder into which ``twostream data get`` has put its data set.
        preset: "laptop" or "paper".
        given: task, image, labels, labels_box, val_box, test_box as on the command line; None where not given.

    Raises:
        InputError: no such recipe, no data, or a volume that the recipe's boxes do not fit.
        ConfigError: no such preset.
    """
    if name is None:
        raise InputError(f"--data {data} belongs to --recipe NAME, one of {', '.join(RECIPES)}; or pass --image.")
    recipe = find_recipe(name)
    get = f"`twostream data get {recipe.dataset} {data or 'DATA_DIR'}`"
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
    """The recipe's boxes in ``image``; raises InputError where it has another number of sections."""
    depth, height, width = image.shape_zyx
    is_part = preset == "laptop" and recipe.laptop_width_px is not None
    if recipe.num_sections is None:
        if not is_part:
            return {}
        # Nobody has published a split: a corner is labelled, the last fifth along X tests, the rest can be asked.
        part = [min(v // 2, recipe.laptop_width_px or v) for v in (height, width)]
        labels = Box.from_corners((0, 0, 0), (depth, *part))
        test = Box.from_corners((0, 0, width - max(1, width // 5)), image.stop_zyx)
        return {"labels_box": str(labels), "test_box": str(test)}
    if depth != recipe.num_sections:
        raise InputError(
            f"{recipe.volume}.h5 has {depth} sections; the boxes of the recipe {recipe.name} belong to "
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
    "Mitochondria of {what}, 8 x 8 x 30 nm; foreground and contour (published: BC). Labels: the published training "
    "sections but for 8 as guard, the last 40 choose thresholds; test: the published validation sections 400-499; of "
    "the published test sections 500-999 no labels are public, they are where candidates are asked. The contour target "
    "is `decoding.contour_nm` wide, the published one is given in pixels."
)

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="cremi_cleft",
            about="Synaptic clefts of CREMI sample A, 4 x 4 x 40 nm. Published: trained on A, B and C whole, after "
            "alignment, tested on A+, B+, C+, whose labels are not public. Here: sample A as it is published, its "
            "last 25 sections as test box. The loss is cross-entropy alone, as published.",
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
            "applied to the whole cube. Here: volume 3; no published split, so the boxes are those of `init`. Group "
            "normalisation became batch normalisation, as everywhere.",
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
            about="Mitochondria of the EPFL hippocampus, 5 x 5 x 5 nm. Published: trained on the training volume "
            "whole, tested on the test volume. Here: a project on the training volume, its last 30 sections as test "
            "box for the rounds; windows overlap by 28, not 56 voxels, because that is also the guard; "
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
            about=_MITOEM_ABOUT.format(what="human cortex") + " The published steps are of R alone.",
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
