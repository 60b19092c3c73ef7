"""Patches and masks as text that stands inside an HTML page: PNGs as data URIs, mask outlines as SVG paths.

Knows numpy and OpenCV; must not know projects, queries or files.
"""

from __future__ import annotations

import base64

import cv2
import numpy as np

SHEET_GAP = 4
"""Pixels between the patches of a sheet."""
_OUTLINE_SCALE = 4
"""Masks are enlarged this many times before they are outlined, so that the outline runs along the pixels' edges."""


def patch_uri(image: np.ndarray) -> str:
    """A patch as the data URI of a PNG.

    Args:
        image: (H, W) uint8 grey values, or (H, W, 4) uint8 with opacity last.
    """
    _, packed = cv2.imencode(".png", np.ascontiguousarray(image))
    return "data:image/png;base64," + base64.b64encode(packed.tobytes()).decode()


def sheet_uri(patches: np.ndarray) -> str:
    """Patches side by side as the data URI of one PNG; the gaps between them are transparent.

    Args:
        patches: (rows, columns, H, W) uint8 grey values.
    """
    rows, columns, height, width = patches.shape
    sheet = np.zeros((rows * (height + SHEET_GAP) - SHEET_GAP, columns * (width + SHEET_GAP) - SHEET_GAP, 2), np.uint8)
    for row, column in np.ndindex(rows, columns):
        y, x = row * (height + SHEET_GAP), column * (width + SHEET_GAP)
        sheet[y : y + height, x : x + width, 0] = patches[row, column]
        sheet[y : y + height, x : x + width, 1] = 255
    grey, opacity = sheet[..., 0], sheet[..., 1]
    return patch_uri(np.stack([grey, grey, grey, opacity], axis=-1))


def mask_path(mask: np.ndarray) -> str:
    """The outline of a mask along its pixels' edges, as the ``d`` attribute of an SVG path, in pixels.

    Args:
        mask: (H, W) bool.

    Returns:
        The path; "" for an empty mask.
    """
    large = np.kron(mask.astype(np.uint8), np.ones((_OUTLINE_SCALE, _OUTLINE_SCALE), np.uint8))
    contours, _ = cv2.findContours(large, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    parts = []
    for contour in contours:
        # OpenCV walks through the centres of the border's pixels, half an (enlarged) pixel inside the edge.
        corners = (contour[:, 0] + 0.5) / _OUTLINE_SCALE
        parts.append("M" + "L".join(f"{x:.2f} {y:.2f}" for x, y in corners) + "Z")
    return "".join(parts)
