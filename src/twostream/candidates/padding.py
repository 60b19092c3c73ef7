"""Candidates on padding: where the image holds one single grey value, there is nothing to see and nothing to ask about.

Knows volumes and masks; must not know projects or rounds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from twostream.base.geometry import Box
from twostream.candidates.candidate import Candidate
from twostream.candidates.pose import central_section
from twostream.volume import Volume
from twostream.volume.windows import read_windows

RIM_PX = 2
"""Pixels around a mask that must hold the same value as well: a mask of one voxel always holds a single value, and a
small dark object may be saturated, but what surrounds it in tissue is not."""


def on_padding(image: Volume, candidates: Sequence[Candidate]) -> np.ndarray:
    """Which candidates lie on padding.

    A candidate does if the image has one single value under its mask, and within ``RIM_PX`` pixels of it, in the
    section that its patches are centred on. Each chunk of the image is read once.

    Args:
        image: (Z, Y, X).
        candidates: N candidates.

    Returns:
        (N,) bool.
    """
    result = np.zeros(len(candidates), bool)
    sections = [central_section(c.mask) for c in candidates]
    boxes = [_section_box(c.box, section) for c, section in zip(candidates, sections, strict=True)]
    for row, grey in read_windows(image, boxes):
        inside = np.pad(candidates[row].mask[sections[row]] > 0, RIM_PX)
        if _is_constant(grey[0][inside]):  # the rim is computed only for the few that get this far
            result[row] = _is_constant(grey[0][ndimage.binary_dilation(inside, iterations=RIM_PX)])
    return result


def _section_box(box: Box, section: int) -> Box:
    """One section of ``box``, grown by the rim in Y and X."""
    z, y, x = box.offset_zyx
    return Box((z + section, y, x), (1, *box.shape_zyx[1:])).grown((0, RIM_PX, RIM_PX))


def _is_constant(values: np.ndarray) -> bool:
    return bool((values == values[0]).all())
