"""Many boxes of one volume, each chunk read once however many boxes touch it.

Knows volumes and boxes; must not know what the boxes hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from twostream.base.errors import VolumeError
from twostream.base.geometry import Box, Vector, cells
from twostream.volume.volume import Volume, pad_to, read_padded

MIN_VOXELS_AT_ONCE = 1 << 20
"""Smaller chunks are read several at a time: what a call costs then no longer shows."""


def read_windows(volume: Volume, boxes: Sequence[Box]) -> Iterator[tuple[int, np.ndarray]]:
    """The voxels of every box, in the order in which they become complete.

    Only chunks that a box touches are visited, slab by slab along the axis that has most of them. A window is held from
    its first chunk to its last one, so what is in memory are the windows that straddle two of the thinnest slabs.

    Args:
        volume: (Z, Y, X) or (C, Z, Y, X).
        boxes: may reach outside the volume, which is mirrored at its faces there; may overlap each other.

    Yields:
        Row of the box in ``boxes``, and its voxels as ``read_padded`` would give them.

    Raises:
        VolumeError: a box and the volume share no voxel.
    """
    if volume.chunk_shape_zyx is None:  # nothing is stored in pieces, so nothing could be read twice
        for row, box in enumerate(boxes):
            yield row, read_padded(volume, box)
        return
    cell = _cell(volume.chunk_shape_zyx, volume.shape_zyx)
    inside = [box.intersection(volume.box) for box in boxes]
    touching: dict[Vector, list[int]] = {}
    missing = [0] * len(boxes)
    for row, box in enumerate(inside):
        if box.num_voxels == 0:
            raise VolumeError(f"box {boxes[row]} lies wholly outside {volume.uri}, which holds {volume.box}.")
        for place in cells(box, cell):
            touching.setdefault(place, []).append(row)
            missing[row] += 1
    windows: dict[int, np.ndarray] = {}
    order = sorted(range(3), key=lambda axis: -volume.shape_zyx[axis] / cell[axis])
    for z, y, x in sorted(touching, key=lambda place: [place[axis] for axis in order]):
        whole = Box((z * cell[0], y * cell[1], x * cell[2]), cell).intersection(volume.box)
        array = volume.read(whole)
        for row in touching.pop((z, y, x)):
            if row not in windows:
                windows[row] = np.empty((*array.shape[:-3], *inside[row].shape_zyx), array.dtype)
            part = whole.intersection(inside[row])
            windows[row][(..., *part.relative_to(inside[row]).slices)] = array[(..., *part.relative_to(whole).slices)]
            missing[row] -= 1
            if missing[row] == 0:
                yield row, pad_to(windows.pop(row), inside[row], boxes[row])


def _cell(chunk_zyx: Vector, shape_zyx: Vector) -> Vector:
    """What is read at once: whole chunks, cubes of them as far as the volume allows."""
    cell, limit = list(chunk_zyx), [-(-s // c) * c for s, c in zip(shape_zyx, chunk_zyx, strict=True)]
    while np.prod(cell) < MIN_VOXELS_AT_ONCE and any(c < m for c, m in zip(cell, limit, strict=True)):
        # The axis with the fewest chunks in the cell, the fastest one first: rows of a file lie together.
        axis = min((a for a in range(3) if cell[a] < limit[a]), key=lambda a: (cell[a] // chunk_zyx[a], -a))
        cell[axis] *= 2
    z, y, x = cell
    return z, y, x
