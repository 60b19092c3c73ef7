"""Tuning: the search for decoding settings and the final threshold on the validation box.

Tries a grid of settings on one probability and ranks them by the truth rule. Knows arrays, labels and the task; must
not know projects, rounds or models.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from twostream.base import progress
from twostream.base.errors import InputError
from twostream.candidates.candidate import clean, drop_low_scores
from twostream.candidates.thresholds import min_score_by_labels
from twostream.task import Task
from twostream.task.metrics import Overlaps, foreground_iou, hidden_voxels

MASK_THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
SEED_THRESHOLDS = (0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
"""Up to 0.99, because a well-trained S is also fairly certain of the voxels between two neighbouring objects, and only
a high threshold separates their seeds."""
CONTOUR_THRESHOLDS = (0.3, 0.5, 0.8)
DISTANCE_LEVELS = (0.5, 0.6, 0.75)


@dataclass(frozen=True)
class Trial:
    """One combination of settings, and its scores on the validation box.

    Attributes:
        threshold: foreground probability above which a voxel is part of an instance, in [0, 1].
        decoding: values of ``DecodingConfig`` fields that replace the task's.
        min_score: mean probability that an instance needs, chosen with these settings; `propose` chooses it again.
        instance_f1: F1 of instances by ``Task.detection``, in [0, 1].
        foreground_iou: in [0, 1]; NaN if labels and segmentation are both empty.
        num_truth: number of truth objects in the box.
    """

    threshold: float
    decoding: dict[str, Any]
    min_score: float
    instance_f1: float
    foreground_iou: float
    num_truth: int


def settings_to_try(task: Task) -> Iterator[tuple[float, dict[str, Any]]]:
    """All combinations to try, as (mask threshold, decoding settings).

    They are connected components, and watersheds with every seed threshold that the task's channels can use.
    """
    for threshold in MASK_THRESHOLDS:
        yield threshold, {"method": "components"}
    contours = CONTOUR_THRESHOLDS if "contour" in task.channels else (task.decoding.seed_contour,)
    distances = DISTANCE_LEVELS if "distance" in task.channels else (task.decoding.seed_distance,)
    for threshold, seed, contour, distance in product(MASK_THRESHOLDS, SEED_THRESHOLDS, contours, distances):
        if seed > threshold or (len(task.channels) > 1 and task.num_sides == 1):
            yield (
                threshold,
                {
                    "method": "watershed",
                    "seed_threshold": seed,
                    "seed_contour": contour,
                    "seed_distance": distance,
                },
            )


def tune(
    probability: np.ndarray, labels: np.ndarray, ignore: np.ndarray | None, task: Task, min_voxels: int
) -> list[Trial]:
    """Score every combination of ``settings_to_try`` on one box.

    Objects cut by the faces of the box count, unlike in the scores of a test box: without them a validation box would
    hold next to no object.

    Args:
        probability: (C, Z, Y, X) uint8 over the box, 255 = 1.
        labels: (Z, Y, X) true labels of the box, in the task's convention.
        ignore: (Z, Y, X), non-zero where the truth is unknown; None if it is known everywhere.
        task: gives channels, the other decoding settings, and the truth rule.
        min_voxels: instances of fewer voxels are dropped.

    Returns:
        Best first: by instance F1, then foreground IoU, then components before watershed. Of combinations with equal
        mask threshold, method and scores only the first is kept.

    Raises:
        InputError: the box holds no object.
    """
    hidden = hidden_voxels(ignore, labels)
    if not (labels > 0).any():
        raise InputError("the validation box holds no object to tune on; create the project with another --val-box.")
    trials = []
    settings = list(settings_to_try(task))
    with progress.task("tune", total=len(settings)) as advance:
        for threshold, decoding in settings:
            tried = type(task)(task.voxel_size_nm, task.decoding.model_copy(update=decoding))
            segmentation = clean(tried.decode(probability, threshold), task, min_voxels)
            min_score = min_score_by_labels(segmentation, probability[task.foreground], labels, ignore, task)
            segmentation = drop_low_scores(segmentation, probability[task.foreground], task, min_score)
            found = task.detection(Overlaps.of(segmentation, labels, ignore))
            iou = foreground_iou(segmentation > 0, labels > 0, hidden)
            trials.append(Trial(threshold, decoding, min_score, found.f1, iou, found.num_truth))
            advance(1)
    trials.sort(key=lambda t: (-t.instance_f1, -t.foreground_iou, t.decoding["method"] != "components"))
    distinct: dict[tuple[object, ...], Trial] = {}
    for trial in trials:
        distinct.setdefault((trial.threshold, trial.decoding["method"], trial.instance_f1, trial.foreground_iou), trial)
    return list(distinct.values())
