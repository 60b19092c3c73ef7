"""The steps after proposing on many candidates: seconds and peak memory of the pool and of a batch.

A project gets a table of N small candidates and random latents for round 0, as `propose` and `embed` leave them. Then,
each in a process of its own: the pool is read with the scorer's probability (``pool``), and a batch of 50 is chosen,
cut and recorded (``suggest``). ``columns`` is the bare limit: the same numbers and latents, read and added up.

    python benchmarks/pool_scaling.py
    python benchmarks/pool_scaling.py --full --folder FOLDER     # 10 million candidates take 4 GB on disk
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
from common import options as common_options
from common.measure import timed, watched_memory
from common.results import Data, Results

from twostream.base.atomic import array_file
from twostream.base.geometry import Box
from twostream.candidates.candidate import Candidate
from twostream.candidates.table import GROUP_ROWS, to_table, write_parts
from twostream.project.create import create_project
from twostream.project.project import Project
from twostream.rounds.embed import STREAMS
from twostream.rounds.pool import pool_of
from twostream.rounds.suggest import suggest_step

SHAPE_ZYX, SIZE_NM, SIDE = (32, 256, 256), (40.0, 16.0, 16.0), 4
LATENT_DIM = 32
STAGES = ("columns", "pool", "suggest")
DATA = Data("boxes at random places", f"numpy.random.default_rng(0), side {SIDE}, shape {SHAPE_ZYX}")


def make(root: Path, num: int) -> None:
    """A project with N candidates in round 0."""
    rng = np.random.default_rng(0)
    root.parent.mkdir(parents=True, exist_ok=True)
    path = root.with_suffix(".h5")
    with h5py.File(path, "w") as file:
        file.attrs["voxel_size_nm"] = SIZE_NM
        file["image"] = rng.integers(0, 256, SHAPE_ZYX).astype(np.uint8)
        labels = np.zeros(SHAPE_ZYX, np.uint8)
        labels[8:16, 8:24, 8:24] = 1
        labels[8:16, 30:40, 30:40] = 2
        file["labels"] = labels
    project = create_project(
        root, task="mitochondria", image=f"{path}:image", labels=f"{path}:labels", labels_box="0:32,0:48,0:48",
        budget=50, overrides=["patches.width_px=16"],
    )  # fmt: skip
    project.open_round(0)
    write_parts(parts(rng, num), project.path(0, "candidates.parquet"))
    for name in STREAMS:
        with array_file(project.path(0, f"latents_{name}.npy"), (num, LATENT_DIM), np.float32) as latents:
            for start in range(0, num, GROUP_ROWS):
                rows = min(GROUP_ROWS, num - start)
                latents[start : start + rows] = rng.normal(size=(rows, LATENT_DIM))
    project.ledger.register(0, range(1, num + 1))


def parts(rng: np.random.Generator, num: int) -> Iterator[pa.Table]:
    """The candidate table, in groups of rows."""
    mask = np.ones((SIDE,) * 3, np.uint8)
    one = to_table([Candidate(1, 1, Box((0, 0, 0), mask.shape), mask, 0.5)], task="mitochondria")
    for start in range(0, num, GROUP_ROWS):
        rows = min(GROUP_ROWS, num - start)
        part = one.take(np.zeros(rows, np.int64)).to_pydict() | {"in_pool": np.ones(rows, bool)}
        part["id"] = part["label"] = np.arange(start + 1, start + rows + 1)
        part["score"] = rng.random(rows)
        places = rng.integers([0, 0, 48], np.array(SHAPE_ZYX) - SIDE + 1, (rows, 3))
        for axis, name in enumerate("zyx"):
            low = places[:, axis]
            part |= {f"box_{name}0": low, f"box_{name}1": low + SIDE, f"center_{name}": low + (SIDE - 1) / 2}
        yield pa.table(part)


def one_run(root: Path, stage: str) -> dict[str, float]:
    """Seconds and memory of one stage, in this process."""
    project = Project(root)
    with watched_memory() as peaks, timed() as seconds:
        if stage == "pool":
            pool_of(project, 0)
        elif stage == "suggest":
            suggest_step(project, 0)
        else:
            candidates = project.candidates(0)
            for name in ("id", "score", "num_voxels"):
                candidates.column(name).sum()
            candidates.corners.sum()
            for name in STREAMS:
                np.load(project.path(0, f"latents_{name}.npy"), mmap_mode="r").sum()
    return {"seconds": seconds.wall, "peak_memory": peaks.resident, "peak_private": peaks.private}


def main() -> None:
    parser = common_options.parser(__doc__)
    parser.add_argument("--folder", type=Path, help="keeps the projects; default: a temporary folder")
    parser.add_argument("--sizes", type=float, nargs="+", default=[2e4], help="numbers of candidates")
    parser.add_argument("--one", nargs=2, metavar=("PATH", "STAGE"), help=argparse.SUPPRESS)
    options = common_options.parse(parser, full={"sizes": [1e5, 1e6, 1e7]})
    if options.one:
        print(json.dumps(one_run(Path(options.one[0]), options.one[1])))
        return
    results = Results("pool_scaling", options)
    with tempfile.TemporaryDirectory() as temporary:
        for size in options.sizes:
            root = (options.folder or Path(temporary)) / f"project-{size:g}"
            if not root.exists():
                make(root, int(size))
            for stage in STAGES:
                if not results.find("seconds", candidates=int(size), stage=stage):
                    command = [sys.executable, __file__, "--one", str(root), stage]
                    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                    for name, value in json.loads(printed.splitlines()[-1]).items():
                        unit = "s" if name == "seconds" else "GB"
                        results.add(name, value, unit, data=DATA, candidates=int(size), stage=stage)


if __name__ == "__main__":
    main()
