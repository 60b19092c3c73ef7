"""From probability to instances. Knows numpy, components and watersheds; must not know torch, files or truth.

Distances are in nanometres, so the same settings hold at any voxel size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import cc3d
import numpy as np
from pydantic import Field, field_validator
from scipy import ndimage
from skimage.segmentation import watershed

from twostream.base.config import Config


class DecodingConfig(Config):
    """How S's probability becomes instances.

    Attributes:
        channels: what S predicts of mitochondria and clefts; "foreground" comes first. Polarity has its own.
        method: "components", or "watershed" from seeds.
        seed_threshold: foreground probability that seeds exceed.
        seed_contour: contour probability below which seeds lie, where there is such a channel.
        seed_distance: level of the signed distance that seeds exceed, in [0, 1], 0.5 is the border, likewise.
        min_seed_nm3: smaller seeds are none.
        contour_nm: half the width of the contour target.
        distance_scale_nm: where the signed distance saturates.
        trim: a voxel belongs to an instance only if its probability is at least this share of the instance's highest.
        join_nm: a presynaptic and a postsynaptic side without partners, each other's nearest within this gap, are
            one synapse.
        cleft_nm: widest gap between the sides of one synapse that the union spans; a cleft and its membranes.
    """

    channels: tuple[Literal["foreground", "contour", "distance"], ...] = ("foreground",)
    method: Literal["components", "watershed"] = "watershed"
    seed_threshold: float = Field(0.95, ge=0, lt=1)
    seed_contour: float = Field(0.5, gt=0, le=1)
    seed_distance: float = Field(0.5, ge=0, lt=1)
    min_seed_nm3: float = Field(1e5, ge=0)
    contour_nm: float = Field(15.0, gt=0)
    distance_scale_nm: float = Field(50.0, gt=0)
    trim: float = Field(0.5, ge=0, lt=1)
    join_nm: float = Field(30.0, ge=0)
    cleft_nm: float = Field(56.0, gt=0)

    @field_validator("channels")
    @classmethod
    def _foreground_first(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or value[0] != "foreground" or len(set(value)) < len(value):
            raise ValueError("expected foreground first, then contour, distance or both, none twice")
        return value


def components(mask: np.ndarray) -> np.ndarray:
    """26-connected components: (Z, Y, X) bool -> uint32, 0 = background."""
    return cc3d.connected_components(mask, connectivity=26, out_dtype=np.uint32)


def instances_of(
    foreground: np.ndarray,
    threshold: float,
    settings: DecodingConfig,
    min_seed_voxels: int,
    seeds: np.ndarray | None = None,
) -> np.ndarray:
    """Instances by the method that ``settings`` name, trimmed.

    Args:
        foreground: (Z, Y, X) uint8 probability.
        threshold: of the mask, in [0, 1].
        settings: method, seed threshold, trim.
        min_seed_voxels: smaller seeds are none.
        seeds: (Z, Y, X) bool, where else the brightest seeds must lie; None is everywhere.

    Returns:
        (Z, Y, X) uint32.
    """
    if settings.method == "components":
        instances = components(foreground > 255 * threshold)
    else:
        seed_threshold = max(settings.seed_threshold, threshold)
        bright = foreground > 255 * seed_threshold
        bright = bright if seeds is None else bright & seeds
        instances = seeded(foreground, threshold, bright, seed_threshold, min_seed_voxels)
    return trimmed(instances, foreground, settings.trim)


SEED_LEVELS = (0.8, 0.6, 0.4, 0.2)
"""Where the mask threshold is lower, faint objects find a seed of their own at one of these, if no brighter one has."""


def seeded(
    foreground: np.ndarray, threshold: float, seeds: np.ndarray, seed_threshold: float, min_seed_voxels: int
) -> np.ndarray:
    """Watershed from seeds; what no seed reaches becomes an instance of its own.

    Args:
        foreground: (Z, Y, X) uint8 probability; basins are flooded from the most certain voxels down.
        threshold: of what is flooded.
        seeds: (Z, Y, X) bool, the brightest ones, at ``seed_threshold``. Below that every component of the foreground
            at a lower level that holds no brighter seed is a seed as well.
        min_seed_voxels: smaller seeds are none.

    Returns:
        (Z, Y, X) uint32.
    """
    markers = _large(components(seeds), min_seed_voxels)
    for level in SEED_LEVELS:
        if threshold < level < seed_threshold:
            lower = components(foreground > 255 * level)
            has_seed = np.zeros(int(lower.max(initial=0)) + 1, bool)
            has_seed[lower[markers > 0]] = True
            lower[has_seed[lower]] = 0
            lower = _large(lower, min_seed_voxels)
            markers = np.where(lower > 0, lower + markers.max(initial=0), markers)
    mask = foreground > 255 * threshold
    around = np.ones((3, 3, 3))
    flooded = watershed(np.uint8(255) - foreground, markers.astype(np.int32), connectivity=around, mask=mask)
    unseeded = components(mask & (flooded == 0))
    top = np.uint32(flooded.max(initial=0))
    return np.where(unseeded > 0, unseeded + top, flooded.astype(np.uint32))


def _large(labels: np.ndarray, min_voxels: int) -> np.ndarray:
    """Labels without those of fewer voxels."""
    size = np.bincount(labels.ravel())
    return np.where((size >= min_voxels)[labels], labels, np.uint32(0))


def trimmed(instances: np.ndarray, foreground: np.ndarray, share: float) -> np.ndarray:
    """Instances without what is faint beside their own brightest voxel.

    A threshold low enough to propose a faint object swells every bright one; trimmed, each mask ends where its own
    probability falls to ``share`` of its highest.

    Args:
        instances: (Z, Y, X) uint32.
        foreground: (Z, Y, X) uint8 probability.
        share: 0 keeps everything.
    """
    inside = instances > 0
    labels, level = instances[inside], foreground[inside]
    highest = np.zeros(int(instances.max(initial=0)) + 1, np.uint8)
    np.maximum.at(highest, labels, level)
    kept = level >= share * highest[labels]
    result = np.zeros_like(instances)
    result[inside] = np.where(kept, labels, 0)
    return result


STRAY_SHARE = 0.05
"""Real probability has a few voxels of the other side at the rim of every side; no more than this part are strays."""


def without_strays(instances: np.ndarray, is_pre: np.ndarray) -> np.ndarray:
    """Sides of instances, (Z, Y, X) bool, where a side of at most ``STRAY_SHARE`` of an instance went to the other."""
    size = np.bincount(instances.ravel())
    num_pre = np.bincount(instances[is_pre], minlength=len(size))
    all_pre, all_post = size - num_pre <= STRAY_SHARE * size, num_pre <= STRAY_SHARE * size
    return (is_pre | all_pre[instances]) & ~all_post[instances]


def pair_sides(instances: np.ndarray, is_pre: np.ndarray, voxel_size_nm: Sequence[float], join_nm: float) -> np.ndarray:
    """Join sides that lost their partner, two and two: each other's nearest of the other kind within ``join_nm``.

    Args:
        instances: (Z, Y, X) uint32, voxels of sides only.
        is_pre: (Z, Y, X) bool, which side a voxel of an instance is on.
        voxel_size_nm: (z, y, x) nm.
        join_nm: largest gap between voxel centres.

    Returns:
        (Z, Y, X) uint32: as ``instances``, the joined ones under the smaller label. Nothing else is renumbered.
    """
    if join_nm <= 0:
        return instances
    top = int(instances.max(initial=0))
    has_pre = np.bincount(instances[is_pre], minlength=top + 1) > 0
    has_post = np.bincount(instances[~is_pre], minlength=top + 1) > 0
    has_pre[0] = has_post[0] = False
    alone = np.flatnonzero(has_pre ^ has_post)
    nearest: dict[int, tuple[float, int]] = {}
    windows = ndimage.find_objects(instances.astype(np.int32)) if len(alone) > 1 else []
    reach = [int(np.ceil(join_nm / v)) for v in voxel_size_nm]
    for label in alone.tolist() if windows else []:
        window = tuple(
            slice(max(s.start - r, 0), min(s.stop + r, n))
            for s, r, n in zip(windows[label - 1], reach, instances.shape, strict=True)
        )
        near = instances[window]
        others = near[(near > 0) & (near != label)]
        wanted = [o for o in np.unique(others).tolist() if has_pre[o] != has_pre[label] and has_pre[o] != has_post[o]]
        if wanted:
            distance = ndimage.distance_transform_edt(near != label, voxel_size_nm)
            best = min((float(distance[near == other].min()), other) for other in wanted)
            if best[0] <= join_nm:
                nearest[label] = best
    rename = np.arange(top + 1, dtype=np.uint32)
    for label, (_, other) in nearest.items():
        if nearest.get(other, (0.0, -1))[1] == label:
            rename[max(label, other)] = min(label, other)
    return rename[instances]
