"""One picture of an image and what lies on it: sections raw, and with the outlines of the labels.

Knows volumes and OpenCV; must not know projects.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from twostream.base.geometry import Box
from twostream.candidates.picture import draw_scale_bar, draw_text, outlines, stacked
from twostream.volume import Volume
from twostream.volume.alignment import AS_GIVEN, Reading, read_turned

WIDTH_PX = 480
"""Width of a section in the picture; a larger volume is shown in part, at its own resolution."""
SHARES = (0.2, 0.5, 0.8)
"""Sections that are shown, as shares of the labelled sections."""
HIDDEN_TINT = (220, 60, 60)
"""Colour of voxels that labels ignore."""
Cut = Callable[[Box], np.ndarray]


def look_picture(
    image: Volume, region: Box, labels: Volume | None, ignore: Volume | None, reading: Reading = AS_GIVEN
) -> np.ndarray:
    """Sections of an image, raw above and with outlines below, and one upright section (X and Z) at the right.

    Args:
        image: (Z, Y, X) uint8.
        region: what is shown: the part that labels cover, or all of the image.
        labels: (Z, Y, X) integers in the voxels of the image; None shows the raw sections alone.
        ignore: (Z, Y, X), non-zero where labels say nothing; None without.
        reading: how the axes of the labels are read.

    Returns:
        (H, W, 3) uint8 red, green, blue.
    """
    columns = []
    for share in SHARES:
        z = region.offset_zyx[0] + min(int(share * region.shape_zyx[0]), region.shape_zyx[0] - 1)
        columns.append(_column(image, _section(region, 0, z), region, labels, ignore, reading, f"section {z}"))
    y = region.offset_zyx[1] + region.shape_zyx[1] // 2
    columns.append(_column(image, _section(region, 1, y), region, labels, ignore, reading, f"row {y}"))
    height = max(column.shape[0] for column in columns)
    filled = [np.pad(c, ((0, height - c.shape[0]), (0, 0), (0, 0)), constant_values=255) for c in columns]
    return stacked(filled, 1)


def stacked_below(pictures: list[np.ndarray]) -> np.ndarray:
    """Pictures below each other, on white where one is narrower."""
    width = max(picture.shape[1] for picture in pictures)
    filled = [np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0)), constant_values=255) for p in pictures]
    return stacked(filled, 0)


def _section(region: Box, axis: int, position: int) -> Box:
    """A box of one voxel along ``axis``, at most ``WIDTH_PX`` along the others, in the middle of ``region``."""
    start, stop = list(region.offset_zyx), list(region.stop_zyx)
    for other in range(3):
        spare = region.shape_zyx[other] - WIDTH_PX
        if other != axis and spare > 0:
            start[other] += spare // 2
            stop[other] = start[other] + WIDTH_PX
    start[axis], stop[axis] = position, position + 1
    return Box.from_corners(start, stop)


def _column(
    image: Volume,
    box: Box,
    region: Box,
    labels: Volume | None,
    ignore: Volume | None,
    reading: Reading,
    title: str,
) -> np.ndarray:
    """One section: raw above, outlined below."""
    axis = box.shape_zyx.index(1)
    rows_nm, columns_nm = (image.voxel_size_nm[a] for a in range(3) if a != axis)
    enlarged = max(1, round(WIDTH_PX / box.shape_zyx[2] / 1.5)) if box.shape_zyx[2] < WIDTH_PX else 1
    rows = round(rows_nm / columns_nm * enlarged)
    grey = _flat(image.read(box), axis)
    raw = np.repeat(cv2.resize(grey, None, fx=enlarged, fy=rows)[..., None], 3, axis=-1)
    drawn = raw.copy()
    if labels is not None:
        hidden = None if ignore is None or reading != AS_GIVEN else _flat(ignore.read(box), axis) > 0
        _draw(drawn, _flat(read_turned(labels, region, box, reading), axis), hidden, (enlarged, rows))
    draw_scale_bar(drawn, columns_nm / enlarged)
    draw_text(raw, title, (6, 18))
    return stacked([raw, drawn], 0) if labels is not None else drawn


def _flat(array: np.ndarray, axis: int) -> np.ndarray:
    """A (Z, Y, X) array of one voxel along ``axis``, without that axis."""
    return np.ascontiguousarray(array.take(0, axis))


def _draw(picture: np.ndarray, labels: np.ndarray, hidden: np.ndarray | None, scale_xy: tuple[int, int]) -> None:
    """Draw outlines, each object in a colour of its own, and tint what is ignored."""
    if hidden is not None:
        size = picture.shape[1], picture.shape[0]
        where = cv2.resize(hidden.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
        picture[where] = picture[where] // 2 + np.array(HIDDEN_TINT, np.uint8) // 2
    for value in np.setdiff1d(np.unique(labels), [0]).tolist():
        corners = [np.round(points * scale_xy * 16).astype(np.int32) for points in outlines(labels == value)]
        cv2.polylines(picture, corners, True, _colour(int(value)), 1, cv2.LINE_AA, 4)  # in sixteenths of a pixel


def _colour(value: int) -> tuple[int, int, int]:
    """A bright colour that belongs to a label: neighbouring numbers get distant hues."""
    hue = np.uint8([[[(value * 111) % 180, 220, 255]]])  # type: ignore[arg-type]
    red, green, blue = (int(v) for v in cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0])
    return red, green, blue
