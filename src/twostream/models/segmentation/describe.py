"""The size of a training of S before it starts: parameters, crop, steps and memory, for ``train --dry-run``.

Memory is computed without training: one forward pass on torch's "meta" device, whose tensors have shapes but no data,
shows which activations autograd would keep for the backward pass; weights, gradients and the state of the optimizer are
added. Knows networks and settings; must not know projects.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from twostream.models.segmentation.config import SegmentationConfig
from twostream.models.segmentation.train import Segmenter, crop_shape
from twostream.task import CERTAIN

BYTES = 4
"""Bytes of a float32. Mixed precision needs fewer, so the result is an upper bound."""
OPTIMIZER_STATES = {"adamw": 2, "sgd": 1}
"""Values that the optimizer stores per weight."""


@dataclass(frozen=True)
class Description:
    """The size of a training.

    Attributes:
        num_parameters: trainable parameters of the network.
        filters: channels of each level.
        fold_zyx: voxels folded into one before the first convolution.
        seen_voxel_nm: (z, y, x) nm, size of a folded voxel.
        crop_shape_zyx: training crop, voxels of the image.
        batch_size: crops per step and device.
        num_steps: optimizer steps.
        weight_bytes: bytes of weights, gradients and optimizer state.
        activation_bytes: bytes of the activations kept for the backward pass of one batch.
    """

    num_parameters: int
    filters: tuple[int, ...]
    fold_zyx: tuple[int, int, int]
    seen_voxel_nm: tuple[float, ...]
    crop_shape_zyx: tuple[int, int, int]
    batch_size: int
    num_steps: int
    weight_bytes: int
    activation_bytes: int

    def lines(self) -> list[str]:
        """The description as text for a terminal, one item per line."""
        shape = " x ".join(str(s) for s in self.crop_shape_zyx)
        seen = " x ".join(f"{v:g}" for v in self.seen_voxel_nm)
        total = _size(self.weight_bytes + self.activation_bytes)
        return [
            f"network     {self.num_parameters:,} parameters, filters {', '.join(map(str, self.filters))}",
            f"input       voxels of {seen} nm (Z, Y, X), folded by {' x '.join(map(str, self.fold_zyx))}",
            f"crop        {shape} voxels of the image (Z, Y, X), {self.batch_size} per step",
            f"steps       {self.num_steps:,}, {self.num_steps * self.batch_size:,} crops",
            f"memory      {total}: {_size(self.activation_bytes)} of activations for the backward pass, "
            f"{_size(self.weight_bytes)} of weights, gradients and optimizer; image and labels not included",
        ]


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.1f} MB"


def describe(segmenter: Segmenter, config: SegmentationConfig, voxel_size_nm: tuple[float, ...]) -> Description:
    """The size of a training of ``segmenter`` with ``config``.

    Args:
        segmenter: S, trained or not; not changed.
        config: settings of the training.
        voxel_size_nm: (z, y, x) nm of the image.
    """
    fold_zyx = segmenter.network.fold_zyx
    num_parameters = sum(p.numel() for p in segmenter.network.parameters() if p.requires_grad)
    crop = crop_shape(segmenter, config)
    copies = 2 + OPTIMIZER_STATES[config.optimizer.name]
    return Description(
        num_parameters,
        config.filters,
        fold_zyx,
        tuple(v * f for v, f in zip(voxel_size_nm, fold_zyx, strict=True)),
        crop,
        config.batch_size,
        config.num_steps,
        num_parameters * BYTES * copies,
        _activation_bytes(segmenter, config, crop),
    )


def _activation_bytes(segmenter: Segmenter, config: SegmentationConfig, crop: tuple[int, int, int]) -> int:
    """Bytes of all tensors that autograd keeps for the backward pass of one batch, except the weights."""
    network = type(segmenter.network)(**segmenter.network.arguments).to("meta")
    weights = {p.untyped_storage()._cdata for p in network.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> Any:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    image = torch.zeros(config.batch_size, 1, *crop, device="meta")
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logit = network.train()(image)
        channels = segmenter.head.probability(logit).shape[1]
        target = torch.full((config.batch_size, channels, *crop), CERTAIN, dtype=torch.uint8, device="meta")
        loss = segmenter.head.loss(logit, target, config.loss)
    del loss
    return sum(kept.values())
