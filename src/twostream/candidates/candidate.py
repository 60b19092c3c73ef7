"""Candidates: instances proposed by S, as a table, and their identity from round to round.

Knows segmentations, tables and ids; must not know models, patches or answers. A candidate carries its own mask,
so that it can be compared, shown and learned from after the segmentation it came from is gone.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cc3d
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from twostream.base.config import Config
from twostream.base.errors import InputError
from twostream.base.geometry import Box, cells
from twostream.task import FOUND_IOU, Task
from twostream.task.answers import AnswerKind
from twostream.task.metrics import Overlaps, candidate_recall

SAME_IOU = 0.7
"""A candidate keeps its id if it still covers the mask that was asked at least this well."""
PARENT_SHARE = 0.25
"""A new candidate names as parents the old ones that share this part of the smaller of the two masks."""
PLATEAU = 0.05
"""F1 that one object in twenty is worth: labelled boxes hold few, and differences below that are chance."""
BELIEF_PLATEAU = 0.02
"""F1 that is not worth believing less: chosen on development tissue (LOG.md)."""
FEW_INSTANCES = 5
"""Instances of one kind below which nothing is concluded from them."""
CELL_ZYX = (32, 128, 128)
"""Bucket of the spatial index; several candidates wide, so that each falls into a few buckets."""


class CandidateConfig(Config):
    """How probability becomes candidates.

    Attributes:
        threshold: of the foreground probability; None chooses it on the labelled box, for recall.
        final_threshold: of the final segmentation; None chooses it on the validation box, for foreground IoU.
        min_score: of an instance of the final segmentation, its mean probability; None chooses it by the answers and,
            as long as there are few, on the validation box.
        min_recall: candidate recall (IoU > 0.2) wanted on the labelled box where S allows it.
        min_object_nm3: smaller ones are dust; None takes the task's.
    """

    threshold: float | None = Field(None, gt=0, lt=1)
    final_threshold: float | None = Field(None, gt=0, lt=1)
    min_score: float | None = Field(None, ge=0, le=1)
    min_recall: float = Field(0.9, ge=0, le=1)
    min_object_nm3: float | None = Field(None, ge=0)


@dataclass(frozen=True)
class Candidate:
    """One proposed instance.

    Attributes:
        id: permanent, 1..2^53-1; 0 before the ledger gave one.
        label: its value in this round's segmentation (instance label).
        box: its bounding box, voxels of the image.
        mask: (Z, Y, X) uint8 over ``box``: 1 inside; polarity: 1 pre, 2 post.
        score: mean foreground probability inside, in [0, 1].
        parent_ids: candidates of earlier rounds that it overlaps without being the same.
    """

    id: int
    label: int
    box: Box
    mask: np.ndarray
    score: float
    parent_ids: tuple[int, ...] = ()

    @property
    def num_voxels(self) -> int:
        return int(np.count_nonzero(self.mask))

    @property
    def center_zyx(self) -> np.ndarray:
        """(3,) float, centre of mass in voxels of the image."""
        return np.argwhere(self.mask).mean(0) + self.box.offset_zyx


def thresholds_to_try() -> np.ndarray:
    """Thresholds among which one is chosen; dense at the low end, where recall is won."""
    return np.array([0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9])


def clean(segmentation: np.ndarray, task: Task, min_voxels: int) -> np.ndarray:
    """Drop instances below ``min_voxels`` and renumber the rest 1.. in raster order of their first voxels.

    Args:
        segmentation: (Z, Y, X) uint32 in the task's label convention.

    Returns:
        Same shape and convention.
    """
    instance = task.instances(segmentation)
    where = np.flatnonzero(instance)
    labels = instance.ravel()[where]
    if len(labels) == 0:
        return np.zeros_like(segmentation)
    size = np.bincount(labels)
    first = np.full(len(size), instance.size, np.int64)
    first[labels[::-1]] = where[::-1]  # the last assignment wins: the first voxel in raster order
    kept = np.flatnonzero(size >= max(min_voxels, 1))
    kept = kept[kept > 0]
    new = np.zeros(len(size), segmentation.dtype)
    new[kept[np.argsort(first[kept])]] = np.arange(1, len(kept) + 1)
    renamed = new[instance]
    if task.num_sides == 2:
        renamed = np.where(renamed > 0, 2 * renamed - segmentation % 2, 0).astype(segmentation.dtype)
    return renamed


def without_doubtful(segmentation: np.ndarray, probability: np.ndarray, task: Task, min_score: float) -> np.ndarray:
    """Only the instances that S believes in.

    Args:
        segmentation: (Z, Y, X) uint32 in the task's label convention.
        probability: (Z, Y, X) uint8 foreground probability.
        task: joins the sides of an instance.
        min_score: mean probability in [0, 1] that an instance needs; 0 keeps all.

    Returns:
        Same shape and convention; what is kept keeps its label.
    """
    instance = task.instances(segmentation).ravel()
    size = np.bincount(instance)
    total = np.bincount(instance, weights=probability.ravel())
    kept = total >= 255 * min_score * size
    return np.where(kept[instance].reshape(segmentation.shape), segmentation, segmentation.dtype.type(0))


def belief_where(
    candidates: Sequence[Candidate], segmentation: np.ndarray, probability: np.ndarray, task: Task
) -> np.ndarray:
    """How far S believes in what a segmentation holds in the place of candidates.

    Args:
        candidates: in the voxels of both volumes.
        segmentation: (Z, Y, X) in the task's label convention.
        probability: (Z, Y, X) uint8 foreground probability.
        task: joins the sides of an instance.

    Returns:
        (N,) mean probability, in [0, 1], of the instance that covers most of each candidate; 0 where none does.
    """
    instance = task.instances(segmentation)
    size = np.bincount(instance.ravel())
    mean = np.bincount(instance.ravel(), weights=probability.ravel()) / np.maximum(size, 1) / 255
    mean[0] = 0.0
    inside = [np.bincount(instance[c.box.slices][c.mask > 0], minlength=1) for c in candidates]
    return np.array([mean[1 + int(n[1:].argmax())] if n[1:].any() else 0.0 for n in inside])


def least_believed(
    segmentation: np.ndarray, probability: np.ndarray, labels: np.ndarray, ignore: np.ndarray | None, task: Task
) -> float:
    """Mean probability that an instance of the final segmentation needs, by labels that S was not trained on.

    For as long as answers say nothing (``scoring.choose_min_score``). What the faces of the box cut is compared as it
    is cut.

    Args:
        segmentation: (Z, Y, X) instances of the final segmentation, in the task's convention.
        probability: (Z, Y, X) uint8 foreground probability.
        labels: (Z, Y, X) in the task's convention; ``ignore`` likewise, non-zero where nothing counts, or None.

    Returns:
        Of the values within ``BELIEF_PLATEAU`` of the best F1 the least: few objects decide here. 0, which keeps all,
        where fewer than ``FEW_INSTANCES`` are true or false.
    """
    overlaps = Overlaps.of(segmentation, labels, ignore)
    said = {label: judged.kind for label, judged in task.judge(overlaps).items()}
    known = [label for label, kind in said.items() if kind is not AnswerKind.UNSURE]
    good = np.array([said[label] is AnswerKind.TRUE for label in known], bool)
    if min(good.sum(), (~good).sum()) < FEW_INSTANCES:
        return 0.0
    instance = task.instances(segmentation).ravel()
    mean = np.bincount(instance, weights=probability.ravel()) / np.maximum(np.bincount(instance), 1) / 255
    score = mean[known]
    # Rounded down: what is compared with it later is summed in another order.
    tried = np.concatenate([[0.0], np.unique(np.floor(score * 1000) / 1000)])
    kept = score >= tried[:, None]
    num_truth = len(task.instance_overlaps(overlaps).truth_sizes())
    f1 = 2 * (kept & good).sum(1) / (kept.sum(1) + num_truth)
    return float(tried[np.argmax(f1 >= f1.max() - BELIEF_PLATEAU)])


def choose_threshold(
    probability: np.ndarray,
    truth: np.ndarray,
    ignore: np.ndarray | None,
    task: Task,
    config: CandidateConfig,
    min_voxels: int,
) -> tuple[float, float]:
    """Threshold for proposing, on the labelled box: recall first, then as many good candidates as possible.

    Args:
        probability: (C, Z, Y, X) uint8 of the labelled box.
        truth: (Z, Y, X) labels of the same box; ``ignore`` likewise or None.

    Returns:
        Threshold, and candidate recall on the labelled box with it, both in [0, 1]. Among thresholds that reach
        ``min_recall`` at IoU > 0.2 (if none does: those of the highest recall) and come within ``PLATEAU`` of the
        best balance of good candidates and candidates (F1), the one nearest to 0.5.
    """
    rows = []
    for threshold in thresholds_to_try() if config.threshold is None else [config.threshold]:
        segmentation = clean(task.decode(probability, threshold), task, min_voxels)
        overlaps = Overlaps.of(segmentation, truth, ignore)
        judged = task.judge(overlaps)
        table = task.instance_overlaps(overlaps)
        num_truth = max(len(table.truth_sizes()), 1)
        recall = candidate_recall(table, FOUND_IOU) if table.truth_sizes() else 0.0
        good = sum(j.truth > 0 for j in judged.values())
        rows.append((recall, 2 * good / (len(judged) + num_truth), float(threshold)))
    wanted = min(config.min_recall, max(row[0] for row in rows))
    enough = [row for row in rows if row[0] >= wanted]
    best = max(f1 for _, f1, _ in enough)
    # S has seen this box: it is sharp there, and every threshold does about as well. The outermost of them would be
    # chosen by a single object, and swell or shrink every mask elsewhere.
    recall, _, chosen = min((row for row in enough if row[1] >= best - PLATEAU), key=lambda row: abs(row[2] - 0.5))
    return chosen, recall


def extract(
    segmentation: np.ndarray, probability: np.ndarray, task: Task, offset_zyx: Sequence[int]
) -> list[Candidate]:
    """Candidates of a cleaned segmentation, in order of their labels.

    Args:
        segmentation: (Z, Y, X) uint32, as ``clean`` leaves it.
        probability: (Z, Y, X) uint8 foreground probability.
        offset_zyx: voxel of the image at which the arrays begin.
    """
    instance = np.ascontiguousarray(task.instances(segmentation))
    statistics = cc3d.statistics(instance, no_slice_conversion=False)
    result = []
    for label in range(1, len(statistics["voxel_counts"])):
        window = statistics["bounding_boxes"][label]
        mask = task.crop(segmentation[window], label)
        box = Box(tuple(s.start for s in window), mask.shape).shifted(offset_zyx)
        score = mean_probability(probability[window], mask)
        result.append(Candidate(0, label, box, mask, score))
    return result


def mean_probability(probability: np.ndarray, mask: np.ndarray) -> float:
    """Of (Z, Y, X) uint8 inside a mask of the same shape; in [0, 1]."""
    return float(probability[mask > 0].mean(dtype=np.float64) / 255)


def identify(candidates: Sequence[Candidate], known: Sequence[Candidate], next_id: int) -> list[Candidate]:
    """Give each candidate its id: kept where it is the same as a known one, new otherwise.

    Args:
        candidates: of this round, without ids, in raster order.
        known: every candidate of earlier rounds with the mask as it was asked (or as last proposed).
        next_id: first id never given.

    Returns:
        The candidates in the same order. Two are the same if they are each other's best match and their IoU,
        sides compared as well, is at least ``SAME_IOU``.
    """
    pairs = _overlapping(candidates, known)
    best_known: dict[int, tuple[float, int]] = {}
    best_new: dict[int, tuple[float, int]] = {}
    parents: dict[int, list[int]] = {}
    for new, old in pairs:
        same, shared = _shared_voxels(candidates[new], known[old])
        sizes = candidates[new].num_voxels, known[old].num_voxels
        iou = same / (sizes[0] + sizes[1] - shared)
        # Equal IoU goes to the older id, so the outcome does not depend on the order of the search.
        if (iou, -known[old].id) > best_known.get(new, (0.0, 0)):
            best_known[new] = (iou, -known[old].id)
        if (iou, -new) > best_new.get(known[old].id, (0.0, 0)):
            best_new[known[old].id] = (iou, -new)
        if shared >= PARENT_SHARE * min(sizes):
            parents.setdefault(new, []).append(known[old].id)
    result = []
    from_ids: tuple[int, ...]
    for row, candidate in enumerate(candidates):
        iou, negative_id = best_known.get(row, (0.0, 0))
        if iou >= SAME_IOU and best_new[-negative_id][1] == -row:
            identity, from_ids = -negative_id, ()
        else:
            identity, from_ids = next_id, tuple(sorted(parents.get(row, ())))
            next_id += 1
        result.append(Candidate(identity, candidate.label, candidate.box, candidate.mask, candidate.score, from_ids))
    return result


def _overlapping(candidates: Sequence[Candidate], known: Sequence[Candidate]) -> list[tuple[int, int]]:
    """Pairs of rows whose boxes intersect, found through buckets of space; sorted."""
    buckets: dict[tuple[int, ...], list[int]] = {}
    for row, item in enumerate(known):
        for cell in cells(item.box, CELL_ZYX):
            buckets.setdefault(cell, []).append(row)
    pairs = {
        (row, other)
        for row, item in enumerate(candidates)
        for cell in cells(item.box, CELL_ZYX)
        for other in buckets.get(cell, ())
        if item.box.intersects(known[other].box)
    }
    return sorted(pairs)


def _shared_voxels(a: Candidate, b: Candidate) -> tuple[int, int]:
    """Voxels that both hold with the same side, and voxels that both hold at all."""
    common = a.box.intersection(b.box)
    mask_a, mask_b = a.mask[common.relative_to(a.box).slices], b.mask[common.relative_to(b.box).slices]
    both = (mask_a > 0) & (mask_b > 0)
    return int((both & (mask_a == mask_b)).sum()), int(both.sum())


BOX_COLUMNS = ("box_z0", "box_y0", "box_x0", "box_z1", "box_y1", "box_x1")


def to_table(candidates: Sequence[Candidate], **extra: Sequence[object]) -> pa.Table:
    """The Parquet table of a round; one row per candidate, ``extra`` columns behind.

    Columns: id, label, parent_ids, box_z0..box_x1 and center_z,y,x (voxels of the image), num_voxels, score,
    mask (zlib of the uint8 mask over the box).
    """
    corners = np.array([[*c.box.offset_zyx, *c.box.stop_zyx] for c in candidates], np.int64).reshape(-1, 6)
    centers = np.array([c.center_zyx for c in candidates], np.float64).reshape(-1, 3)
    columns: dict[str, pa.Array] = {
        "id": pa.array([c.id for c in candidates], pa.int64()),
        "label": pa.array([c.label for c in candidates], pa.int64()),
        "parent_ids": pa.array([list(c.parent_ids) for c in candidates], pa.list_(pa.int64())),
    }
    columns |= {name: pa.array(corners[:, i]) for i, name in enumerate(BOX_COLUMNS)}
    columns |= {f"center_{axis}": pa.array(centers[:, i]) for i, axis in enumerate("zyx")}
    columns["num_voxels"] = pa.array([c.num_voxels for c in candidates], pa.int64())
    columns["score"] = pa.array([c.score for c in candidates], pa.float64())
    columns |= {name: pa.array(values) for name, values in extra.items()}
    columns["mask"] = pa.array([pack_mask(c.mask) for c in candidates], pa.binary())
    return pa.table(columns)


def from_table(table: pa.Table) -> list[Candidate]:
    """Candidates of a table, in its order."""
    rows = table.select(["id", "label", "parent_ids", *BOX_COLUMNS, "score", "mask"]).to_pylist()
    result = []
    for row in rows:
        box = Box.from_corners([row[f"box_{a}0"] for a in "zyx"], [row[f"box_{a}1"] for a in "zyx"])
        mask = unpack_mask(row["mask"], box)
        result.append(Candidate(row["id"], row["label"], box, mask, row["score"], tuple(row["parent_ids"])))
    return result


def pack_mask(mask: np.ndarray) -> bytes:
    """(Z, Y, X) uint8 -> bytes."""
    return zlib.compress(np.ascontiguousarray(mask, np.uint8).tobytes(), 6)


def unpack_mask(packed: bytes, box: Box) -> np.ndarray:
    """Bytes of ``pack_mask`` -> (Z, Y, X) uint8 over ``box``."""
    return np.frombuffer(zlib.decompress(packed), np.uint8).reshape(box.shape_zyx)


def write_table(table: pa.Table, path: Path) -> None:
    """Write Parquet whole or not at all."""
    partial = path.with_suffix(".partial")
    pq.write_table(table, partial, compression="zstd")
    os.replace(partial, path)


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read ``candidates.parquet``.

    Raises:
        InputError: no such file, or not a Parquet table.
    """
    try:
        return pq.read_table(path, columns=list(columns) if columns else None)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{path} cannot be read as a candidate table: {error}.") from None
