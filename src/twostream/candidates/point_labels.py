"""Point annotations of synapses as labels to learn polarity from.

A table knows points, not outlines: a small ball around each is certain, and what lies around them is unknown. Knows
tables of objects and voxel sizes; must not know files, projects or models.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from twostream.base.errors import InputError
from twostream.base.geometry import Box
from twostream.candidates.objects import Objects
from twostream.volume import Volume

POINT_RADIUS_NM = 60.0
"""Radius of the ball around a point on one side: inside the process that the point lies in, even where that is a thin
neurite, which is about 100 nm thick."""
RIM_NM = 250.0
"""How far a synapse may reach from the line between its points; a contact is 200 to 500 nm wide."""
CLEFT_NM = 20.0
"""Width of the cleft, which belongs to neither side."""
Places = tuple[np.ndarray, ...]
"""Places of voxels in nm: open grids of z, y and x."""


class PointLabels:
    """Point annotations of synapses as labels for polarity, painted box by box.

    A ball around the presynaptic and one around the postsynaptic point are certain. The centre lies in the cleft: the
    plane through it, across the line between the points, divides the two sides, and voxels within half a cleft of it
    belong to none (if the centre does not lie between the points, the plane lies half-way). The extent of a synapse is
    not known from points, so everything else within ``rim_nm`` of the line between them is unknown. Beyond, there is no
    synapse: the table must list all of the region that is learned from. A voxel in several balls goes to the nearest
    point. Rows with the same presynaptic point, as in the polyadic synapses of insects, are one synapse with several
    postsynaptic balls.

    Args:
        table: the objects, with both points.
        image: gives shape and voxel size.
        uri: of the table, for error messages.
        radius_nm: of the balls.
        rim_nm: distance from the line between the points within which the rest is unknown.

    Attributes:
        num_synapses: synapses of the whole table; rows with one presynaptic point are one synapse.
        understood: a sentence that says how the points are painted.

    Raises:
        InputError: the table has only centres, or points of two sides lie in one voxel, or a radius is not positive.
    """

    def __init__(
        self,
        table: Objects,
        image: Volume,
        uri: str,
        *,
        radius_nm: float = POINT_RADIUS_NM,
        rim_nm: float = RIM_NM,
    ) -> None:
        if table.pre is None or table.post is None:
            raise InputError(
                f"{uri} has only centres; labels for polarity need a presynaptic and a postsynaptic point of every "
                f"synapse. Add the columns pre_z, pre_y, pre_x, post_z, post_y, post_x, or use it as --objects."
            )
        if not (radius_nm > 0 and rim_nm >= 0):
            raise InputError(
                f"radius {radius_nm:g} nm, rim {rim_nm:g} nm; expected a radius above 0 and a rim of at least 0."
            )
        self._points = table.pre, table.post, table.center
        self._size, self._radius_nm, self._rim_nm = np.array(image.voxel_size_nm), radius_nm, rim_nm
        last = np.array(image.shape_zyx) - 1
        self._voxels = [np.minimum(np.round(points).astype(np.int64), last) for points in self._points[:2]]
        self._synapse = _synapses(self._voxels[0])
        _refuse_shared_voxels(self._voxels, self._synapse, table, uri)
        self.num_synapses = int(self._synapse.max())
        merged = ""
        if self.num_synapses < len(self._synapse):
            merged = f" ({len(self._synapse)} rows, some with one presynaptic point)"
        self.understood = (
            f"{self.num_synapses} synapses{merged} as labels: balls of {radius_nm:g} nm around the points; unknown "
            f"within {rim_nm:g} nm of the line between them; background elsewhere"
        )

    def paint(self, box: Box) -> tuple[np.ndarray, np.ndarray]:
        """Labels of a box; those of several boxes fit together.

        Returns:
            (Z, Y, X) uint32: 2n-1 on the presynaptic and 2n on the postsynaptic side of synapse n, 0 elsewhere. And
            (Z, Y, X) bool: True where it is unknown whether there is a side, so that nothing is learned there.
        """
        rows = np.flatnonzero(self._near(box))
        if len(rows) == 0:
            return np.zeros(box.shape_zyx, np.uint32), np.zeros(box.shape_zyx, bool)
        canvas = _Canvas(box, self._size, self._radius_nm, self._rim_nm)
        for row in rows:
            canvas.add(int(self._synapse[row]), *(points[row] for points in self._points))
        for side, points in enumerate(self._voxels):
            inside = ((points >= box.offset_zyx) & (points < box.stop_zyx)).all(1)
            canvas.labels[tuple((points[inside] - box.offset_zyx).T)] = 2 * self._synapse[inside] - 1 + side
        return canvas.labels, canvas.near & (canvas.labels == 0)

    def _near(self, box: Box) -> np.ndarray:
        """(N,) bool: rows that may reach into a box."""
        reach = max(self._radius_nm, self._rim_nm) / self._size + 1
        pre, post, _ = self._points
        low, high = np.minimum(pre, post) - reach, np.maximum(pre, post) + reach
        return np.asarray(((low < box.stop_zyx) & (high >= box.offset_zyx)).all(1))


class PointVolume(Volume):
    """One of the two arrays of ``PointLabels.paint`` as a volume, painted where it is read.

    Args:
        points: what is painted.
        image: gives extent, place and voxel size.
        uri: of the table.
        is_ignore: whether it is the unknown part and not the labels.
    """

    def __init__(self, points: PointLabels, image: Volume, uri: str, *, is_ignore: bool) -> None:
        self.uri, self.shape_zyx, self.num_channels = uri, image.shape_zyx, 0
        self.voxel_size_nm, self.offset_nm = image.voxel_size_nm, image.offset_nm
        self.dtype = np.dtype(np.uint8 if is_ignore else np.uint32)
        self._points, self._is_ignore = points, is_ignore

    def _read(self, box: Box) -> np.ndarray:
        return self._points.paint(box)[self._is_ignore].astype(self.dtype, copy=False)


class _Canvas:
    """Labels of a box while they are painted.

    Args:
        box: in voxels of the image.
        size: (z, y, x) nm of a voxel.
        radius_nm, rim_nm: as in ``PointLabels``.

    Attributes:
        labels: (Z, Y, X) uint32.
        near: (Z, Y, X) bool: within ``rim_nm`` of the line between two points.
    """

    def __init__(self, box: Box, size: np.ndarray, radius_nm: float, rim_nm: float) -> None:
        self.box, self.size, self.radius_nm, self.rim_nm = box, size, radius_nm, rim_nm
        self.labels = np.zeros(box.shape_zyx, np.uint32)
        self.near = np.zeros(box.shape_zyx, bool)
        self._known = np.full(box.shape_zyx, np.inf)  # squared nm to the nearest point so far

    def add(self, synapse: int, pre: np.ndarray, post: np.ndarray, center: np.ndarray) -> None:
        """Paint the two sides of one row.

        Args:
            synapse: its number.
            pre, post, center: (3,) z, y, x in voxels of the image.
        """
        pre, post = pre * self.size, post * self.size
        cleft = _cleft(pre, post, center * self.size)
        ends = np.stack([pre, post])
        for place, window in self._window(ends, self.rim_nm):
            self.near[window] |= _squared_to_line(place, pre, post) <= self.rim_nm**2
        for side, point in enumerate(ends):
            for place, window in self._window(point[None], self.radius_nm):
                distance = _squared_distance(place, point)
                past_cleft = (_along(place, pre, post) - cleft) * (2 * side - 1)
                won = (distance <= self.radius_nm**2) & (past_cleft >= CLEFT_NM / 2) & (distance < self._known[window])
                self.labels[window][won] = 2 * synapse - 1 + side
                self._known[window][won] = distance[won]

    def _window(self, points: np.ndarray, reach_nm: float) -> Iterator[tuple[Places, tuple[slice, ...]]]:
        """The part of the box within ``reach_nm`` of the (N, 3) points, in nm, and their hull; none if it is empty.

        Yields:
            The places of its voxels in nm, one open grid per axis; and its slices in the box.
        """
        start = np.maximum(np.floor((points.min(0) - reach_nm) / self.size).astype(int), self.box.offset_zyx)
        stop = np.minimum(np.ceil((points.max(0) + reach_nm) / self.size).astype(int) + 1, self.box.stop_zyx)
        if (stop > start).all():
            axes = np.ix_(*(np.arange(a, b) * size for a, b, size in zip(start, stop, self.size, strict=True)))
            yield axes, Box.from_corners(start.tolist(), stop.tolist()).relative_to(self.box).slices


def _synapses(pre: np.ndarray) -> np.ndarray:
    """(N,) numbers from 1, in the order of the rows; rows whose (N, 3) presynaptic voxels are equal have the same."""
    _, first, inverse = np.unique(pre, axis=0, return_index=True, return_inverse=True)
    return (np.argsort(np.argsort(first)) + 1)[inverse.ravel()]


def _refuse_shared_voxels(voxels: list[np.ndarray], synapse: np.ndarray, table: Objects, uri: str) -> None:
    """Raise InputError if one voxel would belong to two sides, so that one of them might be left with none."""
    owner: dict[tuple[int, ...], tuple[int, int]] = {}
    for side, points in enumerate(voxels):
        for row, voxel in enumerate(map(tuple, points.tolist())):
            label = 2 * int(synapse[row]) - 1 + side
            other, before = owner.setdefault(voxel, (label, row))
            if other != label:
                name = ("presynaptic", "postsynaptic")[side]
                raise InputError(
                    f"{uri}: row {row + 1} (id {table.ids[row]}) has its {name} point in the voxel {voxel} (Z, Y, X), "
                    f"where row {before + 1} (id {table.ids[before]}) has a point of another side. One voxel has one "
                    f"label: remove one of the rows."
                )


def _squared_distance(place: Places, point: np.ndarray) -> np.ndarray:
    """(Z, Y, X) squared nm from every place to a (3,) point."""
    return sum(((axis - value) ** 2 for axis, value in zip(place, point, strict=True)), np.zeros(1))


def _along(place: Places, pre: np.ndarray, post: np.ndarray) -> np.ndarray:
    """(Z, Y, X) nm along the line from ``pre`` to ``post``, counted from ``pre``."""
    direction = (post - pre) / np.linalg.norm(post - pre)
    parts = ((axis - value) * part for axis, value, part in zip(place, pre, direction, strict=True))
    return sum(parts, np.zeros(1))


def _squared_to_line(place: Places, pre: np.ndarray, post: np.ndarray) -> np.ndarray:
    """(Z, Y, X) squared nm to the nearest place between ``pre`` and ``post``."""
    along = _along(place, pre, post)
    nearest = np.clip(along, 0, np.linalg.norm(post - pre))
    return _squared_distance(place, pre) - nearest * (2 * along - nearest)


def _cleft(pre: np.ndarray, post: np.ndarray, center: np.ndarray) -> float:
    """nm from ``pre`` along the line to ``post`` at which the cleft lies: at the centre if that is between them."""
    length = float(np.linalg.norm(post - pre))
    along = float((center - pre) @ (post - pre)) / length
    return along if 0 < along < length else length / 2
