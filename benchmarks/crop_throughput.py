"""How fast are random crops of a large volume, and how much of it does the unsupervised stream ever see?

A Zarr volume of noise is written (--full: 1024 x 1024 x 1024 voxels in chunks of 16 x 128 x 128). Crops are drawn with
the default settings (64 pixels, three sections, any angle) and with those of the preset paper (128 pixels, one section,
upright), group by group as in training, and each crop alone. The bare limit is tensorstore reading the same boxes.
Group by group all three take turns, so that a noisy machine is noisy for each. Times are processor time of all threads,
that is, what one core would need; the volume is in the page cache.

The share of voxels seen after a training is counted, not estimated: places are drawn as in training, and every voxel
inside a crop is marked. Nothing is trained for it. Last, a default training step with these crops beside the same step
with patches that are in memory already.

    python benchmarks/crop_throughput.py
    python benchmarks/crop_throughput.py --full
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tensorstore
from common import options as common_options
from common.measure import timed
from common.results import Data, Results

from twostream.base.geometry import Box, grid
from twostream.candidates.crops import RandomCrops
from twostream.candidates.patches import PatchConfig
from twostream.candidates.sampling import Sampler
from twostream.models.streams.config import StreamConfig, StreamsConfig
from twostream.models.streams.draw import ImageDraw
from twostream.models.streams.fit import fit_stream, new_stream
from twostream.models.training import use_threads
from twostream.project.settings import BY_TASK, PRESETS
from twostream.volume import Volume, create_volume, open_volume, read_padded

SIZE_NM = (30.0, 8.0, 8.0)
PIXEL_NM = 8.0
FAR_AWAY = 1000
"""Crops cut one at a time are those of a group that has not just been read: the volume keeps some decoded chunks."""
FORMER_CROPS = 4096
"""Fixed patches that trained the stream before crops were drawn anew."""


class Watched(Volume):
    """Another volume; notes the boxes that are read."""

    def __init__(self, volume: Volume) -> None:
        self.uri, self.shape_zyx, self.num_channels = volume.uri, volume.shape_zyx, volume.num_channels
        self.voxel_size_nm, self.dtype, self.chunk_shape_zyx = (
            volume.voxel_size_nm,
            volume.dtype,
            volume.chunk_shape_zyx,
        )
        self.volume = volume
        self.boxes: list[Box] = []

    def _read(self, box: Box) -> np.ndarray:
        self.boxes.append(box)
        return self.volume.read(box)


@dataclass(frozen=True)
class Plan:
    """Crops and training of one preset.

    Attributes:
        trained_crops: random crops of a whole training, by the steps it takes.
    """

    name: str
    patches: PatchConfig
    turned: bool
    trained_crops: dict[int, int]


def plans() -> list[Plan]:
    """The default settings (training of synapses, and of mitochondria) and the preset paper."""
    streams, paper = StreamsConfig(), StreamsConfig(**PRESETS["paper"]["streams"])
    longer = BY_TASK["mitochondria"]["streams"]["unsupervised"]["num_steps"]

    def crops(config: StreamsConfig, *steps: int) -> dict[int, int]:
        of_step = config.unsupervised.batch_size * config.unsupervised.devices * config.random_crop_share
        return {n: int(n * of_step) for n in steps}

    return [
        Plan("default", PatchConfig(), streams.augment_crops, crops(streams, streams.unsupervised.num_steps, longer)),
        Plan(
            "paper", PatchConfig(**PRESETS["paper"]["patches"]), paper.augment_crops,
            crops(paper, 100, 1000, paper.unsupervised.num_steps),
        ),
    ]  # fmt: skip


def make_volume(path: Path, shape_zyx: tuple[int, int, int]) -> Data:
    """Write smooth noise, of which zstd leaves about as much as of electron microscopy; the same slab, shifted."""
    rng = np.random.default_rng(0)
    slab = cv2.GaussianBlur(rng.normal(0, 1, shape_zyx[1:]).astype(np.float32), (0, 0), 3)
    grey = np.clip(128 + 40 * slab / slab.std(), 0, 255)
    volume = create_volume(str(path), shape_zyx=shape_zyx, dtype=np.uint8, voxel_size_nm=SIZE_NM, num_channels=0)
    for block in grid(volume.box, (16, *shape_zyx[1:])):
        shifted = np.roll(grey, 37 * block.write_box.offset_zyx[0], (0, 1))
        noise = rng.normal(0, 2, shifted.shape)
        sections = [np.clip(np.roll(shifted, 5 * z, 0) + noise, 0, 255) for z in range(block.write_box.shape_zyx[0])]
        volume.write(block.write_box, np.stack(sections).astype(np.uint8))
    shape = ",".join(map(str, shape_zyx))
    return Data("smooth noise, Zarr of 16 x 128 x 128", f"crop_throughput.make_volume(({shape}))")


def alone_seconds(volume: Volume, crops: RandomCrops, plan: Plan, group: int, number: int) -> float:
    """Seconds of ``number`` crops of a group, each read and cut by itself."""
    corners, angles, _ = crops.places(group)
    sampler = Sampler.of(volume, plan.patches, PIXEL_NM)
    center = [(extent - 1) / 2 for extent in crops.extent_zyx]
    with timed() as seconds:
        for row in np.random.default_rng(group).permutation(len(corners))[:number]:
            window = read_padded(volume, Box(tuple(corners[row].tolist()), crops.extent_zyx))
            sampler.sample(sampler.smoothed(window), center, float(angles[row]), cv2.INTER_LINEAR)
    return seconds.processor


def report_speed(results: Results, data: Data, path: Path, plan: Plan, num_groups: int) -> None:
    """Rows of one plan: crops and decoded megabytes a second, beside crops one at a time and bare reading."""
    volume = Watched(open_volume(str(path)))
    crops = RandomCrops(volume, plan.patches, PIXEL_NM, 0, turned=plan.turned)
    spec = {"driver": "zarr", "kvstore": {"driver": "file", "path": str(path / "0")}}
    store = tensorstore.open(spec).result()
    few = max(1, crops.crops_per_group // 8)
    crops.cut(num_groups)  # warm
    whole, bare, alone, decoded = [], [], [], 0
    for group in range(num_groups):
        alone.append(alone_seconds(volume, crops, plan, FAR_AWAY + group, few))
        volume.boxes.clear()
        with timed() as cutting:
            crops.cut(group)
        boxes = list(volume.boxes)
        decoded += sum(box.num_voxels for box in boxes)
        with timed() as reading:
            for box in boxes:
                np.asarray(store[box.slices].read().result())
        whole.append(cutting.processor)
        bare.append(reading.processor)
    number = num_groups * crops.crops_per_group
    settings = {"preset": plan.name, "crops": number, "crops_per_group": crops.crops_per_group}
    for name, seconds, each in (("", whole, 1.0), ("_bare_reading", bare, 1.0), ("_one_at_a_time", alone, few)):
        per_group = crops.crops_per_group if each == 1.0 else few
        rates = [per_group / s for s in seconds]
        results.add(
            f"crops_per_core_second{name}", per_group * num_groups / sum(seconds), "crops/s", data=data,
            spread=[min(rates), max(rates)], spread_is=f"range over {num_groups} groups", **settings,
        )  # fmt: skip
    results.add("mb_read_per_core_second", decoded / 1e6 / sum(whole), "MB/s", data=data, **settings)
    results.add("mb_read_per_core_second_bare", decoded / 1e6 / sum(bare), "MB/s", data=data, **settings)
    results.add("kb_read_per_crop", decoded / 1e3 / number, "KB", data=data, **settings)


def drawn(crops: RandomCrops, first: int, last: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Corners (n, 3) and angles (n,) of the crops ``first`` to ``last`` - 1, group by group."""
    while first < last:
        group, row = divmod(first, crops.crops_per_group)
        corners, angles, order = crops.places(group)
        used = np.argsort(order)[row : row + last - first]
        yield corners[used], angles[used]
        first += len(used)


def seen_upright(crops: RandomCrops, plan: Plan, shape_zyx: tuple[int, int, int], ends: list[int]) -> list[float]:
    """Share of voxels inside the first crops, for every number of crops of ``ends``; crops are boxes in one section."""
    width = plan.patches.width_px
    taken = np.zeros((shape_zyx[0], shape_zyx[1] - width + 1, shape_zyx[2] - width + 1), np.uint8)
    square, outside, shares = np.ones((width, width), np.uint8), (0, width - 1, 0, width - 1), []
    for first, last in itertools.pairwise([0, *ends]):
        for corners, _ in drawn(crops, first, last):
            taken[tuple(corners.T)] = 1
        seen = 0
        for section in taken:
            padded = cv2.copyMakeBorder(section, *outside, cv2.BORDER_CONSTANT, value=0)
            seen += cv2.countNonZero(cv2.dilate(padded, square, anchor=(width - 1, width - 1)))
        shares.append(seen / np.prod(shape_zyx))
    return shares


def seen_turned(crops: RandomCrops, plan: Plan, shape_zyx: tuple[int, int, int], ends: list[int]) -> list[float]:
    """The same for crops at any angle: squares, on each of their planes."""
    seen, shares = np.zeros(shape_zyx, np.uint8), []
    half = (plan.patches.width_px - 1) / 2 * PIXEL_NM / SIZE_NM[1]
    step, middle_xy = plan.patches.step_sections(SIZE_NM[0]), (np.array(crops.extent_zyx[:0:-1]) - 1) / 2
    square = np.array([[-half, -half], [half, -half], [half, half], [-half, half]])
    for first, last in itertools.pairwise([0, *ends]):
        for corners, angles in drawn(crops, first, last):
            for corner, angle in zip(corners, np.radians(angles), strict=True):
                c, s = np.cos(angle), np.sin(angle)
                outline = np.rint(square @ np.array([[c, s], [-s, c]]) + corner[:0:-1] + middle_xy).astype(np.int32)
                for z in range(corner[0], corner[0] + crops.extent_zyx[0], step):
                    if 0 <= z < shape_zyx[0]:
                        cv2.fillConvexPoly(seen[z], outline, 1)
        shares.append(np.count_nonzero(seen) / seen.size)
    return shares


def report_share(results: Results, data: Data, path: Path, plan: Plan) -> None:
    """Rows of one plan: the share of voxels that were in a crop after trainings of some lengths."""
    volume = open_volume(str(path))
    crops = RandomCrops(volume, plan.patches, PIXEL_NM, 0, turned=plan.turned)
    steps_of = {number: steps for steps, number in plan.trained_crops.items()}
    if plan.turned:
        steps_of = {FORMER_CROPS: 0} | steps_of
    ends = sorted(steps_of)
    counted = seen_turned if plan.turned else seen_upright
    for number, share in zip(ends, counted(crops, plan, volume.shape_zyx, ends), strict=True):
        steps = steps_of[number] or "as many crops as were fixed before"
        results.add("share_of_voxels_seen", share, "share", data=data, preset=plan.name, steps=steps, crops=number)


def report_training(results: Results, data: Data, path: Path, num_steps: int) -> None:
    """Rows of the default stream: seconds a step with crops of the volume, and with patches in memory."""
    config = StreamConfig(num_steps=num_steps)
    patches, streams = PatchConfig(), StreamsConfig()
    shape = (patches.num_planes, patches.width_px, patches.width_px)
    centred = np.random.default_rng(0).integers(0, 255, (1024, *shape)).astype(np.uint8)
    seconds: dict[str, list[float]] = {"crops": [], "memory": []}
    for turn in range(4):
        # In turns, and the other one first in every second turn.
        for kind in sorted(seconds, reverse=bool(turn % 2)):
            crops = RandomCrops(open_volume(str(path)), patches, PIXEL_NM, turn, turned=True)
            draw = ImageDraw(
                crops if kind == "crops" else Fixed(centred), centred, streams.random_crop_share, patches.planes
            )
            network = new_stream(shape, config, 0)
            with tempfile.TemporaryDirectory() as folder, timed() as taken:
                fit_stream(network, draw, config, seed=turn, resume_path=Path(folder) / "r", name="unsupervised")
            seconds[kind].append(taken.processor / num_steps)
    for kind, values in seconds.items():
        results.add(
            "core_seconds_per_default_step", float(np.median(values)), "s", data=data,
            spread=[min(values), max(values)], spread_is=f"range over {len(values)} trainings", raw_patches=kind,
            steps=num_steps,
        )  # fmt: skip


@dataclass(frozen=True)
class Fixed:
    """Patches in memory in place of crops."""

    patches: np.ndarray

    def __call__(self, number: int) -> np.ndarray:
        return self.patches[number % len(self.patches)]


def main() -> None:
    parser = common_options.parser(__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=[32, 512, 512], metavar=("Z", "Y", "X"))
    parser.add_argument("--groups", type=int, default=2, help="groups of crops that are timed")
    parser.add_argument("--steps", type=int, default=20, help="default training steps that are timed")
    parser.add_argument("--paper-steps", type=int, default=2000, help="steps at which the preset paper is cut short")
    full = {"shape": [1024, 1024, 1024], "groups": 8, "steps": 100, "paper_steps": 400_000}
    options = common_options.parse(parser, full=full)
    use_threads(options.threads)
    results = Results("crop_throughput", options)
    shape = tuple(options.shape)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.zarr"
        data = make_volume(path, shape)
        for plan in plans():
            report_speed(results, data, path, plan, options.groups)
            kept = {n: crops for n, crops in plan.trained_crops.items() if n <= options.paper_steps}
            report_share(results, data, path, Plan(plan.name, plan.patches, plan.turned, kept))
        report_training(results, data, path, options.steps)


if __name__ == "__main__":
    main()
