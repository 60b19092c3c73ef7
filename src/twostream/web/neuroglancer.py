"""Neuroglancer links: the state of the viewer for one query, at its place, with its object highlighted.

Knows queries and states; must not know HTTP or how volumes are served.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from twostream.base.geometry import Vector
from twostream.project.exchange.neuroglancer import dimensions, position
from twostream.project.exchange.points import inner_voxel
from twostream.project.records import Query
from twostream.volume.volume import VoxelSize

COLOURS = {1: {"1": "#ffd23f"}, 2: {"1": "#ff9f1c", "2": "#35a7ff"}}
"""{number of sides: {value of the mask: colour}}; the colours of the page."""
PANEL_PIXELS = 400
"""About the width of one of the four panels of a window."""
SHARE = 1 / 3
"""Of a panel that the candidate takes up, so that its surroundings are seen."""


@dataclass(frozen=True)
class Sources:
    """Where the viewer finds the volumes.

    Attributes:
        image: source of the image.
        candidate: of the query's mask as it was asked.
        candidates: of the newest segmentation; None if there is none.
    """

    image: str
    candidate: str
    candidates: str | None


def viewer_state(
    query: Query, sources: Sources, *, voxel_size_nm: VoxelSize, offset_zyx: Vector, num_sides: int
) -> dict[str, Any]:
    """The state of a viewer that shows a query.

    Args:
        query: as it was asked.
        sources: of the layers.
        voxel_size_nm: (z, y, x) in nm, of the image.
        offset_zyx: (z, y, x) of the image's first voxel in the coordinates of its data set, in voxels.
        num_sides: 2 for polarity, else 1.
    """
    candidate = query.candidate
    colours = COLOURS[num_sides]
    layers: list[dict[str, Any]] = [
        {"type": "image", "name": "image", "source": sources.image},
        {
            "type": "segmentation",
            "name": "candidate",
            "source": sources.candidate,
            "segments": list(colours),
            "segmentColors": colours,
            "selectedAlpha": 0.35,
        },
    ]
    if sources.candidates is not None:
        # Without a selected segment Neuroglancer shows all of them, unless it is told not to.
        others = {"segments": [], "ignoreNullVisibleSet": False}
        layers.append({"type": "segmentation", "name": "candidates", "source": sources.candidates} | others)
    scale = cross_section_scale(candidate.box.shape_zyx, voxel_size_nm)
    at = inner_voxel(candidate.mask, candidate.box, voxel_size_nm)
    return {
        "title": f"query {query.id}, candidate {candidate.id}",
        "dimensions": dimensions(voxel_size_nm),
        "position": position(at, offset_zyx),
        "crossSectionScale": scale,
        "projectionScale": scale * PANEL_PIXELS,
        "layers": layers,
        "selectedLayer": {"layer": "candidate", "visible": False},
        "layout": "4panel",
    }


def cross_section_scale(shape_zyx: Vector, voxel_size_nm: VoxelSize) -> float:
    """The zoom at which a box takes up ``SHARE`` of a panel.

    Args:
        shape_zyx: extent (z, y, x) of the box in voxels.
        voxel_size_nm: (z, y, x) in nm.

    Returns:
        Width of a pixel of the screen, in units of the smallest voxel edge; at least an eighth.
    """
    extent = max(n * v for n, v in zip(shape_zyx, voxel_size_nm, strict=True))
    return max(extent / (PANEL_PIXELS * SHARE) / min(voxel_size_nm), 0.125)
