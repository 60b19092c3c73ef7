"""Aligned patches: each candidate as a small upright (image, mask) pair that the two streams can compare.

Knows numpy and OpenCV; must not know torch, projects or models. One section per candidate (Lin 2020, figure 2 and
published code): the most central one, cut through a window sqrt(2) times the patch, rotated about its centre.
A synapse stands upright with its presynaptic side on the left; anything else lies along its main axis, upright.
Where the published code regresses column on row, which tilts when the masks are apart, the axis here comes from
orthogonal regression (principal component). Beyond the published section, a patch may hold several planes: a short
stack of sections, or the three orthogonal ones. The plane in the middle always is the central section.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from pydantic import Field, model_validator
from scipy import ndimage

from twostream.base import progress
from twostream.base.config import Config
from twostream.base.geometry import Box
from twostream.candidates.candidate import Candidate
from twostream.volume import Volume, read_windows

CONTACT_MARGIN_PX = 2.0
"""Voxels this much farther from the other side than the nearest ones still belong to the contact."""
PATCHES_PER_WINDOW = 8
"""Random patches cut from one window: few enough to be diverse, enough to spare reading."""
MIN_CONTACT_PX = 12
"""With fewer contact voxels than this an axis fitted to them is noise; the line between the sides decides."""
FINEST_PIXEL, COARSEST_PIXEL = 0.5, 2.0
"""Of patches that are fitted to their object: in voxels, and in usual patch pixels."""
SIGN_OF_SIDE = np.array([0, 1, -1], np.int8)
"""Of a candidate's mask: background, pre or inside, post."""


class PatchConfig(Config):
    """What is cut out of the image around a candidate.

    Attributes:
        width_px: side of the square patch; the streams need a multiple of 2 to the number of their strides.
        pixel_size_nm: size of a patch pixel; None takes the task's.
        object_widths: a patch is so many times as wide as its object (the root of the area of its central section),
            down to half a voxel and up to twice ``pixel_size_nm`` a pixel. None: all have the same pixel size.
            An outline then lies where any other would: what S bounded badly shows in the raw image (LOG.md).
        planes: "central": the most central section alone, as published; "stack": that one between its neighbours;
            "orthogonal": that one between two cuts through the object's centre, across and along it, which hold Z.
        stack_size: planes of a stack, odd.
        stack_step_nm: distance between planes of a stack; at least one section.
    """

    width_px: int = Field(64, ge=8, le=1024)
    pixel_size_nm: float | None = Field(None, ge=0.1, le=10_000)
    object_widths: float | None = Field(None, ge=0.5, le=100)
    planes: Literal["central", "stack", "orthogonal"] = "stack"
    stack_size: int = Field(3, ge=3, le=99)
    stack_step_nm: float = Field(40.0, gt=0, le=10_000)

    @model_validator(mode="after")
    def _has_a_middle(self) -> PatchConfig:
        if self.stack_size % 2 == 0:
            raise ValueError(f"stack_size is {self.stack_size}; expected an odd number, with a plane in the middle")
        return self

    def widest_pixel_nm(self, pixel_size_nm: float) -> float:
        """The largest size of a pixel, where ``pixel_size_nm`` is the usual one."""
        return pixel_size_nm if self.object_widths is None else COARSEST_PIXEL * pixel_size_nm

    def pixel_range_nm(self, voxel_size_nm: Sequence[float], pixel_size_nm: float) -> tuple[float, float]:
        """The smallest and the largest size of a pixel, where ``pixel_size_nm`` is the usual one."""
        widest = self.widest_pixel_nm(pixel_size_nm)
        finest = pixel_size_nm if self.object_widths is None else FINEST_PIXEL * min(voxel_size_nm[1:])
        return min(finest, widest), widest

    @property
    def num_planes(self) -> int:
        """Channels of a patch."""
        return {"central": 1, "stack": self.stack_size, "orthogonal": 3}[self.planes]

    def step_sections(self, section_nm: float) -> int:
        """Sections between two planes of a stack: whole ones, at least one."""
        return max(1, round(self.stack_step_nm / section_nm))

    def depth_sections(self, section_nm: float, pixel_size_nm: float) -> int:
        """How many sections a patch reaches above and below its central one."""
        stack = self.step_sections(section_nm) * (self.stack_size // 2)
        upright = math.ceil(self.width_px / 2 * pixel_size_nm / section_nm) + 1
        return {"central": 0, "stack": stack, "orthogonal": upright}[self.planes]


@dataclass(frozen=True)
class PatchPair:
    """One candidate as the streams see it.

    Attributes:
        image: (P, W, W) uint8, 0 black. P planes, the central section in the middle: ``PatchConfig.planes``.
        mask: (P, W, W) int8: +1 pre (or inside), -1 post, 0 background.
        angle_deg: rotation that was undone; 0 = stood upright already.
        section: Z of the central section, voxels of the image.
        padded: share of pixels that lay outside the volume (image: mirrored).
    """

    image: np.ndarray
    mask: np.ndarray
    angle_deg: float
    section: int
    padded: float

    @property
    def central(self) -> tuple[np.ndarray, np.ndarray]:
        """Image and mask of the central section, (W, W) each: what a person is shown."""
        middle = len(self.image) // 2
        return self.image[middle], self.mask[middle]


def central_section(mask: np.ndarray) -> int:
    """Index of the section nearest the middle of a (Z, Y, X) mask that holds any of it.

    Of two that are as near, the one that holds more, then the lower one: the published code always takes the lower one,
    and of an object two sections deep that may be a sliver.
    """
    area = np.count_nonzero(mask, axis=(1, 2))
    filled = np.flatnonzero(area)
    distance = np.abs(filled - (len(mask) - 1) / 2)
    nearest = filled[distance == distance.min()]
    return int(nearest[np.argmax(area[nearest])])


def upright_angle(section: np.ndarray, size_yx: Sequence[float] = (1.0, 1.0)) -> float:
    """Angle of a (Y, X) mask section (1 pre or inside, 2 post) from upright, in degrees, in (-180, 180].

    Turning the picture by ``-angle`` about its centre stands the object upright, with pre on the left. Where pixels are
    not square, ``size_yx`` is theirs: angles are those of the tissue.
    """
    size = np.asarray(size_yx, float) / size_yx[0]
    pre, post = np.argwhere(section == 1) * size, np.argwhere(section == 2) * size
    if len(pre) and len(post):
        across = post.mean(0) - pre.mean(0)
        axis = _contact_axis(section, across, size)
        # Upright with pre left: the axis points down (+row) and post lies to its right (+column).
        if axis[0] * across[1] - axis[1] * across[0] < 0:
            axis = -axis
    else:
        points = np.argwhere(section > 0) * size
        axis = _principal_axis(points)
        # An axis has no head: let the heavier tail point down, so that like objects stand alike.
        along = (points - points.mean(0)) @ axis
        if (along**3).sum() < 0:
            axis = -axis
    return math.degrees(math.atan2(-axis[1], axis[0]))


def _contact_axis(section: np.ndarray, across: np.ndarray, size_yx: np.ndarray) -> np.ndarray:
    """Unit vector (row, column) along the cleft: principal axis of the pixels where the sides face each other."""
    facing = []
    for mine, other in ((1, 2), (2, 1)):
        away = (section != other).astype(np.uint8)
        if size_yx[0] == size_yx[1]:
            distance = cv2.distanceTransform(away, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        else:
            distance = ndimage.distance_transform_edt(away, sampling=size_yx)
        mine_yx = np.argwhere(section == mine)
        reach = distance[tuple(mine_yx.T)]
        facing.append(mine_yx[reach <= reach.min() + CONTACT_MARGIN_PX] * size_yx)
    # Each side is centred on its own: otherwise the gap between the sides would pull the axis across the cleft.
    points = np.concatenate([f - f.mean(0) for f in facing])
    if min(map(len, facing)) >= MIN_CONTACT_PX / 2 and len(points) >= MIN_CONTACT_PX:
        return _principal_axis(points)
    normal = np.array([-across[1], across[0]])
    length = np.linalg.norm(normal)
    return normal / length if length > 0 else np.array([1.0, 0.0])


def _principal_axis(points: np.ndarray) -> np.ndarray:
    """Direction of largest spread of (N, 2) points; upright for a point or a disc."""
    centred = points - points.mean(0)
    (rows, mixed), (_, columns) = centred.T @ centred
    # The larger eigenvector of a symmetric 2 x 2 matrix, written out.
    if math.hypot(rows - columns, 2 * mixed) <= 1e-9 * (rows + columns):
        return np.array([1.0, 0.0])
    angle = 0.5 * math.atan2(2 * mixed, rows - columns)
    return np.array([math.cos(angle), math.sin(angle)])


def candidate_angle(candidate: Candidate, voxel_size_nm: Sequence[float]) -> float:
    """``upright_angle`` of the candidate's central section, in degrees."""
    return upright_angle(candidate.mask[central_section(candidate.mask)], voxel_size_nm[1:])


def cut(volume: Volume, candidate: Candidate, config: PatchConfig, pixel_size_nm: float) -> PatchPair:
    """Cut and align one candidate; see ``cut_all``."""
    return next(cut_all(volume, [candidate], config, pixel_size_nm))[1]


def cut_all(
    volume: Volume, candidates: Sequence[Candidate], config: PatchConfig, pixel_size_nm: float
) -> Iterator[tuple[int, PatchPair]]:
    """Cut and align candidates, reading each chunk of the volume once.

    Args:
        volume: the (Z, Y, X) uint8 image.
        candidates: with their masks, in any order.
        config: what is cut.
        pixel_size_nm: size of a patch pixel, used where ``config`` leaves it open.

    Yields:
        Row of the candidate and its pair, in the order in which the chunks of the volume come.
    """
    fixed = _Lens.of(volume, config, pixel_size_nm)
    lenses = [fixed if config.object_widths is None else fixed.fitted_to(candidate, volume) for candidate in candidates]
    poses = [_Pose.of(candidate, lens) for candidate, lens in zip(candidates, lenses, strict=True)]
    windows = [lens.window(pose.center_zyx) for pose, lens in zip(poses, lenses, strict=True)]
    for row, array in read_windows(volume, windows):
        yield row, _pair(lenses[row], poses[row], candidates[row], windows[row], array, volume.box)


@dataclass(frozen=True)
class _Pose:
    """How a candidate lies: centre of its central section's box, in voxels of the image, and angle from upright."""

    center_zyx: tuple[int, float, float]
    angle_deg: float

    @classmethod
    def of(cls, candidate: Candidate, lens: _Lens) -> _Pose:
        z_local = central_section(candidate.mask)
        section = candidate.mask[z_local]
        rows, columns = np.flatnonzero(section.any(1)), np.flatnonzero(section.any(0))
        middle = (rows[0] + rows[-1]) / 2, (columns[0] + columns[-1]) / 2
        half = [lens.config.width_px / 2 * pixel for pixel in lens.pixel_zyx[1:]]
        if max(rows[-1] - rows[0], columns[-1] - columns[0]) > min(half):
            # A large, hollow object would not be seen at all: then the pixel of it that is nearest the middle.
            places = np.argwhere(section)
            away = (places - middle) / half
            nearest = int(np.square(away).sum(1).argmin())
            middle = tuple(places[nearest]) if np.abs(away[nearest]).max() > 0.9 else middle
        z, y, x = candidate.box.offset_zyx
        size_yx = 1 / lens.pixel_zyx[1], 1 / lens.pixel_zyx[2]
        return cls((z + z_local, y + float(middle[0]), x + float(middle[1])), upright_angle(section, size_yx))


@dataclass(frozen=True)
class _Lens:
    """Takes the planes of a patch out of a window of voxels.

    Attributes:
        config: which planes.
        pixel_zyx: voxels per patch pixel, along each axis.
        step: sections between the planes of a stack.
        depth: sections that a patch reaches above and below its central one.
    """

    config: PatchConfig
    pixel_zyx: tuple[float, float, float]
    step: int
    depth: int

    @classmethod
    def of(cls, volume: Volume, config: PatchConfig, pixel_size_nm: float) -> _Lens:
        pixel_nm = config.pixel_size_nm or pixel_size_nm
        z, y, x = (pixel_nm / v for v in volume.voxel_size_nm)
        section_nm = volume.voxel_size_nm[0]
        return cls(config, (z, y, x), config.step_sections(section_nm), config.depth_sections(section_nm, pixel_nm))

    def fitted_to(self, candidate: Candidate, volume: Volume) -> _Lens:
        """The lens whose patch is ``object_widths`` times as wide as the candidate."""
        assert self.config.object_widths is not None
        _, y, x = volume.voxel_size_nm
        area_nm2 = np.count_nonzero(candidate.mask[central_section(candidate.mask)]) * y * x
        pixel_nm = self.config.object_widths * math.sqrt(area_nm2) / self.config.width_px
        finest, widest = self.config.pixel_range_nm(volume.voxel_size_nm, self.pixel_zyx[1] * y)
        pixel_nm = min(max(pixel_nm, finest), widest)
        return _Lens.of(volume, self.config.model_copy(update={"pixel_size_nm": pixel_nm}), pixel_nm)

    @property
    def half_zyx(self) -> tuple[int, int, int]:
        """Voxels that a patch at any angle may need on each side of its centre."""
        half = self.config.width_px / 2
        y, x = (math.ceil(half * math.sqrt(2) * v) + 2 for v in self.pixel_zyx[1:])
        return self.depth, y, x

    def window(self, center_zyx: Sequence[float]) -> Box:
        """The voxels around a centre."""
        z, y, x = (round(c) for c in center_zyx)
        return Box((z, y, x), (1, 1, 1)).grown(self.half_zyx)

    def take(self, window: np.ndarray, center_zyx: Sequence[float], angle_deg: float, how: int) -> np.ndarray:
        """The planes of one patch.

        Args:
            window: (Z, Y, X) uint8, wide enough for ``half_zyx`` around the centre.
            center_zyx: in voxels of the window.
            angle_deg: by which the patch is turned in the window.
            how: of OpenCV, INTER_LINEAR or INTER_NEAREST.

        Returns:
            (P, W, W) uint8.
        """
        z, *origin = center_zyx
        middle = round(z)
        if self.config.planes == "orthogonal":
            across, along = self._upright_cuts(window, center_zyx, angle_deg, how)
            return np.stack([across, self._section(window[middle], origin, angle_deg, how), along])
        reach = self.step * (self.config.num_planes // 2)
        sections = window[middle - reach : middle + reach + 1 : self.step]
        return np.stack([self._section(section, origin, angle_deg, how) for section in sections])

    def _section(self, section: np.ndarray, origin_yx: Sequence[float], angle_deg: float, how: int) -> np.ndarray:
        """Sample a (Y, X) section on the (W, W) grid that is turned by ``angle_deg`` about ``origin_yx``."""
        c, s = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
        # Patch (column u, row v), from its centre -> window (x, y): a turned step down is (c, -s) in (row, column).
        matrix = np.array([[c, -s, 0.0], [s, c, 0.0]])
        matrix[0, :2] *= self.pixel_zyx[2]
        matrix[1, :2] *= self.pixel_zyx[1]
        width = self.config.width_px
        matrix[:, 2] = np.array(origin_yx)[::-1] - matrix[:, :2] @ [(width - 1) / 2, (width - 1) / 2]
        return cv2.warpAffine(
            section, matrix, (width, width), flags=how | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
        )

    def _upright_cuts(
        self, window: np.ndarray, center_zyx: Sequence[float], angle_deg: float, how: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The plane across the object, (Z, across), and the one along it, (along, Z): each shares an axis with the
        section between them."""
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
        """Blurred in plane to the patch's pixel size, where that is coarser than the image's voxels."""
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
    """Every section of (Z, Y, X) uint8 at (N,) places: (Z, N) uint8, linear or nearest, the rim going on outside."""
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


def _pair(lens: _Lens, pose: _Pose, candidate: Candidate, window: Box, array: np.ndarray, whole: Box) -> PatchPair:
    """The pair of one candidate out of its window: (Z, Y, X) uint8 of ``window``, which may leave the image."""
    mask = np.zeros(array.shape, np.uint8)
    common = window.intersection(candidate.box)
    mask[common.relative_to(window).slices] = candidate.mask[common.relative_to(candidate.box).slices]
    center = [c - o for c, o in zip(pose.center_zyx, window.offset_zyx, strict=True)]
    image = lens.take(lens.smoothed(array), center, pose.angle_deg, cv2.INTER_LINEAR)
    sides = lens.take(mask, center, pose.angle_deg, cv2.INTER_NEAREST)
    padded = 0.0
    if not whole.contains(window):
        outside = np.ones(array.shape, np.uint8)
        outside[window.intersection(whole).relative_to(window).slices] = 0
        padded = float(lens.take(outside, center, pose.angle_deg, cv2.INTER_NEAREST).mean())
    signed = SIGN_OF_SIDE[sides]
    return PatchPair(image, signed, pose.angle_deg, pose.center_zyx[0], padded)


def random_patches(volume: Volume, number: int, config: PatchConfig, pixel_size_nm: float, seed: int) -> np.ndarray:
    """Raw patches at random places and angles of the whole volume, for the unsupervised stream.

    Args:
        volume: the (Z, Y, X) uint8 image.
        number: patches wanted.
        config, pixel_size_nm: as for ``cut_all``.
        seed: the patches depend on it alone.

    Returns:
        (number, P, W, W) uint8. Cut from windows of several patches each, so that a chunk is not read for every patch.
    """
    rng = np.random.default_rng(seed)
    lens = _Lens.of(volume, config, pixel_size_nm)
    depth, *half = lens.half_zyx
    span = [min(6 * h, max(s, 2 * h + 1)) for h, s in zip(half, volume.shape_zyx[1:], strict=True)]
    windows = []
    for _ in range(-(-number // PATCHES_PER_WINDOW)):
        corner = [int(rng.integers(max(1, s - w + 1))) for s, w in zip(volume.shape_zyx[1:], span, strict=True)]
        z = int(rng.integers(volume.shape_zyx[0]))
        windows.append(Box((z - depth, corner[0], corner[1]), (2 * depth + 1, span[0], span[1])))
    result = np.empty((number, config.num_planes, config.width_px, config.width_px), np.uint8)
    with progress.task("cut raw patches", total=number) as advance:
        for row, array in read_windows(volume, windows):
            own = np.random.default_rng([seed, row])  # windows come in the order of the chunks
            smooth = lens.smoothed(array)
            first = row * PATCHES_PER_WINDOW
            patches = result[first : first + PATCHES_PER_WINDOW]
            for patch in patches:
                origin = [own.uniform(h, max(s - h, h + 1e-9)) for h, s in zip(half, span, strict=True)]
                patch[...] = lens.take(smooth, (depth, *origin), own.uniform(-180, 180), cv2.INTER_LINEAR)
            advance(len(patches))
    return result


def turned(patch: np.ndarray, planes: str, rng: np.random.Generator, *, upright: bool) -> np.ndarray:
    """A patch as the mirrored or turned object would have given it.

    Args:
        patch: (P, W, W).
        planes: of ``PatchConfig``.
        upright: leave it standing, sides in place: mirrored top to bottom and in Z only.

    Returns:
        A copy of the same shape.
    """
    flip_z, flip_v, flip_u, quarter = (bool(rng.random() < 0.5) for _ in range(4))
    flip_u, quarter = flip_u and not upright, quarter and not upright
    if planes == "orthogonal":  # (Z, u), (v, u), (v, Z): each axis is flipped wherever it is
        across, section, along = patch
        step = {True: -1, False: 1}
        z, v, u = step[flip_z], step[flip_v], step[flip_u]
        return np.stack([across[::z, ::u], section[::v, ::u], along[::v, ::z]])
    if quarter:
        patch = np.rot90(patch, axes=(-2, -1))
    axes = tuple(axis for axis, flipped in ((0, flip_z), (1, flip_v), (2, flip_u)) if flipped)
    return np.flip(patch, axes).copy()
