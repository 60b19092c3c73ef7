"""Whether a refitted S is taken: by errors on what it has not learned from, each against a plain form."""

import numpy as np
import pytest
import torch

from twostream.base.geometry import Box
from twostream.models.segmentation.config import SegmentationConfig
from twostream.models.segmentation.lessons import Lesson, Lessons
from twostream.models.segmentation.train import new_segmenter
from twostream.models.training import use_threads
from twostream.rounds.judging import SHARES, Evidence, blended, dice_error, probability_of, squared_error
from twostream.task import CERTAIN, IGNORE, Mitochondria
from twostream.volume import MemoryVolume

SIZE = (30.0, 8.0, 8.0)
CONFIG = SegmentationConfig(filters=(4, 8, 8), max_pixel_size_nm=10.0, patch_shape_zyx=(4, 16, 16))
MASK = np.ones((2, 6, 6), np.uint8)


@pytest.fixture(autouse=True)
def one_thread():
    use_threads(1)


def segmenter(seed):
    return new_segmenter(Mitochondria(SIZE), CONFIG, voxel_size_nm=SIZE, num_sections=8, grey=(127.0, 70.0), seed=seed)


def sure(value):
    """S that predicts ``value`` everywhere."""
    s = segmenter(0)
    state = {name: torch.zeros_like(v) if v.is_floating_point() else v for name, v in s.network.state_dict().items()}
    last = next(name for name in state if "output_block" in name and name.endswith("bias"))
    state[last] = torch.full_like(state[last], float(np.log(value / (1 - value))))
    s.network.load_state_dict(state)
    s.network.eval()
    return s


def lessons_of(*kinds):
    image = MemoryVolume(np.random.default_rng(0).integers(0, 255, (8, 48, 96)).astype(np.uint8), SIZE)
    labels = np.zeros((8, 48, 96), np.uint32)
    labels[2:6, 10:20, 5:15] = 1
    return Lessons(
        image, MemoryVolume(labels, SIZE), None, Mitochondria(SIZE), labels_boxes=[Box((0, 0, 0), (8, 48, 32))],
        val_box=Box((0, 0, 24), (8, 48, 8)), test_box=None, guarded_box=None, crop_shape_zyx=(4, 16, 16),
        lessons=[Lesson(Box((3, 6 + 12 * i, 60), MASK.shape), MASK, kind) for i, kind in enumerate(kinds)],
    )  # fmt: skip


def weights(s):
    return s.network.state_dict()


def test_errors_equal_plain_loops():
    rng = np.random.default_rng(0)
    for _ in range(10):
        target = rng.choice(np.array([0, 100, CERTAIN, IGNORE], np.uint8), (2, 3, 4, 5))
        guess = rng.random((2, 3, 4, 5)).astype(np.float32)
        cells = [(g, t) for g, t in zip(guess[1].ravel(), target[1].ravel(), strict=True) if t != IGNORE]
        plain = sum((g - t / CERTAIN) ** 2 for g, t in cells) / len(cells)
        assert squared_error(guess, target, [1]) == pytest.approx(plain, abs=1e-5)
        shared = sum(2 * g * t / CERTAIN for g, t in cells)
        total = sum(g + t / CERTAIN for g, t in cells)
        assert dice_error([guess], target[None], [1]) == pytest.approx(1 - shared / total, abs=1e-5)
    assert squared_error(guess, np.full_like(target, IGNORE), [0, 1]) == 0.0


def test_a_blend_lies_between_two_models_and_keeps_counters():
    old, new = weights(segmenter(1)), weights(segmenter(2))
    half = blended(old, new, 0.5)
    for name, value in half.items():
        if value.is_floating_point():
            assert torch.allclose(value, (old[name] + new[name]) / 2, atol=1e-6)
    for share, same in ((0.0, old), (1.0, new)):
        assert all(torch.allclose(v, same[n], atol=1e-6) for n, v in blended(old, new, share).items())


@pytest.mark.parametrize("kinds, better", [(("mask", "mask"), 0.95), (("background", "background"), 0.05)])
def test_the_better_model_is_taken_and_a_worse_one_is_not(kinds, better):
    evidence = Evidence(lessons_of(*kinds), [[0], [1]], None, 0, [0])
    good, bad = sure(better), sure(1 - better)
    taken = evidence.judge(bad, [weights(good), weights(good)], weights(good))
    assert (taken.outcome, taken.share, taken.num_answers) == ("accepted", 1.0, 2)
    assert taken.errors[0] == pytest.approx(0.95**2, abs=0.01) and taken.errors[-1] == pytest.approx(0.05**2, abs=0.01)
    kept = evidence.judge(good, [weights(bad), weights(bad)], weights(bad))
    assert (kept.outcome, kept.share) == ("kept", 0.0)


def test_each_half_is_tested_on_the_answers_of_the_other():
    """Where each half is right about its own answers only, the predecessor stays."""
    evidence = Evidence(lessons_of("mask", "background"), [[0], [1]], None, 0, [0])
    always, never = sure(0.95), sure(0.05)
    # The first model is tested on row 0 (a mask) and says never; the second on row 1 (background) and says always.
    found = evidence.judge(sure(0.5), [weights(never), weights(always)], weights(always))
    assert found.outcome == "kept" and found.errors[-1] == pytest.approx(0.95**2, abs=0.01)
    found = evidence.judge(sure(0.5), [weights(always), weights(never)], weights(always))
    assert found.outcome == "accepted" and found.errors[0] == pytest.approx(0.25, abs=0.01)


def test_a_mixture_is_taken_where_it_is_better_than_both():
    evidence = Evidence(lessons_of("mask", "background"), [[0, 1], []], None, 0, [0])
    found = evidence.judge(sure(0.95), [weights(sure(0.05)), weights(sure(0.05))], weights(sure(0.05)))
    assert (found.outcome, found.share) == ("blended", 0.5) and len(found.errors) == len(SHARES)
    detail = found.detail()
    assert detail["outcome"] == "blended" and detail["errors"]["0.5"] == pytest.approx(0.25, abs=0.01)


def test_the_validation_box_counts_as_many_times_as_it_has_objects():
    image = np.zeros((1, 4, 16, 16), np.uint8)
    target = np.full((1, 1, 4, 16, 16), CERTAIN, np.uint8)
    for number in (1, 9):
        evidence = Evidence(lessons_of("background", "background"), [[0], [1]], (image, target), number, [0])
        found = evidence.judge(sure(0.05), [weights(sure(0.95))] * 2, weights(sure(0.95)))
        plain = (2 * 0.95**2 + number * (1 - 2 * 0.95 / 1.95)) / (2 + number)
        assert found.num_objects == number and found.errors[-1] == pytest.approx(plain, abs=0.005)


def test_without_any_evidence_the_new_model_is_taken():
    found = Evidence(lessons_of("mask"), [[], []], None, 0, [0]).judge(sure(0.5), [weights(sure(0.9))] * 2, {})
    assert (found.outcome, found.errors) == ("accepted", ())


def test_the_predecessor_has_its_own_weights_afterwards():
    old = segmenter(1)
    before = {name: value.clone() for name, value in weights(old).items()}
    Evidence(lessons_of("mask", "mask"), [[0], [1]], None, 0, [0]).judge(
        old, [weights(sure(0.9))] * 2, weights(sure(0.9))
    )
    assert all(torch.equal(v, before[n]) for n, v in weights(old).items())
    assert probability_of(sure(0.9), np.zeros((4, 16, 16), np.uint8)) == pytest.approx(0.9, abs=1e-4)
