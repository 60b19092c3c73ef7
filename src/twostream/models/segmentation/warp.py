"""Geometric augmentation of image and target alike: flips, rotation, deformation, misalignment, lost sections.

Rotation, scaling and elastic deformation are combined into one resampling per section. Nothing is interpolated between
sections, because they are thick and are cut and imaged one by one. Target levels come from the nearest voxel, never
from interpolation.

Knows arrays and their geometry; must not know how often an operation is applied.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from twostream.models.segmentation.imaging import MIN_SECTIONS, inner_sections
from twostream.task import IGNORE


def draw_turn(shape_yx: tuple[int, ...], rng: np.random.Generator) -> tuple[tuple[int, ...], bool]:
    """Draw a random orientation; all 16 of a crop with square sections are equally likely.

    Args:
        shape_yx: of a section. One that is not square is never rotated, so that the shape of the crop stays.
        rng: source of randomness.

    Returns:
        Axes to flip, counted from the end (-1 is X), and whether to rotate by 90 degrees.
    """
    flips = tuple(axis for axis in (-3, -2, -1) if rng.random() < 0.5)
    quarter_turn = bool(rng.random() < 0.5)
    # Crops of another shape could not be collated into one batch.
    return flips, quarter_turn and shape_yx[0] == shape_yx[1]


def turn(array: np.ndarray, flips: tuple[int, ...], quarter_turn: bool) -> np.ndarray:
    """A rotated and flipped copy, without interpolation.

    Args:
        array: (..., Z, Y, X) of any type.
        flips: axes to flip, counted from the end (-1 is X).
        quarter_turn: whether to rotate by 90 degrees from Y to X, before the flips.

    Returns:
        C-contiguous array of the same type.
    """
    turned = np.rot90(array, axes=(-2, -1)) if quarter_turn else array
    return np.array(np.flip(turned, flips), order="C")


def transpose_zx(array: np.ndarray) -> np.ndarray:
    """A copy with Z and X exchanged, C-contiguous; a plain copy if (..., Z, Y, X) is not as deep as it is wide."""
    cube = array.shape[-3] == array.shape[-1]
    return np.array(np.swapaxes(array, -3, -1) if cube else array, order="C")


def draw_factors(factor_range: tuple[float, float], rng: np.random.Generator) -> tuple[float, float]:
    """Draw the magnification along Y and along X.

    They are independent, because the knife compresses a section in one direction only, and log-uniform, so that
    shrinking is as frequent as enlarging by the same factor.
    """
    low, high = (math.log(f) for f in factor_range)
    return math.exp(rng.uniform(low, high)), math.exp(rng.uniform(low, high))


def draw_elastic(
    shape_yx: tuple[int, ...], sigma_px: float, alpha_px: float, rng: np.random.Generator
) -> np.ndarray | None:
    """Draw a smooth random displacement field: white noise, smoothed by a Gaussian.

    Args:
        shape_yx: of a section.
        sigma_px: standard deviation of the Gaussian.
        alpha_px: length of the longest displacement.
        rng: source of randomness.

    Returns:
        (2, Y, X) float32, displacement in pixels along Y and along X; None if ``alpha_px`` is 0.
    """
    if alpha_px == 0:
        return None
    # Drawn on a coarser grid to save time, with a rim so that the field at the edge is as smooth as in the centre.
    step = max(1, int(sigma_px / 3))
    sigma = sigma_px / step
    rim = math.ceil(3 * sigma)
    num_y, num_x = (math.ceil(n / step) + 1 for n in shape_yx)
    noise = rng.standard_normal((2, num_y + 2 * rim, num_x + 2 * rim), dtype=np.float32)
    # Smoothing divides the standard deviation of white noise by 2 sqrt(pi) sigma, so it is multiplied by that here. The
    # wanted standard deviation is alpha / 3: few displacements are then longer than alpha and have to be shortened.
    # Scaling by the largest one instead would make the deformation depend on the size of the crop.
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
    """For each pixel of the result, the position in the section from which it is sampled.

    The section is magnified and rotated about its centre; the displacement is then added to the sampled position.

    Args:
        shape_yx: of a section.
        angle: radians, from Y to X.
        factors: magnification along Y and along X.
        elastic: (2, Y, X) float32 displacement in pixels, or None.

    Returns:
        (2, Y, X) float32, position in pixels along Y and along X. Along an axis of n pixels, positions below 0 or above
        n - 1 lie outside the section.
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
    """Resample every section with the same map, so that objects still continue from section to section.

    Args:
        image: (Z, Y, X) float32.
        target: (C, Z, Y, X) uint8 levels.
        source: (2, Y, X) float32 positions, see ``source_map``.

    Returns:
        Image (linear interpolation, mirrored outside the section) and target (nearest neighbour, ``IGNORE`` outside),
        of the same shapes and types.
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
    """Shift one section against the others, or shift all sections from a random one on.

    These are the errors of an alignment: a single section that slipped, or a jump between two parts of the stack. The
    target is shifted with the image, because annotators draw on the sections as they are aligned.

    Args:
        image: (Z, Y, X) float32; a single section is returned as it is.
        target: (C, Z, Y, X) uint8 levels.
        max_shift_px: largest shift along Y and along X, in whole pixels.
        rng: source of randomness.

    Returns:
        Image (mirrored where a shifted section leaves a margin) and target (``IGNORE`` there), of the same shapes.
    """
    reach = min(max_shift_px, min(image.shape[1:]) - 1)
    if len(image) < 2 or reach < 1:
        return image, target
    side = 2 * reach + 1
    number = int(rng.integers(side * side - 1))
    number += number >= side * side // 2  # skips the middle number, which is a shift by (0, 0)
    shift_yx = number // side - reach, number % side - reach
    sections = _slipped(len(image), rng)
    image, target = image.copy(), target.copy()
    image[sections] = _shifted(image[sections], shift_yx, mode="reflect")
    target[:, sections] = _shifted(target[:, sections], shift_yx, mode="constant", constant_values=IGNORE)
    return image, target


def misalign_by_rotation(
    image: np.ndarray, target: np.ndarray, max_shift_px: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Rotate one section, or all sections from a random one on, about its centre, as ``misalign`` shifts them.

    Args:
        image: (Z, Y, X) float32; a single section is returned as it is.
        target: (C, Z, Y, X) uint8 levels.
        max_shift_px: no corner moves farther than this.
        rng: source of randomness.

    Returns:
        Image (mirrored outside the section) and target (``IGNORE`` there), of the same shapes.
    """
    half_diagonal = math.hypot(*image.shape[1:]) / 2
    if len(image) < 2 or max_shift_px < 1:
        return image, target
    # The chord of an angle a at the distance r from the centre is 2 r sin(a / 2).
    largest = 2 * math.asin(min(max_shift_px / 2 / half_diagonal, 1.0))
    source = source_map(image.shape[1:], rng.uniform(-largest, largest), (1.0, 1.0), None)
    sections = _slipped(len(image), rng)
    image, target = image.copy(), target.copy()
    image[sections], target[:, sections] = resample(image[sections], target[:, sections], source)
    return image, target


def drop_sections(
    image: np.ndarray, target: np.ndarray, number: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Remove inner sections, as if they had been lost when the tissue was cut: their neighbours then meet.

    Args:
        image: (Z, Y, X) float32; fewer than ``MIN_SECTIONS`` sections are returned as they are.
        target: (C, Z, Y, X) uint8 levels.
        number: how many sections to remove; a first and a last one stay.
        rng: source of randomness.

    Returns:
        Image and target of the same shapes. The missing number of sections is added at one end: mirrored in the image,
        ``IGNORE`` in the target.
    """
    if len(image) < MIN_SECTIONS:
        return image, target
    gone = inner_sections(len(image), number, rng)
    rim = (len(gone), 0) if rng.random() < 0.5 else (0, len(gone))
    image, target = np.delete(image, gone, 0), np.delete(target, gone, 1)
    # "symmetric" repeats the outermost section, so that any number can be added.
    image = np.pad(image, (rim, (0, 0), (0, 0)), mode="symmetric")
    return image, np.pad(target, ((0, 0), rim, (0, 0), (0, 0)), constant_values=IGNORE)


def _slipped(depth: int, rng: np.random.Generator) -> slice:
    """Draw which of ``depth`` sections an alignment has displaced: a single one, or all from one on."""
    if rng.random() < 0.5:
        first = int(rng.integers(depth))
        return slice(first, first + 1)
    return slice(int(rng.integers(1, depth)), None)


def _shifted(array: np.ndarray, shift_yx: tuple[int, int], **margin: object) -> np.ndarray:
    """(..., Y, X) shifted by whole pixels; ``margin`` are options of ``numpy.pad`` for the margin that is left."""
    rims = [(0, 0)] * (array.ndim - 2) + [(max(s, 0), max(-s, 0)) for s in shift_yx]
    padded = np.pad(array, rims, **margin)  # type: ignore[call-overload]
    y, x = (slice(max(-s, 0), max(-s, 0) + n) for s, n in zip(shift_yx, array.shape[-2:], strict=True))
    return padded[..., y, x]
