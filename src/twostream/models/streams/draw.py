"""Input of the streams: patches scaled to [-1, 1], and random draws of them for training.

A draw is an object and not a closure, so that it can be pickled for the processes of several GPUs. In array shapes, P
is the number of planes of a patch (``PatchConfig.planes``) and W its width in pixels.

Knows arrays of patches; must not know torch, volumes or rounds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from twostream.candidates.patches import turned

Draw = Callable[[np.random.Generator], np.ndarray]
"""Random generator -> one training patch, (P, W, W) float32 in [-1, 1]."""


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

    def __call__(self, rng: np.random.Generator) -> np.ndarray:
        return mask_input(turned(self.masks[rng.integers(len(self.masks))], self.planes, rng, upright=True))


@dataclass(frozen=True)
class ImageDraw:
    """Draws raw image patches, flipped and rotated at random, because tissue has no preferred orientation.

    Attributes:
        everywhere: (M, P, W, W) uint8, cut at random places.
        centred: (N, P, W, W) uint8, centred on candidates; may be empty.
        random_share: share of the patches that are drawn from ``everywhere``.
        planes: ``PatchConfig.planes``, the meaning of the P planes.
    """

    everywhere: np.ndarray
    centred: np.ndarray
    random_share: float
    planes: str

    def __call__(self, rng: np.random.Generator) -> np.ndarray:
        source = self.everywhere if len(self.centred) == 0 or rng.random() < self.random_share else self.centred
        return image_input(turned(source[rng.integers(len(source))], self.planes, rng, upright=False))
