"""Candidates from the probability of a volume of any size, decoded block by block.

An *island* is a part of the foreground that decoding treats by itself: a connected component of the voxels above the
threshold, after gaps have been closed that ``Task.decode`` may join across. An island that ends in one block is decoded
there; one that goes on in other blocks is joined first (``volume/components.py``) and then decoded as a whole. So the
candidates are those of the whole volume, for any shape of the blocks, and filters see whole objects.

Knows volumes, tasks and candidates; must not know rounds, ids or where the probability comes from.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import numpy as np

from twostream.base.atomic import read_arrays, write_arrays
from twostream.base.errors import InputError
from twostream.base.geometry import Block, Box, corners_of, grid
from twostream.candidates.candidate import Candidate, clean, extract
from twostream.candidates.found import Found, Gathering
from twostream.task import Task
from twostream.volume import Volume
from twostream.volume.components import Components, closed, components, join, label_block, margin_for, seen_by
from twostream.volume.stage import Stage

BLOCK_ZYX = (128, 512, 512)
"""Voxels that are decoded at once: about a gigabyte while they are."""
LEAST_BLOCK_ZYX = (16, 64, 64)
"""Blocks are made smaller than ``BLOCK_ZYX`` where memory is short, but not than this."""
LARGE = 8
"""An island whose box holds more than an eighth of a block is not decoded with the block but by itself: decoding needs
several times the memory of finding islands."""
BYTES_OF_BLOCK, BYTES_OF_ISLAND, BYTES_OF_LEVEL = 18, 105, 2
"""Bytes for each voxel of a block while its islands are found, for each voxel of the box of an island that is decoded,
and for each channel of both: more than any task was seen to need (a test measures them)."""
MAX_REGION = 2
"""Islands of several blocks are read together while their hull holds at most so many blocks, else one by one."""


def propose(
    probability: Volume,
    task: Task,
    threshold: float,
    min_voxels: int,
    *,
    block_shape_zyx: Sequence[int] | None = None,
    stage: Stage | None = None,
) -> Found:
    """The candidates of a probability at a threshold.

    Args:
        probability: (C, Z, Y, X) uint8, 255 = 1.
        task: decodes.
        threshold: of the foreground probability, in [0, 1].
        min_voxels: candidates of fewer voxels are dropped.
        block_shape_zyx: voxels of a block; does not change the result. None takes ``BLOCK_ZYX``.
        stage: runs the blocks; None: in this process, one after the other, and nothing is remembered.

    Returns:
        Candidates without ids, labelled 1, 2, ... by cell (``ORDER_CELL_ZYX``) and, in a cell, in raster order of their
        first voxels. Their masks lie in an unnamed file, if they are many.

    Raises:
        BlocksError: blocks could not be read or decoded.
    """
    stage = stage or Stage()
    decode = Decoding(probability, task, threshold, min_voxels)
    wanted = [min(n, side) for n, side in zip(block_shape_zyx or BLOCK_ZYX, probability.shape_zyx, strict=True)]
    least = [min(n, low) for n, low in zip(wanted, LEAST_BLOCK_ZYX, strict=True)]
    block_zyx = stage.block_shape("propose", wanted, least, decode.block_bytes)
    blocks = list(grid(probability.box, block_zyx))
    parts: dict[Block, Components] = {}
    gathering = Gathering()
    name = f"propose-{float(threshold)!r}-{'-'.join(map(str, block_zyx))}"
    decoded = stage.run(name, DecodeBlock(decode), blocks, codec=DecodedFile(), description="propose")
    for block, (part, candidates) in decoded:
        parts[block] = part
        gathering.add(candidates)
    joined = join([parts[block] for block in blocks], probability.box)
    islands = [
        Island(Box.from_corners(corners[:3], corners[3:]), (z, y, x))
        for corners, (z, y, x) in zip(joined.boxes.tolist(), joined.voxel.tolist(), strict=True)
    ]
    groups = list(grouped(islands, block_zyx))
    across = "propose across blocks"
    if islands:
        _check_islands(islands, block_zyx, decode, stage)
    for _, candidates in stage.run(
        f"{name}-across", DecodeIslands(decode), groups, codec=CandidatesFile(), description=across
    ):
        gathering.add(candidates)
    return gathering.found()


def _check_islands(islands: Sequence[Island], block_zyx: Sequence[int], decoding: Decoding, stage: Stage) -> None:
    """Raise InputError if an island that must be decoded as a whole is too large for the memory that is allowed."""
    largest = max(islands, key=lambda island: island.box.num_voxels)
    region = MAX_REGION * math.prod(block_zyx) * len(decoding.task.channels)  # what ``grouped`` lets be read at once
    if excess := stage.excess(decoding.island_bytes(largest.box.num_voxels) + region):
        raise InputError(
            f"propose: at a threshold of {decoding.threshold:g} one connected part of the foreground lies in "
            f"{largest.box}. It {excess}. A higher threshold (candidates.threshold) takes it apart; or allow more."
        )


def work_of(probability: Volume, task: Task, min_voxels: int) -> dict[str, object]:
    """What the candidates of a probability depend on, the threshold apart (``Journal``)."""
    return {
        "probability": probability.uri,
        "shape_zyx": probability.shape_zyx,
        "task": [task.name, task.voxel_size_nm, task.decoding.model_dump(mode="json")],
        "min_voxels": min_voxels,
        "block_zyx": BLOCK_ZYX,
    }


class CandidatesFile:
    """Keeps candidates without ids in a file (``Codec``)."""

    def write(self, path: Path, result: Sequence[Candidate]) -> None:
        write_arrays(path, packed(result))

    def read(self, path: Path) -> list[Candidate]:
        return unpacked(read_arrays(path))


class DecodedFile:
    """Keeps what ``DecodeBlock`` gives in a file (``Codec``)."""

    def write(self, path: Path, result: tuple[Components, list[Candidate]]) -> None:
        part, candidates = result
        seen = np.array([part.seen.offset_zyx, part.seen.shape_zyx])
        arrays = {"seen": seen, "boxes": part.boxes, "voxel": part.voxel, "of": part.label}
        write_arrays(path, arrays | packed(candidates))

    def read(self, path: Path) -> tuple[Components, list[Candidate]]:
        arrays = read_arrays(path)
        offset, shape = arrays["seen"].tolist()
        part = Components(Box(tuple(offset), tuple(shape)), arrays["boxes"], arrays["voxel"], arrays["of"])
        return part, unpacked(arrays)


def packed(candidates: Sequence[Candidate]) -> dict[str, np.ndarray]:
    """N candidates without ids as arrays: corners (N, 6) int64, label (N,) int64, score (N,) float64, masks uint8."""
    return {
        "corners": corners_of(c.box for c in candidates),
        "label": np.array([c.label for c in candidates], np.int64),
        "score": np.array([c.score for c in candidates], np.float64),
        "masks": np.concatenate([np.zeros(0, np.uint8), *(c.mask.ravel() for c in candidates)]).astype(np.uint8),
    }


def unpacked(arrays: dict[str, np.ndarray]) -> list[Candidate]:
    """The candidates of ``packed``."""
    found, first = [], 0
    for corners, label, score in zip(
        arrays["corners"].tolist(), arrays["label"].tolist(), arrays["score"].tolist(), strict=True
    ):
        box = Box.from_corners(corners[:3], corners[3:])
        mask = arrays["masks"][first : first + box.num_voxels].reshape(box.shape_zyx)
        found.append(Candidate(0, label, box, mask, score))
        first += box.num_voxels
    return found


@dataclass(frozen=True)
class Island:
    """An island that goes on in several blocks, or is large.

    Attributes:
        box: that holds it, in voxels of the image.
        voxel: (z, y, x), one voxel of it after gaps were closed.
    """

    box: Box
    voxel: tuple[int, int, int]


def grouped(islands: Sequence[Island], block_shape_zyx: Sequence[int]) -> Iterator[tuple[Island, ...]]:
    """Groups of islands that lie near each other, so that the volume is read once for many of them."""
    near: dict[tuple[int, ...], list[Island]] = {}
    for island in islands:
        middle = island.box.middle.offset_zyx
        near.setdefault(tuple(m // n for m, n in zip(middle, block_shape_zyx, strict=True)), []).append(island)
    limit = MAX_REGION * math.prod(block_shape_zyx)
    for cell in sorted(near):
        group: list[Island] = []
        hull = near[cell][0].box
        for island in sorted(near[cell], key=lambda one: one.box):
            if group and hull.hull(island.box).num_voxels > limit:
                yield tuple(group)
                group, hull = [], island.box
            group.append(island)
            hull = hull.hull(island.box)
        yield tuple(group)


@dataclass(frozen=True)
class Decoding:
    """How a part of a probability becomes candidates. The attributes are the arguments of ``propose``."""

    probability: Volume
    task: Task
    threshold: float
    min_voxels: int

    def block_bytes(self, shape_zyx: Sequence[int]) -> int:
        """Bytes that a block needs."""
        # What is read is a little larger than the block.
        margin = margin_for(self.task.joins_within_voxels)
        voxels = math.prod(n + 1 + 2 * m for n, m in zip(shape_zyx, margin, strict=True))
        return voxels * (BYTES_OF_BLOCK + BYTES_OF_LEVEL * len(self.task.channels)) + self.island_bytes(voxels // LARGE)

    def island_bytes(self, num_voxels: int) -> int:
        """Bytes that an island needs while it is decoded, by the voxels of its box."""
        return num_voxels * (BYTES_OF_ISLAND + BYTES_OF_LEVEL * len(self.task.channels))

    def foreground(self, level: np.ndarray) -> np.ndarray:
        """(Z, Y, X) bool of (C, Z, Y, X) uint8."""
        above: np.ndarray = level[self.task.foreground] > 255 * self.threshold
        return above

    def candidates(self, level: np.ndarray, inside: np.ndarray, offset_zyx: Sequence[int]) -> list[Candidate]:
        """Candidates of whole islands.

        Args:
            level: (C, Z, Y, X) uint8.
            inside: (Z, Y, X) bool, the voxels of the islands.
            offset_zyx: voxel of the image at which both begin.
        """
        alone = level * inside
        segmentation = clean(self.task.decode(alone, self.threshold), self.task, self.min_voxels)
        return extract(segmentation, alone[self.task.foreground], self.task, offset_zyx)


@dataclass(frozen=True)
class DecodeBlock:
    """Decodes the islands that end in a block, but for large ones, and labels the others. It can be pickled."""

    decoding: Decoding

    def __call__(self, block: Block) -> tuple[Components, list[Candidate]]:
        decoding, whole = self.decoding, self.decoding.probability.box
        gap = decoding.task.joins_within_voxels
        seen = seen_by(block.write_box, whole)
        read = seen.grown(margin_for(gap)).intersection(whole)
        level = decoding.probability.read(read)
        mask = decoding.foreground(level)
        inner = seen.relative_to(read).slices
        large = block.write_box.num_voxels // LARGE
        labels, part = label_block(closed(mask, gap)[inner], block.write_box, whole, large=large)
        level, mask = level[(slice(None), *inner)], mask[inner]
        # No candidate is larger than its island.
        kept = ~part.is_open & (np.bincount(labels[mask], minlength=len(part.boxes) + 1) >= decoding.min_voxels)
        kept[0] = False
        found: list[Candidate] = []
        for label in np.flatnonzero(kept).tolist():  # one by one: most of a block belongs to no island
            corners = part.boxes[label - 1].tolist()
            box = Box.from_corners(corners[:3], corners[3:])
            at = box.relative_to(seen).slices
            found += decoding.candidates(level[(slice(None), *at)], (labels[at] == label) & mask[at], box.offset_zyx)
        return part, found


@dataclass(frozen=True)
class DecodeIslands:
    """Decodes islands that lie in several blocks, or are large. It can be pickled."""

    decoding: Decoding

    def __call__(self, islands: Sequence[Island]) -> list[Candidate]:
        decoding = self.decoding
        region = reduce(Box.hull, (island.box for island in islands))
        everything = decoding.probability.read(region)
        found: list[Candidate] = []
        for island in islands:
            level = everything[(slice(None), *island.box.relative_to(region).slices)]
            mask = decoding.foreground(level)
            labels = components(closed(mask, decoding.task.joins_within_voxels))
            at = tuple(v - o for v, o in zip(island.voxel, island.box.offset_zyx, strict=True))
            inside = mask & (labels == labels[at])
            if np.count_nonzero(inside) >= decoding.min_voxels:
                found += decoding.candidates(level, inside, island.box.offset_zyx)
        return found
