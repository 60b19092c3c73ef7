"""What every stream is: an encoder of patches that learns from patches alone.

Knows torch; must not know candidates, volumes or rounds. Patches are square, one channel per plane, in [-1, 1].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from twostream.models.streams.config import NUM_GROUPS

Shape = tuple[int, int, int]


class Stream(nn.Module, ABC):
    """An encoder with a loss of its own.

    Args:
        shape_PYX: planes of the patch, and its side in pixels twice, a multiple of 2 ** len(hidden_dims).
        latent_dim: features per patch.
        hidden_dims: channels of the stride-2 blocks of the encoder.
    """

    def __init__(self, shape_PYX: Shape, latent_dim: int, hidden_dims: Sequence[int]) -> None:  # noqa: N803 - the axes
        super().__init__()
        self.shape_PYX, self.latent_dim = shape_PYX, latent_dim
        planes, height, width = shape_PYX
        dims = tuple(hidden_dims)
        self.map_shape = (dims[-1], height >> len(dims), width >> len(dims))
        pairs = list(zip((planes, *dims[:-1]), dims, strict=True))
        self.encoder = nn.Sequential(*[block(nn.Conv2d(a, b, 3, stride=2, padding=1), b) for a, b in pairs])

    @property
    def map_size(self) -> int:
        """Values of the encoder's last map."""
        channels, height, width = self.map_shape
        return channels * height * width

    @abstractmethod
    def features(self, patch_BPYX: torch.Tensor) -> torch.Tensor:  # noqa: N803
        """The feature used downstream, (B, D)."""

    @abstractmethod
    def own_loss(self, views: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Scalar: what the stream learns from a batch of raw patches, as ``views`` shows them to it."""

    def views(self, patch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """What one step sees of a (P, Y, X) float32 patch. Here: the patch itself."""
        return patch

    def view(self, patch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One way to see a (P, Y, X) float32 patch, of the same shape. Here: the patch itself."""
        return patch


def block(convolution: nn.Module, channels: int) -> nn.Sequential:
    """Convolution, group normalisation, SiLU."""
    return nn.Sequential(convolution, nn.GroupNorm(min(NUM_GROUPS, channels), channels), nn.SiLU())
