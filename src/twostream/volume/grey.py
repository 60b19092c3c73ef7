"""Grey values of any dtype as the 8 bits that all networks here see, through a window that is stated and kept.

Electron microscopes store 8 bits, 16 bits or floats. A window (low, high) maps low to 0 and high to 255, linearly, and
clips what lies outside. It is chosen once, from the whole volume, and frozen in the project; a window chosen anew for
each crop would make the same tissue look different from place to place.

Knows volumes; must not know projects.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from twostream.base.errors import InputError
from twostream.base.geometry import Box, grid
from twostream.volume.open import open_volume
from twostream.volume.place import without_channel
from twostream.volume.volume import Metadata, Volume

PERCENTILES = (0.5, 99.5)
"""Of the sampled grey values; what lies outside is clipped. Hot pixels and empty borders are fewer."""
NUM_SAMPLES = 64
SAMPLE_ZYX = (4, 64, 64)
"""Boxes from which a window is chosen: a million voxels, spread over the volume."""


class GreyVolume(Volume):
    """A volume of grey values seen through a window, as uint8.

    Args:
        volume: (Z, Y, X), of any real dtype.
        window: (low, high) grey values that become 0 and 255. A low above the high inverts the image.

    Raises:
        InputError: the window is empty or not finite.
    """

    def __init__(self, volume: Volume, window: Sequence[float]) -> None:
        low, high = check_window(window)
        self._volume, self.window = volume, (low, high)
        self.uri, self.shape_zyx, self.num_channels = volume.uri, volume.shape_zyx, volume.num_channels
        self.voxel_size_nm, self.offset_nm = volume.voxel_size_nm, volume.offset_nm
        self.chunk_shape_zyx = volume.chunk_shape_zyx
        self.dtype = np.dtype(np.uint8)
        metadata, note = volume.metadata, f"grey values {low:g} to {high:g} are shown as 0 to 255"
        self.metadata = Metadata(
            metadata.axes, metadata.axes_from, metadata.voxel_size_from, metadata.offset_from, (*metadata.notes, note)
        )

    @property
    def as_stored(self) -> Volume:
        return self._volume.as_stored

    def _read(self, box: Box) -> np.ndarray:
        return through_window(self._volume.read(box), self.window)

    def num_absent_chunks(self) -> tuple[int, int] | None:
        return self._volume.num_absent_chunks()

    def __reduce__(self) -> Any:
        return GreyVolume, (self._volume, self.window)


def through_window(array: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """Grey values as uint8: low becomes 0, high 255, linearly between and clipped outside; NaN becomes 0."""
    low, high = window
    scaled = (array.astype(np.float32) - np.float32(low)) * np.float32(255.0 / (high - low))
    return np.rint(np.clip(np.nan_to_num(scaled, nan=0.0), 0, 255)).astype(np.uint8)


def check_window(window: Sequence[float]) -> tuple[float, float]:
    """(low, high) of a window.

    Raises:
        InputError: these are not two finite numbers that differ.
    """
    try:
        low, high = (float(v) for v in window)
    except (TypeError, ValueError):
        raise InputError(f"the grey window is {window!r}; expected LOW:HIGH, two grey values.") from None
    if not (math.isfinite(low) and math.isfinite(high)) or low == high:
        raise InputError(f"the grey window is {low:g}:{high:g}; expected two finite grey values that differ.")
    return low, high


def parse_window(text: str) -> tuple[float, float]:
    """A window from LOW:HIGH, the notation of the command line.

    Raises:
        InputError: the text has another form, or the window is empty.
    """
    parts = text.split(":")
    try:
        return check_window([float(part) for part in parts])
    except ValueError:
        raise InputError(f"--window is {text!r}; expected LOW:HIGH, two grey values, such as 28000:36000.") from None


def open_grey(uri: str, voxel_size_nm: Sequence[float] | None, window: Sequence[float] | None) -> Volume:
    """Open an image as (Z, Y, X) uint8 grey values.

    Args:
        uri: of the image.
        voxel_size_nm: (z, y, x) nm, if the file does not state it.
        window: (low, high), or None for an image of 8 bits that is shown as it is.

    Raises:
        InputError: it holds no grey values, or other than 8 bits and there is no window.
    """
    volume = open_values(uri, voxel_size_nm)
    if window is None and volume.dtype != np.uint8:
        raise InputError(
            f"{uri} holds {volume.dtype}; expected uint8, or a grey window: set image.window to [LOW, HIGH] in the "
            f"project's settings."
        )
    return volume if window is None else GreyVolume(volume, window)


def open_values(uri: str, voxel_size_nm: Sequence[float] | None) -> Volume:
    """Open an image as (Z, Y, X) grey values of any real dtype.

    Raises:
        InputError: it cannot be read, has several channels, or holds truth values or complex numbers.
    """
    volume = without_channel(open_volume(uri, voxel_size_nm))
    if volume.num_channels:
        raise InputError(
            f"{volume.uri} has {volume.num_channels} channels; expected grey values (Z, Y, X) without channels. Save "
            f"the channel that is the image as a volume of its own."
        )
    if volume.dtype.kind not in "uif":
        raise InputError(
            f"{volume.uri} holds {volume.dtype}; expected grey values, integers or floats. Is it the image, or a mask?"
        )
    return volume


def robust_window(volume: Volume) -> tuple[float, float]:
    """The window of a volume: percentiles of boxes that are spread over all of it.

    Boxes of one grey value, such as padding, are left out, so that they do not move the window; hot pixels are too few
    to move a percentile.

    Args:
        volume: (Z, Y, X), of any real dtype.

    Raises:
        InputError: all sampled voxels have the same value, or none is finite.
    """
    samples = [volume.read(box).ravel() for box in spread_boxes(volume.shape_zyx, NUM_SAMPLES, SAMPLE_ZYX)]
    finite = [part[np.isfinite(part)] if part.dtype.kind == "f" else part for part in samples]
    varied = [part for part in finite if part.size and part.min() != part.max()]
    if not varied:
        raise InputError(
            f"{volume.uri}: all {len(samples)} places that were sampled hold one grey value; there is nothing to see. "
            f"Is it the right volume? If so, pass --window LOW:HIGH."
        )
    low, high = np.percentile(np.concatenate(varied).astype(np.float64), PERCENTILES)
    if low == high:
        low, high = low, low + 1.0
    return float(low), float(high)


def spread_boxes(extent_zyx: Sequence[int], number: int, shape_zyx: Sequence[int]) -> list[Box]:
    """Boxes spread evenly over all of a volume, the same at every call.

    Each lies in its own cell of a regular grid over the volume, at a place that follows a fixed random sequence, so
    that regular structures such as tile borders are not hit every time.

    Args:
        extent_zyx: (z, y, x) of the volume in voxels.
        number: about how many boxes; a small volume gives fewer.
        shape_zyx: (z, y, x) in voxels; smaller where the volume is.
    """
    shape = [min(a, b) for a, b in zip(shape_zyx, extent_zyx, strict=True)]
    room = [n // s for n, s in zip(extent_zyx, shape, strict=True)]
    counts = [1, 1, 1]
    while math.prod(counts) < number and any(c < r for c, r in zip(counts, room, strict=True)):
        axis = max((a for a in range(3) if counts[a] < room[a]), key=lambda a: room[a] / counts[a])
        counts[axis] += 1
    cell = [n // c for n, c in zip(extent_zyx, counts, strict=True)]
    rng = np.random.default_rng(0)
    found = []
    for block in grid(Box.whole([c * n for c, n in zip(cell, counts, strict=True)]), cell):
        start = [
            o + int(rng.integers(0, c - s + 1)) for o, c, s in zip(block.write_box.offset_zyx, cell, shape, strict=True)
        ]
        z, y, x = start
        found.append(Box((z, y, x), (shape[0], shape[1], shape[2])))
    return found
