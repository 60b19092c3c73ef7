"""The desk: what all requests share of one project, and a query or window as the page shows it.

Knows the project, its queue, pictures and cards; must not know requests.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from twostream.base.errors import LedgerBusyError, LedgerError
from twostream.base.geometry import Box
from twostream.candidates.sampling import patch_pixel_nm
from twostream.project.project import Project
from twostream.project.records import Answer, Query, Window
from twostream.report.answer_styles import answer_styles
from twostream.report.gallery import card, reason_words
from twostream.task import TASKS
from twostream.web.decisions import Decisions
from twostream.web.neuroglancer_volumes import NeuroglancerVolumes
from twostream.web.pictures import Pictures, view_box
from twostream.web.queue import Queue
from twostream.web.running import Runner
from twostream.web.security import Security
from twostream.web.windows import WindowPictures

NUM_QUERIES = 2000
"""Queries that are kept in memory with their cards."""


@dataclass
class Desk:
    """One project on the page.

    Attributes:
        project: the project.
        security: who may do what.
        may_run: whether people may start the next round.
        neuroglancer: links and volumes for Neuroglancer; None without them.
    """

    project: Project
    security: Security
    may_run: bool = False
    neuroglancer: NeuroglancerVolumes | None = None
    queue: Queue = field(init=False)
    decisions: Decisions = field(init=False)
    pictures: Pictures = field(init=False)
    windows: WindowPictures = field(init=False)
    runner: Runner = field(init=False)

    def __post_init__(self) -> None:
        self.queue, self.pictures, self.runner = Queue(self.project), Pictures(self.project), Runner(self.project)
        self.windows = WindowPictures(self.project, self.pictures)
        self.decisions = Decisions(self.project.ledger, self.project.config.proofreading.lease_seconds)
        self._shown: OrderedDict[int, tuple[Query | Window, dict[str, Any]]] = OrderedDict()
        self._lock, self._making = threading.Lock(), threading.Lock()
        environment = Environment(
            loader=ChoiceLoader([PackageLoader("twostream.report"), PackageLoader("twostream.web")]),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._card = environment.get_template("query_card.html").module.query_card  # type: ignore[attr-defined]
        template = environment.get_template("window_card.html")
        self._window_card = template.module.window_card  # type: ignore[attr-defined]
        self.card_styles = environment.get_template("cards.css").render(answer_styles=answer_styles())

    @property
    def num_sides(self) -> int:
        """Sides of the task's objects."""
        return TASKS[self.project.config.task].num_sides

    def query(self, query_id: int) -> Query:
        """The query with an id.

        Raises:
            LedgerError: there is none, or it is a window.
        """
        found = self._entry(query_id)[0]
        if isinstance(found, Window):
            raise LedgerError(f"query {query_id} is a window; it has no candidate.")
        return found

    def window(self, window_id: int) -> Window:
        """The window with an id.

        Raises:
            LedgerError: there is none, or it is a query about a candidate.
        """
        found = self._entry(window_id)[0]
        if not isinstance(found, Window):
            raise LedgerError(f"query {window_id} is about candidate {found.candidate.id}; it is no window.")
        return found

    def picture(self, query_id: int) -> np.ndarray:
        """(H, W) uint8: the patch of a query, or the section through the middle of a window."""
        found = self._entry(query_id)[0]
        return self.windows.section(found) if isinstance(found, Window) else found.patch.central[0]

    def described(self, query_id: int, annotator: str) -> dict[str, Any]:
        """A query or window as plain values for the page, with the person's own answer."""
        values = self._entry(query_id)[1]
        own = next((a for a in self.project.ledger.current_answers(query_id) if a.annotator == annotator), None)
        return values | {"mine": None if own is None else answer_values(own)}

    def drawing(self, query_id: int, annotator: str) -> tuple[Box, np.ndarray]:
        """What a person has drawn in their current answer to a query: (box, mask), as in ``Answer.drawing``.

        Raises:
            LedgerError: they have drawn nothing.
        """
        own = (a for a in self.project.ledger.current_answers(query_id) if a.annotator == annotator)
        found = next((a.drawing for a in own if a.drawing is not None), None)
        if found is None:
            raise LedgerError(f"{annotator} has drawn nothing for query {query_id}.")
        return found

    def _entry(self, query_id: int) -> tuple[Query | Window, dict[str, Any]]:
        if found := self._known(query_id):
            return found
        # One card at a time: many threads that compute at once would keep decisions waiting for the interpreter.
        with self._making:
            if found := self._known(query_id):
                return found
            entry = self._made(query_id)
        with self._lock:
            self._shown[query_id] = entry
            while len(self._shown) > NUM_QUERIES:
                self._shown.popitem(last=False)
        return entry

    def _made(self, query_id: int) -> tuple[Query | Window, dict[str, Any]]:
        """A query or window, and what the page shows of it."""
        try:
            window = self.project.ledger.window(query_id)
        except LedgerBusyError:
            raise
        except LedgerError:
            query = self.project.ledger.query(query_id)
            return query, self._values(query)
        return window, self._window_values(window)

    def _known(self, query_id: int) -> tuple[Query | Window, dict[str, Any]] | None:
        """What is kept of a query."""
        with self._lock:
            if query_id in self._shown:
                self._shown.move_to_end(query_id)
            return self._shown.get(query_id)

    def _values(self, query: Query) -> dict[str, Any]:
        """What the page shows of a query, whoever looks at it."""
        project, image = self.project, self.pictures.image
        shown = card(query, [])
        width_px = query.patch.image.shape[-1]
        pixel_nm = patch_pixel_nm(query.candidate, project.config.patches, image.voxel_size_nm, project.pixel_size_nm)
        html = self._card(shown | {"patch": self._patch(query.id), "is_linked": True}, self._outline)
        return {
            "id": query.id,
            "asks": "candidate",
            "name": f"candidate {query.candidate.id}",
            "candidate": query.candidate.id,
            "round": query.round,
            "group": shown["group"],
            "cluster": shown["cluster"],
            "strategy": query.strategy,
            "score": query.candidate.score,
            "why": [word for word in (shown["group"], shown["cluster"], shown["why"]) if word],
            "remarks": [f"score {query.candidate.score:.2f}"],
            "box": box_values(query.candidate.box),
            "view": box_values(view_box(query.candidate, image, width_px * pixel_nm)),
            "center_zyx": query.candidate.center_zyx.tolist(),
            "neuroglancer": None if self.neuroglancer is None else f"api/queries/{query.id}/neuroglancer",
            "card": str(html),
        }

    def _window_values(self, window: Window) -> dict[str, Any]:
        """What the page shows of a window, whoever looks at it."""
        why = reason_words(window.reason)
        shown = self.windows.card(window) | {"strategy": window.strategy, "why": " · ".join(why)}
        html = self._window_card(shown | {"patch": self._patch(window.id)})
        return {
            "id": window.id,
            "asks": "window",
            "name": f"window {window.id}",
            "candidate": None,
            "round": window.round,
            "group": "",
            "cluster": "",
            "strategy": window.strategy,
            "score": None,
            "why": why,
            "remarks": [],
            "box": box_values(window.box),
            "view": box_values(self.windows.view(window)),
            "around": box_values(self.windows.around(window)),
            "center_zyx": self.windows.start(window),
            "neuroglancer": None,
            "card": str(html),
        }

    def _patch(self, query_id: int) -> str:
        """Where the picture of a card is; browsers keep it, and tomorrow another project may be served here."""
        return f"api/queries/{query_id}/patch.png?project={self.project.id}"

    @property
    def _outline(self) -> str:
        return "pre" if self.num_sides == 2 else "single"


def box_values(box: Box) -> dict[str, list[int]]:
    """A box as plain values."""
    return {"offset_zyx": list(box.offset_zyx), "shape_zyx": list(box.shape_zyx)}


def answer_values(answer: Answer) -> dict[str, Any]:
    """An answer as plain values, without its drawing."""
    return {
        "answer": answer.id,
        "query": answer.query,
        "window": answer.window,
        "kind": str(answer.kind),
        "reason": answer.reason,
        "annotator": answer.annotator,
        "seconds": answer.seconds,
        "answered_at": answer.answered_at,
        "is_drawn": answer.drawing is not None,
    }
