"""The card of a finished model: ``card.json``, which says what a model is, how it is used, and how good it is.

Everything that prediction needs stands in it, so that a folder with a card and a model is used without the project that
it came from. Knows the form of the card and the files beside it; must not know projects, and must not import torch.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from twostream.base.config import Config, parse_config
from twostream.base.errors import InputError
from twostream.models.segmentation.config import SegmentationConfig
from twostream.task import DecodingConfig, Task, get_task
from twostream.volume import Volume

CARD_NAME, CHECKPOINT_NAME, ONNX_NAME = "card.json", "model.ckpt", "model.onnx"
FINISHED = "finished"
"""Folder of a project that holds the card and what lies beside it."""
VERSION = 1
VOXEL_TOLERANCE = 0.05
"""How far the voxel size of an image may be from that of the training image, along each axis, as a share. Two scans of
one instrument differ by less, and training varies the scale by more (``AugmentConfig.rescale_range``)."""
Triple = tuple[PositiveInt, PositiveInt, PositiveInt]
Size = tuple[PositiveFloat, PositiveFloat, PositiveFloat]
HEADS = ("independent", "exclusive")
"""Forms of a head (``heads.Head.description``)."""


class FileFact(Config):
    """A file beside the card.

    Attributes:
        name: of the file, in the folder of the card.
        sha256: of its content, in hexadecimal digits.
    """

    name: str
    sha256: str


class GreyFacts(Config):
    """What the model's input looks like.

    Attributes:
        mean, std: of the grey values by which the input is normalised, 0 to 255.
        window: (low, high) grey values of the training image that were shown as 0 and 255; None: it held 8 bits.
    """

    mean: float
    std: float = Field(gt=0)
    window: tuple[float, float] | None = None


class ThresholdFacts(Config):
    """How probability becomes instances.

    Attributes:
        threshold: foreground probability above which a voxel belongs to a candidate.
        final_threshold: the same for the final segmentation.
        min_score: mean probability that an instance of the final segmentation needs.
        min_object_nm3: volume in nm^3 below which an instance is dropped.
    """

    threshold: float = Field(gt=0, lt=1)
    final_threshold: float = Field(gt=0, lt=1)
    min_score: float = Field(ge=0, le=1)
    min_object_nm3: float = Field(ge=0)


class ModelCard(Config):
    """Content of ``card.json`` (docs/finish.md explains every entry).

    Attributes:
        card: version of this form.
        task: name of the task.
        voxel_size_nm: (z, y, x) nm of the training image.
        channels: of the probability.
        pixel_size_nm: (z, y, x) nm of a folded voxel, which the first convolution sees.
        fold_zyx, stride_zyx: voxels folded into one; voxels of which the shape of a window must be a multiple.
        head: what the logits mean (``heads.Head.description``).
        grey: normalisation of the input.
        segmentation: settings of S: shape and overlap of the windows, orientations, and its training.
        decoding: from probability to instances.
        thresholds: likewise.
        files: "checkpoint" and, where it was written, "onnx".
        trained_on: labels and answers that the model learned from.
        scores: of this model, of S_0 and of the last S of the loop, each with its source.
        project: id, seed and number of rounds of the project.
        software: versions of the packages.
        date: day on which the model was finished, ISO 8601, UTC.
        license: under which the model may be used; "" was not stated.
    """

    card: Literal[1] = 1
    task: Literal["polarity", "cleft", "mitochondria"]
    voxel_size_nm: Size
    channels: tuple[str, ...]
    pixel_size_nm: Size
    fold_zyx: Triple
    stride_zyx: Triple
    head: dict[str, Any]
    grey: GreyFacts
    segmentation: SegmentationConfig
    decoding: DecodingConfig
    thresholds: ThresholdFacts
    files: dict[Literal["checkpoint", "onnx"], FileFact]
    trained_on: dict[str, Any] = Field(default_factory=dict)
    scores: dict[str, Any] = Field(default_factory=dict)
    project: dict[str, Any] = Field(default_factory=dict)
    software: dict[str, str] = Field(default_factory=dict)
    date: str = ""
    license: str = ""

    @model_validator(mode="after")
    def _entries_agree(self) -> ModelCard:
        expected = get_task(self.task, self.voxel_size_nm, self.decoding).channels
        if self.channels != expected:
            raise ValueError(
                f"channels is {', '.join(self.channels) or 'empty'}; with this task and decoding.channels it is "
                f"{', '.join(expected)}. Take the card that `twostream finish` wrote"
            )
        if self.head.get("form") not in HEADS:
            raise ValueError(f"head.form is {self.head.get('form')!r}; expected {' or '.join(HEADS)}")
        return self


class Model:
    """A card with the folder that it lies in.

    Args:
        path: ``card.json``, or the folder that holds it.

    Attributes:
        card: the content.
        path: of ``card.json``.

    Raises:
        InputError: there is no card, or it is damaged or of a newer version.
        ConfigError: an entry is unknown, missing or out of range.
    """

    def __init__(self, path: Path) -> None:
        self.path = path / CARD_NAME if path.is_dir() else path
        if not self.path.is_file():
            finished = self.path.parent / FINISHED / CARD_NAME
            hint = f" Pass {finished.parent}." if finished.is_file() else ""
            raise InputError(
                f"there is no card at {self.path}; expected card.json of `twostream finish`, or its folder.{hint}"
            )
        try:
            values = json.loads(self.path.read_text(encoding="utf-8"))
        except (ValueError, UnicodeDecodeError) as error:
            raise InputError(f"{self.path} is not valid JSON: {error}.") from None
        if not isinstance(values, dict) or not isinstance(values.get("card"), int):
            raise InputError(f"{self.path} is no model card: it has no entry `card` with the version of its form.")
        if values["card"] > VERSION:
            raise InputError(
                f"{self.path} is a card of version {values['card']}; this twostream reads up to {VERSION}. Update it."
            )
        self.card = parse_config(ModelCard, values, source=str(self.path))

    def task(self, voxel_size_nm: Sequence[float]) -> Task:
        """The task of the card, at a voxel size."""
        return get_task(self.card.task, tuple(voxel_size_nm), self.card.decoding)

    def min_voxels(self, voxel_size_nm: Sequence[float]) -> int:
        """Number of voxels of the smallest instance that is kept, at least 1."""
        return max(1, round(self.card.thresholds.min_object_nm3 / math.prod(voxel_size_nm)))

    def file(self, kind: Literal["checkpoint", "onnx"]) -> Path:
        """Path of a file of the model, after a check of its content.

        Raises:
            InputError: the card names no such file, or it is missing, or its content is another.
        """
        fact = self.card.files.get(kind)
        if fact is None:
            raise InputError(f"{self.path} names no {kind} of the model.")
        path = self.path.parent / fact.name
        if Path(fact.name).name != fact.name or not path.is_file():
            raise InputError(f"{self.path} names {fact.name}, which is not beside it. Copy the whole folder.")
        if sha256_of(path) != fact.sha256:
            raise InputError(f"{path} is not the file that {self.path} was written for: its checksum differs.")
        return path

    def check_fits(self, image: Volume) -> None:
        """Check that the model can be applied to an image.

        Raises:
            InputError: the voxel size is another.
        """
        pairs = list(zip(image.voxel_size_nm, self.card.voxel_size_nm, strict=True))
        if any(abs(here / there - 1) > VOXEL_TOLERANCE for here, there in pairs):
            raise InputError(
                f"{image.uri} has voxels of {_sizes(image.voxel_size_nm)} nm (Z, Y, X); the model was trained on "
                f"{_sizes(self.card.voxel_size_nm)} nm, and has learned objects of that size. Nothing is "
                f"rescaled here: pass the image at that voxel size (a difference of {VOXEL_TOLERANCE:.0%} is accepted)."
            )


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _sizes(voxel_size_nm: Sequence[float]) -> str:
    return " x ".join(f"{v:g}" for v in voxel_size_nm)
