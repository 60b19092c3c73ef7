"""Blockwise prediction beside the bare network on the same windows, in one run.

The bare side runs the forward pass alone, on the very windows that prediction visits, in batches of the same size,
from arrays in memory. The other side is everything: reading a volume from disk, windows, blending, interpolation,
compression and writing of an OME-Zarr. Both take turns, so that a noisy machine is noisy for both.

    python benchmarks/prediction_throughput.py
    python benchmarks/prediction_throughput.py --full --task polarity --voxel-size 30 8 8
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import h5py
import numpy as np
import torch
from common import options as common_options
from common.measure import timed
from common.results import Data, Results

from twostream.base.geometry import Box
from twostream.models.segmentation.blending import WINDOWS_AT_ONCE
from twostream.models.segmentation.config import SegmentationConfig
from twostream.models.segmentation.predict import lattice_of, plan, predict
from twostream.models.segmentation.train import Segmenter, new_segmenter
from twostream.models.training import use_threads
from twostream.task import get_task
from twostream.volume import Volume, create_volume, open_volume
from twostream.volume.synthetic import Tissue


def num_windows(segmenter: Segmenter, image: Volume, config: SegmentationConfig) -> int:
    """Windows that prediction visits; a window that two blocks share counts twice."""
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
        with timed() as seconds:
            for done in range(0, number, WINDOWS_AT_ONCE):
                last = segmenter.network.folded_logit(batch[: min(WINDOWS_AT_ONCE, number - done)])
            last.sum().item()  # waits for a GPU
    return seconds.wall


def stored(array: np.ndarray, voxel_size_nm: tuple[float, ...], name: str, folder: Path) -> Volume:
    """The image on disk: an OME-Zarr as ``twostream`` writes it, or HDF5 with the chunks and the gzip of CREMI."""
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
    parser = common_options.parser(__doc__)
    parser.add_argument("--task", choices=["polarity", "cleft", "mitochondria"], default="mitochondria")
    parser.add_argument("--shape", type=int, nargs=3, default=[16, 512, 512], metavar=("Z", "Y", "X"))
    parser.add_argument("--voxel-size", type=float, nargs=3, default=[40.0, 4.0, 4.0], metavar=("Z", "Y", "X"))
    parser.add_argument("--format", choices=["zarr", "hdf5"], default="zarr", help="of the image")
    parser.add_argument("--repetitions", type=int, default=2)
    options = common_options.parse(parser, full={"shape": [32, 1024, 1024], "repetitions": 5})
    use_threads(options.threads)
    results = Results("prediction_throughput", options)
    size, config = tuple(options.voxel_size), SegmentationConfig()
    task = get_task(options.task, size)
    segmenter = new_segmenter(
        task, config, voxel_size_nm=size, num_sections=options.shape[0], grey=(120.0, 40.0), seed=0
    )
    settings = {"task": options.task, "shape_zyx": options.shape, "voxel_size_nm": options.voxel_size}
    settings |= {"format": options.format, "threads": options.threads}
    data = Data("synthetic tissue, one tile repeated", "Tissue(seed=0, voxel_size_nm=(40, 8, 8)), 8 x 256 x 256")
    with tempfile.TemporaryDirectory() as folder:
        section = Tissue(seed=0, voxel_size_nm=(40.0, 8.0, 8.0))
        tile = section.image(Box((0, 0, 0), (8, 256, 256)))
        repeats = [-(-s // t) for s, t in zip(options.shape, tile.shape, strict=True)]
        image_array = np.tile(tile, repeats)[tuple(slice(s) for s in options.shape)]
        image = stored(image_array, size, options.format, Path(folder))
        number = num_windows(segmenter, image, config)
        window = lattice_of(segmenter, image, config).window_zyx
        bare, whole = [], []
        for repetition in range(options.repetitions):
            bare.append(bare_seconds(segmenter, window, number))
            output = create_volume(
                str(Path(folder) / f"{repetition}.zarr"), shape_zyx=image.shape_zyx, dtype=np.uint8,
                voxel_size_nm=size, num_channels=len(task.channels),
            )  # fmt: skip
            with timed() as seconds:
                predict(segmenter, image, output, config)
            whole.append(seconds.wall)
    share = np.array(bare) / np.array(whole)
    seen = [float(share.min()), float(share.max())]
    results.add("bare_seconds", float(np.mean(bare)), "s", data=data, **settings)
    results.add("seconds", float(np.mean(whole)), "s", data=data, **settings)
    results.add(
        "share_of_bare", sum(bare) / sum(whole), "share", data=data, spread=seen,
        spread_is=f"range over {options.repetitions} repetitions", **settings,
    )  # fmt: skip
    # Other work on the machine only ever adds time: the fastest of each side tells most about the code.
    results.add("share_of_bare_fastest", min(bare) / min(whole), "share", data=data, **settings)
    voxels = options.repetitions * image.box.num_voxels / sum(whole)
    results.add("voxels_per_second", round(voxels), "voxels/s", data=data, **settings)


if __name__ == "__main__":
    main()
