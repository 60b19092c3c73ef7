"""Scenes of the loop: how a project of a set and seed is made, and which side of the set it lies on.

Used by ``answers_pay.py``. Knows sets, boxes and settings; must not know arms or scores.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from common.results import Data, file_data
from common.sets import REAL_SETS, Opened, open_real, open_synthetic
from twostream.base.geometry import Box
from twostream.demo import COMMON, SCENES, write_tissue
from twostream.project.create import create_project
from twostream.project.project import CONFIG_NAME, Project
from twostream.task import DecodingConfig, get_task

DEMO_SETS = tuple(f"demo-{task}" for task in SCENES)
TISSUE = (32, 480, 800)
FAFB_HALF = 868
"""Rows of the development half; the confirmation half has as many."""
BUDGETS = {"fafb": 50, "synthetic": 25, "vnc-cleft": 20, "epfl": 5}
LABELS_SIDE_PX = {"fafb": 214, "synthetic": 190, "vnc-cleft": 460, "epfl": 230}
"""Side of the labels box, which holds all sections."""
MIN_OBJECTS, GUARD_PX = 10, 64
FRESH_SHAPE = (32, 448, 640)
"""Fresh tissue of a demonstration scene: at least 160 synapses, or mitochondria, in each."""
FRESH_SEED = 500
"""Added to the seed of a project, for tissue that it has not seen; below 1000 it stays development tissue."""


@dataclass(frozen=True)
class Scene:
    """How a project of one set is made.

    Attributes:
        task: name of the task.
        image, labels: URIs.
        labels_box, test_box: as texts; None takes the default.
        budget: answers per round.
        overrides: settings.
        fresh: synthetic labels and seed of fresh tissue; None without.
    """

    task: str
    image: str
    labels: str
    labels_box: str
    test_box: str | None
    budget: int
    overrides: tuple[str, ...]
    fresh: tuple[str, int] | None


def scene_of(options: argparse.Namespace, name: str, seed: int, folder: Path) -> Scene:
    """The scene of a set and seed; tissue is written into ``folder``."""
    if name.startswith("demo-"):
        task = name.removeprefix("demo-")
        demo = SCENES[task]
        uris = [write_tissue(folder, kind, seed, demo.shape_zyx) for kind in ("image", demo.labels)]
        fresh_seed = seed + FRESH_SEED if seed < 1000 else seed + 10 * FRESH_SEED
        return Scene(
            task, *uris, demo.labels_box, demo.test_box, demo.budget, demo.overrides,
            (demo.labels, fresh_seed),
        )  # fmt: skip
    task = "polarity" if name == "synthetic" else REAL_SETS[name].task
    source = folder / "volume.h5"
    opened = opened_of(options, name, seed)
    if not source.exists():
        write_file(source, opened)
    labels_box, test_box = boxes_of(name, seed, opened, task)
    settings = COMMON if name == "synthetic" else ("num_threads=1",)
    fresh = ("synapses", seed + FRESH_SEED if seed < 1000 else seed + 10 * FRESH_SEED) if name == "synthetic" else None
    return Scene(
        task, f"{source}:image", f"{source}:labels", str(labels_box), test_box and str(test_box), BUDGETS[name],
        settings, fresh,
    )  # fmt: skip


def opened_of(options: argparse.Namespace, name: str, seed: int) -> Opened:
    """The volumes of a set: the side of FAFB that --side names, the tissue of a seed, or all of the others."""
    if name == "synthetic":
        return open_synthetic(seed, TISSUE if options.full else (16, 256, 384))
    half = Box((0, 0 if options.side == "development" else FAFB_HALF, 0), (8, FAFB_HALF, 1736))
    return open_real(options.data, name, half if name == "fafb" else None)


def write_file(path: Path, opened: Opened) -> None:
    """The volumes of a set as one HDF5 file, which a project reads as it reads any other."""
    partial = path.with_suffix(".partial")
    with h5py.File(partial, "w") as file:
        file.attrs["voxel_size_nm"] = opened.image.voxel_size_nm
        for key, volume in (("image", opened.image), ("labels", opened.labels), ("labels_ignore", opened.ignore)):
            if volume is not None:
                file.create_dataset(key, data=volume.read(volume.box), compression="gzip", chunks=True)
    partial.rename(path)


def boxes_of(name: str, seed: int, opened: Opened, task_name: str) -> tuple[Box, Box | None]:
    """A labels box with at least ``MIN_OBJECTS`` objects, at a place that the seed draws, and the test box."""
    depth, height, width = opened.image.shape_zyx
    test_box = Box((0, 0, width - width // 3), (depth, height, width // 3))
    side = LABELS_SIDE_PX[name]
    task = get_task(task_name, opened.image.voxel_size_nm, DecodingConfig())
    rng = np.random.default_rng(seed)
    while True:
        corner = (
            0,
            int(rng.integers(0, height - side + 1)),
            int(rng.integers(0, width - width // 3 - side - GUARD_PX)),
        )
        labels_box = Box(corner, (depth, side, side))
        if len(np.unique(task.instances(opened.labels.read(labels_box)))) > MIN_OBJECTS:
            return labels_box, test_box
        side = min(side + 2, height)


def data_of(name: str, seeds: Sequence[int], folder: Path | None) -> Data:
    """What a row says of a set."""
    if name in REAL_SETS:
        assert folder is not None
        return file_data(folder / REAL_SETS[name].file)
    shape = ",".join(map(str, SCENES[name.removeprefix("demo-")].shape_zyx if name in DEMO_SETS else TISSUE))
    named = ",".join(map(str, seeds))
    called = f"demonstration, {name.removeprefix('demo-')}" if name in DEMO_SETS else "synthetic tissue, synapses"
    return Data(called, f"synthetic://seed={named}&shape={shape}")


def side_of(options: argparse.Namespace, name: str, seed: int) -> str:
    """Whether methods may be chosen on this seed of a set."""
    if name in ("synthetic", *DEMO_SETS):
        return "development" if seed < 1000 else "confirmation"
    return options.side if name == "fafb" else "confirmation"


def project_of(scene: Scene, root: Path, seed: int, more: Sequence[str]) -> Project:
    """The project whose round 0 all arms share, made unless it is there."""
    if (root / CONFIG_NAME).exists():
        return Project(root)
    return create_project(
        root, task=scene.task, image=scene.image, labels=scene.labels, labels_box=scene.labels_box,
        test_box=scene.test_box, seed=seed, budget=scene.budget, overrides=(*scene.overrides, *more),
    )  # fmt: skip
