"""Blocks on a Dask cluster of this machine."""

import os
import signal
import time

import numpy as np
import pytest

from twostream.base.errors import ClusterError, InputError
from twostream.base.geometry import Box, grid
from twostream.testing import ExecutorExam
from twostream.volume import continue_volume, create_volume, open_volume
from twostream.volume.cluster import Dask, open_executor
from twostream.volume.execution import InProcess
from twostream.volume.stage import Journal, Stage

pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def two_workers():
    with open_executor("local", 2) as executor:
        yield executor


class TestDask(ExecutorExam):
    @pytest.fixture
    def executor(self, two_workers):
        return two_workers


class Fill:
    """Writes into a block; kills the worker that runs ``killing``, as long as ``once`` is not there."""

    def __init__(self, volume, killing=None, once=None):
        self.volume, self.killing, self.once = volume, killing, once

    def __call__(self, block):
        if block.write_box == self.killing and not (self.once and self.once.exists()):
            if self.once:
                self.once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        self.volume.write(block.write_box, np.full(block.write_box.shape_zyx, 7, np.uint8))


def new_volume(path):
    create_volume(str(path), shape_zyx=(16, 512, 512), dtype=np.uint8, voxel_size_nm=(30.0, 8.0, 8.0))
    volume = continue_volume(str(path))
    return volume, list(grid(volume.box, (16, 128, 128)))


def test_a_worker_that_is_killed_leaves_no_block_out(tmp_path):
    """One worker alone, so that everything it held is lost with it."""
    volume, blocks = new_volume(tmp_path / "v.zarr")
    journal = Journal(tmp_path / "work", {})
    with open_executor("local", 1) as executor:
        fill = Fill(volume, blocks[5].write_box, tmp_path / "once")
        assert len(list(Stage(executor, journal).run("fill", fill, blocks))) == len(blocks)
    assert (open_volume(str(tmp_path / "v.zarr")).read(Box.whole((16, 512, 512))) == 7).all()
    assert journal.done("fill") == set(range(len(blocks)))


def test_a_block_that_kills_every_worker_ends_the_run_and_the_others_are_kept(tmp_path):
    volume, blocks = new_volume(tmp_path / "v.zarr")
    journal = Journal(tmp_path / "work", {})
    sentence = "block 0:16,384:512,384:512 made 4 workers die, one after the other"
    with open_executor("local", 2) as executor, pytest.raises(ClusterError, match=sentence):
        list(Stage(executor, journal).run("fill", Fill(volume, blocks[-1].write_box), blocks))
    done = journal.done("fill")
    assert len(blocks) - 1 not in done and len(done) >= len(blocks) - 4
    assert all((volume.read(blocks[position].write_box) == 7).all() for position in done)
    assert len(list(Stage(InProcess(), journal).run("fill", Fill(volume), blocks))) == len(blocks) - len(done)


def sleep(block):
    time.sleep(0.2)
    return block


def test_a_scheduler_that_is_gone_is_an_error_and_the_run_goes_on_later(tmp_path):
    from distributed import Client, LocalCluster

    journal, blocks = Journal(tmp_path / "work", {}), list(range(40))
    cluster = LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0")
    client = Client(cluster)
    running = Stage(Dask(client), journal).run("s", sleep, blocks)
    assert next(running)[1] in blocks
    cluster.close()
    with pytest.raises(ClusterError, match=r"the cluster lost its blocks: .*; blocks that are done are kept"):
        list(running)
    client.close()
    done = journal.done("s")
    assert 1 <= len(done) < 40
    assert len(list(Stage(journal=journal).run("s", sleep, blocks))) == 40 - len(done)


def test_without_workers_a_stage_does_not_wait_for_ever(monkeypatch, tmp_path):
    from distributed import Client, LocalCluster

    monkeypatch.setattr("twostream.volume.cluster.SECONDS_ALONE", 1)
    monkeypatch.setattr("twostream.volume.cluster.SECONDS_BETWEEN_LOOKS", 0.5)
    journal, blocks = Journal(tmp_path / "work", {}), list(range(40))
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster, Client(cluster) as client:
        running = Stage(Dask(client), journal).run("s", sleep, blocks)
        assert next(running)[1] in blocks
        cluster.scale(0)
        with pytest.raises(ClusterError, match=r"the cluster has had no worker for 1 s\. Start workers and repeat"):
            list(running)
    assert 1 <= len(journal.done("s")) < 40


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((None, 2), "--workers needs --cluster"),
        (("dask", None), "--cluster is 'dask'; expected local, slurm, or the address"),
        (("foo://127.0.0.1:1", None), "--cluster foo://127.0.0.1:1: no worker answers"),
        (("tcp://127.0.0.1:1", 2), "the workers of that cluster run already"),
        (("slurm", None), "--cluster slurm needs --workers N"),
    ],
)
def test_options_that_do_not_fit(words, sentence):
    with pytest.raises((InputError, ClusterError), match=sentence), open_executor(*words):
        pass


def test_an_address_where_nothing_listens(monkeypatch):
    monkeypatch.setattr("twostream.volume.cluster.SECONDS", 2)
    with (
        pytest.raises(ClusterError, match=r"--cluster tcp://127.0.0.1:1: no worker answers"),
        open_executor("tcp://127.0.0.1:1"),
    ):
        pass


def test_dask_is_an_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with (
        pytest.raises(InputError, match=r"needs distributed, not installed here: pip install .*\[cluster\]"),
        open_executor("local"),
    ):
        pass
