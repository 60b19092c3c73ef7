"""The tiles from which windows are drawn: a regular grid over the part of the image that people may be asked about.

Knows boxes and settings; must not know probabilities or answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from twostream.base.geometry import Box, Vector, grid
from twostream.project.project import Project


@dataclass(frozen=True)
class Tiles:
    """Boxes of one shape that cover the image from its first voxel, without those that touch an excluded box.

    Attributes:
        whole: the image.
        shape_zyx: shape of a tile in voxels; the last one along an axis may be smaller.
        excluded: labels boxes and the guarded test box.
    """

    whole: Box
    shape_zyx: Vector
    excluded: tuple[Box, ...]

    def boxes(self) -> list[Box]:
        """All tiles, in raster order."""
        found = (block.write_box for block in grid(self.whole, self.shape_zyx))
        return [box for box in found if not any(box.intersects(other) for other in self.excluded)]

    def tile_of(self, box: Box) -> Box | None:
        """The tile in which an object with the bounding box ``box`` is counted: the one that holds the box's middle.

        None if the middle lies in no tile.
        """
        start = [
            o + (m - o) // s * s
            for m, o, s in zip(box.middle.offset_zyx, self.whole.offset_zyx, self.shape_zyx, strict=True)
        ]
        tile = Box.from_corners(start, [a + s for a, s in zip(start, self.shape_zyx, strict=True)])
        tile = tile.intersection(self.whole)
        excluded = not tile.num_voxels or any(tile.intersects(other) for other in self.excluded)
        return None if excluded else tile


def tiles_of(project: Project, shape_zyx: Sequence[int] | None = None) -> Tiles:
    """The tiles of a project.

    Args:
        project: the project.
        shape_zyx: shape of a tile in voxels; None takes that of the settings (``window_shape``).
    """
    z, y, x = shape_zyx or window_shape(project)
    excluded = [*project.boxes.labels, *([project.guarded_box] if project.guarded_box else [])]
    return Tiles(project.image.box, (z, y, x), tuple(excluded))


def window_shape(project: Project) -> Vector:
    """Shape of a window in voxels: a cube of ``query.window_nm``, at most the image.

    Without that setting its edge is the width of a patch: as much as the pictures of the task's candidates show, so
    that an object and its surroundings fit in.
    """
    edge_nm = project.config.query.window_nm or project.config.patches.width_px * project.pixel_size_nm
    image = project.image
    z, y, x = (
        min(extent, max(1, round(edge_nm / size)))
        for extent, size in zip(image.shape_zyx, image.voxel_size_nm, strict=True)
    )
    return z, y, x
