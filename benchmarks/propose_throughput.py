"""Proposing candidates from volumes that need not fit into memory: voxels per second and peak memory.

The probability is a tile of smooth blobs, repeated; blobs go on across the faces of tiles, so that blocks have to be
joined. Beside it, on a volume that fits: bare connected-components-3d, and the same decoding of the whole volume at
once. Every run has a process of its own, so that its peak memory is its own. All use one core.

    python benchmarks/propose_throughput.py
    python benchmarks/propose_throughput.py --full --folder FOLDER     # 5 GB on disk

With --rows, what the file holds is not measured again.
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
from common.blobs import BLOBS, THRESHOLD, TILE_ZYX, VOXEL_SIZE_NM, the_task, write_probability
from common.measure import timed, watched_memory
from common.results import Results

from twostream.candidates.candidate import clean, extract
from twostream.candidates.proposing import propose
from twostream.volume import Volume, open_volume

ARMS = ("blocks", "whole", "cc3d")


def one_run(volume: Volume, method: str, arm: str) -> dict[str, float]:
    """Seconds, memory and number of objects of one run, in this process."""
    task = the_task(method)
    min_voxels = max(1, round(task.min_object_nm3 / float(np.prod(VOXEL_SIZE_NM))))
    with watched_memory() as peaks, timed() as seconds:
        if arm == "blocks":
            number = len(propose(volume, task, THRESHOLD, min_voxels))
        else:
            level = volume.read(volume.box)
            if arm == "whole":
                segmentation = clean(task.decode(level, THRESHOLD), task, min_voxels)
                number = len(extract(segmentation, level[task.foreground], task, (0, 0, 0)))
            else:
                mask = level[task.foreground] > 255 * THRESHOLD
                number = int(cc3d.connected_components(mask, connectivity=26, out_dtype=np.uint32).max())
    return {
        "throughput": volume.box.num_voxels / seconds.wall / 1e6, "seconds": seconds.wall,
        "peak_memory": peaks.resident, "objects": number,
    }  # fmt: skip


UNITS = {"throughput": "Mvoxel/s", "seconds": "s", "peak_memory": "GB", "objects": "objects"}


def main() -> None:
    parser = common_options.parser(__doc__)
    parser.add_argument("--folder", type=Path, help="keeps the volumes; default: a temporary folder")
    parser.add_argument("--tiles", type=int, nargs="+", default=[2], help="sizes, in tiles of 33.5 million voxels")
    parser.add_argument("--methods", nargs="+", default=["components", "watershed", "polarity"])
    parser.add_argument("--most-in-memory", type=int, default=2, help="most tiles for the arms that hold the volume")
    parser.add_argument("--one", nargs=3, metavar=("PATH", "TASK", "ARM"), help=argparse.SUPPRESS)
    options = common_options.parse(parser, full={"tiles": [15, 30, 120], "most_in_memory": 15})
    if options.one:
        path, method, arm = options.one
        print(json.dumps(one_run(open_volume(path), method, arm)))
        return
    results = Results("propose_throughput", options)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for method in options.methods:
            channels = len(the_task(method).channels)
            for tiles in options.tiles:
                path = folder / f"probability-{tiles}-{channels}.zarr"
                for arm in ARMS if tiles <= options.most_in_memory else ARMS[:1]:
                    if not results.find("seconds", method=method, tiles=tiles, arm=arm):
                        write_probability(path, tiles, channels)
                        measure(results, path, method, tiles, arm)


def measure(results: Results, path: Path, method: str, tiles: int, arm: str) -> None:
    """Rows of one run, measured in a process of its own."""
    command = [sys.executable, __file__, "--one", str(path), method, arm]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
    for name, value in json.loads(printed).items():
        voxels = round(tiles * float(np.prod(TILE_ZYX)) / 1e9, 2)
        results.add(name, value, UNITS[name], data=BLOBS, method=method, gigavoxels=voxels, tiles=tiles, arm=arm)


if __name__ == "__main__":
    main()
