"""Moving a crop's image and target together: turns, one resampling in plane, shifted sections.

Knows arrays and their geometry; must not know how often a variation happens. Sections are thick and cut one by one,
so nothing is ever interpolated across them. Levels of a target are copied, never mixed: nearest neighbour.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from twostream.task import IGNORE


def draw_turn(shape_yx: tuple[int, ...], rng: np.random.Generator) -> tuple[tuple[int, ...], bool]:
    """Axes to flip and whether to turn by a quarter: together every pose of a square section, all equally often."""
    flips = tuple(axis for axis in (-3, -2, -1) if rng.random() < 0.5)
    quarter_turn = bool(rng.random() < 0.5)
    # The shape must stay, or crops no longer fit into one batch.
    return flips, quarter_turn and shape_yx[0] == shape_yx[1]


def turn(array: np.ndarray, flips: tuple[int, ...], quarter_turn: bool) -> np.ndarray:
    """A turned copy, lossless.

    Args:
        array: (..., Z, Y, X).
        flips: axes from the end, as -1 is X.
        quarter_turn: from Y to X, before the flips.

    Returns:
        C-contiguous, same type.
    """
    turned = np.rot90(array, axes=(-2, -1)) if quarter_turn else array
    return np.array(np.flip(turned, flips), order="C")


def draw_factors(factor_range: tuple[float, float], rng: np.random.Generator) -> tuple[float, float]:
    """Magnification along Y and along X: apart, as the knife compresses one direction; log-uniform, so that
    shrinking is as frequent as growing by the same factor."""
    low, high = (math.log(f) for f in factor_range)
    return math.exp(rng.uniform(low, high)), math.exp(rng.uniform(low, high))


def draw_elastic(
    shape_yx: tuple[int, ...], sigma_px: float, alpha_px: float, rng: np.random.Generator
) -> np.ndarray | None:
    """A smooth random displacement.

    Args:
        shape_yx: of a section.
        sigma_px: of the Gaussian that smooths white noise.
        alpha_px: no displacement is longer.

    Returns:
        (2, Y, X) float32, pixels along Y and along X; None if nothing may be displaced.
    """
    if alpha_px == 0:
        return None
    # Drawn on a grid as coarse as the smoothness allows, with a rim, so that the edge is as smooth as the centre.
    step = max(1, int(sigma_px / 3))
    sigma = sigma_px / step
    rim = math.ceil(3 * sigma)
    num_y, num_x = (math.ceil(n / step) + 1 for n in shape_yx)
    noise = rng.standard_normal((2, num_y + 2 * rim, num_x + 2 * rim), dtype=np.float32)
    # Smoothing divides the deviation of white noise by 2 sqrt(pi) sigma. A third of alpha is the deviation wanted:
    # what is then cut off is rare, and the bend does not depend on the size of the crop.
    gain = max(1.0, 2 * math.sqrt(math.pi) * sigma) * alpha_px / 3
    at_yx = np.meshgrid(*(np.arange(n, dtype=np.float32) / step + rim for n in shape_yx), indexing="ij")
    field = np.stack(
        [cv2.remap(gain * cv2.GaussianBlur(n, (0, 0), sigma), at_yx[1], at_yx[0], cv2.INTER_LINEAR) for n in noise]
    )
    length = np.sqrt((field**2).sum(0))
    return field * (alpha_px / np.maximum(length, alpha_px))


def source_map(
    shape_yx: tuple[int, ...], angle: float, factors: tuple[float, float], elastic: np.ndarray | None
) -> np.ndarray:
    """Where each pixel of the result comes from: magnified, rotated about the centre, then displaced.

    Args:
        shape_yx: of a section.
        angle: radians, from Y to X.
        factors: magnification along Y and X.
        elastic: (2, Y, X) float32, pixels, or None.

    Returns:
        (2, Y, X) float32, pixels along Y and along X; beyond [0, n - 1] where it comes from outside.
    """
    centre_y, centre_x = ((n - 1) / 2 for n in shape_yx)
    y, x = np.ogrid[: shape_yx[0], : shape_yx[1]]
    y, x = (y - centre_y).astype(np.float32), (x - centre_x).astype(np.float32)
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    source = np.stack(
        [
            (cos * y + sin * x) / np.float32(factors[0]) + np.float32(centre_y),
            (cos * x - sin * y) / np.float32(factors[1]) + np.float32(centre_x),
        ]
    )
    return source if elastic is None else source + elastic


def resample(image: np.ndarray, target: np.ndarray, source: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every section through one map, so that what continues from section to section still does.

    Args:
        image: (Z, Y, X) float32.
        target: (C, Z, Y, X) uint8.
        source: (2, Y, X) float32, see ``source_map``.

    Returns:
        Image (linear, mirrored outside) and target (nearest, ``IGNORE`` outside), same shapes.
    """
    y, x = source
    moved_image, moved_target = np.empty_like(image), np.empty_like(target)
    for section, moved in zip(image, moved_image, strict=True):
        moved[...] = cv2.remap(section, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    shape_yx = image.shape[1:]
    flat = zip(target.reshape(-1, *shape_yx), moved_target.reshape(-1, *shape_yx), strict=True)
    for section, moved in flat:
        moved[...] = cv2.remap(section, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=IGNORE)
    return moved_image, moved_target


def misalign(
    image: np.ndarray, target: np.ndarray, max_shift_px: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Shift one section against the rest (a slip), or all sections from one on (a jump of the alignment).

    Labels are drawn on the sections as they lie, so they move along.

    Args:
        image: (Z, Y, X) float32; of a single section nothing can be shifted against anything.
        target: (C, Z, Y, X) uint8.
        max_shift_px: along Y and along X.

    Returns:
        Image (mirrored in the freed margin) and target (``IGNORE`` there), same shapes.
    """
    reach = min(max_shift_px, min(image.shape[1:]) - 1)
    if len(image) < 2 or reach < 1:
        return image, target
    side = 2 * reach + 1
    number = int(rng.integers(side * side - 1))
    number += number >= side * side // 2  # leaves out the shift by nothing, which is in the middle
    shift_yx = number // side - reach, number % side - reach
    if rng.random() < 0.5:
        first = int(rng.integers(len(image)))
        sections = slice(first, first + 1)
    else:
        sections = slice(int(rng.integers(1, len(image))), None)
    image, target = image.copy(), target.copy()
    image[sections] = _shifted(image[sections], shift_yx, mode="reflect")
    target[:, sections] = _shifted(target[:, sections], shift_yx, mode="constant", constant_values=IGNORE)
    return image, target


def _shifted(array: np.ndarray, shift_yx: tuple[int, int], **margin: object) -> np.ndarray:
    """(..., Y, X) moved by whole pixels; ``margin`` tells ``numpy.pad`` what comes in."""
    rims = [(0, 0)] * (array.ndim - 2) + [(max(s, 0), max(-s, 0)) for s in shift_yx]
    padded = np.pad(array, rims, **margin)  # type: ignore[call-overload]
    y, x = (slice(max(-s, 0), max(-s, 0) + n) for s, n in zip(shift_yx, array.shape[-2:], strict=True))
    return padded[..., y, x]
