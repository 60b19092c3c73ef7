"""Whether a refitted S is better than its predecessor, by what neither of them has learned from.

The newest answers are divided in halves; each of two models learns from one half (and from all older answers) and is
tested on the other. The refitted S is the mean of the two. It is blended with its predecessor, S + a (new - S), and the
share a with the lowest error is taken: 1 takes the new S, 0 keeps the old one. An error is how often S finds a wrong
candidate more probable than a true object, and how badly it fits the validation box. Equations:
``docs/segmentation.md``, *A refit is judged*.

Knows S, crops and targets; must not know the ledger, rounds or how S is trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch

from twostream.models.segmentation.lessons import Lessons
from twostream.models.segmentation.train import Segmenter
from twostream.task import CERTAIN, IGNORE

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of the new S that are tried; the first one keeps its predecessor."""
IS_OBJECT = {"mask": True, "drawn": True, "background": False, "ignore": False}
"""{what a lesson teaches: whether its mask is an object}. "ignore" is a candidate of a wrong shape. A candidate whose
sides were exchanged is no evidence: its foreground is right, and the answer is still False."""
Weights = Mapping[str, torch.Tensor]
"""A state dict."""


@dataclass(frozen=True)
class Choice:
    """Which share of a refitted S is taken, and why.

    Attributes:
        share: of the new S in the S of the round, in [0, 1].
        errors: the error with each of ``SHARES``, in [0, 1]; empty without evidence, when the predecessor stays.
        num_answers: answers on which the halves were tested; of one kind alone they are no evidence.
        num_objects: objects of the validation box.
    """

    share: float
    errors: tuple[float, ...]
    num_answers: int
    num_objects: int

    @property
    def outcome(self) -> str:
        """ "accepted", "blended" or "kept": the new S, a mixture, or the predecessor."""
        return "accepted" if self.share == 1 else "blended" if self.share else "kept"

    def detail(self) -> dict[str, Any]:
        """As the ledger records it."""
        return {
            "outcome": self.outcome,
            "share": self.share,
            "errors": {str(share): round(error, 4) for share, error in zip(SHARES, self.errors, strict=False)},
            "num_held_out": self.num_answers,
            "num_validation_objects": self.num_objects,
        }


class Evidence:
    """Answers and labels on which S is tested.

    Args:
        lessons: holds the answered masks.
        halves: rows of the newest lessons, for each of the two models those that it has not learned from. Only kinds
            of ``IS_OBJECT``.
        validation: images (N, Z, Y, X) uint8 and target levels (N, C, Z, Y, X) uint8 of the validation box, or None.
        num_objects: objects of the validation box.
        channels: of the target, those that are probabilities of foreground.
        foreground: the channel by which candidates are ranked.
    """

    def __init__(
        self,
        lessons: Lessons,
        halves: Sequence[Sequence[int]],
        validation: tuple[np.ndarray, np.ndarray] | None,
        num_objects: int,
        channels: Sequence[int],
        foreground: int,
    ) -> None:
        self._held_out = [_HeldOut.of(lessons, rows) for rows in halves]
        self._validation, self._num_objects = validation, num_objects if validation else 0
        self._channels, self._foreground = list(channels), foreground

    def judge(self, old: Segmenter, halves: Sequence[Weights], new: Weights) -> Choice:
        """Choose the share of the new S.

        Args:
            old: the predecessor; its weights are exchanged meanwhile.
            halves: weights of the two models, in the order of ``halves`` above.
            new: weights of the refitted S.
        """
        num_answers = sum(held_out.num_pairs and len(held_out.images) for held_out in self._held_out)
        if not num_answers and not self._num_objects:
            return Choice(0.0, (), 0, 0)
        before = {name: value.clone() for name, value in old.network.state_dict().items()}
        errors = [self._error(old, before, halves, new, share) for share in SHARES]
        old.network.load_state_dict(before)
        return Choice(SHARES[int(np.argmin(errors))], tuple(errors), num_answers, self._num_objects)

    def _error(self, model: Segmenter, before: Weights, halves: Sequence[Weights], new: Weights, share: float) -> float:
        """Mean error of a blend: of the answers of each half by the model that has not learned from it, and of the
        validation box, which counts as many times as it has objects."""
        errors, counts = [], []
        for half, held_out in zip(halves, self._held_out, strict=True):
            if held_out.num_pairs:
                model.network.load_state_dict(blended(before, half, share))
                probability = [
                    probability_of(model, image)[self._foreground][mask].mean()
                    for image, mask in zip(held_out.images, held_out.masks, strict=True)
                ]
                errors.append(ranking_error(np.array(probability), held_out.is_object))
                counts.append(len(held_out.images))
        if self._validation is not None and self._num_objects:
            model.network.load_state_dict(blended(before, new, share))
            predicted = [probability_of(model, image) for image in self._validation[0]]
            errors.append(dice_error(predicted, self._validation[1], self._channels))
            counts.append(self._num_objects)
        return float(np.average(errors, weights=counts))


@dataclass(frozen=True)
class _HeldOut:
    """N answers that a model has not learned from.

    Attributes:
        images: N of (Z, Y, X) uint8, crops around the answered masks.
        masks: N of (Z, Y, X) bool, the masks in them; none is empty.
        is_object: (N,) bool, whether the mask is an object.
    """

    images: list[np.ndarray]
    masks: list[np.ndarray]
    is_object: np.ndarray

    @classmethod
    def of(cls, lessons: Lessons, rows: Sequence[int]) -> _HeldOut:
        crops = [(*lessons.held_out(row), IS_OBJECT[lessons.lessons[row].teaches]) for row in rows]
        shown = [crop for crop in crops if crop[1].any()]
        return cls([c[0] for c in shown], [c[1] for c in shown], np.array([c[2] for c in shown], bool))

    @property
    def num_pairs(self) -> int:
        """Pairs of an object and a candidate that is none."""
        return int(self.is_object.sum() * (~self.is_object).sum())


def blended(old: Weights, new: Weights, share: float) -> dict[str, torch.Tensor]:
    """The weights old + share (new - old), entry by entry; counters are the old ones.

    The two must come from one common training, else the mean of their weights means nothing (Wortsman 2022).
    """
    return {
        name: torch.lerp(value, new[name], share) if value.is_floating_point() else value.clone()
        for name, value in old.items()
    }


def probability_of(segmenter: Segmenter, image: np.ndarray) -> np.ndarray:
    """(Z, Y, X) uint8 -> (C, Z, Y, X) float32 in [0, 1], the whole crop at once."""
    with torch.no_grad():
        logit = segmenter.network(torch.from_numpy(segmenter.normalise(image))[None, None]).float()
        return segmenter.head.probability(logit)[0].numpy()


def ranking_error(probability: np.ndarray, is_object: np.ndarray) -> float:
    """Share of the pairs of an object and a wrong candidate in which the wrong one is more probable (1 - AUC).

    Only the order counts, as it does for the average precision: an S that gives less for objects and other candidates
    alike is neither better nor worse, and of a batch of wrong candidates S cannot learn to find nothing at all.

    Args:
        probability: (N,) float, of the foreground inside each mask.
        is_object: (N,) bool, with both values.

    Returns:
        In [0, 1]; equal probabilities count one half.
    """
    # Pairs are counted, because two S with the same order must have exactly the same error: then the predecessor stays.
    pairs = product(probability[is_object], probability[~is_object])
    return float(np.mean([(wrong > right) + 0.5 * (wrong == right) for right, wrong in pairs]))


def dice_error(predicted: Sequence[np.ndarray], targets: np.ndarray, channels: Sequence[int]) -> float:
    """1 - Dice coefficient of probability and target over all known voxels, mean over channels, in [0, 1].

    Args:
        predicted: N of (C, Z, Y, X) float.
        targets: (N, C, Z, Y, X) uint8 levels.
        channels: which of them count.
    """
    shared, total = np.zeros(len(channels)), np.zeros(len(channels))
    for guess, levels in zip(predicted, targets, strict=True):
        known = levels[channels] != IGNORE
        wanted = np.where(known, levels[channels] / CERTAIN, 0)
        seen = np.where(known, guess[channels], 0)
        shared += 2 * (seen * wanted).sum((1, 2, 3))
        total += (seen + wanted).sum((1, 2, 3))
    return float(np.mean(1 - shared / np.maximum(total, 1e-9)))
