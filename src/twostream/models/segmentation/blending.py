"""A network over a whole volume: windows, their blending, and the interpolation to voxels. No torch is needed.

The network is applied to overlapping windows, whose logits (or probabilities, ``SegmentationConfig.average``) are
blended with Gaussian weights. The windows lie on one lattice over the whole volume. A block, the unit of work, computes
every window that touches it; its result therefore does not depend on the shape of the block. Logits are blended in
folded voxels and interpolated to the voxels of the image afterwards, which needs a quarter of the memory when 2 x 2
pixels are folded into one.

Knows volumes, blocks and what a network gives for a window; must not know how the network is computed, candidates or
rounds, and must not import torch: an exported model runs without it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Protocol

import cv2
import numpy as np

from twostream.base.errors import VolumeError
from twostream.base.geometry import Block, Box, grid
from twostream.base.memory import peak_of, resident
from twostream.models.segmentation.config import SegmentationConfig
from twostream.volume import Volume, read_padded
from twostream.volume.stage import Stage

Triple = tuple[int, int, int]
WINDOWS_AT_ONCE = 2
"""Batch size of the network in prediction."""
BYTES = 4
"""Of a float32."""
LEAST_BLOCK_ZYX = (16, 64, 64)
"""Folded voxels. Blocks are made smaller than configured where memory is short, but not than this: the windows at their
faces are computed for both neighbours."""
LEAST_WEIGHT = 1e-3
"""Smallest Gaussian weight of a voxel in a window, as in MONAI, so that no voxel is divided by zero."""


class WindowModel(Protocol):
    """What computes S for windows: torch (``predict``) or onnxruntime (``onnx_model``). It can be pickled."""

    @property
    def fold_zyx(self) -> Triple:
        """Voxels folded into one along each axis."""

    @property
    def stride_zyx(self) -> Triple:
        """Voxels of the image of which the shape of a window must be a multiple."""

    def folded_output(self, grey_BZYX: np.ndarray) -> np.ndarray:  # noqa: N803 - the axes are the name
        """What is blended, for a batch of windows.

        Args:
            grey_BZYX: uint8, voxels of the image.

        Returns:
            (B, L, Z / fz, Y / fy, X / fx) float32: logits, or probabilities if they are what is averaged; averaged over
            the orientations.
        """

    def probability(self, blended_LYX: np.ndarray) -> np.ndarray:  # noqa: N803
        """Blended values of one section, (L, Y, X) float32 -> probability (C, Y, X) float32 in [0, 1]."""


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

    def longest(self, axis: int, size: int) -> int:
        """The most voxels along ``axis`` over which the windows reach that touch a box of this size."""
        starts, window = self.starts(axis, self.shape_zyx[axis]), self.window_zyx[axis]
        number, last = -(-(size + window - 1) // self.step_zyx[axis]), len(starts) - 1
        # Their starts lie within size + window - 1 voxels; the last of all may lie nearer to the one before it.
        ends = (last if i + number >= last else i + number - 1 for i in range(len(starts)))
        return max(starts[end] - start for start, end in zip(starts, ends, strict=True)) + window

    def near(self, axis: int, box: Box) -> list[int]:
        """Starts along ``axis`` of the windows that share a voxel with ``box``."""
        starts, window = self.starts(axis, self.shape_zyx[axis]), self.window_zyx[axis]
        return [s for s in starts if s < box.stop_zyx[axis] and s + window > box.offset_zyx[axis]]


@dataclass(frozen=True)
class PredictBlock:
    """Predicts one block: reads its windows from ``image``, writes the probability to ``output``.

    It can be pickled, so that an executor can send it to other processes.
    """

    model: WindowModel
    image: Volume
    output: Volume
    lattice: Lattice
    blend_sigma: float

    def try_windows(self) -> None:
        """Let the network compute as many windows as it is given at once, of nothing."""
        shape = tuple(n * f for n, f in zip(self.lattice.window_zyx, self.model.fold_zyx, strict=True))
        self.model.folded_output(np.zeros((WINDOWS_AT_ONCE, *shape), np.uint8))

    def is_written(self, block: Block) -> bool:
        """Whether the output of a block is stored and can be read."""
        try:
            self.output.read(block.write_box)
        except VolumeError:
            return False
        return self.output.is_stored(block.write_box)

    def num_bytes(self, shape_zyx: Sequence[int]) -> int:
        """Bytes of the arrays of a block of folded voxels; what the network needs for its windows is not in them."""
        seen = math.prod(self.lattice.longest(axis, n + 2) for axis, n in enumerate(shape_zyx))
        fold, channels = math.prod(self.model.fold_zyx), self.output.num_channels
        needed = math.prod(n + 2 for n in shape_zyx)
        blended = (channels + 1) * BYTES + BYTES  # values and weights
        return seen * (fold + blended) + 3 * needed * fold * channels

    def __call__(self, block: Block) -> None:
        """Predict ``block.write_box``, in voxels of the image; its offset must be a multiple of the fold."""
        fold_zyx = self.model.fold_zyx
        written = Box.from_corners(
            [a // f for a, f in zip(block.write_box.offset_zyx, fold_zyx, strict=True)],
            [-(-b // f) for b, f in zip(block.write_box.stop_zyx, fold_zyx, strict=True)],
        )
        # The interpolation to voxels of the image needs one more folded voxel on every side.
        needed = written.grown((1, 1, 1)).intersection(Box.whole(self.lattice.shape_zyx))
        seen = self.lattice.touching(needed)
        grey = read_padded(self.image, in_voxels(seen, fold_zyx))
        folded = blended_windows(self.model, grey, self.lattice, self.blend_sigma)
        levels = unfolded_levels(self.model, folded[(slice(None), *needed.relative_to(seen).slices)])
        start = in_voxels(needed, fold_zyx).offset_zyx
        inside = block.write_box.shifted(_triple(-v for v in start))
        self.output.write(block.write_box, np.ascontiguousarray(levels[(slice(None), *inside.slices)]))


def blended_windows(model: WindowModel, grey: np.ndarray, lattice: Lattice, blend_sigma: float) -> np.ndarray:
    """Outputs of all windows in a region, blended with Gaussian weights.

    Args:
        model: computes the windows.
        grey: (Z, Y, X) uint8, voxels of the image over a region that ``Lattice.touching`` gave.
        lattice: shape and step of the windows.
        blend_sigma: standard deviation of the weights, as a share of the window.

    Returns:
        (L, Z, Y, X) float32 in folded voxels.
    """
    fold_zyx = model.fold_zyx
    shape_zyx = _triple(n // f for n, f in zip(grey.shape, fold_zyx, strict=True))
    corners = [_triple(c) for c in product(*(lattice.starts(axis, n) for axis, n in enumerate(shape_zyx)))]
    weight = gaussian_weights(lattice.window_zyx, blend_sigma)
    total: np.ndarray | None = None
    weights = np.zeros(shape_zyx, np.float32)
    for first in range(0, len(corners), WINDOWS_AT_ONCE):
        places = [Box(corner, lattice.window_zyx) for corner in corners[first : first + WINDOWS_AT_ONCE]]
        output = model.folded_output(np.stack([grey[in_voxels(place, fold_zyx).slices] for place in places]))
        if total is None:
            total = np.zeros((output.shape[1], *shape_zyx), np.float32)
        for values, place in zip(output, places, strict=True):
            total[(slice(None), *place.slices)] += values * weight
            weights[place.slices] += weight
    assert total is not None  # a region holds at least one window
    total /= weights
    return total


def gaussian_weights(window_zyx: Triple, sigma: float) -> np.ndarray:
    """Weight of every voxel of a window, (Z, Y, X) float32: a Gaussian around its middle, at least ``LEAST_WEIGHT``.

    Args:
        window_zyx: shape of the window.
        sigma: standard deviation along each axis, as a share of the window.
    """
    weight = np.ones((1, 1, 1), np.float32)
    for axis, size in enumerate(window_zyx):
        x = np.arange(size, dtype=np.float32) - np.float32((size - 1) / 2)
        shape = [1, 1, 1]
        shape[axis] = size
        weight = weight * np.exp(x**2 / np.float32(-2 * (sigma * size) ** 2)).reshape(shape)
    return np.maximum(weight, max(float(weight.min()), LEAST_WEIGHT))


def unfolded_levels(model: WindowModel, blended: np.ndarray) -> np.ndarray:
    """Probability for every voxel of the image, from blended values in folded voxels.

    They are interpolated as ``FoldedUNet.unfold`` does in training, but faster.

    Args:
        model: gives the fold (fz, fy, fx), and turns blended values into probability.
        blended: (L, Z, Y, X) float32, in folded voxels.

    Returns:
        (C, Z * fz, Y * fy, X * fx) uint8; 255 is probability 1.
    """
    _, depth, height, width = blended.shape
    fz, fy, fx = model.fold_zyx
    section = np.empty((len(blended), height * fy, width * fx), np.float32)
    levels: np.ndarray | None = None
    for z in range(depth * fz):  # section by section, because a section fits into the processor's cache
        for channel, plane in zip(section, sections_at(blended, (z + 0.5) / fz - 0.5), strict=True):
            # OpenCV gives the same values as torch's interpolation in a tenth of the time.
            cv2.resize(plane, (width * fx, height * fy), dst=channel, interpolation=cv2.INTER_LINEAR)
        values = model.probability(section)
        if levels is None:
            levels = np.empty((len(values), depth * fz, height * fy, width * fx), np.uint8)
        np.rint(values * np.float32(255), out=levels[:, z], casting="unsafe")
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


def write_probability(
    model: WindowModel,
    image: Volume,
    output: Volume,
    config: SegmentationConfig,
    stage: Stage | None = None,
    region: Box | None = None,
) -> None:
    """Write the model's probability for every voxel of ``image``, or of ``region``, to ``output``.

    Args:
        model: computes the windows.
        image: (Z, Y, X) uint8.
        output: (C, Z, Y, X) uint8 of the same extent; 255 is probability 1.
        config: shapes of windows and blocks, overlap, blending.
        stage: runs the blocks; None: in this process, one after the other, and nothing is remembered.
        region: voxels of the image; its offset must be a multiple of the fold. None: the whole image.

    Raises:
        BlocksError: blocks could not be read, computed or written.
    """
    stage, region = stage or Stage(), region or image.box
    lattice = lattice_over(image, model.fold_zyx, model.stride_zyx, config)
    work = PredictBlock(model, image, output, lattice, config.blend_sigma)
    folded = [-(-n // f) for n, f in zip(region.shape_zyx, model.fold_zyx, strict=True)]
    wanted = [min(n, side) for n, side in zip(config.block_shape_zyx, folded, strict=True)]
    least = [min(n, low) for n, low in zip(wanted, LEAST_BLOCK_ZYX, strict=True)]
    for_windows = peak_of(work.try_windows) - resident()
    block_zyx = stage.block_shape("predict", wanted, least, lambda shape: for_windows + work.num_bytes(shape))
    blocks = blocks_of(region, model.fold_zyx, block_zyx)
    name = f"predict-{'-'.join(map(str, block_zyx))}"
    for _ in stage.run(name, work, blocks, is_there=work.is_written, description="predict"):
        pass


def lattice_over(image: Volume, fold_zyx: Triple, stride_zyx: Triple, config: SegmentationConfig) -> Lattice:
    """The lattice of windows over ``image``; ``stride_zyx`` in voxels of the image."""
    folded = _triple(-(-s // f) for s, f in zip(image.shape_zyx, fold_zyx, strict=True))
    stride = _triple(s // f for s, f in zip(stride_zyx, fold_zyx, strict=True))
    return Lattice.over(folded, stride, config)


def blocks_of(region: Box, fold_zyx: Triple, block_zyx: Sequence[int]) -> list[Block]:
    """Blocks of ``block_zyx`` folded voxels that tile ``region``, a box in voxels of the image."""
    return list(grid(region, [b * f for b, f in zip(block_zyx, fold_zyx, strict=True)]))


def in_voxels(box: Box, fold_zyx: Sequence[int]) -> Box:
    """A box in folded voxels, in voxels of the image."""
    return Box(
        _triple(a * f for a, f in zip(box.offset_zyx, fold_zyx, strict=True)),
        _triple(s * f for s, f in zip(box.shape_zyx, fold_zyx, strict=True)),
    )


def _triple(values: Iterable[int]) -> Triple:
    z, y, x = values
    return z, y, x
