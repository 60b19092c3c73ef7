"""What kind of labels a volume holds, found out from its values: instances, a mask, or the two sides of synapses.

The same numbers mean different things in different files. A mask read as instances makes one object of all; labels that
were smoothed or saved as JPEG hold objects that nobody drew. So the kind is found out once, said, kept in the settings,
and refused where it makes no sense.

Knows volumes and values; must not know projects.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cc3d
import numpy as np

from twostream.base.errors import InputError
from twostream.base.geometry import Box, grid
from twostream.task import Task
from twostream.volume import Volume

LabelKind = Literal["instances", "mask", "sides", "points"]
"""instances: one value for each object, in the task's convention; mask: all objects have one value, and connected
pieces are the objects; sides: 1 presynaptic and 2 postsynaptic, and pieces that touch are one synapse; points: a table
of points on both sides."""
KINDS: tuple[LabelKind, ...] = ("instances", "mask", "sides", "points")
SLAB_SECTIONS = 16
MANY_PIECES = 4.0
"""Separate pieces per value from which a few values are classes and not instances; a section that is missing or shifted
divides an instance in two or three."""
FEW_VALUES = 20
"""Classes are few; with more values than this, separate pieces are not counted."""
MAX_COUNTED_VOXELS = 1 << 28
"""Pieces are counted in a part of larger volumes: the count needs memory, and a part tells the kind as well."""
MAX_CLIMBING = 0.2
"""Share of borders at which values climb in steps from which labels were smoothed. Drawn labels have below 0.02."""
MIN_BORDERS = 50
MOSTLY = 0.5
"""Share of all voxels above which one value may be the background."""
WHOLE_SECTION = 0.98
"""Share of a section above which one instance fills it."""


@dataclass(frozen=True)
class LabelScan:
    """What a label volume holds.

    Attributes:
        num_voxels: {value: number of voxels}, without 0 and the ignored value.
        num_background: voxels that are 0.
        num_ignored: voxels with the ignored value.
        extent: bounding box of the foreground in voxels of the volume; None without any.
        climbing: share of the borders between values at which a value in between lies: near 0 in labels that were
            drawn, near 1 in labels that were smoothed; 0 where there are too few borders to say.
        whole_sections: {value: number of sections that it fills}.
        pieces_per_value: separate pieces per value; None where there is one value or more than ``FEW_VALUES``.
    """

    num_voxels: dict[int, int]
    num_background: int
    num_ignored: int
    extent: Box | None
    climbing: float
    whole_sections: dict[int, int]
    pieces_per_value: float | None


def scan_labels(volume: Volume, box: Box, ignore_value: int | None = None) -> LabelScan:
    """Look at every label of ``box`` once.

    Args:
        volume: (Z, Y, X) integers or booleans.
        box: the part that holds labels.
        ignore_value: value of voxels that count neither as object nor as background.
    """
    counts: dict[int, int] = {}
    whole: dict[int, int] = {}
    extent: Box | None = None
    borders = climbs = 0
    for block in grid(box, (SLAB_SECTIONS, *box.shape_zyx[1:])):
        array = _integers(volume.read(block.write_box))
        values, number = np.unique(array, return_counts=True)
        for value, n in zip(values.tolist(), number.tolist(), strict=True):
            counts[value] = counts.get(value, 0) + n
        for value in values[number >= WHOLE_SECTION * array[0].size].tolist():
            filled = ((array == value).mean((1, 2)) >= WHOLE_SECTION).sum()
            whole[value] = whole.get(value, 0) + int(filled)
        found = _borders(array, ignore_value)
        borders, climbs = borders + found[0], climbs + found[1]
        part = _extent(array, ignore_value, block.write_box)
        extent = part if extent is None or part is None else extent.hull(part)
    background, ignored = counts.pop(0, 0), counts.pop(ignore_value, 0) if ignore_value is not None else 0
    return LabelScan(
        num_voxels=counts,
        num_background=background,
        num_ignored=ignored,
        extent=extent,
        climbing=climbs / borders if borders >= MIN_BORDERS else 0.0,
        whole_sections={value: n for value, n in whole.items() if n and value in counts},
        pieces_per_value=_pieces_per_value(volume, extent, ignore_value) if 1 < len(counts) <= FEW_VALUES else None,
    )


def kind_of(scan: LabelScan, task: Task, uri: str, option: str = "--labels-kind instances") -> LabelKind:
    """The kind of labels that a scan shows.

    Args:
        scan: of the labels.
        task: gives the label convention.
        uri: of the labels, for errors.
        option: by which a user states that they are instances, for errors.

    Raises:
        InputError: there is no foreground; no voxel is background; the labels were smoothed, resampled or compressed;
            or they are classes instead of instances.
    """
    values = scan.num_voxels
    if not values:
        raise InputError(
            f"{uri} holds no object, only 0; there is nothing to learn from or to ask about. Pass labels with objects."
        )
    if task.num_sides == 2 and set(values) == {1, 2}:
        return "sides"
    if len(values) > 1 or task.num_sides == 2 or min(values) < 0:
        task.check_values(set(values), uri)
    if scan.climbing > MAX_CLIMBING:
        raise InputError(
            f"{uri} does not hold labels as they were drawn: at {scan.climbing:.0%} of the borders between two values "
            f"lies a value in between. They were smoothed, resampled with interpolation, or saved as JPEG. Export them "
            f"again without (for resampling: nearest neighbour); if they are right, pass {option}."
        )
    if scan.num_background == 0:
        common = max(values, key=lambda value: values[value])
        raise InputError(
            f"{uri} has no voxel that is 0; expected 0 for background and unlabelled voxels. Its most common value is "
            f"{common}: set it to 0 if it means background, or pass --ignore-value {common} if it means unlabelled. If "
            f"every voxel belongs to an object, pass {option}."
        )
    if len(values) == 1:
        return "mask"
    if scan.pieces_per_value is not None and scan.pieces_per_value >= MANY_PIECES:
        raise InputError(
            f"{uri} holds the values {', '.join(map(str, sorted(values)))}, each in about "
            f"{scan.pieces_per_value:.0f} separate pieces; these look like classes, or like a mask saved as JPEG, not "
            f"like instances. Save the class of {task.name} as a mask, 1 inside and 0 outside; if one value marks "
            f"unlabelled voxels, pass --ignore-value; if they are instances, pass {option}."
        )
    return "instances"


def questions(scan: LabelScan, uri: str) -> list[str]:
    """What looks unusual but may be right, as sentences."""
    most = max(scan.num_voxels, key=lambda value: scan.num_voxels[value])
    share = scan.num_voxels[most] / (sum(scan.num_voxels.values()) + scan.num_background + scan.num_ignored)
    inverted = [
        f"label {most} of {uri} covers {share:.0%} of it. If it is the background, and 0 marks the objects, the labels "
        f"are inverted: exchange the two."
    ]
    return (inverted if share > MOSTLY else []) + [
        f"label {value} of {uri} fills {n} whole section{'s' * (n > 1)}. If it marks unlabelled voxels, pass "
        f"--ignore-value {value}."
        for value, n in sorted(scan.whole_sections.items())
    ]


def _integers(array: np.ndarray) -> np.ndarray:
    return array.view(np.uint8) if array.dtype == bool else array


def _extent(array: np.ndarray, ignore_value: int | None, box: Box) -> Box | None:
    """Bounding box of the foreground of ``array``, which covers ``box``; None without any."""
    inside = array > 0
    if ignore_value is not None:
        inside &= array != ignore_value
    spans = [np.flatnonzero(inside.any(tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    if any(len(span) == 0 for span in spans):
        return None
    part = Box.from_corners([int(s[0]) for s in spans], [int(s[-1]) + 1 for s in spans])
    return part.shifted(box.offset_zyx)


def _borders(array: np.ndarray, ignore_value: int | None) -> tuple[int, int]:
    """Triples of pixels along X and Y whose ends differ around a changing middle, and those that climb in steps."""
    borders = climbs = 0
    for axis in (1, 2):
        moved = np.moveaxis(array, axis, 0)
        if len(moved) < 3:
            continue
        a, b, c = moved[:-2], moved[1:-1], moved[2:]
        counted = (a != b) | (b != c)
        if ignore_value is not None:
            counted &= (a != ignore_value) & (b != ignore_value) & (c != ignore_value)
        a, b, c = a[counted], b[counted], c[counted]
        borders += a.size
        climbs += int((((a < b) & (b < c)) | ((a > b) & (b > c))).sum())
    return borders, 2 * climbs  # a sharp border is met by two triples, a step by one of them or both


def _pieces_per_value(volume: Volume, extent: Box | None, ignore_value: int | None) -> float | None:
    """Separate pieces per value in ``extent``, or in its middle if it is very large."""
    if extent is None:
        return None
    part = extent
    while part.num_voxels > MAX_COUNTED_VOXELS:
        shape = part.shape_zyx
        longest = shape.index(max(shape))
        part = part.grown([-(shape[axis] // 4) if axis == longest else 0 for axis in range(3)])
    array = _integers(volume.read(part))
    if ignore_value is not None:
        array = np.where(array == ignore_value, 0, array)
    values = np.unique(array)
    compact = np.searchsorted(values, array).astype(np.uint16) + np.uint16(values[0] != 0)
    _, number = cc3d.connected_components(compact, connectivity=26, return_N=True, out_dtype=np.uint32)
    return float(number) / max(1, int((values > 0).sum()))
