"""Refitting: how often lessons are drawn, from which weights S starts, and its pseudo-labels where nothing is known."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from twostream.base.geometry import Box
from twostream.models.segmentation.config import LossConfig, RefitConfig, SegmentationConfig
from twostream.models.segmentation.heads import IndependentHead
from twostream.models.segmentation.lessons import Lesson, Lessons
from twostream.models.segmentation.train import SegmentationModule, new_segmenter
from twostream.models.training import use_threads
from twostream.rounds.refit import held_out, refit
from twostream.rounds.teaching import LessonCrops, Taught
from twostream.task import CERTAIN, IGNORE, Mitochondria, SynapsePolarity
from twostream.volume import MemoryVolume

SIZE = (30.0, 8.0, 8.0)
CONFIG = SegmentationConfig(filters=(4, 8, 8), max_pixel_size_nm=10.0, patch_shape_zyx=(4, 16, 16), num_steps=6)


@pytest.fixture(autouse=True)
def one_thread():
    use_threads(1)


def world(num_true=8, num_nothing=2, lessons=(), **options):
    """Labels in the left third; answered masks in the rest, first those answered *true*, then *nothing*."""
    image = MemoryVolume(np.random.default_rng(0).integers(0, 255, (8, 48, 96)).astype(np.uint8), SIZE)
    labels = np.zeros((8, 48, 96), np.uint32)
    labels[2:6, 10:20, 5:15] = 1
    mask = np.ones((4, 6, 6), np.uint8)
    places = [(2, 4 + 8 * (i % 5), 40 + 12 * (i // 5)) for i in range(num_true + num_nothing)]
    lessons = lessons or [
        Lesson(Box(p, mask.shape), mask, "mask" if i < num_true else "background") for i, p in enumerate(places)
    ]
    return Lessons(
        image, MemoryVolume(labels, SIZE), None, Mitochondria(SIZE), labels_boxes=[Box((0, 0, 0), (8, 48, 32))],
        val_box=Box((0, 0, 24), (8, 48, 8)), test_box=None, guarded_box=None, crop_shape_zyx=(4, 16, 16),
        lessons=lessons, **options,
    )  # fmt: skip


def drawn(lessons, asked_in, settings, monkeypatch, number=600):
    """How often each lesson was drawn, by its row; the count of the labelled box is under -1."""
    counts: dict[int, int] = {}
    monkeypatch.setattr(lessons, "labelled_crop", lambda rng, config: counts.update({-1: counts.get(-1, 0) + 1}))
    monkeypatch.setattr(lessons, "answer_crop", lambda rng, row: counts.update({row: counts.get(row, 0) + 1}))
    crop = LessonCrops(lessons, np.asarray(asked_in), CONFIG, settings)
    for t in range(number):
        crop(np.random.default_rng([1, t]))
    return counts


def test_lessons_are_drawn_equally_often_whatever_the_answer(monkeypatch):
    counts = drawn(world(), [0] * 10, RefitConfig(replay_share=0.25), monkeypatch)
    assert counts[-1] == pytest.approx(150, abs=35)
    assert all(counts[row] == pytest.approx(45, abs=25) for row in range(10))  # *nothing* no more often than *true*


def test_the_newest_round_is_drawn_more_often(monkeypatch):
    counts = drawn(world(), [0] * 8 + [1] * 2, RefitConfig(replay_share=0.0, recent_share=0.5), monkeypatch)
    assert (
        counts[8] + counts[9] == pytest.approx(360, abs=50) and -1 not in counts
    )  # half of all, and a fifth of the other half


def test_without_answers_the_labelled_box_is_replayed(monkeypatch):
    assert drawn(world(0, 0), np.zeros(0, int), RefitConfig(replay_share=0.0), monkeypatch, 20) == {-1: 20}


def expected(weight, share=1.0, surprise=1.0):
    mask = np.ones((4, 6, 6), np.uint8)
    return Lesson(Box((2, 4, 40), mask.shape), mask, "expected", share=share, weight=weight, surprise=surprise)


def test_what_the_scorer_expects_is_drawn_as_often_as_its_weight_and_the_share_say(monkeypatch):
    mask = np.ones((4, 6, 6), np.uint8)
    lessons = world(0, 0, lessons=[expected(0.9), expected(0.6), Lesson(Box((2, 4, 60), mask.shape), mask, "mask")])
    settings = RefitConfig(replay_share=0.0, propagate=0.5)
    counts = drawn(lessons, [-1, -1, 3], settings, monkeypatch)
    assert [counts[row] for row in range(3)] == [pytest.approx(n, abs=50) for n in (180, 120, 300)]
    lessons = world(0, 0, lessons=[expected(0.9)])
    assert set(drawn(lessons, [-1], settings, monkeypatch, 40)) == {0}  # without an answer that teaches


def test_what_s_says_already_is_hardly_drawn(monkeypatch):
    """Weights 0.8 and 0.4, surprises 0.1 and 0.7: shares 0.08 and 0.28 of 1.2, times ``propagate``."""
    mask = np.ones((4, 6, 6), np.uint8)
    answered = Lesson(Box((2, 4, 60), mask.shape), mask, "mask")
    lessons = world(0, 0, lessons=[expected(0.8, surprise=0.1), expected(0.4, surprise=0.7), answered])
    settings = RefitConfig(replay_share=0.0, propagate=0.9)
    counts = drawn(lessons, [-1, -1, 0], settings, monkeypatch, 3000)
    assert [counts[row] for row in range(3)] == [pytest.approx(n, abs=90) for n in (180, 630, 2190)]
    agreed = world(0, 0, lessons=[expected(0.8, surprise=0.0), answered])
    assert set(drawn(agreed, [-1, 0], settings, monkeypatch, 40)) == {1}
    assert set(drawn(world(0, 0, lessons=[expected(0.8, surprise=0.0)]), [-1], settings, monkeypatch, 40)) == {-1}


def test_an_expected_lesson_costs_what_its_answers_cost_in_expectation():
    """P(true) times the cost of *true*, plus P(nothing) times the cost of *nothing*; other answers cost nothing."""
    true, nothing = 0.5, 0.3
    lesson = expected(weight=true + nothing, share=true / (true + nothing))
    logit, costs = 0.7, {}
    for name, one in (
        ("expected", lesson),
        ("true", Lesson(lesson.box, lesson.mask, "mask")),
        ("nothing", Lesson(lesson.box, lesson.mask, "background")),
    ):
        lessons = world(0, 0, lessons=[one], emphasis=10, rim_nm=0.0)
        crop = lessons._crop(0, one.box, Box((2, 2, 38), (4, 16, 16)))
        known = crop.target[0] != IGNORE
        level, weight = crop.target[0][known] / CERTAIN, crop.weight[known].astype(float)
        entropy = -(level * np.log(1 / (1 + np.exp(-logit))) + (1 - level) * np.log(1 / (1 + np.exp(logit))))
        costs[name] = float((weight * entropy).sum())
        assert known.sum() == lesson.mask.size and set(weight) == {8.0 if name == "expected" else 10.0}
    assert costs["expected"] == pytest.approx(true * costs["true"] + nothing * costs["nothing"], rel=0.01)


def test_an_answer_stands_before_what_the_scorer_expects_in_the_same_place():
    one = expected(1.0)
    lessons = world(0, 0, lessons=[one, Lesson(one.box, one.mask, "background")])
    assert set(lessons._crop(0, one.box, Box((2, 2, 38), (4, 16, 16))).target.ravel()) == {0, IGNORE}


def weights(s):
    return {name: value.clone() for name, value in s.network.state_dict().items()}


def refitted(tmp_path, settings, seed=3, previous_probability=None):
    s = new_segmenter(Mitochondria(SIZE), CONFIG, voxel_size_nm=SIZE, num_sections=8, grey=(127.0, 70.0), seed=0)
    before = weights(s)
    name = f"{settings.start}-{previous_probability is None}-{settings.num_steps}.resume"
    lessons = world(previous_probability=previous_probability)
    history = refit(s, lessons, np.zeros(10, int), CONFIG, settings, seed=seed, resume_path=tmp_path / name)
    return s, before, history


def test_a_fine_tuned_s_keeps_the_weights_and_a_scratch_start_replaces_them(tmp_path):
    warm, before, history = refitted(tmp_path, RefitConfig(num_steps=0))
    assert history.losses == [] and all(torch.equal(weights(warm)[k], v) for k, v in before.items())
    scratch, _, history = refitted(tmp_path, RefitConfig(start="scratch", num_steps=1, judged=False))
    assert len(history.losses) == CONFIG.num_steps  # as many as the first training
    new = new_segmenter(Mitochondria(SIZE), CONFIG, voxel_size_nm=SIZE, num_sections=8, grey=(127.0, 70.0), seed=3)
    first = next(iter(before))
    moved = (weights(scratch)[first] - weights(new)[first]).abs().max()
    assert moved < 0.1 < (weights(scratch)[first] - before[first]).abs().max()


def test_a_warm_start_keeps_the_statistics_of_normalisation(tmp_path):
    for freeze in (True, False):
        s, before, _ = refitted(tmp_path / str(freeze), RefitConfig(num_steps=4, freeze_norm=freeze))
        kept = [torch.equal(weights(s)[name], value) for name, value in before.items() if "running" in name]
        assert kept and all(kept) == freeze


def test_pseudo_labels_keep_s_as_it_was_where_nothing_is_known(tmp_path, monkeypatch):
    """Far from labels and answers, a prediction that leaves the previous one raises the loss, with pseudo-labels only.

    The test looks at the loss, not at how far S moves in a short training, which differs between processors.
    """
    half = MemoryVolume(np.full((1, 8, 48, 96), 128, np.uint8), SIZE)  # the prediction of an untrained S
    seen, loss = [], SegmentationModule.loss

    def watched(module, batch, generator):
        seen.append(batch[1].clone())
        return loss(module, batch, generator)

    monkeypatch.setattr(SegmentationModule, "loss", watched)
    for previous_probability in (None, half):
        refitted(tmp_path, RefitConfig(num_steps=1, replay_share=0.0), previous_probability=previous_probability)
    free, held = seen  # the same crops
    unknown = free == IGNORE
    assert unknown.float().mean() > 0.5 and (held[unknown] == 128).all() and (held[~unknown] == free[~unknown]).all()
    head, config = IndependentHead(("foreground",)), LossConfig(dice=0.0)

    def cost(target, logit):
        return head.loss(torch.where(unknown, logit, 0.0), target, config).item()

    for logit in (-2.0, 2.0):
        assert cost(free, logit) == cost(free, 0.0)
        assert cost(held, logit) > cost(held, 0.0) + 0.1


def test_pseudo_labels_must_be_confident_and_answers_and_labels_take_precedence():
    probability = np.full((1, 8, 48, 96), 128, np.uint8)
    probability[..., 60:] = 250
    lessons = world(previous_probability=MemoryVolume(probability, SIZE), min_confidence=0.9)
    rng = np.random.default_rng(0)
    seen = [lessons.answer_crop(rng, row)[1] for row in range(10)]
    taught = np.unique(np.concatenate([t.ravel() for t in seen]))
    assert set(taught.tolist()) == {0, 250, CERTAIN, IGNORE}  # background, pseudo-label, mask, unknown
    labelled = lessons.labelled_crop(rng, CONFIG)[1]
    assert 0 in labelled and 128 not in labelled


def test_answers_and_their_margins_weigh_more_and_wrong_shapes_have_no_pseudo_labels():
    mask = np.ones((2, 6, 6), np.uint8)
    place = Box((3, 20, 60), mask.shape)
    previous = MemoryVolume(np.full((1, 8, 48, 96), 2, np.uint8), SIZE)  # confident background
    for teaches, inside, near, weight in (
        ("mask", CERTAIN, 2, 9),
        ("background", 0, 2, 9),
        ("ignore", IGNORE, IGNORE, 1),
    ):
        one = Lesson(place, mask, teaches)
        options = {"previous_probability": previous, "min_confidence": 0.9, "emphasis": 9, "margin_nm": 16.0}
        lessons = world(0, 0, lessons=[one], **options)
        target, counts = (np.full((8, 48, 96), 77, np.uint8) for _ in range(2))
        crop = lessons._crop(0, place, Box((2, 16, 56), (4, 16, 16)))
        target[2:6, 16:32, 56:72], counts[2:6, 16:32, 56:72] = crop.target[0], crop.weight
        assert set(target[3:5, 20:26, 60:66].ravel()) == {inside}
        # 16 nm are two voxels in plane, and one section above and below.
        assert {target[3, 22, 58], target[3, 22, 59], target[2, 22, 62], target[5, 22, 62]} == {near}
        assert target[3, 22, 57] == 2 and counts[3, 22, 57] == 1
        assert {counts[3, 22, 58], counts[2, 22, 62], counts[3, 22, 62]} == {weight}


def test_a_drawn_synapse_includes_its_cleft():
    size, mask = (30.0, 8.0, 8.0), np.zeros((1, 6, 9), np.uint8)
    mask[..., :3], mask[..., 6:] = 1, 2
    place = Box((3, 20, 60), mask.shape)
    labels = np.zeros((8, 48, 96), np.uint32)
    labels[2, 10:20, 5:8], labels[2, 10:20, 9:12] = 1, 2
    lessons = Lessons(
        MemoryVolume(np.zeros((8, 48, 96), np.uint8), size), MemoryVolume(labels, size), None, SynapsePolarity(size),
        labels_boxes=[Box((0, 0, 0), (8, 48, 32))], val_box=Box((0, 0, 24), (8, 48, 8)), test_box=None,
        guarded_box=None, crop_shape_zyx=(4, 16, 16), lessons=[Lesson(place, mask, "drawn")], margin_nm=60.0,
        previous_probability=MemoryVolume(np.full((3, 8, 48, 96), 20, np.uint8), size), min_confidence=0.9,
    )  # fmt: skip
    pre, post, union = lessons._crop(0, place, Box((3, 20, 58), (4, 16, 16))).target[:, 0, :6]
    expected = {
        "pre": [20, 20, *[CERTAIN] * 3, *[0] * 6, *[20] * 5],
        "post": [20, 20, *[0] * 6, *[CERTAIN] * 3, *[20] * 5],
    }
    expected["union"] = [20, 20, *[CERTAIN] * 9, *[20] * 5]
    for name, level in (("pre", pre), ("post", post), ("union", union)):
        assert (level == np.array(expected[name])).all(), name


def test_no_crop_is_centred_on_a_lesson_that_only_ignores(monkeypatch):
    mask = np.ones((2, 6, 6), np.uint8)
    lessons = world(0, 0, lessons=[Lesson(Box((3, 20, 60), mask.shape), mask, t) for t in ("mask", "ignore", "ignore")])
    assert set(drawn(lessons, [0, 0, 1], RefitConfig(replay_share=0.0), monkeypatch, 40)) == {0}
    lessons = world(0, 0, lessons=[Lesson(Box((3, 20, 60), mask.shape), mask, "ignore")])
    assert drawn(lessons, [0], RefitConfig(replay_share=0.0), monkeypatch, 20) == {-1: 20}


def test_memory_for_regions_is_bounded_without_changing_crops(monkeypatch):
    many, few = world(), world()
    monkeypatch.setattr("twostream.models.segmentation.lessons.MAX_REGION_BYTES", 1)
    for t in range(30):
        crops = [one.answer_crop(np.random.default_rng(t), t % 10) for one in (many, few)]
        assert all(np.array_equal(a, b) for a, b in zip(*crops, strict=True))
        assert len(few._regions) == 1


def test_a_refit_with_other_lessons_or_settings_is_not_resumed(tmp_path, capfd):
    s = new_segmenter(Mitochondria(SIZE), CONFIG, voxel_size_nm=SIZE, num_sections=8, grey=(127.0, 70.0), seed=0)
    mask = np.ones((4, 6, 6), np.uint8)
    other = [Lesson(Box((2, 4, 40), mask.shape), mask, "background")]
    first = {"lessons": world(), "asked_in": np.zeros(10, int), "settings": RefitConfig(num_steps=2)}
    for change in (
        {},
        {"settings": RefitConfig(num_steps=2, replay_share=0.1)},
        {"lessons": world(emphasis=7)},
        {"lessons": world(lessons=other), "asked_in": np.zeros(1, int)},
    ):
        now = first | change
        refit(s, now["lessons"], now["asked_in"], CONFIG, now["settings"], seed=1, resume_path=tmp_path / "r.resume")
        assert ("starts from the beginning" in capfd.readouterr().err) == bool(change)


def taught_of(kinds, candidates):
    mask = np.ones((1, 2, 2), np.uint8)
    lessons = [Lesson(Box((0, 0, 4 * i), mask.shape), mask, kind) for i, kind in enumerate(kinds)]
    return Taught(lessons, np.zeros(len(kinds), np.int64), np.array(candidates, np.int64))


def project_of(**settings):
    return SimpleNamespace(config=SimpleNamespace(refit=RefitConfig(**settings)), seed=lambda *_: 7)


def test_a_fifth_of_the_answers_that_can_be_ranked_is_held_out():
    ids = np.arange(1, 1001)
    kinds = [("mask", "background", "drawn", "ignore")[i % 4] for i in ids]
    out = held_out(project_of(), taught_of(kinds, ids))
    assert 0.17 < out[[kind != "ignore" for kind in kinds]].mean() < 0.23
    assert not out[[kind == "ignore" for kind in kinds]].any()
    for off in (project_of(judged=False), project_of(use_answers=False)):
        assert not held_out(off, taught_of(kinds, ids)).any()


def test_what_is_held_out_stays_so_when_other_answers_come_and_go():
    ids = np.arange(1, 101)
    out = held_out(project_of(), taught_of(["mask"] * 100, ids))
    rows = np.random.default_rng(0).permutation(100)[:40]
    assert (held_out(project_of(), taught_of(["background"] * 40, ids[rows])) == out[rows]).all()
    assert out.any() and not out.all()


def test_missed_objects_and_searched_windows_are_learned():
    assert not held_out(project_of(), taught_of(["drawn", "background"] * 50, [0] * 100)).any()
    assert len(held_out(project_of(), taught_of([], []))) == 0
