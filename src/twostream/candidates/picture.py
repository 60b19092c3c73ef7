"""Pictures of a candidate for a person: its patch enlarged, raw and with the outline of its mask, and a scale bar.

Knows patches and OpenCV; must not know volumes, projects or pages.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from twostream.candidates.patches import PatchPair

MIN_TILE_PX = 256
"""Every plane of a patch is enlarged to at least this width, so that a person can judge it."""
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


def _enlarged(plane: np.ndarray, times: int) -> np.ndarray:
    """A (W, W) uint8 plane, ``times`` as wide, as (H, W, 3) grey."""
    side = plane.shape[0] * times
    large = cv2.resize(np.ascontiguousarray(plane), (side, side), interpolation=cv2.INTER_CUBIC)
    return np.repeat(large[..., None], 3, axis=-1)


def _outlined(tile: np.ndarray, mask: np.ndarray, times: int, num_sides: int) -> np.ndarray:
    """A copy of an (H, W, 3) tile with the outlines of its mask, (W, W) int8 as in ``PatchPair``."""
    result = tile.copy()
    inside, outside = ("pre", "post") if num_sides == 2 else ("single", "single")
    for side, name in ((mask > 0, inside), (mask < 0, outside)):
        corners = [np.round(points * times * 16).astype(np.int32) for points in outlines(side)]
        cv2.polylines(result, corners, True, _rgb(COLOURS[name]), 2, cv2.LINE_AA, 4)  # 4: in sixteenths of a pixel
    return result


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
