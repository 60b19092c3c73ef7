"""S over a volume: probability as an OME-Zarr of uint8, 255 = certain.

Knows S, volumes and blocks; must not know candidates or rounds. The network sees windows that lie on one lattice
over the whole volume and are blended with Gaussian weights. A block, the unit of work, reads every window that
touches it, so what it writes does not depend on its size. Logits are blended where the network makes them, in folded
voxels, and interpolated afterwards: a quarter of the memory at a fold of two.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

import cv2
import numpy as np
import torch
from monai.data.utils import compute_importance_map

from twostream.base import progress
from twostream.base.geometry import Block, Box, grid
from twostream.models.segmentation.config import SegmentationConfig
from twostream.models.segmentation.network import averaged, fold
from twostream.models.segmentation.train import Segmenter, stride_of
from twostream.volume import Volume, read_padded
from twostream.volume.execution import Executor, InProcess

Triple = tuple[int, int, int]
WINDOWS_AT_ONCE = 2
GAUSSIAN_SIGMA = 0.125
"""Width of the blending weights as a share of the window (Isensee 2021, nnU-Net)."""


@dataclass(frozen=True)
class Lattice:
    """Where windows lie, in folded voxels.

    Attributes:
        shape_zyx: of the whole volume, mirrored out where the network's stride demands it.
        window_zyx: of a window.
        step_zyx: from one window to the next; the last one is moved back until it fits.
    """

    shape_zyx: Triple
    window_zyx: Triple
    step_zyx: Triple

    @classmethod
    def over(cls, shape_zyx: Triple, stride_zyx: Triple, config: SegmentationConfig) -> Lattice:
        """For a volume of ``shape_zyx`` and a network whose input must be a multiple of ``stride_zyx``."""
        window, step, shape = [], [], []
        wanted = zip(shape_zyx, stride_zyx, config.window_shape_zyx, config.context_zyx, strict=True)
        for extent, stride, size, overlap in wanted:
            fits = -(-extent // stride) * stride
            window.append(min(-(-size // stride) * stride, fits))
            shape.append(max(extent, window[-1]))
            # A thin stack is one window along Z; where it is not, windows move on by half of one at least.
            step.append(window[-1] - min(overlap, window[-1] // 2))
        return cls(_triple(shape), _triple(window), _triple(step))

    def starts(self, axis: int, extent: int) -> list[int]:
        """Where windows begin along ``axis`` of the volume, or of a hull of windows, that is ``extent`` long."""
        window, step = self.window_zyx[axis], self.step_zyx[axis]
        return [min(s, extent - window) for s in range(0, max(extent - window + step, 1), step)]

    def touching(self, box: Box) -> Box:
        """The hull of all windows that share a voxel with ``box``."""
        near = [self.near(axis, box) for axis in range(3)]
        return Box.from_corners(
            [starts[0] for starts in near],
            [starts[-1] + window for starts, window in zip(near, self.window_zyx, strict=True)],
        )

    def near(self, axis: int, box: Box) -> list[int]:
        """Where along ``axis`` those windows begin that share a voxel with ``box``."""
        starts, window = self.starts(axis, self.shape_zyx[axis]), self.window_zyx[axis]
        return [s for s in starts if s < box.stop_zyx[axis] and s + window > box.offset_zyx[axis]]


@dataclass(frozen=True)
class PredictBlock:
    """Reads a block with its windows, predicts it, writes it; travels to a worker with S and both volumes."""

    segmenter: Segmenter
    image: Volume
    output: Volume
    lattice: Lattice
    test_time_flips: int = 1

    def __call__(self, block: Block) -> None:
        """Predict ``block.write_box``, voxels of the image, which begins on a folded voxel."""
        fold_zyx = self.segmenter.network.fold_zyx
        written = Box.from_corners(
            [a // f for a, f in zip(block.write_box.offset_zyx, fold_zyx, strict=True)],
            [-(-b // f) for b, f in zip(block.write_box.stop_zyx, fold_zyx, strict=True)],
        )
        # One folded voxel more on every side, for the interpolation.
        needed = written.grown((1, 1, 1)).intersection(Box.whole(self.lattice.shape_zyx))
        seen = self.lattice.touching(needed)
        pixels = Box(
            _triple(a * f for a, f in zip(seen.offset_zyx, fold_zyx, strict=True)),
            _triple(s * f for s, f in zip(seen.shape_zyx, fold_zyx, strict=True)),
        )
        logit = predict_folded(self.segmenter, read_padded(self.image, pixels), self.lattice, self.test_time_flips)
        levels = unfolded_levels(self.segmenter, logit[(slice(None), slice(None), *needed.relative_to(seen).slices)])
        start = Box(_triple(a * f for a, f in zip(needed.offset_zyx, fold_zyx, strict=True)), (1, 1, 1))
        inside = block.write_box.shifted(_triple(-v for v in start.offset_zyx))
        self.output.write(block.write_box, np.ascontiguousarray(levels[(slice(None), *inside.slices)]))


def predict_folded(segmenter: Segmenter, image: np.ndarray, lattice: Lattice, test_time_flips: int) -> torch.Tensor:
    """Blended logits of whole windows.

    Args:
        segmenter: S.
        image: (Z, Y, X) uint8, a hull of windows of ``lattice``, unfolded.
        lattice: size of a window and their step.
        test_time_flips: 1, 4, 8 or 16 orientations whose logits are averaged.

    Returns:
        (1, L, Z, Y, X) float32 in folded voxels.
    """
    network = segmenter.network
    device = next(network.parameters()).device
    logit_of = averaged(network, test_time_flips)
    with torch.inference_mode():
        # Folded as bytes, a quarter of what would be moved as floats, into the layout that the network wants: copying
        # windows out of it is all that is done to them.
        folded = fold(torch.from_numpy(image)[None, None], network.fold_zyx)
        last = folded[0].movedim(0, -1)
        shape_zyx = _triple(last.shape[:3])
        corners = [_triple(c) for c in product(*(lattice.starts(axis, n) for axis, n in enumerate(shape_zyx)))]
        weight = compute_importance_map(lattice.window_zyx, mode="gaussian", sigma_scale=GAUSSIAN_SIGMA)
        total = torch.zeros((segmenter.head.num_logits, *shape_zyx))
        weights = torch.zeros(shape_zyx)
        offset = torch.tensor(-segmenter.mean / segmenter.std)
        windows = torch.empty(WINDOWS_AT_ONCE, *lattice.window_zyx, last.shape[-1])  # one memory for all of them
        for first in range(0, len(corners), WINDOWS_AT_ONCE):
            places = [Box(corner, lattice.window_zyx).slices for corner in corners[first : first + WINDOWS_AT_ONCE]]
            grey = windows[: len(places)]
            for row, place in enumerate(places):
                torch.add(offset, last[place], alpha=1 / segmenter.std, out=grey[row])  # normalised, in one pass
            logit = logit_of(grey.movedim(-1, 1).to(device)).cpu()
            for row, place in enumerate(places):
                total[(slice(None), *place)].addcmul_(logit[row], weight)
                weights[place] += weight
        return total.div_(weights)[None]


def unfolded_levels(segmenter: Segmenter, logit: torch.Tensor) -> np.ndarray:
    """Probability for every voxel, of logits in folded voxels.

    Args:
        logit: (1, L, Z, Y, X) float32.

    Returns:
        (C, Z * fz, Y * fy, X * fx) uint8, 255 = certain.
    """
    _, _, depth, height, width = logit.shape
    fz, fy, fx = segmenter.network.fold_zyx
    folded = logit[0].cpu().numpy()
    section = np.empty((len(folded), height * fy, width * fx), np.float32)
    levels: np.ndarray | None = None
    with torch.inference_mode():
        for z in range(depth * fz):  # one after the other: they fit the caches
            for channel, plane in zip(section, sections_at(folded, (z + 0.5) / fz - 0.5), strict=True):
                # What the network's own interpolation gives, in a tenth of its time.
                cv2.resize(plane, (width * fx, height * fy), dst=channel, interpolation=cv2.INTER_LINEAR)
            probability = segmenter.head.probability(torch.from_numpy(section)[None, :, None])[0, :, 0]
            if levels is None:
                levels = np.empty((len(probability), depth * fz, height * fy, width * fx), np.uint8)
            levels[:, z] = probability.mul_(255).round_().to(torch.uint8).numpy()
    assert levels is not None
    return levels


def sections_at(volume: np.ndarray, z: float) -> np.ndarray:
    """(L, Y, X) between the two sections of an (L, Z, Y, X) volume about ``z``; beyond the outer ones these."""
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
    """Fill ``output`` with S's probability for every voxel of ``image``, or of ``region``.

    Args:
        segmenter: S; moved to the GPU where there is one.
        image: (Z, Y, X) uint8.
        output: (C, Z, Y, X) uint8 of the same extent.
        config: windows, their overlap, blocks, test-time flips.
        executor: where blocks are predicted; None is here, one after the other.
        region: begins on a folded voxel; None is everything.
    """
    segmenter.network.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    blocks = plan(segmenter, region or image.box, config)
    work = PredictBlock(segmenter, image, output, lattice_of(segmenter, image, config), config.test_time_flips)
    with progress.task("predict", total=len(blocks)) as advance:
        for _ in (executor or InProcess()).map(work, blocks):
            advance(1)
    segmenter.network.cpu()


def lattice_of(segmenter: Segmenter, image: Volume, config: SegmentationConfig) -> Lattice:
    """The windows that S sees of ``image``."""
    fold_zyx = segmenter.network.fold_zyx
    folded = _triple(-(-s // f) for s, f in zip(image.shape_zyx, fold_zyx, strict=True))
    stride = _triple(s // f for s, f in zip(stride_of(segmenter), fold_zyx, strict=True))
    return Lattice.over(folded, stride, config)


def plan(segmenter: Segmenter, region: Box, config: SegmentationConfig) -> list[Block]:
    """The blocks that tile ``region``."""
    shape = [b * f for b, f in zip(config.block_shape_zyx, segmenter.network.fold_zyx, strict=True)]
    return list(grid(region, shape))


def _triple(values: Iterable[int]) -> Triple:
    z, y, x = values
    return z, y, x
