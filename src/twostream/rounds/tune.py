"""Thresholds of decoding, tuned on the validation box: what `twostream tune` does.

Knows probabilities, labels and the truth rule; must not know models or rounds. The validation box is frozen and never
trained on; a box with few objects tunes to chance, so their number stands beside every result.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from twostream.base import progress
from twostream.base.errors import InputError
from twostream.candidates.candidate import clean, least_believed, without_doubtful
from twostream.task import Task
from twostream.task.answers import AnswerKind
from twostream.task.metrics import Overlaps, foreground_iou, precision_recall_f1

FEW_OBJECTS = 10
"""Below this many the best setting is mostly luck."""
MASK_THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
SEED_THRESHOLDS = (0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
"""The longer S has trained, the surer it is of what lies between two neighbours: only a high level parts them."""
CONTOUR_THRESHOLDS = (0.3, 0.5, 0.8)
DISTANCE_LEVELS = (0.5, 0.6, 0.75)


@dataclass(frozen=True)
class Trial:
    """One setting and how it did.

    Attributes:
        threshold: of the mask.
        decoding: settings of the decoding that differ from the task's.
        min_score: mean probability that an instance needs, chosen with these settings; `propose` chooses it again.
        instance_f1: one-to-one at IoU 0.5, polarity with the sides the right way round.
        foreground_iou: of the mask.
        num_truth: objects that were there to be found.
    """

    threshold: float
    decoding: dict[str, Any]
    min_score: float
    instance_f1: float
    foreground_iou: float
    num_truth: int


def settings_to_try(task: Task) -> Iterator[tuple[float, dict[str, Any]]]:
    """(mask threshold, decoding settings) of components, and of watersheds with the channels that the task has."""
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
    """Try every setting on one box.

    What its faces cut is compared as it is cut, on both sides: a validation box holds few objects, and setting the cut
    ones aside, as the scores do, would leave next to none.

    Args:
        probability: (C, Z, Y, X) uint8.
        labels: (Z, Y, X) in the task's convention; ``ignore`` likewise, non-zero where nothing counts, or None.
        task: gives channels and the truth rule.
        min_voxels: smaller instances are dust.

    Returns:
        Best first: by instance F1, then foreground IoU, then the plainer setting; of settings with the same mask
        threshold and the same outcome one.

    Raises:
        InputError: the box holds no object.
    """
    hidden = None if ignore is None else (ignore > 0) & (labels == 0)
    if not (labels > 0).any():
        raise InputError("the validation box holds no object to tune on; make the project with another --val-box.")
    trials = []
    settings = list(settings_to_try(task))
    with progress.task("tune", total=len(settings)) as advance:
        for threshold, decoding in settings:
            tried = type(task)(task.voxel_size_nm, task.decoding.model_copy(update=decoding))
            segmentation = clean(tried.decode(probability, threshold), task, min_voxels)
            min_score = least_believed(segmentation, probability[task.foreground], labels, ignore, task)
            segmentation = without_doubtful(segmentation, probability[task.foreground], task, min_score)
            overlaps = Overlaps.of(segmentation, labels, ignore)
            judged = [j.kind for j in task.judge(overlaps).values() if j.kind is not AnswerKind.UNSURE]
            num_truth = len(task.instance_overlaps(overlaps).truth_sizes())
            hits = sum(kind is AnswerKind.TRUE for kind in judged)
            iou = foreground_iou(segmentation > 0, labels > 0, hidden)
            f1 = precision_recall_f1(hits, len(judged), num_truth)[2]
            trials.append(Trial(threshold, decoding, min_score, f1, iou, num_truth))
            advance(1)
    trials.sort(key=lambda t: (-t.instance_f1, -t.foreground_iou, t.decoding["method"] != "components"))
    distinct: dict[tuple[object, ...], Trial] = {}
    for trial in trials:  # settings that change nothing on this box say nothing: the plainest stands for them
        distinct.setdefault((trial.threshold, trial.decoding["method"], trial.instance_f1, trial.foreground_iou), trial)
    return list(distinct.values())
