"""What the page shows of the volumes: blocks of the image, labels of all candidates, and where a query's view begins.

Blocks that were read last are kept, because the next candidate is loaded ahead and several people look at one volume.

Knows volumes and queries; must not know requests.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from twostream.base.errors import InputError
from twostream.base.geometry import Box
from twostream.candidates.candidate import Candidate
from twostream.project.project import Project
from twostream.project.tables import latest_round
from twostream.volume import Volume, open_volume

MAX_VOXELS = 8 << 20
"""Voxels of a block that may be asked for, after the stride."""
MAX_READ = 64 << 20
"""Voxels that are read for a block, before the stride."""
CACHE_BYTES = 256 << 20
VIEW_VOXELS = 2 << 20
"""Voxels of the block with which a view begins; about what a person can look at in some seconds."""
CONTEXT = 1.5
"""The view reaches this many patch widths beyond the candidate on either side, as far as ``VIEW_VOXELS`` allows."""


class Pictures:
    """Reads blocks for the page. Threads may use it at once.

    Args:
        project: the project.
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self._lock = threading.Lock()
        self._blocks: OrderedDict[tuple[str, str, tuple[int, ...]], np.ndarray] = OrderedDict()
        self._num_bytes = 0
        self._segmentations: dict[Path, Volume] = {}

    @property
    def image(self) -> Volume:
        """The image."""
        return self._project.image

    def segmentation(self) -> Volume:
        """The labels of all candidates of the newest round."""
        path = self._project.path(latest_round(self._project, "propose"), "segmentation.zarr")
        with self._lock:
            if path not in self._segmentations:
                self._segmentations = {path: open_volume(str(path))}
            return self._segmentations[path]

    def image_block(self, box: Box, stride: Sequence[int]) -> np.ndarray:
        """(Z, Y, X) uint8 grey values of every ``stride``-th voxel of a box.

        Raises:
            InputError: the box reaches outside the image, or is too large.
        """
        return self._block("image", self.image, box, tuple(stride))

    def labels_block(self, box: Box) -> np.ndarray:
        """(Z, Y, X) uint32 labels of all candidates of the newest round in a box."""
        volume = self.segmentation()
        return self._block(volume.uri, volume, box, (1, 1, 1)).astype("<u4", copy=False)

    def _block(self, name: str, volume: Volume, box: Box, stride: tuple[int, ...]) -> np.ndarray:
        check_block(volume, box, stride)
        key = name, str(box), stride
        with self._lock:
            if key in self._blocks:
                self._blocks.move_to_end(key)
                return self._blocks[key]
        z, y, x = stride
        found = np.ascontiguousarray(volume.read(box)[::z, ::y, ::x])
        with self._lock:
            if key not in self._blocks:
                self._blocks[key] = found
                self._num_bytes += found.nbytes
            while self._num_bytes > CACHE_BYTES:
                self._num_bytes -= self._blocks.popitem(last=False)[1].nbytes
        return found


def check_block(volume: Volume, box: Box, stride: Sequence[int]) -> None:
    """Refuse a block that reaches outside the volume or is too large.

    Raises:
        InputError: it does.
    """
    if min(box.shape_zyx) < 1 or not volume.box.contains(box):
        raise InputError(f"the box {box} came; expected a box of voxels inside {volume.box} (Z, Y, X).")
    if min(stride) < 1:
        raise InputError(f"the stride {tuple(stride)} came; expected three numbers of at least 1.")
    num = math.prod(-(-n // s) for n, s in zip(box.shape_zyx, stride, strict=True))
    if num > MAX_VOXELS or box.num_voxels > MAX_READ:
        raise InputError(
            f"a block of {num} voxels (read from {box.num_voxels}) was asked for; expected at most {MAX_VOXELS} "
            f"(read from {MAX_READ}). Ask for a smaller box."
        )


def view_box(candidate: Candidate, image: Volume, patch_nm: float) -> Box:
    """The box with which the view of a candidate begins: the candidate and what is around it.

    Args:
        candidate: the candidate.
        image: the image.
        patch_nm: width of its patch in nm.
    """
    size, whole = image.voxel_size_nm, image.box
    center = [o + n / 2 for o, n in zip(candidate.box.offset_zyx, candidate.box.shape_zyx, strict=True)]

    def box(context: float) -> Box:
        half = [n / 2 + context * patch_nm / s for n, s in zip(candidate.box.shape_zyx, size, strict=True)]
        return _around(center, half, whole)

    context = CONTEXT
    while context > 0.05 and box(context).num_voxels > VIEW_VOXELS:
        context *= 0.85
    found = box(context)
    if found.num_voxels <= VIEW_VOXELS:
        return found
    # A huge object: the part around its centre of mass.
    shrink = (VIEW_VOXELS / found.num_voxels) ** (1 / 3)
    return _around(candidate.center_zyx.tolist(), [n / 2 * shrink for n in found.shape_zyx], whole)


def _around(center: Sequence[float], half: Sequence[float], whole: Box) -> Box:
    """The box around a point that reaches ``half`` voxels to either side, inside ``whole``."""
    start = [max(0, math.floor(c - h)) for c, h in zip(center, half, strict=True)]
    stop = [min(n, math.ceil(c + h)) for c, h, n in zip(center, half, whole.shape_zyx, strict=True)]
    shape = [max(1, b - a) for a, b in zip(start, stop, strict=True)]
    return Box((start[0], start[1], start[2]), (shape[0], shape[1], shape[2]))
