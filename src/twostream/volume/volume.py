"""The Volume contract: an array on disk that knows its voxel size and is read by boxes.

Knows boxes and arrays; must not know tasks, models or projects.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from twostream.base.errors import VolumeError
from twostream.base.geometry import Box

VoxelSize = tuple[float, float, float]

MAX_IN_PLANE_RATIO = 1.5
"""Sections are imaged with square pixels; a Y to X ratio beyond this means that the axes were swapped."""


class Volume(ABC):
    """A volume of voxels.

    Attributes:
        uri: how to open it again.
        shape_zyx: extent in voxels.
        num_channels: 0 for a (Z, Y, X) volume, C for a (C, Z, Y, X) one.
        voxel_size_nm: (z, y, x) in nanometres.
        dtype: of the voxels.
        chunk_shape_zyx: voxels that are stored, and so decoded, as one; None where any box costs what it holds.
    """

    uri: str
    shape_zyx: tuple[int, int, int]
    num_channels: int
    voxel_size_nm: VoxelSize
    dtype: np.dtype
    chunk_shape_zyx: tuple[int, int, int] | None = None

    @property
    def box(self) -> Box:
        """All voxels."""
        return Box.whole(self.shape_zyx)

    def read(self, box: Box) -> np.ndarray:
        """The voxels of ``box``: (Z, Y, X), or (C, Z, Y, X) if the volume has channels; ``dtype``.

        Raises:
            VolumeError: the box reaches outside the volume, or the file cannot be read.
        """
        self._check_inside(box, "read")
        return self._read(box)

    def write(self, box: Box, array: np.ndarray) -> None:
        """Write ``array``, (Z, Y, X) or (C, Z, Y, X) as the volume is, into ``box``.

        Raises:
            VolumeError: the box reaches outside, the shape or dtype does not fit, or the volume is read-only.
        """
        self._check_inside(box, "write")
        expected = ((self.num_channels,) if self.num_channels else ()) + box.shape_zyx
        if array.shape != expected or array.dtype != self.dtype:
            raise VolumeError(
                f"{self.uri}: got an array of {array.shape} {array.dtype} for box {box}; "
                f"expected {expected} {self.dtype}."
            )
        self._write(box, array)

    @abstractmethod
    def _read(self, box: Box) -> np.ndarray: ...

    def _write(self, box: Box, array: np.ndarray) -> None:
        raise VolumeError(f"{self.uri} is open for reading only; use create_volume to make one to write to.")

    def _check_inside(self, box: Box, verb: str) -> None:
        if not self.box.contains(box):
            raise VolumeError(f"cannot {verb} box {box} of {self.uri}: the volume holds {self.box} (Z, Y, X voxels).")


def read_padded(volume: Volume, box: Box) -> np.ndarray:
    """Voxels of ``box``, which may reach outside the volume; outside, the volume is mirrored at its faces.

    Returns:
        (Z, Y, X) or (C, Z, Y, X) of the volume's dtype.

    Raises:
        VolumeError: the box and the volume share no voxel.
    """
    inside = box.intersection(volume.box)
    if inside.num_voxels == 0:
        raise VolumeError(f"box {box} lies wholly outside {volume.uri}, which holds {volume.box}.")
    return pad_to(volume.read(inside), inside, box)


def pad_to(array: np.ndarray, inside: Box, box: Box) -> np.ndarray:
    """``array``, the (..., Z, Y, X) voxels of ``inside``, mirrored at its faces until it fills ``box``."""
    pad = [
        (a - b, d - c)
        for a, b, c, d in zip(inside.offset_zyx, box.offset_zyx, inside.stop_zyx, box.stop_zyx, strict=True)
    ]
    if not any(map(any, pad)):
        return array
    return np.pad(array, [(0, 0)] * (array.ndim - 3) + pad, mode="symmetric")


def check_voxel_size(value: Sequence[float], source: str) -> VoxelSize:
    """``value`` as (z, y, x) nm.

    Raises:
        VolumeError: not three positive numbers, or Y and X so different that the axes must be swapped.
    """
    try:
        z, y, x = (float(v) for v in value)
        if min(z, y, x) <= 0 or not np.isfinite([z, y, x]).all():
            raise ValueError
    except (TypeError, ValueError):
        raise VolumeError(
            f"{source}: voxel_size_nm is {value!r}; expected three positive numbers of nanometres: Z, Y, X."
        ) from None
    if max(y / x, x / y) > MAX_IN_PLANE_RATIO:
        raise VolumeError(
            f"{source}: voxel_size_nm is ({z:g}, {y:g}, {x:g}); expected Z, Y, X, slowest first. "
            f"Did you pass X, Y, Z? Sections have square pixels, so Y and X should be alike."
        )
    return z, y, x
