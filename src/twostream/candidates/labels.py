"""Labels and truth as people have them, in the task's convention and in the voxels of the image.

    kind of file                                     becomes
    instances of the image's extent                  themselves
    a crop that states its place                     placed; the rest is unlabelled
    a mask (0 and one other value, or booleans)      connected pieces as instances
    1 presynaptic, 2 postsynaptic                    synapses: pieces that touch
    two volumes, one per side                        synapses: equal ids, or sides that lie together
    a table of points on both sides (polarity)       synapses: balls around the points
    an ignored value, or a companion <name>_ignore   neither object nor background

Knows volumes, tasks and label conventions; must not know projects or rounds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from pydantic import Field

from twostream.base.errors import InputError
from twostream.base.geometry import Box
from twostream.candidates.label_scan import LabelKind, LabelScan, kind_of, questions, scan_labels
from twostream.candidates.objects import TableConfig, is_table, read_table_at
from twostream.candidates.point_labels import POINT_RADIUS_NM, RIM_NM, PointLabels, PointVolume
from twostream.candidates.sides import check_sides_lie_together, join_sides
from twostream.task import Task
from twostream.volume import Volume, open_ignore_mask, open_volume
from twostream.volume.checks import check_integers, states_no_voxel_size
from twostream.volume.pieces import number_pieces, number_synapses
from twostream.volume.place import covered_box, place_on, without_channel

MAX_NUMBERED_VOXELS = 1 << 30
"""Pieces of a mask are numbered in memory, which takes up to 12 bytes a voxel."""


class LabelsConfig(TableConfig):
    """Labels of the image.

    Attributes:
        uri: where they are; a relative path starts at the project's folder.
        voxel_size_nm: (z, y, x) nm, if the file does not state it.
        kind: what the values mean, as it was found out when the project was made.
        ignore_value: value of voxels that count neither as object nor as background.
        post: URI of the postsynaptic side, if the two sides are two volumes; ``uri`` is then the presynaptic side.
        radius_nm: radius in nm of the certain balls around the points of a table; None without one.
        rim_nm: distance in nm from the line between two points within which the rest is unknown; None without a table.
        columns, table_resolution_nm, list_order: as in ``TableConfig``, for a table of points.
    """

    uri: str
    voxel_size_nm: tuple[float, float, float] | None = None
    kind: LabelKind | None = None
    ignore_value: int | None = None
    post: str | None = None
    radius_nm: float | None = Field(None, gt=0)
    rim_nm: float | None = Field(None, ge=0)


@dataclass(frozen=True)
class Labels:
    """Labels that were understood.

    Attributes:
        volume: (Z, Y, X) integers in the task's convention, in the voxels of the image; 0 where nothing is known.
        ignore: (Z, Y, X), non-zero where labels count neither as object nor as background; None without any.
        covered: the part of the image of which they say something.
        kind: what the values of the file mean.
        scan: what they hold; None if they were opened by a kind that was known.
        notes: what was understood, as sentences.
        questions: what looks unusual but may be right, as sentences.
    """

    volume: Volume
    ignore: Volume | None
    covered: Box
    kind: LabelKind
    scan: LabelScan | None = None
    notes: tuple[str, ...] = ()
    questions: tuple[str, ...] = ()


def open_labels(
    config: LabelsConfig, image: Volume, task: Task, min_voxels: int = 1, option: str = "--labels-kind instances"
) -> Labels:
    """Open labels, and find out their kind if the settings do not state it.

    Args:
        config: where they are.
        image: gives extent, place and voxel size.
        task: gives the label convention.
        min_voxels: pieces of a mask with fewer voxels count neither as object nor as background.
        option: by which a user states that they are instances, for errors.

    Raises:
        InputError: they cannot be read, do not fit the image, or are not what they seem (``label_scan.kind_of``).
    """
    if is_table(config.uri):
        return _open_points(config, image, task)
    _refuse_for_volumes(config)
    raw = _open(config.uri, config, image)
    covered = covered_box(raw)
    scan = None
    kind = config.kind
    if kind is None:
        scan = scan_labels(raw, covered, config.ignore_value)
        kind = _side_kind(scan, config, task, raw.uri, option)
    companion = open_ignore_mask(config.uri, raw.voxel_size_nm)
    ignore = _Ignored(raw, config.ignore_value, None if companion is None else place_on(companion, image))
    plain = raw if config.ignore_value is None and raw.dtype != bool else _Plain(raw, config.ignore_value)
    if config.post is not None:
        other = _open(config.post, config, image)
        volume: Volume = _Computed(plain, covered, _Joined(raw.uri, other, covered, kind == "instances"), 1)
        covered = covered.intersection(covered_box(other))
    elif kind == "instances":
        volume = plain
    elif kind == "sides":
        volume = _Computed(plain, covered, number_synapses, 1)
    else:
        volume = _Computed(plain, covered, number_pieces, min_voxels)
    if scan is not None and kind == "instances" and task.num_sides == 2:
        check_sides_lie_together(volume, covered, option)
    ignore.pieces = volume if isinstance(volume, _Computed) else None
    return Labels(
        volume,
        ignore if ignore.hides else None,
        covered,
        kind,
        scan,
        (*raw.metadata.notes, *_notes(kind, config, raw.uri)),
        tuple(questions(scan, raw.uri)) if scan else (),
    )


def _open_points(config: LabelsConfig, image: Volume, task: Task) -> Labels:
    """The points of a table as labels.

    Raises:
        InputError: the task has no sides, something is said that a table does not have, or the table does not fit.
    """
    uri = config.uri
    if task.num_sides != 2:
        raise InputError(
            f"{uri} is a table of points, from which only polarity can be learned: a point does not say how large an "
            f"object of {task.name} is. Pass a label volume, or use the table as --objects."
        )
    said = {"a kind": config.kind not in (None, "points"), "an ignored value": config.ignore_value is not None}
    said |= {"a postsynaptic volume": config.post is not None}
    if wrong := [name for name, is_said in said.items() if is_said]:
        raise InputError(f"{uri} is a table of points; {' and '.join(wrong)} can be stated for volumes only.")
    table = read_table_at(uri, config, image, task, "labels")
    radius_nm = POINT_RADIUS_NM if config.radius_nm is None else config.radius_nm
    rim_nm = RIM_NM if config.rim_nm is None else config.rim_nm
    points = PointLabels(table, image, uri, radius_nm=radius_nm, rim_nm=rim_nm)
    return Labels(
        PointVolume(points, image, uri, is_ignore=False),
        PointVolume(points, image, uri, is_ignore=True),
        image.box,
        "points",
        notes=(*table.understood, points.understood),
    )


def _refuse_for_volumes(config: LabelsConfig) -> None:
    """Raise InputError if something is said about a volume that only a table of points has."""
    if config.kind == "points" or config.says_how_to_read or (config.radius_nm, config.rim_nm) != (None, None):
        raise InputError(
            f"{config.uri} is read as a volume, and the kind points, radius_nm, rim_nm, columns, table_resolution_nm "
            f"and list_order are for tables. Leave them out, or pass a table that ends in .csv, .parquet or the like."
        )


def _open(uri: str, config: LabelsConfig, image: Volume) -> Volume:
    """One label volume, in the voxels of the image."""
    size = config.voxel_size_nm or (image.voxel_size_nm if states_no_voxel_size(uri) else None)
    volume = without_channel(open_volume(uri, size))
    if volume.dtype != bool:
        check_integers(volume)
    return place_on(volume, image)


def _side_kind(scan: LabelScan, config: LabelsConfig, task: Task, uri: str, option: str) -> LabelKind:
    """The kind of one volume; a volume of one side of synapses holds instances or a mask."""
    if config.post is None:
        return kind_of(scan, task, uri, option)
    return "mask" if len(scan.num_voxels) == 1 else "instances"


@dataclass(frozen=True)
class _Joined:
    """Turns the presynaptic labels of a box into synapses; an object and not a closure, so that it can be pickled."""

    pre_uri: str
    post: Volume
    covered: Box
    by_id: bool

    def __call__(self, pre: np.ndarray) -> np.ndarray:
        post = self.post.read(self.covered)
        uri = f"{self.pre_uri}, {self.post.uri}"
        return join_sides(pre, post, self.post.voxel_size_nm, by_id=self.by_id, uri=uri)


def _notes(kind: LabelKind, config: LabelsConfig, uri: str) -> list[str]:
    """What the kind means, as sentences."""
    if config.post is not None:
        how = "by equal ids" if kind == "instances" else "by nearness"
        return [f"{config.uri} is the presynaptic and {config.post} the postsynaptic side; they are joined {how}"]
    if kind == "mask":
        return [f"{uri} is a mask: its connected pieces are taken as instances"]
    if kind == "sides":
        return [f"{uri} marks presynaptic voxels by 1 and postsynaptic ones by 2: pieces that touch are one synapse"]
    return []


class _View(Volume):
    """A volume with the extent, place and voxel size of another one."""

    def __init__(self, volume: Volume, dtype: Any) -> None:
        self._volume = volume
        self.uri, self.shape_zyx, self.num_channels = volume.uri, volume.shape_zyx, 0
        self.voxel_size_nm, self.offset_nm = volume.voxel_size_nm, volume.offset_nm
        self.metadata, self.chunk_shape_zyx = volume.metadata, volume.chunk_shape_zyx
        self.dtype = np.dtype(dtype)

    @property
    def as_stored(self) -> Volume:
        return self._volume.as_stored

    def num_absent_chunks(self) -> tuple[int, int] | None:
        return self._volume.num_absent_chunks()


class _Plain(_View):
    """Labels with 0 in place of the ignored value, and booleans as 0 and 1."""

    def __init__(self, volume: Volume, ignore_value: int | None) -> None:
        super().__init__(volume, np.uint8 if volume.dtype == bool else volume.dtype)
        self._ignore_value = ignore_value

    def _read(self, box: Box) -> np.ndarray:
        array = self._volume.read(box).astype(self.dtype, copy=False)
        return array if self._ignore_value is None else np.where(array == self._ignore_value, 0, array)

    def __reduce__(self) -> Any:
        return _Plain, (self._volume, self._ignore_value)


class _Computed(_View):
    """Instances that are computed from all labels of a box at once, when the first of them is read.

    Args:
        volume: the labels as they are stored.
        covered: the box that holds labels.
        number: function from the (Z, Y, X) labels of that box to instances in the task's convention.
        min_voxels: instances with fewer voxels are left out; ``fragments`` shows them.
    """

    def __init__(self, volume: Volume, covered: Box, number: Callable[[np.ndarray], Any], min_voxels: int) -> None:
        super().__init__(volume, np.uint32)
        self._covered, self._number, self._min_voxels = covered, number, min_voxels
        if covered.num_voxels > MAX_NUMBERED_VOXELS:
            raise InputError(
                f"{volume.uri} is no volume of instances, and {covered.num_voxels:,} voxels are too many to number "
                f"here. Number its pieces with a tool for large volumes first, or pass labels of a smaller crop."
            )

    @cached_property
    def _found(self) -> tuple[np.ndarray, np.ndarray]:
        """(Z, Y, X) uint32 instances, and (Z, Y, X) bool fragments, over the covered box."""
        stored = self._volume.read(self._covered)
        result = np.asarray(self._number(stored), np.uint32)
        small = _small(result, self._min_voxels)
        fragments = ((stored > 0) & (result == 0)) | small
        result[small] = 0
        return result, fragments

    def _read(self, box: Box) -> np.ndarray:
        return self._cut(self._found[0], box)

    def fragments(self, box: Box) -> np.ndarray:
        """(Z, Y, X) bool: voxels of pieces that are too small to be an object."""
        return self._cut(self._found[1], box)

    def _cut(self, array: np.ndarray, box: Box) -> np.ndarray:
        result = np.zeros(box.shape_zyx, array.dtype)
        part = box.intersection(self._covered)
        if part.num_voxels:
            result[part.relative_to(box).slices] = array[part.relative_to(self._covered).slices]
        return result

    def __reduce__(self) -> Any:
        return _Computed, (self._volume, self._covered, self._number, self._min_voxels)


def _small(instances: np.ndarray, min_voxels: int) -> np.ndarray:
    """(Z, Y, X) bool: voxels of values with fewer than ``min_voxels`` voxels."""
    few = np.bincount(instances.ravel()) < min_voxels
    few[0] = False
    return few[instances]


class _Ignored(_View):
    """Where labels say nothing: the ignored value, the companion mask, fragments, and all that they do not cover."""

    def __init__(self, volume: Volume, ignore_value: int | None, companion: Volume | None) -> None:
        super().__init__(volume, np.uint8)
        self._ignore_value, self._companion = ignore_value, companion
        self.pieces: _Computed | None = None
        self._covered = covered_box(volume)

    @property
    def hides(self) -> bool:
        """Whether any voxel may be ignored."""
        given = self._ignore_value is not None or self._companion is not None or self.pieces is not None
        return given or self._covered != self.box

    def _read(self, box: Box) -> np.ndarray:
        hidden = np.ones(box.shape_zyx, bool)
        part = box.intersection(self._covered)
        if part.num_voxels:
            inside = np.zeros(part.shape_zyx, bool)
            if self._ignore_value is not None:
                inside |= self._volume.read(part) == self._ignore_value
            if self._companion is not None:
                inside |= self._companion.read(part) != 0
            if self.pieces is not None:
                inside |= self.pieces.fragments(part)
            hidden[part.relative_to(box).slices] = inside
        return hidden.astype(np.uint8)
