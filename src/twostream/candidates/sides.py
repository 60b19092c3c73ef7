"""Synapses from two label volumes, one for each side.

Knows label values and nanometres; must not know files.
"""

from __future__ import annotations

from collections.abc import Sequence

import cc3d
import numpy as np
from scipy import ndimage

from twostream.base.errors import InputError

MAX_CLEFT_NM = 50.0
"""Sides farther apart are no synapse: a cleft is 10 to 30 nm wide, and labels leave a rim free."""
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
    return cc3d.connected_components(away_nm <= MAX_CLEFT_NM / 2, connectivity=26, out_dtype=np.uint32).astype(np.int64)
