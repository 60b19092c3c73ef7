"""Candidates: from a segmentation, as a table, their identity from round to round, and the threshold for proposing."""

from dataclasses import replace

import numpy as np
import pytest

from twostream.base.errors import InputError
from twostream.base.geometry import Box
from twostream.candidates.candidate import Candidate, clean, drop_low_scores, extract
from twostream.candidates.identity import identify
from twostream.candidates.stored import StoredCandidates
from twostream.candidates.table import read_table, to_table, write_parts
from twostream.candidates.thresholds import CandidateConfig, LabelledBox, mean_scores_at, proposing_threshold
from twostream.task import Mitochondria, SynapsePolarity
from twostream.volume import MemoryVolume


def volume(probability):
    return MemoryVolume(probability, (30.0, 8.0, 8.0))


def bar(start, stop, identity=0, side=1):
    """A candidate that fills x = start..stop of one row."""
    return Candidate(
        identity, 1, Box((0, 0, start), (1, 1, stop - start)), np.full((1, 1, stop - start), side, np.uint8), 0.5
    )


def test_clean_drops_small_instances_and_numbers_in_raster_order():
    segmentation = np.zeros((2, 3, 8), np.uint32)
    segmentation[0, 0, 6:] = 4
    segmentation[0, 1, :3] = 2
    segmentation[1, 2, 7] = 1  # too small
    result = clean(segmentation, Mitochondria((30.0, 8.0, 8.0)), min_voxels=2)
    assert result[0, 0, 7] == 1 and result[0, 1, 0] == 2 and result[1, 2, 7] == 0


def test_clean_keeps_the_sides_of_synapses_together():
    segmentation = np.zeros((1, 2, 8), np.uint32)
    segmentation[0, 0, :4] = 5, 5, 6, 6
    segmentation[0, 1, :3] = 2, 2, 2  # a synapse without a presynaptic side
    result = clean(segmentation, SynapsePolarity((30.0, 8.0, 8.0)), min_voxels=2)
    assert result[0, 0, :4].tolist() == [1, 1, 2, 2]
    assert result[0, 1, :3].tolist() == [4, 4, 4]


def test_instances_with_a_low_mean_probability_are_dropped_with_both_sides():
    segmentation = np.array([[[1, 2, 2, 0, 3, 4, 4, 5]]], np.uint32)  # synapses 1 (both sides), 2 (both), 3 (pre)
    probability = np.array([[[100, 200, 204, 255, 50, 200, 101, 153]]], np.uint8)  # means 168, 117, 153
    task = SynapsePolarity((30.0, 8.0, 8.0))
    kept = {m: np.unique(drop_low_scores(segmentation, probability, task, m)).tolist() for m in (0, 0.6, 0.61)}
    assert kept == {0: [0, 1, 2, 3, 4, 5], 0.6: [0, 1, 2, 5], 0.61: [0, 1, 2]}  # 0.6 is 153 exactly


def test_mean_scores_at_takes_the_instance_that_covers_most_of_a_candidate():
    """Candidates and final segmentation have different thresholds, so their masks differ."""
    now = [replace(bar(*span), score=score) for *span, score in ((2, 12, 0.52), (12, 15, 0.8), (30, 32, 1.0))]
    asked = [bar(4, 8), bar(8, 15), bar(20, 25), bar(29, 31)]
    assert mean_scores_at(asked, now).tolist() == [0.52, 0.52, 0.0, 1.0]
    # Of two instances that cover as much of it, the first in raster order.
    assert mean_scores_at([bar(10, 14)], now[::1]).tolist() == [0.52]
    sides = replace(bar(1, 8), mask=np.array([[[1, 1, 1, 2, 2, 2, 2]]], np.uint8), score=0.4)
    assert mean_scores_at([bar(1, 4)], [sides]).tolist() == [0.4]


def test_extract_gives_box_mask_and_score():
    segmentation = np.zeros((2, 4, 5), np.uint32)
    segmentation[1, 1:3, 2:4] = 1
    segmentation[1, 1, 2] = 0
    probability = np.full(segmentation.shape, 51, np.uint8)
    (candidate,) = extract(segmentation, probability, Mitochondria((30.0, 8.0, 8.0)), (10, 20, 30))
    assert candidate.box == Box((11, 21, 32), (1, 2, 2))
    assert candidate.num_voxels == 3 and candidate.score == pytest.approx(0.2)
    np.testing.assert_allclose(candidate.center_zyx, [11, 21 + 2 / 3, 32 + 2 / 3])


class TestIdentity:
    def ids(self, new, known, next_id=100):
        return [(c.id, c.parent_ids) for c in identify(new, known, next_id)]

    def test_the_first_round_numbers_in_order(self):
        assert self.ids([bar(0, 5), bar(10, 15)], [], 1) == [(1, ()), (2, ())]

    def test_a_candidate_whose_mask_hardly_changed_keeps_its_id(self):
        assert self.ids([bar(0, 10)], [bar(0, 9, 7)]) == [(7, ())]

    def test_a_candidate_whose_mask_changed_gets_a_new_id_and_a_parent(self):
        assert self.ids([bar(0, 10)], [bar(4, 14, 7)]) == [(100, (7,))]

    def test_the_threshold_is_inclusive(self):
        assert self.ids([bar(0, 10)], [bar(0, 7, 7)]) == [(7, ())]  # IoU exactly 0.7

    def test_after_a_split_one_part_at_most_keeps_the_id(self):
        assert self.ids([bar(0, 8), bar(8, 10)], [bar(0, 10, 7)]) == [(7, ()), (100, (7,))]
        assert self.ids([bar(0, 5), bar(5, 10)], [bar(0, 10, 7)]) == [(100, (7,)), (101, (7,))]

    def test_a_merged_candidate_has_both_parents(self):
        assert self.ids([bar(0, 10)], [bar(0, 5, 7), bar(5, 10, 8)]) == [(100, (7, 8))]

    def test_of_two_known_candidates_the_better_match_gives_the_id(self):
        # Both have an IoU of at least 0.7; the result does not depend on their order.
        for known in ([bar(0, 8, 7), bar(0, 9, 8)], [bar(0, 9, 8), bar(0, 8, 7)]):
            assert self.ids([bar(0, 10)], known) == [(8, ())]

    def test_a_candidate_with_exchanged_sides_gets_a_new_id(self):
        assert self.ids([bar(0, 10, side=2)], [bar(0, 10, 7, side=1)]) == [(100, (7,))]

    def test_new_ids_are_given_in_raster_order(self):
        assert [i for i, _ in self.ids([bar(0, 3), bar(5, 9), bar(10, 12)], [bar(5, 9, 3)])] == [100, 3, 101]

    def test_the_spatial_index_finds_the_same_parents_as_comparing_all_pairs(self):
        rng = np.random.default_rng(0)

        def some(number, first):
            boxes = [
                Box(tuple(rng.integers(0, 200, 3).tolist()), tuple(rng.integers(1, 60, 3).tolist()))
                for _ in range(number)
            ]
            return [Candidate(first + i, 1, b, np.ones(b.shape_zyx, np.uint8), 0.5) for i, b in enumerate(boxes)]

        new, known = some(30, 0), some(30, 1)
        parents = [set(c.parent_ids) for c in identify(new, known, 1000)]
        for candidate, found in zip(new, parents, strict=True):
            expected = set()
            for old in known:
                shared = candidate.box.intersection(old.box).num_voxels
                if shared >= 0.25 * min(candidate.num_voxels, old.num_voxels):
                    expected.add(old.id)
            assert found == expected


def test_a_table_that_was_written_and_read_has_the_same_candidates(tmp_path):
    candidates = [
        bar(0, 5, 3),
        Candidate(9, 2, Box((1, 2, 3), (2, 1, 2)), np.array([[[1, 2]], [[0, 1]]], np.uint8), 0.25, (3, 4)),
    ]
    table = to_table(candidates, task="polarity", extra={"angle_deg": [0.0, 45.0]})
    write_parts([table], tmp_path / "candidates.parquet")
    table = read_table(tmp_path / "candidates.parquet")
    back = StoredCandidates.open(tmp_path / "candidates.parquet")
    assert table["angle_deg"].to_pylist() == [0.0, 45.0] and table["box_x1"].to_pylist() == [5, 5]
    assert table["task"].to_pylist() == ["polarity"] * 2 and table["volume"].to_pylist() == ["image"] * 2
    for a, b in zip(candidates, back, strict=True):
        assert (a.id, a.label, a.box, a.score, a.parent_ids) == (b.id, b.label, b.box, b.score, b.parent_ids)
        np.testing.assert_array_equal(a.mask, b.mask)


def test_tables_without_volume_and_task_can_still_be_read(tmp_path):
    """Earlier versions wrote tables without these columns."""
    table = to_table([bar(0, 5, 3), bar(7, 9, 4)], task="cleft", volume="other")
    write_parts([table.drop_columns(["volume", "task"])], tmp_path / "old.parquet")
    old = StoredCandidates.open(tmp_path / "old.parquet")
    assert [(c.id, c.box, c.score) for c in old] == [(c.id, c.box, c.score) for c in (bar(0, 5, 3), bar(7, 9, 4))]
    assert set(table["volume"].to_pylist()) == {"other"}


def test_a_table_without_candidates_has_all_columns():
    full, empty = to_table([bar(0, 5, 3)], task="cleft"), to_table([], task="cleft")
    assert empty.num_rows == 0 and empty.schema.equals(full.schema)


def test_a_damaged_table_is_an_error_that_names_the_file(tmp_path):
    (tmp_path / "candidates.parquet").write_bytes(b"PAR1 cut off")
    with pytest.raises(InputError, match="cannot be read as a candidate table"):
        read_table(tmp_path / "candidates.parquet")


def test_proposing_threshold_reaches_the_recall_first():
    truth = np.zeros((1, 10, 30), np.uint32)
    probability = np.zeros((1, 1, 10, 30), np.uint8)
    for i, level in enumerate((230, 140, 60)):  # three objects with decreasing probability
        truth[0, 2:8, 10 * i + 2 : 10 * i + 8] = i + 1
        probability[0, 0, 2:8, 10 * i + 2 : 10 * i + 8] = level
    task = Mitochondria((30.0, 8.0, 8.0))
    boxes = [LabelledBox(Box.whole(truth.shape), truth, None)]
    chosen = proposing_threshold(volume(probability), boxes, task, CandidateConfig(min_recall=0.9), 1)
    assert chosen[0] < 60 / 255 and chosen[1] == 1.0
    # With a lower min_recall the low threshold is still the best, because it has more good candidates.
    assert proposing_threshold(volume(probability), boxes, task, CandidateConfig(min_recall=0.6), 1) == chosen
    fixed = proposing_threshold(volume(probability), boxes, task, CandidateConfig(threshold=0.77), 1)
    assert fixed == (0.77, pytest.approx(1 / 3))


def test_of_equally_good_proposing_thresholds_the_one_nearest_to_one_half_is_chosen():
    truth = np.zeros((1, 10, 300), np.uint32)
    probability = np.zeros((1, 1, 10, 300), np.uint8)
    for i in range(30):
        truth[0, 2:8, 10 * i + 2 : 10 * i + 8] = i + 1
        probability[0, 0, 2:8, 10 * i + 2 : 10 * i + 8] = 250 if i else 20  # one object is found below 0.1 only
    task = Mitochondria((30.0, 8.0, 8.0))
    boxes = [LabelledBox(Box.whole(truth.shape), truth, None)]
    assert proposing_threshold(volume(probability), boxes, task, CandidateConfig(), 1) == (0.5, pytest.approx(29 / 30))
    assert proposing_threshold(volume(probability), boxes, task, CandidateConfig(min_recall=1.0), 1) == (0.05, 1.0)
