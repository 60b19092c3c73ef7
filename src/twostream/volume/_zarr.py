"""Zarr 2 and 3 arrays and OME-Zarr images as volumes, read and written with tensorstore.

    x.zarr            an array, or an OME-Zarr image at its highest resolution
    x.zarr:raw/s2     an array or image inside a group; x.zarr:1 for a level of the image

Where it is found:

    axes         axes of the OME image; dimension_names of Zarr 3; _ARRAY_DIMENSIONS, axis_names or axes
    voxel size   coordinateTransformations and units of the OME image (``levels.py``); the attributes that HDF5 has
    place        translation of the OME image; the attributes that HDF5 has

New volumes are written as OME-Zarr 0.4.

Knows Zarr and OME-Zarr; must not know what the voxels show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from twostream.base.errors import VolumeError
from twostream.volume._zarr_tree import Found, ZarrNode, find_array, read_node
from twostream.volume.attributes import Attributes
from twostream.volume.axes import Axes
from twostream.volume.chunked import ChunkedVolume, chunks_of, reopening
from twostream.volume.levels import Level, Measured, measured
from twostream.volume.location import Location
from twostream.volume.uri import Uri
from twostream.volume.volume import Metadata, VoxelSize, agreed_voxel_size, check_voxel_size

COMPRESSORS = ("blosc", "bz2", "gzip", "zlib", "zstd")
CODECS = ("blosc", "bytes", "crc32c", "gzip", "sharding_indexed", "transpose", "zstd")
"""What tensorstore reads of Zarr 2 and of Zarr 3."""


def open_zarr(uri: str, voxel_size_nm: Sequence[float] | None = None, *, writable: bool = False) -> ChunkedVolume:
    """Open a Zarr array, or one level of an OME-Zarr image.

    Args:
        uri: see the module.
        voxel_size_nm: (z, y, x) in nm, needed if the metadata do not state it; must agree with them if they do.
        writable: whether ``write`` is allowed.

    Raises:
        VolumeError: there is no such array, its axes cannot be understood (``axes.Axes``), its compression is not
            known, its metadata contradict each other, or the two voxel sizes differ.
        NoVoxelSizeError: no voxel size is known.
    """
    parsed = Uri.parse(uri)
    uri = str(parsed)
    found = find_array(Location.of(parsed.path), parsed.dataset, uri)
    array = found.array
    _check_codecs(array, uri)
    names, names_from = _axis_names(found, uri)
    axes = Axes.understand(array.shape, names, uri)
    understood = _understand(found, axes, voxel_size_nm, uri)
    size = agreed_voxel_size(understood.size, voxel_size_nm, uri, why=understood.why)
    notes = [*axes.notes, *_level_notes(found)]
    return ChunkedVolume(
        uri,
        array.location,
        {"driver": "zarr3" if array.version == 3 else "zarr"} | (WRITTEN if writable else {}),
        axes,
        voxel_size_nm=size,
        offset_nm=understood.offset,
        metadata=Metadata(axes.names, names_from, understood.size_from, understood.offset_from, tuple(notes)),
        again=reopening(open_zarr, uri, size, writable),
        writable=writable,
    )


MAX_ODD_VOXELS, MAX_ODD_SHARE = 2, 0.1
"""How much smaller or larger than level 0 a level may be: odd numbers of voxels are rounded at each level."""
WRITTEN = {"store_data_equal_to_fill_value": True}
"""Chunks that were written as zeros are stored, so that an absent chunk is one that was never written."""


@dataclass(frozen=True)
class _Understood:
    """Voxel size and place in nm, and where they stand; None where they are not stated."""

    size: VoxelSize | None
    size_from: str
    offset: VoxelSize | None
    offset_from: str
    why: str = ""


def _understand(found: Found, axes: Axes, told: Sequence[float] | None, uri: str) -> _Understood:
    """From the OME image, if the array is a level of one, and from attributes."""
    stored = Attributes([node.attributes for node in (found.array, *found.holders)], uri)
    size = stored.voxel_size(axes)
    ome = _of_image(found, axes, told, uri)
    if ome.size is not None and size is not None and not np.allclose(ome.size, size[0], rtol=1e-3):
        raise VolumeError(
            f"{uri}: its OME metadata say {ome.size} nm, its attribute {size[1]} says {size[0]} nm (Z, Y, X). "
            f"Correct or remove one of them."
        )
    known = ome.size or (size and size[0])
    size_from = "OME scale" if ome.size else f"attribute {size[1]}" if size else ""
    for_offset = known or (None if told is None else check_voxel_size(told, "--voxel-size"))
    offset = stored.offset(axes, for_offset) if for_offset else None
    if ome.corner is not None:
        if offset and known and any(abs(a - b) > s for a, b, s in zip(ome.corner, offset[0], known, strict=True)):
            raise VolumeError(
                f"{uri}: its OME metadata say that it begins at {ome.corner} nm, its attribute {offset[1]} says "
                f"{offset[0]} nm (Z, Y, X). Correct or remove one of them."
            )
        return _Understood(known, size_from, ome.corner, "OME translation", ome.why)
    return _Understood(known, size_from, offset and offset[0], f"attribute {offset[1]}" if offset else "", ome.why)


def _of_image(found: Found, axes: Axes, told: Sequence[float] | None, uri: str) -> Measured:
    """Voxel size and place of a level of an OME image."""
    if found.image is None:
        return Measured()
    level, first = found.image.level(found.level, axes, uri)
    _check_extent(found, level, first, axes, uri)
    return measured(level, first, found.image.units_of(axes), told, uri)


def _check_extent(found: Found, level: Level, first: Level, axes: Axes, uri: str) -> None:
    """Raise VolumeError if the level and level 0, each by its scale and its voxels, are not of the same size."""
    if found.first is None or level.scale is None or first.scale is None or len(found.first.shape) != len(axes.shape):
        return
    first_shape = axes.zyx(found.first.shape)
    for name, n, s, n0, s0 in zip("zyx", axes.shape_zyx, level.scale, first_shape, first.scale, strict=True):
        if abs(n * s - n0 * s0) > MAX_ODD_VOXELS * max(s, s0) + MAX_ODD_SHARE * n0 * s0:
            raise VolumeError(
                f"{uri}: along {name} the level {found.level} has {n} voxels of {s:g}, level 0 has {n0:g} of {s0:g}: "
                f"not the same extent. Correct the scales."
            )


def _axis_names(found: Found, uri: str) -> tuple[Sequence[str] | None, str]:
    """Names of the axes, and where they stand; None and "" without any."""
    array = found.array
    stated: list[tuple[Sequence[str], str]] = []
    if found.image is not None and (names := found.image.axis_names(len(array.shape))):
        stated.append((names, "OME axes"))
    if array.dimension_names:
        stated.append((array.dimension_names, "dimension_names"))
    if attributes := Attributes([array.attributes, *(node.attributes for node in found.holders)], uri).axis_names():
        stated.append((attributes, "attributes"))
    if not stated:
        return None, ""
    first, where = stated[0]
    order = [str(name).lower() for name in first]
    for other, there in stated[1:]:
        others = [str(name).lower() for name in other]
        if sorted(others) == sorted(order) and others != order:
            raise VolumeError(
                f"{uri}: {where} say the axes are {', '.join(order)}, {there} say {', '.join(others)}. "
                f"Correct one of them."
            )
    return first, where


def _level_notes(found: Found) -> list[str]:
    """That other resolution levels are there."""
    if found.image is None or len(found.image.paths) == 1:
        return []
    return [f"it is level {found.level} of the levels {', '.join(found.image.paths)}"]


def _check_codecs(array: ZarrNode, uri: str) -> None:
    """Raise VolumeError, with the package that reads it, if tensorstore does not know the compression."""
    unknown = [codec for codec in array.codecs if codec not in (CODECS if array.version == 3 else COMPRESSORS)]
    if unknown:
        known = ", ".join(COMPRESSORS)
        raise VolumeError(
            f"{uri} is stored with {', '.join(map(repr, unknown))}, which is not read here; expected {known} and no "
            f"filters. Write it anew: zarr-python with numcodecs (pip install zarr numcodecs imagecodecs) reads it."
        )


def is_zarr(path: str) -> bool:
    """Whether ``path`` is a folder with Zarr metadata."""
    location = Location.of(path)
    if location.is_local and not Path(path).is_dir():
        return False
    return read_node(location) is not None


def create_zarr(
    uri: str,
    *,
    shape_zyx: Sequence[int],
    dtype: Any,
    voxel_size_nm: Sequence[float],
    num_channels: int = 0,
    offset_nm: Sequence[float] | None = None,
) -> ChunkedVolume:
    """Create an OME-Zarr 0.4 image with one resolution level, zero everywhere; for the arguments see ``create_volume``.

    Raises:
        VolumeError: something is at ``uri`` already, the voxel size is not valid, or it cannot be written there.
    """
    location = Location.of(Uri.parse(uri).path)
    voxel_size = check_voxel_size(voxel_size_nm, location.path)
    location.check_free()
    channels = [num_channels] if num_channels else []
    metadata = {
        "shape": [*channels, *(int(s) for s in shape_zyx)],
        "chunks": [1] * len(channels) + chunks_of(shape_zyx),
        "dtype": np.dtype(dtype).str,
        "fill_value": 0,
        "dimension_separator": "/",
        "compressor": {"id": "blosc", "cname": "zstd", "clevel": 1, "shuffle": 0},
    }
    location.child("0").open({"driver": "zarr", "metadata": metadata}, create=True)
    transforms: list[dict[str, Any]] = [{"type": "scale", "scale": [1.0] * len(channels) + list(voxel_size)}]
    if offset_nm is not None:
        place = [0.0] * len(channels) + [float(v) for v in offset_nm]
        transforms.append({"type": "translation", "translation": place})
    axes = [{"name": "c", "type": "channel"}] if channels else []
    axes += [{"name": n, "type": "space", "unit": "nanometer"} for n in "zyx"]
    datasets = [{"path": "0", "coordinateTransformations": transforms}]
    location.write_json(".zgroup", {"zarr_format": 2})
    location.write_json(".zattrs", {"multiscales": [{"version": "0.4", "axes": axes, "datasets": datasets}]})
    return open_zarr(uri, writable=True)
