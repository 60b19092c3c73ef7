"""Patches: the small, aligned (image, mask) pair that represents a candidate to the two streams and to a person.

The image patch is what the unsupervised stream sees, the mask patch what the supervised stream sees (Lin 2020, figure
2; docs/method.md, Aligned patches). Beyond the published single section, a patch may have several planes: a short stack
of sections, or three orthogonal planes. The plane in the middle is always the central section.

This module says what a patch is: its settings, its arrays, and how it may be reflected. ``pose`` says how a candidate
lies, ``cutting`` reads patches from a volume. Knows numpy; must not know volumes, torch or projects.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from twostream.base.config import Config

FINEST_PIXEL, COARSEST_PIXEL = 0.5, 2.0
"""Limits of the pixel size of patches fitted to their object: in voxels, and in usual patch pixels."""


class PatchConfig(Config):
    """What is cut out of the image around each candidate.

    Attributes:
        width_px: side of the square patch in pixels; the streams need a multiple of 2 to the power of their number of
            strided layers.
        pixel_size_nm: size of a patch pixel in nm; None takes the task's.
        object_widths: width of a patch in widths of its object, where an object's width is the square root of the area
            of its central section. The pixel size is then fitted to each object, between half a voxel and twice
            ``pixel_size_nm``. Outlines of all objects come to lie at about the same place in the patch, so that a badly
            drawn one is visible in the raw image (LOG.md). None gives every patch the same pixel size.
        planes: "central": the central section only, as published; "stack": the central section between its neighbours;
            "orthogonal": the central section between two planes through the object's centre that contain the Z axis,
            one across and one along the object.
        stack_size: number of planes of a stack, odd.
        stack_step_nm: distance in nm between planes of a stack, rounded to whole sections, at least one.
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
            raise ValueError(
                f"stack_size is {self.stack_size}; expected an odd number, so that one plane is the middle"
            )
        return self

    def widest_pixel_nm(self, pixel_size_nm: float) -> float:
        """Largest pixel size in nm that a patch may have, if ``pixel_size_nm`` is the usual one."""
        return pixel_size_nm if self.object_widths is None else COARSEST_PIXEL * pixel_size_nm

    def pixel_range_nm(self, voxel_size_nm: Sequence[float], pixel_size_nm: float) -> tuple[float, float]:
        """Smallest and largest pixel size in nm that a patch may have.

        Args:
            voxel_size_nm: (z, y, x) nm of the image.
            pixel_size_nm: the usual pixel size, which every patch has if ``object_widths`` is None.
        """
        widest = self.widest_pixel_nm(pixel_size_nm)
        finest = pixel_size_nm if self.object_widths is None else FINEST_PIXEL * min(voxel_size_nm[1:])
        return min(finest, widest), widest

    @property
    def num_planes(self) -> int:
        """Number of planes of a patch, which are the channels of a stream's input."""
        return {"central": 1, "stack": self.stack_size, "orthogonal": 3}[self.planes]

    def step_sections(self, section_nm: float) -> int:
        """Sections from one plane of a stack to the next, at least 1; ``section_nm`` is the voxel size along Z."""
        return max(1, round(self.stack_step_nm / section_nm))

    def depth_sections(self, section_nm: float, pixel_size_nm: float) -> int:
        """How many sections a patch extends above and below its central one.

        Args:
            section_nm: voxel size of the image along Z.
            pixel_size_nm: size of a patch pixel.
        """
        stack = self.step_sections(section_nm) * (self.stack_size // 2)
        upright = math.ceil(self.width_px / 2 * pixel_size_nm / section_nm) + 1
        return {"central": 0, "stack": stack, "orthogonal": upright}[self.planes]


@dataclass(frozen=True)
class PatchPair:
    """The image and the mask of one candidate, as the streams see them.

    Attributes:
        image: (P, W, W) uint8, 0 = black. P planes (``PatchConfig.planes``), the central section in the middle.
        mask: (P, W, W) int8: +1 inside, or on the presynaptic side; -1 on the postsynaptic side; 0 background.
        angle_deg: angle of the candidate from upright, which the patch undoes, in degrees.
        section: Z of the central section, in voxels of the image.
        padded: share of pixels outside the volume, in [0, 1]; the image is mirrored there.
    """

    image: np.ndarray
    mask: np.ndarray
    angle_deg: float
    section: int
    padded: float

    @property
    def central(self) -> tuple[np.ndarray, np.ndarray]:
        """Image and mask of the central section, (W, W) each; this is what a person is shown."""
        middle = len(self.image) // 2
        return self.image[middle], self.mask[middle]


def turned(patch: np.ndarray, planes: str, rng: np.random.Generator, *, upright: bool) -> np.ndarray:
    """A random reflection or quarter turn of a patch, equal to cutting the patch from the reflected or turned object.

    Args:
        patch: (P, W, W) image or mask.
        planes: ``PatchConfig.planes`` of the patch, because each arrangement of planes is reflected differently.
        rng: decides which reflections are made; each has probability 1/2.
        upright: keep the orientation that alignment gave the patch: reflect only along Z and top to bottom, so that
            pre stays on the left.

    Returns:
        A copy of the same shape and dtype.
    """
    flip_z, flip_v, flip_u, quarter = (bool(rng.random() < 0.5) for _ in range(4))
    flip_u, quarter = flip_u and not upright, quarter and not upright
    if (
        planes == "orthogonal"
    ):  # Their axes are (Z, u), (v, u), (v, Z); each axis is flipped in every plane that has it.
        across, section, along = patch
        step = {True: -1, False: 1}
        z, v, u = step[flip_z], step[flip_v], step[flip_u]
        return np.stack([across[::z, ::u], section[::v, ::u], along[::v, ::z]])
    if quarter:
        patch = np.rot90(patch, axes=(-2, -1))
    axes = tuple(axis for axis, flipped in ((0, flip_z), (1, flip_v), (2, flip_u)) if flipped)
    return np.flip(patch, axes).copy()
