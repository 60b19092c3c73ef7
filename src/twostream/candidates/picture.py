"""Pictures for a person: the patch of a candidate, raw and with the outline of its mask; and all sections of a box.

Knows patches and OpenCV; must not know volumes, projects or pages.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from twostream.base.geometry import Box
from twostream.candidates.patches import PatchPair

MIN_TILE_PX = 256
"""Every plane of a patch is enlarged to at least this width, so that a person can judge it."""
MAX_SECTIONS_PX = 32_000_000
"""Pixels of all sections of a box together; larger boxes are shown smaller, so that a browser can open the picture."""
MAX_ROW_PX = 1600
"""A row of sections is no wider, unless one section is."""
GAP_PX = 4
COLOURS = {"pre": "#ff9f1c", "post": "#35a7ff", "single": "#ffd23f"}
"""Colour of the outline of a presynaptic side, a postsynaptic side, and a mask without sides. The report's style sheet
has the same ones."""
ROUND_NM = (5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
"""Lengths that a scale bar may have."""
_OUTLINE_SCALE = 4
"""Masks are enlarged this many times before they are outlined, so that the outline runs along the pixels' edges."""


def png(image: np.ndarray) -> bytes:
    """An image as the bytes of a PNG.

    Args:
        image: (H, W) uint8 grey values, (H, W, 3) uint8 red, green, blue, or (H, W, 4) uint8 with opacity last.
    """
    if image.ndim == 3:
        image = image[..., [2, 1, 0, *range(3, image.shape[-1])]]  # OpenCV's order is blue, green, red
    _, packed = cv2.imencode(".png", np.ascontiguousarray(image))
    return bytes(packed.tobytes())


def outlines(mask: np.ndarray) -> list[np.ndarray]:
    """Outlines of a mask along its pixels' edges.

    Args:
        mask: (H, W) bool.

    Returns:
        One (N, 2) float array of corners x, y for each outline, in pixels; pixel i reaches from i to i + 1.
    """
    large = mask.astype(np.uint8).repeat(_OUTLINE_SCALE, 0).repeat(_OUTLINE_SCALE, 1)
    contours, _ = cv2.findContours(large, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    # OpenCV walks through the centres of the border's pixels, half an (enlarged) pixel inside the edge.
    return [(contour[:, 0] + 0.5) / _OUTLINE_SCALE for contour in contours]


def candidate_picture(patch: PatchPair, pixel_nm: float, num_sides: int) -> np.ndarray:
    """The planes of a patch side by side: raw above, with the mask's outline and a scale bar below.

    Args:
        patch: the aligned pair.
        pixel_nm: size of a patch pixel in nm.
        num_sides: sides of the task; with two, each has its own colour.

    Returns:
        (H, W, 3) uint8 red, green, blue.
    """
    enlarged = -(-MIN_TILE_PX // patch.image.shape[-1])
    raw = [_enlarged(plane, enlarged) for plane in patch.image]
    drawn = [_outlined(tile, mask, enlarged, num_sides) for tile, mask in zip(raw, patch.mask, strict=True)]
    draw_scale_bar(drawn[-1], pixel_nm / enlarged)
    return stacked([stacked(raw, 1), stacked(drawn, 1)], 0)


def sections_picture(
    grey: np.ndarray, objects: Sequence[tuple[Box, np.ndarray]], first: int, pixel_nm: float, num_sides: int
) -> tuple[np.ndarray, float]:
    """All sections of a box in rows, each with its number and the outlines of objects, and a scale bar on the last.

    Args:
        grey: (Z, Y, X) uint8.
        objects: boxes in voxels of ``grey``, which may reach beyond it, and masks as of candidates.
        first: number of the first section.
        pixel_nm: size of a voxel in plane, in nm.
        num_sides: as in ``candidate_picture``.

    Returns:
        (H, W, 3) uint8 red, green, blue; and how many pixels of the picture a voxel is wide.
    """
    times = min(max(1.0, -(-MIN_TILE_PX // grey.shape[2])), np.sqrt(MAX_SECTIONS_PX / grey.size))
    tiles = [_enlarged(plane, times) for plane in grey]
    for box, mask in objects:
        common = box.intersection(Box.whole(grey.shape))
        shown = mask[common.relative_to(box).slices]
        place = common.offset_zyx[2] * times, common.offset_zyx[1] * times
        for z, section in enumerate(np.where(shown == 2, -1, shown > 0), start=common.offset_zyx[0]):
            _draw_outlines(tiles[z], section, times, num_sides, place)
    for z, tile in enumerate(tiles, start=first):
        draw_text(tile, f"z {z}", (6, 18))
    draw_scale_bar(tiles[-1], pixel_nm / times)
    in_a_row = max(1, min(int(np.ceil(np.sqrt(len(tiles)))), MAX_ROW_PX // tiles[0].shape[1]))
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % in_a_row)
    rows = [stacked(tiles[i : i + in_a_row], 1) for i in range(0, len(tiles), in_a_row)]
    return stacked(rows, 0), float(times)


def _enlarged(plane: np.ndarray, times: float) -> np.ndarray:
    """An (H, W) uint8 plane, ``times`` as wide and high, as (H, W, 3) grey."""
    size = [max(1, round(length * times)) for length in plane.shape[::-1]]
    how = cv2.INTER_CUBIC if times >= 1 else cv2.INTER_AREA
    large = cv2.resize(np.ascontiguousarray(plane), size, interpolation=how)
    return np.repeat(large[..., None], 3, axis=-1)


def _outlined(tile: np.ndarray, mask: np.ndarray, times: float, num_sides: int) -> np.ndarray:
    """A copy of an (H, W, 3) tile with the outlines of its mask, (W, W) int8 as in ``PatchPair``."""
    result = tile.copy()
    _draw_outlines(result, mask, times, num_sides)
    return result


def _draw_outlines(
    tile: np.ndarray, mask: np.ndarray, times: float, num_sides: int, left_top: tuple[float, float] = (0.0, 0.0)
) -> None:
    """Draw the outlines of a mask, (H, W) with signs as in ``PatchPair``, into a tile, from a place (x, y) on."""
    inside, outside = ("pre", "post") if num_sides == 2 else ("single", "single")
    for side, name in ((mask > 0, inside), (mask < 0, outside)):
        corners = [np.round((points * times + left_top) * 16).astype(np.int32) for points in outlines(side)]
        cv2.polylines(tile, corners, True, _rgb(COLOURS[name]), 2, cv2.LINE_AA, 4)  # 4: in sixteenths of a pixel


def draw_scale_bar(tile: np.ndarray, pixel_nm: float) -> None:
    """Draw a bar of a round length, with its length in nm, into the lower right corner of an (H, W, 3) tile."""
    height, width = tile.shape[:2]
    fitting = [length for length in ROUND_NM if length <= 0.4 * width * pixel_nm]
    length = fitting[-1] if fitting else ROUND_NM[0]
    right, low = width - 10, height - 10
    left = right - max(1, round(length / pixel_nm))
    text = f"{length} nm"
    for colour, rim in (((0, 0, 0), 2), ((255, 255, 255), 0)):  # white on a black rim
        cv2.rectangle(tile, (left - rim, low - 4 - rim), (right + rim, low + rim), colour, cv2.FILLED)
    draw_text(tile, text, (left, low - 10))


def draw_text(tile: np.ndarray, text: str, left_low: tuple[int, int]) -> None:
    """Write white text on a black rim into an (H, W, 3) tile, beginning at (x, y) of its lower left corner."""
    # The rim is the text itself, moved: of thicker strokes letters are wider in some versions of OpenCV.
    moved = [(dx, dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1) if dx or dy]
    for (dx, dy), colour in [*((d, (0, 0, 0)) for d in moved), ((0, 0), (255, 255, 255))]:
        place = left_low[0] + dx, left_low[1] + dy
        cv2.putText(tile, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, 1, cv2.LINE_AA)


def stacked(tiles: Sequence[np.ndarray], axis: int) -> np.ndarray:
    """Tiles beside (axis 1) or below (axis 0) each other, with a white gap between them."""
    shape = list(tiles[0].shape)
    shape[axis] = GAP_PX
    gap = np.full(shape, 255, np.uint8)
    parts = [part for tile in tiles for part in (gap, tile)][1:]
    return np.concatenate(parts, axis)


def _rgb(colour: str) -> tuple[int, int, int]:
    """Red, green and blue of ``#rrggbb``."""
    red, green, blue = bytes.fromhex(colour.lstrip("#"))
    return red, green, blue
