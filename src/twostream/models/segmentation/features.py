"""Features of candidates from S itself: activations of its decoder, pooled over each candidate's mask.

They serve as the supervised stream with ``streams.supervised.method: s``. The windows are those of prediction, so the
features of a candidate do not depend on which other candidates are processed with it. Knows S, volumes, and candidates
as boxes with masks; must not know streams or rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice, product

import numpy as np
import torch

from twostream.base.geometry import Box
from twostream.models.segmentation.blending import WINDOWS_AT_ONCE, gaussian_weights
from twostream.models.segmentation.config import SegmentationConfig
from twostream.models.segmentation.network import FoldedUNet, fold
from twostream.models.segmentation.predict import lattice_of
from twostream.models.segmentation.train import Segmenter
from twostream.volume import Volume, read_windows

Triple = tuple[int, int, int]
Instance = tuple[Box, np.ndarray]
"""A bounding box in voxels of the image, and the mask over it: (Z, Y, X), above 0 inside the object."""


def pooled_features(
    segmenter: Segmenter, image: Volume, instances: Sequence[Instance], config: SegmentationConfig
) -> np.ndarray:
    """Mean and standard deviation of S's decoder activations inside each mask.

    For a folded voxel v of a window, let a_v be the activation, m_v the share of v that the mask covers, and g_v the
    Gaussian weight with which prediction blends the window. Over all windows, the mean is
    sum(g_v m_v a_v) / sum(g_v m_v), and the variance is the same mean of a_v^2 minus the square of the mean.

    Args:
        segmenter: S; computes on the GPU where there is one, and is left on the CPU.
        image: (Z, Y, X) uint8.
        instances: N boxes with masks, each with at least one voxel inside.
        config: shape and overlap of the windows, as in prediction.

    Returns:
        (N, 2 * C) float32: C means, then C standard deviations. C is the number of channels of all levels of the
        decoder together.
    """
    network = segmenter.network
    network.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    lattice = lattice_of(segmenter, image, config)
    masks = [_folded(box, mask, network.fold_zyx) for box, mask in instances]
    near: dict[Triple, list[int]] = {}
    for row, (box, _) in enumerate(masks):
        for corner in product(lattice.near(0, box), lattice.near(1, box), lattice.near(2, box)):
            near.setdefault(corner, []).append(row)
    corners = sorted(near)
    boxes = [_pixels(corner, lattice.window_zyx, network.fold_zyx) for corner in corners]
    gaussian = torch.from_numpy(gaussian_weights(lattice.window_zyx, config.blend_sigma))
    sums: dict[int, np.ndarray] = {}
    weights = np.zeros((len(instances), 1))
    with _decoder_maps(network) as maps_of, torch.inference_mode():
        windows = read_windows(image, boxes)
        while batch := list(islice(windows, WINDOWS_AT_ONCE)):
            grey = segmenter.normalise(np.stack([array for _, array in batch]))[:, None]
            maps = maps_of(fold(torch.from_numpy(grey), network.fold_zyx).to(next(network.parameters()).device))
            for place, (which, _) in enumerate(batch):
                window = Box(corners[which], lattice.window_zyx)
                for row in near[corners[which]]:
                    box, share = masks[row]
                    common = box.intersection(window)
                    weight = torch.from_numpy(share[common.relative_to(box).slices])
                    weight = weight * gaussian[common.relative_to(window).slices]
                    moments = _moments([m[place] for m in maps], weight, common.relative_to(window), window.shape_zyx)
                    sums[row] = sums.get(row, np.float64(0)) + moments
                    weights[row] += float(weight.sum())
    network.cpu()
    if not sums:
        return np.zeros(
            (0, 2 * sum(level.conv_block.conv1.out_channels for level in network.unet.upsamples)), np.float32
        )
    mean, square = np.split(np.stack([sums[row] for row in range(len(instances))]) / weights, 2, axis=1)
    return np.hstack([mean, np.sqrt(np.maximum(square - mean**2, 0))]).astype(np.float32)


@contextmanager
def _decoder_maps(network: FoldedUNet) -> Iterator[Callable[[torch.Tensor], list[torch.Tensor]]]:
    """A function from a folded image to the activations of every level of the decoder, coarsest level first.

    Each level gives (B, C, Z', Y', X') float32 on the CPU, with the channels and the resolution of that level.
    """
    kept: list[torch.Tensor] = []
    hooks = [
        level.register_forward_hook(lambda _m, _i, output: kept.append(output)) for level in network.unet.upsamples
    ]

    def maps(folded_BFZYX: torch.Tensor) -> list[torch.Tensor]:  # noqa: N803 - the axes are the name
        kept.clear()
        network.folded_logit(folded_BFZYX)
        return [level[: len(folded_BFZYX)].float().cpu() for level in kept]  # ``folded_logit`` doubles a batch of one

    try:
        yield maps
    finally:
        for hook in hooks:
            hook.remove()


def _folded(box: Box, mask: np.ndarray, fold_zyx: Triple) -> Instance:
    """A box and its mask in folded voxels: (Z, Y, X) float32, the share of each folded voxel that the mask covers."""
    start = [o // f for o, f in zip(box.offset_zyx, fold_zyx, strict=True)]
    stop = [-(-s // f) for s, f in zip(box.stop_zyx, fold_zyx, strict=True)]
    folded = Box.from_corners(start, stop)
    fine = np.zeros([s * f for s, f in zip(folded.shape_zyx, fold_zyx, strict=True)], np.float32)
    first = [o - s * f for o, s, f in zip(box.offset_zyx, start, fold_zyx, strict=True)]
    fine[Box.whole(box.shape_zyx).shifted(first).slices] = mask > 0
    (z, y, x), (fz, fy, fx) = folded.shape_zyx, fold_zyx
    return folded, fine.reshape(z, fz, y, fy, x, fx).mean((1, 3, 5))


def _pixels(corner_zyx: Triple, window_zyx: Triple, fold_zyx: Triple) -> Box:
    """A window at ``corner_zyx`` of shape ``window_zyx``, both in folded voxels, as a box in voxels of the image."""
    start = [c * f for c, f in zip(corner_zyx, fold_zyx, strict=True)]
    stop = [(c + w) * f for c, w, f in zip(corner_zyx, window_zyx, fold_zyx, strict=True)]
    return Box.from_corners(start, stop)


def _moments(levels: Sequence[torch.Tensor], weight: torch.Tensor, inside: Box, window_zyx: Triple) -> np.ndarray:
    """Weighted sums of the activations, then of their squares: (2 * C,) float64.

    Args:
        levels: activations of one window, (C, Z', Y', X') each. Coarser levels are up-sampled by nearest neighbour.
        weight: (Z, Y, X) float32 over ``inside``.
        inside: part of the window, in folded voxels from its corner.
        window_zyx: shape of the window in folded voxels.
    """
    first, second = [], []
    for level in levels:
        along = [
            (torch.arange(o, o + n) * level.shape[axis + 1]) // whole
            for axis, (o, n, whole) in enumerate(zip(inside.offset_zyx, inside.shape_zyx, window_zyx, strict=True))
        ]
        part = level[:, along[0]][:, :, along[1]][:, :, :, along[2]].double()
        first.append(torch.einsum("czyx,zyx->c", part, weight.double()))
        second.append(torch.einsum("czyx,zyx->c", part.square(), weight.double()))
    return torch.cat(first + second).numpy()
