"""Scores of a test box, the truth rule of single candidates, the simulated annotator, and the choice of thresholds."""

import math

import cc3d
import numpy as np
import pytest
from scipy import ndimage

from twostream.base.geometry import Box
from twostream.candidates.candidate import Candidate, clean, extract
from twostream.candidates.patches import PatchPair
from twostream.candidates.thresholds import (
    Beliefs,
    CandidateConfig,
    LabelledBox,
    choose_thresholds,
    final_threshold,
    min_score_by_beliefs,
    min_score_by_labels,
)
from twostream.candidates.truth import Truth
from twostream.models.segmentation.lessons import ERASED
from twostream.project.ledger import Ledger
from twostream.project.records import Answer, Query
from twostream.rounds.annotator import SimulatedAnnotator
from twostream.rounds.score import Region, curated_accuracy, plain, scores_on_test_box
from twostream.rounds.teaching import collect
from twostream.task import Mitochondria, SynapsePolarity, SynapticCleft
from twostream.task.answers import AnswerKind
from twostream.task.metrics import Overlaps, foreground_iou
from twostream.volume import MemoryVolume

SIZE = (30.0, 8.0, 8.0)


def volume(array):
    return MemoryVolume(np.asarray(array), SIZE)


def bars(*spans, width=40):
    """A (1, 4, width) label array with one label per (start, stop) along X."""
    array = np.zeros((1, 4, width), np.uint32)
    for label, (start, stop) in enumerate(spans, start=1):
        array[:, 1:3, start:stop] = label
    return array


def scores(segmentation, truth, box, ignore=None, level=200, task=None):
    task = task or Mitochondria(SIZE)
    probability = np.where(segmentation > 0, level, 0).astype(np.uint8)
    candidates = extract(segmentation, probability, task, (0, 0, 0))
    judge = Truth(volume(truth), None if ignore is None else volume(ignore), task)
    return scores_on_test_box(
        volume(segmentation), volume(probability[None]), judge, {c.label: c.score for c in candidates}, box,
        threshold=0.5, min_voxels=1,
    )  # fmt: skip


BOX = Box((0, 0, 10), (1, 4, 30))  # the left face is inside the volume, the right one is the volume's face


def test_a_perfect_segmentation_scores_one():
    truth = bars((12, 16), (20, 26), (36, 40))
    result = scores(truth, truth, BOX)
    assert result.pop("num_test_truth") == result.pop("num_test_candidates") == 3  # objects at the volume's face count
    assert all(value == 1.0 for value in result.values()), result


def test_objects_cut_by_the_border_do_not_count():
    truth = bars((6, 14), (20, 26))
    result = scores(truth, truth, BOX)
    assert result["num_test_truth"] == result["num_test_candidates"] == 1
    assert result["candidate_recall"] == result["candidate_accuracy"] == result["average_precision"] == 1.0
    nothing = scores(bars((6, 14)), bars((20, 26)), BOX)
    assert nothing["num_test_candidates"] == 0 and nothing["candidate_recall"] == 0.0
    # A candidate that is not cut itself, but lies on a cut object, does not count either.
    aside = scores(bars((10, 13), (20, 26)), bars((6, 13), (20, 26)), Box((0, 0, 9), (1, 4, 31)))
    assert aside["num_test_candidates"] == 1


def test_false_candidates_and_missed_objects_lower_the_scores():
    result = scores(bars((12, 16), (30, 34)), bars((12, 16), (20, 26)), BOX)
    assert result["candidate_recall"] == 0.5 and result["candidate_accuracy"] == 0.5 and result["instance_f1"] == 0.5
    assert result["foreground_iou"] == 8 / 28


def test_proposing_nothing_scores_zero():
    result = scores(bars(), bars((12, 16)), BOX)
    assert result["candidate_recall"] == result["candidate_accuracy"] == result["average_precision"] == 0.0
    assert result["instance_f1"] == 0.0 and result["foreground_iou"] == 0.0


def test_candidates_in_the_ignore_mask_do_not_count():
    ignore = (bars((30, 34)) > 0).astype(np.uint8)
    result = scores(bars((12, 16), (30, 34)), bars((12, 16)), BOX, ignore)
    assert result["num_test_candidates"] == 1 and result["candidate_accuracy"] == result["foreground_iou"] == 1.0


def test_recall_without_truth_objects_is_null():
    result = scores(bars((12, 16)), bars(), BOX)
    assert math.isnan(result["candidate_recall"]) and math.isnan(result["average_precision"])
    assert plain(result)["candidate_recall"] is None


def test_a_match_with_an_iou_of_0_6_is_a_hit_at_0_5_but_not_at_0_75():
    result = scores(bars((12, 15), (20, 26)), bars((12, 17), (20, 26)), BOX)  # IoU 0.6 and 1
    assert result["instance_f1"] == result["instance_precision"] == result["instance_recall"] == 1.0
    assert result["instance_f1_75"] == 0.5 and result["average_precision"] == 1.0
    assert result["average_precision_75"] == 0.25  # equal scores are one point: recall 1/2 at precision 1/2
    mixed = scores(bars((12, 16), (30, 34)), bars((12, 16), (20, 26), (35, 38)), BOX)
    assert (mixed["instance_precision"], mixed["instance_recall"]) == (0.5, 1 / 3)
    # Of 120 voxels 8 are foreground in both, 8 in the prediction only, 18 in the truth only, 86 in neither.
    assert mixed["mean_iou"] == pytest.approx((8 / 34 + 86 / 112) / 2)


def test_clefts_have_distance_scores_as_well():
    assert "cremi_score_nm" not in scores(bars((12, 16)), bars((12, 16)), BOX)
    result = scores(bars((14, 18)), bars((12, 16)), BOX, task=SynapticCleft(SIZE))
    assert result["cleft_distance_false_positive_nm"] == (0 + 0 + 8 + 16) / 4
    assert result["cleft_distance_false_negative_nm"] == (16 + 8 + 0 + 0) / 4
    assert result["cremi_score_nm"] == 6.0
    ignore = (bars((16, 18)) > 0).astype(np.uint8)  # predicted voxels in the ignore mask cost nothing
    assert scores(bars((14, 18)), bars((12, 16)), BOX, ignore, task=SynapticCleft(SIZE))["cremi_score_nm"] == 3.0
    assert scores(bars(), bars((12, 16)), BOX, task=SynapticCleft(SIZE))["cremi_score_nm"] == 1000.0


def region(values, labels, task, box=BOX, ignore=None):
    whole = Box.whole(labels.shape)
    hidden = None if ignore is None else ignore[box.slices]
    return Region.of(values[box.slices], labels[box.slices], hidden, task, box, whole)


def test_the_border_rule_holds_at_any_threshold():
    truth = bars((8, 20), (24, 34))  # the first is cut; 10 voxels long in the box
    segmentation = bars((10, 16), (24, 31))  # IoU 0.6 with the cut one, 0.7 with the other
    for min_iou, hits in ((0.2, 1), (0.5, 1), (0.65, 1), (0.75, 0), (1.0, 0)):
        found = region(segmentation, truth, Mitochondria(SIZE)).detection(min_iou)
        assert (found.num_hits, found.num_candidates, found.num_truth) == (hits, 1, 1)
    # A fragment of a cut object does not count, although it is too small to be matched and is not cut itself.
    fragment = bars((12, 15), (24, 28)), bars((6, 22), (24, 34))
    assert region(*fragment, Mitochondria(SIZE)).detection().truth_of == {2: 0}
    # A cut candidate counts if it is matched at 0.5. At 0.75 it still counts, as a miss.
    reaching = bars((6, 16)), bars((11, 15))
    assert [region(*reaching, Mitochondria(SIZE)).detection(t).truth_of for t in (0.5, 0.75)] == [
        {1: 1},
        {1: 0},
    ]
    # Below 0.5 the lower threshold decides: this one is matched at 0.3, but not at 0.5.
    reaching = bars((6, 22)), bars((11, 16))
    assert [region(*reaching, Mitochondria(SIZE)).detection(t).truth_of for t in (0.3, 0.5)] == [{1: 1}, {}]


def test_a_synapse_with_exchanged_sides_is_no_hit_at_any_threshold():
    labels = np.zeros((1, 4, 40), np.uint32)
    labels[:, 1:3, 12:15], labels[:, 1:3, 15:18] = 1, 2
    labels[:, 1:3, 22:25], labels[:, 1:3, 25:28] = 3, 4
    turned = labels.copy()
    turned[labels == 1], turned[labels == 2] = 2, 1
    for min_iou in (0.2, 0.5, 0.75):
        found = region(turned, labels, SynapsePolarity(SIZE)).detection(min_iou)
        assert found.truth_of == {1: 0, 2: 2} and found.f1 == 0.5
        assert region(labels, labels, SynapsePolarity(SIZE)).detection(min_iou).f1 == 1.0


def brute_sides(values, labels, label, truth):
    """Voxels that a candidate shares with equal sides of a truth synapse, minus those shared with opposite sides."""
    difference = 0
    for c, t in zip(values.ravel().tolist(), labels.ravel().tolist(), strict=True):
        if c and t and (c + 1) // 2 == label and (t + 1) // 2 == truth:
            difference += 1 if c % 2 == t % 2 else -1
    return difference


@pytest.mark.parametrize("min_iou", [0.5, 0.75])
def test_polarity_f1_equals_a_loop_over_pairs_of_synapses(min_iou):
    task, tally = SynapsePolarity(SIZE), [0, 0, 0]
    for seed in range(8):
        labels, values, _ = random_world(seed, task)
        right = wrong = 0
        theirs, mine = task.instances(labels), task.instances(values)
        for c in set(np.unique(mine).tolist()) - {0}:
            for t in set(np.unique(theirs[mine == c]).tolist()) - {0}:
                # At 0.5 and above a label can be in two such pairs only if both IoUs are exactly 0.5.
                if foreground_iou(mine == c, theirs == t) >= min_iou:
                    turned = brute_sides(values, labels, c, t) <= 0
                    right, wrong = right + (not turned), wrong + turned
        found = region(values, labels, task, Box.whole(labels.shape)).detection(min_iou)
        total = len(np.unique(mine)) + len(np.unique(theirs)) - 2
        assert found.num_hits == right and found.f1 == pytest.approx(2 * right / total)
        tally = [tally[0] + right, tally[1] + wrong, tally[2] + total]
    assert min(tally) > 3


def random_world(seed, task):
    """Random truth and a segmentation that is a noisy version of it, in the task's label convention."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=(6, 40, 40)), (0.7, 2, 2))
    other = field + 0.35 * field.std() * ndimage.gaussian_filter(rng.normal(size=field.shape), (0.7, 2, 2)) / 0.1
    labels = []
    for array in (field, other):
        instance = cc3d.connected_components(array > 0.8 * field.std(), connectivity=26, out_dtype=np.uint32)
        if task.num_sides == 2:
            side = (ndimage.gaussian_filter(rng.normal(size=field.shape), 3) > 0).astype(np.uint32)
            instance = np.where(instance > 0, 2 * instance - side, 0).astype(np.uint32)
        labels.append(clean(instance, task, 3))
    ignore = (ndimage.gaussian_filter(rng.normal(size=field.shape), 2) > 0.08).astype(np.uint8)
    return labels[0], labels[1], ignore


@pytest.mark.parametrize("task", [Mitochondria(SIZE), SynapsePolarity(SIZE)], ids=lambda t: t.name)
@pytest.mark.parametrize("with_ignore", [False, True])
def test_judging_one_candidate_equals_judging_all_of_a_segmentation(task, with_ignore):
    seen = set()
    for seed in range(12):
        truth, segmentation, ignore = random_world(seed, task)
        hidden = ignore if with_ignore else None
        judge = Truth(volume(truth), volume(ignore) if with_ignore else None, task)
        whole = task.judge(Overlaps.of(segmentation, truth, hidden))
        for candidate in extract(segmentation, np.full(truth.shape, 9, np.uint8), task, (0, 0, 0)):
            assert judge.judge(candidate).kind is whole[candidate.label].kind
            seen.add(whole[candidate.label].kind)
    assert {AnswerKind.TRUE, AnswerKind.SHAPE, AnswerKind.NOTHING} <= seen


def test_the_simulated_annotator_errs_at_its_rate_and_is_reproducible():
    truth = bars((12, 16))
    judge = Truth(volume(truth), None, Mitochondria(SIZE))
    mask = np.ones((1, 2, 4), np.uint8)
    candidates = [Candidate(i, 1, Box((0, 1, 12), mask.shape), mask, 0.5) for i in range(1, 401)]
    annotator = SimulatedAnnotator(judge, error_rate=0.1, seed=3)
    said = [annotator.kind(c) for c in candidates]
    assert 20 < said.count(AnswerKind.NOTHING) < 65
    assert said == [SimulatedAnnotator(judge, error_rate=0.1, seed=3).kind(c) for c in candidates]


@pytest.mark.parametrize("task", [Mitochondria(SIZE), SynapsePolarity(SIZE)], ids=lambda t: t.name)
def test_a_drawing_is_every_truth_object_that_holds_a_tenth_of_the_candidate(task):
    num_checked = 0
    for seed in range(12):
        truth, segmentation, ignore = random_world(seed, task)
        judge = Truth(volume(truth), volume(ignore), task)
        instances = task.instances(truth)
        for candidate in extract(segmentation, np.full(truth.shape, 9, np.uint8), task, (0, 0, 0)):
            if judge.judge(candidate).kind is not AnswerKind.SHAPE:
                continue
            inside = instances[candidate.box.slices][candidate.mask > 0]
            shares = {n: (inside == n).sum() / candidate.num_voxels for n in np.unique(inside[inside > 0])}
            wanted = [n for n, share in shares.items() if share >= min(0.1, max(shares.values()))]
            expected = np.where(np.isin(instances, wanted), 1 if task.num_sides == 1 else 2 - truth % 2, 0)
            other = (truth[candidate.box.slices] > 0) & ~np.isin(instances[candidate.box.slices], wanted)
            unknown = other | (ignore[candidate.box.slices] > 0) & (truth[candidate.box.slices] == 0)
            stays = expected[candidate.box.slices]  # unchanged where it is not certainly background
            stays[unknown] = candidate.mask[unknown]
            box, mask = judge.drawing(candidate)
            drawn = np.zeros(truth.shape, np.uint8)
            drawn[box.slices] = mask
            np.testing.assert_array_equal(drawn, expected)
            num_checked += 1
    assert num_checked > 20


def test_a_correcting_annotator_draws_badly_shaped_candidates(tmp_path):
    truth = Truth(volume(bars((10, 20))), None, Mitochondria(SIZE))
    patch = PatchPair(np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.int8), 0.0, 0, 0.0)
    spans = ((10, 20), (8, 13), (30, 34))  # true, shape, nothing
    masks = [np.ones((1, 2, b - a), np.uint8) for a, b in spans]
    ledger = Ledger(tmp_path / "ledger.sqlite", create=True)
    ledger.register(0, range(1, 4))
    candidates = [
        Candidate(i, 1, Box((0, 1, a), m.shape), m, 0.5)
        for i, ((a, _), m) in enumerate(zip(spans, masks, strict=True), 1)
    ]
    ledger.ask(0, [Query(c, patch, "random") for c in candidates])
    SimulatedAnnotator(truth, corrects=True, seconds_per_correction=31.0).answer_all(ledger)
    said = ledger.current_answers()
    assert [(a.kind.value, a.seconds) for a in said] == [("true", 4.0), ("corrected", 31.0), ("nothing", 4.0)]
    assert said[1].drawing is not None and np.count_nonzero(said[1].drawing[1]) == 20
    lesson = collect(ledger, before_round=1).lessons[1]
    assert lesson.box.offset_zyx[2] == 8 and np.unique(lesson.mask).tolist() == [1, ERASED]


def test_curated_accuracy_takes_answers_before_the_scorer():
    truth = Truth(volume(bars((12, 16))), None, Mitochondria(SIZE))
    mask = np.ones((1, 2, 4), np.uint8)
    good, bad = (Candidate(i, 1, Box((0, 1, x), mask.shape), mask, 0.5) for i, x in ((1, 12), (2, 30)))
    wrong = np.array([0.1, 0.9])
    assert curated_accuracy(wrong, np.array([math.nan, math.nan]), truth, [good, bad]) == 0.0
    assert curated_accuracy(wrong, np.array([1.0, math.nan]), truth, [good, bad]) == 0.5
    assert curated_accuracy(1 - wrong, np.array([math.nan, math.nan]), truth, [good, bad]) == 1.0


def test_the_final_threshold_has_the_best_foreground_iou():
    labels = bars((10, 20))
    probability = np.where(labels > 0, 180, 90).astype(np.uint8)[None]
    assert 90 / 255 <= final_threshold(probability, labels, None, Mitochondria(SIZE)) < 180 / 255


def brute_min_score(score, true, now):
    """The lowest old score that is nearly best in expected F1, and the new one that loses as much of what is true."""
    rows = list(zip(score, true, now, strict=True))
    still_there = sorted((n, p) for _, p, n in rows if n > 0)
    f1, new = {}, {}
    for cut in {s for s, _, _ in rows}:
        kept = [p for s, p, _ in rows if s >= cut]
        lost, kept_out = sum(p for s, p, _ in rows if s < cut) / sum(true), 0.0
        if lost > 0.1:
            continue
        f1[cut] = 2 * sum(kept) / (len(kept) + sum(true))
        new[cut] = 0.0 if cut == min(score) else max(now)
        for n, p in still_there if cut > min(score) else []:
            kept_out += p / sum(p for _, p in still_there)
            if kept_out > lost + 1e-9:
                new[cut] = n
                break
    return new[min(c for c, value in f1.items() if value >= max(f1.values()) - 0.02)]


def test_min_score_by_beliefs_equals_a_search_over_all_cuts():
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(50):
        true = rng.choice([0.0, 1.0, 0.25, 0.75], 30, p=[0.3, 0.3, 0.2, 0.2])
        apart = rng.choice([0.0, 0.4])
        score = np.clip(0.5 + apart * (true - 0.5) + rng.normal(0, 0.1, 30), 0, 1).round(rng.choice([2, 9]))  # ties
        now = np.clip(np.sqrt(score) + rng.normal(0, 0.02, 30), 0, 1)  # another S, with much the same ranking
        now[rng.random(30) < rng.choice([0.0, 0.2])] = 0.0  # which finds nothing in some places
        found = min_score_by_beliefs(score, true, now)
        assert found == pytest.approx(brute_min_score(score, true, now))
        seen.add(found > 0)
    assert seen == {True, False}


def test_min_score_rises_with_the_scores_of_a_more_confident_s():
    true = np.array([1.0] * 10 + [0.0] * 10)
    score = np.r_[np.linspace(0.7, 0.88, 10), np.linspace(0.4, 0.69, 10)]
    found = [min_score_by_beliefs(score, true, now) for now in (score, score + 0.1)]
    assert found[0] == pytest.approx(0.7, abs=0.01) and found[1] == pytest.approx(found[0] + 0.1)


def test_min_score_is_the_lowest_of_equally_good_cuts():
    """Ten wrong candidates with one score: every cut between them and the true ones is equally good."""
    true = np.array([1.0] * 200 + [0.0] * 10)
    score = np.r_[np.linspace(0.8, 0.9, 200), np.full(10, 0.4)]
    assert min_score_by_beliefs(score, true, score) == 0.8


def test_min_score_rejects_at_most_a_tenth_of_what_is_true():
    """A weak S: few of its instances are true, and these have the scores of the others."""
    score = np.linspace(0.7, 0.9, 200)
    true = np.where(np.arange(200) % 5 == 0, 1.0, 0.0)
    true[180:] = 1.0  # the best F1 by far is that of these twenty alone: 0.57; 0.45 where nearly all true ones are kept
    true[:30] = 0.0
    found = min_score_by_beliefs(score, true, score)
    assert 0.7 < found < 0.76 and (score < found)[true == 1].mean() <= 0.1
    assert min_score_by_beliefs(score, np.zeros(200), score) == 0.0


def test_min_score_is_not_lost_where_two_true_objects_are_no_longer_found():
    true = np.array([1.0] * 10 + [0.0] * 10)
    score = np.r_[np.linspace(0.7, 0.88, 10), np.linspace(0.4, 0.69, 10)]
    now = score.copy()
    now[[3, 5]] = 0.0
    assert min_score_by_beliefs(score, true, now) == pytest.approx(0.7, abs=0.01)
    assert min_score_by_beliefs(score, true, np.zeros(20)) == 0.0


def test_thresholds_of_the_final_segmentation_stay_where_nothing_speaks_against_them():
    """A jump of the final segmentation must come from S, not from a threshold that six objects happen to like."""
    labels = bars((10, 20))
    probability = np.where(labels > 0, 250, 0).astype(np.uint8)[None]  # every threshold is as good as every other
    task = Mitochondria(SIZE)
    assert final_threshold(probability, labels, None, task) == 0.5
    for near in (0.35, 0.7):
        assert final_threshold(probability, labels, None, task, near=near) == pytest.approx(near)


def test_few_answers_do_not_choose_min_score():
    labels = bars((10, 20), (30, 40))
    task = Mitochondria(SIZE)
    level = np.where(labels == 1, 250, np.where(labels == 2, 160, 0)).astype(np.uint8)
    found = extract(labels, level, task, (0, 0, 0))
    box = LabelledBox(Box.whole(labels.shape), bars((10, 20)), None)
    chosen = [
        choose_thresholds(
            volume(level[None]), task, CandidateConfig(), 1, labels=[box], validation=box,
            believed=Beliefs(found, np.array([1.0, 0.0]), number, 5),
        ).min_score
        for number in (4, 5)
    ]  # fmt: skip
    assert chosen[0] == 0.0 and 160 / 255 < chosen[1] <= 250 / 255


def brute_min_score_by_labels(segmentation, probability, labels, task):
    """The smallest good cut, found by trying a cut at the score of every instance."""
    judged = task.judge(Overlaps.of(segmentation, labels, None))
    good = {n: j.kind is AnswerKind.TRUE for n, j in judged.items()}
    if min(sum(good.values()), sum(not g for g in good.values())) < 5:
        return 0.0
    score = {n: probability[segmentation == n].mean() / 255 for n in good}
    f1 = {}
    for cut in [0.0, *(math.floor(s * 1000) / 1000 for s in score.values())]:
        kept = [n for n in good if score[n] >= cut]
        f1[cut] = 2 * sum(good[n] for n in kept) / (len(kept) + len(np.unique(labels[labels > 0])))
    return min(cut for cut, value in f1.items() if value >= max(f1.values()) - 0.02)


def test_min_score_by_labels_equals_a_search_over_all_cuts():
    rng = np.random.default_rng(0)
    task, seen = Mitochondria(SIZE), set()
    for _ in range(20):
        num_good, num_bad, num_missed = rng.integers(3, 12, 3)
        ends = 4 * np.arange(1, num_good + num_bad + num_missed + 1)
        spans = [(int(e) - 3, int(e)) for e in ends]
        labels = bars(*spans[:num_good], *spans[num_good + num_bad :], width=160)
        segmentation = bars(*spans[: num_good + num_bad], width=160)
        level = rng.integers(120, 250, num_good + num_bad) - 60 * (np.arange(num_good + num_bad) >= num_good)
        probability = np.concatenate([[0], level])[segmentation].astype(np.uint8)
        found = min_score_by_labels(segmentation, probability, labels, None, task)
        assert found == pytest.approx(brute_min_score_by_labels(segmentation, probability, labels, task))
        seen.add(found > 0)
    assert seen == {True, False}


def test_the_final_segmentation_drops_instances_below_min_score():
    truth, segmentation = bars((10, 20)), bars((10, 20), (26, 34))
    probability = np.where(segmentation == 1, 230, np.where(segmentation == 2, 150, 0)).astype(np.uint8)
    judge = Truth(volume(truth), None, Mitochondria(SIZE))
    found = extract(segmentation, probability, judge.task, (0, 0, 0))
    said = [
        scores_on_test_box(
            volume(segmentation), volume(probability[None]), judge, {c.label: c.score for c in found},
            Box.whole(truth.shape),
            threshold=0.5, min_voxels=1, min_score=least,
        )
        for least in (0.0, 0.7)
    ]  # fmt: skip
    assert [s["instance_f1"] for s in said] == [pytest.approx(2 / 3), 1.0]
    assert [s["average_precision"] for s in said] == [1.0, 1.0] and said[1]["candidate_accuracy"] == 0.5


def test_lessons_come_from_answers_that_teach_s_something(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite", create=True)
    ledger.register(0, range(1, 9))
    mask = np.ones((1, 2, 4), np.uint8)
    patch = PatchPair(np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.int8), 0.0, 0, 0.0)
    kinds = ["true", "nothing", "shape", "swapped", "unsure", "skipped", "corrected", "true"]
    queries = [
        Query(Candidate(i, 1, Box((0, 0, 10 * i), mask.shape), mask, 0.5), patch, "random", is_audit=i == 8)
        for i in range(1, 9)
    ]
    ledger.ask(0, queries)
    drawn = Box((0, 5, 5), mask.shape), mask
    for number, kind in enumerate(kinds, start=1):
        ledger.tell(Answer(number, AnswerKind(kind), "ann", drawing=drawn if kind == "corrected" else None))
    ledger.tell(Answer(None, AnswerKind.MISSED, "ann", drawing=(Box((0, 7, 7), mask.shape), mask)))
    taught = collect(ledger, before_round=1)
    assert [(lesson.teaches, lesson.box.offset_zyx) for lesson in taught.lessons] == [
        ("mask", (0, 0, 10)),
        ("background", (0, 0, 20)),
        ("ignore", (0, 0, 30)),
        ("exchanged", (0, 0, 40)),
        ("drawn", (0, 0, 5)),  # the hull of what was proposed and what was drawn
        ("drawn", (0, 7, 7)),
    ]
    assert taught.asked_in.tolist() == [0] * 6 and taught.candidates.tolist() == [1, 2, 3, 4, 7, 0]
    assert collect(ledger, before_round=0).lessons == []
