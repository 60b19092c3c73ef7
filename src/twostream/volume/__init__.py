"""Volumes: images, labels and predictions that are stored on disk and are read and written one box of voxels at a time.

``open_volume`` opens one by its URI, ``create_volume`` creates one. Axes are Z, Y, X (or C, Z, Y, X) and sizes are
nanometres everywhere outside this package; each file format has one module here that converts from its own conventions.

Knows file formats, boxes and voxel sizes; must not know tasks, models or projects.
"""

from twostream.volume._memory import MemoryVolume
from twostream.volume.formats import register_format
from twostream.volume.open import continue_volume, create_volume, open_ignore_mask, open_volume
from twostream.volume.volume import Metadata, Volume, agreed_voxel_size, read_padded
from twostream.volume.windows import read_shape, read_windows

__all__ = [
    "MemoryVolume",
    "Metadata",
    "Volume",
    "agreed_voxel_size",
    "continue_volume",
    "create_volume",
    "open_ignore_mask",
    "open_volume",
    "read_padded",
    "read_shape",
    "read_windows",
    "register_format",
]
