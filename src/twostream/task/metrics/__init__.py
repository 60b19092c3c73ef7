"""Scores of a segmentation against the truth.

All but ``intervals`` are computed from counts that add up over blocks, so that a volume larger than memory can be
scored. Knows arrays and counts; must not know tasks, models or files. ``docs/scores.md`` says what each score means to
a user.

    overlaps     table of the voxels that candidates and truth objects share
    detection    one-to-one matches; precision, recall, F1, average precision; candidate recall
    voxels       foreground and background IoU
    partition    variation of information, adapted Rand error
    clefts       distances between clefts, as in the CREMI challenge
    intervals    confidence intervals of a proportion, of a total and of F1
    checks       of the arrays that the others are given
"""

from twostream.task.metrics.clefts import CleftDistances
from twostream.task.metrics.detection import (
    FOUND_IOU,
    GOOD_IOU,
    Detection,
    average_precision,
    candidate_recall,
    found_objects,
    match_one_to_one,
    precision_recall_f1,
    roi_accuracy,
)
from twostream.task.metrics.intervals import bootstrap_f1, weighted_poisson_interval, wilson_interval
from twostream.task.metrics.overlaps import Overlaps, hidden_voxels
from twostream.task.metrics.partition import AdaptedRand, VariationOfInformation, adapted_rand, variation_of_information
from twostream.task.metrics.voxels import VoxelCounts, foreground_iou

__all__ = [
    "FOUND_IOU",
    "GOOD_IOU",
    "AdaptedRand",
    "CleftDistances",
    "Detection",
    "Overlaps",
    "VariationOfInformation",
    "VoxelCounts",
    "adapted_rand",
    "average_precision",
    "bootstrap_f1",
    "candidate_recall",
    "foreground_iou",
    "found_objects",
    "hidden_voxels",
    "match_one_to_one",
    "precision_recall_f1",
    "roi_accuracy",
    "variation_of_information",
    "weighted_poisson_interval",
    "wilson_interval",
]
