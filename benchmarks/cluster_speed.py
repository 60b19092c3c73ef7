"""Blocks on Dask workers of this machine: what a second worker is worth, for prediction and for proposing.

Each worker has one thread. The time to start them is not counted; beside them the same blocks in this process, with one
thread as well.

    python benchmarks/cluster_speed.py
    python benchmarks/cluster_speed.py --full --rows rows.jsonl     # 1.2 GB on disk

With --rows, what the file holds is not measured again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import options as common_options
from common.blobs import BLOBS, THRESHOLD, TILE_ZYX, VOXEL_SIZE_NM, the_task, write_probability
from common.measure import timed
from common.results import Data, Results

from twostream.candidates.proposing import propose
from twostream.models.segmentation.config import SegmentationConfig
from twostream.models.segmentation.predict import predict
from twostream.models.segmentation.train import new_segmenter
from twostream.models.training import use_threads
from twostream.task import get_task
from twostream.volume import Volume, create_volume, open_volume
from twostream.volume.cluster import open_executor
from twostream.volume.stage import Stage

WORKERS = (None, 1, 2)
"""None: in this process."""
IMAGE_ZYX, QUICK_IMAGE_ZYX = (48, 768, 768), (16, 192, 384)
SETTINGS = {
    "filters": (8, 16, 32, 48), "max_pixel_size_nm": 8, "window_shape_zyx": (16, 96, 96), "context_zyx": (3, 12, 12),
    "block_shape_zyx": (16, 192, 192),
}  # fmt: skip
"""The network of the demonstration; blocks that give each worker several."""
NOISE = Data("noise", "cluster_speed.py")


def prediction(folder: Path, is_full: bool) -> tuple[Callable[[Stage], object], int, Data]:
    """A prediction, and its number of voxels."""
    shape = IMAGE_ZYX if is_full else QUICK_IMAGE_ZYX
    path = folder / "image.zarr"
    if not path.exists():
        image = create_volume(str(path), shape_zyx=shape, dtype=np.uint8, voxel_size_nm=VOXEL_SIZE_NM)
        image.write(image.box, np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    image, task = open_volume(str(path)), get_task("mitochondria", VOXEL_SIZE_NM)
    config = SegmentationConfig(**SETTINGS)
    segmenter = new_segmenter(
        task, config, voxel_size_nm=VOXEL_SIZE_NM, num_sections=shape[0], grey=(120.0, 40.0), seed=0
    )

    def work(stage: Stage) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            output = create_volume(
                f"{temporary}/p.zarr", shape_zyx=shape, dtype=np.uint8, voxel_size_nm=VOXEL_SIZE_NM, num_channels=1
            )
            predict(segmenter, image, output, config, stage)

    return work, int(np.prod(shape)), NOISE


def proposing(folder: Path, method: str, is_full: bool) -> tuple[Callable[[Stage], object], int, Data]:
    """Candidates of a probability volume, and its number of voxels."""
    tiles, task = 30 if is_full else 2, the_task(method)
    path = folder / f"probability-{tiles}.zarr"
    write_probability(path, tiles, 1)
    probability: Volume = open_volume(str(path))
    min_voxels = max(1, round(task.min_object_nm3 / float(np.prod(VOXEL_SIZE_NM))))
    return (
        lambda stage: propose(probability, task, THRESHOLD, min_voxels, stage=stage),
        tiles * int(np.prod(TILE_ZYX)),
        BLOBS,
    )


def main() -> None:
    parser = common_options.parser(__doc__)
    parser.add_argument("--folder", type=Path, help="keeps the volumes; default: a temporary folder")
    options = common_options.parse(parser, full={})
    use_threads(1)
    results = Results("cluster_speed", options)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("predict", "components", "watershed"):
            for workers in WORKERS:
                arm = "this process" if workers is None else f"{workers} workers"
                if results.find("seconds", stage=name, arm=arm):
                    continue
                make = prediction(folder, options.full) if name == "predict" else proposing(folder, name, options.full)
                work, voxels, data = make
                with open_executor(None if workers is None else "local", workers) as executor, timed() as seconds:
                    work(Stage(executor))
                shared = {"data": data, "stage": name, "arm": arm, "voxels": voxels}
                results.add("seconds", seconds.wall, "s", **shared)
                results.add("throughput", voxels / seconds.wall / 1e6, "Mvoxel/s", **shared)


if __name__ == "__main__":
    main()
