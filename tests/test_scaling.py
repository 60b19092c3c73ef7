"""A project's steps over blocks: stopped and continued, with an image that breaks, on a cluster."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from twostream.base.errors import BlocksError, VolumeError
from twostream.candidates.proposing import DecodeBlock
from twostream.candidates.table import read_table
from twostream.models.segmentation.blending import PredictBlock
from twostream.project.project import Project
from twostream.project.status import status_lines
from twostream.rounds.loop import run_step
from twostream.volume import open_volume
from twostream.volume.cluster import open_executor

STEPS = ("train", "predict", "propose")
WORK = {"predict": PredictBlock, "propose": DecodeBlock}


def outcome(project):
    volume = open_volume(str(project.path(0, "probability.zarr")))
    return volume.read(volume.box), read_table(project.path(0, "candidates.parquet"))


def same(project, other):
    for found, expected in zip(outcome(project), outcome(other), strict=True):
        assert found.equals(expected) if hasattr(found, "equals") else (found == expected).all()
    assert not list(project.round_dir(0).glob("*.partial"))


def do(project, *steps):
    for step in steps:
        run_step(project, step)
    return project


def counted(monkeypatch, work, error=None, number=10**9):
    """The list of blocks that are run from now on; block ``number`` (from 0) and all later ones raise ``error``."""
    original, runs = work.__call__, []

    def call(self, block):
        if len(runs) >= number:
            raise error
        runs.append(block)
        return original(self, block)

    monkeypatch.setattr(work, "__call__", call)
    return runs


@pytest.mark.parametrize("step", ["predict", "propose"])
@pytest.mark.parametrize(
    ("error", "caught"), [(KeyboardInterrupt(), KeyboardInterrupt), (OSError(5, "disk"), BlocksError)]
)
def test_a_step_that_ended_early_goes_on_where_it_was(step, error, caught, make_project, monkeypatch, capfd):
    monkeypatch.setattr("twostream.candidates.proposing.BLOCK_ZYX", (8, 64, 64))
    undisturbed = do(make_project("undisturbed"), *STEPS)
    project = do(make_project("project"), *STEPS[: STEPS.index(step)])
    with monkeypatch.context() as patch, pytest.raises(caught):
        first = counted(patch, WORK[step], error, 3)
        run_step(project, step)
    assert not (
        project.root / "rounds/000" / ("probability.zarr" if step == "predict" else "candidates.parquet")
    ).exists()
    (line,) = [line for line in status_lines(project) if "blocks are done" in line]
    assert re.fullmatch(rf"round 0: {step}, 3 of 8 blocks are done, the last one \d+ seconds ago", line)
    with monkeypatch.context() as patch:
        then = counted(patch, WORK[step])
        do(Project(project.root), *STEPS[STEPS.index(step) :])
    assert len(first) == 3 and len(then) == 5 and not set(first) & set(then)
    assert f"{step}: 3 of 8 blocks were done before" in capfd.readouterr().err
    same(project, undisturbed)
    assert not any("blocks are done" in line for line in status_lines(project))


def test_a_prediction_that_was_begun_with_other_settings_starts_anew(make_project, monkeypatch):
    project = do(make_project("project"), "train")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        counted(patch, PredictBlock, KeyboardInterrupt(), 3)
        run_step(project, "predict")
    project.rewrite({"segmentation.context_zyx": [1, 16, 16]})
    with monkeypatch.context() as patch:
        runs = counted(patch, PredictBlock)
        do(Project(project.root), "predict")
        assert len(runs) == 8


def test_a_damaged_probability_is_predicted_again_when_it_is_removed(make_project, monkeypatch):
    undisturbed, project = do(make_project("undisturbed"), *STEPS), do(make_project("project"), "train", "predict")
    path = project.path(0, "probability.zarr")
    chunk = max((one for one in path.rglob("*") if one.is_file()), key=lambda one: one.stat().st_size)
    chunk.write_bytes(chunk.read_bytes()[:50])
    with pytest.raises(
        VolumeError, match=r"cannot be read: .* is damaged, remove it: the same command predicts it again"
    ):
        run_step(project, "propose")
    shutil.rmtree(path)
    do(Project(project.root), "propose")
    same(project, undisturbed)


def test_chunks_that_are_lost_while_a_prediction_waits_are_written_again(make_project, monkeypatch, capfd):
    undisturbed, project = do(make_project("undisturbed"), *STEPS), do(make_project("project"), "train")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        counted(patch, PredictBlock, KeyboardInterrupt(), 3)
        run_step(project, "predict")
    for chunk in (project.root / "rounds/000/predict.partial/probability.zarr/0").rglob("[0-9]*"):
        if chunk.is_file():
            chunk.unlink()
    do(Project(project.root), "predict", "propose")
    assert "predict: 0 of 8 blocks were done before; 3 more are damaged" in capfd.readouterr().err
    same(project, undisturbed)


def test_killed_when_a_prediction_was_whole_and_its_memory_not_yet_gone(make_project, monkeypatch):
    undisturbed, project = do(make_project("undisturbed"), *STEPS), do(make_project("project"), "train")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("twostream.volume.stage.Journal.discard", lambda self: (_ for _ in ()).throw(KeyboardInterrupt()))
        run_step(project, "predict")
    do(Project(project.root), "predict", "propose")
    same(project, undisturbed)


def test_candidates_of_a_probability_that_was_made_again_start_anew(make_project, monkeypatch):
    monkeypatch.setattr("twostream.candidates.proposing.BLOCK_ZYX", (8, 64, 64))
    project = do(make_project("project"), "train", "predict")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        counted(patch, DecodeBlock, KeyboardInterrupt(), 3)
        run_step(project, "propose")
    shutil.rmtree(project.path(0, "probability.zarr"))
    with monkeypatch.context() as patch:
        runs = counted(patch, DecodeBlock)
        do(Project(project.root), "propose")
    assert len(runs) == 8


def test_two_workers_give_what_one_process_gives(make_project, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("twostream.candidates.proposing.BLOCK_ZYX", (8, 64, 64))
    undisturbed = do(make_project("undisturbed"), *STEPS)
    project = do(make_project("project"), "train")
    with open_executor("local", 2) as project.executor:
        do(project, "predict", "propose")
    same(project, undisturbed)


FULL = """
import resource, sys
from twostream.cli import app
from twostream.models.segmentation.blending import PredictBlock

def on_full_disk(self, block, predict=PredictBlock.__call__):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        return predict(self, block)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

PredictBlock.__call__ = on_full_disk
app()
"""


def test_a_disk_that_is_full_ends_a_step_with_the_reason_and_it_goes_on_when_there_is_room(make_project, tmp_path):
    """A limit on the size of each file stands for the full disk: writing fails in the same way."""
    project = do(make_project("project"), "train")
    undisturbed = Project(Path(shutil.copytree(project.root, tmp_path / "undisturbed")))
    command = [sys.executable, "-c", FULL, "predict", str(project.root)]
    done = subprocess.run(command, capture_output=True, text=True)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert "blocks failed 3 times each" in last and "cannot be written" in last and "File too large" in last
    for one in (project, undisturbed):
        do(Project(one.root), "predict", "propose")
    same(project, undisturbed)
