"""Identity: which candidates of a round are the same as candidates of earlier rounds, and so keep their ids.

S is trained again in every round, so the same object is proposed with a slightly different mask. An id stays with a
candidate only if the mask hardly changed; otherwise an old answer might be wrong for the new mask. Knows candidates;
must not know the ledger, answers or segmentations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from twostream.base.geometry import Box, corners_of, overlapping
from twostream.candidates.candidate import Candidate, ManyCandidates, corners, shared_voxels

SAME_IOU = 0.7
"""A candidate keeps its id if its IoU with the earlier mask is at least this."""
PARENT_SHARE = 0.25
"""An earlier candidate is a parent of a new one if they share at least this part of the smaller of the two masks."""


class Named(ManyCandidates):
    """Candidates that have ids.

    Args:
        candidates: N candidates without them.
        ids: (N,) int64.
        parents: {row: ids of its parents}; the others have none.
    """

    def __init__(
        self, candidates: Sequence[Candidate], ids: np.ndarray, parents: Mapping[int, tuple[int, ...]]
    ) -> None:
        self._candidates, self._ids, self._parents = candidates, ids, parents

    def __len__(self) -> int:
        return len(self._candidates)

    def _one(self, row: int) -> Candidate:
        return replace(self._candidates[row], id=int(self._ids[row]), parent_ids=self._parents.get(row, ()))

    @property
    def ids(self) -> np.ndarray:
        """(N,) int64."""
        return self._ids

    @property
    def corners(self) -> np.ndarray:
        return corners(self._candidates)


def identify(candidates: Sequence[Candidate], known: Sequence[Candidate], next_id: int) -> Named:
    """Give each candidate an id: that of the known candidate it is the same as, or a new one.

    Two candidates are the same if each is the other's best match by IoU, and that IoU is at least ``SAME_IOU``. Voxels
    of a synapse count as shared only if they are on the same side in both (docs/contracts.md, Ids and candidates).

    Args:
        candidates: of this round, without ids.
        known: all candidates of earlier rounds, each with the mask that was asked about or, if it was never asked
            about, the mask that was last proposed.
        next_id: the smallest id that was never given.

    Returns:
        The candidates in the same order, with ids. Those with a new id name as ``parent_ids`` the known candidates that
        they overlap.
    """
    best_known: dict[int, tuple[float, int]] = {}  # row -> (IoU, -id of the best known candidate)
    best_row: dict[int, tuple[float, int]] = {}  # id of a known candidate -> (IoU, -row of its best candidate)
    parents: dict[int, list[int]] = {}
    for row, known_row in overlapping(corners(candidates), corners(known)).tolist():
        one, other = candidates[row], known[known_row]
        known_id = other.id
        same_side, shared = shared_voxels(one, other)
        sizes = one.num_voxels, other.num_voxels
        iou = same_side / (sizes[0] + sizes[1] - shared)
        # With negative ids and rows, of equal IoUs the smaller id or row is the larger pair: order does not matter.
        if (iou, -known_id) > best_known.get(row, (0.0, 0)):
            best_known[row] = (iou, -known_id)
        if (iou, -row) > best_row.get(known_id, (0.0, 0)):
            best_row[known_id] = (iou, -row)
        if shared >= PARENT_SHARE * min(sizes):
            parents.setdefault(row, []).append(known_id)
    ids = np.zeros(len(candidates), np.int64)
    for row, (iou, negative_id) in best_known.items():
        if iou >= SAME_IOU and best_row[-negative_id][1] == -row:
            ids[row] = -negative_id
    is_new = ids == 0
    ids[is_new] = next_id + np.arange(is_new.sum())
    return Named(candidates, ids, {row: tuple(sorted(found)) for row, found in parents.items() if is_new[row]})


def found_by(
    objects: Sequence[tuple[Box, np.ndarray]], others: Sequence[tuple[Box, np.ndarray]], min_iou: float
) -> np.ndarray:
    """Which objects one of ``others`` overlaps with an IoU above ``min_iou``; sides of a synapse count together.

    Args:
        objects: N boxes with masks, (Z, Y, X), non-zero inside.
        others: M boxes with masks.
        min_iou: in [0, 1].

    Returns:
        (N,) bool.
    """
    found = np.zeros(len(objects), bool)
    pairs = overlapping(corners_of(box for box, _ in objects), corners_of(box for box, _ in others))
    for row, other_row in pairs.tolist():
        (box, mask), (where, other) = objects[row], others[other_row]
        common = box.intersection(where)
        inside = mask[common.relative_to(box).slices] > 0
        shared = np.count_nonzero(inside & (other[common.relative_to(where).slices] > 0))
        found[row] |= shared > min_iou * (np.count_nonzero(mask) + np.count_nonzero(other) - shared)
    return found
