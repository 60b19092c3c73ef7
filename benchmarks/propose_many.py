"""Proposing very many small candidates: seconds and peak memory by their number.

A probability full of small balls, one in each cube of 8 voxels, is decoded block by block (``propose``); the candidates
get their ids and their table is written (``table``); and they are told again from those of the table, as in the next
round (``identify``). Each is done in a process of its own. ``cc3d`` is the bare limit: the volume is read in the same
blocks, and connected-components-3d labels each and measures its components; no mask is kept.

    python benchmarks/propose_many.py
    python benchmarks/propose_many.py --full --folder FOLDER     # a million candidates
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import cc3d
import numpy as np
from common import options as common_options
from common.measure import timed, watched_memory
from common.results import Data, Results

from twostream.base.geometry import grid
from twostream.candidates.identity import identify
from twostream.candidates.proposing import BLOCK_ZYX, propose, work_of
from twostream.candidates.stored import StoredCandidates
from twostream.candidates.table import parts_of, write_parts
from twostream.task import DecodingConfig, Mitochondria
from twostream.volume import create_volume, open_volume
from twostream.volume.stage import Journal, Stage

SIDE, RADIUS, SIZE_NM, THRESHOLD, MIN_VOXELS = 8, 5.0, (10.0, 10.0, 10.0), 0.5, 10
TASK = Mitochondria(SIZE_NM, DecodingConfig(method="components"))
STAGES = ("cc3d", "table", "identify")
DATA = Data("balls on a lattice", f"one in each cube of {SIDE} voxels, probability 1 - r / {RADIUS:g}")


def make(path: Path, num: int) -> None:
    """A probability with about N balls, (1, Z, Y, X) uint8."""
    edge = SIDE * round(num ** (1 / 3))
    at = np.mgrid[:SIDE, :SIDE, :SIDE] - (SIDE - 1) / 2
    ball = (255 * np.clip(1 - np.sqrt((at**2).sum(0)) / RADIUS, 0, 1)).astype(np.uint8)
    volume = create_volume(
        str(path), shape_zyx=(edge,) * 3, dtype=np.uint8, voxel_size_nm=SIZE_NM, num_channels=1
    )  # fmt: skip
    for block in grid(volume.box, (64, 512, 512)):
        box = block.write_box
        where = [np.arange(o, o + n) % SIDE for o, n in zip(box.offset_zyx, box.shape_zyx, strict=True)]
        volume.write(box, ball[np.ix_(*where)][None])


def one_run(folder: Path, stage: str) -> dict[str, float]:
    """Seconds and memory of one stage, in this process; "table" is `propose` and what follows it."""
    probability, table = open_volume(str(folder / "probability.zarr")), folder / "candidates.parquet"
    if stage == "cc3d":
        num = 0
        with watched_memory() as peaks, timed() as seconds:
            for block in grid(
                probability.box, [min(a, b) for a, b in zip(BLOCK_ZYX, probability.shape_zyx, strict=True)]
            ):
                labels = cc3d.connected_components(probability.read(block.write_box)[0] > 255 * THRESHOLD)
                num += len(cc3d.statistics(labels)["voxel_counts"]) - 1
        return {"seconds": seconds.wall, "peak_memory": peaks.resident, "candidates": num}
    with watched_memory() as peaks, Journal(folder / "work", work_of(probability, TASK, MIN_VOXELS)) as journal:
        journal.restart()
        with timed() as proposing:
            found = propose(probability, TASK, THRESHOLD, MIN_VOXELS, stage=Stage(journal=journal))
        with timed() as naming:
            if stage == "table":
                named = identify(found, [], 1)
                write_parts(parts_of(named, task=TASK.name), table)
            else:
                named = identify(found, StoredCandidates.open(table), len(found) + 1)
                if not (named.ids == np.arange(1, len(found) + 1)).all():
                    raise SystemExit("candidates were not told again")
        journal.discard()
    seconds = {"seconds_propose": proposing.wall, "seconds": naming.wall}
    return seconds | {"peak_memory": peaks.resident, "candidates": len(found)}


def main() -> None:
    parser = common_options.parser(__doc__)
    parser.add_argument("--folder", type=Path, help="keeps the volumes; default: a temporary folder")
    parser.add_argument("--sizes", type=float, nargs="+", default=[1e4], help="numbers of candidates")
    parser.add_argument("--one", nargs=2, metavar=("PATH", "STAGE"), help=argparse.SUPPRESS)
    options = common_options.parse(parser, full={"sizes": [1e5, 1e6]})
    if options.one:
        print(json.dumps(one_run(Path(options.one[0]), options.one[1])))
        return
    results = Results("propose_many", options)
    with tempfile.TemporaryDirectory() as temporary:
        for size in options.sizes:
            folder = (options.folder or Path(temporary)) / f"balls-{size:g}"
            if not (folder / "probability.zarr").exists():
                folder.mkdir(parents=True, exist_ok=True)
                make(folder / "probability.zarr", int(size))
            for stage in STAGES:
                if results.find("seconds", balls=int(size), stage=stage):
                    continue
                command = [sys.executable, __file__, "--one", str(folder), stage]
                printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
                for name, value in json.loads(printed.splitlines()[-1]).items():
                    unit = {"peak_memory": "GB", "candidates": "candidates"}.get(name, "s")
                    results.add(name, value, unit, data=DATA, balls=int(size), stage=stage)


if __name__ == "__main__":
    main()
