"""The variational autoencoder of the published code (Lin 2020; Kingma and Welling 2014; docs/method.md, VAE).

In the suffixes of tensor names, B is the batch, P the planes of a patch (its channels), Y and X its pixels, D the
latent. Patches are square, with values in [-1, 1]. Knows torch; must not know candidates, volumes or rounds.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from twostream.models.streams.stream import Shape, Stream, block

MAX_LOG_VARIANCE = 10.0
"""The log-variance is clipped to [-10, 10], because exp() of an extreme value early in training would overflow."""


class Vae(Stream):
    """Encoder and decoder; the features of a patch are the mean of its latent distribution.

    Args:
        shape_PYX: planes, height and width of a patch; height and width are equal, multiples of 2 ** len(hidden_dims).
        latent_dim: D, number of features.
        hidden_dims: channels of the encoder's stride-2 blocks; the decoder has them in reverse order.
        kld_weight: weight of the KL divergence, relative to the mean squared error per pixel.
    """

    def __init__(
        self,
        shape_PYX: Shape,  # noqa: N803 - the axes are the name
        latent_dim: int,
        hidden_dims: Sequence[int],
        kld_weight: float = 1e-4,
    ) -> None:
        super().__init__(shape_PYX, latent_dim, hidden_dims)
        dims = tuple(hidden_dims)
        self.kld_weight = kld_weight
        self.to_mean = nn.Linear(self.map_size, latent_dim)
        self.to_log_variance = nn.Linear(self.map_size, latent_dim)
        self.from_latent = nn.Linear(latent_dim, self.map_size)
        back = [*zip(dims[:0:-1], dims[-2::-1], strict=True), (dims[0], dims[0])]
        self.decoder = nn.Sequential(
            *[block(nn.ConvTranspose2d(a, b, 3, stride=2, padding=1, output_padding=1), b) for a, b in back],
            nn.Conv2d(dims[0], shape_PYX[0], 3, padding=1),
            nn.Tanh(),
        )

    def features(self, patch_BPYX: torch.Tensor) -> torch.Tensor:  # noqa: N803
        return self.encode(patch_BPYX)[0]

    def own_loss(self, views: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        mean, log_variance = self.encode(views)
        latent = sample_latent(mean, log_variance, generator)
        return vae_loss(views, self.decode(latent), mean, log_variance, self.kld_weight)

    def encode(self, patch_BPYX: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # noqa: N803
        """Mean and log-variance of the latent distribution, (B, D) each. The means are the features."""
        flat = self.encoder(patch_BPYX).flatten(1)
        log_variance = self.to_log_variance(flat).clamp(-MAX_LOG_VARIANCE, MAX_LOG_VARIANCE)
        return self.to_mean(flat), log_variance

    def decode(self, latent_BD: torch.Tensor) -> torch.Tensor:  # noqa: N803
        """Patches from latents, (B, P, Y, X) in (-1, 1)."""
        return self.decoder(self.from_latent(latent_BD).reshape(-1, *self.map_shape))


def vae_loss(
    patch_BPYX: torch.Tensor,  # noqa: N803
    reconstruction_BPYX: torch.Tensor,  # noqa: N803
    mean_BD: torch.Tensor,  # noqa: N803
    log_variance_BD: torch.Tensor,  # noqa: N803
    kld_weight: float,
) -> torch.Tensor:
    """VAE loss: mean squared error per pixel + ``kld_weight`` * KL divergence.

    The KL divergence is that of N(mean, exp(log-variance)) from N(0, 1) (Kingma and Welling 2014, appendix B), summed
    over the latent and averaged over the batch.

    Args:
        patch_BPYX: float, the input.
        reconstruction_BPYX: float, what the decoder made of it.
        mean_BD: float, mean of the latent distribution.
        log_variance_BD: float, its log-variance.
        kld_weight: weight of the KL divergence.

    Returns:
        Scalar.
    """
    reconstruction = torch.nn.functional.mse_loss(reconstruction_BPYX, patch_BPYX)
    divergence = -0.5 * (1 + log_variance_BD - mean_BD.square() - log_variance_BD.exp()).sum(1)
    return reconstruction + kld_weight * divergence.mean()


def sample_latent(
    mean_BD: torch.Tensor,  # noqa: N803
    log_variance_BD: torch.Tensor,  # noqa: N803
    generator: torch.Generator,
) -> torch.Tensor:
    """Draw a latent, (B, D), with the reparametrisation trick (Kingma and Welling 2014, section 2.4)."""
    noise = torch.randn(mean_BD.shape, generator=generator).to(mean_BD)
    return mean_BD + noise * (0.5 * log_variance_BD).exp()
