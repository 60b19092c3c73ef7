"""Neuroglancer links: their states, the volumes that we serve against their sources, and a link in a real browser."""

import importlib.util
import json
import math
import shutil
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import tensorstore as ts
from conftest import SHAPE_ZYX, TEST_BOX, TINY, VOXEL_SIZE_NM, toy_arrays
from served import needs_browser
from sites import running

from twostream.base.errors import InputError, VolumeError
from twostream.base.geometry import Box
from twostream.project.answer_tables import read_answers
from twostream.project.create import create_project
from twostream.project.exchange.neuroglancer import direct_source, link
from twostream.project.export import export
from twostream.project.project import Project
from twostream.rounds.loop import run
from twostream.volume import create_volume

fastapi = pytest.importorskip("fastapi")
uvicorn = pytest.importorskip("uvicorn")
httpx = pytest.importorskip("httpx")

from fastapi.testclient import TestClient  # noqa: E402

from twostream.web import neuroglancer_client  # noqa: E402
from twostream.web.app import make_app  # noqa: E402
from twostream.web.desk import Desk  # noqa: E402
from twostream.web.neuroglancer import Sources, cross_section_scale, viewer_state  # noqa: E402
from twostream.web.neuroglancer_client import client_router  # noqa: E402
from twostream.web.neuroglancer_volumes import CLIENT, NeuroglancerVolumes, volumes_router  # noqa: E402
from twostream.web.precomputed import MAX_READ_BYTES, Precomputed  # noqa: E402
from twostream.web.security import Security  # noqa: E402

TOKEN = "s3cret"
ORIGIN = "https://neuroglancer-demo.appspot.com"
PLACE = (3, -7, 21)
"""Voxels (z, y, x) by which the image of the project lies away from the origin of its data set."""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project whose image states a place, and whose queries of round 0 wait for answers."""
    folder = tmp_path_factory.mktemp("web")
    grey, _ = toy_arrays()
    place = [p * v for p, v in zip(PLACE, VOXEL_SIZE_NM, strict=True)]
    like = {"shape_zyx": SHAPE_ZYX, "dtype": np.uint8, "voxel_size_nm": VOXEL_SIZE_NM}
    image = create_volume(str(folder / "em.zarr"), **like, offset_nm=place)
    image.write(image.box, grey)
    probability = create_volume(str(folder / "theirs.zarr"), **like)
    probability.write(probability.box, np.where(grey > 115, 220, 5).astype(np.uint8))
    made = create_project(
        folder / "p", task="mitochondria", image=str(folder / "em.zarr"), probability=str(folder / "theirs.zarr"),
        test_box=TEST_BOX, budget=6, overrides=TINY,
    )  # fmt: skip
    run(made, rounds=1)
    made.ledger.close()
    return Project(made.root)


@contextmanager
def serving(volumes, *routers):
    """Serve volumes on a free port of this machine; gives the address."""
    app = fastapi.FastAPI(openapi_url=None)
    for router in (volumes_router(volumes), *routers):
        app.include_router(router)
    with running(app) as address:
        yield address


@pytest.fixture(scope="module")
def served(project):
    with serving(NeuroglancerVolumes(project, TOKEN)) as address:
        yield address


@pytest.fixture(scope="module")
def queries(project):
    return project.ledger.open_queries()


def read_scale(address, scale):
    """A scale of a served volume, (Z, Y, X), by an independent reader, and its place in its own voxels."""
    volume = ts.open(
        {"driver": "neuroglancer_precomputed", "kvstore": address, "scale_index": scale}, read=True
    ).result()  # fmt: skip
    origin = volume.domain.origin[:3]
    return volume.read().result()[..., 0].T, tuple(origin[::-1])


def strided(array, offset, stride):
    """What a scale must hold, voxel by voxel: the middle one of those that it stands for, or the nearest there is."""
    picks = []
    for axis in range(3):
        first, last = offset[axis], offset[axis] + array.shape[axis] - 1
        cells = range(first // stride[axis], last // stride[axis] + 1)
        picks.append([min(max(c * stride[axis] + stride[axis] // 2, first), last) - first for c in cells])
    return array[np.ix_(*picks)]


class TestServedVolumes:
    """Every scale, read over HTTP by tensorstore, holds the voxels of the source at their place."""

    def check(self, address, array, place, num_scales):
        info = httpx.get(address + "/info").json()
        assert len(info["scales"]) == num_scales
        for number, scale in enumerate(info["scales"]):
            stride = [int(v) for v in scale["key"].split("_")][::-1]
            found, origin = read_scale(address, number)
            assert origin == tuple(p // s for p, s in zip(place, stride, strict=True))
            assert scale["resolution"] == [v * s for v, s in zip(VOXEL_SIZE_NM[::-1], stride[::-1], strict=True)]
            assert np.array_equal(found, strided(array, place, stride))

    def test_the_image(self, served):
        self.check(served + f"ng/{TOKEN}/image", toy_arrays()[0], PLACE, 1)

    def test_the_newest_segmentation(self, served, project, queries):
        address = served + f"ng/{TOKEN}/segmentation/0"
        found, _ = read_scale(address, 0)
        candidate = queries[0].candidate
        part = found[candidate.box.slices]
        assert np.array_equal(part == candidate.label, candidate.mask > 0)
        assert httpx.get(served + f"ng/{TOKEN}/segmentation/1/info").status_code == 404

    def test_the_mask_of_a_query_alone(self, served, queries):
        for query in queries:
            mask, box = query.candidate.mask, query.candidate.box
            place = tuple(o + p for o, p in zip(box.offset_zyx, PLACE, strict=True))
            self.check(served + f"ng/{TOKEN}/query/{query.id}", mask.astype(np.uint32), place, 1)

    @pytest.mark.parametrize(
        ("place", "size"), [((0, 0, 0), (30, 8, 8)), ((5, -3, 999), (30, 8, 8)), ((2, 1, 7), (8, 8, 8))]
    )
    def test_every_scale(self, project, place, size):
        array = np.random.default_rng(0).integers(0, 255, (20, 330, 1100), np.uint8)
        volumes = NeuroglancerVolumes(project, TOKEN)
        volumes._image = Precomputed(
            lambda box: array[box.slices],
            shape_zyx=array.shape,
            dtype=array.dtype,
            voxel_size_nm=size,
            offset_zyx=place,
        )
        with serving(volumes) as address:
            scales = httpx.get(address + f"ng/{TOKEN}/image/info").json()["scales"]
            assert len(scales) == 4
            for number, scale in enumerate(scales):
                stride = [int(v) for v in scale["key"].split("_")][::-1]
                found, origin = read_scale(address + f"ng/{TOKEN}/image", number)
                assert origin == tuple(p // s for p, s in zip(place, stride, strict=True))
                assert np.array_equal(found, strided(array, place, stride))

    def test_no_chunk_reads_more_than_the_limit(self):
        read = []

        def spy(box: Box) -> np.ndarray:
            read.append(box.num_voxels)
            return np.broadcast_to(np.uint8(7), box.shape_zyx)

        huge = Precomputed(spy, shape_zyx=(5000, 200_000, 200_000), dtype=np.dtype("u1"), voxel_size_nm=(30, 8, 8))
        for scale in huge.scales.values():
            name = "_".join(f"0-{n}" for n in scale.chunk_zyx[::-1])
            content = huge.chunk(scale.key, name)
            assert content is not None
            assert len(content) == math.prod(scale.chunk_zyx)
        assert len(read) == len(huge.scales) >= 4
        assert max(read) <= MAX_READ_BYTES


class TestRefusals:
    @pytest.mark.parametrize(
        "path",
        [
            "ng/other/image/info", "ng//image/info", "ng/{t}/image", "ng/{t}/image/info/x", "ng/{t}/labels/info",
            "ng/{t}/image/2_2_1/0-64_0-64_0-8", "ng/{t}/image/1_1_1/0-64_0-64_0-8", "ng/{t}/image/1_1_1/nonsense",
            "ng/{t}/image/1_1_1/21-86_-7-57_3-11", "ng/{t}/image/1_1_1/22-86_-7-57_3-11",
            "ng/{t}/query/999999/info", "ng/{t}/query/0/info", "ng/{t}/query/-1/info", "ng/{t}/query/1e3/info",
            "ng/{t}/query/99999999999999999999999/info", "ng/{t}/query/1", "ng/{t}/segmentation/7/info",
            "ng/{t}/image/..%2F..%2Ftwostream.yaml/info", "ng/%ff%fe/image/info", "ng/{t}/query/%D9%A1/info",
        ],
    )  # fmt: skip
    def test_what_is_not_there_is_404(self, served, path):
        assert httpx.get(served + path.format(t=TOKEN)).status_code == 404

    @pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
    def test_nothing_can_be_written(self, served, method):
        assert httpx.request(method, served + f"ng/{TOKEN}/image/info").status_code == 405

    def test_head_is_get_without_a_body(self, served):
        answer = httpx.head(served + f"ng/{TOKEN}/image/info")
        assert answer.status_code == 200
        assert answer.content == b""

    def test_an_image_that_cannot_be_read_now_is_503(self, project):
        def broken(box):
            raise VolumeError("the server does not answer")

        volumes = NeuroglancerVolumes(project, TOKEN)
        volumes._image = Precomputed(broken, shape_zyx=(8, 8, 8), dtype=np.dtype("u1"), voxel_size_nm=(8, 8, 8))
        with serving(volumes) as address:
            answer = httpx.get(address + f"ng/{TOKEN}/image/1_1_1/0-8_0-8_0-8")
        assert (answer.status_code, answer.text) == (503, "the server does not answer")


class TestOrigins:
    """Only pages of the client's origin may read the volumes, from a public page of a private address too."""

    def test_the_client_may_read(self, served):
        for path in ("image/info", "image/1_1_1/nonsense"):
            answer = httpx.get(served + f"ng/{TOKEN}/{path}", headers={"Origin": ORIGIN})
            assert answer.headers["access-control-allow-origin"] == ORIGIN
            assert answer.headers["vary"] == "Origin"
            assert answer.headers["x-content-type-options"] == "nosniff"

    @pytest.mark.parametrize("origin", ["https://evil.example", "null", f"{ORIGIN}.evil.example", ORIGIN.upper()])
    def test_others_may_not(self, served, origin):
        for call in (httpx.get, httpx.options):
            answer = call(served + f"ng/{TOKEN}/image/info", headers={"Origin": origin})
            assert not [name for name in answer.headers if name.startswith("access-control")]

    def test_the_preflight_allows_private_networks(self, served):
        asked = {
            "Origin": ORIGIN,
            "Access-Control-Request-Method": "GET",
            "Access-Control-Request-Private-Network": "true",
        }
        answer = httpx.options(served + f"ng/{TOKEN}/image/info", headers=asked)
        assert answer.status_code == 204
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert answer.headers["access-control-allow-private-network"] == "true"
        assert answer.headers["access-control-allow-methods"] == "GET, HEAD, OPTIONS"

    def test_our_own_client_needs_none(self, project):
        with serving(NeuroglancerVolumes(project, TOKEN, "local")) as address:
            answer = httpx.get(address + f"ng/{TOKEN}/image/info", headers={"Origin": ORIGIN})
            assert answer.status_code == 200
            assert "access-control-allow-origin" not in answer.headers


class TestLinks:
    def state(self, project, query):
        url = NeuroglancerVolumes(project, TOKEN).link(query, "http://127.0.0.1:8000/lab/")
        client, _, fragment = url.partition("#!")
        assert client == f"{ORIGIN}/"
        return json.loads(unquote(fragment))

    def test_the_position_is_the_centre_of_a_voxel_of_the_object(self, project, queries):
        for query in queries:
            at = self.state(project, query)["position"]
            assert [v % 1 for v in at] == [0.5] * 3
            z, y, x = (int(v // 1) - p for v, p in zip(at[::-1], PLACE, strict=True))
            box = query.candidate.box
            assert query.candidate.mask[z - box.offset_zyx[0], y - box.offset_zyx[1], x - box.offset_zyx[2]]

    def test_the_layers(self, project, queries):
        image, candidate, others = self.state(project, queries[0])["layers"]
        served = f"precomputed://http://127.0.0.1:8000/lab/ng/{TOKEN}"
        assert image["source"] == f"{served}/image"
        assert (candidate["source"], candidate["segments"]) == (f"{served}/query/{queries[0].id}", ["1"])
        assert candidate["segmentColors"] == {"1": "#ffd23f"}
        assert (others["source"], others["segments"]) == (f"{served}/segmentation/0", [])
        assert others["ignoreNullVisibleSet"] is False  # else all segments would be shown

    def test_both_sides_of_a_synapse_have_their_colours(self, project, queries):
        state = viewer_state(
            queries[0], Sources("a", "b", None), voxel_size_nm=VOXEL_SIZE_NM, offset_zyx=(0, 0, 0), num_sides=2
        )
        assert [layer["name"] for layer in state["layers"]] == ["image", "candidate"]
        assert state["layers"][1]["segmentColors"] == {"1": "#ff9f1c", "2": "#35a7ff"}

    def test_the_scale_fits_the_candidate(self):
        pixels = 1000 / (cross_section_scale((10, 125, 30), (30, 8, 8)) * 8)
        assert 100 < pixels < 200  # of a panel of 400
        assert cross_section_scale((5, 1, 1), (30, 8, 8)) == pytest.approx(150 / (400 / 3) / 8)
        assert cross_section_scale((1, 1, 1), (8, 8, 8)) == 0.125

    def test_remote_images_are_named_directly(self, project):
        image = project.image
        assert direct_source(image, "precomputed://gs://b/em", None) == "precomputed://gs://b/em"
        assert direct_source(image, "precomputed://https://h/em/", None) == "precomputed://https://h/em"
        assert direct_source(image, "precomputed://gs://b/em", (0, 1000)) is None  # seen through a window
        assert direct_source(image, "precomputed://http://h/em", None) is None  # which a page from https may not read
        assert direct_source(image, "/data/em.precomputed", None) is None
        assert direct_source(image, "https://h/em.zarr", None) is None  # states a place, and is not OME


class TestOnThePage:
    """The address on the page leads to Neuroglancer, for those who have signed in."""

    @pytest.fixture
    def client(self, project):
        security = Security(b"0" * 32)
        volumes = NeuroglancerVolumes(project, security.capability("neuroglancer"), "local")
        app = make_app(Desk(project, security, neuroglancer=volumes))
        return TestClient(app, "http://127.0.0.1:8000", root_path="/lab", follow_redirects=False)

    def test_it_leads_there(self, client, project, queries):
        path = f"/lab/api/queries/{queries[0].id}/neuroglancer"
        assert client.get(path).status_code == 401
        token = Security(b"0" * 32).token("ada")
        assert client.post("/lab/api/sign-in", json={"name": "ada", "token": token}).status_code == 204
        answer = client.get(path)
        assert answer.status_code == 307
        wanted = NeuroglancerVolumes(project, Security(b"0" * 32).capability("neuroglancer"), "local")
        assert answer.headers["location"] == wanted.link(queries[0], "http://127.0.0.1:8000/lab/")
        assert client.get("/lab/api/queries/999999/neuroglancer").status_code == 404

    def test_the_volumes_need_the_token_alone(self, client, queries):
        capability = Security(b"0" * 32).capability("neuroglancer")
        assert client.get(f"/lab/ng/{capability}/query/{queries[0].id}/info").status_code == 200
        assert client.get(f"/lab/ng/other/query/{queries[0].id}/info").status_code == 404
        assert client.get("/lab/neuroglancer/v/local/").status_code == 200


class TestOurClient:
    def test_its_files_and_nothing_else(self, project):
        with serving(NeuroglancerVolumes(project, TOKEN, "local"), client_router()) as address:
            page = httpx.get(address + "neuroglancer/v/local/")
            assert page.status_code == 200
            assert "script-src 'self'" in page.headers["content-security-policy"]
            assert page.headers["referrer-policy"] == "no-referrer"  # the address of the link holds the token
            for name in ("__init__.py", "../__init__.py", "..%2F__init__.py", "%2Fetc%2Fpasswd", "main.js.map", "a.js"):
                assert httpx.get(f"{address}neuroglancer/v/local/{name}").status_code == 404
            with httpx.stream("GET", address + "neuroglancer/events/local") as events:
                assert events.headers["content-type"].startswith("text/event-stream")
                assert next(events.iter_lines()).startswith(":")

    def test_without_the_package(self, monkeypatch):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(InputError, match="install the extra `neuroglancer`"):
            client_router()


@needs_browser
@pytest.mark.skipif(not importlib.util.find_spec("neuroglancer"), reason="the Neuroglancer client is not installed")
class TestInABrowser:
    """Our own client, opened in Chromium by a link of ours."""

    @pytest.fixture
    def browser(self, chromium):
        return chromium

    @staticmethod
    def wait(page, problems):
        until = time.monotonic() + 90
        while not page.evaluate("Boolean(window.viewer && viewer.isReady())"):
            assert time.monotonic() < until, problems
            page.wait_for_timeout(200)
        page.wait_for_timeout(1000)

    def test_exported_points_are_answered_in_it(self, project, browser, tmp_path):
        copy = shutil.copytree(project.root.parent, tmp_path / "lab") / "p"
        answering = Project(copy)
        export(answering, "queries", tmp_path / "q.json", "neuroglancer")
        exported = json.loads((tmp_path / "q.json").read_text())
        with serving(NeuroglancerVolumes(project, TOKEN, "local"), client_router()) as address:
            page = browser.new_page()
            page.goto(link(f"{address}neuroglancer/v/local/", exported))
            self.wait(page, [])
            page.evaluate(
                "() => { const source = viewer.layerManager.getLayerByName('queries').layer.localAnnotations;"
                "const one = [...source][0]; const reference = source.getReference(one.id);"
                "source.update(reference, {...one, description: one.description + 'true, seen in the viewer'});"
                "source.commit(reference); }"
            )
            state = page.evaluate("JSON.parse(JSON.stringify(viewer.state.toJSON()))")
            page.close()
        (tmp_path / "back.json").write_text(json.dumps(state))
        recorded = read_answers(answering, tmp_path / "back.json", "ada")
        assert (recorded.new, recorded.empty) == (1, 5)
        (answer,) = answering.ledger.all_answers()
        assert (str(answer.kind), answer.reason) == ("true", "seen in the viewer")
        points = {one["id"]: one["point"] for one in exported["layers"][-1]["annotations"]}
        assert {one["id"]: one["point"] for one in state["layers"][-1]["annotations"]} == points

    def test_the_link_opens_at_its_place(self, project, queries, browser, tmp_path):
        volumes = NeuroglancerVolumes(project, TOKEN, "local")
        query = queries[0]
        with serving(volumes, client_router()) as address:
            page = browser.new_page(viewport={"width": 1000, "height": 800})
            problems, requested = [], []
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on(
                "console", lambda one: problems.append(f"{one.text} {one.location}") if one.type == "error" else None
            )
            page.on("response", lambda one: requested.append((one.status, one.url)))
            url = volumes.link(query, address)
            page.goto(url)
            self.wait(page, problems)
            state = page.evaluate("JSON.parse(JSON.stringify(viewer.state.toJSON()))")
            errors = page.evaluate(
                "viewer.layerManager.managedLayers.flatMap(one => (one.layer?.dataSources ?? [])"
                ".map(source => source.loadState?.error?.message).filter(Boolean))"
            )
            position = page.evaluate("Array.from(viewer.position.value)")
            shown = page.evaluate(
                "Object.fromEntries(viewer.layerManager.managedLayers.filter(one => one.layer?.displayState"
                "?.segmentationGroupState).map(one => [one.name, Array.from(one.layer.displayState"
                ".segmentationGroupState.value.visibleSegments, String)]))"
            )
            picture = Path(tmp_path / "neuroglancer.png")
            page.screenshot(path=picture)
            page.close()
        wanted = json.loads(unquote(url.partition("#!")[2]))
        assert errors == []
        assert [url for status, url in requested if status >= 400] == []
        assert [one for one in problems if "favicon.ico" not in one] == []  # Chromium asks every server for an icon
        assert position == pytest.approx(wanted["position"])
        assert [layer["name"] for layer in state["layers"]] == ["image", "candidate", "candidates"]
        assert shown == {"candidate": ["1"], "candidates": []}
        chunks = [url for _, url in requested if f"/query/{query.id}/1_1_1/" in url]
        assert chunks
        red, green, blue = self.pixels(picture)
        overlaid = (red - blue > 40) & (green - blue > 25) & (blue > 60)  # the lines around a volume have no blue
        assert overlaid.sum() > 1000

    @pytest.mark.parametrize("is_allowed", [True, False])
    def test_a_client_of_another_origin(self, project, queries, browser, is_allowed, monkeypatch):
        """The browser lets it read the volumes if it is the client that the links open, and else does not."""
        monkeypatch.setattr(neuroglancer_client, "POLICY", "")  # our client stands in for one with a policy of its own
        with serving(NeuroglancerVolumes(project, "other", "local"), client_router()) as theirs:
            client = f"{theirs}neuroglancer/v/local/"
            volumes = NeuroglancerVolumes(project, TOKEN, client if is_allowed else CLIENT)
            with serving(volumes) as address:
                url = volumes.link(queries[0], address).replace(CLIENT, client)
                page, answered = browser.new_page(), []
                page.on("requestfinished", lambda one: answered.append(one.url))
                page.goto(url)
                ready = "Boolean(window.viewer && viewer.isReady())"
                until = time.monotonic() + (90 if is_allowed else 5)
                while not page.evaluate(ready) and time.monotonic() < until:
                    page.wait_for_timeout(200)
                assert page.evaluate(ready) is is_allowed
                read = [one for one in answered if f"/ng/{TOKEN}/query/{queries[0].id}/1_1_1/" in one]
                assert bool(read) is is_allowed
                page.close()

    def test_both_sides_have_their_colours(self, project, queries, browser, tmp_path):
        """The presynaptic side lies left of the crosshair, the postsynaptic one right of it."""
        volumes, query = NeuroglancerVolumes(project, TOKEN, "local"), queries[0]
        mask = np.ones((8, 20, 20), np.uint8)
        mask[:, :, 10:] = 2
        box = Box((0, 30, 100), mask.shape)
        query = replace(query, candidate=replace(query.candidate, mask=mask, box=box))
        place = tuple(o + p for o, p in zip(box.offset_zyx, PLACE, strict=True))
        volumes._masks[query.id] = Precomputed(
            lambda part: mask[part.slices].astype(np.uint32),
            shape_zyx=mask.shape,
            dtype=np.dtype("u4"),
            voxel_size_nm=VOXEL_SIZE_NM,
            offset_zyx=place,
            kind="segmentation",
        )
        with serving(volumes, client_router()) as address:
            served = f"precomputed://{address}ng/{TOKEN}"
            sources = Sources(f"{served}/image", f"{served}/query/{query.id}", None)
            state = viewer_state(query, sources, voxel_size_nm=VOXEL_SIZE_NM, offset_zyx=PLACE, num_sides=2)
            page = browser.new_page(viewport={"width": 1000, "height": 800})
            page.goto(link(f"{address}neuroglancer/v/local/", state))
            self.wait(page, [])
            page.screenshot(path=tmp_path / "sides.png")
            page.close()
        panel = self.pixels(tmp_path / "sides.png")[:, 60:420, :498]  # the plane of x and y
        red, _, blue = panel
        at_pre = np.nonzero((red - blue > 40) & (blue > 20))[1]
        at_post = np.nonzero((blue - red > 40) & (red > 20))[1]
        assert min(len(at_pre), len(at_post)) > 500
        assert np.median(at_pre) < np.median(at_post)
        assert abs((np.median(at_pre) + np.median(at_post)) / 2 - 249) < 25

    @staticmethod
    def pixels(picture):
        """(3, Y, X) red, green and blue of a picture."""
        import cv2

        return cv2.imread(str(picture))[:, :, ::-1].astype(int).transpose(2, 0, 1)
