"""External encoders: an ONNX file that turns patches into features, run by onnxruntime on this machine.

The file is checked before anything relies on it: that it takes the input that the settings state, and that its features
are one finite vector per patch, which depends on this patch alone and is the same every time. Needs the extra `onnx`.
Knows arrays of patches and the settings of an encoder; must not know torch, volumes, candidates or rounds.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from twostream.base.errors import InputError
from twostream.candidates.patches import PatchConfig
from twostream.models.onnx_session import in_one_line, open_session
from twostream.models.streams.encoders import OnnxConfig

FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
"""Types of an encoder's input, as onnxruntime calls them."""
TOLERANCE = 1e-2
"""Difference between features of one patch encoded twice that rounding may explain, also with 16 bits, as a share of
the largest feature."""
SAME = 1e-6
"""Features of unlike patches that differ by less than this share of their size are the same."""


class OnnxEncoder:
    """An encoder in an ONNX file.

    Args:
        config: the file and its input; ``path`` as it can be opened.
        num_threads: threads that compute; sums in another order differ in the last digit.

    Attributes:
        sha256: of the file.

    Raises:
        InputError: onnxruntime is not installed; the file is missing, is no ONNX model, is not the one that
            ``config.sha256`` states, or has another input or output than ``config``.
    """

    def __init__(self, config: OnnxConfig, num_threads: int) -> None:
        self.config = config
        try:
            content = Path(config.path).read_bytes()
        except OSError as error:
            raise InputError(
                f"{config.path} cannot be read ({error.strerror}); name the ONNX file in onnx.path."
            ) from None
        self.sha256 = hashlib.sha256(content).hexdigest()
        if config.sha256 not in (None, self.sha256):
            raise InputError(
                f"{config.path} is not the encoder that this project was made with: its sha256 is {self.sha256}, and "
                f"onnx.sha256 is {config.sha256}. Put that file back, or make a new project with this one."
            )
        self._session = open_session(content, config.path, num_threads)  # what was hashed is what runs
        self._input, self._output = self._checked_input(), self._checked_output()

    @property
    def patches(self) -> PatchConfig:
        """The patches that the encoder sees; ``pixel_size_nm`` is None where the project's is meant."""
        return patches_of(self.config)

    def encode(self, images: np.ndarray, masks: np.ndarray) -> np.ndarray:
        """Features of patches.

        Args:
            images: (N, P, W, W) uint8, P and W those of ``patches``; N may be 0.
            masks: (N, P, W, W) int8 of -1, 0 and 1.

        Returns:
            (N, D) float32.

        Raises:
            InputError: the encoder fails, or its features are not (N, D) finite numbers.
        """
        if len(images) == 0:  # the number of features shows in what comes out
            return self.encode(*_made_up(self.patches))[:0]
        fixed = self._input.shape[0] if isinstance(self._input.shape[0], int) else None
        size = fixed or self.config.batch_size
        parts = []
        for start in range(0, len(images), size):
            batch = self._tensor(images[start : start + size], masks[start : start + size])
            number = len(batch)
            if fixed and number < fixed:  # the file was exported for batches of this size alone
                batch = np.concatenate([batch, np.zeros((fixed - number, *batch.shape[1:]), batch.dtype)])
            parts.append(self._run(batch)[:number])
        return np.concatenate(parts)

    def check(self) -> int:
        """Encode a few made-up patches, and compare.

        Returns:
            D, the number of features.

        Raises:
            InputError: features differ when the same patches are encoded again or with other patches, do not depend on
                the patch, or are not (N, D) finite numbers.
        """
        images, masks = _made_up(self.patches)
        features = self.encode(images, masks)
        size = float(np.abs(features).max())
        if np.abs(self.encode(images, masks) - features).max() > TOLERANCE * size:
            raise InputError(
                f"{self.config.path} gives other features when the same patches are encoded again. Export the encoder "
                f"in evaluation mode, without dropout."
            )
        alone = np.concatenate([self.encode(images[i : i + 1], masks[i : i + 1]) for i in range(len(images))])
        if np.abs(alone - features).max() > TOLERANCE * size:
            raise InputError(
                f"{self.config.path} gives a patch other features when it is encoded together with other patches. "
                f"Export the encoder in evaluation mode, so that batch normalisation uses stored statistics."
            )
        if np.ptp(features, axis=0).max() <= SAME * size:
            raise InputError(
                f"{self.config.path} gives the same features for unlike patches. Is the right output named "
                f"(onnx.output is {self.config.output or self._output.name}), and are the weights in the file?"
            )
        return features.shape[1]

    def _checked_input(self) -> Any:
        """The model's one input, if it takes what the settings state."""
        inputs, config = self._session.get_inputs(), self.config
        if len(inputs) != 1:
            names = ", ".join(one.name for one in inputs)
            raise InputError(f"{config.path} has {len(inputs)} inputs ({names}); expected one, the patches.")
        one = inputs[0]
        wanted = (None, len(config.channels), *config.shape)
        axes = "(N, C, Z, Y, X)" if len(config.shape) == 3 else "(N, C, Y, X)"
        fits = len(one.shape) == len(wanted) and all(
            not isinstance(has, int) or has == wants for has, wants in zip(one.shape[1:], wanted[1:], strict=True)
        )
        if one.type not in FLOATS or not fits:
            raise InputError(
                f"{config.path} takes {one.type} {_shown(one.shape)}; expected floats {axes} with C = "
                f"{len(config.channels)} and {config.shape} pixels, as onnx.channels and onnx.shape state. Change "
                f"these, or export the encoder anew."
            )
        return one

    def _checked_output(self) -> Any:
        """The output with the features."""
        outputs, config = {one.name: one for one in self._session.get_outputs()}, self.config
        if config.output is None and len(outputs) == 1:
            return next(iter(outputs.values()))
        if config.output not in outputs:
            names = ", ".join(outputs)
            said = f"has no output {config.output}" if config.output else f"has {len(outputs)} outputs"
            raise InputError(f"{config.path} {said}; set onnx.output to one of: {names}.")
        return outputs[config.output]

    def _tensor(self, images: np.ndarray, masks: np.ndarray) -> np.ndarray:
        """Patches as the encoder's input, (N, C, Y, X) or (N, C, Z, Y, X)."""
        config = self.config
        number = len(config.channels)
        grey = images.astype(np.float32) / np.float32(255)
        if config.range is not None:
            low, high = config.range
            factor, added = np.full(number, high - low), np.full(number, low)
        else:
            assert config.mean is not None and config.std is not None
            factor = 1 / np.broadcast_to(config.std, number)
            added = -np.broadcast_to(config.mean, number) * factor
        channels = [
            grey * np.float32(factor[i]) + np.float32(added[i]) if what == "image" else masks.astype(np.float32)
            for i, what in enumerate(config.channels)
        ]
        tensor = np.stack(channels, axis=1)
        tensor = tensor if len(config.shape) == 3 else tensor[:, :, 0]
        return np.ascontiguousarray(tensor, FLOATS[self._input.type])

    def _run(self, batch: np.ndarray) -> np.ndarray:
        """Features of one batch, (N, D) float32."""
        try:
            features = np.asarray(self._session.run([self._output.name], {self._input.name: batch})[0])
        except Exception as error:  # onnxruntime raises classes of its own, without a common base
            raise InputError(
                f"{self.config.path} cannot encode patches of shape {batch.shape}: {in_one_line(error)}"
            ) from None
        if features.ndim != 2 or len(features) != len(batch) or features.dtype.kind != "f" or not features.shape[1]:
            hint = " Export it with global average pooling." if features.ndim > 2 else ""
            raise InputError(
                f"{self.config.path} gives {features.dtype} {features.shape} for {len(batch)} patches (output "
                f"{self._output.name}); expected floats ({len(batch)}, D), one row of features per patch.{hint}"
            )
        with np.errstate(over="ignore"):
            features = features.astype(np.float32)
        if not np.isfinite(features).all():
            raise InputError(
                f"{self.config.path} gives features that are not finite. Does it expect other grey values (onnx.mean "
                f"and onnx.std, or onnx.range)?"
            )
        return features


def patches_of(config: OnnxConfig) -> PatchConfig:
    """The patches that an encoder sees; ``pixel_size_nm`` is None where the project's is meant."""
    stack = {"planes": "stack", "stack_size": config.sections, "stack_step_nm": config.section_nm}
    planes = stack if config.sections > 1 else {"planes": "central"}
    return PatchConfig(width_px=config.shape[-1], pixel_size_nm=config.pixel_size_nm, **planes)


def _made_up(patches: PatchConfig) -> tuple[np.ndarray, np.ndarray]:
    """Patches of the check: (N, P, W, W) uint8 images of noise, more and less coarse, and int8 masks of a disc."""
    rng = np.random.default_rng(0)
    width, images = patches.width_px, []
    for coarse in (1, 4, 8):
        grain = rng.integers(40, 216, (patches.num_planes, -(-width // coarse), -(-width // coarse)))
        images.append(grain.repeat(coarse, 1).repeat(coarse, 2)[:, :width, :width])
    away = np.hypot(*np.ogrid[-1 : 1 : width * 1j, -1 : 1 : width * 1j])
    masks = [np.broadcast_to(away < radius, images[0].shape) for radius in (0.3, 0.5, 0.7)]
    return np.array(images, np.uint8), np.array(masks, np.int8)


def _shown(shape: list[Any]) -> str:
    """A shape of onnxruntime; sizes that are free have names."""
    return "(" + ", ".join(str(n) if isinstance(n, int) else "?" for n in shape) + ")"
