"""Do two volumes fit each other? Refused here, in words, before anything is computed from them."""

from __future__ import annotations

import numpy as np

from twostream.base.errors import InputError, NoVoxelSizeError
from twostream.volume.open import open_volume
from twostream.volume.volume import Volume


def check_labels(labels: Volume, image: Volume) -> None:
    """Raise InputError where ``labels`` do not fit ``image``."""
    if labels.num_channels or labels.dtype.kind not in "ui":
        raise InputError(
            f"{labels.uri} holds {labels.dtype} with {labels.num_channels} channels; expected integer labels (Z, Y, X)."
        )
    check_extent(labels, image)


def check_extent(volume: Volume, image: Volume) -> None:
    """Raise InputError where ``volume`` has another extent or another voxel size than ``image``."""
    if volume.shape_zyx != image.shape_zyx:
        raise InputError(
            f"{volume.uri} has {volume.shape_zyx} voxels, {image.uri} has {image.shape_zyx} "
            f"(Z, Y, X); they must be alike."
        )
    if not np.allclose(volume.voxel_size_nm, image.voxel_size_nm, rtol=1e-3):
        raise InputError(
            f"{volume.uri} has voxels of {volume.voxel_size_nm} nm, {image.uri} of {image.voxel_size_nm} nm (Z, Y, X); "
            f"they must be alike."
        )


def states_no_voxel_size(uri: str) -> bool:
    """Whether the file at ``uri`` opens only once it is told a voxel size."""
    try:
        open_volume(uri)
    except NoVoxelSizeError:
        return True
    return False
