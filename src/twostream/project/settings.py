"""All settings of a project, composed: what ``twostream.yaml`` may hold, and the presets.

Knows the settings of each room; must not import torch, so that a project can be read anywhere.
"""

from __future__ import annotations

import copy
from typing import Any, Literal

from pydantic import Field, model_validator

from twostream.base.config import Config
from twostream.candidates.patches import PatchConfig
from twostream.candidates.sources import SourceConfig
from twostream.candidates.thresholds import CandidateConfig
from twostream.models.segmentation.config import RefitConfig, SegmentationConfig
from twostream.models.streams.config import StreamConfig, StreamsConfig, misfit
from twostream.task import DecodingConfig


class VolumeConfig(Config):
    """A volume and, where its file does not say, its voxel size (z, y, x) in nm."""

    uri: str
    voxel_size_nm: tuple[float, float, float] | None = None


class BoxesConfig(Config):
    """Regions, as Z0:Z1,Y0:Y1,X0:X1 in voxels of the image. Frozen when the project is made.

    Attributes:
        labels: what S may learn from; None where there are no labels, because a source stands in place of S.
        val: part of ``labels`` that is kept for thresholds and early stopping.
        test: never trained on, never asked; None where no truth covers it.
    """

    labels: str | None = None
    val: str | None = None
    test: str | None = None


class QueryConfig(Config):
    """Which candidates are asked.

    Attributes:
        strategy: a name registered in ``twostream.query``.
        budget: answers per round.
        settings: arguments of the strategy; for two-stream: num_clusters, first, variant.
        audit_share: share of the batch drawn at random and never trained on, which estimates accuracy where
            there is no test box.
    """

    strategy: str = "two-stream"
    budget: int = Field(50, ge=1)
    settings: dict[str, Any] = Field(default_factory=dict)
    audit_share: float = Field(0.1, ge=0, lt=1)


class AnnotatorConfig(Config):
    """The simulated annotator.

    Attributes:
        error_rate: share of the answers that are turned round.
        seconds_per_answer: assumed time, recorded with each answer.
        corrects: whether what is badly shaped is drawn as it should be, instead of only being called so.
        seconds_per_correction: assumed time of a drawing, in place of ``seconds_per_answer``.
    """

    error_rate: float = Field(0.0, ge=0, le=1)
    seconds_per_answer: float = Field(4.0, ge=0)
    corrects: bool = False
    seconds_per_correction: float = Field(30.0, ge=0)


class ProjectConfig(Config):
    """All of ``twostream.yaml``."""

    task: Literal["polarity", "cleft", "mitochondria"]
    image: VolumeConfig
    labels: VolumeConfig | None = None
    source: SourceConfig | None = None
    boxes: BoxesConfig
    seed: int = Field(0, ge=0)
    rounds: int = Field(3, ge=0)
    num_threads: int = Field(2, ge=1)
    segmentation: SegmentationConfig = SegmentationConfig()
    refit: RefitConfig = RefitConfig()
    decoding: DecodingConfig = DecodingConfig()
    candidates: CandidateConfig = CandidateConfig()
    patches: PatchConfig = PatchConfig()
    streams: StreamsConfig = StreamsConfig()
    query: QueryConfig = QueryConfig()
    annotator: AnnotatorConfig = AnnotatorConfig()

    @model_validator(mode="after")
    def _what_the_task_can_use(self) -> ProjectConfig:
        """A setting that would do nothing, or crash when it is too late to change it, is refused at once."""
        polarity = self.task == "polarity"
        for name in ("supervised", "unsupervised"):
            stream: StreamConfig = getattr(self.streams, name)
            if stream.method in ("vae", "simclr") and (problem := misfit(self.patches.width_px, stream)):
                raise ValueError(f"streams.{name}: {problem}")
        if self.source and self.streams.supervised.method == "s":
            raise ValueError(
                f"streams.supervised.method is s, what S computed, but a {self.source.name} stands in its place. "
                f"Use vae, or given"
            )
        if self.segmentation.exclusive and not polarity:
            raise ValueError(f"segmentation.exclusive is for polarity, not for {self.task}. Leave it out")
        if self.segmentation.loss.non_overlap and (not polarity or self.segmentation.exclusive):
            raise ValueError("segmentation.loss.non_overlap is for polarity with independent channels. Leave it out")
        if polarity and self.decoding.channels != ("foreground",):
            raise ValueError("decoding.channels is for mitochondria and clefts; synapses have pre, post, union")
        return self

    @model_validator(mode="after")
    def _something_to_begin_with(self) -> ProjectConfig:
        if self.labels is None and self.source is None:
            raise ValueError("labels is missing; add it, or a source in place of S")
        boxes = (self.boxes.labels, self.boxes.val)
        if any((box is None) != (self.labels is None) for box in boxes):
            raise ValueError("boxes.labels and boxes.val go with labels; give all three, or, with a source, none")
        return self


PAPER_VAE = {
    "method": "vae",
    "hidden_dims": [64, 128, 128, 256, 256, 512],
    "num_steps": 400_000,
    "batch_size": 256,
    "learning_rate": 1e-3,
    "warmup_steps": 1000,
}
PRESETS: dict[str, dict[str, Any]] = {
    "laptop": {},
    # The published sizes (docs/method.md, VAE and Configurations). They want a GPU.
    "paper": {
        "segmentation": {
            "filters": [32, 64, 96, 128, 160],
            "patch_shape_zyx": [16, 256, 256],
            "num_steps": 150_000,
            "block_shape_zyx": [32, 256, 256],
        },
        "refit": {"num_steps": 5_000},
        "patches": {"width_px": 128, "planes": "central"},
        "streams": {
            "supervised": PAPER_VAE | {"latent_dim": 16},
            "unsupervised": PAPER_VAE | {"latent_dim": 1024},
            "random_crop_share": 1.0,
            "active_clustering": {"num_steps": 5_000},
        },
    },
}
BY_TASK: dict[str, dict[str, Any]] = {
    # Measured (LOG.md): the unsupervised stream knows more of patches that are as wide as their object, and what it
    # then knows answers do not raise.
    "mitochondria": {
        "patches": {"object_widths": 1.6},
        "streams": {"unsupervised": {"num_steps": 1000}, "active_clustering": {"num_steps": 0}},
    },
}
"""What the laptop preset says of a task."""


def preset_settings(preset: str, task: str) -> dict[str, Any]:
    """Settings that ``preset`` makes for a new project of ``task``, over the defaults; a copy."""
    return copy.deepcopy(PRESETS[preset] | (BY_TASK.get(task, {}) if preset == "laptop" else {}))
