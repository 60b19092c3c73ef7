"""Connected components of a mask that is too large for one array: labelled block by block, joined across blocks.

Every block is labelled together with the first plane of voxels behind it along each axis. Two voxels that touch each
other, even across an edge or a corner of blocks, then lie in one such array, and a voxel that two blocks see joins the
components that they gave it to. So the result is that of the whole volume, for any shape of the blocks.

Knows masks and boxes; must not know what a mask shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cc3d
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from twostream.base.geometry import Box

Vector = tuple[int, int, int]


def seen_by(block: Box, whole: Box) -> Box:
    """The voxels in which the components of a block are labelled: its own, and one plane behind it along each axis."""
    return Box(block.offset_zyx, tuple(n + 1 for n in block.shape_zyx)).intersection(whole)  # type: ignore[arg-type]


def closed(mask: np.ndarray, gap_zyx: Sequence[int]) -> np.ndarray:
    """A (Z, Y, X) bool mask, widened so that parts of it with a distance of at most ``gap_zyx`` voxels touch.

    Its result is right from ``margin`` voxels inside its faces on.
    """
    for axis, margin in enumerate(margin_for(gap_zyx)):
        widened = mask.copy() if margin else mask
        for step in range(1, margin + 1):
            here, there = (np.moveaxis(one, axis, 0) for one in (widened, mask))
            here[step:] |= there[:-step]
            here[:-step] |= there[step:]
        mask = widened
    return mask


def margin_for(gap_zyx: Sequence[int]) -> Vector:
    """By how many voxels (z, y, x) both parts must be widened for a gap; voxels that touch have a distance of 1."""
    z, y, x = (gap // 2 for gap in gap_zyx)
    return z, y, x


THIN = 3
"""cc3d 4.1 expects fewer components than bool masks with so few voxels along an axis can have, and then fails."""


def components(mask: np.ndarray, connectivity: int = 26) -> np.ndarray:
    """Connected components of a mask that fits into memory.

    Args:
        mask: (Z, Y, X) bool.
        connectivity: 6, 18 or 26 neighbours.

    Returns:
        (Z, Y, X) uint32 labels 1..N in raster order of their first voxels, 0 = background.
    """
    given = np.ascontiguousarray(mask)  # cc3d misreads strides of thin masks
    if min(mask.shape) <= THIN:
        given = given.view(np.uint8)  # slower, with room for every component
    return cc3d.connected_components(given, connectivity=connectivity, out_dtype=np.uint32)


@dataclass(frozen=True)
class Components:
    """The components of one block, by their labels 1..N.

    Attributes:
        seen: ``seen_by`` of the block.
        boxes: (N, 6) int64, first voxel and stop (z, y, x) of each, over ``seen``, in voxels of the volume.
        voxel: (M,) int64, voxels that another block sees as well, and one of each large component, as raster numbers in
            the volume; some may occur twice.
        label: (M,) int64, of which component each of them is.
    """

    seen: Box
    boxes: np.ndarray
    voxel: np.ndarray
    label: np.ndarray

    @property
    def is_open(self) -> np.ndarray:
        """(N + 1,) bool by label: whether a component may go on in another block, or is large; False for 0."""
        result = np.zeros(len(self.boxes) + 1, bool)
        result[self.label] = True
        return result


def label_block(
    mask: np.ndarray, block: Box, whole: Box, connectivity: int = 26, *, large: int | None = None
) -> tuple[np.ndarray, Components]:
    """Label the components of a block.

    Args:
        mask: (Z, Y, X) bool over ``seen_by(block, whole)``.
        block: in voxels of the volume.
        whole: the volume, or the part of it that is divided into blocks.
        connectivity: 6, 18 or 26 neighbours.
        large: components whose box holds more voxels count as such that may go on in another block; None: none does.

    Returns:
        (Z, Y, X) uint32 labels 1..N in raster order of their first voxels, and what is needed to join them.
    """
    seen = seen_by(block, whole)
    labels = components(mask, connectivity)
    corners = cc3d.statistics(labels, no_slice_conversion=True)["bounding_boxes"][1:].astype(np.int64)
    starts, stops = corners[:, 0::2], corners[:, 1::2] + 1
    boxes = np.concatenate([starts, stops], axis=1) + np.tile(np.array(seen.offset_zyx, np.int64), 2)
    voxels, names = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for plane in _shared_planes(block, seen, whole):
        found = labels[plane.relative_to(seen).slices]
        where = np.nonzero(found)
        at = [i + p - w for i, p, w in zip(where, plane.offset_zyx, whole.offset_zyx, strict=True)]
        voxels.append(np.ravel_multi_index(at, whole.shape_zyx).astype(np.int64))
        names.append(found[where].astype(np.int64))
    if large is not None:
        for label in np.flatnonzero((stops - starts).prod(1) > large).tolist():
            box = tuple(slice(a, b) for a, b in zip(starts[label], stops[label], strict=True))
            first = np.unravel_index(int(np.argmax(labels[box] == label + 1)), labels[box].shape)
            at = [
                i + s + o - w
                for i, s, o, w in zip(first, starts[label], seen.offset_zyx, whole.offset_zyx, strict=True)
            ]
            voxels.append(np.ravel_multi_index(at, whole.shape_zyx).reshape(1).astype(np.int64))
            names.append(np.array([label + 1], np.int64))
    return labels, Components(seen, boxes, np.concatenate(voxels), np.concatenate(names))


def _shared_planes(block: Box, seen: Box, whole: Box) -> Iterator[Box]:
    """The planes of ``seen`` that another block sees as well: the block's first ones, and those behind it."""
    for axis in range(3):
        start, stop = block.offset_zyx[axis], block.stop_zyx[axis]
        for first, is_shared in ((start, start > whole.offset_zyx[axis]), (stop, seen.stop_zyx[axis] > stop)):
            if is_shared:
                offset, shape = list(seen.offset_zyx), list(seen.shape_zyx)
                offset[axis], shape[axis] = first, 1
                yield Box(tuple(offset), tuple(shape))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Joined:
    """Components of all blocks that go on in other blocks, joined, and large ones.

    Attributes:
        boxes: (K, 6) int64, first voxel and stop (z, y, x) of each, in voxels of the volume.
        voxel: (K, 3) int64, one voxel (z, y, x) of each.
        number_of: of every block, (N + 1,) int64: the row of each of its components; -1 for those that end in it.
    """

    boxes: np.ndarray
    voxel: np.ndarray
    number_of: list[np.ndarray]


def join(blocks: Sequence[Components], whole: Box) -> Joined:
    """Join the components of all blocks of a volume.

    Args:
        blocks: of every block of a grid over ``whole``.
        whole: as for ``label_block``.
    """
    first = np.cumsum([0, *(len(block.boxes) + 1 for block in blocks)])
    nodes = [block.label + start for block, start in zip(blocks, first, strict=False)]
    voxel = np.concatenate([block.voxel for block in blocks]) if blocks else np.zeros(0, np.int64)
    node = np.concatenate(nodes) if nodes else np.zeros(0, np.int64)
    order = np.argsort(voxel, kind="stable")
    voxel, node = voxel[order], node[order]
    same = voxel[1:] == voxel[:-1]
    graph = coo_array((np.ones(same.sum(), bool), (node[:-1][same], node[1:][same])), shape=(first[-1], first[-1]))
    root = connected_components(graph, directed=False)[1]
    names, position = np.unique(root[node], return_index=True)
    row = np.full(int(root.max(initial=-1)) + 1, -1, np.int64)
    row[names] = np.arange(len(names))
    boxes = np.empty((len(names), 6), np.int64)
    boxes[:, :3], boxes[:, 3:] = np.iinfo(np.int64).max, np.iinfo(np.int64).min
    number_of = []
    for block, start in zip(blocks, first, strict=False):
        number = np.full(len(block.boxes) + 1, -1, np.int64)
        labels = np.flatnonzero(block.is_open)
        number[labels] = row[root[start + labels]]
        np.minimum.at(boxes[:, :3], number[labels], block.boxes[labels - 1, :3])
        np.maximum.at(boxes[:, 3:], number[labels], block.boxes[labels - 1, 3:])
        number_of.append(number)
    at = np.stack(np.unravel_index(voxel[position], whole.shape_zyx), axis=1) + np.array(whole.offset_zyx)
    return Joined(boxes, at.astype(np.int64).reshape(-1, 3), number_of)
