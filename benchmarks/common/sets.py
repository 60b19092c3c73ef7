"""The real sets under --data, volumes in memory, and labels of synthetic tissue."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.results import Data, file_data
from twostream.base.geometry import Box
from twostream.bench.recipes import RECIPES
from twostream.task import Task
from twostream.volume import MemoryVolume, Volume, open_ignore_mask, open_volume


@dataclass(frozen=True)
class RealSet:
    """A file under --data.

    Attributes:
        file: its name.
        labels: dataset of the labels in it; the image is "image".
        task: what the labels show.
    """

    file: str
    labels: str
    task: str


REAL_SETS = {
    name + ending: RealSet(file, recipe.labels, recipe.task)
    for name, recipe in RECIPES.items()
    for ending, file in (("", recipe.file), ("-test", recipe.test_file))
    if file is not None
}


@dataclass(frozen=True)
class Opened:
    """Volumes of one set, in memory.

    Attributes:
        image: grey values.
        labels: in the convention of the set's task.
        ignore: non-zero where nothing counts, or None.
        data: what a result row says of them.
    """

    image: MemoryVolume
    labels: MemoryVolume
    ignore: MemoryVolume | None
    data: Data


def open_real(folder: Path, name: str, box: Box | None = None) -> Opened:
    """A real set, whole or in ``box``; boxes of what is returned begin at 0."""
    real = REAL_SETS[name]
    path = folder / real.file
    if not path.exists():
        raise SystemExit(f"{real.file} is not in {folder}, which --data names.")
    image, labels = open_volume(f"{path}:image"), open_volume(f"{path}:{real.labels}")
    ignore = open_ignore_mask(f"{path}:{real.labels}")
    box = box or image.box
    return Opened(
        in_memory(image, box), in_memory(labels, box), None if ignore is None else in_memory(ignore, box),
        file_data(path),
    )  # fmt: skip


def open_synthetic(seed: int, shape_zyx: tuple[int, int, int], labels: str = "synapses") -> Opened:
    """Synthetic tissue at its own voxel size, grown from ``seed``."""
    uri = f"synthetic://seed={seed}&shape={','.join(map(str, shape_zyx))}&kind="
    image, truth = (in_memory(open_volume(uri + kind), Box.whole(shape_zyx)) for kind in ("image", labels))
    return Opened(image, truth, None, synthetic_data(shape_zyx, [seed], labels))


def synthetic_data(shape_zyx: tuple[int, int, int], seeds: list[int], labels: str = "synapses") -> Data:
    """How synthetic tissue is named in result rows."""
    shape = ",".join(map(str, shape_zyx))
    named = ",".join(map(str, seeds))
    return Data(f"synthetic tissue, {labels}", f"synthetic://seed={named}&shape={shape}")


def in_memory(volume: Volume, box: Box) -> MemoryVolume:
    """``box`` of a volume; boxes of the copy begin at 0."""
    return MemoryVolume(np.ascontiguousarray(volume.read(box)), volume.voxel_size_nm)


def renumbered(labels: np.ndarray, task: Task) -> np.ndarray:
    """(Z, Y, X) uint32 labels of synthetic tissue in the task's convention, numbered from 1.

    Ids of the tissue are large, because they are the same in every box of endless space.
    """
    sides = np.uint64(task.num_sides)
    number = np.unique((labels + sides - 1) // sides, return_inverse=True)[1].reshape(labels.shape)
    if task.num_sides == 2:
        number = np.where(number > 0, 2 * number - (labels % 2).astype(np.int64), 0)
    return number.astype(np.uint32)
