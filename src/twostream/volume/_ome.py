"""The multiscale metadata of OME-Zarr 0.1 to 0.5: resolution levels, names and units of axes, scale and translation.

Transformations of a level are applied in the order in which they stand, then those of the whole image: scales multiply
each other and the translations before them.

Knows the metadata of OME-Zarr; must not know where files lie.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from twostream.base.errors import VolumeError
from twostream.volume.axes import Axes
from twostream.volume.levels import Level

NO_AXES = {5: ("t", "c", "z", "y", "x")}
"""Names of the axes by their number where none are stated: before version 0.3 all images had five."""


@dataclass(frozen=True)
class OmeImage:
    """One image of an OME-Zarr group.

    Attributes:
        name: of the image, "" without one.
        axes: names of the axes, as stored; None if they are not stated.
        units: of the axes, as the file spells them; None where none is stated.
        paths: of the levels, inside the group, the one with the highest resolution first.
        levels: scale and translation of each, per stored axis.
    """

    name: str
    axes: tuple[str, ...] | None
    units: tuple[object, ...]
    paths: tuple[str, ...]
    levels: tuple[Level, ...]

    def axis_names(self, num_axes: int) -> tuple[str, ...] | None:
        """Names of the axes of its arrays."""
        return self.axes if self.axes is not None else NO_AXES.get(num_axes)

    def level(self, path: str, axes: Axes, uri: str) -> tuple[Level, Level]:
        """(level, level 0) along z, y and x."""
        for level in self.levels:
            for values in (level.scale, level.translation):
                if values is not None and len(values) != len(axes.shape):
                    raise VolumeError(
                        f"{uri} has {len(axes.shape)} axes, but its OME metadata have {len(values)} numbers for scale "
                        f"or translation: {values}."
                    )
        spatial = axes.order[-3:]
        return self.levels[self.paths.index(path)].picked(spatial), self.levels[0].picked(spatial)

    def units_of(self, axes: Axes) -> list[object]:
        """Units of z, y and x."""
        return [self.units[axis] if axis < len(self.units) else None for axis in axes.order[-3:]]


def ome_attributes(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Where OME-Zarr keeps its metadata among the attributes of a group: under "ome" since version 0.5."""
    ome = attributes.get("ome")
    return ome if isinstance(ome, Mapping) else attributes


def ome_images(attributes: Mapping[str, Any], uri: str) -> list[OmeImage]:
    """The images of a group; none if it has no multiscale metadata.

    Raises:
        VolumeError: the metadata do not have the form that OME-Zarr demands.
    """
    found = ome_attributes(attributes).get("multiscales")
    if not found:
        return []
    try:
        return [_image(image, uri) for image in found]
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, VolumeError):
            raise
        raise VolumeError(
            f"{uri}: its OME metadata (multiscales) cannot be read ({type(error).__name__}: {error})."
        ) from None


def _image(image: Mapping[str, Any], uri: str) -> OmeImage:
    if "coordinateSystems" in image and "axes" not in image:
        raise VolumeError(f"{uri} has the coordinate systems of OME-Zarr 0.6; expected OME-Zarr 0.1 to 0.5.")
    axes, units = _axes(image.get("axes"), uri)
    whole = image.get("coordinateTransformations") or []
    paths = tuple(str(level["path"]).strip("/") for level in image["datasets"])
    if not paths:
        raise VolumeError(f"{uri}: its OME metadata list no resolution level.")
    levels = tuple(
        _composed([*(level.get("coordinateTransformations") or []), *whole], uri) for level in image["datasets"]
    )
    return OmeImage(str(image.get("name") or ""), axes, units, paths, levels)


def _axes(stated: Any, uri: str) -> tuple[tuple[str, ...] | None, tuple[object, ...]]:
    """Names and units: a list of names in version 0.3, of objects since."""
    if stated is None:
        return None, ()
    objects = [{"name": axis} if isinstance(axis, str) else axis for axis in stated]
    names = tuple(str(axis["name"]).lower() for axis in objects)
    for name, axis in zip(names, objects, strict=True):
        kind = axis.get("type")
        if (name in ("z", "y", "x") and kind not in (None, "space")) or (name in ("c", "t") and kind == "space"):
            raise VolumeError(f"{uri} has an axis {name!r} of the type {kind!r}; correct its OME metadata.")
    return names, tuple(axis.get("unit") for axis in objects)


def _composed(transforms: Sequence[Mapping[str, Any]], uri: str) -> Level:
    """Scale and translation of transformations that are applied one after the other."""
    level = Level()
    for transform in transforms:
        kind = transform["type"]
        if kind == "identity":
            continue
        if kind not in ("scale", "translation") or kind not in transform:
            raise VolumeError(
                f"{uri} has a coordinate transformation of the type {kind!r}; expected scale or translation, with its "
                f"numbers."
            )
        values = tuple(float(v) for v in transform[kind])
        if kind == "scale":
            moved = level.translation and tuple(t * s for t, s in zip(level.translation, values, strict=True))
            before = level.scale or (1.0,) * len(values)
            level = Level(tuple(a * b for a, b in zip(before, values, strict=True)), moved)
        else:
            before = level.translation or (0.0,) * len(values)
            level = Level(level.scale, tuple(a + b for a, b in zip(before, values, strict=True)))
    return level
