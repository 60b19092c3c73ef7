"""Settings of the streams. Knows numbers; must not import torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from twostream.config import Config


class StreamConfig(Config):
    """One stream and its training.

    Attributes:
        method: "vae" (Lin 2020), or "simclr": self-supervised, for raw images.
        latent_dim: features per patch.
        hidden_dims: channels per stride-2 block; published: 64, 128, 128, 256, 256, 512 at 128 px.
        kld_weight: of a VAE's KL divergence, beside the mean squared error per pixel.
        temperature: of SimCLR's contrastive loss.
        num_steps: of the first training.
        batch_size: patches per step.
        learning_rate: peak, of AdamW.
    """

    method: Literal["vae", "simclr"] = "vae"
    latent_dim: int = Field(32, ge=1)
    hidden_dims: tuple[PositiveInt, ...] = Field((16, 32, 64, 64), min_length=1)
    kld_weight: float = Field(1e-4, ge=0)
    temperature: float = Field(0.2, gt=0)
    num_steps: int = Field(300, ge=1)
    batch_size: int = Field(64, ge=1)
    learning_rate: float = Field(2e-3, gt=0)


class MaskStreamConfig(StreamConfig):
    """The supervised stream: masks are simpler than images, so its defaults are smaller."""

    latent_dim: int = Field(16, ge=1)
    hidden_dims: tuple[PositiveInt, ...] = Field((16, 32, 32, 64), min_length=1)
    num_steps: int = Field(200, ge=1)


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
        supervised: on masks that S predicted, cut out and aligned.
        unsupervised: on raw image patches.
        active_clustering: fine-tuning of the unsupervised stream on the answers.
        random_crop_share: share of the unsupervised stream's training patches that are cut at random places and angles
            rather than around candidates: the published code uses random ones only, but encodes centred ones.
    """

    supervised: MaskStreamConfig = MaskStreamConfig()
    unsupervised: StreamConfig = StreamConfig()
    active_clustering: ActiveClusteringConfig = ActiveClusteringConfig()
    random_crop_share: float = Field(0.5, ge=0, le=1)

    @model_validator(mode="after")
    def _masks_have_no_views(self) -> StreamsConfig:
        if self.supervised.method == "simclr":
            raise ValueError("supervised.method is simclr, which varies grey values; masks have none: use vae")
        return self
