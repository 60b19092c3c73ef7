"""Sources: the output of another model, or an existing connectome, in place of the segmentation network S.

A project can use one of three kinds (``docs/bring_your_own.md`` is the user's page):

    probability    a volume (C, Z, Y, X), or (Z, Y, X) if the task has one channel; uint8 (255 = 1), uint16 (65535 = 1)
                   or floats in [0, 1]. Polarity: pre, post and union, or pre and post (union = the larger of the two).
    segmentation   a volume (Z, Y, X) of labels in the task's convention (polarity: 2n-1 and 2n). Instances are kept as
                   they are.
    objects        a table with one row per object (CSV, Parquet, Feather and others); see ``objects.read``.

Input that does not fit the image or the task is an error that names the file and the voxel, or the row and column.
Knows volumes, tables and label conventions; must not know torch, rounds or answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from twostream.base import progress
from twostream.base.errors import InputError
from twostream.base.geometry import Box, grid
from twostream.candidates.label_scan import LabelKind
from twostream.candidates.labels import Labels, LabelsConfig, open_labels
from twostream.candidates.objects import UNKNOWN_SCORE, TableConfig, is_table, read_table_at
from twostream.candidates.painting import paint, refuse_hidden, with_sides
from twostream.task import Task
from twostream.volume import MemoryVolume, Volume, open_volume
from twostream.volume.checks import states_no_voxel_size
from twostream.volume.place import place_on

BLOCK_ZYX = (32, 512, 512)
"""Voxels that are converted and written at once."""
SLAB_SECTIONS = 16
"""Sections that are read at once to number instances."""
FULL_SCALE = {"uint8": 255.0, "uint16": 65535.0, "float16": 1.0, "float32": 1.0, "float64": 1.0}
"""Value that means probability 1, by dtype."""
LIKELY = 128
"""Value in 255 from which a voxel counts as foreground, where a source is described."""
MOSTLY = 0.5
"""Share of the image that is foreground from which a probability is questioned."""
SLACK = 1e-4
"""Rounding in softmax and blending puts floats at most this far outside [0, 1]; farther values are no probabilities."""
RADIUS_NM = {"polarity": 200.0, "cleft": 150.0, "mitochondria": 250.0}
"""Radius in nm of the ball for an object of which only the centre is known, by task. A synaptic contact is 200 to 500
nm wide, of which the polarity mask shows both sides and the cleft mask the contact only; a mitochondrion is 300 to 600
nm thick. The ball shows a person and the streams where the object is; it does not measure it."""


class SourceConfig(TableConfig):
    """A source in place of S.

    Attributes:
        kind: "probability", "segmentation" or "objects"; the module's docstring says what each must look like.
        uri: of the volume; for "objects" the path of the table.
        voxel_size_nm: (z, y, x) nm, for volumes that do not state it themselves; not for "objects".
        radius_nm: radius in nm of the ball for an object without a box; None takes ``RADIUS_NM``. Only for "objects".
        label_kind: what the values of a segmentation mean; None finds it out.
        columns, table_resolution_nm, list_order: as in ``TableConfig``. Only for "objects".
    """

    kind: Literal["probability", "segmentation", "objects"]
    uri: str
    voxel_size_nm: tuple[float, float, float] | None = None
    radius_nm: float | None = Field(None, gt=0)
    label_kind: LabelKind | None = None

    @model_validator(mode="after")
    def _fits_the_kind(self) -> SourceConfig:
        if self.kind != "objects" and self.radius_nm is not None:
            raise ValueError(f"radius_nm is for tables of objects; a {self.kind} has masks already. Leave it out")
        if self.kind != "objects" and self.says_how_to_read:
            raise ValueError(
                f"columns, table_resolution_nm and list_order are for tables of objects, not for a {self.kind}"
            )
        if self.kind == "objects" and self.voxel_size_nm is not None:
            raise ValueError("voxel_size_nm is for volumes; a table is in voxels of the image or in nm. Leave it out")
        return self

    @property
    def name(self) -> str:
        """What the source is, for messages."""
        return "table of objects" if self.kind == "objects" else self.kind

    @property
    def brings_instances(self) -> bool:
        """Whether the source defines instances, so that none is decoded, thresholded or dropped for its size."""
        return self.kind != "probability"


@dataclass(frozen=True)
class Instances:
    """The instances of a segmentation or a table of objects.

    Attributes:
        segmentation: (Z, Y, X) uint32 in the task's convention, instances numbered 1..N in raster order of their first
            voxels.
        source_ids: (N,) name of each instance in the source: its instance label, or its id in the table, or its row
            number if the table has no ids.
        scores: (N,) float in [0, 1]; all ``UNKNOWN_SCORE`` if the source has no scores.
        understood: sentences that say how a table was read.
    """

    segmentation: np.ndarray
    source_ids: list[int] | list[str]
    scores: np.ndarray
    understood: tuple[str, ...] = ()


def check_source(config: SourceConfig, image: Volume, task: Task) -> tuple[str, ...]:
    """Check a whole source when the project is created, so that no later step fails because of it.

    Args:
        config: the source.
        image: the project's image.
        task: of the project.

    Returns:
        Sentences that say how the source was read, for people to check.

    Raises:
        InputError: the source does not fit the image or the task.
    """
    if config.kind == "probability":
        return _understood_probability(_open(config, image), image, task)
    return instances(config, image, task).understood


def _understood_probability(volume: Volume, image: Volume, task: Task) -> tuple[str, ...]:
    """How high a probability is and how much of the image it fills, as sentences; what looks unusual is a question."""
    likely, top = 0, 0
    for _, probability in _probability_blocks(volume, image, task):
        likely += int(np.count_nonzero((probability >= LIKELY).any(0)))
        top = max(top, int(probability.max()))
    share = likely / image.box.num_voxels
    lines = [
        f"probability {volume.uri}, {volume.dtype}: up to {top / 255:.2f}, and 0.5 or more in {share:.1%} of the image"
    ]
    lines += [f"  {note}" for note in volume.metadata.notes]
    if share > MOSTLY:
        lines.append(
            f"question: {volume.uri} is 0.5 or more in most of the image. Is it the probability of {task.name}, or "
            f"that of the background, or the image itself?"
        )
    if top < LIKELY:
        full = FULL_SCALE[volume.dtype.name]
        lines.append(
            f"question: {volume.uri} is nowhere 0.5 or more; {full:g} means probability 1 in {volume.dtype}. Was it "
            f"scaled differently? If not, pass --set candidates.threshold={max(top // 2, 1) / 255:.2g}, or lower."
        )
    return tuple(lines)


def write_probability(config: SourceConfig, image: Volume, task: Task, output: Volume) -> None:
    """Write the source as the probability of a round.

    Args:
        config: the source.
        image: the project's image.
        task: of the project.
        output: volume (C, Z, Y, X) uint8, written completely: the source's probability with 255 = 1. For a source of
            instances 255 inside them and 0 outside.

    Raises:
        InputError: the source does not fit the image or the task.
    """
    if config.kind == "probability":
        blocks = _probability_blocks(_open(config, image), image, task)
    elif config.kind == "segmentation":
        blocks = _mask_blocks(_open_labels(config, image, task), task)
    else:
        blocks = _mask_blocks(MemoryVolume(instances(config, image, task).segmentation, image.voxel_size_nm), task)
    total = len(list(grid(image.box, BLOCK_ZYX)))
    with progress.task(f"copy the {config.name}", total=total) as advance:
        for box, probability in blocks:
            output.write(box, probability)
            advance(1)


def instances(config: SourceConfig, image: Volume, task: Task) -> Instances:
    """The instances of a source that defines them (``brings_instances``).

    Args:
        config: a segmentation or a table of objects.
        image: the project's image.
        task: of the project.

    Raises:
        InputError: the source does not fit the image or the task, or holds no object.
    """
    if task.num_sides == 1 and len(task.channels) > 1:
        raise InputError(
            f"decoding.channels is {', '.join(task.channels)}; a {config.name} gives only the foreground. "
            f"Leave decoding.channels out."
        )
    if config.kind == "segmentation":
        segmentation, names = _numbered(_open_labels(config, image, task), task)
        return Instances(segmentation, names, np.full(len(names), UNKNOWN_SCORE))
    table = read_table_at(config.uri, config, image, task, "source")
    owner = paint(table, image, config.radius_nm or RADIUS_NM[task.name])
    refuse_hidden(table, owner, config.uri)
    painted = owner if task.num_sides == 1 else with_sides(table, owner, image.voxel_size_nm)
    segmentation, names = _numbered(MemoryVolume(painted, image.voxel_size_nm, config.uri), task, check=False)
    rows = np.array(names) - 1
    ids: Any = [table.ids[row] for row in rows]
    return Instances(segmentation, ids, table.score[rows], table.understood)


# -- volumes ----------------------------------------------------------------------------------------------------------


def _open(config: SourceConfig, image: Volume) -> Volume:
    """Open the source's volume; if its file states no voxel size, it gets the configured one or the image's."""
    size = config.voxel_size_nm or (image.voxel_size_nm if states_no_voxel_size(config.uri) else None)
    return place_on(open_volume(config.uri, size), image)


def segmentation_labels(config: SourceConfig, image: Volume, task: Task) -> Labels:
    """The source's segmentation as it is understood, in the voxels of the image."""
    if is_table(config.uri):
        raise InputError(f"{config.uri} is a table; --segmentation is a volume of instances. Pass it as --objects.")
    labels = LabelsConfig(uri=config.uri, voxel_size_nm=config.voxel_size_nm, kind=config.label_kind)
    return open_labels(labels, image, task, option="--set source.label_kind=instances")


def _open_labels(config: SourceConfig, image: Volume, task: Task) -> Volume:
    """The source's instances, in the voxels of the image."""
    return segmentation_labels(config, image, task).volume


def _probability_blocks(volume: Volume, image: Volume, task: Task) -> Iterator[tuple[Box, np.ndarray]]:
    """Read a probability volume block by block.

    Yields:
        Box, and (C, Z, Y, X) uint8 over it in the task's channels, 255 = 1.

    Raises:
        InputError: the extent, dtype or number of channels is wrong, a value is no probability, or all are 0 (or so
            low that they were probably scaled differently).
    """
    given, wanted = max(volume.num_channels, 1), len(task.channels)
    if given != wanted and (task.num_sides, given) != (2, 2):
        also = ", or 2: pre, post" if task.num_sides == 2 else ""
        raise InputError(
            f"{volume.uri} has {given} channel{'s' * (given > 1)}; expected {wanted} for {task.name}: "
            f"{', '.join(task.channels)}{also}. Channels come first: (C, Z, Y, X)."
        )
    if volume.dtype.name not in FULL_SCALE:
        raise InputError(
            f"{volume.uri} holds {volume.dtype}; expected a probability: uint8 (255 = 1), uint16 (65535 = 1) or floats "
            f"in [0, 1]. Integer labels go to --segmentation."
        )
    top = 0.0
    for block in grid(image.box, BLOCK_ZYX):
        array = volume.read(block.write_box)
        top = max(top, float(array.max()))
        probability = _as_uint8(array, block.write_box, volume.uri)
        probability = probability if volume.num_channels else probability[None]
        if len(probability) < wanted:
            probability = np.concatenate([probability, probability.max(0, keepdims=True)])
        yield block.write_box, probability
    limit = {"uint8": 1, "uint16": 255}.get(volume.dtype.name, 0)
    if top <= limit:
        scale = "255" if volume.dtype.name == "uint8" else "65535"
        hint = f"; {scale} means probability 1 in {volume.dtype}. Was it scaled differently?" if top else "."
        raise InputError(f"{volume.uri} holds no value above {top:g}{hint} There is nothing to propose.")


def _as_uint8(array: np.ndarray, box: Box, uri: str) -> np.ndarray:
    """Convert probabilities to uint8, 255 = 1.

    Args:
        array: (C, Z, Y, X) or (Z, Y, X) over ``box``, of a dtype in ``FULL_SCALE``.
        box: in voxels of the image, for the error message.
        uri: of the volume, for the error message.

    Returns:
        The same shape.

    Raises:
        InputError: a value lies outside [0, 1] by more than ``SLACK``, or is NaN.
    """
    if array.dtype == np.uint8:
        return array
    value = array.astype(np.float32) / np.float32(FULL_SCALE[array.dtype.name])
    wrong = ~((value >= -SLACK) & (value <= 1 + SLACK))  # written so that NaN is wrong
    if wrong.any():
        where = np.argwhere(wrong)[0]
        z, y, x = (int(w) + o for w, o in zip(where[-3:], box.offset_zyx, strict=True))
        raise InputError(
            f"{uri} holds {array[tuple(where)]:g} at voxel ({z}, {y}, {x}) (Z, Y, X); expected probabilities in "
            f"[0, 1]. Are these logits or distances?"
        )
    return np.round(255 * np.clip(value, 0, 1)).astype(np.uint8)


def _mask_blocks(segmentation: Volume, task: Task) -> Iterator[tuple[Box, np.ndarray]]:
    """Read labels block by block, as probabilities.

    Yields:
        Box, and (C, Z, Y, X) uint8 over it, 255 inside instances; polarity: channels pre, post, union.
    """
    for block in grid(segmentation.box, BLOCK_ZYX):
        values = segmentation.read(block.write_box)
        inside = values > 0
        masks = [inside] if task.num_sides == 1 else [inside & (values % 2 == 1), inside & (values % 2 == 0), inside]
        yield block.write_box, np.stack(masks).astype(np.uint8) * np.uint8(255)


def _numbered(volume: Volume, task: Task, *, check: bool = True) -> tuple[np.ndarray, list[int]]:
    """Renumber instances, whose labels may be 64-bit ids, to 1..N in raster order of their first voxels.

    Args:
        volume: (Z, Y, X) integer labels in the task's convention.
        task: gives the convention.
        check: whether to check the values (``Task.check_values``).

    Returns:
        (Z, Y, X) uint32 labels in the same convention, and the (N,) former instance labels.

    Raises:
        InputError: the values are no labels of the task, or all are 0.
    """
    slabs = [block.write_box for block in grid(volume.box, (SLAB_SECTIONS, *volume.shape_zyx[1:]))]
    label_of: dict[int, int] = {}  # former instance label -> new one
    values: set[int] = set()
    # Slabs are whole sections, so that the order in which labels are met is their raster order.
    for box in slabs:
        found, first = np.unique(volume.read(box), return_index=True)
        values |= set(found.tolist())
        for value in found[np.argsort(first)].tolist():
            if value:
                label_of.setdefault(task.instance_of(value), len(label_of) + 1)
    if check:
        task.check_values(values, volume.uri)
    if not label_of:
        raise InputError(f"{volume.uri} holds no object, only 0; there is nothing to ask about.")
    old = np.array([0, *label_of], np.uint64)
    order = np.argsort(old)
    new = np.array([0, *label_of.values()], np.uint32)[order]
    result = np.zeros(volume.shape_zyx, np.uint32)
    for box in slabs:
        value = volume.read(box).astype(np.uint64)  # as ``old``; searchsorted compares unlike integer types as floats
        label = new[np.searchsorted(old[order], task.instances(value))]
        if task.num_sides == 2:
            label = np.where(value > 0, 2 * label - (value % 2).astype(np.uint32), np.uint32(0))
        result[box.slices] = label
    return result, list(label_of)
