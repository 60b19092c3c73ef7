"""SimCLR (Chen 2020) on raw patches: self-supervised contrastive learning.

Two augmented views are made of each patch, as if two microscopes had imaged the same place. The encoder learns features
by which the two views of a patch are closer to each other than to all other views in the batch. The features therefore
become insensitive to what differs between views: orientation, small shifts and scalings, staining, focus and noise.

Knows torch and patches; must not know candidates, volumes or rounds.
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
"""Largest scaling of a view; the smallest is its inverse."""
MAX_SHIFT = 0.1
"""Largest shift of a view as a share of its width. With much larger shifts, an object may be in one view only."""
GREY_OPERATIONS = ((0.8, imaging.grey), (0.5, imaging.noise), (0.2, imaging.motion_blur), (0.3, imaging.cut_blur))
"""Probability of each augmentation of grey values."""


class Simclr(Stream):
    """Encoder and a linear layer that gives the features; a projection of the features is used in the loss only.

    Args:
        shape_PYX: planes, height and width of a patch; height and width are equal, multiples of 2 ** len(hidden_dims).
        latent_dim: D, number of features.
        hidden_dims: channels of the encoder's stride-2 blocks.
        temperature: temperature of the contrastive loss.
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
        return augmented(patch, rng)


def augmented(patch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One view of a patch: rotated by any angle, mirrored, slightly shifted and scaled, with other grey values.

    Args:
        patch: (P, W, W) float32 in [-1, 1]; all planes are transformed alike.
        rng: source of randomness.

    Returns:
        (P, W, W) float32 in [-1, 1].
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
    # The operations of ``imaging`` expect a standard deviation of 1; raw patches in [-1, 1] have about a third of that.
    view = 3 * view
    for probability, operation in GREY_OPERATIONS:
        if rng.random() < probability:
            view = operation(view, rng)
    return np.clip(view / 3, -1, 1).astype(np.float32)
