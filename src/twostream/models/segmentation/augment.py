"""Variation of training crops, as electron microscopes vary: orientation, shape, grey values, bad sections.

Knows which variations there are, how often each happens and in what order; what they do is in ``warp`` (image and
target move together) and ``imaging`` (only the image changes). Must not know where crops come from.
"""

from __future__ import annotations

import numpy as np

from twostream.models.segmentation import imaging, warp
from twostream.models.segmentation.config import AugmentConfig


def augment(
    image: np.ndarray, target: np.ndarray, config: AugmentConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Vary one crop.

    The kinds are those of PyTorch Connectomics (Lin et al. 2021); they happen in the order in which they do to real
    tissue: it lies somehow, is cut and aligned, stained, photographed, and then sections are found damaged.

    Args:
        image: (Z, Y, X) float32, normalised; a crop that is not square in plane is never turned by quarters.
        target: (C, Z, Y, X) uint8 with the same extent: levels 0..254, or ``IGNORE``.
        config: how often each variation happens.
        rng: the sample's own generator; nothing else is random.

    Returns:
        New C-contiguous arrays of the same shapes and types. A level of the target is never mixed with another;
        where a warp reaches beyond the crop, the image is mirrored and the target is ``IGNORE``.
    """
    image, target = _moved(image, target, config, rng)
    return _imaged(image, config, rng), target


def _moved(
    image: np.ndarray, target: np.ndarray, config: AugmentConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Image and target move together."""
    shape_yx = image.shape[-2:]
    flips, quarter_turn = warp.draw_turn(shape_yx, rng) if config.flip else ((), False)
    image, target = (warp.turn(a, flips, quarter_turn) for a in (image, target))
    angle = rng.uniform(0, 2 * np.pi) if rng.random() < config.rotate else 0.0
    factors = warp.draw_factors(config.rescale_range, rng) if rng.random() < config.rescale else (1.0, 1.0)
    elastic = (
        warp.draw_elastic(shape_yx, config.elastic_sigma_px, config.elastic_alpha_px, rng)
        if rng.random() < config.elastic
        else None
    )
    if angle or factors != (1.0, 1.0) or elastic is not None:
        image, target = warp.resample(image, target, warp.source_map(shape_yx, angle, factors, elastic))
    if rng.random() < config.misalignment:
        image, target = warp.misalign(image, target, config.misalignment_px, rng)
    return image, target


def _imaged(image: np.ndarray, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """Grey values change, every voxel stays in its place."""
    for chance, vary in (
        (config.grey, imaging.grey),
        (config.motion_blur, imaging.motion_blur),
        (config.cut_blur, imaging.cut_blur),
        (config.noise, imaging.noise),
        (config.cut_noise, imaging.cut_noise),
        (config.missing_part, imaging.missing_part),
        (config.missing_section, imaging.missing_section),
    ):
        if rng.random() < chance:
            image = vary(image, rng)
    return image
