"""The truth rule, targets, decoding and label conventions of the tasks."""

import numpy as np
import pytest

from twostream.base.errors import ConfigError, InputError
from twostream.task import CERTAIN, DecodingConfig, Mitochondria, SynapsePolarity, SynapticCleft, get_task
from twostream.task.answers import MEANING, AnswerKind
from twostream.task.metrics import Overlaps
from twostream.testing import TaskExam


class TestMitochondria(TaskExam):
    def make(self, voxel_size_nm):
        return Mitochondria(voxel_size_nm)


class TestMitochondriaOfThreeChannels(TaskExam):
    def make(self, voxel_size_nm):
        return Mitochondria(voxel_size_nm, DecodingConfig(channels=("foreground", "contour", "distance")))


class TestMitochondriaByComponents(TaskExam):
    def make(self, voxel_size_nm):
        return Mitochondria(voxel_size_nm, DecodingConfig(method="components"))


class TestClefts(TaskExam):
    def make(self, voxel_size_nm):
        return SynapticCleft(voxel_size_nm)


class TestPolarity(TaskExam):
    def make(self, voxel_size_nm):
        return SynapsePolarity(voxel_size_nm)


class TestPolarityAcrossAGap(TaskExam):
    """Sides with a cleft of four voxels between them."""

    def make(self, voxel_size_nm):
        return SynapsePolarity(voxel_size_nm)

    def objects(self, task):
        labels = super().objects(task)
        pre = labels % 2 == 1
        for step in (-1, 1):
            for shift in (1, 2):
                labels[(labels > 0) & ~pre & np.roll(pre, step * shift, axis=2)] = 0
        return labels


def judge(task, segmentation, truth, ignore=None):
    return task.judge(Overlaps.of(np.asarray(segmentation), np.asarray(truth), ignore))


def row(*values):
    return np.array([[values]], np.uint32)


@pytest.mark.parametrize(
    ("candidate", "truth", "kind"),
    [
        (row(1, 1, 1, 1), row(5, 5, 5, 0), AnswerKind.TRUE),  # IoU 3/4
        (row(1, 1, 0, 0), row(5, 5, 5, 5), AnswerKind.TRUE),  # IoU exactly 1/2
        (row(1, 1, 1, 1), row(5, 0, 0, 0), AnswerKind.SHAPE),  # a quarter inside
        (row(1, 1, 1, 1), row(0, 0, 0, 0), AnswerKind.NOTHING),
        (row(*[1] * 20), row(5, *[0] * 19), AnswerKind.NOTHING),  # 5 percent inside
        (row(*[1] * 10), row(5, *[0] * 9), AnswerKind.SHAPE),  # exactly 10 percent is not "fewer than"
    ],
)
def test_the_truth_rule(candidate, truth, kind):
    assert judge(Mitochondria((30.0, 8.0, 8.0)), candidate, truth)[1].kind is kind


def test_mergers_and_splits_are_matched_one_to_one():
    merger = judge(Mitochondria((30.0, 8.0, 8.0)), row(1, 1, 1, 1, 1, 1), row(5, 5, 0, 6, 6, 6))
    assert merger[1].kind is AnswerKind.TRUE and merger[1].truth == 6  # IoU 3/6 with the larger one
    split = judge(Mitochondria((30.0, 8.0, 8.0)), row(1, 1, 2, 2), row(5, 5, 5, 5))
    assert [split[i].kind for i in (1, 2)] == [AnswerKind.TRUE, AnswerKind.SHAPE]


def test_a_candidate_mostly_in_the_ignore_mask_is_unsure():
    ignore = row(1, 1, 1, 0)
    assert judge(Mitochondria((30.0, 8.0, 8.0)), row(1, 1, 1, 1), row(0, 0, 0, 0), ignore)[1].kind is AnswerKind.UNSURE


@pytest.mark.parametrize(
    ("candidate", "kind"),
    [
        (row(1, 1, 2, 2), AnswerKind.TRUE),
        (row(2, 2, 1, 1), AnswerKind.SHAPE),  # right place, sides exchanged
        (row(1, 1, 0, 0), AnswerKind.TRUE),  # one side missing, half the union
    ],
)
def test_a_synapse_with_exchanged_sides_is_a_wrong_shape(candidate, kind):
    assert judge(SynapsePolarity((30.0, 8.0, 8.0)), candidate, row(9, 9, 10, 10))[1].kind is kind


def test_every_kind_means_what_the_contract_says():
    table = {kind.value: (MEANING[kind].y, MEANING[kind].teaches, MEANING[kind].in_budget) for kind in AnswerKind}
    assert table["true"] == (1.0, "mask", True)
    assert table["nothing"] == (0.0, "background", True)
    assert table["shape"] == (0.0, "ignore", True)
    assert table["swapped"] == (1.0, "exchanged", True)
    assert table["corrected"] == (0.0, "drawn", True)
    assert np.isnan(table["missed"][0]) and table["missed"][1:] == ("drawn", True)
    assert np.isnan(table["none_missed"][0]) and table["none_missed"][1:] == ("", True)
    assert np.isnan(table["unsure"][0]) and table["unsure"][1:] == ("", True)
    assert np.isnan(table["skipped"][0]) and table["skipped"][1:] == ("", False)
    assert [kind for kind in AnswerKind if MEANING[kind].may_be_asked_again] == [AnswerKind.SKIPPED]


def two_synapses():
    labels = np.zeros((2, 20, 40), np.uint32)
    labels[:, 4:16, 5:10], labels[:, 4:16, 12:17] = 1, 2  # pre left, cleft of two voxels
    labels[:, 4:16, 29:34], labels[:, 4:16, 22:27] = 3, 4  # pre right
    return labels


def test_decoding_the_polarity_target_restores_the_labels():
    task, labels = SynapsePolarity((30.0, 8.0, 8.0)), two_synapses()
    target = task.target(labels)
    assert target.shape == (3, 2, 20, 40) and set(np.unique(target)) == {0, CERTAIN}
    assert (target[2][target[0] > 0] > 0).all() and target[2, 0, 8, 10] == CERTAIN  # the union spans the cleft
    decoded = task.decode(target, 0.5)
    np.testing.assert_array_equal(decoded % 2, labels % 2)
    kinds = judge(task, decoded, labels)
    assert {j.kind for j in kinds.values()} == {AnswerKind.TRUE} and len(kinds) == 2


def test_crop_marks_pre_with_1_and_post_with_2():
    labels = two_synapses()
    mask = SynapsePolarity((30.0, 8.0, 8.0)).crop(labels, 2)
    assert mask.dtype == np.uint8 and mask[0, 8, 30] == 1 and mask[0, 8, 24] == 2 and mask[0, 8, 6] == 0
    assert Mitochondria((30.0, 8.0, 8.0)).crop(labels, 2).sum() == (labels == 2).sum()


def test_invalid_label_values_are_errors():
    Mitochondria((30.0, 8.0, 8.0)).check_values({0, 1, 7}, "a.h5:m")
    SynapsePolarity((30.0, 8.0, 8.0)).check_values({0, 1, 2, 5}, "a.h5:s")
    for values in ({0, -1}, {0, 2**64 - 1}):
        with pytest.raises(InputError, match=r"a.h5:m holds the label .* pass --ignore-value"):
            Mitochondria((30.0, 8.0, 8.0)).check_values(values, "a.h5:m")
    with pytest.raises(InputError, match="none has both sides"):
        SynapsePolarity((30.0, 8.0, 8.0)).check_values({0, 2, 4}, "a.h5:s")


def test_an_unknown_task_is_an_error_that_lists_the_tasks():
    with pytest.raises(ConfigError, match="task is 'axon'; expected one of polarity, cleft, mitochondria"):
        get_task("axon", (30, 8, 8))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.uint32, np.int64])
def test_the_highest_label_of_a_type_does_not_wrap(dtype):
    top = int(np.iinfo(dtype).max)
    joined = SynapsePolarity((30.0, 8.0, 8.0)).instances(np.array([0, 1, 2, top - 1, top], dtype))
    assert joined.tolist() == [0, 1, 1, top // 2, (top + 1) // 2]
