"""Scenes of the loop: how a project of a set and seed is made, and which side of the set it lies on.

A set is a recipe of ``twostream bench`` or the scene of a demonstration. Used by ``answers_pay.py``. Knows sets, boxes
and settings; must not know arms or scores.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from common.results import Data, file_data
from common.sets import Opened, open_synthetic
from twostream.bench.recipes import RECIPES, TISSUE, Scene, scene_of
from twostream.demo import SCENES, write_tissue

DEMO_SETS = tuple(f"demo-{task}" for task in SCENES)
FRESH_SHAPE, QUICK_FRESH_SHAPE = (32, 448, 640), (16, 256, 256)
"""Fresh tissue of a demonstration scene: at least 160 synapses, or mitochondria, in each."""
FRESH_SEED = 500
"""Added to the seed of a project, for tissue that it has not seen; below 1000 it stays development tissue."""


def scene(options: argparse.Namespace, name: str, seed: int, folder: Path) -> Scene:
    """The scene of a set and seed; its volumes are written into ``folder``."""
    if name in RECIPES:
        return scene_of(RECIPES[name], seed, side_of(options, name, seed), folder, options.data, quick=not options.full)
    demo = SCENES[name.removeprefix("demo-")]
    image, labels = (write_tissue(folder, kind, seed, demo.shape_zyx) for kind in ("image", demo.labels))
    return Scene(name.removeprefix("demo-"), image, labels, demo.labels_box, demo.test_box, demo.budget, demo.overrides)


def fresh(options: argparse.Namespace, name: str, seed: int) -> Opened | None:
    """Image and labels of tissue that no project of the set has seen; None for real sets."""
    labels = SCENES[name.removeprefix("demo-")].labels if name in DEMO_SETS else "synapses"
    if name in RECIPES and RECIPES[name].file is not None:
        return None
    unseen = seed + FRESH_SEED if seed < 1000 else seed + 10 * FRESH_SEED
    return open_synthetic(unseen, FRESH_SHAPE if options.full else QUICK_FRESH_SHAPE, labels)


def data_of(name: str, seeds: Sequence[int], folder: Path | None) -> Data:
    """What a row says of a set."""
    if name in RECIPES and (file := RECIPES[name].file) is not None:
        assert folder is not None
        return file_data(folder / file)
    shape = ",".join(map(str, SCENES[name.removeprefix("demo-")].shape_zyx if name in DEMO_SETS else TISSUE))
    named = ",".join(map(str, seeds))
    called = f"demonstration, {name.removeprefix('demo-')}" if name in DEMO_SETS else "synthetic tissue, synapses"
    return Data(called, f"synthetic://seed={named}&shape={shape}")


def side_of(options: argparse.Namespace, name: str, seed: int) -> str:
    """Whether methods may be chosen on this seed of a set."""
    if name in RECIPES and RECIPES[name].file is not None:
        return options.side if options.side in RECIPES[name].sides else "confirmation"
    return "development" if seed < 1000 else "confirmation"
