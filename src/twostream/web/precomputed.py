"""Arrays as Neuroglancer precomputed volumes that are made when they are asked for: `info`, and chunks by their names.

Coarser scales take every n-th voxel, the one in the middle of the voxel that stands for it, so that an overview loads
without anything being written. How many scales there are is bounded by what one chunk must read.

Knows boxes, arrays and the precomputed format; must not know HTTP or projects.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from twostream.base.geometry import Box, Vector
from twostream.volume.volume import VoxelSize

MAX_READ_BYTES = 2**26
"""What one chunk may read: 64 MiB take a fraction of a second."""
SMALL_ENOUGH = 256
"""Voxels along the longest axis of a scale below which no coarser one is needed: one screen shows it."""
FLAT_CHUNK_ZYX: Vector = (16, 64, 64)
CUBIC_CHUNK_ZYX: Vector = (32, 32, 32)
_CHUNK = re.compile(r"_".join([r"(-?\d{1,12})-(-?\d{1,12})"] * 3), re.ASCII)


@dataclass(frozen=True)
class Scale:
    """One scale of a volume.

    Attributes:
        stride_zyx: (z, y, x) in voxels of the volume that one voxel stands for.
        offset_zyx: (z, y, x) of the first voxel, in voxels of this scale.
        shape_zyx: extent (z, y, x) in voxels of this scale.
        chunk_zyx: extent (z, y, x) of a chunk in voxels of this scale.
    """

    stride_zyx: Vector
    offset_zyx: Vector
    shape_zyx: Vector
    chunk_zyx: Vector

    @property
    def key(self) -> str:
        """Name of its folder: the strides, x first."""
        return "_".join(map(str, reversed(self.stride_zyx)))

    def box_of(self, name: str) -> Box | None:
        """The box of a chunk, in voxels of this scale from its first one; None if the grid has no such chunk."""
        found = _CHUNK.fullmatch(name)
        if found is None:
            return None
        x0, x1, y0, y1, z0, z1 = map(int, found.groups())
        start = [a - o for a, o in zip((z0, y0, x0), self.offset_zyx, strict=True)]
        stop = [b - o for b, o in zip((z1, y1, x1), self.offset_zyx, strict=True)]
        in_grid = (
            a >= 0 and a % c == 0 and b == min(a + c, n) and a < b
            for a, b, c, n in zip(start, stop, self.chunk_zyx, self.shape_zyx, strict=True)
        )
        return Box.from_corners(start, stop) if all(in_grid) else None


class Precomputed:
    """A volume as Neuroglancer reads it.

    Args:
        read: gives the (Z, Y, X) voxels of a box that lies inside the volume.
        shape_zyx: extent (z, y, x) in voxels.
        dtype: of the voxels, without a byte order.
        voxel_size_nm: (z, y, x) in nm.
        offset_zyx: (z, y, x) of the first voxel, in voxels of the data set.
        kind: "image" or "segmentation".
    """

    def __init__(
        self,
        read: Callable[[Box], np.ndarray],
        *,
        shape_zyx: Vector,
        dtype: np.dtype,
        voxel_size_nm: VoxelSize,
        offset_zyx: Vector = (0, 0, 0),
        kind: str = "image",
    ) -> None:
        self._read, self.shape_zyx, self.dtype = read, shape_zyx, np.dtype(dtype)
        self.voxel_size_nm, self.offset_zyx, self.kind = voxel_size_nm, offset_zyx, kind
        scales = list(self._scales())
        self.scales = {scale.key: scale for scale in scales}

    def _scales(self) -> list[Scale]:
        """From the volume itself to the coarsest scale that is worth having and can be read."""
        stride: Vector = (1, 1, 1)
        scales = [self._scale(stride)]
        while max(scales[-1].shape_zyx) > SMALL_ENOUGH:
            stride = self._next(stride)
            scale = self._scale(stride)
            read = math.prod(min(c * s, n) for c, s, n in zip(scale.chunk_zyx, stride, self.shape_zyx, strict=True))
            if read * self.dtype.itemsize > MAX_READ_BYTES:
                break
            scales.append(scale)
        return scales

    def _next(self, stride: Vector) -> Vector:
        """Twice the stride along the axes along which voxels are still short, so that they become cubes."""
        size = [s * v for s, v in zip(stride, self.voxel_size_nm, strict=True)]
        z, y, x = (2 * s if v < 2 * min(size) else s for s, v in zip(stride, size, strict=True))
        return z, y, x

    def _scale(self, stride: Vector) -> Scale:
        first = [o // s for o, s in zip(self.offset_zyx, stride, strict=True)]
        stop = [-(-(o + n) // s) for o, n, s in zip(self.offset_zyx, self.shape_zyx, stride, strict=True)]
        box = Box.from_corners(first, stop)
        size = [s * v for s, v in zip(stride, self.voxel_size_nm, strict=True)]
        chunk = FLAT_CHUNK_ZYX if size[0] >= 2 * min(size[1:]) else CUBIC_CHUNK_ZYX
        return Scale(stride, box.offset_zyx, box.shape_zyx, chunk)

    def info(self) -> dict[str, Any]:
        """The content of the file `info`."""
        return {
            "@type": "neuroglancer_multiscale_volume",
            "type": self.kind,
            "data_type": self.dtype.name,
            "num_channels": 1,
            "scales": [
                {
                    "key": scale.key,
                    "size": _xyz(scale.shape_zyx),
                    "voxel_offset": _xyz(scale.offset_zyx),
                    "resolution": [
                        v * s for v, s in zip(_xyz(self.voxel_size_nm), _xyz(scale.stride_zyx), strict=True)
                    ],
                    "chunk_sizes": [_xyz(scale.chunk_zyx)],
                    "encoding": "raw",
                }
                for scale in self.scales.values()
            ],
        }

    def chunk(self, key: str, name: str) -> bytes | None:
        """The voxels of a chunk, little-endian, x fastest; None if there is no such scale or chunk.

        Args:
            key: of the scale.
            name: of the chunk, ``x0-x1_y0-y1_z0-z1``.
        """
        scale = self.scales.get(key)
        box = scale.box_of(name) if scale else None
        if scale is None or box is None:
            return None
        wanted = [self._voxels(scale, axis, box) for axis in range(3)]
        start = [int(v[0]) for v in wanted]
        array = self._read(Box.from_corners(start, [int(v[-1]) + 1 for v in wanted]))
        picked = array[np.ix_(*(v - s for v, s in zip(wanted, start, strict=True)))]
        return picked.astype(self.dtype.newbyteorder("<"), copy=False).tobytes()

    def _voxels(self, scale: Scale, axis: int, box: Box) -> np.ndarray:
        """The voxels of the volume that stand for those of a box of a scale, along one axis."""
        stride = scale.stride_zyx[axis]
        first = box.offset_zyx[axis] + scale.offset_zyx[axis]
        cells = np.arange(first, first + box.shape_zyx[axis])
        return np.clip(cells * stride + stride // 2 - self.offset_zyx[axis], 0, self.shape_zyx[axis] - 1)


def _xyz(values: Sequence[Any]) -> list[Any]:
    return list(reversed(values))
