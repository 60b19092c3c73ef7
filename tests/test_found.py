"""Candidates whose masks wait in a file are those that were given, in the order of cells."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twostream.base.geometry import Box, corners_of, overlapping
from twostream.candidates.candidate import Candidate, corners
from twostream.candidates.found import ORDER_CELL_ZYX, Gathering
from twostream.candidates.identity import identify
from twostream.candidates.table import GROUP_ROWS, parts_of, write_parts


def some(number, seed=0):
    rng = np.random.default_rng(seed)
    result = []
    for _ in range(number):
        mask = rng.integers(0, 3, rng.integers(1, 6, 3)).astype(np.uint8)
        mask.flat[-1] = 1
        box = Box(tuple(rng.integers(0, (200, 1500, 1500)).tolist()), mask.shape)
        result.append(Candidate(0, 9, box, mask, float(rng.random())))
    return result


def first_voxel(candidate):
    return tuple((np.argwhere(candidate.mask > 0)[0] + candidate.box.offset_zyx).tolist())


def same(one, other):
    assert (one.box, one.score) == (other.box, other.score)
    np.testing.assert_array_equal(one.mask, other.mask)


@pytest.mark.parametrize("in_file", [False, True])
def test_they_come_back_by_cell_and_in_a_cell_by_their_first_voxel(tmp_path, monkeypatch, in_file):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    if in_file:
        monkeypatch.setattr("twostream.candidates.found.MAX_BYTES_IN_MEMORY", 1000)
    given_ = some(300)
    gathering = Gathering()
    for start in range(0, 300, 70):
        gathering.add(given_[start : start + 70])
    found = gathering.found()
    assert gathering._file._rolled == in_file

    def place(candidate):
        first = first_voxel(candidate)
        return tuple(f // c for f, c in zip(first, ORDER_CELL_ZYX, strict=True)), first

    for one, other in zip(found, sorted(given_, key=place), strict=True):
        same(one, other)
    assert [c.label for c in found] == list(range(1, 301)) and {c.id for c in found} == {0}
    np.testing.assert_array_equal(found.corners, corners_of(c.box for c in found))
    np.testing.assert_array_equal(corners(found), corners(list(found)))
    assert [c.score for c in found] == found.scores.tolist()
    same(found[-1], found[299])
    same(found[5:7][1], found[6])
    with pytest.raises(IndexError):
        found[300]
    assert list(tmp_path.iterdir()) == [], "the file has no name"


def test_some_of_them_are_labelled_anew():
    gathering = Gathering()
    gathering.add(some(20))
    found = gathering.found()
    kept = np.arange(20) % 3 == 0
    chosen = found.where(kept, first_label=100)
    assert [c.label for c in chosen] == list(range(100, 107)) and chosen.scores.tolist() == found.scores[kept].tolist()
    for one, row in zip(chosen, np.flatnonzero(kept).tolist(), strict=True):
        same(one, found[row])
    assert len(found.where(~found.scores.astype(bool))) == 0


def test_nothing_is_found_where_nothing_was_given():
    found = Gathering().found()
    assert len(found) == 0 and list(found) == [] and found.corners.shape == (0, 6)
    assert len(identify(found, [], 1)) == 0 and overlapping(found.corners, found.corners).shape == (0, 2)


def test_a_table_in_parts_has_the_types_of_the_whole_column(tmp_path):
    """A number above 2^63 - 1 in the second part makes the column one of unsigned numbers in the first one too."""
    number = GROUP_ROWS + 3
    mask = np.ones((1, 1, 1), np.uint8)
    candidates = [Candidate(i + 1, i + 1, Box((0, 0, i), (1, 1, 1)), mask, 0.5) for i in range(number)]
    ids = [*range(number - 1), 2**64 - 1]
    parts = list(
        parts_of(candidates, task="cleft", columns={"source_id": ids}, each={"twice": lambda one: 2 * one.label})
    )
    assert [part.num_rows for part in parts] == [GROUP_ROWS, 3] and parts[0].schema == parts[1].schema
    write_parts(parts, tmp_path / "t.parquet")
    assert parts[1]["source_id"].to_pylist() == ids[GROUP_ROWS:]
    assert parts[1]["twice"].to_pylist() == [2 * (GROUP_ROWS + i) for i in (1, 2, 3)]
    (empty,) = parts_of([], task="cleft", columns={"source_id": []})
    assert empty.num_rows == 0


extent = st.tuples(st.integers(-300, 300), st.integers(1, 300))
boxes = st.lists(
    st.tuples(extent, extent, extent).map(lambda spans: Box(tuple(a for a, _ in spans), tuple(n for _, n in spans))),
    max_size=12,
)


@given(boxes, boxes)
def test_pairs_of_boxes_that_meet_are_those_of_a_plain_search(some_boxes, others):
    plain = [(i, j) for i, one in enumerate(some_boxes) for j, other in enumerate(others) if one.intersects(other)]
    assert overlapping(corners_of(some_boxes), corners_of(others)).tolist() == [list(pair) for pair in plain]


def test_pairs_are_found_in_several_goes(monkeypatch):
    rng = np.random.default_rng(0)
    low = rng.integers(0, 500, (400, 3))
    corners_ = np.concatenate([low, low + rng.integers(1, 60, (400, 3))], axis=1)
    whole = overlapping(corners_, corners_[::2])
    monkeypatch.setattr("twostream.base.geometry.ROWS_AT_ONCE", 37)
    np.testing.assert_array_equal(overlapping(corners_, corners_[::2]), whole)
    assert len(whole) > 200
