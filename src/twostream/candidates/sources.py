"""Somebody else's model in place of S: a probability, a segmentation, or a table of an existing connectome's objects.

    probability    (C, Z, Y, X), or (Z, Y, X) where the task has one channel; uint8 (255 = certain), uint16 (65535 =
                   certain) or floats in [0, 1]. Polarity: pre, post, union, or pre, post (union = the larger of them).
    segmentation   (Z, Y, X) instance labels in the task's convention (polarity: 2n-1 and 2n). Kept as they are.
    objects        CSV or Parquet, a row per object; ``objects.py`` names the columns.

Knows volumes, tables and label conventions; must not know torch, rounds or answers. What does not fit is refused here,
by name of file, row and column.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from twostream.base import progress
from twostream.base.config import Config
from twostream.base.errors import InputError
from twostream.base.geometry import Box, grid
from twostream.candidates.objects import UNKNOWN_SCORE, paint, read_objects, refuse_hidden, with_sides
from twostream.task import Task
from twostream.volume import MemoryVolume, Volume, open_volume
from twostream.volume.checks import check_extent, check_labels, states_no_voxel_size

BLOCK_ZYX = (32, 512, 512)
SLAB_SECTIONS = 16
CERTAIN = {"uint8": 255.0, "uint16": 65535.0, "float16": 1.0, "float32": 1.0, "float64": 1.0}
"""What stands for probability 1."""
SLACK = 1e-4
"""Softmax and blending leave floats this far beyond 0 and 1; anything farther is another quantity."""
RADIUS_NM = {"polarity": 200.0, "cleft": 150.0, "mitochondria": 250.0}
"""Balls for objects of which only the centre is known: a synaptic contact is 200 to 500 nm wide, of which a synapse
shows both sides and a cleft the contact alone; a mitochondrion is 300 to 600 nm thick. A ball is there to show a person
and the streams what is meant, not to measure it."""


class SourceConfig(Config):
    """Somebody else's output in place of S; ``sources.py`` says what each kind must look like.

    Attributes:
        kind: a probability volume, a volume of instance labels, or a table of objects.
        uri: of the volume, or the path of the table (.csv or .parquet).
        voxel_size_nm: (z, y, x) nm, for volumes that do not state it.
        radius_nm: of the ball that stands for an object without a box; None takes the task's. Tables only.
    """

    kind: Literal["probability", "segmentation", "objects"]
    uri: str
    voxel_size_nm: tuple[float, float, float] | None = None
    radius_nm: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _each_of_its_kind(self) -> SourceConfig:
        if self.kind != "objects" and self.radius_nm is not None:
            raise ValueError(f"radius_nm is for tables of objects; a {self.kind} has shapes of its own. Leave it out")
        if self.kind == "objects" and self.voxel_size_nm is not None:
            raise ValueError(
                "voxel_size_nm is for volumes; a table counts in voxels of the image or in nm. Leave it out"
            )
        return self

    @property
    def name(self) -> str:
        """What it is, in words."""
        return "table of objects" if self.kind == "objects" else self.kind

    @property
    def brings_instances(self) -> bool:
        """Whether it says itself what is one object, so that nothing is decoded, thresholded or dropped as dust."""
        return self.kind != "probability"


@dataclass(frozen=True)
class Instances:
    """What a segmentation or a table proposes.

    Attributes:
        segmentation: (Z, Y, X) uint32 in the task's convention, instances 1..N in raster order of first voxels.
        source_ids: (N,) what each is called by the source: its label (polarity: n of 2n-1 and 2n), its id in the
            table, or its row there.
        scores: (N,) float in [0, 1]; ``UNKNOWN_SCORE`` throughout where the source says nothing.
    """

    segmentation: np.ndarray
    source_ids: list[int] | list[str]
    scores: np.ndarray


def check_source(config: SourceConfig, image: Volume, task: Task) -> None:
    """Refuse now whatever a step would refuse later; reads all of the source.

    Raises:
        InputError: it does not fit the image or the task.
    """
    if config.kind == "probability":
        volume = _open(config, image)
        for _ in _levels(volume, image, task):
            pass
    else:
        instances(config, image, task)


def write_probability(config: SourceConfig, image: Volume, task: Task, output: Volume) -> None:
    """Fill ``output``, (C, Z, Y, X) uint8, with the source's probability; 255 inside where it brings instances.

    Raises:
        InputError: it does not fit the image or the task.
    """
    if config.kind == "probability":
        blocks = _levels(_open(config, image), image, task)
    elif config.kind == "segmentation":
        blocks = _inside(_open_labels(config, image), task)
    else:
        blocks = _inside(MemoryVolume(instances(config, image, task).segmentation, image.voxel_size_nm), task)
    total = len(list(grid(image.box, BLOCK_ZYX)))
    with progress.task(f"take over the {config.name}", total=total) as advance:
        for box, level in blocks:
            output.write(box, level)
            advance(1)


def instances(config: SourceConfig, image: Volume, task: Task) -> Instances:
    """Objects of a segmentation or a table.

    Raises:
        InputError: it does not fit the image or the task, or holds no object.
    """
    if task.num_sides == 1 and len(task.channels) > 1:
        raise InputError(
            f"decoding.channels is {', '.join(task.channels)}; a {config.name} shows the foreground alone. "
            f"Leave decoding.channels out."
        )
    if config.kind == "segmentation":
        segmentation, names = _numbered(_open_labels(config, image), task)
        return Instances(segmentation, names, np.full(len(names), UNKNOWN_SCORE))
    table = read_objects(Path(config.uri), image, task)
    owner = paint(table, image, config.radius_nm or RADIUS_NM[task.name])
    refuse_hidden(table, owner, config.uri)
    painted = owner if task.num_sides == 1 else with_sides(table, owner, image.voxel_size_nm)
    segmentation, names = _numbered(MemoryVolume(painted, image.voxel_size_nm, config.uri), task, check=False)
    rows = np.array(names) - 1
    ids: Any = [table.ids[row] for row in rows]
    return Instances(segmentation, ids, table.score[rows])


# -- volumes ----------------------------------------------------------------------------------------------------------


def _open(config: SourceConfig, image: Volume) -> Volume:
    size = config.voxel_size_nm or (image.voxel_size_nm if states_no_voxel_size(config.uri) else None)
    return open_volume(config.uri, size)


def _open_labels(config: SourceConfig, image: Volume) -> Volume:
    volume = _open(config, image)
    check_labels(volume, image)
    return volume


def _levels(volume: Volume, image: Volume, task: Task) -> Iterator[tuple[Box, np.ndarray]]:
    """Block by block: box, and (C, Z, Y, X) uint8 in the task's channels.

    Raises:
        InputError: another extent, dtype or number of channels, values that are no probabilities, or none above 0.
    """
    check_extent(volume, image)
    given, wanted = max(volume.num_channels, 1), len(task.channels)
    if given != wanted and (task.num_sides, given) != (2, 2):
        also = ", or 2: pre, post" if task.num_sides == 2 else ""
        raise InputError(
            f"{volume.uri} has {given} channel{'s' * (given > 1)}; {task.name} wants {wanted}: "
            f"{', '.join(task.channels)}{also}. Channels come first: (C, Z, Y, X)."
        )
    if volume.dtype.name not in CERTAIN:
        raise InputError(
            f"{volume.uri} holds {volume.dtype}; expected a probability: uint8 (255 = certain), uint16 (65535 = "
            f"certain) or floats in [0, 1]. Integer labels go to --segmentation."
        )
    top = 0.0
    for block in grid(image.box, BLOCK_ZYX):
        array = volume.read(block.write_box)
        top = max(top, float(array.max()))
        level = _level(array, block.write_box, volume.uri)
        level = level if volume.num_channels else level[None]
        if len(level) < wanted:
            level = np.concatenate([level, level.max(0, keepdims=True)])
        yield block.write_box, level
    limit = {"uint8": 1, "uint16": 255}.get(volume.dtype.name, 0)
    if top <= limit:
        scale = "255" if volume.dtype.name == "uint8" else "65535"
        hint = f"; of {volume.dtype} {scale} is certain. Was it scaled otherwise?" if top else "."
        raise InputError(f"{volume.uri} holds no value above {top:g}{hint} There is nothing to propose.")


def _level(array: np.ndarray, box: Box, uri: str) -> np.ndarray:
    """Values -> uint8, 255 = certain; same shape.

    Raises:
        InputError: a value that is no probability.
    """
    if array.dtype == np.uint8:
        return array
    value = array.astype(np.float32) / np.float32(CERTAIN[array.dtype.name])
    wrong = ~((value >= -SLACK) & (value <= 1 + SLACK))  # NaN is neither
    if wrong.any():
        where = np.argwhere(wrong)[0]
        z, y, x = (int(w) + o for w, o in zip(where[-3:], box.offset_zyx, strict=True))
        raise InputError(
            f"{uri} holds {array[tuple(where)]:g} at voxel ({z}, {y}, {x}) (Z, Y, X); expected probabilities in "
            f"[0, 1]. Are these logits or distances?"
        )
    return np.round(255 * np.clip(value, 0, 1)).astype(np.uint8)


def _inside(segmentation: Volume, task: Task) -> Iterator[tuple[Box, np.ndarray]]:
    """Block by block: box, and (C, Z, Y, X) uint8, 255 inside instances; polarity: pre, post, union."""
    for block in grid(segmentation.box, BLOCK_ZYX):
        values = segmentation.read(block.write_box)
        inside = values > 0
        masks = [inside] if task.num_sides == 1 else [inside & (values % 2 == 1), inside & (values % 2 == 0), inside]
        yield block.write_box, np.stack(masks).astype(np.uint8) * np.uint8(255)


def _numbered(volume: Volume, task: Task, *, check: bool = True) -> tuple[np.ndarray, list[int]]:
    """Instances renumbered 1..N in raster order of first voxels, whatever ids an endless volume gave them.

    Args:
        volume: (Z, Y, X) integers in the task's convention.
        check: whether its values may be none of the task's.

    Returns:
        (Z, Y, X) uint32 in the same convention, and the (N,) former instance labels.
    """
    slabs = [block.write_box for block in grid(volume.box, (SLAB_SECTIONS, *volume.shape_zyx[1:]))]
    label_of: dict[int, int] = {}  # whole sections, so what is seen first comes first in raster order
    values: set[int] = set()
    for box in slabs:
        found, first = np.unique(volume.read(box), return_index=True)
        values |= set(found.tolist())
        for value in found[np.argsort(first)].tolist():
            label = value if task.num_sides == 1 else (value + 1) // 2
            if value:
                label_of.setdefault(label, len(label_of) + 1)
    if check:
        task.check_values(values, volume.uri)
    if not label_of:
        raise InputError(f"{volume.uri} holds no object, only 0; there is nothing to ask about.")
    old = np.array([0, *label_of], np.uint64)
    order = np.argsort(old)
    new = np.array([0, *label_of.values()], np.uint32)[order]
    result = np.zeros(volume.shape_zyx, np.uint32)
    for box in slabs:
        value = volume.read(box).astype(np.uint64)  # wide enough for the + 1 of ``Task.instances``
        label = new[np.searchsorted(old[order], task.instances(value))]
        if task.num_sides == 2:
            label = np.where(value > 0, 2 * label - (value % 2).astype(np.uint32), np.uint32(0))
        result[box.slices] = label
    return result, list(label_of)
