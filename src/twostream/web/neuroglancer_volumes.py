"""What Neuroglancer reads from us: the image, the newest segmentation and the masks of queries, read-only over HTTP.

    ng/TOKEN/image/...               the image, if Neuroglancer cannot read it where it lies
    ng/TOKEN/segmentation/ROUND/...  the candidates of the newest round
    ng/TOKEN/query/ID/...            the mask of a query as it was asked

The viewer is a page of another origin without our cookie, so that the token in the address opens the volumes. Only that
origin may read them from a browser. Knows HTTP and projects; must not write anything.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from twostream.base.errors import LedgerError, TwoStreamError
from twostream.base.geometry import Box
from twostream.project.exchange.neuroglancer import direct_source, link
from twostream.project.exchange.points import whole_offset
from twostream.project.project import Project
from twostream.project.records import Query
from twostream.project.segmentation import SEGMENTATION_NAME
from twostream.project.tables import latest_round
from twostream.task import TASKS
from twostream.volume import Volume, open_volume
from twostream.web.neuroglancer import Sources, viewer_state
from twostream.web.precomputed import Precomputed

CLIENT = "https://neuroglancer-demo.appspot.com/"
"""The client that opens the links unless another one is chosen."""
LOCAL_CLIENT = "neuroglancer/v/local/"
"""Path of the client that we serve ourselves (``neuroglancer_client.py``)."""
NUM_MASKS = 64
"""Masks of queries that are kept in memory."""
NUM_READERS = 4
"""Chunks that are made at once, in threads of their own: a viewer asks for dozens, and decisions must not wait for
them."""
NOTHING = "there is no such volume or chunk"
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""On every response; the last forbids other pages to embed what they may not read."""
KEPT = {"Cache-Control": "private, max-age=3600"}
_NUMBER = re.compile(r"\d{1,15}", re.ASCII)


class NeuroglancerVolumes:
    """The volumes of a project for Neuroglancer, and the links that open them.

    Args:
        project: the project.
        token: opens the volumes; a random text without "/".
        client: address of the Neuroglancer client, or "local" for the one that we serve.
    """

    def __init__(self, project: Project, token: str, client: str = CLIENT) -> None:
        self.project, self.token = project, token
        self.client = client if client == "local" or client.endswith("/") else f"{client}/"
        self._lock = threading.Lock()
        self._image: Precomputed | None = None
        self._segmentation: tuple[int, Precomputed] | None = None
        self._masks: OrderedDict[int, Precomputed] = OrderedDict()

    @property
    def client_origin(self) -> str | None:
        """The origin whose pages may read the volumes; None if that is our own."""
        if self.client == "local":
            return None
        parts = urlsplit(self.client)
        return f"{parts.scheme}://{parts.netloc}"

    def link(self, query: Query, base_url: str) -> str:
        """The address at which Neuroglancer shows a query.

        Args:
            query: as it was asked.
            base_url: the address under which a browser reaches us, with "/" at its end.
        """
        project = self.project
        image = project.image
        state = viewer_state(
            query,
            self._sources(query, f"precomputed://{base_url}ng/{self.token}"),
            voxel_size_nm=image.voxel_size_nm,
            offset_zyx=whole_offset(image.offset_nm, image.voxel_size_nm),
            num_sides=TASKS[project.config.task].num_sides,
        )
        return link(f"{base_url}{LOCAL_CLIENT}" if self.client == "local" else self.client, state)

    def _sources(self, query: Query, served: str) -> Sources:
        config = self.project.config.image
        direct = direct_source(self.project.image, config.uri, config.window)
        newest = self._newest_round()
        candidates = None if newest is None else f"{served}/segmentation/{newest}"
        return Sources(direct or f"{served}/image", f"{served}/query/{query.id}", candidates)

    def image(self) -> Precomputed:
        """The image."""
        with self._lock:
            if self._image is None:
                self._image = self._of(self.project.image, "image")
            return self._image

    def segmentation(self, round_number: int) -> Precomputed | None:
        """The labels of the candidates of a round; None if it is not the newest round, or its file is gone."""
        with self._lock:
            if round_number != self._newest_round():
                return None
            if self._segmentation is None or self._segmentation[0] != round_number:
                volume = open_volume(str(self.project.path(round_number, SEGMENTATION_NAME)))
                self._segmentation = round_number, self._of(volume, "segmentation")
            return self._segmentation[1]

    def mask(self, query_id: int) -> Precomputed:
        """The mask of a query, over the box of its candidate.

        Raises:
            LedgerError: there is no such query.
        """
        with self._lock:
            if query_id in self._masks:
                self._masks.move_to_end(query_id)
                return self._masks[query_id]
        candidate = self.project.ledger.query(query_id).candidate
        mask = candidate.mask.astype(np.uint32)
        image = self.project.image
        place = Box(whole_offset(image.offset_nm, image.voxel_size_nm), candidate.box.shape_zyx)
        made = Precomputed(
            lambda box: mask[box.slices],
            shape_zyx=candidate.box.shape_zyx,
            dtype=mask.dtype,
            voxel_size_nm=image.voxel_size_nm,
            offset_zyx=place.shifted(candidate.box.offset_zyx).offset_zyx,
            kind="segmentation",
        )
        with self._lock:
            self._masks[query_id] = made
            while len(self._masks) > NUM_MASKS:
                self._masks.popitem(last=False)
        return made

    def _newest_round(self) -> int | None:
        """The round whose segmentation can be shown; None if its file is not there. It is not made again here."""
        try:
            newest = latest_round(self.project, "propose")
        except TwoStreamError:
            return None
        return newest if self.project.path(newest, SEGMENTATION_NAME).exists() else None

    def _of(self, volume: Volume, kind: str) -> Precomputed:
        image = self.project.image
        return Precomputed(
            volume.read,
            shape_zyx=volume.shape_zyx,
            dtype=volume.dtype,
            voxel_size_nm=image.voxel_size_nm,
            offset_zyx=whole_offset(image.offset_nm, image.voxel_size_nm),
            kind=kind,
        )


def volumes_router(volumes: NeuroglancerVolumes) -> APIRouter:
    """The routes below ``ng/``; everything that is not there, or not for this token, is 404."""
    router = APIRouter(include_in_schema=False)
    origin = volumes.client_origin
    readers = ThreadPoolExecutor(NUM_READERS, "neuroglancer")

    @router.api_route("/ng/{token}/{path:path}", methods=["GET", "HEAD"])
    async def volume(request: Request, token: str, path: str) -> Response:
        if not secrets.compare_digest(token.encode(errors="replace"), volumes.token.encode()):
            return _with_cors(request, PlainTextResponse(NOTHING, status_code=404), origin)
        response = await asyncio.get_running_loop().run_in_executor(readers, _content, volumes, path)
        return _with_cors(request, response, origin)

    @router.options("/ng/{token}/{path:path}")
    def preflight(request: Request, token: str, path: str) -> Response:
        response = Response(status_code=204)
        if origin is not None and request.headers.get("origin") == origin:
            response.headers["Access-Control-Allow-Methods"] = "GET, HEAD, OPTIONS"
            response.headers["Access-Control-Allow-Headers"] = "Range"
            response.headers["Access-Control-Allow-Private-Network"] = "true"
            response.headers["Access-Control-Max-Age"] = "3600"
        return _with_cors(request, response, origin)

    return router


def _content(volumes: NeuroglancerVolumes, path: str) -> Response:
    """The `info` of a volume, or one of its chunks; 503, after which Neuroglancer tries again, if it cannot be read."""
    try:
        return _found(volumes, path)
    except LedgerError as error:
        return PlainTextResponse(str(error), status_code=404)
    except TwoStreamError as error:
        return PlainTextResponse(str(error), status_code=503)


def _found(volumes: NeuroglancerVolumes, path: str) -> Response:
    name, *rest = path.split("/")
    found: Precomputed | None = None
    if name == "image":
        found = volumes.image()
    elif name in ("segmentation", "query") and rest:
        number, rest = rest[0], rest[1:]
        if _NUMBER.fullmatch(number):
            found = volumes.segmentation(int(number)) if name == "segmentation" else volumes.mask(int(number))
    if found is not None and rest == ["info"]:
        return JSONResponse(found.info(), headers=KEPT)
    content = found.chunk(*rest) if found is not None and len(rest) == 2 else None
    if content is None:
        return PlainTextResponse(NOTHING, status_code=404)
    return Response(content, media_type="application/octet-stream", headers=KEPT)


def _with_cors(request: Request, response: Response, origin: str | None) -> Response:
    """Let pages of one other origin read the response."""
    response.headers["Vary"] = "Origin"
    response.headers.update(HEADERS)
    if origin is not None and request.headers.get("origin") == origin:
        response.headers["Access-Control-Allow-Origin"] = origin
    return response
