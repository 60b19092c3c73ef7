"""Self-supervision without reconstruction: SimCLR (Chen 2020) on raw patches.

Two views of a patch are drawn as two microscopes would have seen the same place; the encoder learns to recognise one by
the other among all of the batch. What differs between views (orientation, small shifts and scales, staining, focus,
noise) is what the feature forgets. Knows torch and patches; must not know candidates, volumes or rounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import nn

from twostream.segmentation import imaging
from twostream.streams.contrast import contrastive_loss
from twostream.streams.stream import Stream

MAX_SCALE = 1.25
MAX_SHIFT = 0.1
"""Of a view against the patch, as a share of its width: a synapse at the border of one view is not in the other."""
CHANCES = ((0.8, imaging.grey), (0.5, imaging.noise), (0.2, imaging.motion_blur), (0.3, imaging.cut_blur))


class Simclr(Stream):
    """Encoder, a linear layer to the feature, and a projection that only the loss sees.

    Args:
        width: side of the patch in pixels, a multiple of 2 ** len(hidden_dims).
        latent_dim: features per patch.
        hidden_dims: channels of the stride-2 blocks.
        temperature: of the loss.
    """

    def __init__(self, width: int, latent_dim: int, hidden_dims: Sequence[int], temperature: float = 0.2) -> None:
        super().__init__(width, latent_dim, hidden_dims)
        self.temperature = temperature
        self.to_feature = nn.Linear(self.map_size, latent_dim)
        self.project = nn.Sequential(
            nn.SiLU(), nn.Linear(latent_dim, latent_dim), nn.SiLU(), nn.Linear(latent_dim, latent_dim)
        )

    def features(self, patch_B1YX: torch.Tensor) -> torch.Tensor:  # noqa: N803 - the axes are the name
        return self.to_feature(self.encoder(patch_B1YX).flatten(1))

    def own_loss(self, views_BVYX: torch.Tensor, generator: torch.Generator) -> torch.Tensor:  # noqa: N803
        number, views = views_BVYX.shape[:2]
        projected = self.project(self.features(views_BVYX.flatten(0, 1)[:, None]))
        which = torch.arange(number, device=projected.device).repeat_interleave(views)
        return contrastive_loss(projected, which, self.temperature)

    def views(self, patch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.stack([varied(patch, rng) for _ in range(2)])


def varied(patch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One view: turned by any angle, mirrored, shifted and scaled a little, and imaged anew.

    Args:
        patch: (W, W) float32 in [-1, 1].

    Returns:
        The same shape and range.
    """
    width = len(patch)
    angle, scale = rng.uniform(0, 2 * math.pi), MAX_SCALE ** rng.uniform(-1, 1)
    c, s = scale * math.cos(angle), scale * math.sin(angle)
    turn = np.array([[c, -s], [s, c]]) @ np.diag([1, rng.choice([-1, 1])])
    middle = np.full(2, (width - 1) / 2)
    offset = middle + rng.uniform(-MAX_SHIFT, MAX_SHIFT, 2) * width - turn @ middle
    view = cv2.warpAffine(
        patch, np.column_stack([turn, offset]), (width, width), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )[None]  # fmt: skip
    # Grey values are varied as those of S, which are of deviation 1: a raw patch has about a third of that.
    view = 3 * view
    for chance, vary in CHANCES:
        if rng.random() < chance:
            view = vary(view, rng)
    return np.clip(view[0] / 3, -1, 1).astype(np.float32)
