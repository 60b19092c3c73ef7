"""Sampling: the planes of a patch, interpolated on a rotated grid in a window of voxels.

Knows arrays, voxel sizes and OpenCV; must not know where a patch lies in its volume, nor how windows are read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from twostream.base.geometry import Box, Vector
from twostream.candidates.candidate import Candidate
from twostream.candidates.patches import PatchConfig
from twostream.candidates.pose import central_section
from twostream.volume import Volume


def patch_pixel_nm(candidate: Candidate, config: PatchConfig, voxel_size_nm: Sequence[float], usual_nm: float) -> float:
    """Size in nm of the pixels of a candidate's patch.

    Args:
        candidate: the candidate, with the mask that it had when the patch was cut.
        config: says whether the patch is ``object_widths`` times as wide as the candidate, within limits.
        voxel_size_nm: (z, y, x) nm of the image.
        usual_nm: size of the pixels of patches that are not fitted to their object.
    """
    if config.object_widths is None:
        return usual_nm
    _, y, x = voxel_size_nm
    area_nm2 = np.count_nonzero(candidate.mask[central_section(candidate.mask)]) * y * x
    pixel_nm = config.object_widths * math.sqrt(area_nm2) / config.width_px
    finest, widest = config.pixel_range_nm(voxel_size_nm, usual_nm)
    return min(max(pixel_nm, finest), widest)


@dataclass(frozen=True)
class Sampler:
    """Samples the planes of a patch from a window of voxels.

    Attributes:
        config: which planes, and their width.
        pixel_zyx: voxels per patch pixel along Z, Y, X.
        step: sections from one plane of a stack to the next.
        depth: sections that a patch extends above and below its central one.
    """

    config: PatchConfig
    pixel_zyx: tuple[float, float, float]
    step: int
    depth: int

    @classmethod
    def of(cls, volume: Volume, config: PatchConfig, pixel_size_nm: float) -> Sampler:
        """For patch pixels of ``config.pixel_size_nm``, or of ``pixel_size_nm`` if that is None."""
        pixel_nm = config.pixel_size_nm or pixel_size_nm
        z, y, x = (pixel_nm / v for v in volume.voxel_size_nm)
        section_nm = volume.voxel_size_nm[0]
        return cls(config, (z, y, x), config.step_sections(section_nm), config.depth_sections(section_nm, pixel_nm))

    def fitted_to(self, candidate: Candidate, volume: Volume) -> Sampler:
        """A sampler whose patch is ``config.object_widths`` times as wide as the candidate, within limits."""
        usual_nm = self.pixel_zyx[1] * volume.voxel_size_nm[1]
        pixel_nm = patch_pixel_nm(candidate, self.config, volume.voxel_size_nm, usual_nm)
        return Sampler.of(volume, self.config.model_copy(update={"pixel_size_nm": pixel_nm}), pixel_nm)

    @property
    def half_zyx(self) -> Vector:
        """Voxels along Z, Y, X that a patch at any angle needs on each side of its centre.

        In plane this is sqrt(2) times half the patch, as published, plus a margin for interpolation.
        """
        half = self.config.width_px / 2
        y, x = (math.ceil(half * math.sqrt(2) * v) + 2 for v in self.pixel_zyx[1:])
        return self.depth, y, x

    def extent_zyx(self, *, turned: bool) -> Vector:
        """Voxels along Z, Y, X of the smallest window of a patch, at any angle if ``turned``, else upright."""
        if turned:
            z, y, x = (2 * half + 1 for half in self.half_zyx)
        else:
            z, (y, x) = 2 * self.depth + 1, (math.ceil(self.config.width_px * v - 1e-9) for v in self.pixel_zyx[1:])
        return z, y, x

    def window(self, center_zyx: Sequence[float]) -> Box:
        """The box of voxels that a patch centred on ``center_zyx`` needs; it may reach outside the volume."""
        z, y, x = (round(c) for c in center_zyx)
        return Box((z, y, x), (1, 1, 1)).grown(self.half_zyx)

    def sample(self, window: np.ndarray, center_zyx: Sequence[float], angle_deg: float, how: int) -> np.ndarray:
        """The planes of one patch.

        Args:
            window: (Z, Y, X) uint8, extending at least ``half_zyx`` from the centre.
            center_zyx: centre of the patch, in voxels of the window.
            angle_deg: rotation of the patch within the window.
            how: OpenCV's interpolation, INTER_LINEAR or INTER_NEAREST.

        Returns:
            (P, W, W) uint8.
        """
        z, *origin = center_zyx
        middle = round(z)
        if self.config.planes == "orthogonal":
            across, along = self._planes_with_z(window, center_zyx, angle_deg, how)
            return np.stack([across, self._section(window[middle], origin, angle_deg, how), along])
        reach = self.step * (self.config.num_planes // 2)
        sections = window[middle - reach : middle + reach + 1 : self.step]
        return np.stack([self._section(section, origin, angle_deg, how) for section in sections])

    def _section(self, section: np.ndarray, origin_yx: Sequence[float], angle_deg: float, how: int) -> np.ndarray:
        """Sample a (Y, X) section on a (W, W) grid centred on ``origin_yx`` and rotated by ``angle_deg``."""
        c, s = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
        # Maps (column, row) of the patch, relative to its centre, to (x, y) of the window. One patch row down is a
        # step of (c, -s) in the window's (row, column).
        matrix = np.array([[c, -s, 0.0], [s, c, 0.0]])
        matrix[0, :2] *= self.pixel_zyx[2]
        matrix[1, :2] *= self.pixel_zyx[1]
        width = self.config.width_px
        matrix[:, 2] = np.array(origin_yx)[::-1] - matrix[:, :2] @ [(width - 1) / 2, (width - 1) / 2]
        return cv2.warpAffine(
            section, matrix, (width, width), flags=how | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
        )

    def _planes_with_z(
        self, window: np.ndarray, center_zyx: Sequence[float], angle_deg: float, how: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The two planes of an orthogonal patch that contain the Z axis.

        Returns:
            The plane across the object, axes (Z, across), and the one along it, axes (along, Z); (W, W) uint8 each.
            The axes across and along are those of the central section.
        """
        c, s = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
        steps = np.arange(self.config.width_px) - (self.config.width_px - 1) / 2
        z = np.clip(center_zyx[0] + steps * self.pixel_zyx[0], 0, len(window) - 1).astype(np.float32)
        cuts = []
        for down, right in ((s, c), (c, -s)):
            y = (center_zyx[1] + steps * down * self.pixel_zyx[1]).astype(np.float32)
            x = (center_zyx[2] + steps * right * self.pixel_zyx[2]).astype(np.float32)
            lines = _points(window, y, x, how)  # (sections, W)
            at = np.broadcast_to(np.arange(len(steps), dtype=np.float32), (len(z), len(steps)))
            cuts.append(cv2.remap(lines, np.ascontiguousarray(at), np.repeat(z[:, None], len(steps), 1), how))
        return cuts[0], cuts[1].T

    def smoothed(self, window: np.ndarray) -> np.ndarray:
        """The window blurred in plane, if patch pixels are coarser than voxels, so that sampling does not alias.

        Args:
            window: (Z, Y, X) uint8.

        Returns:
            The same shape and dtype; of a stack only the sections that are sampled are filled, the others are 0.
        """
        _, y, x = self.pixel_zyx
        if max(y, x) <= 1.0:
            return window
        sigma = [0.5 * math.sqrt(max(v * v - 1, 1e-3)) for v in (y, x)]
        needed = self.step if self.config.planes == "stack" else 1
        result = np.zeros_like(window)
        for z in range(0, len(window), needed):
            result[z] = cv2.GaussianBlur(
                window[z], (0, 0), sigmaX=sigma[1], sigmaY=sigma[0], borderType=cv2.BORDER_REPLICATE
            )
        return result


def _points(window: np.ndarray, y: np.ndarray, x: np.ndarray, how: int) -> np.ndarray:
    """Sample every section of a window at the same points.

    Args:
        window: (Z, Y, X) uint8.
        y: (N,) float rows.
        x: (N,) float columns. Points outside the window take the value at its border.
        how: OpenCV's interpolation, INTER_LINEAR or INTER_NEAREST.

    Returns:
        (Z, N) uint8.
    """
    height, width = window.shape[1:]
    y, x = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
    if how == cv2.INTER_NEAREST:
        return window[:, np.rint(y).astype(int), np.rint(x).astype(int)]
    y0, x0 = y.astype(int), x.astype(int)
    y1, x1 = np.minimum(y0 + 1, height - 1), np.minimum(x0 + 1, width - 1)
    v, u = y - y0, x - x0
    upper = window[:, y0, x0] * (1 - u) + window[:, y0, x1] * u
    lower = window[:, y1, x0] * (1 - u) + window[:, y1, x1] * u
    return np.rint(upper * (1 - v) + lower * v).astype(np.uint8)
