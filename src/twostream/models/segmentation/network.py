"""The network of S: MONAI's DynUNet, made anisotropic from the voxel size, with fine pixels folded into channels.

Knows torch and MONAI; must not know tasks beyond their number of channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import torch
from monai.networks.nets import DynUNet
from torch import nn

from twostream.models.segmentation.config import ISOTROPIC_RATIO

Triple = tuple[int, int, int]


class _Conv3d(nn.Conv3d):
    """Computes in single precision where bfloat16 on a CPU would give a wrong gradient.

    Where a kernel three sections deep sees two, oneDNN's gradient of the weights has memory in it that nobody wrote
    (torch 2.13; LOG.md): other weights in every run, and now and then NaN.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        is_thin = self.kernel_size[0] == 3 and input.shape[2] == 2 and input.device.type == "cpu"
        if not is_thin or not torch.is_autocast_enabled("cpu"):
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.float())


class FoldedUNet(nn.Module):
    """U-Net on voxels folded by ``fold_zyx``: image_B1ZYX in, logit_BLZYX of the same size out, interpolated.

    Batch normalisation, because at prediction it depends on no neighbour: a block's result must not depend on
    which block it was in.

    Args:
        num_logits: L, output channels.
        filters: channels per level.
        fold_zyx: voxels folded into one along each axis.
        strides: down-sampling between levels, len(filters) - 1 triples.
        depth: extent along Z of each level's kernels, len(filters) of 1 or 3.
    """

    def __init__(
        self,
        num_logits: int,
        filters: Sequence[int],
        fold_zyx: Triple,
        strides: Sequence[Triple],
        depth: Sequence[int],
    ) -> None:
        super().__init__()
        self.arguments: dict[str, Any] = {
            "num_logits": num_logits, "filters": filters, "fold_zyx": fold_zyx, "strides": strides, "depth": depth
        }  # fmt: skip
        self.fold_zyx = fold_zyx
        folded = fold_zyx[0] * fold_zyx[1] * fold_zyx[2]
        kernels = [(d, 3, 3) for d in depth]
        self.unet = DynUNet(
            spatial_dims=3,
            in_channels=folded,
            out_channels=num_logits,
            kernel_size=kernels,
            strides=[(1, 1, 1), *strides],
            upsample_kernel_size=list(strides),
            filters=list(filters),
            norm_name="batch",
            res_block=True,
        )
        for layer in self.unet.modules():
            if type(layer) is nn.Conv3d:
                layer.__class__ = _Conv3d
        # Channels last is twice as fast on a CPU, and no slower anywhere.
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def forward(self, image_B1ZYX: torch.Tensor) -> torch.Tensor:  # noqa: N803 - the axes are the name
        return self.unfold(self.folded_logit(fold(image_B1ZYX, self.fold_zyx)))

    def folded_logit(self, folded_BFZYX: torch.Tensor) -> torch.Tensor:  # noqa: N803
        """Logits at folded voxels, of an image that ``fold`` has folded."""
        folded = folded_BFZYX.contiguous(memory_format=torch.channels_last_3d)
        if len(folded) == 1 and not self.training and folded.device.type == "cpu":
            # On a CPU torch leaves oneDNN for a single sample, and is six times slower: two for the price of a third.
            return self.unet(folded.expand(2, -1, -1, -1, -1))[:1]
        return self.unet(folded)

    def unfold(self, logit_BLZYX: torch.Tensor) -> torch.Tensor:  # noqa: N803
        """Logits for every voxel of the image."""
        if self.fold_zyx == (1, 1, 1):
            return logit_BLZYX
        # Interpolated, not unfolded: one channel per sub-pixel would print its own bias as a grid on every mask.
        if self.fold_zyx[0] == 1:  # section by section: the same numbers, three times as fast
            b, _, z, y, x = logit_BLZYX.shape
            sections = logit_BLZYX.movedim(2, 1).reshape(b * z, -1, y, x)
            scale = [float(f) for f in self.fold_zyx[1:]]
            flat = torch.nn.functional.interpolate(sections, scale_factor=scale, mode="bilinear", align_corners=False)
            return flat.reshape(b, z, *flat.shape[1:]).movedim(1, 2)
        scale = [float(f) for f in self.fold_zyx]
        return torch.nn.functional.interpolate(logit_BLZYX, scale_factor=scale, mode="trilinear", align_corners=False)


def fold(volume_BCZYX: torch.Tensor, by: Triple) -> torch.Tensor:  # noqa: N803
    """Space to depth: (B, C, Z, Y, X) -> (B, C*fz*fy*fx, Z/fz, Y/fy, X/fx) of any type, channels last in memory."""
    b, c, z, y, x = volume_BCZYX.shape
    fz, fy, fx = by
    split = volume_BCZYX.reshape(b, c, z // fz, fz, y // fy, fy, x // fx, fx)
    # One copy, into the layout that the convolutions want.
    last = split.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(b, z // fz, y // fy, x // fx, c * fz * fy * fx)
    return last.movedim(-1, 1)


def orientations(number: int) -> list[tuple[int, tuple[int, ...]]]:
    """(quarter turns, flipped axes) to average over: in-plane flips, then turns by a quarter, then Z as well."""
    flips: list[tuple[int, ...]] = [(), (-1,), (-2,), (-2, -1)]
    every = [*product((0,), flips), *product((1,), flips)]
    every += [(turn, (-3, *axes)) for turn, axes in every]
    return every[:number]


def averaged(network: FoldedUNet, number: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Folded image -> logits, averaged over ``number`` orientations."""

    def logit(folded: torch.Tensor) -> torch.Tensor:
        total: torch.Tensor | None = None
        for turns, axes in orientations(number):
            turned = network.folded_logit(turn_folded(folded, network.fold_zyx, turns, axes))
            back = torch.rot90(torch.flip(turned, axes), -turns, (-2, -1))
            total = back if total is None else total + back
        assert total is not None
        return total / number

    return network.folded_logit if number == 1 else logit


def turn_folded(folded_BFZYX: torch.Tensor, fold_zyx: Triple, turns: int, axes: Sequence[int]) -> torch.Tensor:  # noqa: N803
    """What ``fold`` would give of the image turned and flipped: sub-pixel channels change places too."""
    b, _, z, y, x = folded_BFZYX.shape
    split = folded_BFZYX.reshape(b, -1, *fold_zyx, z, y, x)
    split = torch.rot90(torch.rot90(split, turns, (-2, -1)), turns, (-5, -4))
    split = torch.flip(split, [*axes, *(axis - 3 for axis in axes)])
    return split.reshape(b, -1, *split.shape[-3:])


def strides_for(
    voxel_size_nm: Sequence[float], fold_zyx: Triple, num_levels: int, num_sections: int
) -> tuple[list[Triple], list[int]]:
    """Down-sampling between levels, and how many sections each level's kernels span.

    Sections join in only once pixels are about as coarse as sections are thick: on thick sections the first levels
    are two-dimensional (2.5D), on isotropic voxels none is. A level that is down-sampled along Z has kernels along Z.
    """
    z, y = voxel_size_nm[0] * fold_zyx[0], voxel_size_nm[1] * fold_zyx[1]
    strides: list[Triple] = []
    depth: list[int] = []
    for level in range(num_levels):
        depth.append(3 if z < ISOTROPIC_RATIO * y and num_sections > 1 else 1)
        if level < num_levels - 1:
            step = 2 if z < 1.5 * y and num_sections >= 4 else 1
            strides.append((step, 2, 2))
            z, y, num_sections = z * step, y * 2, num_sections // step
    return strides, depth


def total_stride(fold_zyx: Triple, strides: Sequence[Triple]) -> Triple:
    """Voxels along Z, Y, X of which any input must be a multiple."""
    z, y, x = fold_zyx
    for stride in strides:
        z, y, x = z * stride[0], y * stride[1], x * stride[2]
    return z, y, x


def build(architecture: dict[str, Any], seed: int) -> FoldedUNet:
    """A new network from its plain description, with weights that depend on ``seed`` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FoldedUNet(
            architecture["num_logits"],
            tuple(architecture["filters"]),
            tuple(architecture["fold_zyx"]),
            [tuple(s) for s in architecture["strides"]],
            tuple(architecture["depth"]),
        )
