"""How fast are candidates cut, aligned and encoded?

Cutting: aligned pairs per second of one core, from a volume in memory and from an OME-Zarr on disk, beside the bare
limit: warping an image and a mask of the same size with OpenCV, and nothing else. Encoding: ``encode``, from patches as
they are cut (uint8) to latents in an array, beside the bare forward pass on a batch that is a tensor already.

    python benchmarks/stream_throughput.py
    python benchmarks/stream_throughput.py --full --candidates 2000 --repetitions 2
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path

import cv2
import numpy as np
import torch
from common import options as common_options
from common.measure import timed
from common.results import Data, Results
from common.sets import renumbered, synthetic_data

from twostream.base.geometry import Box
from twostream.candidates.candidate import Candidate, clean, extract
from twostream.candidates.cutting import cut_all
from twostream.candidates.patches import PatchConfig
from twostream.models.streams.config import StreamConfig
from twostream.models.streams.draw import image_input
from twostream.models.streams.encode import BATCH_SIZE, encode
from twostream.models.streams.fit import new_stream
from twostream.models.training import use_threads
from twostream.project.settings import PRESETS
from twostream.task import get_task
from twostream.volume import MemoryVolume, Volume, create_volume
from twostream.volume.synthetic import Tissue

SIZE_NM = (30.0, 8.0, 8.0)


def world(
    task_name: str, number: int, shape_zyx: tuple[int, int, int]
) -> tuple[MemoryVolume, list[Candidate], float, Data]:
    """Synthetic tissue in memory, its true objects as candidates, repeated to ``number``; and a patch's pixel size."""
    task = get_task(task_name, SIZE_NM)
    tissue, box = Tissue(seed=0, voxel_size_nm=SIZE_NM), Box.whole(shape_zyx)
    kind = "synapses" if task_name == "polarity" else "mitochondria"
    labels = renumbered(getattr(tissue, kind)(box), task)
    min_voxels = round(task.min_object_nm3 / math.prod(SIZE_NM))
    objects = extract(clean(labels, task, min_voxels), np.full(shape_zyx, 255, np.uint8), task, (0, 0, 0))
    image = MemoryVolume(tissue.image(box), SIZE_NM)
    repeated = [objects[i % len(objects)] for i in range(number)]
    return image, repeated, 8.0, synthetic_data(shape_zyx, [0], kind)


def cut_seconds(volume: Volume, candidates: list[Candidate], config: PatchConfig, pixel_nm: float) -> float:
    """Processor seconds, all threads together: what one core would need."""
    with timed() as seconds:
        for _ in cut_all(volume, candidates, config, pixel_nm):
            pass
    return seconds.processor


def bare_seconds(number: int, width: int) -> float:
    """Processor seconds of two warps of a window of sqrt(2) times the width, for each candidate."""
    side = math.ceil(width * math.sqrt(2))
    window = np.random.default_rng(0).integers(0, 255, (side, side)).astype(np.uint8)
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), 30, 1)
    with timed() as seconds:
        for _ in range(number):
            for how in (cv2.INTER_LINEAR, cv2.INTER_NEAREST):
                cv2.warpAffine(window, matrix, (width, width), flags=how | cv2.WARP_INVERSE_MAP)
    return seconds.processor


def report_encoding(
    results: Results, name: str, config: StreamConfig, width: int, number: int, repetitions: int
) -> None:
    """Rows of one network."""
    network = new_stream((1, width, width), config, 0).eval()
    patches = np.random.default_rng(0).integers(0, 255, (number, 1, width, width)).astype(np.uint8)
    batch = torch.from_numpy(image_input(patches[:BATCH_SIZE]))
    bare = whole = 0.0
    with torch.inference_mode():
        network.features(batch)  # the first pass chooses kernels
        for _ in range(repetitions):
            # Batch by batch in turns, so that a noisy machine is noisy for both.
            for first in range(0, number, BATCH_SIZE):
                with timed() as alone:
                    network.features(batch[: min(BATCH_SIZE, number - first)])
                with timed() as all_of_it:
                    encode(network, image_input(patches[first : first + BATCH_SIZE]))
                bare, whole = bare + alone.processor, whole + all_of_it.processor
    data = Data("uniform noise", f"default_rng(0).integers(0, 255, ({number}, 1, {width}, {width}))")
    settings = {"network": name, "width_px": width, "patches": number * repetitions}
    settings["threads"] = torch.get_num_threads()
    results.add("encode_share_of_bare", bare / whole, "share", data=data, **settings)
    results.add("encoded_per_core_second", number * repetitions / whole, "patches/s", data=data, **settings)


def report_cutting(results: Results, options: argparse.Namespace, task: str) -> None:
    """Rows of one task's objects: planes and widths, from memory and from disk."""
    shape = tuple(options.shape)
    image, candidates, pixel_nm, data = world(task, options.candidates, shape)
    number = options.repetitions * len(candidates)
    with tempfile.TemporaryDirectory() as folder:
        stored = create_volume(
            str(Path(folder) / "a.zarr"), shape_zyx=shape, dtype=np.uint8, voxel_size_nm=SIZE_NM, num_channels=0
        )
        stored.write(stored.box, image.read(image.box))
        for planes, widths in (("central", None), ("central", 1.6), ("stack", None), ("orthogonal", None)):
            config = PatchConfig(width_px=options.width, planes=planes, object_widths=widths)
            for where, volume in (("memory", image), ("zarr", stored)):
                seconds = [cut_seconds(volume, candidates, config, pixel_nm) for _ in range(options.repetitions)]
                bare = [bare_seconds(len(candidates), options.width) for _ in range(options.repetitions)]
                settings = {"task": task, "volume": where, "planes": planes, "object_widths": widths}
                settings |= {"width_px": options.width, "candidates": len(candidates)}
                ends = [len(candidates) / max(seconds), len(candidates) / min(seconds)]
                results.add(
                    "cut_per_core_second", number / sum(seconds), "pairs/s", data=data, spread=ends,
                    spread_is=f"range over {options.repetitions} repetitions", **settings,
                )  # fmt: skip
                results.add("bare_warps_per_core_second", number / sum(bare), "pairs/s", data=data, **settings)


def main() -> None:
    parser = common_options.parser(__doc__)
    parser.add_argument("--candidates", type=int, default=300)
    parser.add_argument("--shape", type=int, nargs=3, default=[16, 512, 512], metavar=("Z", "Y", "X"))
    parser.add_argument("--width", type=int, default=128, help="pixels; published: 128")
    parser.add_argument("--patches", type=int, nargs=2, default=[128, 512], metavar=("PUBLISHED", "LAPTOP"))
    parser.add_argument("--repetitions", type=int, default=2)
    parser.add_argument("--only", choices=["cut", "encode"])
    parser.set_defaults(threads=1)  # of encoding; cutting has one
    full = {"candidates": 4000, "shape": [32, 1024, 1024], "patches": [1024, 4096], "repetitions": 3}
    options = common_options.parse(parser, full=full)
    use_threads(options.threads)
    cv2.setNumThreads(1)
    results = Results("stream_throughput", options)
    if options.only != "encode":
        for task in ("polarity", "mitochondria"):
            report_cutting(results, options, task)
    if options.only == "cut":
        return
    many, more = options.patches
    for name in ("supervised", "unsupervised"):
        config = StreamConfig(**PRESETS["paper"]["streams"][name])
        report_encoding(results, f"published {name}", config, 128, many, options.repetitions)
    for method in ("vae", "simclr"):
        report_encoding(results, f"laptop {method}", StreamConfig(method=method), 64, more, options.repetitions)


if __name__ == "__main__":
    main()
