"""The page below a path of a reverse proxy, which removes the path or passes it on."""

import json
import re
import time
from urllib.parse import unquote, urlsplit

import pytest
from served import needs_browser, until
from sites import running

pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")

from twostream.web.serve import PROXIES  # noqa: E402

PREFIX = "/lab/proofreading"


class ReverseProxy:
    """A reverse proxy as an ASGI application, as nginx is one with ``proxy_set_header Host $host``.

    Args:
        target: address of the server behind it, with "/" at its end.
        strips: whether it removes ``PREFIX`` from the path.
        scheme: how browsers reach the proxy.
        origin: address from which it calls the server.
    """

    def __init__(self, target: str, strips: bool, scheme: str = "http", origin: str = "127.0.0.1") -> None:
        self.target, self.strips, self.scheme, self.origin = target.rstrip("/"), strips, scheme, origin

    async def __call__(self, scope, receive, send):
        assert scope["type"] == "http"
        path = scope["raw_path"].decode()
        if not path.startswith(PREFIX) or (self.strips and not path.startswith(PREFIX + "/")):
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b"the proxy has nothing here"})
            return
        path = path.removeprefix(PREFIX) if self.strips else path
        query = f"?{scope['query_string'].decode()}" if scope["query_string"] else ""
        headers = [(k, v) for k, v in scope["headers"] if k not in (b"connection", b"transfer-encoding")]
        headers += [(b"x-forwarded-proto", self.scheme.encode()), (b"x-forwarded-for", scope["client"][0].encode())]
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        transport = httpx.AsyncHTTPTransport(local_address=self.origin)
        async with (
            httpx.AsyncClient(timeout=30, transport=transport) as client,
            client.stream(scope["method"], self.target + path + query, headers=headers, content=body) as answer,
        ):
            kept = [(k.lower(), v) for k, v in answer.headers.raw if k.lower() != b"transfer-encoding"]
            await send({"type": "http.response.start", "status": answer.status_code, "headers": kept})
            async for chunk in answer.aiter_raw():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})


@pytest.fixture(params=[True, False], ids=["the proxy removes the path", "the proxy passes the path on"])
def strips(request):
    return request.param


def signed_in(here, address: str):
    """A client that has signed in through a proxy."""
    client = httpx.Client(base_url=address, timeout=30)
    answer = client.post("api/sign-in", json={"name": "ann", "token": here.security.token("ann")})
    assert answer.status_code == 204, answer.text
    return client, answer.headers["set-cookie"]


class TestBelowAPath:
    @pytest.fixture
    def behind(self, site, strips):
        """A served project, and the address at which a proxy shows it."""
        here = site(root_path=PREFIX, neuroglancer="local", proxy_headers=True, forwarded_allow_ips=PROXIES)
        with running(ReverseProxy(here.address, strips)) as proxy:
            yield here, f"{proxy}{PREFIX[1:]}/"

    def test_every_part_of_the_page(self, behind):
        here, address = behind
        client, cookie = signed_in(here, address)
        assert f"Path={PREFIX};" in cookie
        page = client.get("").text
        linked = re.findall(r'(?:src|href)="([^"]+)"', page)
        assert "static/main.js" in linked
        for name in linked:
            assert client.get(name).status_code == 200, name
        csrf = {"X-CSRF-Token": client.get("api/project").json()["csrf"]}
        query = client.post("api/lease", json={"number": 1}, headers=csrf).json()["queries"][0]
        (patch,) = re.findall(r'src="([^"]+)"', query["card"])[:1]
        assert client.get(patch.replace("&amp;", "&")).headers["content-type"] == "image/png"
        assert len(client.get("api/image?box=0:2,0:3,0:4").content) == 24
        body = {"decisions": [{"key": "k" * 8, "query": query["id"], "kind": "true"}]}
        assert client.post("api/decisions", json=body, headers=csrf).json()["results"][0]["refused"] is None
        assert here.project.ledger.counts().answers == 1
        with client.stream("GET", "api/events") as events:
            assert next(events.iter_text()).startswith("event: progress\ndata: {")

    def test_neuroglancer_reads_through_the_proxy(self, behind):
        here, address = behind
        client, _ = signed_in(here, address)
        link = client.get("api/queries/1/neuroglancer").headers["location"]
        base, _, state = link.partition("#!")
        assert base == f"{address}neuroglancer/v/local/"
        assert client.get(base).status_code == 200
        for layer in json.loads(unquote(state))["layers"]:
            source = layer["source"] if isinstance(layer["source"], str) else layer["source"]["url"]
            url = re.sub(r"^precomputed://|\|?neuroglancer-precomputed:$", "", source)
            if url.startswith("http"):
                assert url.startswith(address)
                assert httpx.get(f"{url}/info").json()["scales"]

    def test_nothing_else_is_there(self, behind):
        here, address = behind
        client, _ = signed_in(here, address)
        for path in ("static/../app.py", "static/%2e%2e/app.py", "nothing", "../x", f"{PREFIX[1:]}/nothing"):
            assert client.get(path).status_code in (404, 405), path

    def test_signing_out_removes_the_cookie_of_that_path(self, behind):
        here, address = behind
        client, _ = signed_in(here, address)
        csrf = {"X-CSRF-Token": client.get("api/project").json()["csrf"]}
        assert client.post("api/sign-out", json={}, headers=csrf).status_code == 204
        assert not client.cookies
        assert client.get("api/project").status_code == 401

    def test_the_path_without_its_slash(self, site):
        here = site(root_path=PREFIX)
        with running(ReverseProxy(here.address, strips=False)) as proxy:
            answer = httpx.get(proxy + PREFIX[1:])
            assert urlsplit(answer.headers["location"]).path == PREFIX + "/"

    def test_without_a_proxy_the_same_server_answers(self, site):
        here = site(root_path=PREFIX)
        assert httpx.get(f"{here.address}static/main.js").status_code == 200
        assert httpx.get(f"{here.address}{PREFIX[1:]}/static/main.js").status_code == 200


class TestWhoIsBelieved:
    """https and the asking machine are taken from a proxy of this machine, and from nobody else."""

    def cookie(self, serve, **proxy) -> str:
        served = serve("--root-path", PREFIX, "--neuroglancer", "none")
        token = served.links[""].partition("token=")[2]
        with running(ReverseProxy(served.url, strips=True, **proxy)) as address:
            body = {"name": "ann", "token": token}
            answer = httpx.post(f"{address}{PREFIX[1:]}/api/sign-in", json=body)
        assert answer.status_code == 204
        return answer.headers["set-cookie"]

    def test_the_cookie_is_secure_behind_https(self, serve):
        assert "; Secure" in self.cookie(serve, scheme="https")

    def test_and_is_not_behind_http(self, serve):
        assert "Secure" not in self.cookie(serve)

    def test_a_stranger_cannot_say_so(self, serve, monkeypatch):
        """127.0.0.2 stands for another machine; the environment cannot widen whom the server believes."""
        monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
        assert "Secure" not in self.cookie(serve, scheme="https", origin="127.0.0.2")


@needs_browser
class TestInABrowser:
    def test_a_decision_through_the_proxy(self, serve, chromium, strips):
        served = serve("--root-path", PREFIX, "--neuroglancer", "local")
        problems = []
        with running(ReverseProxy(served.url, strips)) as proxy:
            context = chromium.new_context()
            page = context.new_page()
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
            page.on("response", lambda r: problems.append(f"{r.status} {r.url}") if r.status >= 400 else None)
            page.goto(f"{proxy}{PREFIX[1:]}/#{served.links[''].partition('#')[2]}")
            page.click("button[type=submit]")
            page.wait_for_selector("body[data-ready]")
            assert context.cookies()[0]["path"] == PREFIX
            page.keyboard.press("t")
            end = time.monotonic() + 30
            while not served.project.ledger.counts().answers:
                assert time.monotonic() < end, problems
                page.wait_for_timeout(50)
            until(page, "!window.twostream.outbox.state.unsent")
            page.keyboard.press("g")
            until(page, "[...document.querySelectorAll('#cards img')].some((i) => i.complete && i.naturalWidth)")
            until(page, "document.getElementById('progress').textContent.trim()")
            context.close()
        assert problems == []
        assert served.project.ledger.counts().answers == 1
