"""What every stream is: an encoder of patches that learns from patches alone.

Knows torch; must not know candidates, volumes or rounds. Patches are square, one channel, in [-1, 1].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

NUM_GROUPS = 16


class Stream(nn.Module, ABC):
    """An encoder with a loss of its own.

    Args:
        width: side of the patch in pixels, a multiple of 2 ** len(hidden_dims).
        latent_dim: features per patch.
        hidden_dims: channels of the stride-2 blocks of the encoder.
    """

    def __init__(self, width: int, latent_dim: int, hidden_dims: Sequence[int]) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        dims = tuple(hidden_dims)
        self.map_shape = (dims[-1], width >> len(dims), width >> len(dims))
        pairs = list(zip((1, *dims[:-1]), dims, strict=True))
        self.encoder = nn.Sequential(*[block(nn.Conv2d(a, b, 3, stride=2, padding=1), b) for a, b in pairs])

    @property
    def map_size(self) -> int:
        """Values of the encoder's last map."""
        channels, height, width = self.map_shape
        return channels * height * width

    @abstractmethod
    def features(self, patch_B1YX: torch.Tensor) -> torch.Tensor:  # noqa: N803 - the axes are the name
        """The feature used downstream, (B, D)."""

    @abstractmethod
    def own_loss(self, views_BVYX: torch.Tensor, generator: torch.Generator) -> torch.Tensor:  # noqa: N803
        """Scalar: what the stream learns from raw patches, as ``views`` shows them to it."""

    def views(self, patch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """What one step sees of a patch: (Y, X) float32 -> (V, Y, X) float32. Here: the patch itself."""
        return patch[None]


def block(convolution: nn.Module, channels: int) -> nn.Sequential:
    """Convolution, group normalisation, SiLU."""
    return nn.Sequential(convolution, nn.GroupNorm(min(NUM_GROUPS, channels), channels), nn.SiLU())
