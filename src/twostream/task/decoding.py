"""Decoding: the probability that S predicts becomes object instances, the proposals of the paper.

Components or a watershed give instances; each is trimmed to its bright part; in the polarity task sides that lost
their partner are paired. Settings are in nanometres, so that they hold at any voxel size. Knows arrays and voxel
sizes; must not know torch, files or truth.
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
from twostream.volume.components import components


class DecodingConfig(Config):
    """How S's probability becomes instances.

    Attributes:
        channels: output channels of S for mitochondria and clefts, "foreground" first. The polarity task always has
            pre, post and union.
        method: "components" (connected components of the mask) or "watershed" (flooding from seeds).
        seed_threshold: foreground probability above which a voxel may be a seed.
        seed_contour: contour probability below which a voxel may be a seed; used if there is a contour channel.
        seed_distance: level of the signed distance above which a voxel may be a seed, in [0, 1] with 0.5 at the
            border; used if there is a distance channel.
        min_seed_nm3: volume in nm^3 below which a seed is discarded.
        contour_nm: half the width of the contour target, in nm.
        distance_scale_nm: scale of the tanh in the signed distance target, in nm.
        trim: an instance keeps the voxels whose probability is at least this share of its highest probability; 0 keeps
            all.
        join_nm: largest gap in nm at which a presynaptic and a postsynaptic side that both lack a partner are joined
            into one synapse; 0 joins none.
        cleft_nm: widest gap in nm between the sides of one synapse that the union target fills: a cleft with its
            membranes.
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
            raise ValueError(f"got {list(value)}; expected foreground first, then contour, distance or both, each once")
        return value


def instances_of(
    foreground: np.ndarray,
    threshold: float,
    settings: DecodingConfig,
    min_seed_voxels: int,
    seeds: np.ndarray | None = None,
) -> np.ndarray:
    """Instances by ``settings.method``, trimmed (see ``trimmed``).

    Args:
        foreground: (Z, Y, X) uint8 probability, 255 = 1.
        threshold: voxels above this probability, in [0, 1], are foreground.
        settings: method, seed threshold, trim.
        min_seed_voxels: components of fewer voxels are not used as seeds.
        seeds: (Z, Y, X) bool, further condition on seeds above the seed threshold (from contour and distance
            channels); None for no condition.

    Returns:
        (Z, Y, X) uint32 instance labels, 0 = background.
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
"""Probabilities at which objects too faint for the seed threshold get a seed, brightest first."""


def seeded(
    foreground: np.ndarray, threshold: float, seeds: np.ndarray, seed_threshold: float, min_seed_voxels: int
) -> np.ndarray:
    """Watershed on the foreground probability, from seeds.

    Components of ``seeds`` are the first markers. At each of ``SEED_LEVELS`` between ``threshold`` and
    ``seed_threshold``, a component of the foreground that holds no marker yet becomes one, so that faint objects are
    separated as well. A component of the foreground without any marker is one instance.

    Each component of the foreground is flooded by itself, in its bounding box. Flooded all at once, voxels of equal
    probability would be flooded in an order that depends on what lies elsewhere, and a volume in pieces would give
    other instances than the whole.

    Args:
        foreground: (Z, Y, X) uint8 probability, 255 = 1; the most probable voxels are flooded first.
        threshold: voxels above this probability, in [0, 1], are flooded.
        seeds: (Z, Y, X) bool, voxels above ``seed_threshold`` that may be seeds.
        seed_threshold: in [0, 1].
        min_seed_voxels: components of fewer voxels are not used as seeds.

    Returns:
        (Z, Y, X) uint32 instance labels, 0 = background.
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
    islands = components(foreground > 255 * threshold)
    island_of = np.zeros(int(markers.max(initial=0)) + 1, np.int64)
    island_of[markers[markers > 0]] = islands[markers > 0]
    num_markers = np.bincount(island_of[island_of > 0], minlength=int(islands.max(initial=0)) + 1)
    num_instances = np.maximum(num_markers, 1)
    num_instances[0] = 0
    first_label = np.cumsum(num_instances) - num_instances + 1
    first_label[0] = 0
    result = first_label[islands].astype(np.uint32)
    windows = cc3d.statistics(islands, no_slice_conversion=False)["bounding_boxes"]
    for island in np.flatnonzero(num_markers > 1).tolist():
        inside = islands[windows[island]] == island
        mine = np.where(inside, markers[windows[island]], 0)
        names = np.unique(mine[mine > 0])
        numbered = (np.searchsorted(names, mine) + 1).astype(np.int32)  # not by np.unique, which needs 30 bytes a voxel
        numbered[mine == 0] = 0
        level = np.uint8(255) - foreground[windows[island]]
        flooded = watershed(level, numbered, connectivity=np.ones((3, 3, 3)), mask=inside)
        result[windows[island]][inside] = (first_label[island] - 1 + flooded[inside]).astype(np.uint32)
    return result


def _large(labels: np.ndarray, min_voxels: int) -> np.ndarray:
    """(Z, Y, X) uint32 labels with instances of fewer than ``min_voxels`` voxels set to 0."""
    size = np.bincount(labels.ravel())
    return np.where((size >= min_voxels)[labels], labels, np.uint32(0))


def trimmed(instances: np.ndarray, foreground: np.ndarray, share: float) -> np.ndarray:
    """Remove from each instance the voxels that are faint compared with its brightest voxel.

    A threshold low enough to propose faint objects makes the masks of bright ones too large. After trimming, each mask
    ends where the probability falls below ``share`` of the highest probability inside it.

    Args:
        instances: (Z, Y, X) uint32 instance labels.
        foreground: (Z, Y, X) uint8 probability.
        share: in [0, 1); 0 keeps everything.

    Returns:
        (Z, Y, X) uint32; labels are kept.
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
"""At most this share of an instance counts as stray voxels: predictions have a few of the other side at every rim."""


def without_strays(instances: np.ndarray, is_pre: np.ndarray) -> np.ndarray:
    """Give a side that is only stray voxels to the other side of its instance.

    Args:
        instances: (Z, Y, X) uint32 instance labels.
        is_pre: (Z, Y, X) bool, True on the presynaptic side.

    Returns:
        (Z, Y, X) bool: ``is_pre`` after every side of at most ``STRAY_SHARE`` of its instance's voxels was removed.
    """
    size = np.bincount(instances.ravel())
    num_pre = np.bincount(instances[is_pre], minlength=len(size))
    all_pre, all_post = size - num_pre <= STRAY_SHARE * size, num_pre <= STRAY_SHARE * size
    return (is_pre | all_pre[instances]) & ~all_post[instances]


def pair_sides(instances: np.ndarray, is_pre: np.ndarray, voxel_size_nm: Sequence[float], join_nm: float) -> np.ndarray:
    """Join instances that have one side only into synapses.

    A presynaptic and a postsynaptic one are joined if each is the other's nearest partner and the gap between them is
    at most ``join_nm``. A wide cleft that S did not fill separates the sides of one synapse in this way.

    Args:
        instances: (Z, Y, X) uint32 instance labels, 0 outside both sides.
        is_pre: (Z, Y, X) bool, True on the presynaptic side.
        voxel_size_nm: (z, y, x) nm.
        join_nm: largest distance in nm between the nearest voxel centres; 0 joins none.

    Returns:
        (Z, Y, X) uint32: ``instances`` with both parts of a joined pair under the smaller label; other labels are kept.
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
