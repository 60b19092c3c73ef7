"""Variation of training crops, as electron microscopes vary: orientation, grey values, bad sections."""

from __future__ import annotations

import numpy as np

from twostream.segmentation.config import AugmentConfig


def augment(
    image: np.ndarray, target: np.ndarray, config: AugmentConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Vary one crop.

    Args:
        image: (Z, Y, X) float32, normalised; square in plane.
        target: (C, Z, Y, X) uint8 with the same extent.
        rng: the sample's own generator.

    Returns:
        New arrays of the same shapes.
    """
    turns = int(rng.integers(4))
    flips = tuple(axis for axis in (-3, -2, -1) if rng.random() < 0.5)
    image, target = (np.flip(np.rot90(a, turns, (-2, -1)), flips).copy() for a in (image, target))
    if rng.random() < config.grey:
        image = image * np.float32(rng.uniform(0.75, 1.3)) + np.float32(rng.uniform(-0.4, 0.4))
        drift = rng.uniform(-0.15, 0.15, (len(image), 1, 1))  # sections are stained and imaged one by one
        image = (image + drift).astype(np.float32)
    if rng.random() < config.noise:
        image = image + rng.normal(0, rng.uniform(0, 0.3), image.shape).astype(np.float32)
    if len(image) > 2 and rng.random() < config.missing_section:
        image[rng.integers(len(image))] = np.float32(rng.choice([-2.0, 0.0, 2.0]))
    return image, target
