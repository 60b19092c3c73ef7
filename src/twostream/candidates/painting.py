"""Painting: the objects of a table as a volume of labels.

A table knows an object's centre and perhaps its box, not its outline, so that an ellipsoid stands for it. Knows tables
of objects and voxel sizes; must not know files, projects or models.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from twostream.base.errors import InputError
from twostream.base.geometry import Box
from twostream.candidates.objects import Objects
from twostream.volume import Volume

NUM_NAMED = 5
"""Rows that an error names if many have the same fault."""


def paint(table: Objects, image: Volume, radius_nm: float) -> np.ndarray:
    """Draw every object as its ellipsoid.

    An object always gets the voxel nearest to the centre of its ellipsoid. A voxel in several ellipsoids goes to the
    object with the nearest centre; of equally near ones, to the earlier row.

    Args:
        table: the objects.
        image: gives shape and voxel size.
        radius_nm: radius of the ball for objects without a box.

    Returns:
        (Z, Y, X) uint32: the row number from 1 of the object at each voxel, 0 where there is none.
    """
    shape, size = np.array(image.shape_zyx), np.array(image.voxel_size_nm)
    owner = np.zeros(image.shape_zyx, np.uint32)
    middles, half_axes = _ellipsoids(table, radius_nm, size.tolist())
    nearest = np.minimum(np.round(middles).astype(np.int64), shape - 1)
    starts = np.maximum(np.minimum(np.ceil(middles - half_axes).astype(np.int64), nearest), 0)
    stops = np.minimum(np.maximum(np.floor(middles + half_axes).astype(np.int64), nearest) + 1, shape)
    for row, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        axes = np.ogrid[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]
        scaled = zip(axes, middles[row], half_axes[row], strict=True)
        inside = sum(((axis - middle) / half) ** 2 for axis, middle, half in scaled) <= 1
        inside[tuple(nearest[row] - start)] = True
        window = owner[Box.from_corners(start.tolist(), stop.tolist()).slices]
        contested = inside & (window > 0)
        if contested.any():
            at = np.argwhere(contested) + start
            to_this, to_other = (
                (((at - center) * size) ** 2).sum(1)
                for center in (table.center[row], table.center[window[contested] - 1])
            )
            inside[contested] = to_this < to_other
        window[inside] = row + 1
    return owner


def refuse_hidden(table: Objects, owner: np.ndarray, uri: str) -> None:
    """Check that every object has at least one voxel; otherwise it would silently not be proposed.

    Args:
        table: the objects.
        owner: as ``paint`` returns it.
        uri: of the table, for the error message.

    Raises:
        InputError: an object is covered completely by objects with nearer centres.
    """
    left = np.bincount(owner.ravel(), minlength=len(table.ids) + 1)[1:]
    hidden = np.flatnonzero(left == 0)
    if len(hidden):
        named = ", ".join(f"{row + 1} (id {table.ids[row]})" for row in hidden[:NUM_NAMED])
        more = f" and {len(hidden) - NUM_NAMED} more" if len(hidden) > NUM_NAMED else ""
        raise InputError(
            f"{uri}: row {named}{more}: no voxel is left, because objects with nearer centres cover it; a voxel of "
            f"overlapping objects goes to the nearest centre. Remove duplicates, give boxes, or set a smaller "
            f"source.radius_nm."
        )


def with_sides(table: Objects, owner: np.ndarray, voxel_size_nm: Sequence[float]) -> np.ndarray:
    """Divide drawn objects into a presynaptic and a postsynaptic side.

    A voxel is presynaptic if it is nearer to the object's presynaptic point than to the postsynaptic one. If the table
    has no points, whole objects become presynaptic sides, because a mask needs some side.

    Args:
        table: the objects.
        owner: as ``paint`` returns it: (Z, Y, X) row numbers n from 1, 0 outside.
        voxel_size_nm: (z, y, x) nm.

    Returns:
        (Z, Y, X) uint32: 2n-1 on presynaptic and 2n on postsynaptic sides.
    """
    painted = 2 * owner - (owner > 0)
    if table.pre is not None and table.post is not None:
        at = np.argwhere(owner)
        rows = owner[tuple(at.T)] - 1
        to_pre, to_post = (
            (((at - point[rows]) * np.asarray(voxel_size_nm)) ** 2).sum(1) for point in (table.pre, table.post)
        )
        painted[tuple(at.T)] = 2 * (rows + 1) - (to_pre < to_post)
    return painted.astype(np.uint32)


def _ellipsoids(table: Objects, radius_nm: float, voxel_size_nm: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """The ellipsoids that stand for the objects: inscribed in the boxes, or else balls.

    Args:
        table: the objects.
        radius_nm: of the balls.
        voxel_size_nm: (z, y, x) nm.

    Returns:
        Centres and half axes, (N, 3) float z, y, x each, in voxels.
    """
    if table.box is None:
        return table.center, np.broadcast_to(radius_nm / np.asarray(voxel_size_nm), table.center.shape)
    start, stop = table.box[:, :3], table.box[:, 3:]
    return (start + stop - 1) / 2, (stop - start) / 2
