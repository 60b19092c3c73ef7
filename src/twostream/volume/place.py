"""Laying one volume onto another by the place that both state: labels, masks and predictions onto the image.

Knows volumes and boxes; must not know formats, tasks or projects.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from twostream.base.errors import InputError, VolumeError
from twostream.base.geometry import Box, Vector
from twostream.volume.volume import Metadata, Volume

MAX_FRACTION = 0.02
"""Share of a voxel by which two grids may miss each other: rounding in files, not a shift."""


class PlacedVolume(Volume):
    """A volume seen in the voxels of another one: shifted, cropped, and 0 where it does not reach.

    Args:
        volume: (Z, Y, X) or (C, Z, Y, X).
        shift_zyx: (z, y, x) voxel of the other volume at which ``volume`` begins; may be negative.
        image: the other volume, which gives extent and place.
    """

    def __init__(self, volume: Volume, shift_zyx: Sequence[int], image: Volume) -> None:
        self.uri = volume.uri
        self._volume, self._image = volume, image
        z, y, x = (int(v) for v in shift_zyx)
        self.shift_zyx: Vector = (z, y, x)
        self.shape_zyx = image.shape_zyx
        self.num_channels = volume.num_channels
        self.voxel_size_nm = volume.voxel_size_nm
        self.dtype = volume.dtype
        self.offset_nm = image.offset_nm
        note = f"it begins at voxel ({z}, {y}, {x}) of {image.uri} and covers {self.covered}"
        self.metadata = _with_note(volume.metadata, note)

    @property
    def as_stored(self) -> Volume:
        return self._volume.as_stored

    @property
    def covered(self) -> Box:
        """The part of the other volume that this one covers; outside of it nothing is known."""
        return self._volume.box.shifted(self.shift_zyx).intersection(self.box)

    def _read(self, box: Box) -> np.ndarray:
        result = np.zeros(((self.num_channels,) if self.num_channels else ()) + box.shape_zyx, self.dtype)
        part = box.intersection(self.covered)
        if part.num_voxels:
            own = self._volume.read(part.shifted([-s for s in self.shift_zyx]))
            result[(..., *part.relative_to(box).slices)] = own
        return result

    def num_absent_chunks(self) -> tuple[int, int] | None:
        return self._volume.num_absent_chunks()

    def __reduce__(self) -> Any:
        return PlacedVolume, (self._volume, self.shift_zyx, self._image)


class OneChannel(Volume):
    """A volume with a single channel, without it: (1, Z, Y, X) seen as (Z, Y, X)."""

    def __init__(self, volume: Volume) -> None:
        if volume.num_channels != 1:
            raise VolumeError(f"{volume.uri} has {volume.num_channels} channels; expected one.")
        self._volume = volume
        self.uri, self.shape_zyx, self.num_channels = volume.uri, volume.shape_zyx, 0
        self.voxel_size_nm, self.offset_nm, self.dtype = volume.voxel_size_nm, volume.offset_nm, volume.dtype
        self.chunk_shape_zyx = volume.chunk_shape_zyx
        self.metadata = _with_note(volume.metadata, "its single channel is dropped")

    @property
    def as_stored(self) -> Volume:
        return self._volume.as_stored

    def _read(self, box: Box) -> np.ndarray:
        return self._volume.read(box)[0]

    def num_absent_chunks(self) -> tuple[int, int] | None:
        return self._volume.num_absent_chunks()

    def __reduce__(self) -> Any:
        return OneChannel, (self._volume,)


def without_channel(volume: Volume) -> Volume:
    """``volume`` without its channel if it has exactly one; any other volume as it is."""
    return OneChannel(volume) if volume.num_channels == 1 else volume


def covered_box(volume: Volume) -> Box:
    """The voxels of which ``volume`` knows something: less than all where it was placed onto a larger volume."""
    return volume.covered if isinstance(volume, PlacedVolume) else volume.box


def place_on(volume: Volume, image: Volume) -> Volume:
    """``volume`` in the voxels of ``image``.

    Where both state a place, or the shapes differ and ``volume`` states one, the shift between them is applied. Where
    shapes are equal and a place is missing, the two lie on each other.

    Args:
        volume: of the same voxel size.
        image: the volume onto which it is laid.

    Returns:
        ``volume`` itself if it covers exactly the voxels of ``image``, else a ``PlacedVolume``.

    Raises:
        InputError: the voxel sizes differ (the message names the factor), the volumes have no voxel in common, the
            shift is no whole number of voxels, or the shapes differ and no place says how they lie.
    """
    check_voxels(volume, image)
    shift_nm = _shift_nm(volume, image)
    shift = [s / v for s, v in zip(shift_nm, image.voxel_size_nm, strict=True)]
    whole = [round(s) for s in shift]
    if any(abs(s - w) > MAX_FRACTION for s, w in zip(shift, whole, strict=True)):
        raise InputError(
            f"{volume.uri} begins at {_text(volume.offset_nm)} nm and {image.uri} at {_text(image.offset_nm)} nm "
            f"(Z, Y, X): {_text(shift)} voxels apart. Expected whole voxels. {_half_voxel(shift)}Correct the place in "
            f"one of the files."
        )
    if not any(whole) and volume.shape_zyx == image.shape_zyx:
        return volume
    placed = PlacedVolume(volume, whole, image)
    if placed.covered.num_voxels == 0:
        raise InputError(
            f"{volume.uri} covers {volume.box.shifted(whole)} in voxels of {image.uri}, which holds {image.box}: they "
            f"have no voxel in common. {volume.uri} begins at {_text(volume.offset_nm)} nm, {image.uri} at "
            f"{_text(image.offset_nm)} nm (Z, Y, X). Correct the place in one of the files."
        )
    return placed


def _half_voxel(shift: Sequence[float]) -> str:
    """Why grids may lie half a voxel apart along each axis; "" if they do not."""
    if any(abs(s - np.floor(s) - 0.5) > MAX_FRACTION for s in shift):
        return ""
    return (
        "Half a voxel along each axis: one file seems to give the corner of its first voxel where its format means the "
        "centre (NIfTI), or the other way round. "
    )


def check_voxels(volume: Volume, image: Volume) -> None:
    """Raise InputError, with the factor between them, if the voxel sizes differ by more than 0.1 percent."""
    if np.allclose(volume.voxel_size_nm, image.voxel_size_nm, rtol=1e-3):
        return
    factor = [a / b for a, b in zip(volume.voxel_size_nm, image.voxel_size_nm, strict=True)]
    raise InputError(
        f"{volume.uri} has voxels of {_text(volume.voxel_size_nm)} nm, {image.uri} of {_text(image.voxel_size_nm)} nm "
        f"(Z, Y, X); they must be equal, but differ by the factors {_text(factor)}. {_advice(factor, volume, image)}"
    )


def _advice(factor: Sequence[float], volume: Volume, image: Volume) -> str:
    """What to do about voxel sizes that differ by ``factor`` (z, y, x), volume over image."""
    coarser, finer = all(f >= 0.999 for f in factor), all(f <= 1.001 for f in factor)
    if coarser:
        return f"Use the resolution level of the image that has voxels of {_text(volume.voxel_size_nm)} nm."
    if finer:
        return (
            f"Use the resolution level of {volume.uri} that has voxels of {_text(image.voxel_size_nm)} nm, or "
            f"downsample it (labels by the most frequent value, never by averaging)."
        )
    return "Resample one of them, or correct the voxel size in its file."


def _shift_nm(volume: Volume, image: Volume) -> tuple[float, float, float]:
    """(z, y, x) nm from the first voxel of ``image`` to that of ``volume``."""
    same_shape = volume.shape_zyx == image.shape_zyx
    if same_shape and (volume.offset_nm is None or image.offset_nm is None):
        return 0.0, 0.0, 0.0
    if volume.offset_nm is None:
        box = image.uri.rpartition("[")[2] if image.uri.endswith("]") else ""
        named = f"'{volume.uri}[{box}'." if box else ""
        raise InputError(
            f"{volume.uri} has {volume.shape_zyx} voxels, {image.uri} has {image.shape_zyx} (Z, Y, X), and "
            f"{volume.uri} states no place; they must be equal, or {volume.uri} must say where it lies: in HDF5 and "
            f"Zarr by an attribute offset, (z, y, x) in nm, in OME-Zarr by a translation."
            + (f" Has it the extent of the whole image, name the same part of it: {named}" if named else "")
        )
    start = image.offset_nm or (0.0, 0.0, 0.0)
    z, y, x = (a - b for a, b in zip(volume.offset_nm, start, strict=True))
    return z, y, x


def _with_note(metadata: Metadata, note: str) -> Metadata:
    return Metadata(
        metadata.axes, metadata.axes_from, metadata.voxel_size_from, metadata.offset_from, (*metadata.notes, note)
    )


def _text(values: Sequence[float] | None) -> str:
    """Three numbers as "(40, 4, 4)"; an unstated place is the origin."""
    return "({})".format(", ".join(f"{v:.6g}" for v in values or (0.0, 0.0, 0.0)))
