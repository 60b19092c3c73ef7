"""Settings of the streams. Knows numbers; must not import torch."""

from __future__ import annotations

from pydantic import Field, PositiveInt

from twostream.config import Config


class VaeConfig(Config):
    """One variational autoencoder and its training.

    Attributes:
        latent_dim: features per patch.
        hidden_dims: channels per stride-2 block; published: 64, 128, 128, 256, 256, 512 at 128 px.
        kld_weight: of the KL divergence, beside the mean squared error per pixel.
        num_steps: of the first training.
        batch_size: patches per step.
        learning_rate: peak, of AdamW.
    """

    latent_dim: int = Field(32, ge=1)
    hidden_dims: tuple[PositiveInt, ...] = Field((16, 32, 64, 64), min_length=1)
    kld_weight: float = Field(1e-4, ge=0)
    num_steps: int = Field(300, ge=1)
    batch_size: int = Field(64, ge=1)
    learning_rate: float = Field(2e-3, gt=0)


class ActiveClusteringConfig(Config):
    """How answers change the unsupervised stream.

    Attributes:
        num_steps: fine-tuning steps per round; 0 leaves the stream as it is.
        learning_rate: peak, of AdamW.
        weight: of the contrastive term beside the stream's own loss.
        temperature: of the contrastive term.
    """

    num_steps: int = Field(60, ge=0)
    learning_rate: float = Field(5e-4, gt=0)
    weight: float = Field(0.1, ge=0)
    temperature: float = Field(0.2, gt=0)


class StreamsConfig(Config):
    """Both streams.

    Attributes:
        supervised: VAE on masks that S predicted, cut out and aligned.
        unsupervised: VAE on raw image patches.
        active_clustering: fine-tuning of the unsupervised stream on the answers.
    """

    supervised: VaeConfig = VaeConfig(latent_dim=16, hidden_dims=(16, 32, 32, 64), num_steps=200)
    unsupervised: VaeConfig = VaeConfig()
    active_clustering: ActiveClusteringConfig = ActiveClusteringConfig()
    random_crop_share: float = Field(0.5, ge=0, le=1)
    """Share of the unsupervised stream's training patches cut at random places and angles rather than around
    candidates: the published code uses random ones only, but encodes centred ones."""
