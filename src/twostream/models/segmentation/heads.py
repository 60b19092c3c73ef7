"""The last step of S: from logits to the task's channels, and what a wrong logit costs.

Knows torch, levels of a target and weights of terms; must not know tasks, files or crops. Two forms: every channel
for itself (sigmoid), or one class per voxel (softmax) for the two sides of a synapse. Either way the probability
has the channels of the task, so nothing after S knows which form it was.

Targets are uint8 levels: 0 = surely not, ``CERTAIN`` = surely, between = a graded value such as a distance,
``IGNORE`` = nothing is known. An ignored voxel adds nothing to any term.
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


class Head(ABC):
    """What the network's last layer means.

    Attributes:
        num_logits: channels of the network.
        description: plain values from which ``head_of`` makes it again.
    """

    num_logits: int
    description: dict[str, Any]

    @abstractmethod
    def probability(self, logit_BLZYX: torch.Tensor) -> torch.Tensor:  # noqa: N803 - the axes are the name
        """Logits -> probability_BCZYX in [0, 1], channels of the task."""

    @abstractmethod
    def loss(
        self,
        logit_BLZYX: torch.Tensor,  # noqa: N803
        target_BCZYX: torch.Tensor,  # noqa: N803
        config: LossConfig,
        weight_B1ZYX: torch.Tensor | None = None,  # noqa: N803
    ) -> torch.Tensor:
        """Scalar loss of logits against uint8 levels, voxels weighted; 0 if everything is ignored."""


class IndependentHead(Head):
    """One sigmoid per channel.

    Args:
        channels: names of the task's channels; "distance" is graded: squared error instead of cross-entropy and Dice.
    """

    def __init__(self, channels: Sequence[str]) -> None:
        self.channels = tuple(channels)
        self.num_logits = len(channels)
        self.description = {"form": "independent", "channels": list(channels)}
        self._graded = [i for i, name in enumerate(channels) if name == "distance"]
        self._binary = [i for i, name in enumerate(channels) if name != "distance"]

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
        total = binary_loss(logit[:, binary], wanted[:, binary], weight[:, binary], config)
        if graded:
            error = (torch.sigmoid(logit[:, graded]) - wanted[:, graded]).square() * weight[:, graded]
            total = total + config.distance * error.sum() / weight[:, graded].sum().clamp(min=1)
        if config.non_overlap and self.channels == ("pre", "post", "union"):
            total = total + config.non_overlap * non_overlap(torch.sigmoid(logit), weight)
        return total


class ExclusiveHead(Head):
    """One class per voxel: nothing, pre, post, or the cleft between; channels pre, post, union."""

    num_logits = 4

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
        # Levels may be graded, where an earlier S believes: the union's share that neither side has is the cleft.
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
    """The head that was described."""
    return ExclusiveHead() if description["form"] == "exclusive" else IndependentHead(description["channels"])


def binary_loss(
    logit_BCZYX: torch.Tensor,  # noqa: N803
    wanted_BCZYX: torch.Tensor,  # noqa: N803
    weight_BCZYX: torch.Tensor,  # noqa: N803
    config: LossConfig,
) -> torch.Tensor:
    """Class-weighted binary cross-entropy plus Dice, each the mean over channels (METHOD section 8).

    Foreground weighs as much more as it is rarer in the batch, up to ``max_positive_weight``.

    Args:
        logit_BCZYX: float.
        wanted_BCZYX: probabilities in [0, 1].
        weight_BCZYX: of each voxel; 0 leaves it out.
    """
    positive = (wanted_BCZYX * weight_BCZYX).sum(DICE_AXES)
    ratio = ((weight_BCZYX.sum(DICE_AXES) - positive) / positive.clamp(min=1)).clamp(1.0, config.max_positive_weight)
    rarity = torch.where(positive > 0, ratio, torch.ones_like(ratio))
    per_voxel = weight_BCZYX * (1 + wanted_BCZYX * (rarity - 1)[None, :, None, None, None])
    cost = functional.binary_cross_entropy_with_logits(logit_BCZYX, wanted_BCZYX, reduction="none") * per_voxel
    # Dividing by the summed weights keeps the scale of the gradient the same, however rare the object is.
    total = config.cross_entropy * (cost.sum(DICE_AXES) / per_voxel.sum(DICE_AXES).clamp(min=1)).mean()
    if config.dice:
        probability = torch.sigmoid(logit_BCZYX)
        total = total + config.dice * dice_loss(probability, wanted_BCZYX, weight_BCZYX, config.dice_smooth)
    return total


def dice_loss(
    probability_BCZYX: torch.Tensor,  # noqa: N803
    wanted_BCZYX: torch.Tensor,  # noqa: N803
    weight_BCZYX: torch.Tensor,  # noqa: N803
    smooth: float,
) -> torch.Tensor:
    """1 - Dice over the batch, mean over channels (Milletari 2016, with ``smooth`` voxels on both sides)."""
    shared = (probability_BCZYX * wanted_BCZYX * weight_BCZYX).sum(DICE_AXES)
    total = ((probability_BCZYX + wanted_BCZYX) * weight_BCZYX).sum(DICE_AXES)
    dice = 1 - (2 * shared + smooth) / (total + smooth)
    return (dice * (weight_BCZYX.sum(DICE_AXES) > 0)).mean()


def non_overlap(probability_BCZYX: torch.Tensor, weight_BCZYX: torch.Tensor) -> torch.Tensor:  # noqa: N803
    """mean P(pre) P(post) stop-gradient P(union) over voxels that count (METHOD section 8)."""
    weight = weight_BCZYX.amin(1)
    pre, post, union = probability_BCZYX.unbind(1)
    return (pre * post * union.detach() * weight).sum() / weight.sum().clamp(min=1)
