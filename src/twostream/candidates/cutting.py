"""Cutting: aligned patches of candidates, sampled from a volume.

A patch is sampled on a rotated grid centred on the candidate, from a window that holds it at any angle. Windows are
read so that each chunk of the volume is decoded once, however many candidates lie in it. Knows volumes and candidates;
must not know torch, projects or models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from twostream.base.geometry import Box
from twostream.candidates.candidate import Candidate
from twostream.candidates.patches import PatchConfig, PatchPair
from twostream.candidates.pose import central_section, upright_angle
from twostream.candidates.sampling import Sampler
from twostream.volume import Volume, read_windows

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
    usual = Sampler.of(volume, config, pixel_size_nm)
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
    def of(cls, candidate: Candidate, sampler: Sampler) -> _Pose:
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


def _pair(sampler: Sampler, pose: _Pose, candidate: Candidate, window: Box, array: np.ndarray, whole: Box) -> PatchPair:
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
