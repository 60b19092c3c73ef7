"""Identity of candidates from round to round: which one of this round is the same as one that was known."""

from __future__ import annotations

from collections.abc import Sequence

from twostream.base.geometry import cells
from twostream.candidates.candidate import Candidate

SAME_IOU = 0.7
"""A candidate keeps its id if it still covers the mask that was asked at least this well."""


PARENT_SHARE = 0.25
"""A new candidate names as parents the old ones that share this part of the smaller of the two masks."""


CELL_ZYX = (32, 128, 128)
"""Bucket of the spatial index; several candidates wide, so that each falls into a few buckets."""


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
