"""All settings of a project, composed: what ``twostream.yaml`` may hold, and the presets.

Knows the settings of each room; must not import torch, so that a project can be read anywhere.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from twostream.candidates import CandidateConfig
from twostream.config import Config
from twostream.patches import PatchConfig
from twostream.segmentation.config import RefitConfig, SegmentationConfig
from twostream.streams.config import StreamsConfig
from twostream.task import DecodingConfig


class VolumeConfig(Config):
    """A volume and, where its file does not say, its voxel size (z, y, x) in nm."""

    uri: str
    voxel_size_nm: tuple[float, float, float] | None = None


class BoxesConfig(Config):
    """Regions, as Z0:Z1,Y0:Y1,X0:X1 in voxels of the image. Frozen when the project is made.

    Attributes:
        labels: what S may learn from.
        val: part of ``labels`` that is kept for thresholds and early stopping.
        test: never trained on, never asked; None where no truth covers it.
    """

    labels: str
    val: str
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
    """

    error_rate: float = Field(0.0, ge=0, le=1)
    seconds_per_answer: float = Field(4.0, ge=0)


class ProjectConfig(Config):
    """All of ``twostream.yaml``."""

    task: Literal["polarity", "cleft", "mitochondria"]
    image: VolumeConfig
    labels: VolumeConfig
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


PAPER_VAE = {
    "hidden_dims": [64, 128, 128, 256, 256, 512],
    "num_steps": 400_000,
    "batch_size": 256,
    "learning_rate": 1e-3,
}
PRESETS: dict[str, dict[str, Any]] = {
    "laptop": {},
    # METHOD sections 5 and 8: the published sizes. They want a GPU.
    "paper": {
        "segmentation": {
            "filters": [32, 64, 96, 128, 160],
            "patch_shape_zyx": [16, 256, 256],
            "num_steps": 150_000,
            "block_shape_zyx": [32, 256, 256],
        },
        "refit": {"num_steps": 5_000},
        "patches": {"width_px": 128},
        "streams": {
            "supervised": PAPER_VAE | {"latent_dim": 16},
            "unsupervised": PAPER_VAE | {"latent_dim": 1024},
            "active_clustering": {"num_steps": 5_000},
        },
    },
}
