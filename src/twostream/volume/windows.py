"""Reading many boxes of one volume, or writing all of it, so that each chunk is read, or written, only once.

Knows volumes and boxes; must not know what the boxes show.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from twostream.base.errors import VolumeError
from twostream.base.geometry import Box, Vector, cells, grid
from twostream.volume.volume import Volume, pad_to, read_padded

MIN_VOXELS_AT_ONCE = 1 << 20
"""Smaller chunks are read several at a time, so that the cost of a call to ``Volume.read`` is negligible."""
USUAL_CHUNK_ZYX = (16, 128, 128)
"""Stands for the chunks of a volume that has none, where neighbouring boxes are to be read together."""


def read_windows(volume: Volume, boxes: Sequence[Box]) -> Iterator[tuple[int, np.ndarray]]:
    """Read many boxes of a volume, in the order in which their last chunk is read.

    Only chunks that overlap a box are read, in slabs perpendicular to the axis with the most chunks. A box is kept in
    memory from its first chunk to its last, so memory holds only boxes that overlap the current slab.

    Args:
        volume: (Z, Y, X) or (C, Z, Y, X).
        boxes: may overlap each other and may reach outside the volume; voxels outside are mirrored at its faces.

    Yields:
        Index of the box in ``boxes``, and the array that ``read_padded`` returns for it.

    Raises:
        VolumeError: a box and the volume have no voxel in common.
    """
    if volume.chunk_shape_zyx is None:  # without chunks, nothing is decoded twice
        for row, box in enumerate(boxes):
            yield row, read_padded(volume, box)
        return
    cell = read_shape(volume)
    whole = volume.box
    inside = [box.intersection(whole) for box in boxes]
    touching: dict[Vector, list[int]] = {}
    remaining = [0] * len(boxes)
    for row, box in enumerate(inside):
        if box.num_voxels == 0:
            raise VolumeError(f"box {boxes[row]} lies wholly outside {volume.uri}, which holds {volume.box}.")
        for index in cells(box, cell):
            touching.setdefault(index, []).append(row)
            remaining[row] += 1
    windows: dict[int, np.ndarray] = {}
    order = sorted(range(3), key=lambda axis: -volume.shape_zyx[axis] / cell[axis])
    for z, y, x in sorted(touching, key=lambda index: [index[axis] for axis in order]):
        read_box = Box((z * cell[0], y * cell[1], x * cell[2]), cell).intersection(whole)
        array = volume.read(read_box)
        for row in touching.pop((z, y, x)):
            if row not in windows:
                windows[row] = np.empty((*array.shape[:-3], *inside[row].shape_zyx), array.dtype)
            part = read_box.intersection(inside[row])
            target, source = part.relative_to(inside[row]), part.relative_to(read_box)
            windows[row][(..., *target.slices)] = array[(..., *source.slices)]
            remaining[row] -= 1
            if remaining[row] == 0:
                yield row, pad_to(windows.pop(row), inside[row], boxes[row])


def whole_chunks(volume: Volume) -> Iterator[Box]:
    """Boxes of whole chunks that cover a volume, in raster order: written box by box, no chunk is written twice.

    A volume without chunks is covered by whole sections.
    """
    sections = max(1, MIN_VOXELS_AT_ONCE // max(1, volume.shape_zyx[1] * volume.shape_zyx[2])), *volume.shape_zyx[1:]
    cell = sections if volume.chunk_shape_zyx is None else read_shape(volume)
    return (block.write_box for block in grid(volume.box, cell))


def read_shape(volume: Volume) -> Vector:
    """Shape (z, y, x) of the box that is read at once: whole chunks, about equally many along each axis."""
    chunk_zyx = volume.chunk_shape_zyx or USUAL_CHUNK_ZYX
    cell, limit = list(chunk_zyx), [-(-s // c) * c for s, c in zip(volume.shape_zyx, chunk_zyx, strict=True)]
    while np.prod(cell) < MIN_VOXELS_AT_ONCE and any(c < m for c, m in zip(cell, limit, strict=True)):
        # Extend the axis with the fewest chunks; among equals X first, then Y, as the storage order is Z, Y, X.
        axis = min((a for a in range(3) if cell[a] < limit[a]), key=lambda a: (cell[a] // chunk_zyx[a], -a))
        cell[axis] *= 2
    z, y, x = cell
    return z, y, x
