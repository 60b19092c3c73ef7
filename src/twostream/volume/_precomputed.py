"""Neuroglancer precomputed volumes, read and written with tensorstore.

    precomputed://PATH:KEY   a scale by its key, such as 8_8_40; without it the first, of the highest resolution

A folder that ends in .precomputed, or holds an ``info`` file, needs no driver. Everything is listed in x, y, z, and
arrays are in Fortran order: x is the fastest axis. The voxel size is ``resolution`` (nm), the place is ``voxel_offset``
times it; a volume without ``voxel_offset`` begins at 0, by the definition of the format. One channel is no axis.

Knows precomputed volumes; must not know what the voxels show.
"""

from __future__ import annotations

import difflib
import functools
import os
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from twostream.base.errors import VolumeError
from twostream.volume.axes import Axes
from twostream.volume.chunked import ChunkedVolume, chunks_of, reopening
from twostream.volume.location import Location
from twostream.volume.uri import Uri
from twostream.volume.volume import Metadata, VoxelSize, agreed_voxel_size, check_voxel_size

ENCODINGS = ("raw", "compressed_segmentation", "jpeg", "png")
"""What tensorstore reads."""
LABELS = ("uint32", "uint64")
"""dtypes that are written as segmentations, with an encoding made for them."""
DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32")
ZIPPED = (".gz", ".br", ".zstd", ".xz", ".bz2")
NAMES = ("x", "y", "z", "c")
MAX_LOOKED_AT = 16


def open_precomputed(
    uri: str, voxel_size_nm: Sequence[float] | None = None, *, writable: bool = False
) -> ChunkedVolume:
    """Open one scale of a precomputed volume.

    Args:
        uri: see the module.
        voxel_size_nm: (z, y, x) in nm; if it is passed it must agree with the info file.
        writable: whether ``write`` is allowed.

    Raises:
        VolumeError: there is no info file, it does not describe a volume, it has no such scale, its encoding is not
            known, or the two voxel sizes differ.
    """
    parsed = Uri.parse(uri)
    uri = str(parsed)
    location = Location.of(parsed.path)
    info = _info(location)
    number, scale = _scale(info, parsed.dataset, uri)
    size, offset, shape = _facts(scale, uri)
    _check_encoding(location, scale, uri)
    num_channels = int(info.get("num_channels") or 1)
    axes = Axes.understand((*shape, num_channels), (*NAMES[:3], "c" if num_channels > 1 else "single channel"), uri)
    agreed = agreed_voxel_size(size, voxel_size_nm, uri, "info file")
    keys = [str(other["key"]) for other in info["scales"]]
    notes = ["axes are stored as x y z and are turned to z y x"]
    if len(keys) > 1:
        notes.append(f"it is scale {scale['key']} of the scales {', '.join(keys)}")
    metadata = Metadata(axes.names[: 4 if num_channels > 1 else 3], "info", "info", "info", tuple(notes))
    return ChunkedVolume(
        uri,
        location,
        {"driver": "neuroglancer_precomputed", "scale_index": number},
        axes,
        voxel_size_nm=agreed,
        offset_nm=offset,
        metadata=metadata,
        again=reopening(open_precomputed, uri, agreed, writable),
        writable=writable,
        file_of=None if scale.get("sharding") else functools.partial(_file_of, scale),
    )


def _file_of(scale: Mapping[str, Any], chunk: tuple[slice, ...]) -> str:
    """Name of the file of a chunk, whose slices count from the first voxel of the volume.

    tensorstore 0.1.86 cannot tell which chunks of a precomputed volume are stored: it looks for them in a wrong folder.
    """
    start = [int(o) for o in scale.get("voxel_offset") or (0, 0, 0)]
    parts = [f"{o + part.start}-{o + part.stop}" for o, part in zip(start, chunk[:3], strict=True)]
    return f"{scale['key']}/{'_'.join(parts)}"


def is_precomputed(path: str) -> bool:
    """Whether ``path`` is a folder with the info file of a precomputed volume."""
    location = Location.of(path)
    if location.is_local and not (Path(path) / "info").is_file():
        return False
    try:
        return "scales" in (location.json("info") or {})
    except VolumeError:
        if location.is_local:
            return False
        raise


def _info(location: Location) -> dict[str, Any]:
    """The info file.

    Raises:
        VolumeError: there is none, or it describes something else, such as meshes.
    """
    if not location.exists():
        raise VolumeError(f"{location.path} does not exist; check the path of the precomputed volume.")
    info = location.json("info")
    if info is None:
        raise VolumeError(f"{location.path} holds no file named info, so it is no precomputed volume. Check the path.")
    scales = info.get("scales")
    if not isinstance(scales, list) or not scales:
        kind = info.get("@type") or "something without scales"
        raise VolumeError(f"{location.path}/info describes {kind}; expected a volume (neuroglancer_multiscale_volume).")
    return info


def _scale(info: Mapping[str, Any], key: str, uri: str) -> tuple[int, Mapping[str, Any]]:
    """(number, entry) of a scale by its key; the first for ""."""
    keys = [str(scale.get("key")) for scale in info["scales"]]
    if not key:
        return 0, info["scales"][0]
    if key not in keys:
        near = difflib.get_close_matches(key, keys, n=1, cutoff=0.4)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise VolumeError(f"{uri} has no scale {key!r}; it has: {', '.join(keys)}.{hint}")
    return keys.index(key), info["scales"][keys.index(key)]


def _facts(scale: Mapping[str, Any], uri: str) -> tuple[VoxelSize, VoxelSize, tuple[int, int, int]]:
    """((z, y, x) nm of a voxel, (z, y, x) nm of the place, (x, y, z) voxels) of a scale."""
    try:
        rx, ry, rz = (float(v) for v in scale["resolution"])
        ox, oy, oz = (float(v) for v in scale.get("voxel_offset") or (0, 0, 0))
        nx, ny, nz = (int(n) for n in scale["size"])
    except (KeyError, TypeError, ValueError) as error:
        raise VolumeError(
            f"{uri}: its info file cannot be read ({type(error).__name__}: {error}); expected resolution, voxel_offset "
            f"and size with three numbers each."
        ) from None
    return (rz, ry, rx), (oz * rz, oy * ry, ox * rx), (nx, ny, nz)


def _check_encoding(location: Location, scale: Mapping[str, Any], uri: str) -> None:
    """Raise VolumeError if chunks cannot be decoded, with the package that can."""
    encoding = scale.get("encoding")
    if encoding not in ENCODINGS:
        raise VolumeError(
            f"{uri} is encoded as {encoding!r}, which is not read here; expected one of {', '.join(ENCODINGS)}. "
            f"Write it anew: cloud-volume (pip install cloud-volume) reads it."
        )
    if not location.is_local:
        return  # servers unpack files themselves
    folder = Path(os.path.abspath(location.path), str(scale["key"]))
    zipped = [f.name for f in islice(folder.iterdir(), MAX_LOOKED_AT) if f.suffix in ZIPPED] if folder.is_dir() else []
    if zipped:
        raise VolumeError(
            f"{uri}: its chunks are compressed once more as files ({zipped[0]}), as cloud-volume does on a local disk; "
            f"read like this, all of them would be missing. Unpack them (for .gz: find {folder} -name '*.gz' -exec "
            f"gunzip {{}} +), or write it with compress=False."
        )


def create_precomputed(
    uri: str,
    *,
    shape_zyx: Sequence[int],
    dtype: Any,
    voxel_size_nm: Sequence[float],
    num_channels: int = 0,
    offset_nm: Sequence[float] | None = None,
) -> ChunkedVolume:
    """Create a precomputed volume with one scale, zero everywhere; for the arguments see ``create_volume``.

    uint32 and uint64 without channels become a segmentation (compressed_segmentation), all else an image (raw).

    Raises:
        VolumeError: something is at ``uri`` already, or the volume is one that the format cannot hold: another dtype, a
            single channel as an axis, or a place between voxels.
    """
    location = Location.of(Uri.parse(uri).path)
    name = np.dtype(dtype).name
    z, y, x = check_voxel_size(voxel_size_nm, location.path)
    if name not in DTYPES or num_channels == 1:
        raise VolumeError(
            f"{uri}: precomputed volumes cannot hold {name} with {num_channels} channels; expected one of "
            f"{', '.join(DTYPES)}, without channels or with two and more."
        )
    offset = [0, 0, 0] if offset_nm is None else _whole_voxels(offset_nm, (z, y, x), uri)
    location.check_free()
    is_labels = name in LABELS and not num_channels
    scale: dict[str, Any] = {
        "size": [int(n) for n in shape_zyx][::-1],
        "resolution": [x, y, z],
        "voxel_offset": offset[::-1],
        "chunk_size": chunks_of(shape_zyx)[::-1],
        "encoding": "compressed_segmentation" if is_labels else "raw",
    }
    if is_labels:
        scale["compressed_segmentation_block_size"] = [8, 8, 8]
    whole = {"type": "segmentation" if is_labels else "image", "data_type": name, "num_channels": num_channels or 1}
    spec = {"driver": "neuroglancer_precomputed", "multiscale_metadata": whole, "scale_metadata": scale}
    location.open(spec, create=True)
    return open_precomputed(uri, writable=True)


def _whole_voxels(offset_nm: Sequence[float], voxel_size_nm: VoxelSize, uri: str) -> list[int]:
    """A place (z, y, x) nm in voxels.

    Raises:
        VolumeError: it lies between voxels.
    """
    voxels = [float(o) / v for o, v in zip(offset_nm, voxel_size_nm, strict=True)]
    if any(abs(v - round(v)) > 1e-3 for v in voxels):
        raise VolumeError(
            f"{uri}: the place {tuple(offset_nm)} nm is {voxels} voxels (Z, Y, X); precomputed volumes begin at whole "
            f"voxels. Write OME-Zarr instead."
        )
    return [round(v) for v in voxels]
