"""The exam of a task."""

from __future__ import annotations

import pickle
from itertools import product

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from twostream.base.errors import InputError
from twostream.task import CERTAIN, GOOD_IOU, IGNORE, NOTHING_SHARE, Judgement, Task
from twostream.task.answers import AnswerKind
from twostream.task.metrics import Overlaps
from twostream.task.metrics.detection import IGNORED_SHARE
from twostream.task.task import MAX_LABEL
from twostream.volume.components import closed, components

VOXEL_SIZE_NM = (30.0, 8.0, 8.0)
SHAPE_ZYX = (8, 48, 64)
OBJECTS = (
    (slice(1, 5), slice(4, 16), slice(6, 18)),
    (slice(2, 7), slice(24, 40), slice(10, 22)),
    (slice(0, 3), slice(6, 20), slice(36, 48)),
    (slice(3, 8), slice(28, 44), slice(40, 58)),
)
"""Four cuboids that do not touch; two of them reach the first or the last section."""
NUM_WORLDS = 40


def brute_force(task: Task, segmentation: np.ndarray, truth: np.ndarray, ignore: np.ndarray) -> dict[int, Judgement]:
    """The truth rule by sets of voxels, without any table; see ``Task.judge``."""
    sides = task.num_sides
    candidate = (segmentation.astype(int) + sides - 1) // sides
    wanted = (truth.astype(int) + sides - 1) // sides
    hidden = (ignore > 0) & (truth == 0)
    ious = {}
    for c, t in product(sorted(set(candidate.flat) - {0}), sorted(set(wanted.flat) - {0})):
        mine, its = (candidate == c) & ~hidden, wanted == t
        if (mine & its).any():
            ious[c, t] = (mine & its).sum() / (mine | its).sum()
    matched: dict[int, int] = {}
    for (c, t), iou in sorted(ious.items(), key=lambda item: (-item[1], item[0])):
        if iou >= GOOD_IOU and c not in matched and t not in matched.values():
            matched[c] = t
    result = {}
    for c in sorted(set(candidate.flat) - {0}):
        mine, lost = (candidate == c) & ~hidden, (candidate == c) & hidden
        kind, best = AnswerKind.SHAPE, max((iou for (a, _), iou in ious.items() if a == c), default=0.0)
        on_match = mine & (wanted == matched.get(c, -1))
        like = (segmentation % 2 == truth % 2)[on_match]
        if c in matched and (sides == 1 or like.sum() > (~like).sum()):
            kind = AnswerKind.TRUE
        elif lost.sum() >= IGNORED_SHARE * (mine.sum() + lost.sum()):
            kind = AnswerKind.UNSURE
        elif (mine & (wanted > 0)).sum() < NOTHING_SHARE * mine.sum():
            kind = AnswerKind.NOTHING
        result[c] = Judgement(kind, matched[c] if kind is AnswerKind.TRUE else 0, best)
    return result


def world(num_sides: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Candidates, truth and ignore mask, (2, 12, 16) each: candidates are the truth, disturbed in many ways."""
    rng = np.random.default_rng(seed)
    truth = np.kron(rng.integers(0, 5, (1, 3, 4)), np.ones((2, 4, 4), int))
    segmentation = np.roll(truth, rng.integers(0, 3, 2), axis=(1, 2))
    segmentation = rng.permutation(5)[segmentation] * (rng.random(truth.shape) < rng.uniform(0.6, 1.0))
    ignore = np.kron(rng.random((1, 3, 4)) < 0.3, np.ones((2, 4, 4), int)).astype(np.uint8)
    if num_sides == 2:
        is_pre = np.indices(truth.shape)[2] % 4 < 2
        turned = rng.random(5) < 0.4
        truth = np.where(truth > 0, 2 * truth - is_pre, 0)
        segmentation = np.where(segmentation > 0, 2 * segmentation - (is_pre ^ turned[segmentation]), 0)
    return segmentation.astype(np.uint32), truth.astype(np.uint32), ignore


class TaskExam:
    """What every task must do.

    Supply ``make``. The exam looks at four cuboids of half a micrometre; a task that looks for objects of another size
    or shape overrides ``objects``.

    Examined: what the task says about itself; targets (shape, levels, objects certain and the rest background, labels
    of any integer type and size, input unchanged, flipped with the labels, no farther view than ``reach_voxels``, known
    only where unknown labels do not change it); that a target decodes to the objects that it was made of, sides
    included; that decoding repeats itself, keeps to the threshold and treats each island by itself; the truth rule
    against a count voxel by voxel;
    the label convention (2n-1 and 2n for objects with sides); ``check_values``; background levels; pickling.
    """

    def make(self, voxel_size_nm: tuple[float, float, float]) -> Task:
        """The task at a voxel size, (z, y, x) nm."""
        raise NotImplementedError

    def objects(self, task: Task) -> np.ndarray:
        """(Z, Y, X) uint32 labels 1..n in the task's convention; objects that do not touch and are no dust."""
        labels = np.zeros(SHAPE_ZYX, np.uint32)
        for n, place in enumerate(OBJECTS, start=1):
            labels[place] = n if task.num_sides == 1 else 2 * n
            if task.num_sides == 2:
                z, y, x = place
                middle = (x.start + x.stop) // 2
                labels[z, y, slice(x.start, middle) if n % 2 else slice(middle, x.stop)] = 2 * n - 1
        return labels

    @pytest.fixture
    def task(self) -> Task:
        return self.make(VOXEL_SIZE_NM)

    def test_it_describes_itself(self, task: Task) -> None:
        assert isinstance(task, Task) and task.name and task.name == task.name.lower()
        assert len(task.channels) > 0 and len(set(task.channels)) == len(task.channels)
        assert 0 <= task.foreground < len(task.channels) and task.num_sides in (1, 2)
        assert min(task.pixel_size_nm, task.patch_pixel_size_nm, task.min_object_nm3) > 0
        assert task.voxel_size_nm == VOXEL_SIZE_NM and task.min_seed_voxels >= 1
        assert [type(n) for n in task.reach_voxels] == [int] * 3 and min(task.reach_voxels) >= 0

    # -- targets --------------------------------------------------------------------------------------------------

    def test_a_target_holds_the_objects(self, task: Task) -> None:
        labels = self.objects(task)
        labels.flags.writeable = False  # as an array that is mapped from a file
        target = task.target(labels)
        assert target.shape == (len(task.channels), *labels.shape) and target.dtype == np.uint8
        foreground = target[task.foreground]
        assert (foreground[labels > 0] == CERTAIN).all()
        near = np.zeros(labels.shape, bool)  # between the sides of an object the foreground may fill a gap
        for n in set(task.instances(labels).flat) - {0}:
            where = np.argwhere(task.instances(labels) == n)
            near[tuple(slice(a, b + 1) for a, b in zip(where.min(0), where.max(0), strict=True))] = True
        assert (foreground[~near] == 0).all()

    def test_a_target_does_not_depend_on_label_numbers(self, task: Task) -> None:
        labels = self.objects(task)
        target = task.target(labels)
        for dtype in (np.uint8, np.uint16, np.int32, np.int64, np.uint64):
            np.testing.assert_array_equal(task.target(labels.astype(dtype)), target)
        large = np.where(labels > 0, labels.astype(np.uint64) + np.uint64(10**12), np.uint64(0))
        np.testing.assert_array_equal(task.target(large), target)

    def test_background_levels_are_those_of_an_empty_volume(self, task: Task) -> None:
        empty = np.zeros((3, 8, 9), np.uint32)
        level, target = task.background, task.target(empty)
        assert level.shape == (len(task.channels),) and level.dtype == np.uint8
        assert level[task.foreground] == 0
        for channel in np.flatnonzero(level != IGNORE):
            assert (target[channel] == level[channel]).all()
        decoded = task.decode(np.zeros((len(task.channels), *empty.shape), np.uint8), 0.5)
        assert decoded.shape == empty.shape and decoded.dtype == np.uint32 and not decoded.any()

    def test_a_flipped_volume_has_the_flipped_target(self, task: Task) -> None:
        labels = self.objects(task)
        target = task.target(labels).astype(int)
        for axis in range(3):
            flipped = np.flip(task.target(np.flip(labels, axis)).astype(int), axis + 1)
            assert abs(flipped - target).max() <= 1

    def test_a_target_depends_on_nothing_beyond_its_reach(self, task: Task) -> None:
        """What lies beyond ``reach_voxels`` does not change it: samples of a training are cut out with that margin."""
        labels = self.objects(task)
        target, num_compared = task.target(labels).astype(int), 0
        for axis, reach in enumerate(task.reach_voxels):
            size = labels.shape[axis]
            for cut in range(1, size):
                for start, stop in ((0, cut), (cut, size)):
                    part, inner = [slice(None)] * 3, [slice(None)] * 3
                    part[axis] = slice(start, stop)
                    inner[axis] = slice(start + reach if start else 0, stop - reach if stop < size else size)
                    if inner[axis].start >= inner[axis].stop:
                        continue
                    found = np.full(target.shape, -1)
                    found[(slice(None), *part)] = task.target(labels[tuple(part)])
                    compared = (slice(None), *inner)
                    assert abs(found[compared] - target[compared]).max() <= 1, f"cut at {cut} along axis {axis}"
                    num_compared += 1
        assert num_compared > 0, "reach_voxels is larger than the volume of the exam; override objects"

    def test_a_target_is_known_only_where_unknown_labels_do_not_change_it(self, task: Task) -> None:
        """Labels end at the face of a box: what is taught inside must be true whatever lies beyond."""
        labels = self.objects(task)
        target = task.target(labels).astype(int)
        for axis, size in enumerate(labels.shape):
            for cut in range(1, size, 3):
                for start, stop in ((0, cut), (cut, size)):
                    unknown = np.ones(labels.shape, bool)
                    np.moveaxis(unknown, axis, 0)[start:stop] = False
                    known = np.where(unknown, labels.dtype.type(0), labels)
                    uncertain = task.uncertain(known, unknown)
                    assert uncertain.shape == target.shape and uncertain.dtype == bool and uncertain[:, unknown].all()
                    assert not uncertain[task.foreground][known > 0].any(), "foreground is known where labels are"
                    difference = abs(task.target(known).astype(int) - target)[~uncertain]
                    assert difference.max(initial=0) <= 1, f"cut at {cut} along axis {axis}"

    # -- decoding -------------------------------------------------------------------------------------------------

    def test_decoding_a_target_restores_the_labels(self, task: Task) -> None:
        labels = self.objects(task)
        target = task.target(labels)
        decoded = task.decode(np.where(target == IGNORE, 0, target).astype(np.uint8), 0.5)
        assert decoded.dtype == np.uint32 and decoded.shape == labels.shape
        np.testing.assert_array_equal(decoded > 0, labels > 0)
        pairs = set(zip(task.instances(decoded).flat, task.instances(labels).flat, strict=True))
        assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}), "objects were joined or cut"
        if task.num_sides == 2:
            np.testing.assert_array_equal(decoded % 2, labels % 2)
        judged = task.judge(Overlaps.of(decoded, labels))
        assert {j.kind for j in judged.values()} == {AnswerKind.TRUE}
        assert {j.truth for j in judged.values()} == set(task.instances(labels).flat) - {0}

    @pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.9, 1.0])
    def test_decoding_repeats_itself_and_keeps_to_the_threshold(self, task: Task, threshold: float) -> None:
        coarse = np.random.default_rng(0).integers(0, 256, (len(task.channels), 4, 6, 8))
        probability = np.kron(coarse, np.ones((1, 2, 4, 4), int)).astype(np.uint8)
        before = probability.copy()
        decoded = task.decode(probability, threshold)
        np.testing.assert_array_equal(probability, before)
        np.testing.assert_array_equal(task.decode(probability, threshold), decoded)
        assert decoded.dtype == np.uint32 and decoded.shape == probability.shape[1:]
        assert (probability[task.foreground][decoded > 0] > 255 * threshold).all()

    @pytest.mark.parametrize("threshold", [0.3, 0.6])
    def test_islands_are_decoded_by_themselves(self, task: Task, threshold: float) -> None:
        """An island cut out of the volume gives the instances that it has in it (``candidates/proposing.py``)."""
        assert [type(n) for n in task.joins_within_voxels] == [int] * 3 and min(task.joins_within_voxels) >= 1
        num_islands = 0
        for seed in range(8):
            noise = np.random.default_rng(seed).normal(size=(len(task.channels), 8, 40, 48))
            noise = gaussian_filter(noise, (0, 0.7, *[1 + seed % 2] * 2))
            probability = np.clip(300 * noise / noise.std() - 100, 0, 255).astype(np.uint8)
            decoded = task.decode(probability, threshold)
            mask = probability[task.foreground] > 255 * threshold
            islands = components(closed(mask, task.joins_within_voxels))
            owners = set(zip(task.instances(decoded)[decoded > 0], islands[decoded > 0], strict=True))
            assert len(owners) == len({n for n, _ in owners}), "joined farther than joins_within_voxels"
            for island in range(1, int(islands.max()) + 1):
                where = np.argwhere(islands == island)
                window = tuple(slice(a, b + 1) for a, b in zip(where.min(0), where.max(0), strict=True))
                inside = (islands[window] == island) & mask[window]
                alone = task.decode(probability[(slice(None), *window)] * inside, threshold)
                there = np.where(inside, decoded[window], 0)
                np.testing.assert_array_equal(alone > 0, there > 0)
                pairs = set(zip(alone.flat, there.flat, strict=True))
                assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}), "joined or cut"
                num_islands += 1
        assert num_islands >= 10

    # -- labels and truth -----------------------------------------------------------------------------------------

    def test_the_truth_rule_equals_a_count_of_voxels(self, task: Task) -> None:
        seen = set()
        for seed in range(NUM_WORLDS):
            segmentation, truth, ignore = world(task.num_sides, seed)
            for mask in (np.zeros_like(ignore), ignore):
                judged = task.judge(Overlaps.of(segmentation, truth, mask))
                expected = brute_force(task, segmentation, truth, mask)
                assert judged.keys() == expected.keys()
                for label, judgement in judged.items():
                    wanted = expected[label]
                    assert (judgement.kind, judgement.truth) == (wanted.kind, wanted.truth), f"world {seed}, {label}"
                    assert judgement.best_iou == pytest.approx(wanted.best_iou)
                    seen.add(judgement.kind)
        assert seen == {AnswerKind.TRUE, AnswerKind.SHAPE, AnswerKind.NOTHING, AnswerKind.UNSURE}

    def test_labels_follow_the_convention(self, task: Task) -> None:
        values = np.array([[[0, 1, 2, 3, 4, 7, 254, 255]]], np.uint8)
        instances = task.instances(values)
        expected = values if task.num_sides == 1 else np.array([[[0, 1, 1, 2, 2, 4, 127, 128]]])
        np.testing.assert_array_equal(instances, expected)
        assert [task.instance_of(v) for v in values.ravel().tolist()] == expected.ravel().tolist()
        assert task.values_of(7) == ((7,) if task.num_sides == 1 else (13, 14))
        labels = self.objects(task)
        for n in sorted(set(task.instances(labels).flat) - {0}):
            mask = task.crop(labels, n)
            assert mask.dtype == np.uint8 and mask.shape == labels.shape
            sides = [labels == n] if task.num_sides == 1 else [labels == 2 * n - 1, labels == 2 * n]
            np.testing.assert_array_equal(mask, sum(value * side for value, side in enumerate(sides, start=1)))

    def test_label_values_are_checked(self, task: Task) -> None:
        values = {int(v) for v in np.unique(self.objects(task))}
        task.check_values(values, "a.h5:labels")
        task.check_values(values - {0}, "a.h5:labels")
        task.check_values({0}, "a.h5:labels")
        task.check_values(set(), "a.h5:labels")
        for bad in (-1, MAX_LABEL + 1, 2**64 - 1):
            with pytest.raises(InputError, match=rf"a\.h5:labels holds the label {bad}"):
                task.check_values(values | {bad}, "a.h5:labels")
        if task.num_sides == 2:
            with pytest.raises(InputError, match="none has both sides"):
                task.check_values({0, 2, 4, 7}, "a.h5:labels")

    def test_it_can_be_pickled(self, task: Task) -> None:
        arrived, labels = pickle.loads(pickle.dumps(task)), self.objects(task)
        assert arrived.voxel_size_nm == task.voxel_size_nm and arrived.channels == task.channels
        np.testing.assert_array_equal(arrived.target(labels), task.target(labels))
