"""The two sides of synapses: joined from two label volumes, or checked where one volume holds both.

Knows volumes, label values and nanometres; must not know files.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from twostream.base.errors import InputError
from twostream.base.geometry import Box, grid
from twostream.volume import Volume
from twostream.volume.components import components

MAX_CLEFT_NM = 50.0
"""Sides farther apart are no synapse: a cleft is 10 to 30 nm wide, and labels leave a rim free."""
MAX_GAP_NM = 100.0
"""Pairs of values whose bounding boxes lie farther apart are no synapse; drawn sides may be somewhat too small."""
MAX_GAP_VOXELS = 2
"""Where voxels are thick, sides may also be this many voxels apart."""
MAX_APART = 0.2
"""Share of pairs that may lie apart: faults of drawing. Of instances that are no sides nearly all do."""
SLAB_SECTIONS = 16
MIN_SHARED = 0.5
"""Share of ids that both volumes must have for ids to mean synapses; unrelated numberings share some by chance."""


def join_sides(
    pre: np.ndarray, post: np.ndarray, voxel_size_nm: Sequence[float], *, by_id: bool, uri: str
) -> np.ndarray:
    """Join presynaptic and postsynaptic labels to synapses.

    Args:
        pre, post: (Z, Y, X) integers, 0 background.
        voxel_size_nm: (z, y, x) nm.
        by_id: whether the values are ids: then equal ids are one synapse. Otherwise sides within ``MAX_CLEFT_NM`` of
            each other are one.
        uri: of the two volumes, for the error.

    Returns:
        (Z, Y, X) uint32: 2n-1 presynaptic and 2n postsynaptic voxels of synapse n. A voxel in both is presynaptic.

    Raises:
        InputError: the ids of the two volumes are not the same, or no synapse has both sides.
    """
    synapse = _by_id(pre, post, uri) if by_id else _by_nearness(pre, post, voxel_size_nm)
    joined = np.where(pre > 0, 2 * synapse - 1, np.where(post > 0, 2 * synapse, 0)).astype(np.uint32)
    values = np.unique(joined)
    if not (np.isin(values + 1, values) & (values % 2 == 1)).any():
        raise InputError(
            f"{uri}: no synapse has both sides. Expected the presynaptic side in the first volume and the postsynaptic "
            f"side, at most {MAX_CLEFT_NM:g} nm from it, in the second. Do the two volumes lie on each other?"
        )
    return joined


def _by_id(pre: np.ndarray, post: np.ndarray, uri: str) -> np.ndarray:
    """(Z, Y, X) number, from 1, of the id at each voxel."""
    first, second = (np.setdiff1d(np.unique(side), [0]) for side in (pre, post))
    shared = np.intersect1d(first, second)
    if len(shared) < MIN_SHARED * min(len(first), len(second)):
        raise InputError(
            f"{uri}: the two sides share {len(shared)} of {len(first)} and {len(second)} ids; expected the same id for "
            f"both sides of a synapse. If the ids are unrelated, save both sides as masks, 1 inside and 0 outside: "
            f"sides that lie together are then joined."
        )
    every = np.union1d(first, second)
    either = np.where(pre > 0, pre, post)
    return np.where(either > 0, np.searchsorted(every, either) + 1, 0)


def _by_nearness(pre: np.ndarray, post: np.ndarray, voxel_size_nm: Sequence[float]) -> np.ndarray:
    """(Z, Y, X) number, from 1, of the group of sides that lie within ``MAX_CLEFT_NM`` of each other."""
    inside = (pre > 0) | (post > 0)
    away_nm = ndimage.distance_transform_edt(~inside, sampling=voxel_size_nm)
    return components(away_nm <= MAX_CLEFT_NM / 2).astype(np.int64)


def check_sides_lie_together(volume: Volume, box: Box, option: str) -> None:
    """Refuse labels whose values 2n-1 and 2n are not the two sides of one synapse.

    Any instances numbered 1, 2, 3, ... could be read as sides; but then most pairs lie apart.

    Args:
        volume: (Z, Y, X) integers.
        box: the part that holds labels.
        option: by which a user states that they are right, for the error.

    Raises:
        InputError: the bounding boxes of many pairs lie farther apart than a cleft is wide.
    """
    extents = _extents(volume, box)
    pairs = [(pre, extents[n + 1]) for n, pre in extents.items() if n % 2 == 1 and n + 1 in extents]
    apart = sum(_lie_apart(pre, post, volume.voxel_size_nm) for pre, post in pairs)
    if apart > MAX_APART * len(pairs):
        raise InputError(
            f"{volume.uri}: of {len(pairs)} synapses the two sides lie apart in {apart}; expected the presynaptic side "
            f"of synapse n at 2n-1 and the postsynaptic one beside it at 2n. Are these instances without polarity, or "
            f"one side only? Pass the other side by --labels-post, or use the task cleft; if they are right, pass "
            f"{option}."
        )


def _extents(volume: Volume, box: Box) -> dict[int, Box]:
    """{value: bounding box} of all labels above 0."""
    found: dict[int, Box] = {}
    for block in grid(box, (SLAB_SECTIONS, *box.shape_zyx[1:])):
        values, index = np.unique(volume.read(block.write_box), return_inverse=True)
        parts = ndimage.find_objects(index.reshape(block.write_box.shape_zyx) + 1)
        for value, slices in zip(values.tolist(), parts, strict=True):
            if value > 0:
                part = Box.from_corners([s.start for s in slices], [s.stop for s in slices])
                part = part.shifted(block.write_box.offset_zyx)
                found[value] = found[value].hull(part) if value in found else part
    return found


def _lie_apart(a: Box, b: Box, voxel_size_nm: Sequence[float]) -> bool:
    spans = zip(a.offset_zyx, a.stop_zyx, b.offset_zyx, b.stop_zyx, voxel_size_nm, strict=True)
    return any(max(b0 - a1, a0 - b1) * size > max(MAX_GAP_NM, MAX_GAP_VOXELS * size) for a0, a1, b0, b1, size in spans)
