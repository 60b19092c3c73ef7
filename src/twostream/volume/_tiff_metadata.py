"""What TIFF files say of their axes, voxel size and place: as OME-TIFF, as ImageJ writes it, or as tifffile does.

    OME       PhysicalSizeX, Y, Z with units (µm where none is stated); the place in an annotation of our own files
    ImageJ    spacing, unit (yunit, zunit) and the resolution tags; the origin, which ImageJ states in pixels
    tifffile  axes, and the attributes of other formats (``attributes.py``) as JSON
    others    nothing: a resolution in dots per inch is no voxel size

Knows tifffile's series; must not know how voxels are read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

from twostream.base.errors import VolumeError
from twostream.volume.attributes import Attributes
from twostream.volume.axes import Axes
from twostream.volume.units import nm_per_unit
from twostream.volume.volume import VoxelSize

NAMESPACE = "twostream/place"
"""Of the annotation in which our own OME-TIFF files state their place, which OME has no field for."""
UNNAMED = ("i", "q", "o")
"""tifffile's letters for axes that the file does not name."""


@dataclass
class Stated:
    """What a file states.

    Attributes:
        size: (z, y, x) nm, or None.
        size_from: where it stands.
        why: why there is no size, if something was stated.
        offset: (z, y, x) nm of the corner of the first voxel, or None.
        offset_from: where it stands.
        notes: as in ``Metadata``.
    """

    size: VoxelSize | None = None
    size_from: str = ""
    why: str = ""
    offset: VoxelSize | None = None
    offset_from: str = ""
    notes: list[str] = field(default_factory=list)


def axes_of(series: Any, uri: str) -> tuple[Axes, list[str]]:
    """(axes of a series, notes); the last two axes are those of a page."""
    shape, letters = list(series.get_shape(False)), list(series.get_axes(False).lower())
    if letters[-1] == "s":
        shape, letters = shape[:-1], letters[:-1]
    notes: list[str] = []
    length = dict(zip(letters, shape, strict=True))
    unnamed = [name for name in letters if name in UNNAMED]
    if "z" not in length and len(unnamed) == 1:
        letters[letters.index(unnamed[0])] = "z"
    elif "z" not in length and "t" in length and not unnamed and set(letters) <= set("tyx"):
        letters[letters.index("t")] = "z"
        notes.append("the file calls its sections time points (t); they are read as z")
    elif length.get("z") == 1 and length.get("t", 1) > 1 and length.get("c", 1) == 1:
        z, t = letters.index("z"), letters.index("t")
        letters[z], letters[t] = "t", "z"
        notes.append("the file calls its sections time points (t); they are read as z")
    elif "z" not in length and not unnamed:
        shape, letters = [1, *shape], ["z", *letters]
    # OME and ImageJ always name t and c; those of length one are none of the volume's.
    kept = [i for i, name in enumerate(letters) if name not in "tc" or shape[i] > 1]
    shape, letters = [shape[i] for i in kept], [letters[i] for i in kept]
    named = not unnamed and series.kind in ("ome", "imagej", "shaped")
    axes = Axes.understand(shape, letters, uri)
    return Axes(axes.names, axes.order, axes.shape, named), notes


def stated(tif: Any, series: Any, number: int, axes: Axes, uri: str) -> Stated:
    """Voxel size and place of a series.

    Raises:
        VolumeError: what is stated cannot be understood.
    """
    if series.kind == "ome" and tif.ome_metadata:
        return _ome(tif.ome_metadata, number, uri)
    if tif.imagej_metadata is not None:
        return _imagej(tif.imagej_metadata, tif.pages[0])
    shaped = _json(tif.pages[0].description)
    if shaped is not None:
        found = Attributes([shaped], uri)
        size = found.voxel_size(axes)
        result = Stated(size and size[0], f"ImageDescription, {size[1]}" if size else "")
        offset = found.offset(axes, size[0]) if size else None
        if offset:
            result.offset, result.offset_from = offset[0], f"ImageDescription, {offset[1]}"
        return result
    return Stated()


def _json(description: str) -> dict[str, Any] | None:
    if not description.startswith("{"):
        return None
    try:
        found = json.loads(description)
    except json.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def _ome(text: str, number: int, uri: str) -> Stated:
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise VolumeError(f"{uri}: its OME metadata are no XML ({error}). Write the file again.") from None
    images = root.findall("{*}Image")
    if number >= len(images) or (pixels := images[number].find("{*}Pixels")) is None:
        raise VolumeError(f"{uri}: its OME metadata do not describe image {number}. Write the file again.")
    result = Stated()
    size = {axis: _length(pixels, f"PhysicalSize{axis}", uri) for axis in "ZYX"}
    known = [value for value in size.values() if value is not None]
    if len(known) == 3:
        result.size, result.size_from = (known[0], known[1], known[2]), "OME metadata, PhysicalSize"
    elif known:
        missing = ", ".join(f"PhysicalSize{axis}" for axis, value in size.items() if value is None)
        result.why = f"its OME metadata lack {missing}"
    place = _ome_place(root)
    if place:
        result.offset, result.offset_from = place, f"OME annotation {NAMESPACE}"
    elif any("PositionX" in plane.attrib for plane in pixels.findall("{*}Plane")):
        result.notes.append("its OME metadata state the position of the microscope's stage, which is not taken as its place")
    return result


def _length(pixels: ElementTree.Element, key: str, uri: str) -> float | None:
    """An attribute of ``Pixels`` in nm; None if it is not there."""
    text = pixels.get(key)
    if text is None:
        return None
    unit = pixels.get(f"{key}Unit", "µm")
    nm = nm_per_unit(unit)
    if nm is None:
        raise VolumeError(f"{uri}: {key}Unit is {unit!r} in its OME metadata; expected a unit of length, such as nm.")
    try:
        return rounded(float(text) * nm)
    except ValueError:
        raise VolumeError(f"{uri}: {key} is {text!r} in its OME metadata; expected a number.") from None


def _ome_place(root: ElementTree.Element) -> VoxelSize | None:
    for annotation in root.findall("{*}StructuredAnnotations/{*}MapAnnotation"):
        if annotation.get("Namespace") == NAMESPACE:
            found = {m.get("K"): float(m.text or "nan") for m in annotation.findall("{*}Value/{*}M")}
            return found["offset_nm_z"], found["offset_nm_y"], found["offset_nm_x"]
    return None


def _imagej(metadata: Mapping[str, Any], page: Any) -> Stated:
    result = Stated()
    unit = metadata.get("unit")
    units = {"X": unit, "Y": metadata.get("yunit", unit), "Z": metadata.get("zunit", unit)}
    nm = {axis: nm_per_unit(word) for axis, word in units.items()}
    per_pixel = {"Z": metadata.get("spacing"), "Y": _resolution(page, "YResolution"), "X": _resolution(page, "XResolution")}
    if isinstance(per_pixel["Z"], (int, float)) and per_pixel["Z"] < 0:
        per_pixel["Z"] = -per_pixel["Z"]
        result.notes.append("ImageJ states a negative spacing; it is read as positive")
    if any(value is None for value in nm.values()):
        result.why = f"ImageJ's metadata give no unit of length (unit is {unit!r})"
        return result
    missing = [name for name, axis in (("spacing", "Z"), ("YResolution", "Y"), ("XResolution", "X")) if not per_pixel[axis]]
    if missing:
        result.why = f"ImageJ's metadata lack {', '.join(missing)}"
        return result
    z, y, x = (rounded(float(per_pixel[axis] or 0) * float(nm[axis] or 0)) for axis in "ZYX")
    result.size, result.size_from = (z, y, x), "ImageJ metadata, spacing, unit and resolution tags"
    origin = [metadata.get(f"{axis}origin") for axis in "zyx"]
    if any(value not in (None, 0) for value in origin):
        oz, oy, ox = (-float(value or 0) * size for value, size in zip(origin, (z, y, x), strict=True))
        result.offset, result.offset_from = (oz, oy, ox), "ImageJ metadata, origin"
    return result


def _resolution(page: Any, name: str) -> float | None:
    """Units in one pixel, by a resolution tag; None without one."""
    tag = page.tags.get(name)
    try:
        numerator, denominator = tag.value if tag else (0, 1)
    except (TypeError, ValueError):
        return None
    return denominator / numerator if numerator else None


def rounded(value: float) -> float:
    """``value`` without the digits that a 32-bit rational or float adds."""
    return float(f"{value:.7g}")
