"""The three tasks: mitochondria, synaptic clefts, and synapses with a direction (polarity).

Each combines targets and decoding steps for one kind of object, with pixel sizes that suit it. Knows numpy and
nanometres; must not know torch, files or truth.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from twostream.base.errors import ConfigError
from twostream.base.geometry import to_voxels
from twostream.task import decoding as decoding_
from twostream.task.decoding import DecodingConfig
from twostream.task.targets import IGNORE, binary, contour, signed_distance, uncertain_clefts, with_clefts
from twostream.task.task import Task


class Mitochondria(Task):
    """Mitochondria: the foreground and, if configured, the contour and the signed distance to the border.

    PyTorch Connectomics calls these targets B, C and D (docs/method.md, Configurations).
    """

    name = "mitochondria"
    pixel_size_nm = 16.0  # finer pixels did not find more mitochondria (LOG.md)
    patch_pixel_size_nm = 5.0  # fine internal structure; with pixels twice as coarse streams separate less (LOG.md)
    # A cube with sides of 58 nm. Thin stacks cut mitochondria into small pieces: 4e5 would drop a tenth of them.
    min_object_nm3 = 2e5

    def __init__(self, voxel_size_nm: Sequence[float], decoding: DecodingConfig | None = None) -> None:
        super().__init__(voxel_size_nm, decoding)
        self.channels = self.decoding.channels

    def target(self, segmentation: np.ndarray) -> np.ndarray:
        levels = {"foreground": self._foreground, "contour": self._contour, "distance": self._distance}
        return np.stack([levels[name](segmentation) for name in self.channels])

    @property
    def reach_voxels(self) -> tuple[int, int, int]:
        # Beyond three times its scale tanh is nearly constant.
        wanted = {"contour": self.decoding.contour_nm, "distance": 3 * self.decoding.distance_scale_nm}
        reach_nm = max((wanted[name] for name in self.channels[1:]), default=0.0)
        z, y, x = (int(np.ceil(reach_nm / v)) + 1 for v in self.voxel_size_nm)
        return z, y, x

    def uncertain(self, segmentation: np.ndarray, unknown: np.ndarray) -> np.ndarray:
        result = super().uncertain(segmentation, unknown)
        if len(self.channels) > 1:  # contour and distance
            result[1:] = ndimage.maximum_filter(unknown, [2 * r + 1 for r in self.reach_voxels])
        return result

    @property
    def background(self) -> np.ndarray:
        return np.array([IGNORE if name == "distance" else 0 for name in self.channels], np.uint8)

    def decode(self, probability: np.ndarray, threshold: float) -> np.ndarray:
        settings = self.decoding
        seeds = np.ones(probability.shape[1:], bool)
        for name, level in zip(self.channels[1:], probability[1:], strict=True):
            seeds &= level < 255 * settings.seed_contour if name == "contour" else level > 255 * settings.seed_distance
        return decoding_.instances_of(probability[0], threshold, settings, self.min_seed_voxels, seeds)

    def _foreground(self, segmentation: np.ndarray) -> np.ndarray:
        return binary(segmentation > 0)

    def _contour(self, segmentation: np.ndarray) -> np.ndarray:
        width = [round(self.decoding.contour_nm / v) for v in self.voxel_size_nm]
        return binary(contour(segmentation, (width[0], max(width[1], 1), max(width[2], 1))))

    def _distance(self, segmentation: np.ndarray) -> np.ndarray:
        return signed_distance(segmentation, self.voxel_size_nm, self.decoding.distance_scale_nm)


class SynapticCleft(Mitochondria):
    """Synaptic clefts: targets and decoding as for mitochondria, with finer pixels for S because clefts are thin."""

    name = "cleft"
    pixel_size_nm = 8.0
    patch_pixel_size_nm = 8.0
    min_object_nm3 = 2e5


class SynapsePolarity(Task):
    """Synapses with a direction: channels pre, post, and union (both sides and the cleft between them).

    The published representation, target "1" of PyTorch Connectomics (docs/method.md, Configurations).
    """

    name = "polarity"
    channels = ("pre", "post", "union")
    foreground = 2
    num_sides = 2
    pixel_size_nm = 8.0
    patch_pixel_size_nm = 8.0  # as published, there with patches of 128 pixels
    min_object_nm3 = 4e5

    def target(self, segmentation: np.ndarray) -> np.ndarray:
        pre = segmentation % 2 == 1
        post = (segmentation > 0) & ~pre
        union = with_clefts(segmentation, self.instances(segmentation), self._gap_px)
        return np.stack([binary(pre), binary(post), binary(union)])

    def uncertain(self, segmentation: np.ndarray, unknown: np.ndarray) -> np.ndarray:
        result = super().uncertain(segmentation, unknown)
        result[2] |= uncertain_clefts(segmentation, self.instances(segmentation), self._gap_px, unknown)
        return result

    @property
    def _gap_px(self) -> int:
        """Widest gap between the sides that the union spans, odd."""
        return 2 * round(self.decoding.cleft_nm / max(self.voxel_size_nm[1:]) / 2) + 1

    @property
    def reach_voxels(self) -> tuple[int, int, int]:
        # A closing looks half its width around a voxel twice: once to dilate and once to erode.
        return 1, max(self._gap_px - 1, 1), max(self._gap_px - 1, 1)

    @property
    def joins_within_voxels(self) -> tuple[int, int, int]:
        z, y, x = (max(1, n) for n in to_voxels(self.decoding.join_nm, self.voxel_size_nm))
        return z, y, x

    @property
    def background(self) -> np.ndarray:
        return np.zeros(3, np.uint8)

    def decode(self, probability: np.ndarray, threshold: float) -> np.ndarray:
        """Instances of the union channel, each divided into its presynaptic and postsynaptic side.

        Each voxel goes to the side with the higher probability. A side of only a few stray voxels is given to the other
        side. Sides of different instances that lack a partner are joined if they are near each other
        (``decoding.pair_sides``); one that stays alone keeps its label, 2n-1 or 2n, and the other label is unused.

        Args:
            probability: (3, Z, Y, X) uint8: pre, post, union.
            threshold: of the union, in [0, 1]; a side needs half of it.

        Returns:
            (Z, Y, X) uint32, 2n-1 and 2n for the sides of synapse n.
        """
        pre, post, union = probability
        level = 255 * threshold
        instance = decoding_.instances_of(union, threshold, self.decoding, self.min_seed_voxels)
        # Half the threshold is enough for a side, because the union already says that the voxel belongs to a synapse.
        instance[np.maximum(pre, post) <= level / 2] = 0
        is_pre = decoding_.without_strays(instance, pre >= post)
        instance = decoding_.pair_sides(instance, is_pre, self.voxel_size_nm, self.decoding.join_nm)
        return np.where(instance > 0, 2 * instance - is_pre.astype(np.uint32), np.uint32(0))


TASKS: dict[str, type[Task]] = {task.name: task for task in (SynapsePolarity, SynapticCleft, Mitochondria)}


def get_task(name: str, voxel_size_nm: Sequence[float], decoding: DecodingConfig | None = None) -> Task:
    """Make a task by its name.

    Args:
        name: a key of ``TASKS``: "polarity", "cleft" or "mitochondria".
        voxel_size_nm: (z, y, x) nm of the image.
        decoding: how S's probability becomes instances; None takes the defaults.

    Raises:
        ConfigError: no task has this name.
    """
    if name not in TASKS:
        raise ConfigError(f"task is {name!r}; expected one of {', '.join(TASKS)}.")
    return TASKS[name](voxel_size_nm, decoding)
