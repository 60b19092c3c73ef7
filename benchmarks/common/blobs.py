"""A probability volume of smooth blobs, as large as wanted: a tile that goes on across its faces, repeated.

Knows volumes and tasks; must not know what is measured.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import ndimage

from common.results import Data
from twostream.base.geometry import grid
from twostream.task import DecodingConfig, Task, get_task
from twostream.volume import create_volume

TILE_ZYX = (128, 512, 512)
VOXEL_SIZE_NM = (30.0, 8.0, 8.0)
SIGMA_ZYX, FOREGROUND, STEEPNESS = (1.5, 6.0, 6.0), 0.03, 250.0
"""Width of a blob in voxels, share of the foreground, and rise of the probability by standard deviation."""
THRESHOLD = 0.5
BLOBS = Data("smooth blobs, 3 percent foreground", "common/blobs.py: tile(seed 0)")


def tile(seed: int = 0) -> np.ndarray:
    """(Z, Y, X) uint8 probability that continues at its faces."""
    noise = np.random.default_rng(seed).standard_normal(TILE_ZYX, dtype=np.float32)
    smooth = ndimage.gaussian_filter(noise, SIGMA_ZYX, mode="wrap")
    level = (smooth - np.quantile(smooth, 1 - FOREGROUND)) / smooth.std() * STEEPNESS + 255 * THRESHOLD
    return np.clip(level, 0, 255).astype(np.uint8)


def write_probability(path: Path, num_tiles: int, num_channels: int) -> None:
    """A volume of ``num_tiles`` tiles side by side along Y; one that is there is kept."""
    if path.exists():
        return
    level = np.repeat(tile()[None], num_channels, axis=0)
    shape = (TILE_ZYX[0], TILE_ZYX[1] * num_tiles, TILE_ZYX[2])
    volume = create_volume(
        str(path), shape_zyx=shape, dtype=np.uint8, voxel_size_nm=VOXEL_SIZE_NM, num_channels=num_channels
    )
    for block in grid(volume.box, TILE_ZYX):
        volume.write(block.write_box, level)


def the_task(method: str) -> Task:
    """Mitochondria by components or watershed; polarity by watershed, with sides joined."""
    if method == "polarity":
        return get_task("polarity", VOXEL_SIZE_NM)
    return get_task("mitochondria", VOXEL_SIZE_NM, DecodingConfig(method=method))
