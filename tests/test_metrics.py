"""Metrics compared with plain loops over voxels and pairs, on small arrays."""

import math
from functools import reduce
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twostream.base.errors import InputError
from twostream.base.geometry import Box, grid, to_voxels
from twostream.task.metrics import (
    CleftDistances,
    Detection,
    Overlaps,
    VoxelCounts,
    adapted_rand,
    average_precision,
    candidate_recall,
    foreground_iou,
    match_one_to_one,
    precision_recall_f1,
    roi_accuracy,
    variation_of_information,
    wilson_interval,
)

seeds = st.integers(0, 10**6)
few = settings(deadline=None, max_examples=30)


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
def test_tables_of_blocks_merge_into_the_table_of_the_whole(seed, cut):
    a, b, ignore = random_labels(seed), random_labels(seed + 1), random_labels(seed + 2, 2)
    whole = Overlaps.of(a, b, ignore)
    merged = Overlaps.of(a[:, :cut], b[:, :cut], ignore[:, :cut]).merged(
        Overlaps.of(a[:, cut:], b[:, cut:], ignore[:, cut:])
    )
    for name in ("candidate", "truth", "count"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(merged, name))
    assert whole.ignored == merged.ignored


def test_the_ignore_mask_removes_candidate_voxels_but_no_truth_voxels():
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


def test_scores_of_examples_computed_by_hand():
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


def noisy_world(seed):
    """Truth, a segmentation that is a noisy copy of it with other labels, and an ignore mask; (2, 5, 9) each.

    The amount of noise differs between seeds, so that IoUs fall on both sides of every threshold.
    """
    rng = np.random.default_rng(seed)
    truth = np.repeat(rng.integers(0, 5, (2, 5, 3)), 3, axis=2)
    invented = np.repeat(rng.choice([0, 0, 12, 13, 14], (2, 5, 3)), 3, axis=2)
    segmentation = np.where(truth > 0, 11 - truth, invented)
    redrawn = rng.random(truth.shape) < rng.choice([0.0, 0.1, 0.3])
    segmentation[redrawn] = rng.integers(0, 12, redrawn.sum())
    ignore = np.repeat(rng.integers(0, 2, (2, 5, 3)), 3, axis=2) * rng.integers(0, 3)
    return truth, segmentation, ignore


def objects(array, hidden):
    """{label: set of its voxels that are not hidden}, by looking at every voxel."""
    found = {}
    for voxel in np.ndindex(array.shape):
        if array[voxel] and not hidden[voxel]:
            found.setdefault(int(array[voxel]), set()).add(voxel)
    return found


def brute_table(truth, segmentation, ignore):
    """IoU of every pair, labels of candidates that are mostly ignored, all candidate labels, all truth labels."""
    hidden = (ignore > 0) & (truth == 0)
    theirs, mine = objects(truth, np.zeros(truth.shape, bool)), objects(segmentation, hidden)
    iou = {(c, t): len(mine[c] & theirs[t]) / len(mine[c] | theirs[t]) for c in mine for t in theirs}
    everywhere = objects(segmentation, np.zeros(truth.shape, bool))
    mostly = {c for c, voxels in everywhere.items() if 2 * len(voxels - mine.get(c, set())) >= len(voxels)}
    return iou, mostly, set(everywhere), set(theirs)


def brute_hits(iou, min_iou):
    """Greedy matching by decreasing IoU, written without the table of overlaps."""
    hits, left = {}, dict(iou)
    while left:
        c, t = min(left, key=lambda pair: (-left[pair], pair))
        if left[c, t] < min_iou or left[c, t] == 0:
            break
        hits[c] = t
        left = {pair: value for pair, value in left.items() if pair[0] != c and pair[1] != t}
    return hits


@given(seeds, st.sampled_from([0.2, 0.5, 0.75]))
@few
def test_detection_equals_loops_over_sets_of_voxels(seed, min_iou):
    truth, segmentation, ignore = noisy_world(seed)
    iou, mostly, candidates, wanted = brute_table(truth, segmentation, ignore)
    hits = brute_hits(iou, min_iou)
    counted = {c for c in candidates if c in hits or c not in mostly}
    found = Detection.of(Overlaps.of(segmentation, truth, ignore), min_iou)
    assert found.truth_of == {c: hits.get(c, 0) for c in counted}
    assert (found.num_truth, found.num_hits, found.num_candidates) == (len(wanted), len(hits), len(counted))
    assert found.precision == (len(hits) / len(counted) if counted else 0.0)
    if wanted:
        assert found.recall == len(hits) / len(wanted)
        assert found.f1 == pytest.approx(
            len(hits) / (len(hits) + (len(counted - set(hits)) + len(wanted) - len(hits)) / 2)
        )
        score = {c: (7 * c) % 5 for c in candidates}  # with ties
        area = 0.0
        levels = sorted({score[c] for c in counted}, reverse=True)
        at = [[c for c in counted if score[c] >= level] for level in levels]
        hit = [sum(c in hits for c in kept) for kept in at]
        for i, number in enumerate(hit):
            step = (number - (hit[i - 1] if i else 0)) / len(wanted)
            area += step * max(hit[j] / len(at[j]) for j in range(i, len(at)))
        assert found.average_precision(score) == pytest.approx(area)
    else:
        assert math.isnan(found.recall) and math.isnan(found.average_precision(dict.fromkeys(candidates, 1.0)))


def test_noisy_worlds_have_hits_and_misses_at_each_threshold():
    hits = {min_iou: [0, 0] for min_iou in (0.2, 0.5, 0.75)}
    ignored = 0
    for seed in range(40):
        truth, segmentation, ignore = noisy_world(seed)
        ignored += len(brute_table(truth, segmentation, ignore)[1])
        for min_iou, tally in hits.items():
            found = Detection.of(Overlaps.of(segmentation, truth, ignore), min_iou)
            tally[0] += found.num_hits
            tally[1] += found.num_candidates - found.num_hits
    assert all(min(tally) > 10 for tally in hits.values()) and ignored > 10
    assert hits[0.2][0] > hits[0.5][0] > hits[0.75][0]


def test_a_match_that_fails_is_right_is_a_false_positive_and_a_missed_object():
    table = Overlaps.of(np.array([[[1, 1, 2, 2]]]), np.array([[[5, 5, 6, 6]]]))
    asked = []
    found = Detection.of(table, is_right=lambda c, t: asked.append((c, t)) or c == 2)
    assert found.truth_of == {1: 0, 2: 6} and sorted(asked) == [(1, 5), (2, 6)]
    assert (found.precision, found.recall, found.f1) == (0.5, 0.5, 0.5)
    assert found.average_precision({1: 0.9, 2: 0.8}) == 0.25


@given(seeds, st.sampled_from([0.2, 0.5]))
@few
def test_roi_accuracy_and_candidate_recall_equal_loops_over_pairs(seed, min_iou):
    truth, segmentation, ignore = noisy_world(seed)
    iou, mostly, candidates, wanted = brute_table(truth, segmentation, ignore)
    right = {c for c in candidates if any(iou.get((c, t), 0) > min_iou for t in wanted)}
    counted = {c for c in candidates if c in right or c not in mostly}
    table = Overlaps.of(segmentation, truth, ignore)
    assert roi_accuracy(table, min_iou) == (len(right) / len(counted) if counted else 0.0)
    chosen = {c for c in candidates if c % 2}
    assert roi_accuracy(table, min_iou, candidates=chosen) == (len(right & chosen) / len(chosen) if chosen else 0.0)
    reached = {t for t in wanted if any(iou.get((c, t), 0) > min_iou for c in candidates)}
    if wanted:
        assert candidate_recall(table, min_iou) == len(reached) / len(wanted)
    else:
        assert math.isnan(candidate_recall(table, min_iou))
    some = {t for t in wanted if t > 2}
    if some:
        assert candidate_recall(table, min_iou, truth=some) == len(reached & some) / len(some)


def test_a_mostly_ignored_candidate_counts_only_if_it_is_a_hit():
    truth, ignore = np.zeros((2, 1, 1, 24), np.uint32)
    truth[..., :4], ignore[..., 4:20] = 9, 1
    segmentation = np.repeat([1, 2, 3, 4], [10, 6, 4, 4])[None, None]  # 4 of 10 true; ignored: 6 of 10, all, all, none
    table = Overlaps.of(segmentation, truth, ignore)
    assert Detection.of(table).truth_of == {1: 9, 4: 0} and roi_accuracy(table) == 0.5
    assert Detection.of(table, is_right=lambda c, t: False).truth_of == {4: 0}
    assert Detection.of(table, is_right=lambda c, t: False, ignored_share=0.61).truth_of == {1: 0, 4: 0}


def test_roi_accuracy_and_recall_need_more_than_the_threshold_and_allow_several_candidates():
    truth = np.array([[[9, 9, 9, 9, 9]]])
    segmentation = np.array([[[1, 2, 2, 3, 3]]])  # IoU 1/5, 2/5, 2/5
    table = Overlaps.of(segmentation, truth)
    assert roi_accuracy(table, 0.2) == 2 / 3 and candidate_recall(table, 0.4) == 0.0 < candidate_recall(table, 0.39)
    assert roi_accuracy(table, 0.2, candidates=[]) == 0.0


@given(seeds)
@few
def test_voxel_counts_equal_a_loop_and_add_up_over_blocks(seed):
    truth, segmentation, ignore = noisy_world(seed)
    tally = dict.fromkeys(product((False, True), repeat=2), 0)
    for voxel in np.ndindex(truth.shape):
        if not ignore[voxel]:
            tally[bool(segmentation[voxel]), bool(truth[voxel])] += 1
    whole = VoxelCounts.of(segmentation, truth, ignore)
    assert whole == VoxelCounts(tally[True, True], tally[True, False], tally[False, True], tally[False, False])
    blocks = grid(Box.whole(truth.shape), (1, 2, 4))
    parts = [VoxelCounts.of(segmentation[s], truth[s], ignore[s]) for s in (b.write_box.slices for b in blocks)]
    assert reduce(VoxelCounts.merged, parts) == whole and len(parts) > 10
    shares = []
    for kind in (False, True):
        either = sum(n for pair, n in tally.items() if kind in pair)
        shares.append(tally[kind, kind] / either if either else None)
    known = [share for share in shares if share is not None]
    assert whole.foreground_iou == pytest.approx(shares[1] if shares[1] is not None else math.nan, nan_ok=True)
    assert whole.mean_iou == pytest.approx(sum(known) / len(known) if known else math.nan, nan_ok=True)
    assert foreground_iou(segmentation > 0, truth > 0, ignore) == pytest.approx(whole.foreground_iou, nan_ok=True)


def test_mean_iou_leaves_out_a_class_that_is_in_neither_mask():
    assert VoxelCounts(tp=3, fp=1, fn=0, tn=4).mean_iou == (3 / 4 + 4 / 5) / 2
    assert VoxelCounts(tn=5).mean_iou == 1.0 and math.isnan(VoxelCounts(tn=5).foreground_iou)
    assert VoxelCounts(fp=5).mean_iou == 0.0  # all voxels are background in the truth
    assert math.isnan(VoxelCounts().mean_iou)


@given(seeds)
@few
def test_partition_scores_equal_loops_over_voxels_and_pairs(seed):
    truth, segmentation, ignore = noisy_world(seed)
    voxels = [(int(s), int(t)) for s, t in zip(segmentation.ravel(), truth.ravel(), strict=True) if t]
    table = Overlaps.of(segmentation, truth, ignore)
    split, merge = variation_of_information(table)
    error, precision, recall = adapted_rand(table)
    if not voxels:
        assert all(math.isnan(v) for v in (split, merge, error, precision, recall))
        return
    bits_split = bits_merge = 0.0
    for s, t in voxels:
        both = sum(a == s and b == t for a, b in voxels)
        bits_split -= math.log2(both / sum(b == t for _, b in voxels)) / len(voxels)
        bits_merge -= math.log2(both / sum(a == s for a, _ in voxels)) / len(voxels)
    assert (split, merge) == pytest.approx((bits_split, bits_merge), abs=1e-12)
    joined = objects_joined = both_joined = 0
    for (i, (s, t)), (j, (a, b)) in product(enumerate(voxels), repeat=2):
        one_segment = i == j or (s == a and s > 0)
        joined += one_segment
        objects_joined += t == b
        both_joined += one_segment and t == b
    p, r = both_joined / joined, both_joined / objects_joined
    assert (error, precision, recall) == pytest.approx((1 - 2 * p * r / (p + r), p, r))
    # Merged over blocks; and with other segments outside the truth objects, which do not count.
    blocks = [b.write_box.slices for b in grid(Box.whole(truth.shape), (1, 3, 4))]
    merged = reduce(Overlaps.merged, [Overlaps.of(segmentation[s], truth[s], ignore[s]) for s in blocks])
    assert variation_of_information(merged) == (split, merge) and adapted_rand(merged) == (error, precision, recall)
    noise = np.where(truth > 0, segmentation, np.arange(truth.size).reshape(truth.shape))
    assert adapted_rand(Overlaps.of(noise, truth)) == pytest.approx((error, precision, recall))


def test_partition_scores_of_perfect_split_merged_and_empty_segmentations():
    truth = np.repeat([1, 2], 4)[None, None]
    halved, joined, nothing = np.repeat([1, 2, 3, 4], 2)[None, None], np.ones_like(truth), np.zeros_like(truth)
    assert variation_of_information(Overlaps.of(truth + 5, truth)) == (0.0, 0.0)
    assert variation_of_information(Overlaps.of(halved, truth)) == (1.0, 0.0)
    assert variation_of_information(Overlaps.of(joined, truth)) == (0.0, 1.0)
    assert variation_of_information(Overlaps.of(nothing, truth)) == (0.0, 1.0)  # segment 0 is one segment
    assert adapted_rand(Overlaps.of(truth + 5, truth)).error == 0.0
    assert adapted_rand(Overlaps.of(halved, truth))[1:] == (1.0, 0.5)
    assert adapted_rand(Overlaps.of(joined, truth))[1:] == (0.5, 1.0)
    assert adapted_rand(Overlaps.of(nothing, truth))[1:] == (1.0, 0.25)  # each voxel is its own segment
    sign = math.copysign(1.0, variation_of_information(Overlaps.of(truth, truth)).split)
    assert sign == 1.0


def test_partition_scores_do_not_overflow_with_large_counts():
    label = np.array([1, 2], np.uint64)
    table = Overlaps(label, np.array([1, 1], np.uint64), np.array([2**40, 2**40]), {})
    assert adapted_rand(table) == (pytest.approx(1 / 3), 1.0, 0.5)


SIZE_NM = (30.0, 8.0, 5.0)


def cleft_world(seed, shape=(4, 6, 8)):
    """Sparse predicted and true cleft voxels (sometimes none) and an ignore mask."""
    rng = np.random.default_rng(seed)
    predicted, truth = (rng.random(shape) < rng.choice([0.0, 0.01, 0.1]) for _ in range(2))
    return predicted, truth, rng.random(shape) < rng.choice([0.0, 0.4])


def brute_distances(source, target):
    """Distance in nm from every source voxel to the nearest target voxel, infinite without one."""
    places = [np.argwhere(mask) * SIZE_NM for mask in (source, target)]
    distances = [min((math.dist(a, b) for b in places[1]), default=math.inf) for a in places[0]]
    return distances


@given(seeds, st.sampled_from([40.0, 60.0, 1000.0]), st.sampled_from([20.0, 30.0, 40.0]))
@few
def test_cleft_distances_equal_loops_over_pairs_of_voxels(seed, clip, beyond):
    predicted, truth, ignore = cleft_world(seed)
    found = CleftDistances.of(
        predicted, truth.astype(np.uint64) * 7, SIZE_NM, ignore=ignore, max_distance_nm=clip, beyond_nm=beyond
    )
    p, t = predicted & ~ignore, truth & ~ignore
    false_positive, false_negative = brute_distances(p, t), brute_distances(t, p)
    assert (found.num_predicted, found.num_truth) == (len(false_positive), len(false_negative))
    assert found.num_false_positive == sum(d > beyond for d in false_positive)
    assert found.num_false_negative == sum(d > beyond for d in false_negative)
    empty = clip if p.any() or t.any() else 0.0
    adgt = np.mean(np.minimum(false_positive, clip)) if false_positive else empty
    adf = np.mean(np.minimum(false_negative, clip)) if false_negative else empty
    assert found.false_positive_nm == pytest.approx(adgt, abs=6e-4)
    assert found.false_negative_nm == pytest.approx(adf, abs=6e-4)
    assert found.cremi_score_nm == pytest.approx((adgt + adf) / 2, abs=6e-4)


@given(seeds, st.tuples(*[st.integers(1, 5)] * 3), st.sampled_from([10.0, 30.0, 47.0]))
@settings(deadline=None, max_examples=60)
def test_cleft_distances_of_blocks_equal_those_of_the_whole_exactly(seed, block_shape, clip):
    predicted, truth, ignore = cleft_world(seed)
    box = Box.whole(truth.shape)
    options = {"max_distance_nm": clip, "beyond_nm": clip / 2}
    parts = []
    for block in grid(box, block_shape, to_voxels(clip, SIZE_NM)):
        read = block.read_box.intersection(box)
        s, measured = read.slices, block.write_box.relative_to(read)
        parts.append(CleftDistances.of(predicted[s], truth[s], SIZE_NM, ignore=ignore[s], measured=measured, **options))
    order = np.random.default_rng(seed).permutation(len(parts))
    merged = reduce(CleftDistances.merged, [parts[i] for i in order])
    assert merged == CleftDistances.of(predicted, truth, SIZE_NM, ignore=ignore, **options)


def test_a_block_read_without_context_gives_another_distance():
    """Shows that the test above would notice missing context."""
    predicted, truth = np.zeros((2, 1, 1, 8), bool)
    predicted[..., 3], truth[..., 4] = True, True
    alone = CleftDistances.of(predicted[..., :4], truth[..., :4], SIZE_NM)
    assert alone.false_positive_nm == 1000.0
    assert CleftDistances.of(predicted, truth, SIZE_NM).false_positive_nm == 5.0


def test_distances_are_rounded_to_whole_picometres():
    predicted, truth = np.zeros((2, 1, 2, 2), bool)
    predicted[0, 0, 0] = truth[0, 1, 1] = True
    assert CleftDistances.of(predicted, truth, SIZE_NM).predicted_pm == 9434  # the root of 8^2 + 5^2 is 9.43398


def test_one_empty_mask_gives_the_clip_and_two_empty_masks_give_zero():
    nothing, something = np.zeros((1, 2, 3), bool), np.ones((1, 2, 3), bool)
    missed = CleftDistances.of(nothing, something, SIZE_NM, max_distance_nm=300.0)
    assert (missed.false_positive_nm, missed.false_negative_nm, missed.cremi_score_nm) == (300.0, 300.0, 300.0)
    assert (missed.num_false_positive, missed.num_false_negative) == (0, 6)
    invented = CleftDistances.of(something, nothing, SIZE_NM, max_distance_nm=300.0)
    assert invented.cremi_score_nm == 300.0 and invented.num_false_positive == 6
    hidden = CleftDistances.of(something, nothing, SIZE_NM, ignore=something)
    assert hidden.cremi_score_nm == CleftDistances.of(nothing, nothing, SIZE_NM).cremi_score_nm == 0.0


def test_a_cleft_voxel_is_false_if_it_is_more_than_200_nm_away():
    predicted, truth = np.zeros((2, 1, 1, 60), bool)
    predicted[..., 0], truth[..., [40, 41]] = True, True  # 200 and 205 nm
    found = CleftDistances.of(predicted, truth, SIZE_NM)
    assert (found.num_false_positive, found.num_false_negative) == (0, 1)
    assert (found.false_positive_nm, found.false_negative_nm) == (200.0, 202.5)


def test_arguments_that_do_not_fit_are_errors():
    mask = np.zeros((2, 3, 4), bool)
    with pytest.raises(InputError, match=r"truth has shape \(2, 3, 1\), but predicted has \(2, 3, 4\).*same box"):
        CleftDistances.of(mask, mask[..., :1], SIZE_NM)
    with pytest.raises(InputError, match="segmentation"):
        Overlaps.of(mask, mask, mask[:1])
    with pytest.raises(InputError, match="ignore has shape"):
        VoxelCounts.of(mask, mask, mask[:1])
    with pytest.raises(InputError, match="three positive sizes in nm: Z, Y, X"):
        CleftDistances.of(mask, mask, (30.0, 0.0, 5.0))
    with pytest.raises(InputError, match="three axes"):
        CleftDistances.of(mask[0], mask[0], (8.0, 5.0), measured=Box((0, 0, 0), (1, 1, 1)))
    with pytest.raises(InputError, match="relative_to"):
        CleftDistances.of(mask, mask, SIZE_NM, measured=Box((0, 0, 2), (2, 3, 4)))
    for clip in (100.0, math.inf, math.nan):
        with pytest.raises(InputError, match=r"max_distance_nm is .*diagonal"):
            CleftDistances.of(mask, mask, SIZE_NM, max_distance_nm=clip)
    with pytest.raises(InputError, match="expected the same in all"):
        CleftDistances.of(mask, mask, SIZE_NM).merged(CleftDistances.of(mask, mask, SIZE_NM, max_distance_nm=300.0))


def test_arrays_that_are_no_labels_are_errors():
    good = np.zeros((1, 2, 2), np.uint8)
    for bad, wrong in (
        (np.full((1, 2, 2), np.nan), "is float64; expected integer"),
        (good.astype(int) - 1, "label -1"),
    ):
        with pytest.raises(InputError, match=wrong):
            Overlaps.of(bad, good)
        with pytest.raises(InputError, match=wrong):
            Overlaps.of(good, bad)


def test_average_precision_refuses_nan_scores_and_too_many_hits():
    with pytest.raises(InputError, match="NaN in row 1"):
        average_precision(np.array([0.5, np.nan]), np.array([True, False]), 2)
    with pytest.raises(InputError, match="2 candidates are true, but there are 1 truth objects"):
        average_precision(np.array([0.5, 0.4]), np.array([True, True]), 1)
