"""Voxel size, place and axes from the attributes that HDF5, plain Zarr and N5 share.

Different tools write the same facts under different names. One table of names is kept here, so that formats cannot read
them differently; a format passes its attributes and the order in which it lists axes.

Knows names and units; must not know formats.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from twostream.base.errors import VolumeError
from twostream.volume.axes import Axes
from twostream.volume.units import nm_per_unit
from twostream.volume.volume import VoxelSize

SIZES = {"voxel_size_nm": 1.0, "element_size_um": 1e3, "resolution": None, "voxel_size": None}
"""{attribute: nanometres in its unit}; None: the attribute ``units`` (or ``unit``) says it, and without one it is nm,
which is how CREMI, funlib and their like write it."""
UNITS = ("units", "unit")
NAMES = ("axis_names", "axes", "axistags", "_ARRAY_DIMENSIONS")
OFFSETS = ("offset", "voxel_offset")


class Attributes:
    """The attributes of an array, and of what holds it.

    Args:
        levels: attributes of the array first, then of its file or group; of each fact the first that states it counts.
        uri: of the volume, for errors.
    """

    def __init__(self, levels: Sequence[Mapping[str, Any]], uri: str) -> None:
        self._levels = [{str(k): _plain(v) for k, v in level.items()} for level in levels]
        self._uri = uri

    def find(self, names: Sequence[str]) -> tuple[str, Any] | None:
        """(name, value) of the first of ``names`` that is there; the array's own attributes come first."""
        for level in self._levels:
            for name in names:
                if level.get(name) not in (None, "", []):
                    return name, level[name]
        return None

    def axis_names(self) -> list[str] | None:
        """Names of the axes as they are listed, or None."""
        found = self.find(NAMES)
        if found is None:
            return None
        try:
            return _axis_names(found[1])
        except (ValueError, KeyError, TypeError):
            raise VolumeError(
                f"{self._uri}: the attribute {found[0]} is {found[1]!r}; expected names of axes, such as zyx. Correct "
                f"or remove it."
            ) from None

    def voxel_size(self, axes: Axes) -> tuple[VoxelSize, str] | None:
        """((z, y, x) nm, name of the attribute); None if there is none.

        Raises:
            VolumeError: the unit is not known, or there is not one number for each axis.
        """
        stated = {name: self._size(name, axes) for name in SIZES if self.find((name,))}
        if not stated:
            return None
        name, size = next(iter(stated.items()))
        for other, value in stated.items():
            if not np.allclose(value, size, rtol=1e-3):
                raise VolumeError(
                    f"{self._uri}: the attribute {name} says {size} nm, {other} says {value} nm (Z, Y, X). "
                    f"Correct or remove one of them."
                )
        return size, name

    def _size(self, name: str, axes: Axes) -> VoxelSize:
        """(z, y, x) nm of one attribute of ``SIZES``."""
        found = self.find((name,))
        assert found is not None
        factor = SIZES[name]
        units = [factor] * 3 if factor else self._units(axes)
        z, y, x = (v * u for v, u in zip(self._per_axis(name, found[1], axes), units, strict=True))
        return z, y, x

    def offset(self, axes: Axes, voxel_size_nm: VoxelSize) -> tuple[VoxelSize, str] | None:
        """((z, y, x) nm of the first voxel, name of the attribute); None if there is none."""
        found = self.find(OFFSETS)
        if found is None:
            return None
        name, value = found
        values = self._per_axis(name, value, axes)
        scale = list(voxel_size_nm) if name == "voxel_offset" else self._units(axes)
        z, y, x = (v * s for v, s in zip(values, scale, strict=True))
        return (z, y, x), name

    def _units(self, axes: Axes) -> list[float]:
        """Nanometres per unit for Z, Y and X; 1 where no unit is stated."""
        found = self.find(UNITS)
        if found is None:
            return [1.0, 1.0, 1.0]
        words = [found[1]] * len(axes.names) if isinstance(found[1], str) else list(found[1])
        if len(words) == 3:
            words = ["nm"] * (len(axes.names) - 3) + words
        picked = [words[a] for a in axes.order[-3:]] if len(words) == len(axes.names) else words
        known = [nm_per_unit(word) for word in picked]
        if len(known) != 3 or any(unit is None for unit in known):
            raise VolumeError(
                f"{self._uri}: the attribute {found[0]} is {found[1]!r}; expected a unit of length, such as nm. "
                "Correct it."
            )
        return [float(unit) for unit in known if unit is not None]

    def _per_axis(self, name: str, value: Any, axes: Axes) -> tuple[float, float, float]:
        """Z, Y and X of an attribute with one number for each axis, or for each of the last three."""
        try:
            values = [float(v) for v in np.atleast_1d(np.asarray(value, float))]
        except (TypeError, ValueError):
            values = []
        if not np.isfinite(values).all():
            raise VolumeError(f"{self._uri}: the attribute {name} is {value!r}; expected finite numbers. Correct it.")
        if len(values) == 1:
            values *= 3
        if len(values) == len(axes.names):
            return axes.zyx(values)
        if len(values) != 3:
            raise VolumeError(f"{self._uri}: the attribute {name} is {value!r}; expected three numbers, one per axis.")
        # Three numbers beside a channel axis: they are in the stored order of the three axes of space.
        space = sorted(axes.order[-3:])
        z, y, x = (values[space.index(axis)] for axis in axes.order[-3:])
        return z, y, x


def _plain(value: Any) -> Any:
    """Python values of what HDF5 and JSON give: bytes as text, arrays as lists."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.ndarray):
        return [_plain(v) for v in value.tolist()]
    return value.item() if isinstance(value, np.generic) else value


def _axis_names(value: Any) -> list[str] | None:
    """Names of axes from a list, from a text such as "zyx" or "z,y,x", or from vigra's axistags."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        return [str(axis["key"]) for axis in json.loads(value)["axes"]]
    if isinstance(value, str):
        return [v for v in value.replace(",", " ").split() if v] if not value.isalpha() else list(value)
    return [str(v["name"] if isinstance(v, dict) else v) for v in value]
