"""Patches and masks as text that stands inside an HTML page: PNGs as data URIs, mask outlines as SVG paths.

Knows numpy and how a patch is drawn; must not know projects, queries or files.
"""

from __future__ import annotations

import base64

import numpy as np

from twostream.candidates.picture import outlines, png

SHEET_GAP = 4
"""Pixels between the patches of a sheet."""


def patch_uri(image: np.ndarray) -> str:
    """A patch as the data URI of a PNG.

    Args:
        image: (H, W) uint8 grey values, or (H, W, 4) uint8 with opacity last.
    """
    return "data:image/png;base64," + base64.b64encode(png(image)).decode()


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
    parts = ("M" + "L".join(f"{x:.2f} {y:.2f}" for x, y in corners) + "Z" for corners in outlines(mask))
    return "".join(parts)
