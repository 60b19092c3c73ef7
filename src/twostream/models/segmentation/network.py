"""The network of S: MONAI's DynUNet with strides and kernels that follow the voxel size.

Voxels smaller than the task needs are folded into channels before the first convolution (space to depth), and the
logits are interpolated back to the voxels of the image. In the suffixes of tensor names, B is the batch, C and L are
channels, F the channels of a folded image, and Z, Y and X voxels (folded ones where the name begins with "folded").
Knows torch and MONAI; must not know more of a task than its number of channels.
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
    """A convolution that uses float32 where the bfloat16 gradient of the CPU library oneDNN is wrong.

    For a kernel of three sections and an input of two, oneDNN's gradient of the weights contains uninitialised memory
    (torch 2.13; LOG.md), so every run gives other weights and some give NaN.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        is_thin = self.kernel_size[0] == 3 and input.shape[2] == 2 and input.device.type == "cpu"
        if not is_thin or not torch.is_autocast_enabled("cpu"):
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.float())


class FoldedUNet(nn.Module):
    """U-Net with folding and interpolation: image_B1ZYX -> logit_BLZYX of the same Z, Y, X.

    It uses batch normalisation, whose statistics are fixed in prediction: the prediction of a voxel must not depend on
    which other voxels are in the same window, as instance normalisation would make it.

    Args:
        num_logits: L, output channels.
        filters: channels of each level, finest first.
        fold_zyx: voxels folded into one along each axis.
        strides: (z, y, x) down-sampling between levels, len(filters) - 1 of them.
        depth: sections that the kernels of each level span, 1 or 3; len(filters) of them.
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
        # This memory layout is twice as fast on a CPU, and not slower on a GPU.
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def forward(self, image_B1ZYX: torch.Tensor) -> torch.Tensor:  # noqa: N803 - the axes are the name
        return self.unfold(self.folded_logit(fold(image_B1ZYX, self.fold_zyx)))

    def folded_logit(self, folded_BFZYX: torch.Tensor) -> torch.Tensor:  # noqa: N803
        """Logits of a folded image, (B, L, Z, Y, X) in folded voxels."""
        folded = folded_BFZYX.contiguous(memory_format=torch.channels_last_3d)
        if len(folded) == 1 and not self.training and folded.device.type == "cpu":
            # For a batch of one, torch on a CPU does not use oneDNN and is six times slower; so compute a batch of two.
            return self.unet(folded.expand(2, -1, -1, -1, -1))[:1]
        return self.unet(folded)

    def unfold(self, logit_BLZYX: torch.Tensor) -> torch.Tensor:  # noqa: N803
        """Interpolate logits from folded voxels to the voxels of the image."""
        if self.fold_zyx == (1, 1, 1):
            return logit_BLZYX
        # Interpolated, because one output channel per voxel position (depth to space) leaves a grid pattern in masks.
        if self.fold_zyx[0] == 1:  # bilinear per section: the same values as trilinear, three times as fast
            b, _, z, y, x = logit_BLZYX.shape
            sections = logit_BLZYX.movedim(2, 1).reshape(b * z, -1, y, x)
            scale = [float(f) for f in self.fold_zyx[1:]]
            flat = torch.nn.functional.interpolate(sections, scale_factor=scale, mode="bilinear", align_corners=False)
            return flat.reshape(b, z, *flat.shape[1:]).movedim(1, 2)
        scale = [float(f) for f in self.fold_zyx]
        return torch.nn.functional.interpolate(logit_BLZYX, scale_factor=scale, mode="trilinear", align_corners=False)


def fold(volume_BCZYX: torch.Tensor, by: Triple) -> torch.Tensor:  # noqa: N803
    """Fold voxels into channels (space to depth).

    Args:
        volume_BCZYX: any type; Z, Y and X are multiples of ``by``.
        by: (fz, fy, fx) voxels to fold into one.

    Returns:
        (B, C * fz * fy * fx, Z / fz, Y / fy, X / fx) of the same type, channels last in memory.
    """
    b, c, z, y, x = volume_BCZYX.shape
    fz, fy, fx = by
    split = volume_BCZYX.reshape(b, c, z // fz, fz, y // fy, fy, x // fx, fx)
    # The reshape copies once, directly into the channels-last layout that the convolutions use.
    last = split.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(b, z // fz, y // fy, x // fx, c * fz * fy * fx)
    return last.movedim(-1, 1)


def orientations(num_orientations: int) -> list[tuple[int, tuple[int, ...]]]:
    """The first orientations of a fixed list of 16: in-plane flips, then with a rotation, then flipped along Z.

    Returns:
        (rotations by 90 degrees from Y to X, axes that are flipped afterwards) of each orientation.
    """
    flips: list[tuple[int, ...]] = [(), (-1,), (-2,), (-2, -1)]
    in_plane = [*product((0,), flips), *product((1,), flips)]
    every = [*in_plane, *((turns, (-3, *axes)) for turns, axes in in_plane)]
    return every[:num_orientations]


def averaged_over_orientations(
    network: FoldedUNet,
    num_orientations: int,
    activation: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function from a folded image to its output, averaged over ``orientations(num_orientations)``.

    The image is transformed, and the outputs are transformed back before they are averaged (test-time augmentation).

    Args:
        network: the network of S.
        num_orientations: 1, 4, 8 or 16.
        activation: from logits to the probabilities that are averaged; None: logits are averaged.
    """

    def output_of(folded: torch.Tensor) -> torch.Tensor:
        logit = network.folded_logit(folded)
        return logit if activation is None else activation(logit)

    def averaged_output(folded: torch.Tensor) -> torch.Tensor:
        total: torch.Tensor | None = None
        for turns, axes in orientations(num_orientations):
            turned = output_of(turn_folded(folded, network.fold_zyx, turns, axes))
            back = torch.rot90(torch.flip(turned, axes), -turns, (-2, -1))
            total = back if total is None else total + back
        assert total is not None
        return total / num_orientations

    return output_of if num_orientations == 1 else averaged_output


def turn_folded(folded_BFZYX: torch.Tensor, fold_zyx: Triple, turns: int, axes: Sequence[int]) -> torch.Tensor:  # noqa: N803
    """Rotate and flip a folded image: the result equals ``fold`` of the rotated and flipped image.

    The folded voxels move, and so do the channels that hold the voxels inside each of them.

    Args:
        folded_BFZYX: an image folded by ``fold_zyx``.
        fold_zyx: voxels folded into one along each axis.
        turns: rotations by 90 degrees from Y to X.
        axes: axes that are flipped afterwards, counted from the end (-1 is X).
    """
    b, _, z, y, x = folded_BFZYX.shape
    split = folded_BFZYX.reshape(b, -1, *fold_zyx, z, y, x)
    split = torch.rot90(torch.rot90(split, turns, (-2, -1)), turns, (-5, -4))
    split = torch.flip(split, [*axes, *(axis - 3 for axis in axes)])
    return split.reshape(b, -1, *split.shape[-3:])


def strides_for(
    voxel_size_nm: Sequence[float], fold_zyx: Triple, num_levels: int, num_sections: int
) -> tuple[list[Triple], list[int]]:
    """Strides between the levels of the U-Net, and how many sections the kernels of each level span.

    A level has kernels across sections, and is down-sampled along Z, only once its pixels are about as large as a
    section is thick. On thick sections the first levels are therefore two-dimensional (2.5D); on isotropic voxels none
    is.

    Args:
        voxel_size_nm: (z, y, x) nm of the image.
        fold_zyx: voxels folded into one along each axis.
        num_levels: levels of the U-Net.
        num_sections: Z extent of the image; fewer than 4 sections are not down-sampled along Z.

    Returns:
        ``num_levels - 1`` strides (z, y, x) and ``num_levels`` kernel extents along Z, 1 or 3.
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
    """Voxels along Z, Y, X of which the shape of any input must be a multiple: the fold times all strides."""
    z, y, x = fold_zyx
    for stride in strides:
        z, y, x = z * stride[0], y * stride[1], x * stride[2]
    return z, y, x


def build(architecture: dict[str, Any], seed: int) -> FoldedUNet:
    """A new network from ``Segmenter.architecture``, with initial weights that depend on ``seed`` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FoldedUNet(
            architecture["num_logits"],
            tuple(architecture["filters"]),
            tuple(architecture["fold_zyx"]),
            [tuple(s) for s in architecture["strides"]],
            tuple(architecture["depth"]),
        )
