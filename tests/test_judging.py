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
from twostream.rounds.judging import SHARES, Evidence, blended, dice_error, probability_of, ranking_error
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


def evidence_of(lessons, halves, validation=None, num_objects=0):
    return Evidence(lessons, halves, validation, num_objects, [0], 0)


BRIGHT_IS_TRUE = (("mask", 200), ("background", 50), ("drawn", 180), ("ignore", 60))
DARK_IS_TRUE = (("mask", 50), ("background", 200), ("drawn", 60), ("ignore", 180))


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
        assert dice_error([guess], target[None], [1]) == pytest.approx(1 - shared / total, abs=1e-5)


def test_the_ranking_error_is_one_minus_auc():
    rng = np.random.default_rng(0)
    for _ in range(10):
        is_object = rng.permutation(np.arange(12) < 5)
        probability = rng.integers(0, 6, 12) / 5  # with ties
        assert ranking_error(probability, is_object) == pytest.approx(1 - roc_auc_score(is_object, probability))
        assert ranking_error(probability / 3, is_object) == ranking_error(probability, is_object)


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
    evidence = evidence_of(lessons_of(*kinds), [[0, 1], [2, 3]])
    good, bad = by_grey(better), by_grey(-better)
    taken = evidence.judge(bad, [weights(good)] * 2, weights(good))
    # Half of the way the log-odds are equal everywhere; beyond it all pairs are in order.
    assert (taken.share, taken.num_answers, taken.errors) == (0.75, 4, (1.0, 1.0, 0.5, 0.0, 0.0))
    kept = evidence.judge(good, [weights(bad)] * 2, weights(bad))
    assert (kept.outcome, kept.share) == ("kept", 0.0)


def test_an_s_that_finds_nothing_any_more_is_no_better_for_a_batch_of_wrong_candidates():
    """Eleven of twelve answers are *nothing*: their squared error is smallest where S finds nothing at all."""
    kinds = [("mask", 140), *[("background", 130)] * 3, ("mask", 140), *[("background", 130)] * 3]
    evidence = evidence_of(lessons_of(*kinds), [list(range(4)), list(range(4, 8))])
    sees, blind = by_grey(5.0), by_grey(-5.0, -8.0)
    assert evidence.judge(sees, [weights(blind)] * 2, weights(blind)).outcome == "kept"
    fainter = by_grey(5.0, -8.0)
    assert evidence.judge(sees, [weights(fainter)] * 2, weights(fainter)).errors == (0.0,) * len(SHARES)


def test_each_half_is_tested_on_the_answers_of_the_other():
    evidence = evidence_of(lessons_of(*BRIGHT_IS_TRUE, *DARK_IS_TRUE), [[0, 1, 2, 3], [4, 5, 6, 7]])
    bright, dark, blank = by_grey(1), by_grey(-1), by_grey(0)
    # The first model is tested on bright objects, the second on dark ones.
    found = evidence.judge(blank, [weights(bright), weights(dark)], weights(blank))
    assert found.errors == (0.5, 0.0, 0.0, 0.0, 0.0)
    found = evidence.judge(blank, [weights(dark), weights(bright)], weights(blank))
    assert found.errors == (0.5, 1.0, 1.0, 1.0, 1.0) and found.outcome == "kept"


def test_a_mixture_is_taken_where_it_is_better_than_both():
    image = np.full((1, 4, 16, 16), 127, np.uint8)
    target = np.full((1, 1, 4, 16, 16), CERTAIN // 2, np.uint8)
    target[..., 8:] = IGNORE
    image[..., :8] = 255
    evidence = evidence_of(lessons_of(("mask", 200)), [[], []], (image, target), 3)
    # Dice falls short where probability and label differ in either direction.
    low, high = by_grey(0, -4), by_grey(0, 4)
    errors = evidence.judge(low, [weights(high)] * 2, weights(high)).errors
    plain = [1 - 2 * p * 0.5 / (p + 0.5) for p in 1 / (1 + np.exp(4 - 8 * np.array(SHARES)))]
    assert errors == pytest.approx(plain, abs=1e-3)


def test_the_validation_box_counts_as_many_times_as_it_has_objects():
    image = np.full((1, 4, 16, 16), 127, np.uint8)
    target = np.full((1, 1, 4, 16, 16), CERTAIN, np.uint8)
    for number in (1, 9):
        evidence = evidence_of(lessons_of(*BRIGHT_IS_TRUE), [[0, 1], [2, 3]], (image, target), number)
        new = by_grey(-1, 3)
        found = evidence.judge(by_grey(1), [weights(new)] * 2, weights(new))
        p = 1 / (1 + np.exp(-3))
        plain = (4 * 1.0 + number * (1 - 2 * p / (1 + p))) / (4 + number)
        assert found.num_objects == number and found.errors[-1] == pytest.approx(plain, abs=1e-4)


@pytest.mark.parametrize("kinds", [(), (("mask", 200), ("mask", 220)), (("background", 50), ("ignore", 50))])
def test_answers_of_one_kind_are_no_evidence_and_then_the_predecessor_stays(kinds):
    rows = list(range(len(kinds)))
    found = evidence_of(lessons_of(*kinds), [rows[:1], rows]).judge(by_grey(1), [weights(by_grey(2))] * 2, {})
    assert (found.outcome, found.errors, found.num_answers) == ("kept", (), 0)


def test_voxels_of_the_validation_box_are_no_evidence():
    lessons = lessons_of(*BRIGHT_IS_TRUE, val_box=Box((0, 0, 8), (8, 48, 80)))
    assert evidence_of(lessons, [[0, 1], [2, 3]]).judge(by_grey(1), [{}, {}], {}).errors == ()


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
    evidence_of(lessons_of(*BRIGHT_IS_TRUE), [[0, 1], [2, 3]]).judge(
        old, [weights(by_grey(3))] * 2, weights(by_grey(3))
    )
    assert all(torch.equal(v, before[n]) for n, v in weights(old).items())


def test_the_probability_of_a_crop_is_that_of_its_channels():
    found = probability_of(segmenter(0), np.zeros((4, 16, 16), np.uint8))
    assert found.shape == (1, 4, 16, 16) and found.min() >= 0 and found.max() <= 1
