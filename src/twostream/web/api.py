"""The requests of the page: from JSON to the desk and back.

Knows the desk and what a request may hold; decides nothing itself.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from twostream.base.errors import InputError, LedgerBusyError, LedgerError, NoSidesError, ProjectError
from twostream.base.geometry import Box
from twostream.candidates.picture import png
from twostream.candidates.sources import RADIUS_NM
from twostream.project.missed_objects import MissedObjects
from twostream.task.answers import AnswerKind
from twostream.web.bodies import DecisionBody, DecisionsBody, KeyBody, LeaseBody, SignInBody
from twostream.web.corrections import DrawingBody, MarkedBody, SeedBody, drawing_of, grow_missed, marked_in, mask_of
from twostream.web.decisions import Decision, answer_keys, asked_about
from twostream.web.desk import Desk, answer_values
from twostream.web.guard import Reader, Writer, check_json
from twostream.web.progress import disagreement_values
from twostream.web.security import SESSION_SECONDS
from twostream.web.windows import proposed_values

ERRORS: dict[int | str, dict[str, Any]] = {
    code: {"description": text}
    for code, text in (
        (400, "the host or the request is malformed"),
        (401, "nobody has signed in"),
        (403, "not from the page"),
        (404, "there is no such thing"),
        (409, "not now"),
        (413, "too large"),
        (415, "not JSON"),
        (422, "not understood"),
        (429, "too many attempts"),
        (503, "the ledger cannot be written at this moment"),
    )
}
BINARY: dict[int | str, dict[str, Any]] = {200: {"content": {"application/octet-stream": {}}}}
BOX = r"^[0-9]{1,10}:[0-9]{1,10},[0-9]{1,10}:[0-9]{1,10},[0-9]{1,10}:[0-9]{1,10}$"
STRIDE = r"^[0-9]{1,3},[0-9]{1,3},[0-9]{1,3}$"

router = APIRouter(prefix="/api", responses=ERRORS)
QueryId = Annotated[int, Path(ge=1, le=2**53 - 1)]


def _desk(request: Request) -> Desk:
    found: Desk = request.app.state.desk
    return found


# -- signing in -------------------------------------------------------------------------------------------------------


@router.post("/sign-in", status_code=204, dependencies=[Depends(check_json)])
def sign_in(request: Request, body: SignInBody) -> Response:
    """Sign in by name and token; the answer sets the session's cookie."""
    address = request.client.host if request.client else ""
    try:
        cookie = _desk(request).security.sign_in(body.name, body.token, address)
    except InputError as error:
        raise HTTPException(429, str(error)) from None
    if cookie is None:
        raise HTTPException(401, "name and token do not fit. The link that `twostream serve` prints holds both.")
    response = Response(status_code=204)
    response.set_cookie(
        _desk(request).security.cookie,
        cookie,
        max_age=SESSION_SECONDS,
        path=request.scope.get("root_path") or "/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="lax",
    )
    return response


@router.post("/sign-out", status_code=204)
def sign_out(request: Request, session: Writer) -> Response:
    """Remove the session's cookie from the browser; the person's leases end too."""
    _desk(request).project.ledger.leases.give_back(session.annotator)
    response = Response(status_code=204)
    response.delete_cookie(_desk(request).security.cookie, path=request.scope.get("root_path") or "/")
    return response


# -- the project and its queue ----------------------------------------------------------------------------------------


@router.get("/project")
def project(request: Request, session: Reader) -> dict[str, Any]:
    """What the page must know of the project and of the person."""
    desk = _desk(request)
    image, settings = desk.pictures.image, desk.project.config.proofreading
    return {
        "id": desk.project.id,
        "name": desk.project.root.resolve().name,
        "task": desk.project.config.task,
        "num_sides": desk.num_sides,
        "voxel_size_nm": list(image.voxel_size_nm),
        "shape_zyx": list(image.shape_zyx),
        "radius_nm": RADIUS_NM[desk.project.config.task],
        "annotator": session.annotator,
        "csrf": session.csrf,
        "may_run": desk.may_run,
        "is_named": bool(desk.security.annotators),
        "idle_seconds": settings.idle_seconds,
        "lease_seconds": settings.lease_seconds,
        "decisions": [
            {"kind": kind, "reason": reason, "words": words, "about": asked_about(kind)}
            for kind, reason, words in answer_keys(desk.num_sides)
        ],
    }


@router.post("/lease")
def lease(request: Request, session: Writer, body: LeaseBody) -> dict[str, Any]:
    """Queries for the person, kept for them for a while, and what is left of the round."""
    desk = _desk(request)
    ids = desk.queue.lease(session.annotator, body.order, body.number)
    return {
        "round": desk.queue.open_round(),
        "queries": [desk.described(i, session.annotator) for i in ids],
        "left": asdict(desk.queue.left(session.annotator)),
    }


@router.get("/queries/{query_id}")
def query(request: Request, session: Reader, query_id: QueryId) -> dict[str, Any]:
    """A query or window."""
    return _found(lambda: _desk(request).described(query_id, session.annotator))


@router.get("/queries/{query_id}/patch.png", response_class=Response, responses={200: {"content": {"image/png": {}}}})
def patch(request: Request, session: Reader, query_id: QueryId) -> Response:
    """The image of a query's patch, as the report shows it, or a section through a window."""
    found = _found(lambda: _desk(request).picture(query_id))
    kept = {"Cache-Control": "private, max-age=86400"}
    return Response(png(found), media_type="image/png", headers=kept)


@router.get("/queries/{query_id}/mask", response_class=Response, responses=BINARY)
def mask(request: Request, session: Reader, query_id: QueryId) -> Response:
    """The mask of a query's candidate over its box, (Z, Y, X) uint8."""
    found = _found(lambda: _desk(request).query(query_id))
    return _binary(found.candidate.mask.tobytes())


@router.get("/queries/{query_id}/candidates")
def candidates(request: Request, session: Reader, query_id: QueryId) -> dict[str, Any]:
    """The candidates in a window and around it, each with the kind of its answer, "" without one."""
    desk = _desk(request)
    window = _found(lambda: desk.window(query_id))
    return {"candidates": proposed_values(desk.windows.proposed(window))}


@router.get("/queries/{query_id}/drawing")
def drawing(request: Request, session: Reader, query_id: QueryId) -> DrawingBody:
    """What the person has drawn in their current answer to a query."""
    found = _found(lambda: _desk(request).drawing(query_id, session.annotator))
    return _understood(lambda: drawing_of(*found))


@router.get("/queries/{query_id}/neuroglancer", response_class=RedirectResponse, status_code=307)
def neuroglancer(request: Request, session: Reader, query_id: QueryId) -> Response:
    """Where Neuroglancer shows a query."""
    volumes = _desk(request).neuroglancer
    if volumes is None:
        raise HTTPException(404, "this server makes no Neuroglancer links (--neuroglancer).")
    found = _found(lambda: _desk(request).query(query_id))
    return RedirectResponse(volumes.link(found, str(request.base_url)))


@router.get("/image", response_class=Response, responses=BINARY)
def image(
    request: Request,
    session: Reader,
    box: Annotated[str, Query(pattern=BOX, max_length=80)],
    stride: Annotated[str, Query(pattern=STRIDE)] = "1,1,1",
) -> Response:
    """A block of the image, (Z, Y, X) uint8."""
    steps = [int(part) for part in stride.split(",")]
    return _binary(_understood(lambda: _desk(request).pictures.image_block(Box.parse(box), steps)).tobytes())


@router.get("/segmentation", response_class=Response, responses=BINARY)
def segmentation(request: Request, session: Reader, box: Annotated[str, Query(pattern=BOX, max_length=80)]) -> Response:
    """Labels of all candidates of the newest round in a box, (Z, Y, X) uint32, little-endian."""
    return _binary(_understood(lambda: _desk(request).pictures.labels_block(Box.parse(box))).tobytes())


# -- decisions --------------------------------------------------------------------------------------------------------


@router.post("/decisions")
def decide(request: Request, session: Writer, body: DecisionsBody) -> dict[str, Any]:
    """Record decisions. Each is on disk, once, when this is answered, or was refused for the reason that is given."""
    desk = _desk(request)
    results = []
    for one in body.decisions:
        try:
            answer = desk.decisions.record(session.annotator, _decision(desk, one))
            results.append({"key": one.key, "answer": answer, "refused": None})
        except LedgerBusyError:
            raise  # the browser keeps them and sends them again; those that are recorded are recognised by their keys
        except (InputError, LedgerError) as error:
            results.append({"key": one.key, "answer": None, "refused": str(error)})
    return {"results": results}


def _decision(desk: Desk, body: DecisionBody) -> Decision:
    """A decision whose drawing was read and checked."""
    drawing = None
    if body.drawing is not None:
        drawing = mask_of(body.drawing, desk.pictures.image.box, desk.num_sides)
    if body.kind == AnswerKind.MISSED and drawing is not None:
        cut_from = None if body.split_of is None else desk.query(body.split_of).candidate
        MissedObjects(desk.project).check_drawn(*drawing, cut_from)
    if body.kind == AnswerKind.CORRECTED and drawing is not None and body.query is not None:
        candidate = desk.query(body.query).candidate
        if not drawing[0].intersection(candidate.box).num_voxels:
            raise InputError(
                f"the drawing lies at {drawing[0]}, away from candidate {candidate.id} at {candidate.box}."
            )
    return Decision(
        body.key,
        body.query,
        body.kind,
        body.reason,
        body.seconds,
        drawing,
        body.adjudicates,
        body.is_first,
        body.window,
    )


@router.post("/undo")
def undo(request: Request, session: Writer, body: KeyBody) -> dict[str, Any]:
    """Take back the newest decision of the person."""
    desk = _desk(request)
    done = desk.decisions.undo(session.annotator, _open_round(desk), body.key, body.of)
    return {"answers": [answer_values(a) for a in done]}


@router.post("/redo")
def redo(request: Request, session: Writer, body: KeyBody) -> dict[str, Any]:
    """Give the decision again that was undone last."""
    desk = _desk(request)
    done = desk.decisions.redo(session.annotator, _open_round(desk), body.key)
    return {"answers": [answer_values(a) for a in done]}


@router.get("/history")
def history(request: Request, session: Reader, number: Annotated[int, Query(ge=1, le=500)] = 100) -> dict[str, Any]:
    """The person's current answers of the open round, newest first, and the queries that they are about."""
    desk = _desk(request)
    found = desk.queue.open_round()
    answers = [] if found is None else desk.decisions.history(session.annotator, found, number)
    ids = dict.fromkeys(a.query for a in answers if a.query is not None)
    return {
        "answers": [answer_values(a) for a in answers],
        "queries": [desk.described(i, session.annotator) for i in ids],
    }


@router.post("/grow")
def grow(request: Request, session: Writer, body: SeedBody) -> Any:
    """The object at a point where nothing was proposed, to be shown before it is kept."""
    desk = _desk(request)
    try:
        grown = grow_missed(desk.project, body, desk.project.ledger.missed_objects())
    except NoSidesError as error:
        return JSONResponse({"detail": str(error), "needs_sides": True}, 422)
    except InputError as error:
        raise HTTPException(422, str(error)) from None
    drawing = drawing_of(grown.box, grown.mask)
    return drawing.model_dump() | {
        "how": grown.describe(desk.pictures.image.voxel_size_nm),
        "is_ball": grown.is_ball,
        "num_voxels": grown.num_voxels,
    }


@router.get("/missed")
def missed(
    request: Request, session: Reader, box: Annotated[str, Query(pattern=BOX, max_length=80)]
) -> dict[str, list[MarkedBody]]:
    """The missed objects that people have marked in a box, so that none is added twice, each with its window if it was
    marked in one."""
    where = _understood(lambda: Box.parse(box))
    return {"objects": marked_in(where, _desk(request).project.ledger.missed_objects())}


# -- progress and rounds ----------------------------------------------------------------------------------------------


@router.get("/progress")
def progress(request: Request, session: Reader) -> dict[str, Any]:
    """What is done and left, in total and by each person."""
    values: dict[str, Any] = request.app.state.progress.values(session.annotator)
    return values


@router.get("/disagreements")
def disagreements(request: Request, session: Reader) -> dict[str, Any]:
    """Queries about which people disagree, with their answers side by side."""
    return disagreement_values(_desk(request), session.annotator)


@router.post("/run", status_code=202)
def run(request: Request, session: Writer) -> dict[str, Any]:
    """Start the next round, if the operator allows it."""
    desk = _desk(request)
    if not desk.may_run:
        raise HTTPException(403, "the operator starts rounds: `twostream serve --allow-run` lets the page do it.")
    desk.runner.start()
    return asdict(desk.runner.state())


def _open_round(desk: Desk) -> int:
    """The round whose queries may be answered now."""
    found = desk.queue.step(fresh=True)
    if found[1] != "answer":
        raise ProjectError(
            "no round is open for answers at this moment; what a round has learned from cannot be undone."
        )
    return found[0]


def _binary(content: bytes) -> Response:
    return Response(content, media_type="application/octet-stream")


def _found(act: Any) -> Any:
    """What ``act`` returns; 404 if there is no such thing."""
    try:
        return act()
    except LedgerBusyError:
        raise
    except LedgerError as error:
        raise HTTPException(404, str(error)) from None


def _understood(act: Any) -> Any:
    """What ``act`` returns; 422 if the input does not fit."""
    try:
        return act()
    except InputError as error:
        raise HTTPException(422, str(error)) from None
