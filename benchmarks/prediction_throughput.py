"""Blockwise prediction beside the bare network on the same windows, in one run. One JSON row per repetition.

The bare side runs the forward pass alone, on the very windows that prediction visits, in batches of the same size,
from arrays in memory. The other side is all of it: reading a volume from disk, windows, blending, interpolation,
compression and writing of an OME-Zarr. Both take turns, so that a noisy machine is noisy for both.

    python benchmarks/prediction_throughput.py --repetitions 5
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded, as the command line does

import h5py
import numpy as np
import torch

from twostream.base.geometry import Box
from twostream.models.segmentation.config import SegmentationConfig
from twostream.models.segmentation.predict import WINDOWS_AT_ONCE, lattice_of, plan, predict
from twostream.models.segmentation.train import Segmenter, new_segmenter
from twostream.models.training import use_threads
from twostream.task import get_task
from twostream.volume import Volume, create_volume, open_volume
from twostream.volume.synthetic import Tissue


def num_windows(segmenter: Segmenter, image: Volume, config: SegmentationConfig) -> int:
    """Windows that prediction visits, those counted twice that two blocks share."""
    lattice, fold = lattice_of(segmenter, image, config), segmenter.network.fold_zyx
    total = 0
    for block in plan(segmenter, image.box, config):
        start = [a // f for a, f in zip(block.write_box.offset_zyx, fold, strict=True)]
        stop = [-(-b // f) for b, f in zip(block.write_box.stop_zyx, fold, strict=True)]
        count = 1
        for axis in range(3):
            extent, window = lattice.shape_zyx[axis], lattice.window_zyx[axis]
            low, high = max(start[axis] - 1, 0), min(stop[axis] + 1, extent)
            count *= sum(s < high and s + window > low for s in lattice.starts(axis, extent))
        total += count
    return total


def bare_seconds(segmenter: Segmenter, window_zyx: tuple[int, int, int], number: int) -> float:
    """Seconds of the forward pass alone over ``number`` windows."""
    fold = segmenter.network.fold_zyx
    device = "cuda" if torch.cuda.is_available() else "cpu"
    batch = torch.randn(WINDOWS_AT_ONCE, fold[0] * fold[1] * fold[2], *window_zyx, device=device)
    segmenter.network.to(device).eval()
    with torch.inference_mode():
        segmenter.network.folded_logit(batch).sum().item()  # the first pass chooses kernels
        start = time.monotonic()
        for done in range(0, number, WINDOWS_AT_ONCE):
            last = segmenter.network.folded_logit(batch[: min(WINDOWS_AT_ONCE, number - done)])
        last.sum().item()  # a GPU is behind
        return time.monotonic() - start


def stored(array: np.ndarray, voxel_size_nm: tuple[float, ...], name: str, folder: Path) -> Volume:
    """The image on disk: an OME-Zarr as ``twostream`` writes them, or HDF5 in the pieces and with the gzip of CREMI."""
    if name == "zarr":
        volume = create_volume(
            str(folder / "image.zarr"), shape_zyx=array.shape, dtype=np.uint8, voxel_size_nm=voxel_size_nm
        )
        volume.write(volume.box, array)
        return volume
    with h5py.File(folder / "image.h5", "w") as file:
        file.create_dataset("image", data=array, chunks=(8, 256, 256), compression="gzip")
        file.attrs["voxel_size_nm"] = voxel_size_nm
    return open_volume(f"{folder / 'image.h5'}:image")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="mitochondria", choices=["mitochondria", "polarity"])
    parser.add_argument("--shape", type=int, nargs=3, default=(32, 1024, 1024))
    parser.add_argument("--voxel-size", type=float, nargs=3, default=(40.0, 4.0, 4.0))
    parser.add_argument("--format", default="zarr", choices=["zarr", "hdf5"])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    use_threads(options.threads)
    size, config = tuple(options.voxel_size), SegmentationConfig()
    task = get_task(options.task, size)
    segmenter = new_segmenter(
        task, config, voxel_size_nm=size, num_sections=options.shape[0], grey=(120.0, 40.0), seed=0
    )
    with tempfile.TemporaryDirectory() as folder:
        section = Tissue(seed=0, voxel_size_nm=(40.0, 8.0, 8.0))
        tile = section.image(Box((0, 0, 0), (8, 256, 256)))
        repeats = [-(-s // t) for s, t in zip(options.shape, tile.shape, strict=True)]
        image_array = np.tile(tile, repeats)[tuple(slice(s) for s in options.shape)]
        image = stored(image_array, size, options.format, Path(folder))
        number = num_windows(segmenter, image, config)
        window = lattice_of(segmenter, image, config).window_zyx
        seconds = []
        for repetition in range(options.repetitions):
            bare = bare_seconds(segmenter, window, number)
            output = create_volume(
                str(Path(folder) / f"{repetition}.zarr"), shape_zyx=image.shape_zyx, dtype=np.uint8,
                voxel_size_nm=size, num_channels=len(task.channels),
            )  # fmt: skip
            start = time.monotonic()
            predict(segmenter, image, output, config)
            whole = time.monotonic() - start
            row = {
                "name": "prediction_throughput", "task": options.task, "shape_zyx": list(options.shape),
                "format": options.format,
                "windows": number, "bare_seconds": round(bare, 2), "predict_seconds": round(whole, 2),
                "share_of_bare": round(bare / whole, 3), "voxels_per_second": round(image.box.num_voxels / whole),
            }  # fmt: skip
            print(json.dumps(row), flush=True)
            seconds.append((bare, whole))
        # Other work on the machine only ever adds time: the fastest of each side tells most about the code.
        (bare, whole), (fast_bare, fast) = np.sum(seconds, 0), np.min(seconds, 0)
        row |= {
            "repetitions": options.repetitions, "bare_seconds": round(bare, 2), "predict_seconds": round(whole, 2),
            "share_of_bare": round(bare / whole, 3), "share_of_bare_fastest": round(fast_bare / fast, 3),
            "voxels_per_second": round(options.repetitions * image.box.num_voxels / whole),
        }  # fmt: skip
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
