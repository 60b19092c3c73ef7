"""Checks that two volumes belong together, made before anything is computed from them.

Knows shapes, dtypes and voxel sizes; must not know tasks or projects.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from twostream.base.errors import InputError, NoVoxelSizeError, VolumeError
from twostream.base.geometry import Box
from twostream.volume.open import open_volume
from twostream.volume.volume import Volume


def check_integers(labels: Volume) -> None:
    """Raise InputError if ``labels`` has channels or does not hold integers."""
    if labels.num_channels:
        raise InputError(
            f"{labels.uri} has {labels.num_channels} channels; expected integer labels (Z, Y, X) without channels. "
            f"Save the channel that holds the labels as a volume of its own."
        )
    if labels.dtype.kind not in "ui":
        raise InputError(
            f"{labels.uri} holds {labels.dtype}; expected integer labels (Z, Y, X). If all of its values are whole "
            f"numbers, save it as integers, such as uint32; if it is a probability, choose a threshold first."
        )


def check_extent(volume: Volume, image: Volume) -> None:
    """Check that two volumes cover the same voxels.

    Raises:
        InputError: their shapes differ, or their voxel sizes differ by more than 0.1 percent.
    """
    if volume.shape_zyx != image.shape_zyx:
        raise InputError(
            f"{volume.uri} has {volume.shape_zyx} voxels, {image.uri} has {image.shape_zyx} "
            f"(Z, Y, X); they must be equal."
        )
    if not np.allclose(volume.voxel_size_nm, image.voxel_size_nm, rtol=1e-3):
        raise InputError(
            f"{volume.uri} has voxels of {volume.voxel_size_nm} nm, {image.uri} of {image.voxel_size_nm} nm (Z, Y, X); "
            f"they must be equal."
        )


def check_all_chunks(volume: Volume) -> None:
    """Check that a volume that was written in blocks holds all of its chunks, also those that hold zeros alone.

    Raises:
        VolumeError: some are absent.
    """
    absent, asked = volume.num_absent_chunks() or (0, 0)
    if absent:
        raise VolumeError(
            f"{volume.uri}: {absent} of {asked} chunks are not there, though all were written. Something else has "
            f"removed files, or the disk has lost them."
        )


SAMPLED_ALONG = (3, 4, 4)
"""Boxes along Z, Y and X in which two images are compared: 48, spread over the whole volume."""
SAMPLED_ZYX = (2, 32, 32)
"""Voxels of one of these boxes."""


def check_same_grey(volume: Volume, image: Volume) -> None:
    """Check that two volumes of one extent hold the same values in small boxes spread over all of it.

    Raises:
        InputError: a voxel differs.
    """
    for box in sampled_boxes(image.box):
        here, there = volume.read(box), image.read(box)
        if here.shape != there.shape or not np.array_equal(here, there):
            share = np.mean(here != there) if here.shape == there.shape else 1.0
            raise InputError(
                f"{volume.uri} and {image.uri} differ in {share:.0%} of the voxels of the box {box} (Z, Y, X)."
            )


def sampled_boxes(box: Box) -> list[Box]:
    """Small boxes spread evenly over ``box``, its first and last voxels among them."""
    z, y, x = (min(s, n) for s, n in zip(SAMPLED_ZYX, box.shape_zyx, strict=True))
    shape = z, y, x
    starts = [
        np.unique(np.linspace(o, o + n - s, k).astype(int)).tolist()
        for o, n, s, k in zip(box.offset_zyx, box.shape_zyx, shape, SAMPLED_ALONG, strict=True)
    ]
    return [Box(start, shape) for start in product(*starts)]


def states_no_voxel_size(uri: str) -> bool:
    """Whether the volume at ``uri`` can be opened only with a voxel size given by the user.

    Raises:
        VolumeError: it cannot be opened for another reason.
    """
    try:
        open_volume(uri)
    except NoVoxelSizeError:
        return True
    return False
