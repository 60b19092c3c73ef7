"""Stages over blocks: killed and continued, tried again, and never whole with a block left out."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twostream.base.errors import BlocksError, InputError, VolumeError
from twostream.base.geometry import Box, grid
from twostream.candidates.candidate import Candidate
from twostream.candidates.proposing import CandidatesFile, DecodedFile
from twostream.volume.components import label_block
from twostream.volume.execution import Executor, InProcess, PickledInProcess
from twostream.volume.stage import MAX_FAILED, NUM_TRIES, Journal, Stage

BLOCKS = list(grid(Box((0, 0, 0), (4, 20, 30)), (2, 10, 10)))


class Fails:
    """Raises for some blocks, the first ``times`` times that they are run."""

    def __init__(self, boxes, times=10**9, error=None):
        self.left, self.error, self.runs = dict.fromkeys(boxes, times), error or ValueError("no such plane"), []

    def __call__(self, block):
        self.runs.append(block)
        if self.left.get(block.write_box, 0) > 0:
            self.left[block.write_box] -= 1
            raise self.error
        return block.write_box.offset_zyx[2]


class Text:
    def write(self, path, result):
        path.write_text(str(result))

    def read(self, path):
        return int(path.read_text())


@pytest.mark.parametrize("executor", [InProcess(), PickledInProcess()])
def test_every_block_comes_once(executor, tmp_path):
    for journal in (None, Journal(tmp_path / "work", {})):
        found = dict(Stage(executor, journal).run("s", Fails([]), BLOCKS))
        assert found == {block: block.write_box.offset_zyx[2] for block in BLOCKS}


def test_a_block_that_failed_is_tried_again(capsys):
    function = Fails([BLOCKS[3].write_box, BLOCKS[5].write_box], times=NUM_TRIES - 1)
    assert len(list(Stage().run("s", function, BLOCKS))) == len(BLOCKS)
    assert len(function.runs) == len(BLOCKS) + 2 * (NUM_TRIES - 1)
    assert "2 blocks failed and are tried again. The first one: ValueError: no such plane." in capsys.readouterr().err


def test_a_block_that_always_fails_ends_the_stage_and_the_others_are_kept(tmp_path):
    bad = [BLOCKS[3].write_box, BLOCKS[5].write_box]
    function = Fails(bad, error=VolumeError("a.zarr is broken."))
    with pytest.raises(BlocksError) as caught, Journal(tmp_path / "work", {}) as journal:
        list(Stage(journal=journal).run("s", function, BLOCKS, description="predict"))
    text = str(caught.value)
    assert text == (
        f"predict: 2 of 12 blocks failed 3 times each: {bad[0]}; {bad[1]}. The first one: a.zarr is broken. The 10 "
        f"that are done are kept: the same command goes on with the others."
    )
    assert "in __call__" in caught.value.traceback and caught.value.is_ours
    again = Fails([])
    assert len(list(Stage(journal=Journal(tmp_path / "work", {})).run("s", again, BLOCKS))) == 2
    assert {block.write_box for block in again.runs} == set(bad)


def test_where_everything_fails_it_stops_early():
    blocks = list(grid(Box((0, 0, 0), (100, 1, 1)), (1, 1, 1)))
    function = Fails([block.write_box for block in blocks])
    with pytest.raises(
        BlocksError, match=rf"{MAX_FAILED} of 100 blocks failed once, and no more were tried: .* and 8 m"
    ):
        list(Stage().run("s", function, blocks))
    assert len(function.runs) == MAX_FAILED


def test_an_executor_that_loses_a_block_is_found_out():
    class Forgets(Executor):
        def map(self, fn, blocks):
            for number, block in enumerate(blocks):
                if number != 2:
                    yield block, fn(block)

    with pytest.raises(BlocksError, match=r"1 of 12 blocks never came back"):
        list(Stage(Forgets()).run("s", Fails([]), BLOCKS))


def test_a_stage_that_was_stopped_goes_on_where_it_was(tmp_path):
    running = Stage(journal=Journal(tmp_path / "work", {"a": 1})).run("s", Fails([]), BLOCKS, codec=Text())
    first = [next(running) for _ in range(5)]
    running.close()
    function = Fails([])
    found = list(Stage(journal=Journal(tmp_path / "work", {"a": 1})).run("s", function, BLOCKS, codec=Text()))
    # The fifth was given out, but its receiver did not come back for another one.
    assert function.runs == BLOCKS[4:] and found[:4] == first[:4] and dict(found).keys() == set(BLOCKS)
    list(Stage(journal=Journal(tmp_path / "work", {"a": 1})).run("s", function, BLOCKS))
    assert len(function.runs) == 8


def test_other_work_starts_anew_and_names_are_apart(tmp_path):
    list(Stage(journal=Journal(tmp_path / "work", {"a": 1})).run("s", Fails([]), BLOCKS))
    (tmp_path / "work" / "output").write_text("half")
    journal = Journal(tmp_path / "work", {"a": 1})
    assert journal.done("s") == set(range(12)) and journal.done("t") == set() and (journal.folder / "output").exists()
    del journal
    journal = Journal(tmp_path / "work", {"a": 2})
    assert journal.done("s") == set() and not (journal.folder / "output").exists()


@pytest.mark.parametrize("end", ["1", "12", "", "x.", "-1.", "99.", "\xff."])
def test_a_line_that_was_cut_off_does_not_count(tmp_path, end):
    journal = Journal(tmp_path / "work", {})
    journal.add("s", 0)
    with (journal.folder / "s.done").open("ab") as file:
        file.write(end.encode("latin-1"))
    journal.add("s", 7)
    assert journal.done("s") - {99} == {0, 7}
    function = Fails([])
    list(Stage(journal=journal).run("s", function, BLOCKS))
    assert len(function.runs) == len(BLOCKS) - 2


def test_a_damaged_result_is_computed_again(tmp_path, capsys):
    work = tmp_path / "work"
    list(Stage(journal=Journal(work, {})).run("s", Fails([]), BLOCKS, codec=Text()))
    (work / "s" / "000000003").write_text("half")
    (work / "s" / "000000005").unlink()
    function = Fails([])
    found = list(Stage(journal=Journal(work, {})).run("s", function, BLOCKS, codec=Text()))
    assert len(found) == len(BLOCKS) and function.runs == [BLOCKS[3], BLOCKS[5]]
    assert "s: 10 of 12 blocks were done before; 2 more are damaged" in capsys.readouterr().err


def test_output_that_is_gone_is_computed_again(tmp_path):
    journal = Journal(tmp_path / "work", {})
    list(Stage(journal=journal).run("s", Fails([]), BLOCKS))
    function = Fails([])
    list(Stage(journal=journal).run("s", function, BLOCKS, is_there=lambda block: block != BLOCKS[4]))
    assert function.runs == [BLOCKS[4]]


def test_two_processes_do_not_share_a_memory(tmp_path):
    journal = Journal(tmp_path / "work", {"a": 1})
    for work in ({"a": 1}, {"a": 2}):
        with pytest.raises(InputError, match="is the unfinished work of another process that is still running"):
            Journal(tmp_path / "work", work)
    journal.discard()
    assert not (tmp_path / "work").exists()
    Journal(tmp_path / "work", {"a": 2})


def test_another_version_of_the_package_starts_anew(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "work", {})
    journal.add("s", 1)
    del journal
    assert Journal(tmp_path / "work", {}).done("s") == {1}
    monkeypatch.setattr("twostream.volume.stage.__version__", "0.0.1")
    assert Journal(tmp_path / "work", {}).done("s") == set()


@pytest.mark.parametrize("number", range(4))
def test_a_removal_that_was_interrupted_leaves_no_block_that_counts(tmp_path, monkeypatch, number):
    journal = Journal(tmp_path / "work", {})
    list(Stage(journal=journal).run("s", Fails([]), BLOCKS, codec=Text()))
    original, removed = Path.unlink, []

    def unlink(self, *words):
        if len(removed) == number:
            raise KeyboardInterrupt
        removed.append(self)
        original(self, *words)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "unlink", unlink)
        journal.discard()
        raise KeyboardInterrupt
    del journal
    done = Journal(tmp_path / "work", {}).done("s")
    assert done == (set(range(12)) if number == 0 else set())


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "twostream-work.json.partial").write_text("{")  # killed while it was made
    assert Journal(tmp_path / "work", {"a": 1}).done("s") == set()
    assert json.loads((tmp_path / "work" / "twostream-work.json").read_text())["a"] == 1
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(InputError, match=r"mine is there, and is no unfinished work of this program"):
        Journal(tmp_path / "mine", {})
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years"


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from twostream.base.geometry import Box, grid
from twostream.volume import continue_volume
from twostream.volume.stage import Journal, Stage

volume = continue_volume(sys.argv[1])
def fill(block):
    if block.write_box.offset_zyx == (0, 128, 128):
        os.kill(os.getpid(), signal.SIGKILL)
    volume.write(block.write_box, np.full(block.write_box.shape_zyx, 7, np.uint8))

list(Stage(journal=Journal(Path(sys.argv[2]), {})).run("s", fill, list(grid(volume.box, (16, 128, 128)))))
"""


def test_killed_in_the_middle_what_is_remembered_is_written(tmp_path):
    from twostream.volume import continue_volume, create_volume

    path = str(tmp_path / "v.zarr")
    create_volume(path, shape_zyx=(16, 256, 384), dtype=np.uint8, voxel_size_nm=(30.0, 8.0, 8.0))
    ended = subprocess.run([sys.executable, "-c", KILLED, path, str(tmp_path / "work")], env=os.environ)
    assert ended.returncode == -signal.SIGKILL
    volume, journal = continue_volume(path), Journal(tmp_path / "work", {})
    blocks = list(grid(volume.box, (16, 128, 128)))
    assert journal.done("s") == {0, 1, 2, 3}
    written = [(volume.read(block.write_box) == 7).all() for block in blocks]
    assert written == [True] * 4 + [False] * 2


@given(st.integers(0, 2**32 - 1), st.integers(0, 3))
def test_results_come_back_from_files_as_they_were(tmp_path_factory, seed, number):
    rng, folder = np.random.default_rng(seed), tmp_path_factory.mktemp("kept")
    candidates = []
    for label in range(1, number + 1):
        shape = tuple(rng.integers(1, 5, 3).tolist())
        mask = rng.integers(0, 3, shape).astype(np.uint8)
        candidates.append(Candidate(0, label, Box(tuple(rng.integers(-5, 99, 3).tolist()), shape), mask, rng.random()))
    whole = Box((0, 0, 0), (8, 8, 8))
    block = next(iter(grid(whole, (4, 4, 4)))).write_box
    _, part = label_block(rng.random((5, 5, 5)) < 0.3, block, whole)
    CandidatesFile().write(folder / "a", candidates)
    DecodedFile().write(folder / "b", (part, candidates))
    found, again = DecodedFile().read(folder / "b")
    assert found.seen == part.seen
    for name in ("boxes", "voxel", "label"):
        np.testing.assert_array_equal(getattr(found, name), getattr(part, name), strict=True)
    for same in (again, CandidatesFile().read(folder / "a")):
        assert [(c.label, c.box, c.score) for c in same] == [(c.label, c.box, c.score) for c in candidates]
        for one, other in zip(same, candidates, strict=True):
            np.testing.assert_array_equal(one.mask, other.mask, strict=True)
