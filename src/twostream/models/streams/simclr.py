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

from twostream.models.segmentation import imaging
from twostream.models.streams.contrast import contrastive_loss
from twostream.models.streams.stream import Shape, Stream

MAX_SCALE = 1.25
MAX_SHIFT = 0.1
"""Of a view against the patch, as a share of its width: a synapse at the border of one view is not in the other."""
CHANCES = ((0.8, imaging.grey), (0.5, imaging.noise), (0.2, imaging.motion_blur), (0.3, imaging.cut_blur))


class Simclr(Stream):
    """Encoder, a linear layer to the feature, and a projection that only the loss sees.

    Args:
        shape_PYX: planes of the patch, and its side in pixels twice, a multiple of 2 ** len(hidden_dims).
        latent_dim: features per patch.
        hidden_dims: channels of the stride-2 blocks.
        temperature: of the loss.
    """

    def __init__(
        self,
        shape_PYX: Shape,  # noqa: N803 - the axes are the name
        latent_dim: int,
        hidden_dims: Sequence[int],
        temperature: float = 0.2,
    ) -> None:
        super().__init__(shape_PYX, latent_dim, hidden_dims)
        self.temperature = temperature
        self.to_feature = nn.Linear(self.map_size, latent_dim)
        self.project = nn.Sequential(
            nn.SiLU(), nn.Linear(latent_dim, latent_dim), nn.SiLU(), nn.Linear(latent_dim, latent_dim)
        )

    def features(self, patch_BPYX: torch.Tensor) -> torch.Tensor:  # noqa: N803
        return self.to_feature(self.encoder(patch_BPYX).flatten(1))

    def own_loss(self, views: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        number, num_views = views.shape[:2]  # (B, V, P, Y, X)
        projected = self.project(self.features(views.flatten(0, 1)))
        which = torch.arange(number, device=projected.device).repeat_interleave(num_views)
        return contrastive_loss(projected, which, self.temperature)

    def views(self, patch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.stack([self.view(patch, rng) for _ in range(2)])

    def view(self, patch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return varied(patch, rng)


def varied(patch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One view: turned by any angle, mirrored, shifted and scaled a little, and imaged anew.

    Args:
        patch: (P, W, W) float32 in [-1, 1]; its planes are moved alike.

    Returns:
        The same shape and range.
    """
    width = patch.shape[-1]
    angle, scale = rng.uniform(0, 2 * math.pi), MAX_SCALE ** rng.uniform(-1, 1)
    c, s = scale * math.cos(angle), scale * math.sin(angle)
    turn = np.array([[c, -s], [s, c]]) @ np.diag([1, rng.choice([-1, 1])])
    middle = np.full(2, (width - 1) / 2)
    offset = middle + rng.uniform(-MAX_SHIFT, MAX_SHIFT, 2) * width - turn @ middle
    matrix, how = np.column_stack([turn, offset]), cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    view = np.stack(
        [cv2.warpAffine(plane, matrix, (width, width), flags=how, borderMode=cv2.BORDER_REFLECT_101) for plane in patch]
    )
    # Grey values are varied as those of S, which are of deviation 1: a raw patch has about a third of that.
    view = 3 * view
    for chance, vary in CHANCES:
        if rng.random() < chance:
            view = vary(view, rng)
    return np.clip(view / 3, -1, 1).astype(np.float32)
