"""Settings of the streams and of active clustering.

Must not import torch, so that the settings of a project can be read on a machine without it.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from twostream.base.config import Config
from twostream.models.segmentation.config import Precision
from twostream.models.streams.encoders import OnnxConfig

NUM_GROUPS = 16
"""Groups of the group normalisation, as published. A layer with fewer channels has one group per channel."""
MAX_CHANNELS = 8192
"""Largest entry of ``hidden_dims``."""
PICTURES_NAME = "pictures_{}.npz"
"""File name of a stream's ``pictures``, with the name of the stream, in the folder of the round that trained it."""
NETWORKS = ("vae", "simclr", "vae+s")
"""Methods of a stream that has a network of its own, which is trained on patches."""
NEEDS_S = ("s", "vae+s")
"""Methods of a stream that has features of S."""
Method = Literal["vae", "simclr", "s", "vae+s", "onnx", "given"]


class StreamConfig(Config):
    """One stream and its training.

    Attributes:
        method: "vae": variational autoencoder (Lin 2020). "simclr": self-supervised contrastive learning (Chen 2020),
            unsupervised stream only. "s": pooled activations of S's decoder; "vae+s": these beside the VAE
            (``side_by_side``); both for the supervised stream only. "onnx": an encoder that the user brings as an ONNX
            file, stated in ``onnx``. "given": latents that the user computed, in the files ``latents`` and ``ids``.
        onnx: method onnx: the encoder and its input.
        latents: method given: .npy file of floats (N, D), one row per candidate.
        ids: method given: .npy file of N integers, the candidate id of each row.
        latent_dim: number of features per candidate.
        hidden_dims: channels of the encoder's stride-2 blocks; published: 64, 128, 128, 256, 256, 512 for 128 px.
        kld_weight: VAE: weight of the KL divergence, relative to the mean squared error per pixel.
        temperature: SimCLR: temperature of the contrastive loss.
        num_steps: steps of the first training.
        batch_size: patches per step and device.
        learning_rate: its highest value; the optimizer is AdamW.
        weight_decay: of AdamW; published: 0.
        warmup_steps: steps in which the learning rate rises before it falls along a cosine; None: a tenth of all steps.
        precision: "32", "16-mixed" (GPUs only) or "bf16-mixed" (GPUs, and CPUs with bfloat16 instructions).
        devices: number of GPUs, at most those that torch sees.
    """

    method: Method = "simclr"
    onnx: OnnxConfig | None = None
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
    precision: Precision = "32"
    devices: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _settings_fit_the_method(self) -> StreamConfig:
        if self.method == "simclr" and self.batch_size < 2:
            raise ValueError("batch_size is 1, but simclr compares each patch with others of the batch: use 2 or more")
        given = self.method == "given"
        if given != (self.latents is not None) or given != (self.ids is not None):
            raise ValueError("set latents and ids (two .npy files) if method is given, and neither of them otherwise")
        if (self.method == "onnx") != (self.onnx is not None):
            raise ValueError("set onnx.path and the encoder's input (onnx) if method is onnx, and none of it otherwise")
        return self


def misfit(width_px: int, config: StreamConfig) -> str | None:
    """The reason why ``config`` cannot be used for patches of this width, for an error message; None if it can.

    Args:
        width_px: side of a patch in pixels.
        config: settings of a stream whose method is one of ``NETWORKS``.
    """
    dims, least = config.hidden_dims, 1 << len(config.hidden_dims)
    if width_px % least:
        return (
            f"patches.width_px is {width_px}; {len(dims)} hidden_dims need a multiple of {least}, because each of them "
            f"halves the width"
        )
    bad = [d for d in dims if d > NUM_GROUPS and d % NUM_GROUPS]
    if bad or max(dims) > MAX_CHANNELS:
        wrong = bad[0] if bad else max(dims)
        return (
            f"hidden_dims contains {wrong}; expected multiples of {NUM_GROUPS} (the groups of the normalisation) up to "
            f"{MAX_CHANNELS}, or numbers below {NUM_GROUPS}"
        )
    if width_px == least and dims[-1] <= NUM_GROUPS:
        return (
            f"{len(dims)} hidden_dims reduce a patch of {width_px} pixels to {dims[-1]} channels of one pixel, which "
            f"group normalisation makes equal for all patches; use fewer hidden_dims or wider patches"
        )
    return None


class MaskStreamConfig(StreamConfig):
    """Settings of the supervised stream. Its networks are smaller by default, because masks are simpler than images."""

    method: Method = "vae"
    latent_dim: int = Field(16, ge=1, le=65536)
    hidden_dims: tuple[PositiveInt, ...] = Field((16, 32, 32, 64), min_length=1)
    num_steps: int = Field(400, ge=1)


class ActiveClusteringConfig(Config):
    """Active clustering: fine-tuning of the unsupervised stream on the answers (equations: ``active_clustering``).

    Attributes:
        num_steps: fine-tuning steps per round; 0 switches it off.
        learning_rate: its highest value; the optimizer is AdamW.
        weight: weight of the contrastive term, relative to the stream's own loss.
        temperature: temperature of the contrastive term.
        clustering_weight: weight of the clustering term, relative to the stream's own loss.
        num_clusters: number of cluster centres of the clustering term.
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
        supervised: the stream that sees the aligned masks predicted by S.
        unsupervised: the stream that sees raw image patches.
        active_clustering: fine-tuning of the unsupervised stream on the answers.
        random_crop_share: share of the unsupervised stream's training patches that are cut at random places of the
            image, every one anew; the others are centred on candidates. The published code trains on random crops only,
            although it encodes centred patches.
        augment_crops: whether raw patches are rotated and reflected at random while the unsupervised stream is trained.
            The published code does neither.
    """

    supervised: MaskStreamConfig = MaskStreamConfig()
    unsupervised: StreamConfig = StreamConfig()
    active_clustering: ActiveClusteringConfig = ActiveClusteringConfig()
    random_crop_share: float = Field(0.25, ge=0, le=1)
    augment_crops: bool = True

    @property
    def learn_from_answers(self) -> bool:
        """Whether the unsupervised stream is fine-tuned on answers."""
        return self.active_clustering.num_steps > 0 and self.unsupervised.method in NETWORKS

    @model_validator(mode="after")
    def _methods_fit_the_streams(self) -> StreamsConfig:
        if self.supervised.method == "simclr":
            raise ValueError("supervised.method is simclr, which augments grey values, but masks have none: use vae")
        if (method := self.unsupervised.method) in NEEDS_S:
            raise ValueError(
                f"unsupervised.method is {method}, but features of S are supervised: use vae, simclr, onnx or given "
                f"here, and {method} for the supervised stream"
            )
        if (onnx := self.unsupervised.onnx) and "mask" in onnx.channels:
            raise ValueError(
                "unsupervised.onnx.channels holds mask, but the unsupervised stream sees raw pixels only: leave it out "
                "here, or use the encoder for the supervised stream"
            )
        return self
