"""Volumes: image data on disk, read and written by boxes of voxels, ZYX and nanometres inside.

Each format's own axis order and units are converted in its own file here and nowhere else.
"""

from twostream.volume._memory import MemoryVolume
from twostream.volume.open import create_volume, open_ignore_mask, open_volume
from twostream.volume.volume import Volume, read_padded
from twostream.volume.windows import read_windows

__all__ = ["MemoryVolume", "Volume", "create_volume", "open_ignore_mask", "open_volume", "read_padded", "read_windows"]
