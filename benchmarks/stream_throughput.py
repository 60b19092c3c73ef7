"""How fast are candidates cut, aligned and encoded? One JSON row per measurement.

Cutting: aligned pairs per second of one core, from a volume in memory and from an OME-Zarr on disk, beside the bare
limit: warping an image and a mask of the same size with OpenCV, and nothing else. Encoding: `encode`, from patches as
they are cut (uint8) to latents in an array, beside the bare forward pass on a batch that is a tensor already.

    python benchmarks/stream_throughput.py --candidates 4000
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded, as the command line does

import cv2
import numpy as np
import torch
from stream_probe import counted

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

SHAPE = (32, 1024, 1024)
SIZE_NM = (30.0, 8.0, 8.0)


def world(task_name: str, number: int) -> tuple[MemoryVolume, list[Candidate], float]:
    """Synthetic tissue in memory, its true objects as candidates, repeated to ``number``; and a patch's pixel size."""
    task = get_task(task_name, SIZE_NM)
    tissue, box = Tissue(seed=0, voxel_size_nm=SIZE_NM), Box.whole(SHAPE)
    labels = (tissue.synapses if task_name == "polarity" else tissue.mitochondria)(box)
    min_voxels = round(task.min_object_nm3 / math.prod(SIZE_NM))
    objects = extract(clean(counted(labels, task), task, min_voxels), np.full(SHAPE, 255, np.uint8), task, (0, 0, 0))
    image = MemoryVolume(tissue.image(box), SIZE_NM)
    return image, [objects[i % len(objects)] for i in range(number)], 8.0


def cut_seconds(volume: Volume, candidates: list[Candidate], config: PatchConfig, pixel_nm: float) -> float:
    """Processor seconds, all threads together: what one core would need, whatever else it has to do."""
    start = time.process_time()
    for _ in cut_all(volume, candidates, config, pixel_nm):
        pass
    return time.process_time() - start


def bare_seconds(number: int, width: int) -> float:
    """Processor seconds of two warps of a window of sqrt(2) times the width, for each candidate."""
    side = math.ceil(width * math.sqrt(2))
    window = np.random.default_rng(0).integers(0, 255, (side, side)).astype(np.uint8)
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), 30, 1)
    start = time.process_time()
    for _ in range(number):
        for how in (cv2.INTER_LINEAR, cv2.INTER_NEAREST):
            cv2.warpAffine(window, matrix, (width, width), flags=how | cv2.WARP_INVERSE_MAP)
    return time.process_time() - start


def encode_rows(name: str, config: StreamConfig, width: int, number: int, repetitions: int) -> dict[str, object]:
    network = new_stream((1, width, width), config, 0).eval()
    patches = np.random.default_rng(0).integers(0, 255, (number, 1, width, width)).astype(np.uint8)
    batch = torch.from_numpy(image_input(patches[:BATCH_SIZE]))
    bare = whole = 0.0
    with torch.inference_mode():
        network.features(batch)  # the first pass chooses kernels
        for _ in range(repetitions):
            # Batch by batch in turns, so that a noisy machine is noisy for both.
            for first in range(0, number, BATCH_SIZE):
                start = time.process_time()
                network.features(batch[: min(BATCH_SIZE, number - first)])
                middle = time.process_time()
                encode(network, image_input(patches[first : first + BATCH_SIZE]))
                bare, whole = bare + middle - start, whole + time.process_time() - middle
    return {
        "name": "encode", "network": name, "width_px": width, "patches": number * repetitions,
        "bare_core_seconds": round(bare, 2), "core_seconds": round(whole, 2), "share_of_bare": round(bare / whole, 3),
        "patches_per_core_second": round(number * repetitions / whole), "threads": torch.get_num_threads(),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=4000)
    parser.add_argument("--width", type=int, default=128, help="pixels; published: 128")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--only", choices=["cut", "encode"])
    parser.add_argument("--threads", type=int, default=1, help="of encoding; cutting has one")
    options = parser.parse_args()
    use_threads(options.threads)
    cv2.setNumThreads(1)
    for task in () if options.only == "encode" else ("polarity", "mitochondria"):
        image, candidates, pixel_nm = world(task, options.candidates)
        with tempfile.TemporaryDirectory() as folder:
            stored = create_volume(
                str(Path(folder) / "a.zarr"), shape_zyx=SHAPE, dtype=np.uint8, voxel_size_nm=SIZE_NM, num_channels=0
            )
            stored.write(stored.box, image.read(image.box))
            for planes, widths in (("central", None), ("central", 1.6), ("stack", None), ("orthogonal", None)):
                config = PatchConfig(width_px=options.width, planes=planes, object_widths=widths)
                for where, volume in (("memory", image), ("zarr", stored)):
                    seconds = [cut_seconds(volume, candidates, config, pixel_nm) for _ in range(options.repetitions)]
                    bare = [bare_seconds(len(candidates), options.width) for _ in range(options.repetitions)]
                    row = {
                        "name": "cut", "task": task, "volume": where, "planes": planes, "object_widths": widths,
                        "width_px": options.width, "candidates": len(candidates),
                        "core_seconds": [round(s, 2) for s in seconds],
                        "patches_per_core_second": round(len(seconds) * len(candidates) / sum(seconds)),
                        "bare_warps_per_core_second": round(len(bare) * len(candidates) / sum(bare)),
                    }  # fmt: skip
                    print(json.dumps(row), flush=True)
    if options.only == "cut":
        return
    published = {k: v for k, v in PRESETS["paper"]["streams"].items() if k in ("supervised", "unsupervised")}
    for name, settings in published.items():
        print(json.dumps(encode_rows(f"published {name}", StreamConfig(**settings), 128, 1024, options.repetitions)))
    for method in ("vae", "simclr"):
        row = encode_rows(f"laptop {method}", StreamConfig(method=method), 64, 4096, options.repetitions)
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
