"""Scale and translation of a resolution level, in nanometres: OME-Zarr and the N5 of COSEM state them alike.

Neither format says whether a translation leads to the corner of the first voxel or to its centre. Most files of one
level lead to the corner (0 where nothing was cut off). Pyramids whose levels are shifted by half a voxel of the level
less half a voxel of level 0 lead to centres, because the corner of all levels is the same. So:

    corner = translation - (scale - scale of level 0) / 2    where the translation less that of level 0 is just that
    corner = translation                                     everywhere else

Knows numbers and units; must not know formats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from twostream.base.errors import VolumeError
from twostream.volume.units import nm_per_unit
from twostream.volume.volume import VoxelSize

ROUNDING = 0.01
"""Share of a voxel by which a translation may miss the half voxel: files round it."""


@dataclass(frozen=True)
class Level:
    """One resolution level, in the units of its file.

    Attributes:
        scale: one number per axis; None if none is stated.
        translation: one number per axis; None if none is stated.
    """

    scale: tuple[float, ...] | None = None
    translation: tuple[float, ...] | None = None

    def picked(self, axes: Sequence[int]) -> Level:
        """The same of some axes, by their numbers."""
        pick = [None if v is None else tuple(v[axis] for axis in axes) for v in (self.scale, self.translation)]
        return Level(*pick)


@dataclass(frozen=True)
class Measured:
    """A level in nanometres.

    Attributes:
        size: (z, y, x) of a voxel; None if the file does not state it.
        corner: (z, y, x) of the corner of the first voxel; None if the file states no place, or in an unknown unit.
        why: why the scale that the file states is no size; "" if it is one, or if there is no scale.
    """

    size: VoxelSize | None = None
    corner: VoxelSize | None = None
    why: str = ""


def measured(level: Level, first: Level, units: Sequence[object], told: Sequence[float] | None, uri: str) -> Measured:
    """A level in nanometres.

    Args:
        level: (z, y, x).
        first: (z, y, x) of level 0; ``level`` itself if it is that one.
        units: of z, y and x as the file spells them; None where it states none.
        told: (z, y, x) nm of a voxel as the user says; gives the unit of the translation where the file has none.
        uri: of the volume, for errors.

    Raises:
        VolumeError: the scale has no unit, and its numbers are not in the proportions of ``told``.
    """
    if level.scale is None:
        return Measured()
    corner = _corner(level, first)
    known = [nm_per_unit(unit) for unit in units]
    nm = [unit for unit in known if unit is not None]
    if len(nm) == 3:
        return Measured(_times(level.scale, nm), _times(corner, nm))
    scale = "({})".format(", ".join(f"{v:g}" for v in level.scale))
    named = [str(unit) for unit, value in zip(units, known, strict=True) if value is None and unit]
    why = f"its scale {scale} has " + (f"the unit {named[0]!r}, which is no length" if named else "no unit")
    if told is None:
        return Measured(why=why)
    factors = [float(size) / scale for size, scale in zip(told, level.scale, strict=True)]
    in_voxels = first.scale is not None and all(v == 1 for v in first.scale)
    stated = [abs(f / u - 1) < 1e-3 for f, u in zip(factors, known, strict=True) if u is not None]
    if not all(stated) or not (in_voxels or np.allclose(factors, factors[0], rtol=1e-3)):
        raise VolumeError(
            f"{uri} says its scale is {scale} (Z, Y, X) without a unit of length, --voxel-size says {tuple(told)}: the "
            f"proportions differ. Correct one of them."
        )
    return Measured(None, _times(corner, factors), why)


def _corner(level: Level, first: Level) -> tuple[float, ...] | None:
    """Translation of the corner of the first voxel, in the units of the file; see the module for the rule."""
    if level.translation is None or level.scale is None or first.scale is None:
        return level.translation
    half = (np.asarray(level.scale) - first.scale) / 2
    shift = np.asarray(level.translation) - (first.translation or 0.0)
    if half.any() and np.all(np.abs(shift - half) <= ROUNDING * np.abs(level.scale)):
        return tuple(float(v) for v in np.asarray(level.translation) - half)
    return level.translation


def _times(values: Sequence[float] | None, factors: Sequence[float]) -> VoxelSize | None:
    if values is None:
        return None
    z, y, x = (float(v) * float(f) for v, f in zip(values, factors, strict=True))
    return z, y, x
