"""The network of S: MONAI's DynUNet, made anisotropic from the voxel size, with fine pixels folded into channels.

Knows torch and MONAI; must not know tasks beyond their number of channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.networks.nets import DynUNet
from torch import nn

Triple = tuple[int, int, int]


class FoldedUNet(nn.Module):
    """U-Net on voxels folded by ``fold_zyx``: image_B1ZYX in, logit_BCZYX of the same size out, interpolated.

    Batch normalisation, because at prediction it depends on no neighbour: a block's result must not depend on
    which block it was in.

    Args:
        num_channels: C, output channels.
        filters: channels per level.
        fold_zyx: voxels folded into one along each axis.
        strides: down-sampling between levels, len(filters) - 1 triples.
    """

    def __init__(self, num_channels: int, filters: Sequence[int], fold_zyx: Triple, strides: Sequence[Triple]) -> None:
        super().__init__()
        self.fold_zyx = fold_zyx
        folded = fold_zyx[0] * fold_zyx[1] * fold_zyx[2]
        # A level sees neighbouring sections only once its pixels have grown to about a section's thickness.
        kernels = [(3 if i > 1 or strides[0][0] == 2 else 1, 3, 3) for i in range(len(filters))]
        self.unet = DynUNet(
            spatial_dims=3,
            in_channels=folded,
            out_channels=num_channels,
            kernel_size=kernels,
            strides=[(1, 1, 1), *strides],
            upsample_kernel_size=list(strides),
            filters=list(filters),
            norm_name="batch",
            res_block=True,
        )

    def forward(self, image_B1ZYX: torch.Tensor) -> torch.Tensor:  # noqa: N803 - the axes are the name
        logit = self.unet(fold(image_B1ZYX, self.fold_zyx))
        if self.fold_zyx == (1, 1, 1):
            return logit
        # Interpolated, not unfolded: one channel per sub-pixel would print its own bias as a grid on every mask.
        scale = [float(f) for f in self.fold_zyx]
        return torch.nn.functional.interpolate(logit, scale_factor=scale, mode="trilinear", align_corners=False)


def fold(volume_BCZYX: torch.Tensor, by: Triple) -> torch.Tensor:  # noqa: N803
    """Space to depth: (B, C, Z, Y, X) -> (B, C*fz*fy*fx, Z/fz, Y/fy, X/fx)."""
    if by == (1, 1, 1):
        return volume_BCZYX
    b, c, z, y, x = volume_BCZYX.shape
    fz, fy, fx = by
    split = volume_BCZYX.reshape(b, c, z // fz, fz, y // fy, fy, x // fx, fx)
    return split.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(b, c * fz * fy * fx, z // fz, y // fy, x // fx)


def strides_for(voxel_size_nm: Sequence[float], fold_zyx: Triple, num_levels: int, num_sections: int) -> list[Triple]:
    """Down-sampling between levels: sections join in only once pixels are as coarse as sections are thick."""
    z, y = voxel_size_nm[0] * fold_zyx[0], voxel_size_nm[1] * fold_zyx[1]
    strides: list[Triple] = []
    for _ in range(num_levels - 1):
        step = 2 if z < 1.5 * y and num_sections >= 4 else 1
        strides.append((step, 2, 2))
        z, y, num_sections = z * step, y * 2, num_sections // step
    return strides


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
            architecture["num_channels"],
            tuple(architecture["filters"]),
            tuple(architecture["fold_zyx"]),
            [tuple(s) for s in architecture["strides"]],
        )
