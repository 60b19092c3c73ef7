"""The pictures of docs/streams.md.

streams.png: aligned patches of a project's questions, and what its mask stream makes of masks.
object_widths.png: mitochondria of synthetic tissue, in patches of one pixel size and in patches as wide as the object.

    python benchmarks/pictures/streams.py docs/images demo/two-stream
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import cv2
import numpy as np

from twostream.base.geometry import Box
from twostream.candidates.candidate import clean, extract
from twostream.candidates.cutting import cut_all
from twostream.candidates.patches import PatchConfig
from twostream.models.streams.config import PICTURES_NAME
from twostream.project.project import Project
from twostream.project.settings import BY_TASK
from twostream.task import get_task
from twostream.volume import MemoryVolume
from twostream.volume.synthetic import Tissue

NUM_SHOWN = 8
SCALE = 2
GAP = 8


def row_of(patches: list[np.ndarray]) -> np.ndarray:
    """(W, W) or (W, W, 3) uint8 patches side by side on white, enlarged."""
    coloured = [p if p.ndim == 3 else cv2.cvtColor(p, cv2.COLOR_GRAY2BGR) for p in patches]
    large = [cv2.resize(p, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_NEAREST) for p in coloured]
    return np.hstack([cv2.copyMakeBorder(p, 0, GAP, 0, GAP, cv2.BORDER_CONSTANT, value=(255,) * 3) for p in large])


def outlined(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A patch with its mask's outline: pre yellow, post blue."""
    picture = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    for side, colour in ((mask > 0, (0, 220, 255)), (mask < 0, (255, 160, 60))):
        contours, _ = cv2.findContours(side.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, contours, -1, colour, 1)
    return picture


def of_project(project: Project) -> np.ndarray:
    """Questions, outlined; masks, and what the decoder makes of them."""
    shown = [query.patch.central for query in project.ledger.queries()[:NUM_SHOWN]]
    with np.load(project.path(0, PICTURES_NAME.format("supervised"))) as stored:
        masks, decoded = stored["reconstructions"]
    rows = [row_of([image for image, _ in shown]), row_of([outlined(image, mask) for image, mask in shown])]
    rows += [row_of(list(masks[:NUM_SHOWN])), row_of(list(decoded[:NUM_SHOWN]))]
    return np.vstack(rows)


def of_widths() -> np.ndarray:
    """Mitochondria, small to large, at the task's pixel size and as wide as the laptop preset says."""
    size_nm, shape = (30.0, 4.0, 4.0), (32, 1024, 1024)
    task, tissue = get_task("mitochondria", size_nm), Tissue(seed=1, voxel_size_nm=size_nm)
    labels = tissue.mitochondria(Box.whole(shape))
    labels = np.unique(labels, return_inverse=True)[1].reshape(shape).astype(np.uint32)
    objects = extract(
        clean(labels, task, round(task.min_object_nm3 / math.prod(size_nm))),
        np.full(shape, 255, np.uint8),
        task,
        (0, 0, 0),
    )
    whole = [
        c for c in objects if min(c.box.offset_zyx[1:]) > 0 and max(c.box.stop_zyx[1:]) < max(shape)
    ]  # not cut off
    by_size = sorted(whole, key=lambda candidate: candidate.num_voxels)
    chosen = [by_size[i] for i in np.linspace(0, len(by_size) - 1, NUM_SHOWN).round().astype(int)]
    image, rows = MemoryVolume(tissue.image(Box.whole(shape)), size_nm), []
    for config in (PatchConfig(), PatchConfig(**BY_TASK["mitochondria"]["patches"])):
        pairs = dict(cut_all(image, chosen, config, task.patch_pixel_size_nm))
        rows.append(row_of([outlined(*pairs[i].central) for i in range(NUM_SHOWN)]))
    return np.vstack(rows)


def main() -> None:
    folder = Path(sys.argv[1])
    cv2.imwrite(str(folder / "object_widths.png"), of_widths())
    if len(sys.argv) > 2:
        cv2.imwrite(str(folder / "streams.png"), of_project(Project(Path(sys.argv[2]))))


if __name__ == "__main__":
    main()
