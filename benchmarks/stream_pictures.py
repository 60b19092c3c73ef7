"""The picture of docs/streams.md: aligned patches of a project's questions, and what its mask stream makes of masks.

python benchmarks/stream_pictures.py demo/two-stream docs/images/streams.png
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from twostream.project import Project
from twostream.streams.config import PICTURES_NAME

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


def main() -> None:
    project, path = Project(Path(sys.argv[1])), sys.argv[2]
    shown = [query.patch.central for query in project.ledger.queries()[:NUM_SHOWN]]
    with np.load(project.path(0, PICTURES_NAME.format("supervised"))) as stored:
        masks, decoded = stored["reconstructions"]
    rows = [row_of([image for image, _ in shown]), row_of([outlined(image, mask) for image, mask in shown])]
    rows += [row_of(list(masks[:NUM_SHOWN])), row_of(list(decoded[:NUM_SHOWN]))]
    cv2.imwrite(path, np.vstack(rows))


if __name__ == "__main__":
    main()
