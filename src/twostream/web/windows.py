"""Windows as the page shows them: where a view begins, the card, and the candidates of the round in it.

A window is a box about which a person says whether an object was missed in it. The page shows what was proposed there,
so that only what is outlined by nothing is looked for. Knows windows, candidates and pictures; must not know requests
or people.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from twostream.base.errors import InputError
from twostream.base.geometry import Box
from twostream.project.outlined import Outlined
from twostream.project.project import Project
from twostream.project.records import Window
from twostream.report.pictures import mask_path
from twostream.web.corrections import DrawingBody, drawing_of
from twostream.web.pictures import VIEW_VOXELS, Pictures

CONTEXT_SHARE = 0.25
"""The view reaches this share of the window's width beyond it on either side, so that what its border cuts is seen."""


@dataclass(frozen=True)
class Proposed:
    """A candidate in the view of a window.

    Attributes:
        id: of the candidate.
        kind: the kind of answer that counts; "" without one, or while people disagree.
        box, mask: what of the candidate lies in the view, (Z, Y, X) uint8.
    """

    id: int
    kind: str
    box: Box
    mask: np.ndarray


class WindowPictures:
    """What is shown of windows. Threads may use it at once.

    Args:
        project: the project.
        pictures: reads the image.
    """

    def __init__(self, project: Project, pictures: Pictures) -> None:
        self._project, self._pictures = project, pictures
        self._lock = threading.Lock()
        self._outlined: Outlined | None = None

    def around(self, window: Window) -> Box:
        """The window and its surroundings, inside the image."""
        margin = [int(CONTEXT_SHARE * length) for length in window.box.shape_zyx]
        return window.box.grown(margin).intersection(self._pictures.image.box)

    def view(self, window: Window) -> Box:
        """The box with which the view begins: the first sections, as many as a person can look at in seconds."""
        around = self.around(window)
        first, top, left = window.box.offset_zyx[0], *around.offset_zyx[1:]
        _, height, width = around.shape_zyx
        num = min(around.stop_zyx[0] - first, max(1, VIEW_VOXELS // (height * width)))
        return Box((first, top, left), (num, height, width))

    def start(self, window: Window) -> list[float]:
        """Where the view begins, (z, y, x) in voxels: in the first section, so that one way through shows all."""
        (z, y, x), (_, height, width) = window.box.offset_zyx, window.box.shape_zyx
        return [float(z), y + (height - 1) / 2, x + (width - 1) / 2]

    def section(self, window: Window) -> np.ndarray:
        """(Y, X) uint8 grey values of the section through the middle of a window, with its surroundings."""
        return self._pictures.image_block(self._middle(window), (1, 1, 1))[0]

    def card(self, window: Window) -> dict[str, Any]:
        """What the card of a window shows, as plain values: the outlines in its middle section, in voxels."""
        middle = self._middle(window)
        seen = np.zeros(middle.shape_zyx, bool)
        for one in self.proposed(window):
            shared = one.box.intersection(middle)
            seen[shared.relative_to(middle).slices] |= one.mask[shared.relative_to(one.box).slices] > 0
        frame = window.box.relative_to(middle)
        return {
            "id": window.id,
            "section": middle.offset_zyx[0],
            "box": str(window.box),
            "height": middle.shape_zyx[1],
            "width": middle.shape_zyx[2],
            "outline": mask_path(seen[0]),
            "frame": (frame.offset_zyx[2], frame.offset_zyx[1], frame.shape_zyx[2], frame.shape_zyx[1]),
        }

    def _middle(self, window: Window) -> Box:
        """The section through the middle of a window, with its surroundings."""
        around = self.around(window)
        middle = window.box.offset_zyx[0] + window.box.shape_zyx[0] // 2
        return Box((middle, *around.offset_zyx[1:]), (1, *around.shape_zyx[1:]))

    def proposed(self, window: Window) -> list[Proposed]:
        """What has a voxel in the view of a window, and so was not missed, with what people have said of it.

        Candidates of the window's round, and all that people were asked about up to it.
        """
        around = self.around(window)
        found = []
        for candidate in self._of_round(window.round).near(around):
            shared = candidate.box.intersection(around)
            mask = candidate.mask[shared.relative_to(candidate.box).slices]
            if mask.any():
                found.append((candidate.id, shared, mask))
        verdicts = self._project.ledger.verdicts([identity for identity, _, _ in found])
        kinds = {identity: verdict.kind or "" for identity, verdict in verdicts.items()}
        return [Proposed(identity, str(kinds.get(identity, "")), box, mask) for identity, box, mask in found]

    def _of_round(self, round_number: int) -> Outlined:
        with self._lock:
            if self._outlined is None or self._outlined.round != round_number:
                self._outlined = Outlined(self._project, round_number)
            return self._outlined


def proposed_values(proposed: Sequence[Proposed]) -> list[dict[str, Any]]:
    """Candidates in a window as plain values; one that is too large to travel is left out."""
    found = []
    for one in proposed:
        with suppress(InputError):
            drawing: DrawingBody = drawing_of(one.box, one.mask)
            found.append({"id": one.id, "kind": one.kind, "drawing": drawing.model_dump()})
    return found
