"""The abstract class ``Volume``: an array, usually on disk, that knows its voxel size and is read one box at a time.

Knows boxes and arrays; must not know file formats, tasks, models or projects.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from twostream.base.errors import NoVoxelSizeError, VolumeError
from twostream.base.geometry import Box

VoxelSize = tuple[float, float, float]

MAX_IN_PLANE_RATIO = 1.5
"""Electron microscopes image square pixels, so a larger ratio of Y to X means that the axes are in the wrong order."""
SMALLEST_NM, LARGEST_NM = 0.1, 10_000.0
"""An atom and a cell: voxels outside this range come from a unit that was misread."""


@dataclass(frozen=True)
class Metadata:
    """What was understood of a volume's metadata, for people to check.

    Attributes:
        axes: names of the stored axes, slowest first.
        axes_from: where the names stand; "" if the file does not name them, so that the order z y x is presumed.
        voxel_size_from: where the voxel size stands; "" if the user said it.
        offset_from: where the place stands; "" if the file states none.
        notes: what else was understood, dropped or turned, as sentences.
    """

    axes: tuple[str, ...] = ("z", "y", "x")
    axes_from: str = ""
    voxel_size_from: str = ""
    offset_from: str = ""
    notes: tuple[str, ...] = ()


class Volume(ABC):
    """A volume of voxels. Subclasses set the attributes and implement ``_read``, and ``_write`` if they can be written.

    Attributes:
        uri: the URI that ``open_volume`` opens it by; error messages name it.
        shape_zyx: (z, y, x) in voxels, without channels.
        num_channels: 0 if the axes are (Z, Y, X), C if they are (C, Z, Y, X).
        voxel_size_nm: (z, y, x) in nm.
        offset_nm: (z, y, x) in nm of the corner of the first voxel in the coordinates of the data set; None if the file
            states no place. Volumes of one project are laid onto each other by it (``place.place_on``).
        metadata: how the above was understood.
        dtype: dtype of the voxels.
        chunk_shape_zyx: (z, y, x) in voxels of the chunks in which the volume is stored; reading one voxel decodes its
            whole chunk. None if the volume is not stored in chunks, so that the cost of a box depends on its size only.
    """

    uri: str
    shape_zyx: tuple[int, int, int]
    num_channels: int
    voxel_size_nm: VoxelSize
    dtype: np.dtype
    offset_nm: VoxelSize | None = None
    metadata: Metadata = Metadata()
    chunk_shape_zyx: tuple[int, int, int] | None = None

    @property
    def box(self) -> Box:
        """The box of all voxels of the volume; it begins at (0, 0, 0)."""
        return Box.whole(self.shape_zyx)

    @property
    def as_stored(self) -> Volume:
        """The volume as its file holds it: itself, unless it shows another volume shifted, cropped or computed."""
        return self

    def read(self, box: Box) -> np.ndarray:
        """Read a box.

        Args:
            box: must lie inside the volume.

        Returns:
            (Z, Y, X), or (C, Z, Y, X) if the volume has channels, of the volume's dtype.

        Raises:
            VolumeError: the box reaches outside the volume, or the file cannot be read.
        """
        self._check_inside(box, "read")
        return self._read(box)

    def num_absent_chunks(self) -> tuple[int, int] | None:
        """How many chunks are not stored, so that they read as the fill value, and of how many.

        Returns:
            (absent, all) of all chunks, or of a sample if there are very many; None if chunks cannot be absent or
            cannot be counted.
        """
        return None

    def is_stored(self, box: Box) -> bool:
        """Whether all chunks of a box are stored; True where chunks cannot be absent."""
        return True

    def write(self, box: Box, array: np.ndarray) -> None:
        """Write a box.

        Args:
            box: must lie inside the volume.
            array: its new voxels, (Z, Y, X), or (C, Z, Y, X) if the volume has channels, of the volume's dtype.

        Raises:
            VolumeError: the box reaches outside the volume, the array has another shape or dtype, or the volume was
                opened for reading only.
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
        spans = zip(box.offset_zyx, box.shape_zyx, self.shape_zyx, strict=True)
        if not all(start >= 0 and start + size <= end for start, size, end in spans):
            raise VolumeError(f"cannot {verb} box {box} of {self.uri}: the volume holds {self.box} (Z, Y, X voxels).")


def read_padded(volume: Volume, box: Box) -> np.ndarray:
    """Read a box that may reach outside the volume; voxels outside are filled by mirroring the volume at its faces.

    Args:
        volume: the volume.
        box: must have at least one voxel in common with the volume.

    Returns:
        (Z, Y, X) or (C, Z, Y, X) of the volume's dtype.

    Raises:
        VolumeError: the box and the volume have no voxel in common.
    """
    inside = box.intersection(volume.box)
    if inside.num_voxels == 0:
        raise VolumeError(f"box {box} lies wholly outside {volume.uri}, which holds {volume.box}.")
    return pad_to(volume.read(inside), inside, box)


def pad_to(array: np.ndarray, inside: Box, box: Box) -> np.ndarray:
    """Extend an array by mirroring it at its faces.

    Args:
        array: (..., Z, Y, X), the voxels of ``inside``.
        inside: the box that ``array`` covers.
        box: the box to fill; contains ``inside``.

    Returns:
        (..., Z, Y, X), the voxels of ``box``; ``array`` itself if the boxes are equal.
    """
    pad = [
        (a - b, d - c)
        for a, b, c, d in zip(inside.offset_zyx, box.offset_zyx, inside.stop_zyx, box.stop_zyx, strict=True)
    ]
    if not any(map(any, pad)):
        return array
    return np.pad(array, [(0, 0)] * (array.ndim - 3) + pad, mode="symmetric")


def check_voxel_size(value: Sequence[float], source: str) -> VoxelSize:
    """Check a voxel size.

    Args:
        value: (z, y, x) in nm.
        source: where it comes from, for the error message.

    Returns:
        The three numbers as floats.

    Raises:
        VolumeError: these are not three positive numbers; one is below ``SMALLEST_NM`` or above ``LARGEST_NM``, which
            means that the unit was misread; or Y and X differ by more than ``MAX_IN_PLANE_RATIO``, which means that the
            axes are in the wrong order.
    """
    try:
        z, y, x = (float(v) for v in value)
        if min(z, y, x) <= 0 or not np.isfinite([z, y, x]).all():
            raise ValueError
    except (TypeError, ValueError):
        raise VolumeError(
            f"{source}: voxel_size_nm is {value!r}; expected three positive numbers of nanometres: Z, Y, X."
        ) from None
    if min(z, y, x) < SMALLEST_NM or max(z, y, x) > LARGEST_NM:
        raise VolumeError(
            f"{source}: voxel_size_nm is ({z:g}, {y:g}, {x:g}); expected {SMALLEST_NM:g} to {LARGEST_NM:g} nanometres. "
            f"Are these micrometres or metres, or has the file another unit than it says? Correct it in the file."
        )
    if max(y / x, x / y) > MAX_IN_PLANE_RATIO:
        raise VolumeError(
            f"{source}: voxel_size_nm is ({z:g}, {y:g}, {x:g}); expected Z, Y, X, slowest first. "
            f"Did you pass X, Y, Z? The pixels of a section are square, so Y and X should be similar."
        )
    return z, y, x


def agreed_voxel_size(
    stored: Sequence[float] | None, given: Sequence[float] | None, uri: str, place: str = "metadata", why: str = ""
) -> VoxelSize:
    """The voxel size of a volume, (z, y, x) nm, from what its file states and what the user says.

    Args:
        stored: as the file states it, None where it does not.
        given: as the user says it, None where they do not.
        uri: the volume; opens the error message.
        place: where in the file its size would be; for the error message.
        why: why the file's own numbers cannot be used, such as "its scale (40, 4, 4) has no unit"; "" without any.

    Raises:
        NoVoxelSizeError: neither is there.
        VolumeError: they differ by more than a thousandth, or one of them is not valid.
    """
    if stored is None and given is None:
        reason = f": {why}" if why else ""
        raise NoVoxelSizeError(
            f"{uri} states no voxel size in its {place}{reason}; pass --voxel-size Z,Y,X in nanometres."
        )
    in_file = None if stored is None else check_voxel_size(stored, uri)
    told = None if given is None else check_voxel_size(given, "--voxel-size")
    if in_file is not None and told is not None and not np.allclose(in_file, told, rtol=1e-3):
        swapped = " Z and X look swapped." if np.allclose(in_file[::-1], told, rtol=1e-3) else ""
        raise VolumeError(
            f"{uri} says its voxels are {in_file} nm, --voxel-size says {told} (Z, Y, X).{swapped} "
            f"Omit the option, or correct the file's {place}."
        )
    size = told or in_file
    assert size is not None
    return size
