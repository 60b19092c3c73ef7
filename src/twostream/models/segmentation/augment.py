"""Augmentation of training crops: which operations are applied, how often and in which order.

The operations themselves are in ``warp`` (geometry: image and target are transformed together) and in ``imaging``
(grey values: only the image changes). They imitate how electron-microscopy volumes differ: orientation, deformation,
contrast, damaged sections.

Knows arrays and the probabilities in ``AugmentConfig``; must not know where crops come from.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from twostream.models.segmentation import imaging, warp
from twostream.models.segmentation.config import AugmentConfig


def augment(
    image: np.ndarray, target: np.ndarray, config: AugmentConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Augment one training crop.

    The operations are those of PyTorch Connectomics (Lin et al. 2021). Their order is that of the real causes:
    orientation and deformation of the tissue, alignment of its sections, staining and imaging, damaged sections.

    Args:
        image: (Z, Y, X) float32, normalised. A crop that is not square in plane is never rotated by 90 degrees.
        target: (C, Z, Y, X) uint8 of the same extent: levels 0..254, or ``IGNORE``.
        config: probability and strength of each operation.
        rng: the sample's own generator, the only source of randomness.

    Returns:
        Image and target as new C-contiguous arrays of the same shapes and types. Target levels are copied from the
        nearest voxel, never interpolated. Where voxels come from outside the crop, the image is mirrored and the target
        is ``IGNORE``.
    """
    image, target = _warped(image, target, config, rng)
    return _with_other_grey_values(image, config, rng), target


def _warped(
    image: np.ndarray, target: np.ndarray, config: AugmentConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Apply the geometric operations to image and target alike."""
    shape_yx = image.shape[-2:]
    flips, quarter_turn = warp.draw_turn(shape_yx, rng) if config.flip else ((), False)
    image, target = (warp.turn(a, flips, quarter_turn) for a in (image, target))
    if config.transpose_zx and rng.random() < 0.5:
        image, target = (warp.transpose_zx(a) for a in (image, target))
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
        is_turned = config.misalignment_rotate and rng.random() < config.misalignment_rotate
        move = warp.misalign_by_rotation if is_turned else warp.misalign
        image, target = move(image, target, config.misalignment_px, rng)
    if config.dropped_section and rng.random() < config.dropped_section:
        image, target = warp.drop_sections(image, target, config.defect_sections, rng)
    return image, target


def _with_other_grey_values(image: np.ndarray, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """Apply the operations that change grey values and move no voxel."""
    motion_blur = partial(imaging.motion_blur, num_sections=config.defect_sections)
    missing_section = partial(imaging.missing_section, num_sections=config.defect_sections)
    missing_part = imaging.missing_part
    if config.missing_band_px is not None:
        missing_part = partial(imaging.missing_bands, probability=config.missing_part, width_px=config.missing_band_px)
    for probability, operation in (
        (config.grey, imaging.grey),
        (config.motion_blur, motion_blur),
        (config.cut_blur, imaging.cut_blur),
        (config.noise, imaging.noise),
        (config.cut_noise, imaging.cut_noise),
        (config.missing_part, missing_part),
        (config.missing_section, missing_section),
    ):
        if rng.random() < probability:
            image = operation(image, rng)
    return image
