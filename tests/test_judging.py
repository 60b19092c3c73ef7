"""Whether a refitted S is taken: by errors on what it has not learned from, each against a plain form."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from twostream.base.geometry import Box
from twostream.models.segmentation.config import SegmentationConfig
from twostream.models.segmentation.lessons import Lesson, Lessons
from twostream.models.segmentation.train import new_segmenter
from twostream.models.training import use_threads
from twostream.rounds.judging import (
    SHARES,
    Evidence,
    Spread,
    blended,
    chosen,
    dice_error,
    objects_of,
    probability_of,
    ranking_error,
)
from twostream.task import CERTAIN, IGNORE, Mitochondria
from twostream.volume import MemoryVolume

SIZE = (30.0, 8.0, 8.0)
CONFIG = SegmentationConfig(filters=(4, 8, 8), max_pixel_size_nm=10.0, patch_shape_zyx=(4, 16, 16))
MASK = np.ones((2, 6, 6), np.uint8)
VAL_BOX = Box((0, 0, 24), (8, 48, 8))


@pytest.fixture(autouse=True)
def one_thread():
    use_threads(1)


def segmenter(seed):
    return new_segmenter(Mitochondria(SIZE), CONFIG, voxel_size_nm=SIZE, num_sections=8, grey=(127.0, 70.0), seed=seed)


def by_grey(slope, offset=0.0):
    """S whose log-odds are a line in the grey value, with the parts of a Segmenter that a judge needs."""
    network = torch.nn.Conv3d(1, 1, 1)
    network.load_state_dict(
        {"weight": torch.full((1, 1, 1, 1, 1), float(slope)), "bias": torch.tensor([float(offset)])}
    )
    return SimpleNamespace(
        network=network,
        normalise=lambda image: (image.astype(np.float32) - 127) / 128,
        head=SimpleNamespace(probability=torch.sigmoid),
    )


def lessons_of(*kinds_and_greys, val_box=VAL_BOX):
    """Lessons beside each other; the image has the given grey value in the mask of each."""
    grey = np.full((8, 48, 96), 127, np.uint8)
    lessons = []
    for i, (kind, value) in enumerate(kinds_and_greys):
        box = Box((3, 6 + 12 * (i % 3), 40 + 18 * (i // 3)), MASK.shape)
        grey[box.slices] = value
        lessons.append(Lesson(box, MASK, kind))
    labels = np.zeros(grey.shape, np.uint32)
    labels[2:6, 10:20, 5:15] = 1
    return Lessons(
        MemoryVolume(grey, SIZE), MemoryVolume(labels, SIZE), None, Mitochondria(SIZE),
        labels_boxes=[Box((0, 0, 0), (8, 48, 32))], val_box=val_box, test_box=None, guarded_box=None,
        crop_shape_zyx=(4, 16, 16), lessons=lessons,
    )  # fmt: skip


def evidence_of(lessons, rows, validation=None, num_objects=0):
    return Evidence(lessons, rows, validation, num_objects, [0], 0)


BRIGHT_IS_TRUE = (("mask", 200), ("background", 50), ("drawn", 180), ("background", 60))
DARK_IS_TRUE = (("mask", 50), ("background", 200), ("drawn", 60), ("background", 180))


def weights(s):
    return s.network.state_dict()


def test_errors_equal_plain_loops():
    rng = np.random.default_rng(0)
    for _ in range(10):
        target = rng.choice(np.array([0, 100, CERTAIN, IGNORE], np.uint8), (2, 3, 4, 5))
        guess = rng.random((2, 3, 4, 5)).astype(np.float32)
        cells = [(g, t) for g, t in zip(guess[1].ravel(), target[1].ravel(), strict=True) if t != IGNORE]
        shared = sum(2 * g * t / CERTAIN for g, t in cells)
        total = sum(g + t / CERTAIN for g, t in cells)
        assert dice_error([guess], target[None], [1], objects_of(target[None], [1])).error == pytest.approx(
            1 - shared / total, abs=1e-5
        )


def test_the_ranking_error_is_one_minus_auc():
    rng = np.random.default_rng(0)
    for _ in range(10):
        is_object = rng.permutation(np.arange(12) < 5)
        probability = rng.integers(0, 6, 12) / 5  # with ties
        found = ranking_error(probability, is_object).error
        assert found == pytest.approx(1 - roc_auc_score(is_object, probability))
        assert ranking_error(probability / 3, is_object).error == found


def test_the_variance_of_a_difference_of_two_auc_is_that_of_delong_and_of_the_bootstrap():
    rng = np.random.default_rng(0)
    is_object = np.arange(300) < 120
    first = is_object + rng.normal(size=300)
    second = 0.7 * first + rng.normal(size=300)
    found = ranking_error(first, is_object).variance_beside(ranking_error(second, is_object))

    def kernels(score):  # the structural components, one pair at a time
        pairs = [[float(w > r) + 0.5 * float(w == r) for w in score[~is_object]] for r in score[is_object]]
        return np.mean(pairs, 1), np.mean(pairs, 0)

    (x1, y1), (x2, y2) = kernels(first), kernels(second)
    plain = np.var(x1 - x2, ddof=1) / len(x1) + np.var(y1 - y2, ddof=1) / len(y1)
    assert found == pytest.approx(plain)
    draws = []
    for _ in range(400):
        rows = np.concatenate([rng.choice(np.flatnonzero(is_object == k), (is_object == k).sum()) for k in (0, 1)])
        draws.append(np.subtract(*(roc_auc_score(is_object[rows], s[rows]) for s in (first, second))))
    assert np.var(draws) == pytest.approx(found, rel=0.3)


def test_the_variance_of_a_difference_of_two_dice_errors_is_that_of_the_jackknife():
    rng = np.random.default_rng(0)
    targets = rng.choice(np.array([0, CERTAIN, IGNORE], np.uint8), (40, 2, 2, 4, 4))
    targets[3] = IGNORE  # it says nothing
    parts = np.where((targets != IGNORE).any(1), np.arange(40)[:, None, None, None] + 1, 0)  # crops, not objects
    parts[parts > 3] -= 1
    first, second = (rng.random((40, 2, 2, 4, 4)).astype(np.float32) for _ in range(2))
    both = [dice_error(guess, targets, [0, 1], parts) for guess in (first, second)]
    found = both[0].variance_beside(both[1])
    known = [row for row in range(40) if row != 3]
    without = []
    for row in known:
        rest = [r for r in known if r != row]
        of = parts[rest].copy()
        of[of > parts[row].max()] -= 1
        without.append(np.subtract(*(dice_error(g[rest], targets[rest], [0, 1], of).error for g in (first, second))))
    n = len(known)
    assert len(both[0].samples[0]) == n
    jackknife = (n - 1) / n * np.sum((without - np.mean(without)) ** 2)
    assert found == pytest.approx(jackknife, rel=0.1)


def test_each_voxel_belongs_to_the_object_that_is_nearest():
    targets = np.zeros((3, 1, 1, 6, 40), np.uint8)
    targets[0, 0, 0, 2:4, 3:6] = targets[0, 0, 0, 2:4, 30:36] = CERTAIN
    targets[0, 0, 0, :, 20] = IGNORE
    targets[2, 0, 0, 1:5, 10:14] = CERTAIN
    parts = objects_of(targets, [0])
    assert (parts[0, 0, :, :17] == 1).all() and (parts[0, 0, :, 21:] == 2).all() and (parts[0, 0, :, 20] == 0).all()
    assert (parts[1] == 3).all(), "a crop without objects is one place where S may find some"
    assert (parts[2] == 4).all()
    assert objects_of(np.full((2, 1, 1, 4, 4), IGNORE, np.uint8), [0]).max() == 0


def test_one_crop_with_several_objects_shows_what_chance_may_do():
    targets = np.zeros((1, 1, 1, 8, 64), np.uint8)
    for start in (4, 20, 36, 52):
        targets[0, 0, 0, 2:6, start : start + 6] = CERTAIN
    parts = objects_of(targets, [0])
    sure = np.where(targets[0] > 0, 0.9, 0.1)
    mixed = sure.copy()
    mixed[..., :16] = 0.5  # one of four objects is lost
    one, other = (dice_error([guess], targets, [0], parts) for guess in (sure, mixed))
    assert other.error > one.error and len(one.samples[0]) == 4
    chance = one.variance_beside(other) ** 0.5
    assert 0.5 * (other.error - one.error) < chance < 2 * (other.error - one.error)


def test_one_observation_alone_shows_no_spread():
    alone, other = Spread(0.2, (np.array([0.2]), np.array([0.1, 0.3]))), Spread(0.1, (np.array([0.1]), np.full(2, 0.1)))
    assert alone.variance_beside(other) == pytest.approx(0.01)


def spreads(*errors, noise=0.0):
    """An error for each share, without a validation box: every two of them differ by chance as ``noise`` says."""
    rng = np.random.default_rng(0)
    return [(Spread(error, (error + noise * rng.normal(size=20),)), Spread()) for error in errors]


@pytest.mark.parametrize(
    "errors, noise, share",
    [
        ((0.3, 0.2, 0.2, 0.2, 0.1), 0.0, 1.0),  # without chance the lowest error counts
        ((0.1, 0.2, 0.2, 0.2, 0.3), 0.0, 0.0),
        ((0.2, 0.1, 0.2, 0.2, 0.3), 0.0, 0.25),
        ((0.2, 0.2, 0.2, 0.2, 0.2), 0.0, 1.0),  # it learned from more
        ((0.2, 0.19, 0.21, 0.19, 0.22), 1.0, 1.0),  # the difference may be chance
        ((0.1, 0.5, 0.9, 0.9, 0.9), 0.1, 0.0),  # this one is not
        ((0.1, 0.1, 0.05, 0.9, 0.9), 0.1, 0.5),
    ],
)
def test_the_new_s_is_taken_unless_another_share_is_better_by_more_than_chance(errors, noise, share):
    assert chosen(spreads(*errors, noise=noise), np.array([1.0, 0.0]), 20, 0).share == share


def test_both_tests_add_their_chance_as_their_weights_say():
    rng = np.random.default_rng(0)
    ranked = [Spread(0.1 * k, (rng.random(8), rng.random(5))) for k in range(5)]
    fitted = [Spread(0.1 * k, (rng.random(6),)) for k in range(5)]
    found = chosen(list(zip(ranked, fitted, strict=True)), np.array([0.7, 0.3]), 13, 6)
    for k in range(1, 5):
        by_hand = 0.49 * ranked[k].variance_beside(ranked[0]) + 0.09 * fitted[k].variance_beside(fitted[0])
        assert found.chances[k] == pytest.approx(2 * by_hand**0.5)
    assert found.chances[0] == 0 and found.errors == pytest.approx([0.1 * k for k in range(5)])


def test_a_blend_lies_between_two_models_and_keeps_counters():
    old, new = weights(segmenter(1)), weights(segmenter(2))
    half = blended(old, new, 0.5)
    for name, value in half.items():
        if value.is_floating_point():
            assert torch.allclose(value, (old[name] + new[name]) / 2, atol=1e-6)
    for share, same in ((0.0, old), (1.0, new)):
        assert all(torch.allclose(v, same[n], atol=1e-6) for n, v in blended(old, new, share).items())


@pytest.mark.parametrize("kinds, better", [(BRIGHT_IS_TRUE, 1.0), (DARK_IS_TRUE, -1.0)])
def test_the_better_model_is_taken_and_a_worse_one_is_not(kinds, better):
    evidence = evidence_of(lessons_of(*kinds), range(4))
    good, bad = by_grey(better), by_grey(-better)
    taken = evidence.judge(bad, weights(good))
    # Half of the way the log-odds are equal everywhere; beyond it all pairs are in order.
    assert (taken.share, taken.num_answers, taken.errors) == (1.0, 4, (1.0, 1.0, 0.5, 0.0, 0.0))
    left = evidence.judge(good, weights(bad))
    assert (left.outcome, left.errors) == ("kept", (0.0, 0.0, 0.5, 1.0, 1.0))


def test_an_s_that_finds_nothing_any_more_is_no_better_for_a_batch_of_wrong_candidates():
    """Eleven of twelve answers are *nothing*: their squared error is smallest where S finds nothing at all."""
    kinds = [("mask", 140), *[("background", 130)] * 3, ("mask", 140), *[("background", 130)] * 3]
    evidence = evidence_of(lessons_of(*kinds), range(8))
    sees, blind = by_grey(5.0), by_grey(-5.0, -8.0)
    found = evidence.judge(sees, weights(blind))
    assert found.outcome == "kept" and found.errors[-1] == 1
    fainter = by_grey(5.0, -8.0)
    assert evidence.judge(sees, weights(fainter)).errors == (0.0,) * len(SHARES)


def test_a_mixture_is_taken_where_it_is_better_than_both():
    image = np.full((1, 4, 16, 16), 127, np.uint8)
    target = np.full((1, 1, 4, 16, 16), CERTAIN // 2, np.uint8)
    target[..., 8:] = IGNORE
    image[..., :8] = 255
    evidence = evidence_of(lessons_of(("mask", 200)), [], (image, target), 3)
    # Dice falls short where probability and label differ in either direction.
    low, high = by_grey(0, -4), by_grey(0, 4)
    errors = evidence.judge(low, weights(high)).errors
    plain = [1 - 2 * p * 0.5 / (p + 0.5) for p in 1 / (1 + np.exp(4 - 8 * np.array(SHARES)))]
    assert errors == pytest.approx(plain, abs=1e-3)


def test_the_validation_box_counts_as_many_times_as_it_has_objects():
    image = np.full((1, 4, 16, 16), 127, np.uint8)
    target = np.full((1, 1, 4, 16, 16), CERTAIN, np.uint8)
    for number in (1, 9):
        evidence = evidence_of(lessons_of(*BRIGHT_IS_TRUE), range(4), (image, target), number)
        new = by_grey(-1, 3)
        found = evidence.judge(by_grey(1), weights(new))
        p = 1 / (1 + np.exp(-3))
        plain = (4 * 1.0 + number * (1 - 2 * p / (1 + p))) / (4 + number)
        assert found.num_objects == number and found.errors[-1] == pytest.approx(plain, abs=1e-4)


def test_answers_count_as_many_times_as_they_would_if_both_kinds_were_as_many():
    """Two objects and six wrong candidates order as surely as three of each."""
    image = np.full((1, 4, 16, 16), 127, np.uint8)
    target = np.full((1, 1, 4, 16, 16), CERTAIN, np.uint8)
    kinds = [("mask", 200), ("mask", 190), *[("background", 50)] * 6]
    new = by_grey(-1, 3)
    found = evidence_of(lessons_of(*kinds), range(8), (image, target), 4).judge(by_grey(1), weights(new))
    p = 1 / (1 + np.exp(-3))
    assert found.errors[-1] == pytest.approx((6 * 1.0 + 4 * (1 - 2 * p / (1 + p))) / 10, abs=1e-4)
    assert (found.num_answers, found.num_objects) == (8, 4)


@pytest.mark.parametrize(
    "kinds",
    [
        (),
        (("mask", 200), ("mask", 220)),
        (("background", 50), ("background", 60)),
        (("mask", 200), ("background", 50), ("background", 50)),  # one object alone
        (("background", 50), ("mask", 200), ("drawn", 220)),
    ],
)
def test_answers_of_one_kind_are_no_evidence_and_then_the_predecessor_stays(kinds):
    new = weights(by_grey(2))
    found = evidence_of(lessons_of(*kinds), range(len(kinds))).judge(by_grey(1), new)
    assert (found.outcome, found.errors, found.num_answers) == ("kept", (), 0)


def test_voxels_of_the_validation_box_are_no_evidence():
    lessons = lessons_of(*BRIGHT_IS_TRUE, val_box=Box((0, 0, 8), (8, 48, 80)))
    assert evidence_of(lessons, range(4)).judge(by_grey(1), {}).errors == ()


def test_what_an_annotator_removed_is_not_in_the_mask_that_is_tested():
    box = Box((3, 6, 40), MASK.shape)
    kept = MASK.copy()
    kept[:, :, 3:] = 0
    lessons = lessons_of(("mask", 200))
    lessons.lessons[0] = Lesson.corrected(box, MASK, box, kept)
    image, mask = lessons.held_out(0)
    assert mask.sum() == kept.sum() and (image[mask] == 200).all()


def test_the_predecessor_has_its_own_weights_afterwards():
    old = by_grey(1, 2)
    before = {name: value.clone() for name, value in weights(old).items()}
    evidence_of(lessons_of(*BRIGHT_IS_TRUE), range(4)).judge(old, weights(by_grey(3)))
    assert all(torch.equal(v, before[n]) for n, v in weights(old).items())


def test_the_probability_of_a_crop_is_that_of_its_channels():
    found = probability_of(segmenter(0), np.zeros((4, 16, 16), np.uint8))
    assert found.shape == (1, 4, 16, 16) and found.min() >= 0 and found.max() <= 1
