"""Candidates that stay in their table: the same as when all are held, and only what is asked for is read."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from twostream.base.errors import InputError
from twostream.base.geometry import Box
from twostream.candidates.candidate import Candidate
from twostream.candidates.stored import KEPT_GROUPS, Joined, StoredCandidates
from twostream.candidates.table import to_table, write_parts
from twostream.rounds import pool

NUM = 57


def drawn(number):
    rng = np.random.default_rng(number)
    shape = tuple(rng.integers(1, 5, 3).tolist())
    mask = rng.integers(0, 3, shape).astype(np.uint8)
    mask[0, 0, 0] = 1
    box = Box(tuple(rng.integers(0, 40, 3).tolist()), shape)
    return Candidate(1000 - number, number + 1, box, mask, float(rng.random()), tuple(range(number % 3)))


CANDIDATES = [drawn(number) for number in range(NUM)]
FAINT = [number % 5 == 0 for number in range(NUM)]


def same(a, b):
    assert (a.id, a.label, a.box, a.score, a.parent_ids) == (b.id, b.label, b.box, b.score, b.parent_ids)
    np.testing.assert_array_equal(a.mask, b.mask)
    assert a.mask.dtype == np.uint8


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setattr("twostream.candidates.table.GROUP_ROWS", 4)
    write_parts([to_table(CANDIDATES, task="polarity", extra={"faint": FAINT})], tmp_path / "candidates.parquet")
    return tmp_path / "candidates.parquet"


def test_one_by_one_and_in_any_order_they_are_those_that_were_written(path):
    stored = StoredCandidates.open(path)
    for a, b in zip(stored, CANDIDATES, strict=True):
        same(a, b)
    rows = np.random.default_rng(0).integers(0, NUM, 200)
    for row, candidate in zip(rows, stored.take(rows), strict=True):
        same(candidate, CANDIDATES[row])
    same(stored[-1], CANDIDATES[-1])
    assert [c.id for c in stored[3:9:2]] == [c.id for c in CANDIDATES[3:9:2]]
    with pytest.raises(IndexError):
        stored[NUM]


def test_columns_and_parts_follow_the_rows(path):
    stored = StoredCandidates.open(path)
    kept = np.array([c.score > 0.5 for c in CANDIDATES])
    part, plain = stored.take(kept), [c for c in CANDIDATES if c.score > 0.5]
    assert part.ids.tolist() == [c.id for c in plain] and len(part) == len(plain)
    assert part.column("num_voxels").tolist() == [c.num_voxels for c in plain]
    assert [tuple(row) for row in part.corners.tolist()] == [(*c.box.offset_zyx, *c.box.stop_zyx) for c in plain]
    assert stored.faint.tolist() == FAINT and stored.proposed().ids.tolist() == [
        c.id for c, faint in zip(CANDIDATES, FAINT, strict=True) if not faint
    ]
    assert stored.has("faint") and not stored.has("in_pool") and len(stored.take([])) == 0
    shapes = part.shapes()
    assert [box for box, _ in shapes] == [c.box for c in plain] and np.array_equal(shapes[0][1], plain[0].mask)


def test_those_that_touch_a_box_are_those_of_a_loop(path):
    stored, rng = StoredCandidates.open(path), np.random.default_rng(1)
    num_found = 0
    for _ in range(50):
        box = Box(tuple(rng.integers(0, 40, 3).tolist()), tuple(rng.integers(1, 20, 3).tolist()))
        found = [c.id for c in stored.touching(box)]
        assert found == [c.id for c in CANDIDATES if c.box.intersects(box)]
        num_found += len(found)
    assert num_found > 50


def test_a_table_without_the_column_has_no_faint_candidates(tmp_path):
    write_parts([to_table(CANDIDATES[:3], task="polarity")], tmp_path / "t.parquet")
    assert StoredCandidates.open(tmp_path / "t.parquet").faint.tolist() == [False] * 3
    write_parts([to_table([], task="polarity")], tmp_path / "none.parquet")
    none = StoredCandidates.open(tmp_path / "none.parquet")
    assert len(none) == len(list(none)) == len(none.ids) == 0 and none.corners.shape == (0, 6)


def test_few_masks_are_held_at_once(path):
    stored = StoredCandidates.open(path)
    assert stored._file._kept == {}
    _ = stored[0], stored.ids, stored.corners
    assert list(stored._file._kept) == [0], "columns need no masks"
    for _ in stored:
        assert len(stored._file._kept) <= KEPT_GROUPS
    assert len(stored._file._kept) == KEPT_GROUPS < NUM / 4


def test_several_threads_may_read_one_table(path):
    stored = StoredCandidates.open(path)
    rows = np.random.default_rng(2).integers(0, NUM, 2000).tolist()
    with ThreadPoolExecutor(8) as threads:
        for row, candidate in zip(rows, threads.map(stored.__getitem__, rows), strict=True):
            same(candidate, CANDIDATES[row])


@pytest.mark.parametrize("harm", ["gone", "cut off", "text"])
def test_a_damaged_table_is_refused_with_what_to_do(path, harm):
    if harm == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-20] if harm == "cut off" else b"id,label\n1,2\n")
    with pytest.raises(InputError, match=r"cannot be read as a candidate table: .*`twostream repair`"):
        StoredCandidates.open(path)


def test_stored_ones_and_others_are_one_sequence(path):
    stored = StoredCandidates.open(path)
    both, plain = Joined([stored.take(np.arange(10)), CANDIDATES[20:24]]), [*CANDIDATES[:10], *CANDIDATES[20:24]]
    for a, b in zip(both, plain, strict=True):
        same(a, b)
    same(both[-1], plain[-1])
    same(both[-14], plain[0])
    assert [c.id for c in both[8:12]] == [c.id for c in plain[8:12]]
    with pytest.raises(IndexError):
        both[14]
    kept = np.arange(14) % 3 == 0
    assert [c.id for c in both.where(kept)] == [c.id for c, keep in zip(plain, kept, strict=True) if keep]


def test_latents_of_a_large_pool_lie_in_a_file_and_are_the_same(monkeypatch, tmp_path):
    rng = np.random.default_rng(0)
    latents, others = (rng.normal(size=(n, 5)).astype(np.float32) for n in (100, 7))
    rows = rng.permutation(100)[:83]
    plain = pool._joined(latents, rows, others)
    monkeypatch.setattr(pool, "MAX_LATENT_BYTES", 83 * 20)
    monkeypatch.setattr(pool, "LATENT_ROWS", 10)
    mapped = pool._joined(latents, rows, others)
    assert isinstance(mapped, np.memmap) and not isinstance(plain, np.memmap)
    np.testing.assert_array_equal(mapped, plain)
    np.testing.assert_array_equal(plain, np.concatenate([latents[rows], others]))
