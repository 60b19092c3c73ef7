"""What the streams are shown: patches as numbers in [-1, 1], drawn at random for training.

Knows arrays of patches; must not know torch, volumes or rounds. Draws are plain objects, so that they travel to the
processes of several GPUs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from twostream.candidates.patches import turned

Draw = Callable[[np.random.Generator], np.ndarray]
"""Generator -> one patch, (P, W, W) float32 in [-1, 1]."""


def image_input(image: np.ndarray) -> np.ndarray:
    """(..., W, W) uint8 -> float32 in [-1, 1]."""
    return image.astype(np.float32) / np.float32(127.5) - np.float32(1)


def mask_input(mask: np.ndarray) -> np.ndarray:
    """(..., W, W) int8 of -1, 0, 1 -> float32."""
    return mask.astype(np.float32)


@dataclass(frozen=True)
class MaskDraw:
    """Aligned masks, mirrored top to bottom: pre stays on the left.

    Attributes:
        masks: (N, P, W, W) int8.
        planes: of ``PatchConfig``.
    """

    masks: np.ndarray
    planes: str

    def __call__(self, rng: np.random.Generator) -> np.ndarray:
        return mask_input(turned(self.masks[rng.integers(len(self.masks))], self.planes, rng, upright=True))


@dataclass(frozen=True)
class ImageDraw:
    """Raw patches from anywhere or about a candidate, flipped and turned: raw tissue has no upright.

    Attributes:
        everywhere: (M, P, W, W) uint8, from random places.
        centred: (N, P, W, W) uint8, about candidates; may be empty.
        random_share: how many come from everywhere.
        planes: of ``PatchConfig``.
    """

    everywhere: np.ndarray
    centred: np.ndarray
    random_share: float
    planes: str

    def __call__(self, rng: np.random.Generator) -> np.ndarray:
        source = self.everywhere if len(self.centred) == 0 or rng.random() < self.random_share else self.centred
        return image_input(turned(source[rng.integers(len(source))], self.planes, rng, upright=False))
