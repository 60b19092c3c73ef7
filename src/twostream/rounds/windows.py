"""Windows of a round: which boxes are searched for missed objects, and what S learns where nothing was missed.

A window is drawn with a known probability, so that what is found in windows estimates what was missed everywhere
(``project/recall.py``). The equations are in ``docs/windows.md``.

Knows the round's probability and segmentation, and the ledger; must not know how S is trained.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from twostream.base import progress
from twostream.base.geometry import Box, to_voxels
from twostream.candidates.growing import MIN_PEAK
from twostream.candidates.stored import StoredCandidates
from twostream.candidates.table import DEFAULT_VOLUME
from twostream.models.segmentation.lessons import Lesson
from twostream.project.project import Project
from twostream.project.records import Window
from twostream.project.segmentation import segmentation_of
from twostream.project.tiles import Tiles, tiles_of
from twostream.rounds.predict import probability_of
from twostream.task.answers import AnswerKind
from twostream.volume.windows import read_windows, whole_chunks

# -- drawing ----------------------------------------------------------------------------------------------------------


def draw_windows(project: Project, round_number: int) -> list[Window]:
    """The windows that a round asks, in raster order: ``query.window_share`` of its budget.

    Tiles that were searched before, and tiles that show one single grey value, are not drawn.
    """
    config = project.config.query
    number = round(config.window_share * config.budget)
    if number == 0:
        if config.window_share:
            progress.say(
                f"  no window is asked: query.window_share {config.window_share:g} of {config.budget} answers is less "
                f"than one"
            )
        return []
    grid = tiles_of(project)
    tiles = _unsearched(grid.boxes(), [box for _, box in project.ledger.closed_boxes()])
    shown = {row for row, grey in read_windows(project.image, tiles) if np.ptp(grey) > 0}
    tiles = [tile for row, tile in enumerate(tiles) if row in shown]
    if len(tiles) < number:
        z, y, x = grid.shape_zyx
        progress.say(f"  windows of {z} x {y} x {x} voxels that are left to search: {len(tiles)}, fewer than {number}")
    if not tiles:
        return []
    faint = _faint(project, round_number, grid, tiles)
    sizes = drawing_sizes(np.array([box.num_voxels for box in tiles], float), faint)
    rng = np.random.default_rng(project.seed(round_number, "windows"))
    rows, inclusion = draw_systematically(sizes, number, rng)
    return [
        Window(
            tiles[row],
            float(inclusion[row]),
            reason={"faint": round(float(faint[row]), 4), "inclusion": round(float(inclusion[row]), 6)},
        )
        for row in rows.tolist()
    ]


def _unsearched(tiles: Sequence[Box], closed: Sequence[Box]) -> list[Box]:
    """Tiles that touch no box of ``closed``. These are tiles themselves unless ``query.window_nm`` was changed."""
    known = set(closed)
    others = known - set(tiles)
    return [tile for tile in tiles if tile not in known and not any(tile.intersects(box) for box in others)]


def _faint(project: Project, round_number: int, grid: Tiles, tiles: Sequence[Box]) -> np.ndarray:
    """(T,) float, what S faintly saw in each tile, in voxels: the sum of its probability outside candidates.

    Counted are voxels with at least ``MIN_PEAK``, from which a missed object could be grown, and at most the threshold
    of the candidates. 0 everywhere where instances came from elsewhere and there is no probability.
    """
    threshold = project.ledger.finished_steps()[(round_number, "propose")]["threshold"]
    if threshold is None:
        return np.zeros(len(tiles))
    probability, segmentation = probability_of(project, round_number), segmentation_of(project, round_number)
    total = np.zeros([-(-n // s) for n, s in zip(grid.whole.shape_zyx, grid.shape_zyx, strict=True)])
    for box in whole_chunks(probability):
        level = probability.read(box)[project.task.foreground] / 255.0
        is_faint = (level >= MIN_PEAK) & (level <= threshold) & (segmentation.read(box) == 0)
        total += sums_by_tile(np.where(is_faint, level, 0.0), box, grid.shape_zyx, total.shape)
    return np.array([total[tuple(np.floor_divide(tile.offset_zyx, grid.shape_zyx))] for tile in tiles])


def sums_by_tile(values: np.ndarray, box: Box, tile_shape_zyx: Sequence[int], num_zyx: Sequence[int]) -> np.ndarray:
    """Sum an array over the tiles of a grid that begins at voxel 0.

    Args:
        values: (Z, Y, X) over ``box``.
        box: in voxels of the image.
        tile_shape_zyx: shape of a tile in voxels.
        num_zyx: number of tiles along each axis.

    Returns:
        Array of shape ``num_zyx``; 0 for tiles outside ``box``.
    """
    first = [start // side for start, side in zip(box.offset_zyx, tile_shape_zyx, strict=True)]
    for axis in range(3):
        start, stop, side = box.offset_zyx[axis], box.stop_zyx[axis], tile_shape_zyx[axis]
        edges = [0, *range((first[axis] + 1) * side - start, stop - start, side)]
        values = np.add.reduceat(values, edges, axis=axis)
    total = np.zeros(tuple(num_zyx))
    total[tuple(slice(f, f + n) for f, n in zip(first, values.shape, strict=True))] = values
    return total


def drawing_sizes(num_voxels: np.ndarray, faint: np.ndarray) -> np.ndarray:
    """Sizes by which tiles are drawn: half in proportion to their voxels, half to what S faintly saw in them.

    Args:
        num_voxels: (T,) voxels of each tile, above 0.
        faint: (T,) what S faintly saw, at least 0.

    Returns:
        (T,) float, above 0, with the sum 1.
    """
    even = num_voxels / num_voxels.sum()
    return (even + faint / faint.sum()) / 2 if faint.sum() > 0 else even


def draw_systematically(sizes: np.ndarray, number: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Systematic sampling with probability proportional to size (Madow 1949).

    Args:
        sizes: (T,) above 0.
        number: how many to draw.
        rng: draws the start.

    Returns:
        The rows that were drawn, ascending: ``number`` of them, or all if there are no more; and (T,) float, the
        probability with which each row is drawn. Rows with more than 1 / ``number`` of what is left are drawn for
        certain.
    """
    if number >= len(sizes):
        return np.arange(len(sizes)), np.ones(len(sizes))
    inclusion, certain = np.zeros(len(sizes)), np.zeros(len(sizes), bool)
    while True:
        rest = ~certain
        inclusion[certain] = 1.0
        inclusion[rest] = (number - certain.sum()) * sizes[rest] / sizes[rest].sum()
        if not (inclusion[rest] > 1).any():
            break
        certain |= inclusion > 1
    edges = np.concatenate([[0.0], np.cumsum(inclusion)])
    edges[-1] = number  # the sum, without its rounding error
    passed = np.ceil(edges - rng.random()).astype(int)
    return np.flatnonzero(np.diff(passed) > 0), inclusion


# -- what S learns ----------------------------------------------------------------------------------------------------


def window_lessons(project: Project, before_round: int) -> list[tuple[int, Lesson]]:
    """Lessons from the windows of earlier rounds in which nothing (more) was missed.

    Such a window is background outside every candidate that its round had proposed, answered or not, outside the
    objects that people drew or marked, and outside a rim of ``refit.rim_nm`` around all of these.

    Args:
        project: the project.
        before_round: only windows of rounds before this one.

    Returns:
        (round in which the window was asked, its lesson), oldest first.
    """
    verdicts = project.ledger.window_verdicts()
    searched = [w for w in project.ledger.windows() if verdicts[w.id].kind == AnswerKind.NONE_MISSED]
    searched = [w for w in searched if w.round < before_round and w.volume == DEFAULT_VOLUME]
    if not searched:
        return []
    drawn = [a.drawing for a in project.ledger.current_answers() if a.drawing is not None]
    rim = to_voxels(project.config.refit.rim_nm, project.image.voxel_size_nm)
    rim = (min(rim[0], 1), *rim[1:])
    lessons = []
    proposed: dict[int, StoredCandidates] = {}
    for window in searched:
        if window.round not in proposed:
            proposed[window.round] = project.candidates(window.round)
        near = proposed[window.round].touching(window.box.grown(rim))
        mask = background_of(window.box, [*near.shapes(), *drawn], rim)
        if mask.any():
            lessons.append((window.round, Lesson(window.box, mask, "background", weight=0.0)))
    return lessons


def background_of(box: Box, objects: Sequence[tuple[Box, np.ndarray]], rim_zyx: Sequence[int]) -> np.ndarray:
    """Where a box that was searched is certainly background.

    Args:
        box: the searched box.
        objects: (box, mask) of everything that may be an object, the masks non-zero inside.
        rim_zyx: voxels (z, y, x) around an object of which nothing is known either.

    Returns:
        (Z, Y, X) uint8 over ``box``: 1 where it is background, else 0.
    """
    seen = box.grown(rim_zyx)  # what lies just outside has its rim inside
    taken = np.zeros(seen.shape_zyx, bool)
    for where, mask in objects:
        common = where.intersection(seen)
        if common.num_voxels:
            taken[common.relative_to(seen).slices] |= mask[common.relative_to(where).slices] > 0
    taken = ndimage.maximum_filter(taken, [2 * r + 1 for r in rim_zyx])
    return np.where(taken[box.relative_to(seen).slices], 0, 1).astype(np.uint8)
