"""Input of the streams: patches scaled to [-1, 1], and random draws of them for training.

A draw is an object and not a closure, so that it can be pickled for the processes of several GPUs. In array shapes, P
is the number of planes of a patch (``PatchConfig.planes``) and W its width in pixels.

Knows arrays of patches; must not know torch, volumes or rounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from twostream.candidates.patches import turned

Draw = Callable[[int, np.random.Generator], np.ndarray]
"""(t, random generator of sample t) -> the patch of training sample t, (P, W, W) float32 in [-1, 1]."""
RUN = 64
"""Samples after which the places of random crops among all samples are shifted by one (``ImageDraw``)."""


def image_input(image: np.ndarray) -> np.ndarray:
    """Image patches as network input: (..., W, W) uint8 -> float32, 0 to -1 and 255 to 1."""
    return image.astype(np.float32) / np.float32(127.5) - np.float32(1)


def mask_input(mask: np.ndarray) -> np.ndarray:
    """Mask patches as network input: (..., W, W) int8 of -1, 0 and 1 -> float32 of the same values."""
    return mask.astype(np.float32)


@dataclass(frozen=True)
class MaskDraw:
    """Draws aligned mask patches, flipped at random top to bottom and in Z; pre stays on the left.

    Attributes:
        masks: (N, P, W, W) int8: +1 pre or inside, -1 post, 0 background.
        planes: ``PatchConfig.planes``, the meaning of the P planes.
    """

    masks: np.ndarray
    planes: str

    def __call__(self, t: int, rng: np.random.Generator) -> np.ndarray:
        return mask_input(turned(self.masks[rng.integers(len(self.masks))], self.planes, rng, upright=True))


@dataclass(frozen=True)
class ImageDraw:
    """Draws raw image patches: crops at random places of the image, each one new, and patches around candidates.

    Attributes:
        crops: number of a crop -> (P, W, W) uint8; crops 0, 1, 2, ... are used in this order.
        centred: (N, P, W, W) uint8, centred on candidates; may be empty.
        random_share: share of the patches that are crops at random places.
        planes: ``PatchConfig.planes``, the meaning of the P planes.
        augmented: whether patches are flipped and rotated at random, because tissue has no preferred orientation.
    """

    crops: Callable[[int], np.ndarray]
    centred: np.ndarray
    random_share: float
    planes: str
    augmented: bool = True

    def __call__(self, t: int, rng: np.random.Generator) -> np.ndarray:
        number = self.crop_number(t)
        patch = self.centred[rng.integers(len(self.centred))] if number is None else self.crops(number)
        return image_input(turned(patch, self.planes, rng, upright=False) if self.augmented else patch)

    def crop_number(self, t: int) -> int | None:
        """Which crop sample t is; None if it is a patch around a candidate."""
        if len(self.centred) == 0:
            return t
        # Of several GPUs each takes every n-th sample. The shift lets crops fall to each of them alike.
        run, place = divmod(t, RUN)
        t = run * RUN + (place + run) % RUN
        before = math.floor(t * self.random_share)
        return before if math.floor((t + 1) * self.random_share) > before else None
