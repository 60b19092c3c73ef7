"""Boxes of voxels and grids of blocks. Always ZYX, whole voxels, half-open.

Knows integers and nanometres; must not know files, arrays on disk or tasks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
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
    """A half-open box of voxels.

    Args:
        offset_zyx: first voxel, (z, y, x); may be negative.
        shape_zyx: extent in voxels, (z, y, x), each >= 0.

    Raises:
        InputError: not three whole numbers, or a negative extent.
    """

    offset_zyx: Vector
    shape_zyx: Vector

    def __post_init__(self) -> None:
        object.__setattr__(self, "offset_zyx", _vector(self.offset_zyx, "offset_zyx"))
        object.__setattr__(self, "shape_zyx", _vector(self.shape_zyx, "shape_zyx"))
        if min(self.shape_zyx) < 0:
            raise InputError(f"shape_zyx is {self.shape_zyx}; expected no negative extent.")

    @classmethod
    def from_corners(cls, start_zyx: Sequence[int], stop_zyx: Sequence[int]) -> Box:
        """Box from its first voxel to one past its last, (z, y, x) each; empty where stop <= start."""
        start = _vector(start_zyx, "start_zyx")
        stop = _vector(stop_zyx, "stop_zyx")
        return cls(start, tuple(max(0, b - a) for a, b in zip(start, stop, strict=True)))  # type: ignore[arg-type]

    @classmethod
    def whole(cls, shape_zyx: Sequence[int]) -> Box:
        """The box of an array of ``shape_zyx``."""
        return cls((0, 0, 0), _vector(shape_zyx, "shape_zyx"))

    @classmethod
    def parse(cls, text: str) -> Box:
        """Read ``Z0:Z1,Y0:Y1,X0:X1``, the form of the command line and the YAML.

        Raises:
            InputError: another form, or a box without voxels.
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
        """One past the last voxel, (z, y, x)."""
        z, y, x = (o + s for o, s in zip(self.offset_zyx, self.shape_zyx, strict=True))
        return z, y, x

    @property
    def num_voxels(self) -> int:
        return math.prod(self.shape_zyx)

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """Slices that cut this box out of an array whose first voxel is (0, 0, 0)."""
        z, y, x = (slice(a, b) for a, b in zip(self.offset_zyx, self.stop_zyx, strict=True))
        return z, y, x

    def shifted(self, by_zyx: Sequence[int]) -> Box:
        return Box(tuple(o + b for o, b in zip(self.offset_zyx, by_zyx, strict=True)), self.shape_zyx)  # type: ignore[arg-type]

    def relative_to(self, outer: Box) -> Box:
        """The same voxels, counted from the first voxel of ``outer``."""
        return self.shifted([-o for o in outer.offset_zyx])

    def grown(self, by_zyx: Sequence[int]) -> Box:
        """Larger by ``by_zyx`` voxels on both sides of each axis (smaller where negative)."""
        return Box.from_corners(
            [a - b for a, b in zip(self.offset_zyx, by_zyx, strict=True)],
            [a + b for a, b in zip(self.stop_zyx, by_zyx, strict=True)],
        )

    def intersection(self, other: Box) -> Box:
        """The common voxels; a box without voxels where there are none."""
        return Box.from_corners(
            [max(a, b) for a, b in zip(self.offset_zyx, other.offset_zyx, strict=True)],
            [min(a, b) for a, b in zip(self.stop_zyx, other.stop_zyx, strict=True)],
        )

    def hull(self, other: Box) -> Box:
        """The smallest box that holds both."""
        return Box.from_corners(
            [min(a, b) for a, b in zip(self.offset_zyx, other.offset_zyx, strict=True)],
            [max(a, b) for a, b in zip(self.stop_zyx, other.stop_zyx, strict=True)],
        )

    def intersects(self, other: Box) -> bool:
        return self.intersection(other).num_voxels > 0

    def contains(self, other: Box) -> bool:
        return self.intersection(other) == other

    def __str__(self) -> str:
        return ",".join(f"{a}:{b}" for a, b in zip(self.offset_zyx, self.stop_zyx, strict=True))


@dataclass(frozen=True)
class Block:
    """One unit of work: what it reads (with context) and what it writes."""

    read_box: Box
    write_box: Box


def grid(box: Box, block_shape_zyx: Sequence[int], context_zyx: Sequence[int] = (0, 0, 0)) -> Iterator[Block]:
    """Cut ``box`` into blocks in raster order; write boxes tile it, read boxes add the context.

    Args:
        box: what the write boxes cover, each voxel once.
        block_shape_zyx: voxels per write box, each > 0; the last along an axis may be smaller.
        context_zyx: voxels added on each side of the read box. It may reach past ``box``.

    Raises:
        InputError: a block extent below 1.
    """
    shape = _vector(block_shape_zyx, "block_shape_zyx")
    if min(shape) < 1:
        raise InputError(f"block_shape_zyx is {shape}; expected at least one voxel along each axis.")
    starts = [range(o, o + s, b) for o, s, b in zip(box.offset_zyx, box.shape_zyx, shape, strict=True)]
    for start in product(*starts):
        write_box = Box(_vector(start, "start"), shape).intersection(box)
        yield Block(write_box.grown(context_zyx), write_box)


def cells(box: Box, cell_zyx: Sequence[int]) -> Iterator[Vector]:
    """Numbers (z, y, x) of the cells of ``cell_zyx`` voxels, counted from voxel 0, that hold a voxel of ``box``."""
    spans = [range(a // c, (b - 1) // c + 1) for a, b, c in zip(box.offset_zyx, box.stop_zyx, cell_zyx, strict=True)]
    return ((z, y, x) for z in spans[0] for y in spans[1] for x in spans[2])


def to_voxels(distance_nm: float | Sequence[float], voxel_size_nm: Sequence[float]) -> Vector:
    """Whole voxels that cover ``distance_nm`` along Z, Y, X (rounded up)."""
    distance = np.broadcast_to(np.asarray(distance_nm, float), (3,))
    z, y, x = (math.ceil(d / v - 1e-9) for d, v in zip(distance, voxel_size_nm, strict=True))
    return z, y, x
