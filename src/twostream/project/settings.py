"""All settings of a project: what ``twostream.yaml`` may hold, and the presets.

Knows the settings that the other packages define; must not import torch, so that a project can be read anywhere.
"""

from __future__ import annotations

import copy
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from twostream.base.config import Config
from twostream.candidates.labels import LabelsConfig
from twostream.candidates.patches import PatchConfig
from twostream.candidates.sources import SourceConfig
from twostream.candidates.thresholds import CandidateConfig
from twostream.models.segmentation.config import RefitConfig, SegmentationConfig
from twostream.models.streams.config import NEEDS_S, NETWORKS, StreamConfig, StreamsConfig, misfit
from twostream.task import DecodingConfig


class ImageConfig(Config):
    """The image.

    Attributes:
        uri: where it is; a relative path starts at the project's folder.
        voxel_size_nm: (z, y, x) nm, if the file does not state it.
        window: (low, high) grey values that are shown as 0 and 255; None shows an image of 8 bits as it is.
    """

    uri: str
    voxel_size_nm: tuple[float, float, float] | None = None
    window: tuple[float, float] | None = None


class ModelConfig(Config):
    """The finished model with which a project without labels begins.

    Attributes:
        uri: path of its ``card.json``; a relative path starts at the project's folder.
        sha256: of its checkpoint.
    """

    uri: str
    sha256: str


class BoxesConfig(Config):
    """Boxes, as "Z0:Z1,Y0:Y1,X0:X1" in voxels of the image. They are fixed when the project is made.

    Attributes:
        labels: labels box, which S may learn from, or a list of several; None without labels, if a source replaces S.
            A list of one is stored as one text.
        val: validation box, a part of one labels box that is used for thresholds and early stopping instead of
            training.
        test: test box, never trained on and never asked about; None if no labels cover one.
    """

    labels: str | tuple[str, ...] | None = None
    val: str | None = None
    test: str | None = None

    @field_validator("labels", mode="before")
    @classmethod
    def _one_text_or_several(cls, value: Any) -> Any:
        # One form for one box, because settings are frozen by comparing them with those of round 0.
        texts = [value] if isinstance(value, str) else value
        if texts is None:
            return None
        if not isinstance(texts, (list, tuple)) or not texts or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"expected a box as text, Z0:Z1,Y0:Y1,X0:X1, or a list of such texts; got {value!r}")
        return texts[0] if len(texts) == 1 else tuple(texts)


class QueryConfig(Config):
    """How candidates are chosen.

    Attributes:
        strategy: a name registered in ``twostream.query``.
        budget: answers per round.
        settings: arguments of the strategy, such as ``num_clusters``, ``first`` and ``variant`` of two-stream.
        audit_share: share of a batch that is asked as audits; used only without a test box.
        window_share: share of a batch that is asked as windows: boxes that are searched for missed objects.
        window_nm: edge of a window in nm; None takes the width of a patch.
        faint_share: share of a batch that goes to faint candidates, from below the threshold of the candidates.

    Raises:
        ValueError: windows and faint candidates leave nothing of the batch.
    """

    strategy: str = "two-stream"
    budget: int = Field(50, ge=1)
    settings: dict[str, Any] = Field(default_factory=dict)
    audit_share: float = Field(0.1, ge=0, lt=1)
    window_share: float = Field(0.0, ge=0, lt=1)
    window_nm: float | None = Field(None, gt=0)
    faint_share: float = Field(0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _leaves_candidates(self) -> QueryConfig:
        if self.window_share + self.faint_share >= 1:
            raise ValueError(
                f"window_share {self.window_share:g} and faint_share {self.faint_share:g} make a whole batch; expected "
                f"a sum below 1"
            )
        return self


class AnnotatorConfig(Config):
    """The simulated annotator.

    Attributes:
        error_rate: probability that an answer is wrong.
        seconds_per_answer: assumed time of an answer, which is recorded with it.
        corrects: whether a badly shaped candidate is answered with a drawing of the true objects instead of *shape*.
        seconds_per_correction: assumed time of a drawing, in place of ``seconds_per_answer``.
    """

    error_rate: float = Field(0.0, ge=0, le=1)
    seconds_per_answer: float = Field(4.0, ge=0)
    corrects: bool = False
    seconds_per_correction: float = Field(30.0, ge=0)


class ProofreadingConfig(Config):
    """Proofreading in the browser.

    Attributes:
        double_share: share of the queries that two people answer; their agreement says how far answers can be trusted.
        lease_seconds: how long a query is kept for the person who was given it, from their last action on.
        idle_seconds: a longer pause without any input does not count as time of a decision.
    """

    double_share: float = Field(0.0, ge=0, le=1)
    lease_seconds: float = Field(600.0, ge=10)
    idle_seconds: float = Field(30.0, ge=1)


class ProjectConfig(Config):
    """All of ``twostream.yaml``.

    Attributes:
        id: drawn at random when the project is made; nothing is computed from it. Projects of older versions
            have none here: for them that of the ledger counts.
        task: what is looked for.
        image: the image, (Z, Y, X) grey values.
        labels: labels of the image; None is possible only with a source or a model.
        model: a finished model that is the S of round 0, in a project without labels; None trains S.
        source: another model's output, which replaces S; None trains S.
        boxes: labels boxes, validation box and test box.
        seed: of everything random.
        rounds: batches that ``twostream run`` asks.
        num_threads: threads of torch; results depend on it.
        segmentation: S and its training.
        refit: how S learns from answers.
        decoding: what S predicts, and how that becomes instances.
        candidates: thresholds.
        patches: patches around candidates.
        streams: both streams and their training.
        query: how candidates are chosen.
        annotator: the simulated annotator.
        proofreading: the page on which people answer.
    """

    id: str = ""
    task: Literal["polarity", "cleft", "mitochondria"]
    image: ImageConfig
    labels: LabelsConfig | None = None
    model: ModelConfig | None = None
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
    proofreading: ProofreadingConfig = ProofreadingConfig()

    @model_validator(mode="after")
    def _check_combinations(self) -> ProjectConfig:
        """Refuse now what would have no effect, or fail only after S has been trained."""
        polarity = self.task == "polarity"
        for name in ("supervised", "unsupervised"):
            stream: StreamConfig = getattr(self.streams, name)
            if stream.method in NETWORKS and (problem := misfit(self.patches.width_px, stream)):
                raise ValueError(f"streams.{name}: {problem}")
        if self.source and (method := self.streams.supervised.method) in NEEDS_S:
            raise ValueError(
                f"streams.supervised.method is {method} (features of S), but a {self.source.name} stands in its place. "
                f"Use vae, onnx, or given"
            )
        if self.segmentation.exclusive and not polarity:
            raise ValueError(f"segmentation.exclusive is for polarity, not for {self.task}. Leave it out")
        if self.segmentation.loss.non_overlap and (not polarity or self.segmentation.exclusive):
            raise ValueError("segmentation.loss.non_overlap is for polarity with independent channels. Leave it out")
        if polarity and self.decoding.channels != ("foreground",):
            raise ValueError(
                "decoding.channels is for mitochondria and clefts; polarity has pre, post and union. Leave it out"
            )
        return self

    @model_validator(mode="after")
    def _check_labels(self) -> ProjectConfig:
        """Labels and their two boxes come together, and can be left out only with a source or a model."""
        if self.labels is None and self.source is None and self.model is None:
            raise ValueError("labels is missing; add it, or a source in place of S, or a finished model")
        if self.model and (self.labels or self.source):
            other = "labels" if self.labels else "source"
            raise ValueError(
                f"model is a finished S for a project without labels, but {other} is set too; leave one out"
            )
        if self.model and (self.refit.start == "scratch" or self.refit.hold is None):
            raise ValueError(
                "a project that begins with a model has no labels that S could learn again, so refit.start must be "
                "first or warm, and refit.hold a probability: S is shown again what it was confident of"
            )
        boxes = (self.boxes.labels, self.boxes.val)
        if any((box is None) != (self.labels is None) for box in boxes):
            raise ValueError("boxes.labels and boxes.val belong to labels; set all three, or, without labels, none")
        return self


LOCATIONS = (
    ("image", "uri"),
    ("model", "uri"),
    ("labels", "uri"),
    ("labels", "post"),
    ("source", "uri"),
    *(("streams", stream, name) for stream in ("supervised", "unsupervised") for name in ("latents", "ids")),
    *(("streams", stream, "onnx", "path") for stream in ("supervised", "unsupervised")),
)
"""Settings that hold a URI. Relative paths start at the project's folder, so that folder and data can move together."""

PAPER_VAE: dict[str, Any] = {
    "method": "vae",
    "hidden_dims": [64, 128, 128, 256, 256, 512],
    "num_steps": 400_000,
    "batch_size": 256,
    "learning_rate": 1e-3,
    "warmup_steps": 1000,
}
"""Settings of both published VAEs, except their latent dimensions (``docs/method.md``, *VAE*)."""
PRESETS: dict[str, dict[str, Any]] = {
    # Measured (LOG.md): on small labels boxes S gains until about 1600 steps.
    "laptop": {"segmentation": {"num_steps": 1600, "watch": {"every_steps": 50, "patience": 6}}},
    # The published sizes (docs/method.md, VAE and Configurations). They need a GPU.
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
            "augment_crops": False,
            "active_clustering": {"num_steps": 5_000},
        },
    },
}
"""{preset: settings that differ from the defaults}."""
BY_TASK: dict[str, dict[str, Any]] = {
    # Measured (LOG.md): patches as wide as their object help the unsupervised stream; fine-tuning it on answers then
    # adds nothing.
    "mitochondria": {
        "patches": {"object_widths": 1.6},
        "streams": {"unsupervised": {"num_steps": 1000}, "active_clustering": {"num_steps": 0}},
    },
}
"""{task: settings of the preset "laptop" that differ from the defaults}."""


def preset_settings(preset: str, task: str) -> dict[str, Any]:
    """Settings of a new project that differ from the defaults, as a copy that may be changed.

    Args:
        preset: "laptop" or "paper".
        task: name of the task.
    """
    chosen = copy.deepcopy(PRESETS[preset])
    return chosen | copy.deepcopy(BY_TASK.get(task, {})) if preset == "laptop" else chosen
