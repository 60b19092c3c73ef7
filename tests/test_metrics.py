"""Scores against brute force."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twostream.metrics import (
    Overlaps,
    average_precision,
    foreground_iou,
    match_one_to_one,
    precision_recall_f1,
    wilson_interval,
)


def random_labels(seed, number=4):
    rng = np.random.default_rng(seed)
    return rng.integers(0, number, (3, 6, 7)).astype(np.uint32)


@given(st.integers(0, 50))
@settings(deadline=None)
def test_iou_equals_set_arithmetic(seed):
    a, b = random_labels(seed), random_labels(seed + 1000)
    for c, t, iou in zip(*Overlaps.of(a, b).iou(), strict=True):
        mine, theirs = a == c, b == t
        assert iou == pytest.approx((mine & theirs).sum() / (mine | theirs).sum())


@given(st.integers(0, 50), st.integers(1, 5))
@settings(deadline=None)
def test_tables_of_blocks_add_up_to_the_table_of_the_whole(seed, cut):
    a, b, ignore = random_labels(seed), random_labels(seed + 1), random_labels(seed + 2, 2)
    whole = Overlaps.of(a, b, ignore)
    merged = Overlaps.of(a[:, :cut], b[:, :cut], ignore[:, :cut]).merged(
        Overlaps.of(a[:, cut:], b[:, cut:], ignore[:, cut:])
    )
    for name in ("candidate", "truth", "count"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(merged, name))
    assert whole.ignored == merged.ignored


def test_ignored_voxels_leave_the_candidate():
    segmentation = np.ones((1, 1, 10), np.uint32)
    truth = np.zeros_like(segmentation)
    truth[..., :4] = 7
    ignore = np.zeros_like(segmentation)
    ignore[..., 2:8] = 1  # the truth object itself is never ignored
    table = Overlaps.of(segmentation, truth, ignore)
    assert table.candidate_sizes() == {1: 6} and table.ignored == {1: 4}
    assert table.iou()[2].tolist() == [4 / 6]


def test_matching_is_one_to_one_and_takes_the_best_first():
    segmentation = np.array([[[1, 1, 1, 1, 2, 2, 3]]])
    truth = np.array([[[5, 5, 5, 6, 6, 6, 6]]])
    assert match_one_to_one(Overlaps.of(segmentation, truth), 0.25) == {1: (5, 0.75), 2: (6, 0.5)}


def test_a_tie_goes_to_the_smaller_label():
    assert match_one_to_one(Overlaps.of(np.array([[[1, 2]]]), np.array([[[9, 9]]]))) == {1: (9, 0.5)}


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=8), st.integers(0, 3))
def test_average_precision_equals_its_definition(rows, missed):
    score = np.array([s for s, _ in rows], float)
    hit = np.array([h for _, h in rows])
    num_truth = int(hit.sum()) + missed
    if num_truth == 0:
        assert math.isnan(average_precision(score, hit, 0))
        return
    points = []
    for level in sorted(set(score.tolist()), reverse=True):
        kept = score >= level
        points.append((hit[kept].sum() / num_truth, hit[kept].mean()))
    area, previous = 0.0, 0.0
    for recall, _ in points:
        area += (recall - previous) * max(p for r, p in points if r >= recall)
        previous = recall
    assert average_precision(score, hit, num_truth) == pytest.approx(area)


def test_small_scores():
    assert precision_recall_f1(2, 4, 3) == (0.5, 2 / 3, 4 / 7)
    assert precision_recall_f1(0, 0, 3)[0] == 0.0
    assert average_precision(np.zeros(0), np.zeros(0, bool), 3) == 0.0
    a, b = np.array([1, 1, 0, 0]) > 0, np.array([1, 0, 1, 0]) > 0
    assert foreground_iou(a, b) == 1 / 3
    assert foreground_iou(a, b, np.array([0, 1, 0, 0])) == 1 / 2


def test_wilson_interval_against_the_textbook():
    low, high = wilson_interval(8, 10)
    assert (round(low, 3), round(high, 3)) == (0.490, 0.943)
    assert wilson_interval(0, 0) == (0.0, 1.0)
