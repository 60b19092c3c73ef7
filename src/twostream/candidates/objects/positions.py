"""From the numbers of a table to voxels of the image, and whether they can be meant so.

The unit of a number is not written in it. Nanometres that are read as voxels lie outside; voxels that are read as
nanometres, or larger voxels read as the image's, crowd in a corner. So points outside are refused, points that crowd in
the corner at voxel 0 are questioned, and both errors name the reading under which the points would fill the image, with
the option that asks for it. What the user states (``source.columns``, ``source.table_resolution_nm``) is not
questioned.

Knows numbers, units and the image's extent; must not know files or tasks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from twostream.base.errors import InputError
from twostream.candidates.objects.columns import NAME_OF, Point, Role, as_setting, columns_setting, setting
from twostream.candidates.objects.files import Table
from twostream.volume import Volume
from twostream.volume.uri import Uri

Size = tuple[float, float, float]

MANY = 20
"""Fewer points may well lie in one corner."""
FEW = 5
"""From so few points nothing is said about how they fill the image."""
CORNER = 0.1
"""Points crowd in a corner if none reaches beyond this share of any axis."""
QUADRANT = 0.35
"""Points may crowd in a corner if their bounding box from voxel 0 is at most this share of the image: half of Y and X,
as when voxels of twice the size are read as the image's, is a quarter."""
FILLED = 0.7
"""Share of each axis over which points must spread before another reading is taken for the right one."""
SPREAD = 0.3
"""The same where the points lie outside as they are read now, so that another reading is needed anyway."""
MOSTLY = 0.2
"""Share of points outside from which on the unit is doubted; below it single rows are."""
FAR_NM = 2000.0
"""The points of one synapse lie closer together: a cleft is 20 nm wide, a contact some hundred nm."""
FACTORS = (2.0, 4.0, 8.0, 16.0, 32.0, 0.5, 0.25, 0.125, 0.0625)
"""Resolutions of a pyramid, relative to the image's."""


def to_image_voxels(numbers: np.ndarray, unit_nm: Size | None, image: Volume) -> np.ndarray:
    """Positions of a table in voxels of the image.

    Args:
        numbers: (..., 3) float z, y, x.
        unit_nm: (z, y, x) nm per unit, counted in the coordinates of the data set (from ``image.offset_nm``, or from
            voxel 0 of an image that states no place); None if they are voxels of the image already.
        image: gives voxel size and place.

    Returns:
        (..., 3) float z, y, x in voxels. A position is the voxel's number times its size, as CAVE and Neuroglancer
        reckon, so that voxel i is at i.
    """
    if unit_nm is None:
        return numbers
    place = np.zeros(3) if image.offset_nm is None else np.asarray(image.offset_nm)
    # Rounded, so that a position at voxel 0 does not come out at -1e-12.
    return np.round((numbers * np.asarray(unit_nm) - place) / np.asarray(image.voxel_size_nm), 6)


def unit_of(point: Point, resolution_nm: Size | None) -> Size | None:
    """nm per unit of a point, (z, y, x); None for voxels of the image.

    Args:
        point: the columns.
        resolution_nm: (z, y, x) nm of the table's voxels, as the user states it, or None.

    Raises:
        InputError: the name of a column contradicts ``resolution_nm``.
    """
    if point.unit_nm is None:
        return resolution_nm
    unit = (point.unit_nm,) * 3
    if resolution_nm not in (None, unit):
        raise InputError(
            f"source.table_resolution_nm is {_nm(resolution_nm or unit)}, but {point} are named as nm. Leave the "
            f"option out, or, if they are voxels, also pass {columns_setting(as_setting(point))}"
        )
    return unit


def place(table: Table, point: Point, image: Volume, resolution_nm: Size | None) -> tuple[np.ndarray, str]:
    """The voxels of one point of every object.

    Args:
        table: the table.
        point: its columns.
        image: the points must lie in it.
        resolution_nm: as in ``unit_of``.

    Returns:
        (N, 3) float z, y, x in voxels of the image, and a sentence that says how they were read.

    Raises:
        InputError: a point lies outside the image, or they crowd in a corner.
    """
    numbers = point.numbers(table)
    unit = unit_of(point, resolution_nm)
    voxels = to_image_voxels(numbers, unit, image)
    _refuse_outside(table, point, numbers, voxels, unit, image)
    if not (point.is_stated or resolution_nm):
        _question_corner(table, point, numbers, voxels, unit, image)
    order = f" ({', '.join(point.order)})" if len(point.names) == 1 else ""
    return voxels, f"{NAME_OF[point.role]} from {point}{order}, in {_unit_words(unit, image)}; {_extent(voxels, image)}"


def check_distances(
    table: Table, placed: Mapping[Role, np.ndarray], points: Mapping[Role, Point], image: Volume, *, is_stated: bool
) -> list[str]:
    """Check that the points of one object lie close together, which they do not if an order or unit is wrong.

    Args:
        table: the table.
        placed: (N, 3) voxels z, y, x of each point.
        points: their columns.
        image: gives the voxel size.
        is_stated: whether the user has stated the unit, so that it is only said.

    Returns:
        Sentences that say how far apart they are.

    Raises:
        InputError: they lie more than ``FAR_NM`` apart in most objects.
    """
    lines = []
    pairs: tuple[tuple[Role, Role], ...] = (("pre", "post"), ("center", "pre"))
    for one, other in pairs:
        if one not in placed or other not in placed:
            continue
        apart = np.linalg.norm((placed[one] - placed[other]) * np.asarray(image.voxel_size_nm), axis=1)
        median = float(np.median(apart))
        said = f"{NAME_OF[one]} and {NAME_OF[other]} lie {median:.0f} nm apart (median)"
        if median > FAR_NM and not is_stated and table.num_rows >= FEW:
            line = columns_setting(as_setting(points[one]) | as_setting(points[other]))
            raise InputError(
                f"{table.path}: {said}; expected less than {FAR_NM:g} nm within one synapse. Is their order, or the "
                f"unit of one of them, another? If they are voxels of the image as they are, pass {line}"
            )
        lines.append(said + (", which is far for a synapse" if median > FAR_NM else ""))
    return lines


def _refuse_outside(
    table: Table, point: Point, numbers: np.ndarray, voxels: np.ndarray, unit: Size | None, image: Volume
) -> None:
    """Raise InputError about the first point outside the image."""
    shape = np.asarray(image.shape_zyx)
    outside = (voxels < 0) | (voxels >= shape)
    if not outside.any():
        return
    share = float(outside.any(1).mean())
    hint = ""
    if table.num_rows >= FEW and share >= MOSTLY:
        better = _better(point, numbers, unit, image, SPREAD, may_reverse=True)
        hint = f" {share:.0%} of the points lie outside. {better or _where(numbers, unit, image)}"
    place_nm = np.zeros(3) if image.offset_nm is None or unit is None else np.asarray(image.offset_nm)
    scale = np.ones(3) if unit is None else np.asarray(unit)
    low = place_nm / scale
    high = low + (shape if unit is None else shape * np.asarray(image.voxel_size_nm) / scale)
    words = "voxels" if unit is None else "nm" if unit == (1.0,) * 3 else f"voxels of {_nm(unit)} nm"
    for axis in range(3):
        name = point.names[0] if len(point.names) == 1 else point.names[axis]
        of_axis = f"{'zyx'[axis]} from " if len(point.names) == 1 else ""
        wanted = f"a position in the image, {of_axis}{low[axis]:g} to below {high[axis]:g} {words}"
        table.refuse(outside[:, axis], name, wanted, hint)


def _question_corner(
    table: Table, point: Point, numbers: np.ndarray, voxels: np.ndarray, unit: Size | None, image: Volume
) -> None:
    """Raise InputError if many points crowd in the corner at voxel 0."""
    reach = voxels.max(0) / np.asarray(image.shape_zyx)
    if table.num_rows < MANY or reach.prod() > QUADRANT:
        return
    better = _better(point, numbers, unit, image, FILLED, may_reverse=False)
    if better or reach.max() <= CORNER:
        shares = ", ".join(f"{share:.0%} of {axis}" for share, axis in zip(reach, "ZYX", strict=True))
        same = "_nm" if unit is not None else ""
        raise InputError(
            f"{table.path}: read as {_unit_words(unit, image)}, all {table.num_rows} points of {point} lie in a corner "
            f"of the image, the first {shares}. {better}{' ' * bool(better)}If they do lie there, pass "
            f"{columns_setting(as_setting(point, same))}"
        )


@dataclass(frozen=True)
class _Reading:
    """One way to read the numbers of a table: words for it, the options that ask for it, unit and order."""

    words: str
    options: str
    unit_nm: Size | None
    is_reversed: bool


def _better(
    point: Point, numbers: np.ndarray, unit: Size | None, image: Volume, spread: float, *, may_reverse: bool
) -> str:
    """A sentence that names the reading under which the points fill most of the image; "" if there is none.

    Args:
        point: the columns.
        numbers: (N, 3) float z, y, x as they stand in the table.
        unit: as they are read now.
        image: gives the extent.
        spread: share of each axis over which the points must spread.
        may_reverse: whether the axes may be in the other order.
    """
    best, largest = "", 0.0
    shape = np.asarray(image.shape_zyx)
    ends = np.stack([numbers.min(0), numbers.max(0)])
    for reading in _readings(point, unit, image, may_reverse):
        low, high = to_image_voxels(ends[:, ::-1] if reading.is_reversed else ends, reading.unit_nm, image)
        shares = (high - low) / shape
        # The first of equally good readings counts; they are in the order of how often they occur.
        if (low >= 0).all() and (high < shape).all() and shares.min() >= spread and shares.prod() > 1.05 * largest:
            largest = shares.prod()
            over = ", ".join(f"{share:.0%} of {axis}" for share, axis in zip(shares, "ZYX", strict=True))
            best = f"Read {reading.words} they would spread over {over}: {reading.options} reads them so."
    return best


def _readings(point: Point, unit: Size | None, image: Volume, may_reverse: bool) -> Iterator[_Reading]:
    """Other ways to read the numbers, the most frequent first."""
    size = image.voxel_size_nm
    units: list[tuple[str, Size | None]] = [("", unit), ("as nm", (1.0,) * 3)]
    if image.offset_nm is not None:
        units.append(("as voxels of the data set that the image is cut from", size))
    units.append(("as voxels of the image", None))
    for factor in FACTORS:
        for scaled in ((size[0], size[1] * factor, size[2] * factor), _times(size, factor)):
            units.append((f"as voxels of {_nm(scaled)} nm", scaled))
    units.append(("as µm", (1000.0,) * 3))
    for is_reversed in (False, True) if may_reverse else (False,):
        for words, other in units:
            if (other == unit) != (words == "") or (words == "" and not is_reversed):
                continue
            order = "with Z and X exchanged" * is_reversed
            yield _Reading(f"{words} {order}".strip(), _options(point, unit, other, is_reversed), other, is_reversed)


def _options(point: Point, unit: Size | None, other: Size | None, is_reversed: bool) -> str:
    """The options that read a point in another unit or order."""
    options = []
    names = point.names[::-1] if is_reversed else point.names
    if len(point.names) == 1 and is_reversed:
        options.append(setting("list_order", "xyz" if point.order == "zyx" else "zyx"))
    if (len(point.names) == 3 and is_reversed) or (other != unit and (other is None or point.unit_nm)):
        kept = "_nm" if other == unit and point.unit_nm == 1 else ""
        options.append(columns_setting(as_setting(Point(point.role, names, point.order), kept)))
    if other != unit and other is not None:
        options.append(setting("table_resolution_nm", _nm(other, ",")))
    return " ".join(options)


def _where(numbers: np.ndarray, unit: Size | None, image: Volume) -> str:
    """Where points lie that no reading brings into the image."""
    shape, voxels = np.asarray(image.shape_zyx), to_image_voxels(numbers, unit, image)
    if unit is not None and image.offset_nm is not None:
        from_first = voxels + np.asarray(image.offset_nm) / np.asarray(image.voxel_size_nm)
        if ((from_first >= 0) & (from_first < shape)).all():
            return (
                f"Counted from the first voxel of the image they would lie inside, but its place in the data set is "
                f"{_nm(image.offset_nm, ', ')} nm (Z, Y, X). Add it to them, or give voxels of the image."
            )
    low, high = voxels.min(0), voxels.max(0)
    said = ", ".join(f"{axis} {a:.0f} to {b:.0f}" for axis, a, b in zip("ZYX", low, high, strict=True))
    if ((high - low) < shape).all():
        return f"They lie at {said} voxels: is the image cut from a larger volume? Subtract its place from them."
    if part := Uri.parse(image.uri).part:
        return f"They lie at {said} voxels: are they those of the whole, of which {part} is read? Subtract its corner."
    return f"They lie at {said} voxels. Is this the table of a larger volume? Leave only the rows inside the image."


def _unit_words(unit: Size | None, image: Volume) -> str:
    if unit is None:
        return f"voxels of the image ({_nm(image.voxel_size_nm)} nm, Z × Y × X)"
    return "nm" if unit == (1.0,) * 3 else f"voxels of {_nm(unit)} nm (Z × Y × X)"


def _extent(voxels: np.ndarray, image: Volume) -> str:
    axes = zip("zyx", voxels.min(0), voxels.max(0), image.shape_zyx, strict=True)
    return "they cover " + ", ".join(f"{axis} {a:.0f} to {b:.0f} of {n}" for axis, a, b, n in axes) + " voxels"


def _nm(size: Sequence[float], between: str = " × ") -> str:
    return between.join(f"{value:g}" for value in size)


def _times(size: Size, factor: float) -> Size:
    return (size[0] * factor, size[1] * factor, size[2] * factor)
