"""Losses of S. An ignored voxel adds nothing to any of them."""

from __future__ import annotations

import torch

IGNORE = 255
"""Target value of voxels of which nothing is known."""
MAX_POSITIVE_WEIGHT = 19.0
"""Clip of the class ratio, a floor of 5 percent foreground (METHOD section 8, published configurations)."""
DICE_SMOOTH = 100.0


def bce_dice(logit_BCZYX: torch.Tensor, target_BCZYX: torch.Tensor) -> torch.Tensor:  # noqa: N803
    """Weighted binary cross-entropy plus Dice, each the mean over channels.

    Args:
        logit_BCZYX: float.
        target_BCZYX: uint8: 0, 1, or ``IGNORE``.

    Returns:
        Scalar; 0 if everything is ignored.
    """
    known = (target_BCZYX != IGNORE).to(logit_BCZYX.dtype)
    target = (target_BCZYX == 1).to(logit_BCZYX.dtype)
    axes = (0, 2, 3, 4)
    num_known = known.sum(axes)
    num_positive = target.sum(axes)
    weight = ((num_known - num_positive) / num_positive.clamp(min=1)).clamp(1.0, MAX_POSITIVE_WEIGHT)
    weight = torch.where(num_positive > 0, weight, torch.ones_like(weight))
    per_voxel = torch.nn.functional.binary_cross_entropy_with_logits(logit_BCZYX, target, reduction="none")
    per_voxel = per_voxel * (1 + target * (weight - 1)[None, :, None, None, None]) * known
    # Dividing by the summed weights keeps the scale of the gradient the same, however rare the object is.
    total = (known * (1 + target * (weight - 1)[None, :, None, None, None])).sum(axes)
    bce = per_voxel.sum(axes) / total.clamp(min=1)
    probability = torch.sigmoid(logit_BCZYX) * known
    shared = (probability * target).sum(axes)
    dice = 1 - (2 * shared + DICE_SMOOTH) / (probability.sum(axes) + target.sum(axes) + DICE_SMOOTH)
    return (bce + dice * (num_known > 0)).mean()
