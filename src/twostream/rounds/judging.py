"""Whether a refitted S is better than its predecessor, by what neither of them has learned from.

A share of the answers is held out for this in all rounds, beside the validation box. The refitted S is blended with
its predecessor, S + a (new - S): a = 1 takes the new S, 0 keeps the old one. An error is how often S finds a wrong
candidate more probable than a true object, and how badly it fits the validation box. The new S is taken, unless
another share is better by more than chance. Equations: ``docs/segmentation.md``, *A refit is judged*.

Knows S, crops and targets; must not know the ledger, rounds or how S is trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from twostream.models.segmentation.lessons import Lessons
from twostream.models.segmentation.train import Segmenter
from twostream.task import CERTAIN, IGNORE

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of the new S that are tried; the first one keeps its predecessor."""
MIN_OF_A_KIND = 2
"""Objects, and wrong candidates, from which on their order is evidence: one alone shows nothing of chance."""
NUM_STANDARD_ERRORS = 2.0
"""By how many the new S must be worse than another share to be left. It has learned from more than its predecessor, and
with one standard error good refits were left by chance (LOG.md)."""
IS_OBJECT = {"mask": True, "drawn": True, "background": False}
"""{what a lesson teaches: whether its mask is an object}. A candidate of a wrong shape is no evidence: an object lies
in a part of it, and the better S sees it there. Nor is one whose sides were exchanged: its foreground is right."""
Weights = Mapping[str, torch.Tensor]
"""A state dict."""


@dataclass(frozen=True)
class Choice:
    """Which share of a refitted S is taken, and why.

    Attributes:
        share: of the new S in the S of the round, in [0, 1].
        errors: the error with each of ``SHARES``, in [0, 1]; empty without evidence, when the predecessor stays.
        chances: difference of each error and the lowest one that chance may make, ``NUM_STANDARD_ERRORS`` of it.
        num_answers: answers on which they were tested; of one kind alone they are no evidence.
        num_objects: objects of the validation box.
    """

    share: float
    errors: tuple[float, ...]
    chances: tuple[float, ...]
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
            "chances": {str(share): round(chance, 4) for share, chance in zip(SHARES, self.chances, strict=False)},
            "num_held_out": self.num_answers,
            "num_validation_objects": self.num_objects,
        }


class Evidence:
    """Answers and labels on which S is tested.

    Args:
        lessons: holds the answered masks.
        rows: of the lessons on which S is tested. Only kinds of ``IS_OBJECT``.
        validation: images (N, Z, Y, X) uint8 and target levels (N, C, Z, Y, X) uint8 of the validation box, or None.
        num_objects: objects of the validation box.
        channels: of the target, those that are probabilities of foreground.
        foreground: the channel by which candidates are ranked.
    """

    def __init__(
        self,
        lessons: Lessons,
        rows: Sequence[int],
        validation: tuple[np.ndarray, np.ndarray] | None,
        num_objects: int,
        channels: Sequence[int],
        foreground: int,
    ) -> None:
        tested = _HeldOut.of(lessons, rows)
        is_evidence = min(tested.is_object.sum(), (~tested.is_object).sum()) >= MIN_OF_A_KIND
        self._tested = tested if is_evidence else _HeldOut([], [], np.zeros(0, bool))
        self._validation, self._num_objects = validation, num_objects if validation else 0
        self._channels, self._foreground = list(channels), foreground
        self._parts = objects_of(validation[1], self._channels) if validation else np.zeros((0, 1, 1, 1), np.int64)

    def judge(self, old: Segmenter, new: Weights) -> Choice:
        """Choose the share of the new S.

        Args:
            old: the predecessor; its weights are exchanged meanwhile.
            new: weights of the refitted S.
        """
        weights = np.array([self._tested.num_balanced, self._num_objects], float)
        if not weights.any():
            return Choice(0.0, (), (), 0, 0)
        before = {name: value.clone() for name, value in old.network.state_dict().items()}
        found = []
        for share in SHARES:
            old.network.load_state_dict(blended(before, new, share))
            found.append((self._ranked(old), self._fitted(old)))
        old.network.load_state_dict(before)
        return chosen(found, weights / weights.sum(), len(self._tested.images), self._num_objects)

    def _ranked(self, model: Segmenter) -> Spread:
        """The error of the answers."""
        if not self._tested.images:
            return Spread()
        probability = [
            probability_of(model, image)[self._foreground][mask].mean()
            for image, mask in zip(self._tested.images, self._tested.masks, strict=True)
        ]
        return ranking_error(np.array(probability), self._tested.is_object)

    def _fitted(self, model: Segmenter) -> Spread:
        """The error of the validation box."""
        if self._validation is None or not self._num_objects:
            return Spread()
        predicted = [probability_of(model, image) for image in self._validation[0]]
        return dice_error(predicted, self._validation[1], self._channels, self._parts)


@dataclass(frozen=True)
class Spread:
    """An error, and what each observation says of it.

    Attributes:
        error: in [0, 1]; 0 without observations.
        samples: independent samples, each of M independent observations, (M,) float: the error of each. An error that
            hangs on two samples (objects and wrong candidates) has the sum of the variances of their means.
    """

    error: float = 0.0
    samples: tuple[np.ndarray, ...] = ()

    def variance_beside(self, other: Spread) -> float:
        """Variance of the difference of two errors of the same observations.

        One observation alone, as of a validation box that is a single crop, shows no spread: its difference counts as
        it stands.
        """
        differences = [a - b for a, b in zip(self.samples, other.samples, strict=True)]
        return float(sum(d.var(ddof=1) / len(d) for d in differences if len(d) > 1))


def chosen(found: Sequence[Sequence[Spread]], weights: np.ndarray, num_answers: int, num_objects: int) -> Choice:
    """The share that is taken: 1, or the best one if it is better by more than chance may make.

    Args:
        found: for each of ``SHARES``, the errors of the answers and of the validation box.
        weights: (2,) float, of these; they add up to 1.
        num_answers, num_objects: of the result.
    """
    errors = [float(weights @ [one.error for one in tests]) for tests in found]
    lowest = int(np.argmin(errors))
    chances = []
    for share, tests in enumerate(found):
        variances = [a.variance_beside(b) for a, b in zip(tests, found[lowest], strict=True)]
        chances.append(0.0 if share == lowest else NUM_STANDARD_ERRORS * float(np.sqrt(weights**2 @ variances)))
    taken = lowest if errors[-1] - errors[lowest] > chances[-1] else len(SHARES) - 1
    return Choice(SHARES[taken], tuple(errors), tuple(chances), num_answers, num_objects)


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
    def num_balanced(self) -> float:
        """Answers of both kinds in equal number that would order as surely: twice the harmonic mean of the two."""
        num_pairs = int(self.is_object.sum() * (~self.is_object).sum())
        return 4 * num_pairs / max(1, len(self.is_object))


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


def ranking_error(probability: np.ndarray, is_object: np.ndarray) -> Spread:
    """Share of the pairs of an object and a wrong candidate in which the wrong one is more probable (1 - AUC).

    Only the order counts, as it does for the average precision: an S that gives less for objects and other candidates
    alike is neither better nor worse, and of a batch of wrong candidates S cannot learn to find nothing at all.

    Args:
        probability: (N,) float, of the foreground inside each mask.
        is_object: (N,) bool, with both values.

    Returns:
        Equal probabilities count one half. Its samples are the objects and the wrong candidates (DeLong 1988).
    """
    right, wrong = probability[is_object][:, None], probability[~is_object][None]
    reversed_ = (wrong > right) + 0.5 * (wrong == right)
    error = float(reversed_.mean())
    return Spread(error, (reversed_.mean(1), reversed_.mean(0)))


def objects_of(targets: np.ndarray, channels: Sequence[int]) -> np.ndarray:
    """Divide crops into the neighbourhoods of their objects.

    Args:
        targets: (N, C, Z, Y, X) uint8 levels.
        channels: which of them are foreground.

    Returns:
        (N, Z, Y, X) int64: 0 where nothing is known, else 1, 2, ...: the nearest object of the crop, parts of the
        foreground that touch being one; in a crop without any object, a number of its own.
    """
    result = np.zeros((len(targets), *targets.shape[2:]), np.int64)
    number = 0
    for parts, levels in zip(result, targets[:, channels], strict=True):
        known = (levels != IGNORE).any(0)
        labels, num = ndimage.label(((levels != IGNORE) & (2 * levels.astype(int) >= CERTAIN)).any(0))
        if num:
            nearest = ndimage.distance_transform_edt(labels == 0, return_distances=False, return_indices=True)
            parts[known] = labels[tuple(nearest)][known] + number
        else:
            parts[known] = 1 + number
        number += max(num, int(known.any()))
    return result


def dice_error(
    predicted: Sequence[np.ndarray], targets: np.ndarray, channels: Sequence[int], parts: np.ndarray
) -> Spread:
    """1 - Dice coefficient of probability and target over all known voxels, mean over channels, in [0, 1].

    Args:
        predicted: N of (C, Z, Y, X) float.
        targets: (N, C, Z, Y, X) uint8 levels.
        channels: which of them count.
        parts: (N, Z, Y, X) int64, see ``objects_of``.

    Returns:
        Its sample are the objects with their neighbourhoods, each with its part in a ratio of sums (Cochran 1977, 6.4).
    """
    num = int(parts.max(initial=0))
    shared, total = np.zeros((num, len(channels))), np.zeros((num, len(channels)))
    for guess, levels, part in zip(predicted, targets, parts, strict=True):
        for column, channel in enumerate(channels):
            known = levels[channel] != IGNORE
            wanted, seen, where = levels[channel][known] / CERTAIN, guess[channel][known], part[known] - 1
            shared[:, column] += np.bincount(where, 2 * seen * wanted, num)
            total[:, column] += np.bincount(where, seen + wanted, num)
    whole = np.maximum(total.sum(0), 1e-9)
    dice = shared.sum(0) / whole
    error = float(np.mean(1 - dice))
    return Spread(error, (error - num * ((shared - dice * total) / whole).mean(1),))
