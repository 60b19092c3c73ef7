"""Recipes of the benchmark: data sets with the truth of the whole image, and how a seed makes a project of each.

A seed places the labels box and trains S and the streams; of synthetic tissue it also grows the tissue. Methods and
defaults are chosen on the development side of a set, and the confirmation side is run once with everything fixed; a set
without a development side is never used to choose anything.

Knows files, boxes and settings; must not know strategies or scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from twostream.base.errors import InputError
from twostream.base.geometry import Box
from twostream.project.create import create_project
from twostream.project.project import CONFIG_NAME, Project
from twostream.task import DecodingConfig, get_task
from twostream.volume import open_ignore_mask, open_volume
from twostream.volume.synthetic import Tissue
from twostream.volume.synthetic.sites import KINDS

SIDES = ("development", "confirmation")
FIRST_CONFIRMATION_SEED = 1000
"""Of synthetic tissue."""
TISSUE, QUICK_TISSUE = (32, 480, 800), (16, 320, 640)
"""Voxels of synthetic tissue, and of that of the quick form."""
QUICK = (
    "segmentation.num_steps=400", "refit.num_steps=60", "streams.supervised.num_steps=40",
    "streams.unsupervised.num_steps=40", "streams.active_clustering.num_steps=5",
)  # fmt: skip
"""Settings of the quick form: everything runs, and S finds something."""
# The same network and steps as the demonstration's.
SYNTHETIC = (
    "num_threads=1", "segmentation.max_pixel_size_nm=16", "segmentation.filters=[8,16,32,48]",
    "segmentation.patch_shape_zyx=[8,64,64]", "segmentation.num_steps=1200", "refit.num_steps=250",
    "streams.supervised.num_steps=150", "streams.unsupervised.num_steps=200",
)  # fmt: skip
MIN_OBJECTS = 10
"""Of a labels box, where the set has them."""
MAX_DRAWN = 1000
"""Places of a labels box that are tried."""
GAP_PX = 128
"""Between a volume and the test volume beside it: wider than the guard around a test box."""
NEAR_NM = 250.0
"""A contact this near to the middle of a candidate is what the candidate shows."""


@dataclass(frozen=True)
class Recipe:
    """A data set of the benchmark.

    Attributes:
        name: on the command line.
        task: name of the task.
        labels_side_px: side of the labels box in plane; it holds all sections, and grows until it holds
            ``MIN_OBJECTS``.
        batch_size: answers in a round of the loop.
        file: HDF5 file with the datasets "image" and ``labels``; None: synthetic tissue.
        labels: of the task.
        test_file: a second file of that kind, all of which is the test box; None: the last third along X is.
        development_rows: the first so many rows are the development side, as many after them the confirmation side; 0:
            there is only the confirmation side.
        settings: of the project, as ``a.b=value``.
    """

    name: str
    task: str
    labels_side_px: int
    batch_size: int
    file: str | None = None
    labels: str = ""
    test_file: str | None = None
    development_rows: int = 0
    settings: tuple[str, ...] = ("num_threads=1",)

    @property
    def sides(self) -> tuple[str, ...]:
        """The sides that the set has."""
        return SIDES if self.file is None or self.development_rows else SIDES[1:]

    def seeds(self, side: str, number: int) -> list[int]:
        """The first seeds of a side.

        Raises:
            InputError: the set does not have the side.
        """
        if side not in self.sides:
            raise InputError(
                f"--side is {side!r}; {self.name} has {' and '.join(self.sides)}. Pass --side {self.sides[0]}."
            )
        first = FIRST_CONFIRMATION_SEED if self.file is None and side == "confirmation" else 0
        return list(range(first, first + number))


EPFL = "epfl_hippocampus_{}_10nm.h5"
RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("synthetic", "polarity", 190, 25, settings=SYNTHETIC),
        Recipe("fafb", "mitochondria", 214, 50, "fafb_mito_8slices.h5", "mitochondria", development_rows=868),
        Recipe("vnc", "mitochondria", 460, 10, "vnc_stack1.h5", "mitochondria"),
        Recipe("vnc-cleft", "cleft", 460, 20, "vnc_stack1.h5", "synapses"),
        Recipe(
            "epfl", "mitochondria", 230, 5, EPFL.format("train"), "mitochondria", EPFL.format("test"),
        ),
    )
}  # fmt: skip


def get_recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        InputError: there is none.
    """
    if name not in RECIPES:
        raise InputError(f"--recipe is {name!r}; expected one of {', '.join(RECIPES)}.")
    return RECIPES[name]


@dataclass(frozen=True)
class Scene:
    """What one seed of a recipe makes its project of.

    Attributes:
        task: name of the task.
        image, labels: URIs; the labels are the truth of the whole image.
        labels_box, test_box: "Z0:Z1,Y0:Y1,X0:X1"; ``test_box`` None takes the default.
        batch_size: answers in a round.
        settings: of the project, as ``a.b=value``.
    """

    task: str
    image: str
    labels: str
    labels_box: str
    test_box: str | None
    batch_size: int
    settings: tuple[str, ...]

    def project(self, root: Path, seed: int, settings: Sequence[str] = ()) -> Project:
        """The project in ``root``, made if it is not there, with ``settings`` over those of the scene."""
        if (root / CONFIG_NAME).exists():
            return Project(root)
        return create_project(
            root, task=self.task, image=self.image, labels=self.labels, labels_box=self.labels_box,
            test_box=self.test_box, seed=seed, budget=self.batch_size, overrides=[*self.settings, *settings],
        )  # fmt: skip


def scene_of(recipe: Recipe, seed: int, side: str, folder: Path, data: Path | None, *, quick: bool = False) -> Scene:
    """The scene of a seed; its volumes are written into ``folder``, unless they are there.

    Args:
        recipe: the set.
        seed: one of ``Recipe.seeds``.
        side: one of ``Recipe.sides``.
        folder: for ``volume.h5``, made if it is not there.
        data: folder of the recipe's files.
        quick: less tissue and few steps.

    Raises:
        InputError: a file is not in ``data``.
    """
    source = folder / "volume.h5"
    if not source.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _write(source, recipe, seed, side, data, QUICK_TISSUE if quick else TISSUE)
    image, labels = f"{source}:image", f"{source}:labels"
    test_box = _test_box(recipe, source)
    return Scene(
        recipe.task, image, labels, str(_labels_box(recipe, seed, labels, test_box)), str(test_box), recipe.batch_size,
        (*recipe.settings, *(QUICK if quick else ())),
    )  # fmt: skip


def kinds_at(recipe: Recipe, seed: int, project: Project, position_nm: np.ndarray) -> np.ndarray | None:
    """What lies at the middle of each candidate, where that is known.

    Args:
        recipe: the set.
        seed: of the tissue.
        project: made of the scene.
        position_nm: (N, 3) float, (z, y, x) in nm.

    Returns:
        (N,) text: the kind of the nearest contact (``volume.synthetic.sites.KINDS``), "none" where none is within
        ``NEAR_NM``; None for real sets.
    """
    if recipe.file is not None:
        return None
    size = np.array(project.image.voxel_size_nm)
    objects = Tissue(seed, project.image.voxel_size_nm).objects(Box.whole(project.image.shape_zyx))
    objects = objects[np.isin(objects["kind"], KINDS)]
    centre_nm = (objects["centre_zyx"] + 0.5) * size
    distance = np.linalg.norm(position_nm[:, None] - centre_nm[None], axis=2)
    nearest = distance.argmin(1)
    kinds: np.ndarray = np.where(distance.min(1) <= NEAR_NM, objects["kind"][nearest], "none")
    return kinds


def _write(
    path: Path, recipe: Recipe, seed: int, side: str, data: Path | None, tissue_zyx: tuple[int, int, int]
) -> None:
    """Image, labels and, where there are some, ignored voxels of a side, as an HDF5 file."""
    if recipe.file is None:
        tissue, box = Tissue(seed), Box.whole(tissue_zyx)
        volumes = {"image": tissue.image(box), "labels": tissue.synapses(box)}
        size = tissue.voxel_size_nm
    else:
        volumes, size = _read(recipe, recipe.file, data)
        if recipe.development_rows:
            first = recipe.development_rows * (side == "confirmation")
            volumes = {name: array[:, first : first + recipe.development_rows] for name, array in volumes.items()}
        if recipe.test_file is not None:
            volumes = _beside(volumes, _read(recipe, recipe.test_file, data)[0])
    partial = path.with_suffix(".partial")
    with h5py.File(partial, "w") as file:
        file.attrs["voxel_size_nm"] = size
        for name, array in volumes.items():
            file.create_dataset(name, data=array, compression="gzip", chunks=True)
    partial.replace(path)


def _read(recipe: Recipe, name: str, data: Path | None) -> tuple[dict[str, np.ndarray], tuple[float, float, float]]:
    """Volumes of a file, and its voxel size in nm."""
    if data is None or not (data / name).exists():
        raise InputError(
            f"{name} is not in {data or 'any folder, as --data is not given'}. The recipe {recipe.name} needs this "
            f"HDF5 file with the datasets 'image' and {recipe.labels!r} (docs/benchmarks.md)."
        )
    uri = f"{data / name}:{recipe.labels}"
    image, labels, ignore = open_volume(f"{data / name}:image"), open_volume(uri), open_ignore_mask(uri)
    volumes = {"image": image, "labels": labels} | ({} if ignore is None else {"labels_ignore": ignore})
    return {key: volume.read(volume.box) for key, volume in volumes.items()}, image.voxel_size_nm


def _beside(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Two volumes as one, the second at the right of the first, with a gap of which nothing is known.

    The gap continues the first image as its mirror image, so that no network sees an edge.
    """
    gap = ((0, 0), (0, 0), (0, GAP_PX))
    ignored = [v.get("labels_ignore", np.zeros(v["labels"].shape, np.uint8)) for v in (first, second)]
    above = np.asarray(second["labels"] + (second["labels"] > 0) * int(first["labels"].max()), np.uint32)
    return {
        "image": np.concatenate([np.pad(first["image"], gap, "reflect"), second["image"]], 2),
        "labels": np.concatenate([np.pad(first["labels"].astype(np.uint32), gap), above], 2),
        "labels_ignore": np.concatenate([np.pad(ignored[0], gap, constant_values=1), ignored[1]], 2),
    }


def _test_box(recipe: Recipe, source: Path) -> Box:
    depth, height, width = open_volume(f"{source}:image").shape_zyx
    start = (width + GAP_PX) // 2 if recipe.test_file is not None else width - width // 3
    return Box((0, 0, start), (depth, height, width - start))


def _labels_box(recipe: Recipe, seed: int, labels_uri: str, test_box: Box) -> Box:
    """A labels box with more than ``MIN_OBJECTS`` objects, at a place that the seed draws, apart from the test box."""
    labels = open_volume(labels_uri)
    task = get_task(recipe.task, labels.voxel_size_nm, DecodingConfig())
    depth, height, _ = labels.shape_zyx
    end = test_box.offset_zyx[2] - (GAP_PX if recipe.test_file is not None else 64)
    side = min(recipe.labels_side_px, height, end)
    rng = np.random.default_rng(seed)
    for _ in range(MAX_DRAWN):
        corner = (0, int(rng.integers(0, height - side + 1)), int(rng.integers(0, max(1, end - side))))
        box = Box(corner, (depth, side, side))
        if len(np.unique(task.instances(labels.read(box)))) > MIN_OBJECTS:
            return box
        side = min(side + 2, height, end)
    raise InputError(f"no labels box of {labels_uri} holds more than {MIN_OBJECTS} objects outside the test box.")
