"""Prediction: the probability of S for every voxel of a volume, as uint8 (255 is probability 1).

The network is applied to overlapping windows, whose logits (or probabilities, ``SegmentationConfig.average``) are
blended with Gaussian weights. The windows lie on one lattice over the whole volume. A block, the unit of work, computes
every window that touches it; its result therefore does not depend on the shape of the block. Logits are blended in
folded voxels and interpolated to the voxels of the image afterwards, which needs a quarter of the memory when 2 x 2
pixels are folded into one.

Knows S, volumes and blocks; must not know candidates or rounds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from typing import Literal

import cv2
import numpy as np
import torch
from monai.data.utils import compute_importance_map

from twostream.base import progress
from twostream.base.geometry import Block, Box, grid
from twostream.models.segmentation.config import SegmentationConfig
from twostream.models.segmentation.network import averaged_over_orientations, fold
from twostream.models.segmentation.train import Segmenter, stride_of
from twostream.volume import Volume, read_padded
from twostream.volume.execution import Executor, InProcess

Triple = tuple[int, int, int]
WINDOWS_AT_ONCE = 2
"""Batch size of the network in prediction."""


@dataclass(frozen=True)
class Lattice:
    """Positions of the windows over a whole volume, in folded voxels.

    Attributes:
        shape_zyx: shape of the volume, enlarged (by mirroring) to hold at least one window.
        window_zyx: shape of a window.
        step_zyx: distance between the starts of neighbouring windows. The last window along an axis starts earlier, so
            that it ends with the volume.
    """

    shape_zyx: Triple
    window_zyx: Triple
    step_zyx: Triple

    @classmethod
    def over(cls, shape_zyx: Triple, stride_zyx: Triple, config: SegmentationConfig) -> Lattice:
        """The lattice for a volume.

        Args:
            shape_zyx: shape of the volume, in folded voxels.
            stride_zyx: folded voxels of which the network's input must be a multiple.
            config: shape of a window, rounded up to a multiple of the stride, and overlap of windows.
        """
        window, step, shape = [], [], []
        axes = zip(shape_zyx, stride_zyx, config.window_shape_zyx, config.context_zyx, strict=True)
        for extent, stride, size, overlap in axes:
            fits = -(-extent // stride) * stride
            window.append(min(-(-size // stride) * stride, fits))
            shape.append(max(extent, window[-1]))
            # At most half a window of overlap: along Z, where windows are small, the configured context may be more.
            step.append(window[-1] - min(overlap, window[-1] // 2))
        return cls(_triple(shape), _triple(window), _triple(step))

    def starts(self, axis: int, extent: int) -> list[int]:
        """Starts of all windows along ``axis`` of a volume, or of a hull of windows, of this ``extent``."""
        window, step = self.window_zyx[axis], self.step_zyx[axis]
        return [min(s, extent - window) for s in range(0, max(extent - window + step, 1), step)]

    def touching(self, box: Box) -> Box:
        """The smallest box that contains all windows which share a voxel with ``box``."""
        near = [self.near(axis, box) for axis in range(3)]
        return Box.from_corners(
            [starts[0] for starts in near],
            [starts[-1] + window for starts, window in zip(near, self.window_zyx, strict=True)],
        )

    def near(self, axis: int, box: Box) -> list[int]:
        """Starts along ``axis`` of the windows that share a voxel with ``box``."""
        starts, window = self.starts(axis, self.shape_zyx[axis]), self.window_zyx[axis]
        return [s for s in starts if s < box.stop_zyx[axis] and s + window > box.offset_zyx[axis]]


@dataclass(frozen=True)
class PredictBlock:
    """Predicts one block: reads its windows from ``image``, writes the probability to ``output``.

    It can be pickled, so that an executor can send it to other processes.
    """

    segmenter: Segmenter
    image: Volume
    output: Volume
    lattice: Lattice
    config: SegmentationConfig

    def __call__(self, block: Block) -> None:
        """Predict ``block.write_box``, in voxels of the image; its offset must be a multiple of the fold."""
        fold_zyx = self.segmenter.network.fold_zyx
        written = Box.from_corners(
            [a // f for a, f in zip(block.write_box.offset_zyx, fold_zyx, strict=True)],
            [-(-b // f) for b, f in zip(block.write_box.stop_zyx, fold_zyx, strict=True)],
        )
        # The interpolation to voxels of the image needs one more folded voxel on every side.
        needed = written.grown((1, 1, 1)).intersection(Box.whole(self.lattice.shape_zyx))
        seen = self.lattice.touching(needed)
        pixels = Box(
            _triple(a * f for a, f in zip(seen.offset_zyx, fold_zyx, strict=True)),
            _triple(s * f for s, f in zip(seen.shape_zyx, fold_zyx, strict=True)),
        )
        folded = predict_folded(self.segmenter, read_padded(self.image, pixels), self.lattice, self.config)
        part = folded[(slice(None), slice(None), *needed.relative_to(seen).slices)]
        levels = unfolded_levels(self.segmenter, part, self.config.average)
        start = Box(_triple(a * f for a, f in zip(needed.offset_zyx, fold_zyx, strict=True)), (1, 1, 1))
        inside = block.write_box.shifted(_triple(-v for v in start.offset_zyx))
        self.output.write(block.write_box, np.ascontiguousarray(levels[(slice(None), *inside.slices)]))


def predict_folded(
    segmenter: Segmenter, image: np.ndarray, lattice: Lattice, config: SegmentationConfig
) -> torch.Tensor:
    """Logits or probabilities of all windows in a region, blended with Gaussian weights.

    Args:
        segmenter: S, on the device on which to compute.
        image: (Z, Y, X) uint8, voxels of the image over a region that ``Lattice.touching`` gave.
        lattice: shape and step of the windows.
        config: orientations, what is averaged over them, and width of the weights.

    Returns:
        (1, L, Z, Y, X) float32 logits, or (1, C, Z, Y, X) probabilities if ``config.average`` says so, in folded
        voxels, on the CPU.
    """
    network = segmenter.network
    device = next(network.parameters()).device
    activation = segmenter.head.probability if config.average == "probability" else None
    output_of = averaged_over_orientations(network, config.test_time_flips, activation)
    with torch.inference_mode():
        # Fold the image once, as bytes: a quarter of the memory traffic of float32. The result has the channels-last
        # layout that the network uses, so windows can be copied out of it as they are.
        folded = fold(torch.from_numpy(image)[None, None], network.fold_zyx)
        folded_zyxf = folded[0].movedim(0, -1)
        shape_zyx = _triple(folded_zyxf.shape[:3])
        corners = [_triple(c) for c in product(*(lattice.starts(axis, n) for axis, n in enumerate(shape_zyx)))]
        weight = compute_importance_map(lattice.window_zyx, mode="gaussian", sigma_scale=config.blend_sigma)
        num_outputs = segmenter.head.num_channels if activation else segmenter.head.num_logits
        total = torch.zeros((num_outputs, *shape_zyx))
        weights = torch.zeros(shape_zyx)
        offset = torch.tensor(-segmenter.mean / segmenter.std)
        windows = torch.empty(WINDOWS_AT_ONCE, *lattice.window_zyx, folded_zyxf.shape[-1])  # reused by every batch
        for first in range(0, len(corners), WINDOWS_AT_ONCE):
            places = [Box(corner, lattice.window_zyx).slices for corner in corners[first : first + WINDOWS_AT_ONCE]]
            grey = windows[: len(places)]
            for row, place in enumerate(places):
                torch.add(offset, folded_zyxf[place], alpha=1 / segmenter.std, out=grey[row])  # normalise and copy
            output = output_of(grey.movedim(-1, 1).to(device)).cpu()
            for row, place in enumerate(places):
                total[(slice(None), *place)].addcmul_(output[row], weight)
                weights[place] += weight
        return total.div_(weights)[None]


def unfolded_levels(
    segmenter: Segmenter, output: torch.Tensor, average: Literal["logit", "probability"] = "logit"
) -> np.ndarray:
    """Probability for every voxel of the image, from logits or probabilities in folded voxels.

    They are interpolated as ``FoldedUNet.unfold`` does in training, but faster.

    Args:
        segmenter: S; gives the fold (fz, fy, fx) and the head.
        output: (1, L, Z, Y, X) float32 logits, or (1, C, Z, Y, X) probabilities, in folded voxels.
        average: which of the two ``output`` holds.

    Returns:
        (C, Z * fz, Y * fy, X * fx) uint8; 255 is probability 1.
    """
    _, _, depth, height, width = output.shape
    fz, fy, fx = segmenter.network.fold_zyx
    folded = output[0].cpu().numpy()
    section = np.empty((len(folded), height * fy, width * fx), np.float32)
    levels: np.ndarray | None = None
    with torch.inference_mode():
        for z in range(depth * fz):  # section by section, because a section fits into the processor's cache
            for channel, plane in zip(section, sections_at(folded, (z + 0.5) / fz - 0.5), strict=True):
                # OpenCV gives the same values as torch's interpolation in a tenth of the time.
                cv2.resize(plane, (width * fx, height * fy), dst=channel, interpolation=cv2.INTER_LINEAR)
            values = torch.from_numpy(section)
            if average == "logit":
                values = segmenter.head.probability(values[None, :, None])[0, :, 0]
            if levels is None:
                levels = np.empty((len(values), depth * fz, height * fy, width * fx), np.uint8)
            levels[:, z] = values.mul_(255).round_().to(torch.uint8).numpy()
    assert levels is not None
    return levels


def sections_at(volume: np.ndarray, z: float) -> np.ndarray:
    """Linear interpolation along Z: the section at position ``z`` of an (L, Z, Y, X) array, as (L, Y, X).

    Positions before the first or after the last section give that section.
    """
    z = min(max(z, 0.0), volume.shape[1] - 1.0)
    low = int(z)
    if z == low:
        return volume[:, low]
    share = np.float32(z - low)
    return (1 - share) * volume[:, low] + share * volume[:, low + 1]


def predict(
    segmenter: Segmenter,
    image: Volume,
    output: Volume,
    config: SegmentationConfig,
    executor: Executor | None = None,
    region: Box | None = None,
) -> None:
    """Write S's probability for every voxel of ``image``, or of ``region``, to ``output``.

    Args:
        segmenter: S; computes on the GPU where there is one, and is left on the CPU.
        image: (Z, Y, X) uint8.
        output: (C, Z, Y, X) uint8 of the same extent; 255 is probability 1.
        config: shapes of windows and blocks, overlap, test-time flips, blending.
        executor: runs the blocks; None: in this process, one after the other.
        region: voxels of the image; its offset must be a multiple of the fold. None: the whole image.
    """
    segmenter.network.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    blocks = plan(segmenter, region or image.box, config)
    work = PredictBlock(segmenter, image, output, lattice_of(segmenter, image, config), config)
    with progress.task("predict", total=len(blocks)) as advance:
        for _ in (executor or InProcess()).map(work, blocks):
            advance(1)
    segmenter.network.cpu()


def lattice_of(segmenter: Segmenter, image: Volume, config: SegmentationConfig) -> Lattice:
    """The lattice of windows over ``image``."""
    fold_zyx = segmenter.network.fold_zyx
    folded = _triple(-(-s // f) for s, f in zip(image.shape_zyx, fold_zyx, strict=True))
    stride = _triple(s // f for s, f in zip(stride_of(segmenter), fold_zyx, strict=True))
    return Lattice.over(folded, stride, config)


def plan(segmenter: Segmenter, region: Box, config: SegmentationConfig) -> list[Block]:
    """Blocks of ``config.block_shape_zyx`` folded voxels that tile ``region``, a box in voxels of the image."""
    shape = [b * f for b, f in zip(config.block_shape_zyx, segmenter.network.fold_zyx, strict=True)]
    return list(grid(region, shape))


def _triple(values: Iterable[int]) -> Triple:
    z, y, x = values
    return z, y, x
