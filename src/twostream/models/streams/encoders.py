"""Settings of an external encoder (``method: onnx``), and the input of encoders that were pretrained on EM, by name.

No weights are shipped. Whoever wants to use a published encoder fetches its weights, exports them to ONNX once, and
names the file; docs/encoders.md says how. Must not import torch or onnxruntime.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, PositiveInt, model_validator

from twostream.base.config import Config

Channel = Literal["image", "mask"]
MAX_SIDE = 1024
"""Largest side of an encoder's patch in pixels, as for other patches."""


@dataclass(frozen=True)
class Encoder:
    """A published encoder.

    Attributes:
        about: what it is and what it was trained on.
        source: where its authors offer the weights.
        licence: what its authors say, and where; weights and code may differ.
        settings: settings of ``OnnxConfig`` that its authors state.
        tested: whether it was run here. None could be, because weights cannot be had where this was written.
    """

    about: str
    source: str
    licence: str
    settings: Mapping[str, Any]
    tested: bool = False


CODE_LICENCE = "code BSD 3-Clause (volume-em/cem-dataset); that of the weights stands at the Zenodo record"
ENCODERS: dict[str, Encoder] = {
    "cem500k-moco": Encoder(
        "ResNet-50, MoCo v2 on CEM500K: half a million EM images of 224 x 224 pixels (Conrad and Narayan 2021, eLife "
        "10, e65894)",
        "https://zenodo.org/record/6453140",
        CODE_LICENCE,
        # Its checkpoint stores the mean and the deviation under "norms". Published sources state two different pairs,
        # so none is set here.
        {"shape": [224, 224], "channels": ["image"]},
    ),
    "cem1.5m-swav": Encoder(
        "ResNet-50, SwAV on CEM1.5M: one and a half million EM images of 224 x 224 pixels (Conrad and Narayan)",
        "https://zenodo.org/record/6453160",
        CODE_LICENCE,
        {"shape": [224, 224], "channels": ["image"], "mean": [0.57571], "std": [0.12765]},
    ),
}
"""Encoders pretrained on EM. Sources: README, configuration files and notebooks of volume-em/cem-dataset."""


class OnnxConfig(Config):
    """An encoder in an ONNX file, and its input.

    The encoder gets a batch of patches, (N, C, Y, X) or (N, C, Z, Y, X) float, and gives features, (N, D) float.

    Attributes:
        path: the ONNX file.
        encoder: name of a published encoder, whose settings are used where none is set here.
        pixel_size_nm: size of a pixel in plane that the encoder expects; None takes that of the project's patches.
        shape: (Y, X) pixels of a patch, or (Z, Y, X), where Z is odd and the middle one is the central section. Y = X.
        section_nm: distance in nm of the Z sections, rounded to whole sections of the image.
        channels: what each channel holds: "image", grey values; "mask", +1 inside the object or on the presynaptic
            side, -1 on the postsynaptic side, 0 elsewhere. An encoder of colour images gets "image" three times.
        mean, std: grey values from 0 to 1 become (value - mean) / std; one number, or one for each channel.
        range: grey values from 0 to 1 become low to high. Either this, or mean and std. Masks stay as they are.
        output: name of the output with the features; None if there is a single one.
        batch_size: patches that are encoded at once, where the file does not fix it.
        sha256: of the file, stated by `init`, so that no other encoder takes its place later.
    """

    path: str
    encoder: str | None = None
    pixel_size_nm: float | None = Field(None, ge=0.1, le=10_000)
    shape: tuple[PositiveInt, ...] = Field(min_length=2, max_length=3)
    section_nm: float = Field(40.0, gt=0, le=10_000)
    channels: tuple[Channel, ...] = Field(("image",), min_length=1, max_length=16)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    range: tuple[float, float] | None = None
    output: str | None = None
    batch_size: int = Field(16, ge=1)
    sha256: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _settings_of_the_encoder(cls, values: Any) -> Any:
        """Settings that are not set take those of the published encoder."""
        if not isinstance(values, Mapping):
            return values
        values = {k: [v] if k in ("mean", "std") and isinstance(v, int | float) else v for k, v in values.items()}
        name = values.get("encoder")
        if name is None:
            return values
        if name not in ENCODERS:
            raise ValueError(
                f"encoder is {name!r}; expected one of {', '.join(ENCODERS)} (docs/encoders.md). For another encoder "
                f"leave it out and set shape, and mean and std or range"
            )
        stated = dict(ENCODERS[name].settings)
        if values.get("range") is not None:
            stated = {key: value for key, value in stated.items() if key not in ("mean", "std")}
        return stated | {key: value for key, value in values.items() if value is not None}

    @model_validator(mode="after")
    def _input_is_stated(self) -> OnnxConfig:
        if self.shape[-1] != self.shape[-2] or not 8 <= self.shape[-1] <= MAX_SIDE:
            raise ValueError(f"shape is {self.shape}; expected square patches with sides of 8 to {MAX_SIDE} pixels")
        if self.sections % 2 == 0 or self.sections > 99:
            raise ValueError(
                f"shape is {self.shape}; expected an odd number of at most 99 sections (Z), with the central one in "
                f"the middle"
            )
        by_mean = self.mean is not None and self.std is not None
        if (self.mean is None) != (self.std is None) or by_mean == (self.range is not None):
            raise ValueError(
                "how grey values are normalised must be stated: either mean and std (of grey values from 0 to 1), or "
                "range ([-1, 1], for example)"
            )
        for name, given in (("mean", self.mean), ("std", self.std)):
            if given is not None and len(given) not in (1, len(self.channels)):
                raise ValueError(
                    f"{name} has {len(given)} numbers for {len(self.channels)} channels; expected one, or one for each"
                )
        if self.std is not None and min(self.std) <= 0:
            raise ValueError(f"std is {self.std}; expected numbers above 0")
        means = (self.mean or ()) * (len(self.channels) if len(self.mean or ()) == 1 else 1)
        grey = [mean for mean, channel in zip(means, self.channels, strict=False) if channel == "image"]
        if grey and not 0 <= min(grey) <= max(grey) <= 1:
            scaled = ", ".join(f"{value / 255:.3g}" for value in grey)
            raise ValueError(
                f"mean is {', '.join(f'{value:g}' for value in grey)}; expected means of grey values from 0 to "
                f"1. Of values from 0 to 255 it is {scaled}; divide std by 255 as well"
            )
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError(f"range is {self.range}; expected low, then high")
        return self

    @property
    def sections(self) -> int:
        """Z of a patch; 1 for patches of a single section."""
        return self.shape[0] if len(self.shape) == 3 else 1
