"""Zarr 2 and 3 arrays and OME-Zarr images as volumes, read and written with tensorstore.

Axes are z, y, x or c, z, y, x. An OME-Zarr image states its voxel size in ``coordinateTransformations``, a plain array
in the attribute ``voxel_size_nm`` or ``resolution``. New volumes are written as OME-Zarr 0.4.

Knows Zarr and OME-Zarr; must not know what the voxels show.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore

from twostream.base.errors import VolumeError
from twostream.base.geometry import Box
from twostream.volume.uri import Uri
from twostream.volume.volume import Volume, VoxelSize, agreed_voxel_size, check_voxel_size

NM_PER_UNIT = {"nanometer": 1.0, "angstrom": 0.1, "micrometer": 1e3, "millimeter": 1e6, "meter": 1e9}
DEFAULT_CHUNK_ZYX = (16, 128, 128)
"""A quarter of a megabyte of uint8: large enough to compress well, small enough that reading one candidate is cheap."""


class ZarrVolume(Volume):
    """A Zarr array, or the level of an OME-Zarr image that has the highest resolution.

    Args:
        uri: folder of the array or image.
        voxel_size_nm: (z, y, x) in nm, needed if the metadata do not state it; must agree with them if they do.
        writable: whether ``write`` is allowed.

    Raises:
        VolumeError: there is no such folder, it holds no readable array with axes (Z, Y, X) or (C, Z, Y, X), or the two
            voxel sizes differ.
        NoVoxelSizeError: no voxel size is known.
    """

    def __init__(self, uri: str, voxel_size_nm: Sequence[float] | None = None, *, writable: bool = False) -> None:
        parsed = Uri.parse(uri)
        path = Path(parsed.path, parsed.dataset)
        self.uri = f"zarr://{path}"
        self._writable = writable
        if not path.exists():
            raise VolumeError(f"{path} does not exist; check the path of the Zarr volume.")
        array_path, stored = _ome_level(path, self.uri)
        self._store = _open_store(array_path, self.uri)
        shape = self._store.shape
        if len(shape) not in (3, 4):
            raise VolumeError(f"{self.uri} has shape {shape}; expected (Z, Y, X) or (C, Z, Y, X).")
        self.num_channels = shape[0] if len(shape) == 4 else 0
        z, y, x = shape[-3:]
        self.shape_zyx = (z, y, x)
        self.dtype = self._store.dtype.numpy_dtype
        # Zarr 3 may store several chunks in one file, a shard. The unit of decoding is still the chunk.
        cz, cy, cx = self._store.chunk_layout.read_chunk.shape[-3:]
        self.chunk_shape_zyx = (cz, cy, cx)
        self.voxel_size_nm = agreed_voxel_size(stored, voxel_size_nm, self.uri)

    def _read(self, box: Box) -> np.ndarray:
        try:
            return np.asarray(self._store[(..., *box.slices)].read().result())
        except ValueError as error:
            raise VolumeError(f"{self.uri}: box {box} cannot be read: {error}.") from None

    def _write(self, box: Box, array: np.ndarray) -> None:
        if not self._writable:
            super()._write(box, array)
        self._store[(..., *box.slices)].write(np.ascontiguousarray(array)).result()

    def __reduce__(self) -> Any:
        return _reopen, (self.uri, self.voxel_size_nm, self._writable)


def _reopen(uri: str, voxel_size_nm: VoxelSize, writable: bool) -> ZarrVolume:
    return ZarrVolume(uri, voxel_size_nm, writable=writable)


def is_zarr(path: str) -> bool:
    """Whether ``path`` is a folder with Zarr metadata."""
    folder = Path(path)
    return folder.is_dir() and any((folder / name).exists() for name in (".zgroup", ".zarray", "zarr.json"))


def create_zarr(
    uri: str,
    *,
    shape_zyx: Sequence[int],
    dtype: Any,
    voxel_size_nm: Sequence[float],
    num_channels: int = 0,
    offset_nm: Sequence[float] | None = None,
) -> ZarrVolume:
    """Create an OME-Zarr 0.4 image with one resolution level, zero everywhere; for the arguments see ``create_volume``.

    Raises:
        VolumeError: something is at ``uri`` already, or the voxel size is not valid.
    """
    path = Path(Uri.parse(uri).path)
    voxel_size = check_voxel_size(voxel_size_nm, str(path))
    if path.exists():
        raise VolumeError(f"{path} exists already; remove it or choose another name.")
    channels = [num_channels] if num_channels else []
    chunks = [1] * len(channels) + [min(c, s) for c, s in zip(DEFAULT_CHUNK_ZYX, shape_zyx, strict=True)]
    spec = {
        "driver": "zarr",
        "kvstore": {"driver": "file", "path": str(path / "0")},
        "metadata": {
            "shape": [*channels, *(int(s) for s in shape_zyx)],
            "chunks": chunks,
            "dtype": np.dtype(dtype).str,
            "dimension_separator": "/",
            "compressor": {"id": "blosc", "cname": "zstd", "clevel": 1, "shuffle": 0},
        },
    }
    tensorstore.open(spec, create=True).result()
    scale = [1.0] * len(channels) + list(voxel_size)
    axes = [{"name": "c", "type": "channel"}] if channels else []
    axes += [{"name": n, "type": "space", "unit": "nanometer"} for n in "zyx"]
    transform: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
    if offset_nm is not None:
        place = [0.0] * len(channels) + [float(v) for v in offset_nm]
        transform.append({"type": "translation", "translation": place})
    multiscale = {"version": "0.4", "axes": axes, "datasets": [{"path": "0", "coordinateTransformations": transform}]}
    (path / ".zgroup").write_text(json.dumps({"zarr_format": 2}))
    (path / ".zattrs").write_text(json.dumps({"multiscales": [multiscale]}, indent=1))
    return ZarrVolume(uri, writable=True)


def _open_store(path: Path, uri: str) -> Any:
    driver = "zarr3" if (path / "zarr.json").exists() else "zarr"
    try:
        return tensorstore.open({"driver": driver, "kvstore": {"driver": "file", "path": str(path)}}).result()
    except (ValueError, FileNotFoundError):
        raise VolumeError(f"{uri} holds no Zarr array (.zarray or zarr.json); check the path.") from None


def _ome_level(path: Path, uri: str) -> tuple[Path, VoxelSize | None]:
    """The array to read and its voxel size in nm.

    For an OME-Zarr image that is the level with the highest resolution, for a plain array the folder itself. The voxel
    size is None where the metadata do not state it.
    """
    try:
        return _parse_ome(path, uri)
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, IndexError, TypeError, StopIteration) as error:
        raise VolumeError(f"{uri}: its metadata cannot be read ({type(error).__name__}: {error}).") from None


def _parse_ome(path: Path, uri: str) -> tuple[Path, VoxelSize | None]:
    attributes: dict[str, Any] = {}
    if (path / ".zattrs").exists():
        attributes = json.loads((path / ".zattrs").read_text())
    elif (path / "zarr.json").exists():
        attributes = json.loads((path / "zarr.json").read_text()).get("attributes", {})
        attributes = attributes.get("ome", attributes)
    if "multiscales" not in attributes:
        size = attributes.get("voxel_size_nm", attributes.get("resolution"))
        return path, None if size is None else check_voxel_size(size, uri)
    image = attributes["multiscales"][0]
    names = [axis["name"] for axis in image["axes"]]
    if names not in (["z", "y", "x"], ["c", "z", "y", "x"]):
        raise VolumeError(f"{uri} has axes {names}; expected z, y, x or c, z, y, x.")
    level = image["datasets"][0]
    scale = next(t["scale"] for t in level["coordinateTransformations"] if t["type"] == "scale")
    units = [axis.get("unit", "nanometer") for axis in image["axes"][-3:]]
    if any(unit not in NM_PER_UNIT for unit in units):
        raise VolumeError(f"{uri} has axes in {units}; expected one of {', '.join(NM_PER_UNIT)} for each.")
    size = [s * NM_PER_UNIT[u] for s, u in zip(scale[-3:], units, strict=True)]
    return path / level["path"], check_voxel_size(size, uri)
