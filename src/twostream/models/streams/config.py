"""Settings of the streams. Knows numbers; must not import torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from twostream.base.config import Config

NUM_GROUPS = 16
"""Of the normalisation, as published; of fewer channels each is a group."""
MAX_CHANNELS = 8192
PICTURES_NAME = "pictures_{}.npz"
"""Of a stream, in the folder of the round that trained it: what it has learned, for the eye."""


class StreamConfig(Config):
    """One stream and its training.

    Attributes:
        method: "vae" (Lin 2020); "simclr": self-supervised, for raw images; "s": what S computed inside the mask, for
            the supervised stream; "given": ``latents`` that someone brings.
        latents: given: .npy of shape (N, D), one row per candidate.
        ids: given: .npy of the candidates' ids, row for row.
        latent_dim: features per patch.
        hidden_dims: channels per stride-2 block; published: 64, 128, 128, 256, 256, 512 at 128 px.
        kld_weight: of a VAE's KL divergence, beside the mean squared error per pixel.
        temperature: of SimCLR's contrastive loss.
        num_steps: of the first training.
        batch_size: patches per step.
        learning_rate: peak, of AdamW.
        weight_decay: of AdamW; published: none.
        warmup_steps: of the learning rate, before its cosine decay; None is a tenth of all steps.
        precision: "32", "16-mixed" (GPUs) or "bf16-mixed" (GPUs, and CPUs that multiply bfloat16).
        devices: GPUs to train on, at most those that are there.
    """

    method: Literal["vae", "simclr", "s", "given"] = "simclr"
    latents: str | None = None
    ids: str | None = None
    latent_dim: int = Field(32, ge=1, le=65536)
    hidden_dims: tuple[PositiveInt, ...] = Field((16, 32, 64, 64), min_length=1)
    kld_weight: float = Field(1e-4, ge=0)
    temperature: float = Field(0.2, ge=0.001)
    num_steps: int = Field(400, ge=1)
    batch_size: int = Field(64, ge=1)
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    warmup_steps: int | None = Field(None, ge=0)
    precision: Literal["32", "16-mixed", "bf16-mixed"] = "32"
    devices: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _brings_both_files(self) -> StreamConfig:
        if self.method == "simclr" and self.batch_size < 2:
            raise ValueError("batch_size is 1, but a patch can be told from others only beside others: use 2 or more")
        given = self.method == "given"
        if given != (self.latents is not None) or given != (self.ids is not None):
            raise ValueError("latents and ids, two .npy files, go with method given: all three, or none")
        return self


def misfit(width_px: int, config: StreamConfig) -> str | None:
    """What keeps a network of ``config`` from seeing patches of this width, as a sentence; None where nothing does."""
    dims, least = config.hidden_dims, 1 << len(config.hidden_dims)
    if width_px % least:
        return f"patches.width_px is {width_px}; {len(dims)} hidden_dims need a multiple of {least}"
    bad = [d for d in dims if d > NUM_GROUPS and d % NUM_GROUPS]
    if bad or max(dims) > MAX_CHANNELS:
        wrong = bad[0] if bad else max(dims)
        return (
            f"hidden_dims holds {wrong}; expected multiples of {NUM_GROUPS} (the groups of the normalisation) or less "
            f"than that, up to {MAX_CHANNELS}"
        )
    if width_px == least and dims[-1] <= NUM_GROUPS:
        return (
            f"hidden_dims end in {dims[-1]} channels of one pixel, which normalisation makes all alike; use fewer of "
            f"them than {len(dims)}, or a wider patch"
        )
    return None


class MaskStreamConfig(StreamConfig):
    """The supervised stream: masks are simpler than images, so its defaults are smaller."""

    method: Literal["vae", "simclr", "s", "given"] = "vae"
    latent_dim: int = Field(16, ge=1, le=65536)
    hidden_dims: tuple[PositiveInt, ...] = Field((16, 32, 32, 64), min_length=1)
    num_steps: int = Field(400, ge=1)


class ActiveClusteringConfig(Config):
    """How answers change the unsupervised stream.

    Attributes:
        num_steps: fine-tuning steps per round; 0 leaves the stream as it is.
        learning_rate: peak, of AdamW.
        weight: of the contrastive term beside the stream's own loss.
        temperature: of the contrastive term.
        clustering_weight: of the clustering term beside the stream's own loss.
        num_clusters: centres of the clustering term.
    """

    num_steps: int = Field(100, ge=0)
    learning_rate: float = Field(1e-3, gt=0)
    weight: float = Field(1.0, ge=0)
    temperature: float = Field(0.2, ge=0.001)
    clustering_weight: float = Field(1.0, ge=0)
    num_clusters: int = Field(10, ge=2)


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
    random_crop_share: float = Field(0.25, ge=0, le=1)

    @property
    def learn_from_answers(self) -> bool:
        """Whether answers change what a stream sees in a patch."""
        return self.active_clustering.num_steps > 0 and self.unsupervised.method != "given"

    @model_validator(mode="after")
    def _each_stream_sees_its_own(self) -> StreamsConfig:
        if self.supervised.method == "simclr":
            raise ValueError("supervised.method is simclr, which varies grey values; masks have none: use vae")
        if self.unsupervised.method == "s":
            raise ValueError("unsupervised.method is s, but what S computed is supervised: use it for that stream")
        return self
