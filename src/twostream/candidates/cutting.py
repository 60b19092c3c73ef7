"""Cutting: patches of candidates, and random patches of raw tissue, sampled from a volume.

A patch is sampled on a rotated grid centred on the candidate, from a window that holds it at any angle. Windows are
read so that each chunk of the volume is decoded once, however many candidates lie in it. Knows volumes and OpenCV; must
not know torch, projects or models.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from twostream.base import progress
from twostream.base.geometry import Box
from twostream.candidates.candidate import Candidate
from twostream.candidates.patches import PatchConfig, PatchPair
from twostream.candidates.pose import central_section, upright_angle
from twostream.volume import Volume, read_windows

PATCHES_PER_WINDOW = 8
"""Random patches cut from one window: more save reading, fewer are more diverse."""
SIGN_OF_SIDE = np.array([0, 1, -1], np.int8)
"""Value in a mask patch of 0 (background), 1 (inside, or pre) and 2 (post) in a candidate's mask."""


def cut(volume: Volume, candidate: Candidate, config: PatchConfig, pixel_size_nm: float) -> PatchPair:
    """Cut the aligned patches of one candidate; see ``cut_all``."""
    return next(cut_all(volume, [candidate], config, pixel_size_nm))[1]


def cut_all(
    volume: Volume, candidates: Sequence[Candidate], config: PatchConfig, pixel_size_nm: float
) -> Iterator[tuple[int, PatchPair]]:
    """Cut the aligned patches of candidates, reading each chunk of the volume once.

    Args:
        volume: the (Z, Y, X) uint8 image.
        candidates: in any order; their boxes are in voxels of ``volume``.
        config: what is cut.
        pixel_size_nm: size of a patch pixel in nm, used if ``config.pixel_size_nm`` is None.

    Yields:
        Row of the candidate in ``candidates``, and its pair; in the order in which the volume's chunks are read.

    Raises:
        VolumeError: the window of a candidate lies wholly outside the volume.
    """
    usual = _Sampler.of(volume, config, pixel_size_nm)
    fitted = config.object_widths is not None
    samplers = [usual.fitted_to(candidate, volume) if fitted else usual for candidate in candidates]
    poses = [_Pose.of(candidate, sampler) for candidate, sampler in zip(candidates, samplers, strict=True)]
    windows = [sampler.window(pose.center_zyx) for pose, sampler in zip(poses, samplers, strict=True)]
    for row, array in read_windows(volume, windows):
        yield row, _pair(samplers[row], poses[row], candidates[row], windows[row], array, volume.box)


@dataclass(frozen=True)
class _Pose:
    """Where a patch is centred and how it is turned.

    Attributes:
        center_zyx: voxels of the image: the central section, and usually the centre of its bounding box.
        angle_deg: ``pose.upright_angle`` of the central section.
    """

    center_zyx: tuple[int, float, float]
    angle_deg: float

    @classmethod
    def of(cls, candidate: Candidate, sampler: _Sampler) -> _Pose:
        """The pose of a candidate, for patches of the sampler's width."""
        z_local = central_section(candidate.mask)
        section = candidate.mask[z_local]
        rows, columns = np.flatnonzero(section.any(1)), np.flatnonzero(section.any(0))
        middle = (rows[0] + rows[-1]) / 2, (columns[0] + columns[-1]) / 2
        half = [sampler.config.width_px / 2 * pixel for pixel in sampler.pixel_zyx[1:]]
        if max(rows[-1] - rows[0], columns[-1] - columns[0]) > min(half):
            # The centre of a large, hollow object may be so far from its mask that the patch would miss it. Then the
            # patch is centred on the mask pixel nearest to the centre.
            places = np.argwhere(section)
            away = (places - middle) / half
            nearest = int(np.square(away).sum(1).argmin())
            middle = tuple(places[nearest]) if np.abs(away[nearest]).max() > 0.9 else middle
        z, y, x = candidate.box.offset_zyx
        size_yx = 1 / sampler.pixel_zyx[1], 1 / sampler.pixel_zyx[2]
        return cls((z + z_local, y + float(middle[0]), x + float(middle[1])), upright_angle(section, size_yx))


@dataclass(frozen=True)
class _Sampler:
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
    def of(cls, volume: Volume, config: PatchConfig, pixel_size_nm: float) -> _Sampler:
        """For patch pixels of ``config.pixel_size_nm``, or of ``pixel_size_nm`` if that is None."""
        pixel_nm = config.pixel_size_nm or pixel_size_nm
        z, y, x = (pixel_nm / v for v in volume.voxel_size_nm)
        section_nm = volume.voxel_size_nm[0]
        return cls(config, (z, y, x), config.step_sections(section_nm), config.depth_sections(section_nm, pixel_nm))

    def fitted_to(self, candidate: Candidate, volume: Volume) -> _Sampler:
        """A sampler whose patch is ``config.object_widths`` times as wide as the candidate, within limits."""
        assert self.config.object_widths is not None
        _, y, x = volume.voxel_size_nm
        area_nm2 = np.count_nonzero(candidate.mask[central_section(candidate.mask)]) * y * x
        pixel_nm = self.config.object_widths * math.sqrt(area_nm2) / self.config.width_px
        finest, widest = self.config.pixel_range_nm(volume.voxel_size_nm, self.pixel_zyx[1] * y)
        pixel_nm = min(max(pixel_nm, finest), widest)
        return _Sampler.of(volume, self.config.model_copy(update={"pixel_size_nm": pixel_nm}), pixel_nm)

    @property
    def half_zyx(self) -> tuple[int, int, int]:
        """Voxels along Z, Y, X that a patch at any angle needs on each side of its centre.

        In plane this is sqrt(2) times half the patch, as published, plus a margin for interpolation.
        """
        half = self.config.width_px / 2
        y, x = (math.ceil(half * math.sqrt(2) * v) + 2 for v in self.pixel_zyx[1:])
        return self.depth, y, x

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


def _pair(
    sampler: _Sampler, pose: _Pose, candidate: Candidate, window: Box, array: np.ndarray, whole: Box
) -> PatchPair:
    """The patches of one candidate.

    Args:
        sampler: for this candidate.
        pose: of this candidate.
        candidate: gives the mask.
        window: box of voxels to sample from; may reach outside the image.
        array: (Z, Y, X) uint8, the image over ``window``.
        whole: box of the image.
    """
    mask = np.zeros(array.shape, np.uint8)
    common = window.intersection(candidate.box)
    mask[common.relative_to(window).slices] = candidate.mask[common.relative_to(candidate.box).slices]
    center = [c - o for c, o in zip(pose.center_zyx, window.offset_zyx, strict=True)]
    image = sampler.sample(sampler.smoothed(array), center, pose.angle_deg, cv2.INTER_LINEAR)
    sides = sampler.sample(mask, center, pose.angle_deg, cv2.INTER_NEAREST)
    padded = 0.0
    if not whole.contains(window):
        outside = np.ones(array.shape, np.uint8)
        outside[window.intersection(whole).relative_to(window).slices] = 0
        padded = float(sampler.sample(outside, center, pose.angle_deg, cv2.INTER_NEAREST).mean())
    signed = SIGN_OF_SIDE[sides]
    return PatchPair(image, signed, pose.angle_deg, pose.center_zyx[0], padded)


def random_patches(volume: Volume, number: int, config: PatchConfig, pixel_size_nm: float, seed: int) -> np.ndarray:
    """Image patches at random places and angles of the volume, to train the unsupervised stream.

    Several patches are cut from each window that is read, so that not every patch costs a read.

    Args:
        volume: the (Z, Y, X) uint8 image.
        number: number of patches.
        config: what is cut.
        pixel_size_nm: size of a patch pixel in nm, used if ``config.pixel_size_nm`` is None.
        seed: the same seed gives the same patches.

    Returns:
        (number, P, W, W) uint8.
    """
    rng = np.random.default_rng(seed)
    sampler = _Sampler.of(volume, config, pixel_size_nm)
    depth, *half = sampler.half_zyx
    span = [min(6 * h, max(s, 2 * h + 1)) for h, s in zip(half, volume.shape_zyx[1:], strict=True)]
    windows = []
    for _ in range(-(-number // PATCHES_PER_WINDOW)):
        corner = [int(rng.integers(max(1, s - w + 1))) for s, w in zip(volume.shape_zyx[1:], span, strict=True)]
        z = int(rng.integers(volume.shape_zyx[0]))
        windows.append(Box((z - depth, corner[0], corner[1]), (2 * depth + 1, span[0], span[1])))
    result = np.empty((number, config.num_planes, config.width_px, config.width_px), np.uint8)
    with progress.task("cut raw patches", total=number) as advance:
        for row, array in read_windows(volume, windows):
            # One generator per window, because windows arrive in the order of the volume's chunks.
            window_rng = np.random.default_rng([seed, row])
            smooth = sampler.smoothed(array)
            first = row * PATCHES_PER_WINDOW
            patches = result[first : first + PATCHES_PER_WINDOW]
            for patch in patches:
                origin = [window_rng.uniform(h, max(s - h, h + 1e-9)) for h, s in zip(half, span, strict=True)]
                angle_deg = window_rng.uniform(-180, 180)
                patch[...] = sampler.sample(smooth, (depth, *origin), angle_deg, cv2.INTER_LINEAR)
            advance(len(patches))
    return result
