"""Boxes of voxels, grids of blocks, and the conversion from nanometres to voxels.

The axis order is always Z, Y, X. Boxes are half-open: they contain their first voxel but not the voxel at ``stop_zyx``.

Knows integers and nanometres; must not know files, volumes or tasks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from twostream.base.errors import InputError

Vector = tuple[int, int, int]


def _vector(values: Sequence[int], name: str) -> Vector:
    if len(values) == 3:
        z, y, x = values
        whole = int(z), int(y), int(x)
        if whole == (z, y, x):
            return whole
    raise InputError(f"{name} is {tuple(values)}; expected three whole numbers: Z, Y, X.")


@dataclass(frozen=True, order=True)
class Box:
    """A half-open box of voxels. Boxes are immutable and can be compared, sorted and used as dictionary keys.

    Args:
        offset_zyx: (z, y, x) of the first voxel; may be negative.
        shape_zyx: extent (z, y, x) in voxels, each >= 0.

    Raises:
        InputError: one of them is not three whole numbers, or an extent is negative.
    """

    offset_zyx: Vector
    shape_zyx: Vector

    def __post_init__(self) -> None:
        object.__setattr__(self, "offset_zyx", _vector(self.offset_zyx, "offset_zyx"))
        object.__setattr__(self, "shape_zyx", _vector(self.shape_zyx, "shape_zyx"))
        if min(self.shape_zyx) < 0:
            raise InputError(f"shape_zyx is {self.shape_zyx}; expected no negative number of voxels.")

    @classmethod
    def from_corners(cls, start_zyx: Sequence[int], stop_zyx: Sequence[int]) -> Box:
        """The box from ``start_zyx`` up to, but not including, ``stop_zyx``, both (z, y, x).

        Where stop <= start along an axis, the extent there is 0 and the box holds no voxel.
        """
        start = _vector(start_zyx, "start_zyx")
        stop = _vector(stop_zyx, "stop_zyx")
        return cls(start, tuple(max(0, b - a) for a, b in zip(start, stop, strict=True)))  # type: ignore[arg-type]

    @classmethod
    def whole(cls, shape_zyx: Sequence[int]) -> Box:
        """The box that covers an array of ``shape_zyx`` voxels, from (0, 0, 0)."""
        return cls((0, 0, 0), _vector(shape_zyx, "shape_zyx"))

    @classmethod
    def parse(cls, text: str) -> Box:
        """Parse ``Z0:Z1,Y0:Y1,X0:X1``, the notation of the command line and of the YAML file. ``str(box)`` writes it.

        Raises:
            InputError: the text has another form, or the box would hold no voxel.
        """
        try:
            spans = [tuple(int(v) for v in part.split(":")) for part in text.split(",")]
            if len(spans) != 3 or any(len(span) != 2 for span in spans):
                raise ValueError
        except ValueError:
            raise InputError(
                f"box is {text!r}; expected Z0:Z1,Y0:Y1,X0:X1 in voxels, for example 0:8,100:260,100:260."
            ) from None
        if any(stop <= start for start, stop in spans):
            raise InputError(f"box {text!r} holds no voxel; each stop must be larger than its start.")
        return cls.from_corners([s[0] for s in spans], [s[1] for s in spans])

    @property
    def stop_zyx(self) -> Vector:
        """(z, y, x) of the first voxel past the end along each axis."""
        z, y, x = (o + s for o, s in zip(self.offset_zyx, self.shape_zyx, strict=True))
        return z, y, x

    @property
    def middle(self) -> Box:
        """The voxel in the middle, as a box; along an axis with two, the later one. The box must hold a voxel."""
        z, y, x = (o + s // 2 for o, s in zip(self.offset_zyx, self.shape_zyx, strict=True))
        return Box((z, y, x), (1, 1, 1))

    @property
    def num_voxels(self) -> int:
        """Number of voxels in the box; 0 if it is empty."""
        return math.prod(self.shape_zyx)

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """Slices that cut this box out of a (Z, Y, X) array whose first element is voxel (0, 0, 0)."""
        z, y, x = (slice(a, b) for a, b in zip(self.offset_zyx, self.stop_zyx, strict=True))
        return z, y, x

    def shifted(self, by_zyx: Sequence[int]) -> Box:
        """The box moved by (z, y, x) voxels."""
        return Box(tuple(o + b for o, b in zip(self.offset_zyx, by_zyx, strict=True)), self.shape_zyx)  # type: ignore[arg-type]

    def relative_to(self, outer: Box) -> Box:
        """The same box in coordinates whose origin is the first voxel of ``outer``."""
        return self.shifted([-o for o in outer.offset_zyx])

    def grown(self, by_zyx: Sequence[int]) -> Box:
        """The box extended by (z, y, x) voxels on both sides of each axis; negative numbers shrink it."""
        return Box.from_corners(
            [a - b for a, b in zip(self.offset_zyx, by_zyx, strict=True)],
            [a + b for a, b in zip(self.stop_zyx, by_zyx, strict=True)],
        )

    def intersection(self, other: Box) -> Box:
        """The voxels that both boxes contain; an empty box if there are none."""
        return Box.from_corners(
            [max(a, b) for a, b in zip(self.offset_zyx, other.offset_zyx, strict=True)],
            [min(a, b) for a, b in zip(self.stop_zyx, other.stop_zyx, strict=True)],
        )

    def hull(self, other: Box) -> Box:
        """The smallest box that contains both boxes."""
        return Box.from_corners(
            [min(a, b) for a, b in zip(self.offset_zyx, other.offset_zyx, strict=True)],
            [max(a, b) for a, b in zip(self.stop_zyx, other.stop_zyx, strict=True)],
        )

    def intersects(self, other: Box) -> bool:
        """Whether the boxes have at least one voxel in common."""
        return self.intersection(other).num_voxels > 0

    def contains(self, other: Box) -> bool:
        """Whether ``other`` lies inside this box."""
        return self.intersection(other) == other

    def __str__(self) -> str:
        return ",".join(f"{a}:{b}" for a, b in zip(self.offset_zyx, self.stop_zyx, strict=True))


@dataclass(frozen=True)
class Block:
    """One unit of work, for example of a prediction.

    Attributes:
        read_box: the voxels that are read: the write box plus the context around it.
        write_box: the voxels that are written.
    """

    read_box: Box
    write_box: Box

    def __str__(self) -> str:
        return str(self.write_box)


def grid(box: Box, block_shape_zyx: Sequence[int], context_zyx: Sequence[int] = (0, 0, 0)) -> Iterator[Block]:
    """Divide ``box`` into blocks, in raster order.

    Args:
        box: the region to cover. The write boxes cover each of its voxels exactly once.
        block_shape_zyx: shape (z, y, x) of a write box in voxels, each >= 1; the last one along an axis may be smaller.
        context_zyx: voxels (z, y, x) by which the read box exceeds the write box on each side. The read box may reach
            outside ``box``.

    Yields:
        The blocks, x varying fastest.

    Raises:
        InputError: an extent in ``block_shape_zyx`` is below 1.
    """
    shape = _vector(block_shape_zyx, "block_shape_zyx")
    if min(shape) < 1:
        raise InputError(f"block_shape_zyx is {shape}; expected at least one voxel along each axis.")
    starts = [range(o, o + s, b) for o, s, b in zip(box.offset_zyx, box.shape_zyx, shape, strict=True)]
    for start in product(*starts):
        write_box = Box(_vector(start, "start"), shape).intersection(box)
        yield Block(write_box.grown(context_zyx), write_box)


def cells(box: Box, cell_zyx: Sequence[int]) -> Iterator[Vector]:
    """The cells of a regular grid that ``box`` touches.

    Args:
        box: must hold at least one voxel.
        cell_zyx: shape (z, y, x) of a grid cell in voxels. Cell (0, 0, 0) begins at voxel (0, 0, 0).

    Yields:
        Index (z, y, x) of each cell that has a voxel in common with ``box``, in raster order.
    """
    spans = [range(a // c, (b - 1) // c + 1) for a, b, c in zip(box.offset_zyx, box.stop_zyx, cell_zyx, strict=True)]
    return ((z, y, x) for z in spans[0] for y in spans[1] for x in spans[2])


ROWS_AT_ONCE = 1 << 15
"""Boxes that are looked up in the index together."""


def corners_of(boxes: Iterable[Box]) -> np.ndarray:
    """(N, 6) int64: z0, y0, x0, z1, y1, x1 of each box, half-open."""
    return np.array([[*box.offset_zyx, *box.stop_zyx] for box in boxes], np.int64).reshape(-1, 6)


def overlapping(corners: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Pairs of boxes that share a voxel.

    A spatial index avoids comparing all pairs. Its cells are twice as long as the boxes are in the mean, so that most
    boxes lie in few cells, and few boxes in a cell.

    Args:
        corners: (N, 6) int64 as ``corners_of``; each box holds at least one voxel.
        others: (M, 6) int64.

    Returns:
        (P, 2) int64: row in ``corners``, row in ``others``; sorted.
    """
    if not (len(corners) and len(others)):
        return np.zeros((0, 2), np.int64)
    lengths = [(boxes[:, 3:] - boxes[:, :3]).mean(0) for boxes in (corners, others)]
    cell_zyx = np.ceil(2 * np.maximum(*lengths)).astype(np.int64)
    key, row = _cells_of(others, cell_zyx)
    order = np.argsort(key, kind="stable")
    key, row = key[order], row[order]
    found = []
    for start in range(0, len(corners), ROWS_AT_ONCE):
        wanted, mine = _cells_of(corners[start : start + ROWS_AT_ONCE], cell_zyx)
        first, last = np.searchsorted(key, wanted, "left"), np.searchsorted(key, wanted, "right")
        number = last - first
        mine = np.repeat(mine, number) + start
        theirs = row[np.arange(len(mine)) + np.repeat(first - np.cumsum(number) + number, number)]
        one, other = corners[mine], others[theirs]
        meet = ((one[:, :3] < other[:, 3:]) & (other[:, :3] < one[:, 3:])).all(1)
        # Two boxes that meet in several cells are one pair.
        found.append(np.unique(np.stack([mine[meet], theirs[meet]], axis=1), axis=0))
    return np.concatenate(found)


def _cells_of(corners: np.ndarray, cell_zyx: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cells of the spatial index that each box touches: (K,) int64 key of a cell, and (K,) int64 row of the box."""
    low, high = corners[:, :3] // cell_zyx, (corners[:, 3:] - 1) // cell_zyx
    span = high - low + 1
    number = span.prod(1)
    row = np.repeat(np.arange(len(corners)), number)
    at = np.arange(len(row)) - np.repeat(np.cumsum(number) - number, number)
    _, height, width = span[row].T
    z, y, x = low[row].T + np.stack([at // (height * width), at // width % height, at % width])
    # 21 bits an axis: a volume of a million cells along each has its own key for every one.
    return (z << 42) + (y << 21) + x, row


def to_voxels(distance_nm: float | Sequence[float], voxel_size_nm: Sequence[float]) -> Vector:
    """Convert a distance from nanometres to voxels, rounded up.

    Args:
        distance_nm: one distance in nm for all axes, or one per axis (z, y, x).
        voxel_size_nm: (z, y, x) in nm.

    Returns:
        (z, y, x) in whole voxels.
    """
    distance = np.broadcast_to(np.asarray(distance_nm, float), (3,))
    # 1e-9: a quotient that is whole up to rounding error is not rounded up to the next voxel.
    z, y, x = (math.ceil(d / v - 1e-9) for d, v in zip(distance, voxel_size_nm, strict=True))
    return z, y, x
