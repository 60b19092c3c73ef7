"""NIfTI files (.nii, .nii.gz) as volumes, by nibabel, which is an extra: ``pip install nibabel``.

Axes are stored as x, y, z, x fastest. The unit is that of ``xyzt_units``. The place is that of the affine, moved from the
centre of the first voxel to its corner; voxels stay in the order in which they are stored. Scaled values
(``scl_slope``, ``scl_inter``) are read as float32, after the scaling. A compressed file is unpacked into memory as a
whole when it is first read.

Knows NIfTI; must not know what the voxels show.
"""

from __future__ import annotations

import gzip
import threading
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from twostream.base.errors import VolumeError
from twostream.base.geometry import Box
from twostream.volume.axes import Axes
from twostream.volume.byte_files import FlatArray, check_is_file, refuse_remote
from twostream.volume.uri import Uri
from twostream.volume.volume import Metadata, Volume, VoxelSize, agreed_voxel_size

NM_PER_UNIT = {"meter": 1e9, "mm": 1e6, "micron": 1e3}
NAMES = ("x", "y", "z", "t", "c", "u", "v")
TOLERANCE = 1e-3


class NiftiVolume(Volume):
    """A NIfTI image, opened for reading.

    Args:
        uri: ``x.nii``, ``x.nii.gz``, or ``nifti://path``.
        voxel_size_nm: (z, y, x) in nm, needed if the file states no unit; must agree with the file if it does.

    Raises:
        VolumeError: nibabel is not installed; there is no such file, it is damaged or no volume; or its axes are rotated.
        NoVoxelSizeError: no voxel size is known.
    """

    def __init__(self, uri: str, voxel_size_nm: Sequence[float] | None = None) -> None:
        parsed = Uri.parse(uri)
        self.uri, self._path = str(parsed), parsed.path
        refuse_remote(parsed.path, "NIfTI files")
        check_is_file(parsed.path, "FILE.nii")
        image = _load(parsed.path, self.uri)
        header = image.header
        shape, dtype = tuple(int(n) for n in header.get_data_shape()), header.get_data_dtype()
        if dtype.kind not in "uif":
            raise VolumeError(f"{self.uri} holds {dtype}; expected whole numbers or floats, one for each voxel.")
        if len(shape) == 2:
            shape = (*shape, 1)
        self._axes = Axes.understand(shape, NAMES[: len(shape)], self.uri)
        self._stored, self._offset = dtype, int(image.dataobj.offset)
        self._lock = threading.Lock()
        self._packed = parsed.path.lower().endswith(".gz")
        self._flat = None if self._packed else FlatArray(parsed.path, self._offset, dtype, shape[::-1])
        self._unpacked: np.ndarray | None = None
        slope, inter = (None if v is None else float(v) for v in (image.dataobj.slope, image.dataobj.inter))
        self._scale = None if slope is None or (slope, inter or 0.0) == (1.0, 0.0) else (slope, inter or 0.0)
        self.dtype = np.dtype(np.float32) if self._scale else dtype.newbyteorder("=")
        self.num_channels, self.shape_zyx = self._axes.num_channels, self._axes.shape_zyx
        stored, why = _voxel_size(header, self._axes)
        self.voxel_size_nm = agreed_voxel_size(stored, voxel_size_nm, self.uri, "header", why)
        self.offset_nm, notes = _place(header, self.uri)
        if self._scale:
            notes.append(f"values are stored as {dtype.name} and scaled: {slope:g} times value plus {inter or 0.0:g}")
        if self._packed:
            notes.append("the file is compressed as a whole: it is unpacked into memory when it is first read")
        self.metadata = Metadata(
            self._axes.names,
            "format",
            "header, pixdim and xyzt_units" if stored else "",
            "header, affine" if self.offset_nm else "",
            (*self._axes.notes, *notes),
        )

    def _read(self, box: Box) -> np.ndarray:
        index = self._axes.cut(box)[::-1]
        found = np.array(self._whole()[index]) if self._flat is None else self._flat.read(index)
        array = self._axes.turn(found.transpose())
        if self._scale is None:
            return array
        return (array * np.float64(self._scale[0]) + self._scale[1]).astype(np.float32)

    def _whole(self) -> np.ndarray:
        """The array of a compressed file, in C order: its axes are reversed."""
        with self._lock:
            if self._unpacked is None:
                shape = self._axes.shape[::-1]
                size = int(np.prod(shape, dtype=np.int64)) * self._stored.itemsize
                try:
                    with gzip.open(self._path) as file:
                        file.seek(self._offset)
                        content = file.read(size)
                except (OSError, EOFError, zlib.error) as error:
                    raise VolumeError(f"{self.uri} is damaged or truncated: {error}. Copy the file again.") from None
                if len(content) < size:
                    raise VolumeError(f"{self.uri} is truncated: {len(content)} of {size} bytes. Copy the file again.")
                array = np.frombuffer(content, self._stored).reshape(shape)
                self._unpacked = array.astype(self._stored.newbyteorder("="), copy=False)
        return self._unpacked

    def __reduce__(self) -> Any:
        return NiftiVolume, (self.uri, self.voxel_size_nm)


def _load(path: str, uri: str) -> Any:
    """A NIfTI image of nibabel, whose voxels have not been read."""
    try:
        import nibabel
    except ImportError:
        raise VolumeError(
            f"{uri}: NIfTI files are read with the package nibabel, which is not installed. Install it: pip install "
            f"nibabel."
        ) from None
    try:
        image = nibabel.load(path)
    except Exception as error:  # damaged files raise errors of every kind
        raise VolumeError(f"{uri} cannot be read as NIfTI: {str(error).rstrip('.') or type(error).__name__}.") from None
    if not isinstance(image, nibabel.Nifti1Image):
        raise VolumeError(f"{uri} is {type(image).__name__}; expected a single NIfTI file (.nii or .nii.gz).")
    return image


def _unit_nm(header: Any) -> float | None:
    return NM_PER_UNIT.get(header.get_xyzt_units()[0])


def _voxel_size(header: Any, axes: Axes) -> tuple[VoxelSize | None, str]:
    """((z, y, x) nm or None, why there is none)."""
    unit = _unit_nm(header)
    zooms = [float(v) for v in header["pixdim"][1:4]]
    if unit is None:
        return None, f"its header gives sizes {tuple(round(v, 6) for v in zooms)} (x, y, z) without a unit"
    x, y, z = (rounded6(abs(v) * unit) for v in zooms)
    return (z, y, x), ""


def _place(header: Any, uri: str) -> tuple[VoxelSize | None, list[str]]:
    """((z, y, x) nm of the corner of the first voxel or None, notes).

    Raises:
        VolumeError: the axes of the voxels are not those of the affine, or its scale contradicts the header.
    """
    if int(header["sform_code"]) == 0 and int(header["qform_code"]) == 0:
        return None, []
    affine = np.asarray(header.get_best_affine(), float)
    scale = np.diag(affine)[:3]
    rest = affine[:3, :3] - np.diag(scale)
    if np.abs(rest).max() > TOLERANCE * np.abs(affine[:3, :3]).max():
        raise VolumeError(
            f"{uri}: its affine rotates or exchanges axes; expected x, y, z along the axes of the voxels. Resample it, "
            f"or reorder it: nibabel.as_closest_canonical(image), then save it without the rotation."
        )
    zooms = np.asarray(header["pixdim"][1:4], float)
    if not np.allclose(np.abs(scale), np.abs(zooms), rtol=TOLERANCE):
        raise VolumeError(
            f"{uri}: its affine says voxels of {np.abs(scale)}, pixdim says {zooms} (x, y, z). Correct one of them."
        )
    flipped = [name for name, value in zip("xyz", scale, strict=True) if value < 0]
    unit = _unit_nm(header)
    if flipped:
        return None, [
            f"its affine flips {' and '.join(flipped)}: voxels are kept in the order in which they are stored, and its "
            f"place is not used"
        ]
    if unit is None:
        return None, ["its header states no unit, so that its place is not used"]
    x, y, z = ((affine[i, 3] - scale[i] / 2) * unit for i in range(3))
    return (_clean(z), _clean(y), _clean(x)), []


def rounded6(value: float) -> float:
    """``value`` without the digits that a float of 32 bits adds."""
    return float(f"{value:.6g}")


def _clean(value: float) -> float:
    return rounded6(value) + 0.0
