"""Scores of the final segmentation that one S gives, on one box, with intervals over objects.

Knows probabilities, thresholds and the truth; must not know how S was trained or which S it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from twostream.base.geometry import Box
from twostream.candidates.candidate import clean, drop_low_scores
from twostream.candidates.truth import Truth
from twostream.rounds.score import Region, plain
from twostream.task.metrics import VoxelCounts, bootstrap_f1, hidden_voxels, wilson_interval


@dataclass(frozen=True)
class Cut:
    """How probability becomes the final segmentation.

    Attributes:
        final_threshold: foreground probability above which a voxel belongs to an instance.
        min_score: mean probability that an instance needs.
        min_voxels: instances of fewer voxels are dropped.
    """

    final_threshold: float
    min_score: float
    min_voxels: int


def score_box(level: np.ndarray, truth: Truth, box: Box, cut: Cut) -> dict[str, Any]:
    """Scores of the final segmentation in a box, as ``score`` computes those of a round on the test box.

    Args:
        level: (C, Z, Y, X) uint8 over ``box``, 255 = 1.
        truth: labels and ignore mask of the whole image.
        box: voxels of the image. Objects that its faces cut count neither as found nor as missed.
        cut: thresholds.

    Returns:
        "instance_f1", "instance_precision" and "instance_recall", each with "value" and "interval" (95 percent: F1 by
        bootstrap over objects, the other two by Wilson's, which has a width at 0 and at 1 too); "foreground_iou";
        "num_truth" and "num_objects", true and proposed objects that count. None where there is nothing to score.
    """
    task = truth.task
    labels = truth.labels.read(box)
    ignore = None if truth.ignore is None else truth.ignore.read(box)
    values = clean(task.decode(level, cut.final_threshold), task, cut.min_voxels)
    values = drop_low_scores(values, level[task.foreground], task, cut.min_score)
    found = Region.of(values, labels, ignore, task, box, truth.labels.box).detection()
    shares: dict[str, tuple[float, tuple[float, float] | None]] = {
        "f1": (found.f1, bootstrap_f1(found.num_hits, found.num_candidates, found.num_truth)),
        "precision": (found.precision, wilson_interval(found.num_hits, found.num_candidates)),
        "recall": (found.recall, wilson_interval(found.num_hits, found.num_truth)),
    }
    scores: dict[str, Any] = {
        f"instance_{name}": {"value": value, "interval": interval and [round(end, 6) for end in interval]}
        for name, (value, interval) in shares.items()
    }
    iou = VoxelCounts.of(values, labels, hidden_voxels(ignore, labels)).foreground_iou
    scores |= {"foreground_iou": iou, "num_truth": found.num_truth, "num_objects": found.num_candidates}
    rounded: dict[str, Any] = plain(scores)
    return rounded
