"""S over a volume, block by block: probability as an OME-Zarr of uint8, 255 = certain.

Knows S, volumes and blocks; must not know candidates or rounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from twostream import progress
from twostream.execution import Executor, InProcess
from twostream.geometry import Block, Box, grid
from twostream.segmentation.config import SegmentationConfig, context_voxels
from twostream.segmentation.train import Segmenter, stride_of
from twostream.volume import Volume, read_padded


def predict_block(segmenter: Segmenter, image: np.ndarray) -> np.ndarray:
    """Probability of one block: (Z, Y, X) uint8, a multiple of S's stride -> (C, Z, Y, X) uint8."""
    device = next(segmenter.network.parameters()).device
    with torch.inference_mode():
        tensor = torch.from_numpy(segmenter.normalise(image))[None, None].to(device)
        probability = torch.sigmoid(segmenter.network(tensor))[0]
        return torch.round(255 * probability).to(torch.uint8).cpu().numpy()


@dataclass(frozen=True)
class PredictBlock:
    """Reads a block with its context, predicts it, writes it; travels to a worker with S and both volumes."""

    segmenter: Segmenter
    image: Volume
    output: Volume

    def __call__(self, block: Block) -> None:
        padded = _rounded_up(block.read_box, stride_of(self.segmenter))
        probability = predict_block(self.segmenter, read_padded(self.image, padded))
        self.output.write(block.write_box, probability[(slice(None), *block.write_box.relative_to(padded).slices)])


def predict(
    segmenter: Segmenter,
    image: Volume,
    output: Volume,
    config: SegmentationConfig,
    executor: Executor | None = None,
) -> None:
    """Fill ``output`` with S's probability for every voxel of ``image``.

    Args:
        segmenter: S; moved to the GPU where there is one.
        image: (Z, Y, X) uint8.
        output: (C, Z, Y, X) uint8 of the same extent.
        config: block shape and context.
        executor: where blocks are predicted; None is here, one after the other.
    """
    segmenter.network.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    blocks = plan(segmenter, image, config)
    with progress.task("predict", total=len(blocks)) as advance:
        for _ in (executor or InProcess()).map(PredictBlock(segmenter, image, output), blocks):
            advance(1)
    segmenter.network.cpu()


def plan(segmenter: Segmenter, image: Volume, config: SegmentationConfig) -> list[Block]:
    """The blocks: write boxes tile the image, read boxes add the context."""
    fold_zyx = segmenter.architecture["fold_zyx"]
    shape = [b * f for b, f in zip(config.block_shape_zyx, fold_zyx, strict=True)]
    return list(grid(image.box, shape, context_voxels(config, fold_zyx)))


def _rounded_up(box: Box, multiple: Sequence[int]) -> Box:
    """``box`` with its last voxels moved out until its extent is a multiple; it begins where it began."""
    shape = tuple(-(-s // m) * m for s, m in zip(box.shape_zyx, multiple, strict=True))
    return Box(box.offset_zyx, shape)  # type: ignore[arg-type]
