"""The contract of a stream: an encoder of patches with a loss that needs no labels.

In the suffixes of tensor names, B is the batch, P the planes of a patch (its channels), Y and X its pixels, D the
features. Patches are square, with values in [-1, 1]. Knows torch; must not know candidates, volumes or rounds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from twostream.models.streams.config import NUM_GROUPS

Shape = tuple[int, int, int]
"""Planes, height and width of a patch."""


class Stream(nn.Module, ABC):
    """A convolutional encoder; a subclass adds the layer that gives the features, and the loss.

    Args:
        shape_PYX: planes, height and width of a patch; height and width are equal, multiples of 2 ** len(hidden_dims).
        latent_dim: D, number of features.
        hidden_dims: channels of the encoder's stride-2 blocks.

    Attributes:
        map_shape: (channels, height, width) of the encoder's output.
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
        """Number of values in the encoder's output for one patch."""
        channels, height, width = self.map_shape
        return channels * height * width

    @abstractmethod
    def features(self, patch_BPYX: torch.Tensor) -> torch.Tensor:  # noqa: N803
        """Features of patches in [-1, 1], (B, D): the latents by which candidates are compared."""

    @abstractmethod
    def own_loss(self, views: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Training loss of one batch.

        Args:
            views: a batch of what ``views`` returns, with the batch as first axis.
            generator: on the CPU; the only source of randomness.

        Returns:
            Scalar.
        """

    def views(self, patch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The training input made of one (P, Y, X) float32 patch. Here: the patch itself."""
        return patch

    def view(self, patch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """An augmented (P, Y, X) float32 patch of the same shape. Here: the patch itself."""
        return patch


def block(convolution: nn.Module, channels: int) -> nn.Sequential:
    """A layer: ``convolution``, then group normalisation of its ``channels``, then SiLU."""
    return nn.Sequential(convolution, nn.GroupNorm(min(NUM_GROUPS, channels), channels), nn.SiLU())
