"""S written as an ONNX file, which ``onnx_model`` and other programs can compute without torch.

Grey values go in as they are; normalisation, folding, orientations and the interpolation to voxels are in the graph.

Knows S and ONNX; must not know tasks, projects or rounds.
"""

from __future__ import annotations

import math
import os
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

from twostream.base.errors import ProjectError
from twostream.models.segmentation.blending import WindowModel
from twostream.models.segmentation.config import SegmentationConfig
from twostream.models.segmentation.network import orientations
from twostream.models.segmentation.onnx_model import FOLDED, INPUT, PROBABILITY, OnnxWindows
from twostream.models.segmentation.predict import TorchWindows
from twostream.models.segmentation.train import Segmenter, stride_of

OPSET = 17
"""Version of ONNX's operators, of 2022: old enough for other programs, new enough for all that S needs."""
CHECKED_WINDOWS = (2, 3)
"""Windows on which an exported file is compared with torch, in strides: one is not the size that was traced."""
MAX_DIFFERENCE = 1e-3
"""Largest difference of a probability that the comparison allows; a level of the probability volume is 4e-3."""


class _Graph(nn.Module):
    """What the file computes: image (B, 1, Z, Y, X) uint8 -> (what is blended, probability)."""

    def __init__(self, segmenter: Segmenter, config: SegmentationConfig) -> None:
        super().__init__()
        self.segmenter, self.num_orientations = segmenter, config.test_time_flips
        self.averages_probability = config.average == "probability"
        self.unet = segmenter.network.unet
        fold_zyx, folded = segmenter.network.fold_zyx, math.prod(segmenter.network.fold_zyx)
        # Folding as a convolution, because the exporter loses the number of channels in a reshape of unknown extents.
        self.fold = nn.Conv3d(1, folded, fold_zyx, stride=fold_zyx, bias=False)
        self.fold.weight.data = torch.eye(folded).reshape(folded, 1, *fold_zyx)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        grey = (image.float() - self.segmenter.mean) / self.segmenter.std
        total = torch.zeros(())
        for turns, axes in orientations(self.num_orientations):
            output = self.unet(self.fold(_flipped(_turned(grey, turns), axes)))
            output = self.segmenter.head.probability(output) if self.averages_probability else output
            total = total + _turned(_flipped(output, axes), -turns)
        folded = total / self.num_orientations
        scale = [float(f) for f in self.segmenter.network.fold_zyx]
        whole = nn.functional.interpolate(folded, scale_factor=scale, mode="trilinear", align_corners=False)
        return folded, whole if self.averages_probability else self.segmenter.head.probability(whole)


def _flipped(volume: torch.Tensor, axes: tuple[int, ...]) -> torch.Tensor:
    return torch.flip(volume, axes) if axes else volume


def _turned(volume: torch.Tensor, turns: int) -> torch.Tensor:
    """``torch.rot90`` from Y to X for -1, 0 or 1 turns, of operators that ONNX has."""
    return volume if turns == 0 else torch.flip(volume.transpose(-2, -1), [-2 if turns == 1 else -1])


def export_onnx(segmenter: Segmenter, config: SegmentationConfig, path: Path) -> float:
    """Write S as an ONNX file and compare it with torch on random grey values.

    Args:
        segmenter: S, on the CPU.
        config: orientations, and what is averaged over them.
        path: the file, replaced atomically.

    Returns:
        The largest difference of a probability between onnxruntime and torch.

    Raises:
        ProjectError: the difference is larger than ``MAX_DIFFERENCE``.
    """
    segmenter.network.eval()
    stride = stride_of(segmenter)
    # A batch of two: for one, ``folded_logit`` takes another way, which the graph must not hold.
    traced = torch.zeros((2, 1, *(CHECKED_WINDOWS[0] * s for s in stride)), dtype=torch.uint8)
    axes = {0: "batch", 2: "z", 3: "y", 4: "x"}
    partial = path.with_name(path.name + ".partial")
    try:
        with warnings.catch_warnings(), torch.no_grad():
            # That this exporter will be replaced by one with more requirements, and that shapes are constants.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                _Graph(segmenter, config).eval(),
                (traced,),
                str(partial),
                input_names=[INPUT],
                output_names=[FOLDED, PROBABILITY],
                dynamic_axes={INPUT: axes, FOLDED: axes, PROBABILITY: axes},
                opset_version=OPSET,
                dynamo=False,
            )
        difference = _difference(segmenter, config, partial)
        if not difference <= MAX_DIFFERENCE:
            raise ProjectError(
                f"the exported ONNX model differs from S by {difference:.2g} in probability; expected at most "
                f"{MAX_DIFFERENCE:g}. Please report this with the versions of torch, onnx and onnxruntime."
            )
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return difference


def _difference(segmenter: Segmenter, config: SegmentationConfig, path: Path) -> float:
    """Largest difference of a probability between the file at ``path`` and torch."""
    by_torch = TorchWindows(segmenter, config.test_time_flips, config.average)
    by_onnx = OnnxWindows(
        path,
        fold_zyx=segmenter.network.fold_zyx,
        stride_zyx=stride_of(segmenter),
        head=segmenter.architecture["head"],
        average=config.average,
        num_threads=torch.get_num_threads(),
    )
    rng, found = np.random.default_rng(0), 0.0
    models: tuple[WindowModel, WindowModel] = (by_torch, by_onnx)
    for number in CHECKED_WINDOWS:
        grey = rng.integers(0, 256, (1, *(number * s for s in by_torch.stride_zyx))).astype(np.uint8)
        one, other = (model.probability(model.folded_output(grey)[0, :, 0]) for model in models)
        found = max(found, float(np.abs(one - other).max()))
    return found
