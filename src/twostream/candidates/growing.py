"""Growing: from the point where a person saw an object that nothing had proposed, to the mask of that object.

``grow`` is the one place where this is done. Where S saw something at the point, the object is what S's probability
shows there at half its height; otherwise it is a ball. Knows volumes, the task and its decoding; must not know
projects, tables or the ledger.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from twostream.base.errors import InputError, NoSidesError
from twostream.base.geometry import Box, to_voxels
from twostream.candidates.sources import RADIUS_NM
from twostream.task import Task
from twostream.volume import Volume

REACH = 4
"""An object is grown at most this many radii away from the point along each axis."""
MIN_PEAK = 0.1
"""Below this probability at the point S has seen nothing that an outline could follow."""
MAX_RIM = 0.5
"""An object of whose voxels a larger share touches proposed ones is the rim of a candidate, which the threshold of the
proposals has cut off."""
MAX_SHARE = 0.5
"""What fills a larger share of the window is no object: the probability is about equal everywhere."""


@dataclass(frozen=True)
class Seed:
    """A point in an object that was missed. Positions are z, y, x in voxels of the image; voxel i has its centre at i.

    Attributes:
        center_zyx: the point.
        radius_nm: radius of the ball, about that of the object; None takes the task's (``sources.RADIUS_NM``).
        pre_zyx: polarity: a point on the presynaptic side; None if it is not known.
        post_zyx: a point on the postsynaptic side; None together with ``pre_zyx``.
    """

    center_zyx: tuple[float, float, float]
    radius_nm: float | None = None
    pre_zyx: tuple[float, float, float] | None = None
    post_zyx: tuple[float, float, float] | None = None

    @property
    def voxel(self) -> Box:
        """The voxel in which the point lies."""
        return Box(tuple(math.floor(v + 0.5) for v in self.center_zyx), (1, 1, 1))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Grown:
    """An object that was grown from a point.

    Attributes:
        box: its bounding box, in voxels of the image.
        mask: (Z, Y, X) uint8 over ``box``, with the values of a candidate's mask.
        how: how the mask was made, in words.
        is_ball: whether it is a ball, because the probability shows no object at the point.
    """

    box: Box
    mask: np.ndarray
    how: str
    is_ball: bool

    @property
    def num_voxels(self) -> int:
        """Voxels of the mask."""
        return int(np.count_nonzero(self.mask))

    def describe(self, voxel_size_nm: Sequence[float]) -> str:
        """Size in voxels and in nm, and how the mask was made, in words."""
        z, y, x = (n * size for n, size in zip(self.box.shape_zyx, voxel_size_nm, strict=True))
        return f"{self.num_voxels} voxels, {z:.0f} x {y:.0f} x {x:.0f} nm (Z, Y, X): {self.how}"


def grow(seed: Seed, task: Task, segmentation: Volume, probability: Volume | None) -> Grown:
    """Make the mask of the object at a point.

    With S's probability: half of the highest value next to the point is the threshold, and the instance that
    ``Task.decode`` then finds at the point is the object. Where that fails, the object is a ball. Voxels of
    ``segmentation`` never belong to it. In the polarity task two points, if they are given, divide the mask: a voxel
    belongs to the side whose point is nearer.

    Args:
        seed: the point.
        task: gives decoding and sides.
        segmentation: (Z, Y, X) labels of what is proposed already, over the whole image.
        probability: (C, Z, Y, X) uint8, 255 = 1, over the whole image; None if there is none.

    Raises:
        InputError: the point lies outside the image or in a proposed object.
        NoSidesError: the sides of a synapse cannot be told.
    """
    if not segmentation.box.contains(seed.voxel):
        raise InputError(f"the point lies outside the image, which holds {segmentation.box} (Z, Y, X voxels)")
    size, radius_nm = segmentation.voxel_size_nm, seed.radius_nm or RADIUS_NM[task.name]
    window = seed.voxel.grown(to_voxels(REACH * radius_nm, size)).intersection(segmentation.box)
    at = seed.voxel.relative_to(window).offset_zyx
    taken = segmentation.read(window) > 0
    if taken[at]:
        raise InputError("an object is proposed at this point already")
    mask, why = None, "there is no probability"
    if probability is not None:
        mask, why = _instance_at(probability.read(window), taken, at, task)
    is_ball = mask is None
    if mask is None:
        how = f"a ball with a radius of {radius_nm:g} nm, because {why}"
        mask = (_ball(window, seed, radius_nm, size) & ~taken).astype(np.uint8)
    else:
        cut = f", cut off {REACH * radius_nm:g} nm from the point" if _is_cut(mask, window, segmentation.box) else ""
        how = f"grown where the probability is above {why}{cut}"
    if task.num_sides == 2:
        mask = _with_sides(mask, seed, window, size, how)
    tight = ndimage.find_objects((mask > 0).astype(np.uint8))[0]
    box = Box(tuple(s.start for s in tight), mask[tight].shape).shifted(window.offset_zyx)
    return Grown(box, mask[tight], how, is_ball)


def _instance_at(
    level: np.ndarray, taken: np.ndarray, at: tuple[int, int, int], task: Task
) -> tuple[np.ndarray | None, str]:
    """The object that the probability shows at a voxel.

    Args:
        level: (C, Z, Y, X) uint8 probability.
        taken: (Z, Y, X) bool, voxels that belong to other objects.
        at: the voxel.
        task: gives the decoding.

    Returns:
        (Z, Y, X) uint8 with the values of a candidate's mask, and the probability down to which it reaches; or None and
        the reason why there is none.
    """
    level = np.where(taken, task.background[:, None, None, None], level)
    near = tuple(slice(max(i - 1, 0), i + 2) for i in at)
    peak = int(level[task.foreground][near].max()) / 255
    if peak < MIN_PEAK:
        return None, f"the probability there is only {peak:.2f}"
    threshold = peak / 2
    labels = task.decode(level, threshold)
    labels[taken] = 0
    instance = task.instances(labels)
    nearest = _nearest(instance, at, task)
    if nearest is None:
        return None, "the probability shows no object at the point"
    label = instance[nearest]
    mask = np.where(instance == label, 2 - labels % 2 if task.num_sides == 2 else 1, 0).astype(np.uint8)
    if np.count_nonzero(ndimage.binary_dilation(taken)[mask > 0]) > MAX_RIM * np.count_nonzero(mask):
        raise InputError(
            "the point lies at the rim of a proposed object, which the probability there belongs to; correct that "
            "object's mask, or choose a point inside the one that was missed"
        )
    num_voxels = np.count_nonzero(mask)
    if num_voxels < task.min_object_nm3 / math.prod(task.voxel_size_nm):
        return None, "what the probability shows there is smaller than any object"
    if num_voxels > MAX_SHARE * mask.size:
        return None, "the probability is about equal all around"
    mask[at] = mask[nearest]  # so that the mask holds the point that it came from
    return mask, f"{threshold:.2f}"


def _nearest(instance: np.ndarray, at: tuple[int, int, int], task: Task) -> tuple[int, ...] | None:
    """The voxel of an instance that is nearest to a voxel: next to it or, for synapses, across half a cleft."""
    reach_nm = task.decoding.cleft_nm / 2 if task.num_sides == 2 else 0.0
    reach = [max(1, round(reach_nm / size)) for size in task.voxel_size_nm]
    start = np.maximum(np.subtract(at, reach), 0)
    around = tuple(slice(a, b + r + 1) for a, b, r in zip(start, at, reach, strict=True))
    places = np.argwhere(instance[around]) + start
    if len(places) == 0:
        return None
    away = (((places - at) * np.asarray(task.voxel_size_nm)) ** 2).sum(1)
    return tuple(places[away.argmin()].tolist())


def _ball(window: Box, seed: Seed, radius_nm: float, voxel_size_nm: Sequence[float]) -> np.ndarray:
    """(Z, Y, X) bool over ``window``: voxels within ``radius_nm`` of the point, and always the voxel of the point."""
    squares = _squared_nm(window, seed.center_zyx, voxel_size_nm)
    inside = squares <= radius_nm**2
    inside[seed.voxel.relative_to(window).offset_zyx] = True
    return inside


def _squared_nm(window: Box, point_zyx: Sequence[float], voxel_size_nm: Sequence[float]) -> np.ndarray:
    """(Z, Y, X) float: squared distance in nm of every voxel of ``window`` from a point in voxels of the image."""
    axes = np.ogrid[window.slices]
    result: np.ndarray = sum(
        ((axis - middle) * size) ** 2 for axis, middle, size in zip(axes, point_zyx, voxel_size_nm, strict=True)
    )  # type: ignore[assignment]
    return result


def _with_sides(mask: np.ndarray, seed: Seed, window: Box, voxel_size_nm: Sequence[float], how: str) -> np.ndarray:
    """A mask over ``window`` divided by the two points of the seed, if it has them.

    Raises:
        NoSidesError: the mask then lacks a side; ``how`` says how it was made.
    """
    if seed.pre_zyx is not None and seed.post_zyx is not None:
        to_pre, to_post = (_squared_nm(window, point, voxel_size_nm) for point in (seed.pre_zyx, seed.post_zyx))
        mask = np.where(mask > 0, np.where(to_pre < to_post, 1, 2), 0).astype(np.uint8)
    for side, name in ((1, "presynaptic"), (2, "postsynaptic")):
        if not (mask == side).any():
            raise NoSidesError(f"the object ({how}) has no {name} side; give a point on each side")
    return mask


def _is_cut(mask: np.ndarray, window: Box, whole: Box) -> bool:
    """Whether a mask over ``window`` reaches a face of it that is not a face of ``whole``."""
    ends = zip(window.offset_zyx, window.stop_zyx, whole.offset_zyx, whole.stop_zyx, strict=True)
    return any(
        (start > first and mask.take(0, axis).any()) or (stop < last and mask.take(-1, axis).any())
        for axis, (start, stop, first, last) in enumerate(ends)
    )
