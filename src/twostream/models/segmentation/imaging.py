"""Augmentation of grey values: contrast, noise, blur and missing tissue.

No voxel moves, so the training target stays as it is. Each function takes an image (Z, Y, X) float32, C-contiguous, of
about mean 0 and standard deviation 1, and the sample's random generator. It returns a new image of the same shape and
type and does not change its argument. The operations are those of PyTorch Connectomics (Lin et al. 2021).

Knows images only.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

MIN_SECTIONS = 3
"""Fewest sections of a crop from which tissue is removed: S needs a section on each side to infer what is missing."""
BLUR_PX = (4.0, 11.0)
"""Shortest and longest motion blur; the longest is that of PyTorch Connectomics."""


def grey(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change contrast, brightness and gamma of the crop.

    Contrast and brightness also vary slightly from section to section, because sections are stained and imaged one by
    one.
    """
    low, high = image.min(), image.max()
    if high > low:
        unit = (image.reshape(len(image), -1) - low) / (high - low)
        bent = (cv2.pow(unit, 2.0 ** rng.uniform(-0.5, 0.5)) * (high - low)).reshape(image.shape)
        image = bent + (image.mean() - bent.mean())  # gamma keeps the mean; brightness is drawn below
    per_section = (len(image), 1, 1)
    contrast = rng.uniform(0.75, 1.3) * rng.uniform(0.93, 1.07, per_section)
    brightness = rng.uniform(-0.4, 0.4) + rng.uniform(-0.15, 0.15, per_section)
    return image * contrast.astype(np.float32) + brightness.astype(np.float32)


def noise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add white noise everywhere, as a shorter dwell time of the microscope would."""
    return image + np.float32(rng.uniform(0.02, 0.3)) * rng.standard_normal(image.shape, dtype=np.float32)


def cut_noise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add strong white noise inside a cuboid."""
    image, box = image.copy(), _cuboid(image.shape, rng)
    shape = image[box].shape
    image[box] += np.float32(rng.uniform(0.3, 0.8)) * rng.standard_normal(shape, dtype=np.float32)
    return image


def cut_blur(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lower the in-plane resolution inside a cuboid, by down-sampling and up-sampling it."""
    image, box = image.copy(), _cuboid(image.shape, rng)
    factor = rng.uniform(2, 5)
    for section in image[box]:
        height, width = section.shape
        coarse = (max(1, round(width / factor)), max(1, round(height / factor)))
        small = cv2.resize(section, coarse, interpolation=cv2.INTER_AREA)
        section[...] = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    return image


def motion_blur(image: np.ndarray, rng: np.random.Generator, num_sections: int = 1) -> np.ndarray:
    """Blur random sections along one random direction, as a drifting stage would; one may be hit repeatedly."""
    image, hit = image.copy(), rng.integers(len(image), size=num_sections)
    kernel = _line(rng.uniform(*BLUR_PX), rng.uniform(0, math.pi))
    for z in hit:
        image[z] = cv2.filter2D(image[z], -1, kernel, borderType=cv2.BORDER_REFLECT_101)
    return image


def missing_section(image: np.ndarray, rng: np.random.Generator, num_sections: int = 1) -> np.ndarray:
    """Replace inner sections by a constant; crops of fewer than ``MIN_SECTIONS`` sections stay as they are."""
    if len(image) < MIN_SECTIONS:
        return image
    image = image.copy()
    image[inner_sections(len(image), num_sections, rng)] = _blank(rng)
    return image


def inner_sections(depth: int, number: int, rng: np.random.Generator) -> np.ndarray:
    """Draw ``number`` sections without the first and the last one, each once; all of them if there are not so many.

    Args:
        depth: sections of the crop, at least ``MIN_SECTIONS``.
        number: how many to draw.
        rng: source of randomness.

    Returns:
        Section numbers, (number,) int64.
    """
    if number == 1:
        return rng.integers(1, depth - 1, size=1)
    return rng.choice(np.arange(1, depth - 1), min(number, depth - 2), replace=False)


def missing_part(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Replace part of one inner section by a constant: one side of it, or a band such as a fold or a crack.

    Crops of fewer than ``MIN_SECTIONS`` sections stay as they are.
    """
    if len(image) < MIN_SECTIONS:
        return image
    image = image.copy()
    section = image[rng.integers(1, len(image) - 1)]
    height, width = section.shape
    y, x = np.ogrid[:height, :width]
    angle = rng.uniform(0, 2 * math.pi)
    # Position along the normal of the border: -1/2 at one end of the section, 1/2 at the other.
    across = (y - (height - 1) / 2) * math.sin(angle) + (x - (width - 1) / 2) * math.cos(angle)
    across /= max(2 * abs(across).max(), 1.0)
    if rng.random() < 0.5:
        gone = across >= rng.uniform(0.0, 0.3)
    else:
        gone = abs(across - rng.uniform(-0.3, 0.3)) <= rng.uniform(0.01, 0.08)
    section[gone] = _blank(rng)
    return image


def missing_bands(image: np.ndarray, rng: np.random.Generator, probability: float, width_px: int) -> np.ndarray:
    """Replace a band of some sections by the mean of the section.

    A band follows a line from a random place on one side of the section to one on the opposite side. Each section loses
    one with ``probability``; the two sections after it keep theirs.

    Args:
        image: (Z, Y, X) float32.
        rng: source of randomness.
        probability: of a section to lose a band.
        width_px: extent of a band along the side where it starts.

    Returns:
        (Z, Y, X) float32.
    """
    image, z = image.copy(), 0
    while z < len(image):
        if rng.random() < probability:
            section = image[z] if rng.random() < 0.5 else image[z].T  # a view: along Y or along X
            start, stop = rng.uniform(0, section.shape[1], 2)
            middle = np.linspace(start, stop, len(section))[:, None]
            section[abs(np.arange(section.shape[1]) - middle) <= width_px / 2] = section.mean()
            z += 2
        z += 1
    return image


def _blank(rng: np.random.Generator) -> np.float32:
    """A normalised grey value for missing tissue: medium, or as dark or bright as 0 and 255 usually become."""
    return np.float32(rng.uniform(*((-1.0, 1.0), (-4.0, -2.0), (2.0, 4.0))[rng.integers(3)]))


def _cuboid(shape: tuple[int, ...], rng: np.random.Generator) -> tuple[slice, ...]:
    """Slices of a random cuboid: along each axis a quarter to a half of the extent, at least one voxel."""
    sides = [max(1, round(n * rng.uniform(0.25, 0.5))) for n in shape]
    starts = [int(rng.integers(n - side + 1)) for n, side in zip(shape, sides, strict=True)]
    return tuple(slice(start, start + side) for start, side in zip(starts, sides, strict=True))


def _line(length_px: float, angle: float) -> np.ndarray:
    """Blur kernel along a line through its centre: (K, K) float32 with sum 1, K odd.

    It varies smoothly with length and angle, because points are spread over neighbouring pixels.
    """
    radius = math.ceil(length_px / 2)
    along = np.linspace(-length_px / 2, length_px / 2, 8 * radius + 1)
    y, x = radius + along * math.sin(angle), radius + along * math.cos(angle)
    grid = np.arange(2 * radius + 1)
    # Bilinear: each point of the line is distributed over the four pixels around it.
    share_y, share_x = (np.maximum(0, 1 - abs(grid[:, None] - at)) for at in (y, x))
    kernel = share_y @ share_x.T
    return (kernel / kernel.sum()).astype(np.float32)
