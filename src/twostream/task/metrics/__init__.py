"""Scores, each computed from counts that add up over blocks.

Knows arrays and counts; must not know tasks, models or files. What each score means to a user is said in
``docs/scores.md``.

    overlaps     the sparse table of candidates against truth objects
    detection    one-to-one matches; precision, recall, F1, average precision; what was found at all
    voxels       foreground and background IoU
    partition    variation of information, adapted Rand error
    clefts       distances of the CREMI challenge
    intervals    how sure a share is
"""

from twostream.task.metrics.clefts import CleftDistances
from twostream.task.metrics.detection import (
    Detection,
    average_precision,
    candidate_recall,
    match_one_to_one,
    precision_recall_f1,
    roi_accuracy,
)
from twostream.task.metrics.intervals import wilson_interval
from twostream.task.metrics.overlaps import Overlaps
from twostream.task.metrics.partition import AdaptedRand, VariationOfInformation, adapted_rand, variation_of_information
from twostream.task.metrics.voxels import VoxelCounts, foreground_iou

__all__ = [
    "AdaptedRand",
    "CleftDistances",
    "Detection",
    "Overlaps",
    "VariationOfInformation",
    "VoxelCounts",
    "adapted_rand",
    "average_precision",
    "candidate_recall",
    "foreground_iou",
    "match_one_to_one",
    "precision_recall_f1",
    "roi_accuracy",
    "variation_of_information",
    "wilson_interval",
]
