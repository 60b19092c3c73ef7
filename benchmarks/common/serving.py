"""A project to be proofread, of any size, and its server as a process of its own.

The project is written with the project's own functions, without S and without streams: an image of tiled synthetic
tissue in chunks, candidates and queries at random places with small masks, earlier rounds that were answered, and a
round that waits for answers.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import tensorstore

from common.results import Data
from twostream.base.geometry import Box
from twostream.candidates.candidate import Candidate
from twostream.candidates.patches import PatchPair
from twostream.candidates.table import to_table, write_parts
from twostream.project.create import create_project
from twostream.project.probabilities import Probabilities, write_probabilities
from twostream.project.project import FIRST_STEPS, LATER_STEPS, Project
from twostream.project.records import Answer, Query
from twostream.task.answers import AnswerKind
from twostream.volume.synthetic import Tissue

VOXEL_SIZE_NM = (30.0, 8.0, 8.0)
MASK_ZYX = (6, 24, 24)
PER_ROUND = 1000
"""Answers of each earlier round."""
ROWS_AT_ONCE = 100_000
KINDS = (AnswerKind.TRUE, AnswerKind.NOTHING, AnswerKind.SHAPE)


@dataclass(frozen=True)
class Size:
    """How large a project is.

    Attributes:
        candidates: of the newest round.
        answers: of earlier rounds.
        open: queries that wait for answers.
        image_zyx: voxels of the image.
        tile_zyx: voxels of the tissue that it repeats.
        chunk_zyx: voxels of its chunks.
    """

    candidates: int
    answers: int
    open: int
    image_zyx: tuple[int, int, int]
    tile_zyx: tuple[int, int, int]
    chunk_zyx: tuple[int, int, int] = (64, 64, 64)

    @property
    def data(self) -> Data:
        """How such a project is named in result rows."""
        image = " x ".join(map(str, self.image_zyx))
        shape = f"{self.candidates:,} candidates, {self.answers:,} answers, {image} voxels"
        return Data(f"generated project, {shape}", f"common.serving.make_project({self}), seed 0")


def make_image(path: Path, size: Size) -> None:
    """A Zarr array, (Z, Y, X) uint8: one tile of tissue, turned and shifted in each place."""
    tile = Tissue(seed=0, voxel_size_nm=VOXEL_SIZE_NM).image(Box.whole(size.tile_zyx))
    store = tensorstore.open(
        {
            "driver": "zarr", "kvstore": f"file://{path}/",
            "metadata": {
                "shape": size.image_zyx, "chunks": size.chunk_zyx, "dtype": "|u1", "dimension_separator": "/",
                "compressor": {"id": "blosc", "cname": "zstd", "clevel": 1, "shuffle": 0},
            },
        },
        create=True,
    ).result()  # fmt: skip
    rng = np.random.default_rng(0)
    depth = size.chunk_zyx[0]
    repeats = [-(-n // t) + 1 for n, t in zip((depth, *size.image_zyx[1:]), tile.shape, strict=True)]
    for start in range(0, size.image_zyx[0], depth):
        stop = min(start + depth, size.image_zyx[0])
        turned = np.roll(tile[:: rng.choice([-1, 1]), :: rng.choice([-1, 1])], rng.integers(0, 64, 3), (0, 1, 2))
        slab = np.tile(turned, repeats)[: stop - start, : size.image_zyx[1], : size.image_zyx[2]]
        store[start:stop].write(slab).result()


def forget_files(folder: Path) -> None:
    """Ask the system to forget the contents of all files in a folder, so that they are read from the disk again."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


def make_project(folder: Path, size: Size) -> Project:
    """A project in ``folder/project`` whose last round waits for answers, and its image beside it."""
    make_image(folder / "image.zarr", size)
    project = create_project(
        folder / "project", task="mitochondria", image=str(folder / "image.zarr"),
        probability=str(folder / "image.zarr"), voxel_size_nm=VOXEL_SIZE_NM,
        test_box="0:8,0:16,0:16", overrides=("proofreading.lease_seconds=3600",),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    ledger = project.ledger
    ledger.register(0, range(1, size.candidates + 1))
    last = -(-size.answers // PER_ROUND)
    for number in range(last):
        first = number * PER_ROUND
        ids = range(first + 1, min(first + PER_ROUND, size.answers) + 1)
        ledger.ask(number, [_query(i, size, rng, 16) for i in ids])
        ledger.tell_all([Answer(q.id, KINDS[q.id % 3], f"past {q.id % 4}", seconds=2.0) for q in ledger.open_queries()])
        _finish(project, number, but=())
    _write_candidates(project, last, size, rng)
    if size.answers + size.open > size.candidates:
        raise ValueError(f"{size} has fewer candidates than queries.")
    width = project.config.patches.width_px
    ledger.ask(last, [_query(size.answers + i + 1, size, rng, width) for i in range(size.open)])
    _finish(project, last, but=("answer",))
    ledger.close()
    return project


def cached_project(cache: Path, size: Size) -> Path:
    """The folder of such a project, made unless it is there; its ``project`` is to be copied beside it before use."""
    folder = cache / f"proofreading-{size.candidates}-{size.answers}-{size.open}"
    if not folder.exists():
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        make_project(partial, size)
        partial.rename(folder)
    return folder


def _finish(project: Project, number: int, but: Sequence[str]) -> None:
    """Record the steps of a round as done."""
    for step in FIRST_STEPS if number == 0 else LATER_STEPS:
        if step not in but:
            project.ledger.finish_step(number, step, 1.0, {})


def _candidate(identity: int, size: Size, rng: np.random.Generator) -> Candidate:
    """A box-shaped candidate at a random place."""
    start = [int(rng.integers(0, n - m)) for n, m in zip(size.image_zyx, MASK_ZYX, strict=True)]
    mask = np.ones(MASK_ZYX, np.uint8)
    return Candidate(identity, identity, Box((start[0], start[1], start[2]), MASK_ZYX), mask, float(rng.random()))


def _query(identity: int, size: Size, rng: np.random.Generator, width: int) -> Query:
    image = rng.integers(0, 256, (3, width, width), dtype=np.uint8)
    patch = PatchPair(image, np.ones((3, width, width), np.int8), 0.0, 3, 0.0)
    reason = {"coarse": int(rng.integers(0, 40)), "fine": int(rng.integers(0, 40))}
    return Query(_candidate(identity, size, rng), patch, "two-stream", reason)


def _write_candidates(project: Project, number: int, size: Size, rng: np.random.Generator) -> None:
    """``candidates.parquet`` and ``pool.npz`` of a round."""
    parts = []
    for start in range(0, size.candidates, ROWS_AT_ONCE):
        ids = range(start + 1, min(start + ROWS_AT_ONCE, size.candidates) + 1)
        found = [_candidate(i, size, rng) for i in ids]
        parts.append(to_table(found, task="mitochondria", extra={"in_pool": [True] * len(found)}))
    project.round_dir(number).mkdir(parents=True)
    write_parts([pa.concat_tables(parts)], project.path(number, "candidates.parquet"))
    everyone = np.arange(1, size.candidates + 1, dtype=np.uint64)
    believed = rng.random(size.candidates)
    known = np.full(size.candidates, np.nan)
    write_probabilities(project, number, Probabilities(everyone, believed, known < 0, True, known))


# -- the server -------------------------------------------------------------------------------------------------------


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@dataclass
class Served:
    """A server in a process of its own, which can be killed and started again at the same address.

    Attributes:
        root: the project's folder.
        options: of ``twostream serve``.
        port: where it listens.
        links: {name: link} of each annotator, as printed; "" without names.
    """

    root: Path
    options: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)
    links: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None

    def start(self) -> Served:
        """Start it, and wait until it listens."""
        command = [sys.executable, "-m", "twostream", "serve", str(self.root), "--port", str(self.port), *self.options]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if found := re.search(r"(?:^(.+): )?(http://\S+#\S+)", line.strip()):
                self.links[found.group(1) or ""] = found.group(2)
            if line.startswith("Ctrl+C"):
                break
        until = time.monotonic() + 30
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return self
            time.sleep(0.05)
        raise AssertionError("the server did not start")

    @property
    def url(self) -> str:
        """Address of the page."""
        return f"http://127.0.0.1:{self.port}/"

    def kill(self) -> None:
        """Kill it as ``kill -9`` does."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """Stop it."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()

    @property
    def project(self) -> Project:
        """The project, opened anew, so that it shows what the server has recorded."""
        return Project(self.root)
