"""Prediction: the probability of S for every voxel of a volume, as uint8 (255 is probability 1).

Knows S and how torch computes it for a window; windows and their blending are in ``blending``. Must not know candidates
or rounds.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from twostream.base.geometry import Block, Box
from twostream.models.segmentation.blending import (
    Lattice,
    Triple,
    blocks_of,
    lattice_over,
    write_probability,
)
from twostream.models.segmentation.config import SegmentationConfig
from twostream.models.segmentation.network import averaged_over_orientations, fold
from twostream.models.segmentation.train import Segmenter, stride_of
from twostream.models.training import use_threads
from twostream.volume import Volume
from twostream.volume.stage import Stage


@dataclass(frozen=True)
class TorchWindows:
    """S for windows, computed by torch where its network lies (``blending.WindowModel``).

    Attributes:
        segmenter: S, in evaluation mode.
        num_orientations: over how many the output is averaged (``SegmentationConfig.test_time_flips``).
        average: what is averaged over orientations and windows.
    """

    segmenter: Segmenter
    num_orientations: int = 1
    average: Literal["logit", "probability"] = "logit"

    def __getstate__(self) -> dict[str, Any]:
        """With the network on the CPU: who unpickles it may have no GPU, or another one."""
        return vars(self) | {"segmenter": replace(self.segmenter, network=copy.deepcopy(self.segmenter.network).cpu())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, value)
        # As in the process that sent it. Dask lets its workers give memory back after every window: twice the time.
        use_threads(torch.get_num_threads())
        self.on_device()

    def on_device(self) -> TorchWindows:
        """Itself, after its network has been moved to the GPU where there is one."""
        self.segmenter.network.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        return self

    @property
    def fold_zyx(self) -> Triple:
        return self.segmenter.network.fold_zyx

    @property
    def stride_zyx(self) -> Triple:
        return stride_of(self.segmenter)

    def folded_output(self, grey_BZYX: np.ndarray) -> np.ndarray:  # noqa: N803 - the axes are the name
        network, s = self.segmenter.network, self.segmenter
        activation = s.head.probability if self.average == "probability" else None
        with torch.inference_mode():
            # Folded as bytes, which moves a quarter of the memory of float32, then normalised.
            folded = fold(torch.from_numpy(grey_BZYX)[:, None], network.fold_zyx)
            normal = torch.add(torch.tensor(-s.mean / s.std), folded, alpha=1 / s.std)
            normal = normal.to(next(network.parameters()).device)
            output: np.ndarray = (
                averaged_over_orientations(network, self.num_orientations, activation)(normal).cpu().numpy()
            )
            return output

    def probability(self, blended_LYX: np.ndarray) -> np.ndarray:  # noqa: N803
        if self.average == "probability":
            return blended_LYX
        with torch.inference_mode():
            values = torch.from_numpy(blended_LYX)[None, :, None]
            probability: np.ndarray = self.segmenter.head.probability(values)[0, :, 0].numpy()
            return probability


def predict(
    segmenter: Segmenter,
    image: Volume,
    output: Volume,
    config: SegmentationConfig,
    stage: Stage | None = None,
    region: Box | None = None,
) -> None:
    """Write S's probability for every voxel of ``image``, or of ``region``, to ``output``.

    Args:
        segmenter: S; computes on the GPU where there is one, and is left on the CPU.
        image: (Z, Y, X) uint8.
        output: (C, Z, Y, X) uint8 of the same extent; 255 is probability 1.
        config: shapes of windows and blocks, overlap, test-time flips, blending.
        stage: runs the blocks; None: in this process, one after the other, and nothing is remembered.
        region: voxels of the image; its offset must be a multiple of the fold. None: the whole image.

    Raises:
        BlocksError: blocks could not be read, computed or written.
    """
    model = TorchWindows(segmenter, config.test_time_flips, config.average).on_device()
    write_probability(model, image, output, config, stage, region)
    segmenter.network.cpu()


def lattice_of(segmenter: Segmenter, image: Volume, config: SegmentationConfig) -> Lattice:
    """The lattice of windows over ``image``."""
    return lattice_over(image, segmenter.network.fold_zyx, stride_of(segmenter), config)


def plan(segmenter: Segmenter, region: Box, config: SegmentationConfig) -> list[Block]:
    """Blocks of ``config.block_shape_zyx`` folded voxels that tile ``region``, a box in voxels of the image."""
    return blocks_of(region, segmenter.network.fold_zyx, config.block_shape_zyx)
