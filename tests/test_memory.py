"""The memory that blocks need: stated before they run, an upper bound, and kept below what is allowed."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from twostream.base.errors import InputError
from twostream.base.memory import parse_size, size_text
from twostream.candidates.proposing import propose
from twostream.task import get_task
from twostream.volume import MemoryVolume
from twostream.volume.stage import Journal, Stage

SIZE = (30.0, 8.0, 8.0)
LINUX = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak cannot be set back here")


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GB", 4 * 10**9), ("1.5 gb", 1.5e9), ("2GiB", 2**31), ("500 MB", 5e8), ("1B", 1), ("2tb", 2e12)],
)
def test_sizes(text, size):
    assert parse_size(text, "--memory") == size


@pytest.mark.parametrize("text", ["", "GB", "4 GB 2", "-1GB", "0GB", "4 gigabytes", "nan", "1e3", "0.1B", "4"])
def test_what_is_no_size(text):
    with pytest.raises(InputError, match=r"--memory is .*; expected a number with its unit, for example 4GB"):
        parse_size(text, "--memory")


def test_sizes_as_text():
    sizes = (1, 999, 1000, 1_340_000, 12_000_000, 4e9, 3e12, 5e15)
    assert [size_text(n) for n in sizes] == ["1 B", "999 B", "1.0 KB", "1.3 MB", "12 MB", "4.0 GB", "3.0 TB", "5000 TB"]


PEAK = """
import numpy as np
from twostream.base.memory import peak_of, resident

peak_of(lambda: np.ones(60_000_000, np.uint8))
before = resident()
print(peak_of(lambda: None) - before, peak_of(lambda: np.ones(60_000_000, np.uint8)) - before)
"""


@LINUX
def test_the_peak_is_that_of_the_function_alone():
    """In a process of its own: one that has trained keeps freed memory for the next array."""
    ended = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    of_nothing, of_sixty_megabytes = map(int, ended.stdout.split())
    assert of_nothing < 20_000_000 and of_sixty_megabytes >= 50_000_000


def blobs(task, shape=(24, 200, 200), density=0.3, seed=0):
    from scipy import ndimage

    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), (1.5, 6, 6))
    level = np.clip((noise - np.quantile(noise, 1 - density)) / noise.std() * 250 + 127, 0, 255).astype(np.uint8)
    return MemoryVolume(np.repeat(level[None], len(task.channels), axis=0), SIZE)


def test_blocks_are_made_to_fit_and_candidates_stay_the_same(monkeypatch, capsys):
    task = get_task("mitochondria", SIZE)
    volume = blobs(task, density=0.03)
    monkeypatch.setattr("twostream.candidates.proposing.LEAST_BLOCK_ZYX", (4, 16, 16))
    expected = propose(volume, task, 0.5, 50)
    assert "blocks of 24 x 200 x 200 voxels, each needs 34 MB" in capsys.readouterr().err
    monkeypatch.setattr("twostream.volume.stage.resident", lambda: 10**9)
    found = propose(volume, task, 0.5, 50, stage=Stage(memory_limit=10**9 + 20_000_000))
    assert "blocks of 24 x 100 x 200 voxels, each needs 17 MB" in capsys.readouterr().err
    assert [(c.box, c.num_voxels) for c in found] == [(c.box, c.num_voxels) for c in expected] and len(found) > 5


def test_what_does_not_fit_is_refused_before_it_is_begun(monkeypatch, tmp_path):
    task = get_task("mitochondria", SIZE)
    monkeypatch.setattr("twostream.volume.stage.resident", lambda: 10**9)
    with pytest.raises(InputError) as caught:
        propose(blobs(task), task, 0.5, 50, stage=Stage(memory_limit=10**9 + 1000))
    assert str(caught.value) == (
        "propose: a block of 24 x 100 x 100 voxels needs 8.5 MB, and this process holds 1.0 GB already: more than "
        "--memory 1.0 GB. Allow more."
    )
    with pytest.raises(InputError, match=r"at a threshold of 0\.5 one connected part of the foreground lies in "):
        propose(blobs(task, density=0.7), task, 0.5, 50, stage=Stage(memory_limit=10**9 + 20_000_000))


def test_a_stage_that_goes_on_has_the_blocks_that_it_began_with(monkeypatch, tmp_path):
    held = [0]
    monkeypatch.setattr("twostream.volume.stage.resident", lambda: held[0])
    words = ("predict", (8, 64, 64), (2, 8, 8), lambda shape: int(np.prod(shape)))
    with Journal(tmp_path / "work", {}) as journal:
        first = Stage(journal=journal, memory_limit=20_000).block_shape(*words)
    held[0] = 3_000
    with Journal(tmp_path / "work", {}) as journal:
        assert first == Stage(journal=journal, memory_limit=20_000).block_shape(*words) == (8, 32, 64)
    held[0] = 15_000
    assert Stage(memory_limit=20_000).block_shape(*words) == (4, 32, 32)


MEASURED = """
import sys
sys.path.insert(0, sys.argv[1])
from test_memory import *
from twostream.base.memory import peak_of, resident

name, part = sys.argv[2:]
if name == "predict":
    import torch
    from test_predict import TINY, segmenter
    from twostream.models.segmentation.blending import PredictBlock, blocks_of, lattice_over
    from twostream.models.segmentation.predict import TorchWindows

    torch.set_num_threads(1)
    image = MemoryVolume(np.random.default_rng(0).integers(0, 255, (40, 700, 700), np.uint8), SIZE)
    output = MemoryVolume(np.zeros((1, 40, 700, 700), np.uint8), SIZE)
    model = TorchWindows(segmenter()).on_device()
    lattice = lattice_over(image, model.fold_zyx, model.stride_zyx, TINY)
    work = PredictBlock(model, image, output, lattice, TINY.blend_sigma)
    work.try_windows()
    shape = (20, 340 // model.fold_zyx[1], 340 // model.fold_zyx[2])
    stated = peak_of(work.try_windows) - resident() + work.num_bytes(shape)
    block = blocks_of(image.box, model.fold_zyx, shape)[3]
else:
    from twostream.base.geometry import grid
    from twostream.candidates.proposing import DecodeBlock, DecodeIslands, Decoding, Island

    def first_of(decoding, box):
        mask = decoding.foreground(decoding.probability.read(box))
        return tuple(int(i) + o for i, o in zip(np.argwhere(mask)[0], box.offset_zyx))

    task = get_task(name, SIZE)
    volume = blobs(task, (48, 340, 340), density=0.8)
    decoding = Decoding(volume, task, 0.5, 50)
    for one in list(grid(volume.box, (8, 64, 64)))[:5]:  # what is imported and kept at the first calls
        DecodeBlock(decoding)(one)
        DecodeIslands(decoding)([Island(one.write_box, first_of(decoding, one.write_box))])
    if part == "island":
        block, work = [Island(volume.box, first_of(decoding, volume.box))], DecodeIslands(decoding)
        stated = decoding.island_bytes(volume.box.num_voxels)
    else:
        block, work = next(grid(volume.box, (46, 330, 330))), DecodeBlock(decoding)
        stated = decoding.block_bytes(block.write_box.shape_zyx)
before = resident()
print(stated, peak_of(lambda: work(block)) - before)
"""


@LINUX
@pytest.mark.parametrize(
    ("name", "part"),
    [("predict", "block"), *((name, part) for name in ("mitochondria", "polarity") for part in ("block", "island"))],
)
def test_a_block_needs_no_more_than_was_stated(name, part):
    words = [sys.executable, "-c", MEASURED, str(Path(__file__).parent), name, part]
    ended = subprocess.run(words, capture_output=True, text=True, check=True)
    stated, measured = map(int, ended.stdout.split())
    assert stated / 5 < measured < stated
