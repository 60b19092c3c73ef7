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

from twostream.segmentation.config import LossConfig
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
    def loss(self, logit_BLZYX: torch.Tensor, target_BCZYX: torch.Tensor, config: LossConfig) -> torch.Tensor:  # noqa: N803
        """Scalar loss of logits against uint8 levels; 0 if everything is ignored."""

    def distillation(
        self,
        logit_BLZYX: torch.Tensor,  # noqa: N803
        teacher_BLZYX: torch.Tensor,  # noqa: N803
        target_BCZYX: torch.Tensor,  # noqa: N803
    ) -> torch.Tensor:
        """How far S has left its teacher where the target says nothing (Li and Hoiem 2016).

        Returns:
            Mean over those voxels of the Kullback-Leibler divergence of the teacher's channels from S's; 0 if there
            are none.
        """
        unknown = (target_BCZYX == IGNORE).all(1, keepdim=True).to(logit_BLZYX.dtype)
        wanted = self.probability(teacher_BLZYX).detach().clamp(1e-4, 1 - 1e-4)
        got = self.probability(logit_BLZYX).clamp(1e-4, 1 - 1e-4)
        cost = wanted * (wanted / got).log() + (1 - wanted) * ((1 - wanted) / (1 - got)).log()
        return (cost.mean(1, keepdim=True) * unknown).sum() / unknown.sum().clamp(min=1)


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

    def loss(self, logit_BLZYX: torch.Tensor, target_BCZYX: torch.Tensor, config: LossConfig) -> torch.Tensor:  # noqa: N803
        logit, target = logit_BLZYX, target_BCZYX
        total = binary_loss(logit[:, self._binary], target[:, self._binary], config)
        if self._graded:
            known = target[:, self._graded] != IGNORE
            wanted = target[:, self._graded].to(logit.dtype) / CERTAIN
            error = (torch.sigmoid(logit[:, self._graded]) - wanted).square() * known
            total = total + config.distance * error.sum() / known.sum().clamp(min=1)
        if config.non_overlap and self.channels == ("pre", "post", "union"):
            total = total + config.non_overlap * non_overlap(torch.sigmoid(logit), target)
        return total


class ExclusiveHead(Head):
    """One class per voxel: nothing, pre, post, or the cleft between; channels pre, post, union."""

    num_logits = 4

    def __init__(self) -> None:
        self.description = {"form": "exclusive"}

    def probability(self, logit_BLZYX: torch.Tensor) -> torch.Tensor:  # noqa: N803
        share = torch.softmax(logit_BLZYX, 1)
        return torch.cat([share[:, 1:3], 1 - share[:, :1]], 1)

    def loss(self, logit_BLZYX: torch.Tensor, target_BCZYX: torch.Tensor, config: LossConfig) -> torch.Tensor:  # noqa: N803
        logit, target = logit_BLZYX, target_BCZYX
        known = (target != IGNORE).all(1)
        pre, post, union = (target[:, i] == CERTAIN for i in range(3))
        label = torch.where(pre, 1, torch.where(post, 2, torch.where(union, 3, 0)))
        count = torch.stack([((label == k) & known).sum() for k in range(4)]).to(logit.dtype)
        ratio = count[0] / count.clamp(min=1)
        weight = torch.where(count > 0, ratio.clamp(1.0, config.max_positive_weight), torch.ones_like(ratio))
        weight[0] = 1.0
        cost = functional.cross_entropy(logit, label, reduction="none") * known
        per_voxel = weight[label] * known
        total = config.cross_entropy * (cost * per_voxel).sum() / per_voxel.sum().clamp(min=1)
        if config.dice:
            total = total + config.dice * dice_loss(self.probability(logit), target, config.dice_smooth)
        return total


def head_of(description: dict[str, Any]) -> Head:
    """The head that was described."""
    return ExclusiveHead() if description["form"] == "exclusive" else IndependentHead(description["channels"])


def binary_loss(logit_BCZYX: torch.Tensor, target_BCZYX: torch.Tensor, config: LossConfig) -> torch.Tensor:  # noqa: N803
    """Class-weighted binary cross-entropy plus Dice, each the mean over channels (METHOD section 8).

    Foreground weighs as much more as it is rarer in the batch, up to ``max_positive_weight``.
    """
    known = (target_BCZYX != IGNORE).to(logit_BCZYX.dtype)
    target = (target_BCZYX == CERTAIN).to(logit_BCZYX.dtype)
    num_known, num_positive = known.sum(DICE_AXES), target.sum(DICE_AXES)
    ratio = ((num_known - num_positive) / num_positive.clamp(min=1)).clamp(1.0, config.max_positive_weight)
    weight = torch.where(num_positive > 0, ratio, torch.ones_like(ratio))
    per_voxel = known * (1 + target * (weight - 1)[None, :, None, None, None])
    cost = functional.binary_cross_entropy_with_logits(logit_BCZYX, target, reduction="none") * per_voxel
    # Dividing by the summed weights keeps the scale of the gradient the same, however rare the object is.
    total = config.cross_entropy * (cost.sum(DICE_AXES) / per_voxel.sum(DICE_AXES).clamp(min=1)).mean()
    if config.dice:
        total = total + config.dice * dice_loss(torch.sigmoid(logit_BCZYX), target_BCZYX, config.dice_smooth)
    return total


def dice_loss(probability_BCZYX: torch.Tensor, target_BCZYX: torch.Tensor, smooth: float) -> torch.Tensor:  # noqa: N803
    """1 - Dice over the batch, mean over channels (Milletari 2016, with ``smooth`` voxels on both sides)."""
    known = (target_BCZYX != IGNORE).to(probability_BCZYX.dtype)
    target = (target_BCZYX == CERTAIN).to(probability_BCZYX.dtype)
    probability = probability_BCZYX * known
    shared = (probability * target).sum(DICE_AXES)
    dice = 1 - (2 * shared + smooth) / (probability.sum(DICE_AXES) + target.sum(DICE_AXES) + smooth)
    return (dice * (known.sum(DICE_AXES) > 0)).mean()


def non_overlap(probability_BCZYX: torch.Tensor, target_BCZYX: torch.Tensor) -> torch.Tensor:  # noqa: N803
    """mean P(pre) P(post) stop-gradient P(union) over known voxels (METHOD section 8)."""
    known = (target_BCZYX != IGNORE).all(1).to(probability_BCZYX.dtype)
    pre, post, union = probability_BCZYX.unbind(1)
    return (pre * post * union.detach() * known).sum() / known.sum().clamp(min=1)
