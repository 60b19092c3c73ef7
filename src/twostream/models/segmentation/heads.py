"""Output heads of S: how logits become the probability of the task's channels, and the training loss of each head.

``IndependentHead`` applies a sigmoid to every channel; ``ExclusiveHead`` a softmax over mutually exclusive classes, for
polarity. Both return the probability of the task's channels, so later steps need not know which one was used.

Targets are uint8 levels that stand for a probability level / ``CERTAIN``: 0 is certainly not, ``CERTAIN`` (254) is
certainly, values in between are graded (a signed distance, or the prediction of an earlier S). Voxels of ``IGNORE``
(255) are unknown and contribute to no term of a loss.

In the suffixes of tensor names, B is the batch, C the channels of the task, L the logits, Z, Y and X the voxels.
Knows torch, target levels and loss weights; must not know tasks, files or crops.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from twostream.models.segmentation.config import LossConfig
from twostream.task import CERTAIN, IGNORE

DICE_AXES = (0, 2, 3, 4)
"""All axes of a BCZYX tensor but the channels: sums over them are per channel."""
CROP_AXES = (1, 2, 3, 4)
"""All axes but the batch: sums over them are per crop."""
POLARITY = ("pre", "post", "union")
"""Channels that together are one target of the published loss."""


class Head(ABC):
    """The meaning of the network's logits.

    Attributes:
        num_logits: output channels of the network.
        num_channels: channels of the task, those of ``probability``.
        description: plain values to be stored, from which ``head_of`` builds the head again.
    """

    num_logits: int
    num_channels: int
    description: dict[str, Any]

    @abstractmethod
    def probability(self, logit_BLZYX: torch.Tensor) -> torch.Tensor:  # noqa: N803 - the axes are the name
        """Logits (any real) -> probability_BCZYX in [0, 1], in the channels of the task."""

    @abstractmethod
    def loss(
        self,
        logit_BLZYX: torch.Tensor,  # noqa: N803
        target_BCZYX: torch.Tensor,  # noqa: N803
        config: LossConfig,
        weight_B1ZYX: torch.Tensor | None = None,  # noqa: N803
    ) -> torch.Tensor:
        """Training loss of one batch.

        Args:
            logit_BLZYX: float.
            target_BCZYX: uint8 levels.
            config: weights of the terms.
            weight_B1ZYX: float, weight of each voxel; None: all weigh 1.

        Returns:
            Scalar; 0 if all voxels are ignored.
        """


class IndependentHead(Head):
    """One sigmoid per channel.

    Args:
        channels: names of the task's channels. The loss of "distance" is the squared error; that of every other
            channel is cross-entropy and Dice.
    """

    def __init__(self, channels: Sequence[str]) -> None:
        self.channels = tuple(channels)
        self.num_logits = self.num_channels = len(channels)
        self.description = {"form": "independent", "channels": list(channels)}
        self._graded = [i for i, name in enumerate(channels) if name == "distance"]
        self._binary = [i for i, name in enumerate(channels) if name != "distance"]
        self._targets = [self._binary] if self.channels == POLARITY else [[i] for i in self._binary]

    def probability(self, logit_BLZYX: torch.Tensor) -> torch.Tensor:  # noqa: N803
        return torch.sigmoid(logit_BLZYX)

    def loss(
        self,
        logit_BLZYX: torch.Tensor,  # noqa: N803
        target_BCZYX: torch.Tensor,  # noqa: N803
        config: LossConfig,
        weight_B1ZYX: torch.Tensor | None = None,  # noqa: N803
    ) -> torch.Tensor:
        logit, target = logit_BLZYX, target_BCZYX
        weight = (target != IGNORE).to(logit.dtype)
        if weight_B1ZYX is not None:
            weight = weight * weight_B1ZYX
        wanted = (target.to(logit.dtype) / CERTAIN).clamp(max=1)
        binary, graded = self._binary, self._graded
        if config.reduction == "crop":
            total = torch.stack(
                [crop_loss(logit[:, t], wanted[:, t], weight[:, t], config) for t in self._targets]
            ).sum()
        else:
            total = binary_loss(logit[:, binary], wanted[:, binary], weight[:, binary], config)
        if graded:
            error = (torch.sigmoid(logit[:, graded]) - wanted[:, graded]).square() * weight[:, graded]
            total = total + config.distance * error.sum() / weight[:, graded].sum().clamp(min=1)
        if config.non_overlap and self.channels == POLARITY:
            total = total + config.non_overlap * non_overlap(torch.sigmoid(logit), weight)
        return total


class ExclusiveHead(Head):
    """One class per voxel: background, pre, post or cleft, by a softmax over four logits.

    The probability has the channels pre, post and union, where the union is 1 - P(background).
    """

    num_logits = 4
    num_channels = 3

    def __init__(self) -> None:
        self.description = {"form": "exclusive"}

    def probability(self, logit_BLZYX: torch.Tensor) -> torch.Tensor:  # noqa: N803
        share = torch.softmax(logit_BLZYX, 1)
        return torch.cat([share[:, 1:3], 1 - share[:, :1]], 1)

    def loss(
        self,
        logit_BLZYX: torch.Tensor,  # noqa: N803
        target_BCZYX: torch.Tensor,  # noqa: N803
        config: LossConfig,
        weight_B1ZYX: torch.Tensor | None = None,  # noqa: N803
    ) -> torch.Tensor:
        logit, target = logit_BLZYX, target_BCZYX
        known = (target != IGNORE).all(1)
        level = (target.to(logit.dtype) / CERTAIN).clamp(max=1)
        # Pseudo-labels are graded levels of pre, post and union. The cleft gets what the union has beyond both sides.
        pre, post = level[:, 0], level[:, 1]
        union = torch.maximum(level[:, 2], pre + post)
        share = torch.stack([(1 - union).clamp(min=0), pre, post, union - pre - post], 1)
        share = share / share.sum(1, keepdim=True)
        weight = known.to(logit.dtype)
        if weight_B1ZYX is not None:
            weight = weight * weight_B1ZYX[:, 0]
        count = (share * weight[:, None]).sum(DICE_AXES)
        ratio = count[0] / count.clamp(min=1)
        rarity = torch.where(count > 0, ratio.clamp(1.0, config.max_positive_weight), torch.ones_like(ratio))
        rarity = torch.cat([torch.ones_like(rarity[:1]), rarity[1:]])
        per_class = share * weight[:, None] * rarity[None, :, None, None, None]
        cost = -(functional.log_softmax(logit, 1) * per_class).sum()
        total = config.cross_entropy * cost / per_class.sum().clamp(min=1)
        if config.dice:
            wanted = torch.cat([share[:, 1:3], 1 - share[:, :1]], 1)
            spread = weight[:, None].expand_as(wanted)
            total = total + config.dice * dice_loss(self.probability(logit), wanted, spread, config.dice_smooth)
        return total


def head_of(description: dict[str, Any]) -> Head:
    """The head with this ``description``."""
    return ExclusiveHead() if description["form"] == "exclusive" else IndependentHead(description["channels"])


def binary_loss(
    logit_BCZYX: torch.Tensor,  # noqa: N803
    wanted_BCZYX: torch.Tensor,  # noqa: N803
    weight_BCZYX: torch.Tensor,  # noqa: N803
    config: LossConfig,
) -> torch.Tensor:
    """Class-weighted binary cross-entropy plus Dice, each the mean over channels (docs/method.md, Configurations).

    Foreground voxels are weighted by the ratio of background to foreground voxels in the batch, clipped to
    [1, ``max_positive_weight``].

    Args:
        logit_BCZYX: float.
        wanted_BCZYX: float, target probability in [0, 1].
        weight_BCZYX: float, weight of each voxel; 0 ignores it.
        config: weights of the terms.

    Returns:
        Scalar.
    """
    positive = (wanted_BCZYX * weight_BCZYX).sum(DICE_AXES)
    ratio = ((weight_BCZYX.sum(DICE_AXES) - positive) / positive.clamp(min=1)).clamp(1.0, config.max_positive_weight)
    rarity = torch.where(positive > 0, ratio, torch.ones_like(ratio))
    per_voxel = weight_BCZYX * (1 + wanted_BCZYX * (rarity - 1)[None, :, None, None, None])
    cost = functional.binary_cross_entropy_with_logits(logit_BCZYX, wanted_BCZYX, reduction="none") * per_voxel
    # Divided by the summed weights, so that the scale of the gradient does not depend on how rare the foreground is.
    total = config.cross_entropy * (cost.sum(DICE_AXES) / per_voxel.sum(DICE_AXES).clamp(min=1)).mean()
    if config.dice:
        probability = torch.sigmoid(logit_BCZYX)
        total = total + config.dice * dice_loss(probability, wanted_BCZYX, weight_BCZYX, config.dice_smooth)
    return total


def crop_loss(
    logit_BCZYX: torch.Tensor,  # noqa: N803
    wanted_BCZYX: torch.Tensor,  # noqa: N803
    weight_BCZYX: torch.Tensor,  # noqa: N803
    config: LossConfig,
) -> torch.Tensor:
    """The published loss of one target: cross-entropy and Dice of each crop (docs/method.md, Configurations).

    Whichever of foreground and background is rarer in a crop is weighted by the ratio of the other to it, at most by
    ``max_positive_weight``; a crop with only one of them has weights of 1. Published code divides the cross-entropy by
    the number of all voxels; here it is that of the known ones.

    Args:
        logit_BCZYX: float, the channels of one target.
        wanted_BCZYX: float, target probability in [0, 1].
        weight_BCZYX: float, weight of each voxel; 0 ignores it.
        config: weights of the terms.

    Returns:
        Scalar.
    """
    known = weight_BCZYX.sum(CROP_AXES, keepdim=True)
    share = (wanted_BCZYX * weight_BCZYX).sum(CROP_AXES, keepdim=True) / known.clamp(min=1)
    rarer = torch.minimum(share, 1 - share)
    ratio = torch.where(rarer > 0, ((1 - rarer) / rarer).clamp(max=config.max_positive_weight), torch.ones_like(rarer))
    is_rare = torch.where(share > 0.5, 1 - wanted_BCZYX, wanted_BCZYX)
    per_voxel = weight_BCZYX * (1 + (ratio - 1) * is_rare)
    cost = functional.binary_cross_entropy_with_logits(logit_BCZYX, wanted_BCZYX, reduction="none") * per_voxel
    total = config.cross_entropy * cost.sum() / known.sum().clamp(min=1)
    if config.dice:
        probability = torch.sigmoid(logit_BCZYX)
        dice = dice_loss(probability, wanted_BCZYX, weight_BCZYX, config.dice_smooth, axes=CROP_AXES)
        total = total + config.dice * dice
    return total


def dice_loss(
    probability_BCZYX: torch.Tensor,  # noqa: N803
    wanted_BCZYX: torch.Tensor,  # noqa: N803
    weight_BCZYX: torch.Tensor,  # noqa: N803
    smooth: float,
    axes: tuple[int, ...] = DICE_AXES,
) -> torch.Tensor:
    """1 - Dice coefficient over the whole batch, mean over channels; or per crop, mean over crops (Milletari 2016).

    Args:
        probability_BCZYX: float, predicted.
        wanted_BCZYX: float, target probability in [0, 1].
        weight_BCZYX: float, weight of each voxel; 0 ignores it.
        smooth: voxels added to numerator and denominator, so that nearly empty crops have a stable gradient.
        axes: ``DICE_AXES`` or ``CROP_AXES``.

    Returns:
        Scalar; a channel or crop without any known voxel counts as 0.
    """
    shared = (probability_BCZYX * wanted_BCZYX * weight_BCZYX).sum(axes)
    total = ((probability_BCZYX + wanted_BCZYX) * weight_BCZYX).sum(axes)
    dice = 1 - (2 * shared + smooth) / (total + smooth)
    return (dice * (weight_BCZYX.sum(axes) > 0)).mean()


def non_overlap(probability_BCZYX: torch.Tensor, weight_BCZYX: torch.Tensor) -> torch.Tensor:  # noqa: N803
    """Weighted mean of P(pre) P(post) stop-gradient(P(union)) (docs/method.md, Configurations).

    Penalises voxels that are predicted to be presynaptic and postsynaptic at once.

    Args:
        probability_BCZYX: float; channels pre, post, union.
        weight_BCZYX: float; a voxel gets the smallest weight of its channels.

    Returns:
        Scalar.
    """
    weight = weight_BCZYX.amin(1)
    pre, post, union = probability_BCZYX.unbind(1)
    return (pre * post * union.detach() * weight).sum() / weight.sum().clamp(min=1)
