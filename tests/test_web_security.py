"""The server lets in whom it should, believes nothing that a request says, and tells strangers nothing."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sites import raw, status

pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")

from twostream.base.errors import InputError, ProjectError  # noqa: E402
from twostream.project.create import fork_project  # noqa: E402
from twostream.project.export import export  # noqa: E402
from twostream.project.records import Answer  # noqa: E402
from twostream.project.repair import repair  # noqa: E402
from twostream.task.answers import AnswerKind  # noqa: E402
from twostream.web.guard import LOOPBACK, MAX_BODY  # noqa: E402
from twostream.web.security import (  # noqa: E402
    FAILURE_SECONDS,
    MAX_FAILURES,
    SECRET_NAME,
    SESSION_SECONDS,
    Security,
    project_secret,
)
from twostream.web.serve import PROXIES, ServeOptions, check_options, listen  # noqa: E402

WRITING = ("sign-out", "lease", "decisions", "undo", "redo", "grow", "run")
READING = (
    "project", "queries/1", "queries/1/patch.png", "queries/1/mask", "queries/1/neuroglancer",
    "image?box=0:1,0:1,0:1", "segmentation?box=0:1,0:1,0:1", "history", "progress", "disagreements", "events",
)  # fmt: skip
JSON = {"Content-Type": "application/json"}
CLIENT = "https://neuroglancer-demo.appspot.com"


class TestBinding:
    """The server listens on this machine only; elsewhere everybody needs a token of their own."""

    def test_the_default_is_this_machine(self, serve):
        served = serve("--neuroglancer", "none")
        assert httpx.get(served.url).status_code == 200
        others = {"127.0.0.2", *(str(i[4][0]) for i in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET))}
        for address in others - {"127.0.0.1"}:
            with pytest.raises(OSError), socket.create_connection((address, served.port), 2):
                pass

    def test_listen_binds_what_it_is_told(self):
        with listen("127.0.0.1", 0) as listening:
            assert listening.getsockname()[0] == "127.0.0.1"

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.5", "lab.example", "", "127.0.0.1.lab.example"])
    def test_other_hosts_demand_named_people(self, host):
        with pytest.raises(InputError, match="--annotator NAME"):
            check_options(ServeOptions(host=host))
        check_options(ServeOptions(host=host, annotators=("ann",)))

    def test_the_command_line_demands_them_too(self, queue_project):
        command = [sys.executable, "-m", "twostream", "serve", str(queue_project.root), "--host", "0.0.0.0"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode != 0
        assert "--annotator NAME" in done.stderr + done.stdout
        assert "Traceback" not in done.stderr

    def test_a_token_opens_one_name(self, site):
        here = site(annotators=("ann", "bob"))
        client = here.client("")
        for name, token in (("bob", here.security.token("ann")), ("eve", here.security.token("eve")), ("ann", "")):
            assert client.post("api/sign-in", json={"name": name, "token": token}).status_code == 401
        assert here.client("ann").get("api/project").json()["annotator"] == "ann"

    @pytest.mark.parametrize("path", ["proofreading", "/a/", "/a b", "/a;Domain=x", "/a\nb", "//evil.example", "/a?b"])
    def test_a_root_path_is_a_path(self, path):
        with pytest.raises(InputError, match="--root-path"):
            check_options(ServeOptions(root_path=path))

    @pytest.mark.parametrize("url", ["javascript:alert(1)", "neuroglancer.example", "https:///x"])
    def test_a_neuroglancer_is_an_address(self, url):
        with pytest.raises(InputError, match="--neuroglancer"):
            check_options(ServeOptions(neuroglancer=url))


class TestHosts:
    """A page of somebody else that points its own name at this machine reads nothing (DNS rebinding)."""

    @pytest.mark.parametrize(
        "host",
        ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "evil@127.0.0.1", "127.0.0.1@evil.example",
         "127.0.0.1:80:80", "127.0.0.1#.evil.example", "127.0.0.1, evil.example", "[::1", "0.0.0.0", "localhost."],
    )  # fmt: skip
    @pytest.mark.parametrize("path", ["", "api/project", "static/main.js", "ng/x/image/info"])
    def test_foreign_names_are_refused(self, one_site, host, path):
        answer = one_site.client("").get(path, headers={"Host": host})
        assert answer.status_code == 400

    def test_two_names_or_none_are_refused(self, one_site):
        for hosts in (b"", b"Host: \r\n", b"Host: evil.example\r\nHost: 127.0.0.1\r\n"):
            assert status(raw(one_site.address, b"GET / HTTP/1.0\r\n" + hosts + b"\r\n")) == 400

    def test_allowed_names_in_any_case(self, site):
        client = site(hosts=(*LOOPBACK, "Lab.Example")).client("")
        for host in ("lab.example", "LAB.EXAMPLE:443", "localhost:1", "[::1]:8080"):
            assert client.get("", headers={"Host": host}).status_code == 200


class TestSession:
    def test_the_cookie(self, site):
        here = site()
        answer = here.client("").post("api/sign-in", json={"name": "ann", "token": here.security.token()})
        name, _, rest = answer.headers["set-cookie"].partition("=")
        parts = {part.strip().lower() for part in rest.split(";")[1:]}
        assert name == here.security.cookie
        assert parts == {"httponly", "samesite=lax", "path=/", f"max-age={SESSION_SECONDS}"}

    def test_what_is_not_ours_opens_nothing(self, one_site):
        security = one_site.security
        good = security.sign_in("ann", security.token("ann"), "here")
        ends, name, signature = good.split(".")
        later = f"{int(ends) + 1}.{name}.{signature}"
        forged = [
            "", ".", "..", good[:-1], good + "0", good[1:], later, f"{ends}.{b'bob'.hex()}.{signature}",
            f"{ends}.{name}.", f"{ends}.{name}", f"{ends}.{name}.{'0' * 64}", f"{ends}.zz.{signature}",
            f"{ends}.{name}.{signature}.{signature}", f"-1.{name}.{signature}", f"{'9' * 400}.{name}.{signature}",
            f"{ends}.ff.{signature}", f"{ends}.{name}.{signature.upper()}", "\u00e9", "a" * 8000,
        ]  # fmt: skip
        for cookie in forged:
            assert security.session(cookie) is None, cookie
            head = f"GET /api/project HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {security.cookie}={cookie}\r\n\r\n"
            assert status(raw(one_site.address, head.encode("latin-1"))) == 401, cookie
        assert security.session(good) is not None

    def test_it_ends(self, monkeypatch):
        security = Security(bytes(32))
        cookie = security.sign_in("ann", security.token(), "here")
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + SESSION_SECONDS - 5)
        assert security.session(cookie).annotator == "ann"
        monkeypatch.setattr(time, "time", lambda: now + SESSION_SECONDS + 5)
        assert security.session(cookie) is None

    def test_another_secret_or_list_of_people(self):
        shared, other = Security(bytes(32)), Security(bytes([1] * 32))
        named, fewer = Security(bytes(32), ["ann", "bob"]), Security(bytes(32), ["ann"])
        as_ann = shared.sign_in("ann", shared.token(), "here")
        as_bob = named.sign_in("bob", named.token("bob"), "here")
        assert other.session(as_ann) is None
        assert fewer.session(as_bob) is None
        # Under a shared token anybody is ann; once people have tokens of their own, that must not count.
        assert named.session(as_ann) is None
        assert shared.session(as_bob) is None

    def test_projects_at_one_address_do_not_share_a_cookie(self):
        assert Security(bytes(32)).cookie != Security(bytes([1] * 32)).cookie

    def test_a_session_is_not_chosen_by_others(self, site):
        """A cookie that somebody has planted is replaced, and its CSRF token is worth nothing afterwards."""
        here = site(annotators=("ann", "eve"))
        eve = here.client("eve")
        client = here.client("")
        client.cookies.update(eve.cookies)
        answer = client.post("api/sign-in", json={"name": "ann", "token": here.security.token("ann")})
        assert answer.cookies[here.security.cookie] != eve.cookies[here.security.cookie]
        client.cookies = answer.cookies
        assert client.get("api/project").json()["annotator"] == "ann"
        assert (
            client.post(
                "api/undo", json={"key": "a" * 8}, headers={"X-CSRF-Token": eve.headers["X-CSRF-Token"]}
            ).status_code
            == 403
        )

    def test_signing_out(self, site):
        client = site().client()
        assert client.post("api/sign-out", json={}).status_code == 204
        assert client.get("api/project").status_code == 401

    @pytest.mark.parametrize(
        "name",
        ["a\nb", "a\x1b[2Jb", "\x00", "<script>", "a'b", 'a"b', " ann", "ann ", "_ann", "=cmd", "a/b", "..",
         "\u202eann", "a\u0000b", "a" * 65, "\ud800", "\u200b"],
    )  # fmt: skip
    def test_names_are_names(self, site, name):
        here = site()
        body = json.dumps({"name": name, "token": here.security.token()})
        assert here.client("").post("api/sign-in", content=body, headers=JSON).status_code in (401, 422)

    @pytest.mark.parametrize("name", ["Jürgen Weiß", "李", "ann.b+c@lab-1", "7"])
    def test_names_of_people(self, site, name):
        here = site()
        client = here.client(name)
        query = client.post("api/lease", json={"number": 1}).json()["queries"][0]["id"]
        body = {"decisions": [{"key": "k" * 8, "query": query, "kind": "true"}]}
        assert client.post("api/decisions", json=body).json()["results"][0]["refused"] is None
        assert here.project.ledger.current_answers(query)[0].annotator == name


class TestSigningInIsLimited:
    def test_after_some_failures_even_the_right_token_waits(self, site):
        here = site()
        client = here.client("")
        for _ in range(MAX_FAILURES):
            assert client.post("api/sign-in", json={"name": "ann", "token": "wrong"}).status_code == 401
        answer = client.post("api/sign-in", json={"name": "ann", "token": here.security.token()})
        assert answer.status_code == 429
        assert re.search(r"Try again in \d+ seconds", answer.json()["detail"])

    def test_it_is_over_after_a_minute_and_counts_machines_apart(self, monkeypatch):
        security, now = Security(bytes(32)), time.time()
        for _ in range(MAX_FAILURES):
            assert security.sign_in("ann", "wrong", "1.1.1.1") is None
        with pytest.raises(InputError, match="Try again"):
            security.sign_in("ann", security.token(), "1.1.1.1")
        assert security.sign_in("ann", security.token(), "2.2.2.2")
        monkeypatch.setattr(time, "time", lambda: now + FAILURE_SECONDS + 1)
        assert security.sign_in("ann", security.token(), "1.1.1.1")

    def test_only_a_proxy_of_this_machine_says_who_asks(self, site):
        """A stranger cannot escape the limit by claiming other addresses."""
        here = site(proxy_headers=True, forwarded_allow_ips="192.0.2.1")
        client = here.client("")
        codes = [
            client.post(
                "api/sign-in", json={"name": "a", "token": "x"}, headers={"X-Forwarded-For": f"10.0.0.{i}"}
            ).status_code
            for i in range(MAX_FAILURES + 1)
        ]
        assert codes == [401] * MAX_FAILURES + [429]
        assert PROXIES == "127.0.0.1,::1"


class TestForgedRequests:
    """What another page could make a browser send changes nothing."""

    @pytest.mark.parametrize("path", WRITING)
    def test_every_writing_request_needs_the_page(self, one_site, path):
        ann, bob = one_site.client("ann"), one_site.client("bob")
        body = {"decisions": [{"key": "k" * 8, "query": 1, "kind": "true"}]}
        del ann.headers["X-CSRF-Token"]
        for token in (None, "", "0" * 32, bob.headers["X-CSRF-Token"], "\u00e9"):
            headers = {} if token is None else {"X-CSRF-Token": token.encode("latin-1")}
            assert ann.post(f"api/{path}", json=body, headers=headers).status_code == 403, token
        assert one_site.client("").post(f"api/{path}", json=body).status_code == 401

    @pytest.mark.parametrize("path", ("sign-in", *WRITING))
    @pytest.mark.parametrize(
        "kind", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain", ""]
    )
    def test_forms_are_not_read(self, one_site, path, kind):
        """A form of another page needs no permission of the browser; JSON does, and none is given."""
        answer = one_site.client("ann").post(f"api/{path}", content=b"{}", headers={"Content-Type": kind})
        assert answer.status_code == 415

    @pytest.mark.parametrize("path", ["", "api/sign-in", "api/decisions", "api/project", "static/main.js"])
    def test_other_origins_get_no_permission(self, one_site, path):
        asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
        for origin in ("https://evil.example", "null", CLIENT):
            client = one_site.client("ann", Origin=origin)
            for answer in (client.options(path, headers=asked), client.get(path)):
                assert not [name for name in answer.headers if name.startswith("access-control")]
                assert answer.headers["cross-origin-resource-policy"] == "same-origin"

    @pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "TRACE", "OPTIONS", "CONNECT", "PROPFIND"])
    @pytest.mark.parametrize("path", ["", *READING[:4], *WRITING, "sign-in", "../static/main.js"])
    def test_other_methods_do_nothing(self, one_site, method, path):
        line = f"{method} /api/{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
        assert status(raw(one_site.address, line.encode())) in (400, 404, 405)

    def test_get_writes_nothing(self, one_site):
        client = one_site.client("ann")
        assert {client.get(f"api/{path}").status_code for path in WRITING} == {405}

    def test_only_the_client_reads_the_volumes(self, one_site):
        client, token = one_site.client(""), one_site.security.capability("neuroglancer")
        for origin, allowed in ((CLIENT, True), ("https://evil.example", False)):
            answer = client.get(f"ng/{token}/segmentation/0/info", headers={"Origin": origin})
            assert answer.status_code == 200
            assert (answer.headers.get("access-control-allow-origin") == origin) == allowed
            for method in ("POST", "PUT", "DELETE"):
                assert client.request(method, f"ng/{token}/segmentation/0/info").status_code == 405
        assert client.get(f"ng/{one_site.security.token('ann')}/segmentation/0/info").status_code == 404
        assert token not in {one_site.security.token(name) for name in ("", "ann", "bob")}


class TestStrangers:
    """Who has not signed in learns that a server of this program runs here, and nothing of the project."""

    @pytest.mark.parametrize("path", READING)
    def test_nothing_is_read(self, one_site, path):
        answer = one_site.client("").get(f"api/{path}")
        assert answer.status_code == 401
        assert answer.json() == {"detail": "sign in first: open the page again."}

    @pytest.mark.parametrize(
        "path", ["", "cards.css", "api/openapi.json", "static/main.js", "nothing", "ng/x/image/info", "api/project"]
    )
    def test_nothing_of_the_project_is_told(self, one_site, path):
        project, text = one_site.project, one_site.client("").get(path).text
        for told in (
            project.root.name + " ",
            f">{project.root.name}<",
            project.id,
            str(project.root),
            project.config.image.uri,
        ):
            assert told not in text

    def test_the_page_of_those_who_signed_in_says_which_project_it_is(self, one_site):
        assert f"<h1>{one_site.project.root.name}</h1>" in one_site.client("ann").get("").text

    def test_no_torch_versions_or_server_names(self, serve):
        answer = httpx.get(serve("--neuroglancer", "none").url)
        assert "server" not in answer.headers
        assert "x-powered-by" not in answer.headers


class TestPolicy:
    """The browser runs our files and nothing else."""

    @pytest.mark.parametrize(
        "path", ["", "api/project", "api/nothing", "static/main.js", "static/nothing", "cards.css", "api/queries/1"]
    )
    @pytest.mark.parametrize("name", ["", "ann"])
    def test_every_response_carries_it(self, one_site, path, name):
        headers = one_site.client(name).get(path).headers
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"

    def test_refused_requests_carry_it_too(self, one_site):
        client = one_site.client("ann")
        for answer in (
            client.get("", headers={"Host": "evil.example"}),
            client.post("api/decisions", content=b" " * (MAX_BODY + 1), headers=JSON),
            client.post("api/decisions", content=b"[", headers=JSON),
        ):
            assert answer.status_code >= 400
            assert "default-src 'none'" in answer.headers["content-security-policy"]

    @pytest.mark.parametrize("name", ["", "ann"])
    def test_no_page_has_inline_script_or_style(self, one_site, name):
        client = one_site.client(name)
        cards = [] if not name else [client.get(f"api/queries/{i}").json()["card"] for i in (1, 2)]
        for html in (client.get("").text, *cards):
            assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=|javascript:", html)
            assert not re.search(r"(?:src|href)=\"(?:https?:)?/", html)  # all addresses are relative

    def test_private_answers_are_not_kept(self, one_site):
        client = one_site.client("ann")
        for path in ("", "api/project", "api/queries/1", "api/image?box=0:1,0:1,0:1"):
            assert client.get(path).headers["cache-control"] == "no-store"
        assert client.get("api/queries/1/patch.png").headers["cache-control"].startswith("private")

    def test_a_patch_that_the_browser_keeps_is_of_this_project(self, one_site):
        assert f"patch.png?project={one_site.project.id}" in one_site.client("ann").get("api/queries/1").json()["card"]


class TestSecret:
    """The secret of a project stays in its folder, for its owner."""

    def test_only_the_owner_reads_it(self, queue_project):
        path = queue_project.root / SECRET_NAME
        before = os.umask(0)
        try:
            first = project_secret(queue_project.root)
        finally:
            os.umask(before)
        assert path.stat().st_mode & 0o777 == 0o600
        path.chmod(0o644)  # as a copy may be
        assert project_secret(queue_project.root) == first
        assert path.stat().st_mode & 0o777 == 0o600
        assert [p.name for p in queue_project.root.iterdir() if p.name.startswith(SECRET_NAME)] == [SECRET_NAME]

    def test_servers_that_start_at_once_share_it(self, queue_project):
        with ThreadPoolExecutor(8) as pool:
            found = set(pool.map(lambda _: project_secret(queue_project.root), range(40)))
        assert len(found) == 1

    def test_a_disk_without_hard_links(self, queue_project, monkeypatch):
        def link(*_):
            raise OSError("not supported")

        monkeypatch.setattr(os, "link", link)
        assert project_secret(queue_project.root) == project_secret(queue_project.root)

    @pytest.mark.parametrize("text", ["", "abcd", "zz" * 32, "00" * 33])
    def test_a_damaged_one_is_said(self, queue_project, text):
        (queue_project.root / SECRET_NAME).write_text(text)
        with pytest.raises(ProjectError, match=r"[Dd]elete"):
            project_secret(queue_project.root)

    def test_a_fork_has_its_own(self, queue_project, tmp_path):
        secret = project_secret(queue_project.root)
        fork = fork_project(queue_project, tmp_path / "fork", [])
        assert not (fork.root / SECRET_NAME).exists()
        assert project_secret(fork.root) != secret

    def test_no_export_holds_it_and_repair_leaves_it(self, queue_project, tmp_path):
        secret = project_secret(queue_project.root)
        token = Security(secret).token()
        for query in queue_project.ledger.open_queries():
            queue_project.ledger.tell(Answer(query.id, AnswerKind.TRUE, "ann"))
        for what in ("answers.jsonl", "segmentation.zarr", "dataset"):
            export(queue_project, what.partition(".")[0], tmp_path / what)
        repair(queue_project.root)
        assert project_secret(queue_project.root) == secret
        inside = {queue_project.root / SECRET_NAME}
        for path in set(tmp_path.rglob("*")) - inside:
            if path.is_file():
                content = path.read_bytes()
                assert secret.hex().encode() not in content, path
                assert secret not in content, path
                assert token.encode() not in content, path


class TestWhatIsPrinted:
    def test_nothing_of_a_request_reaches_the_terminal(self, serve):
        """No line can be forged, and no token ends in a log file."""
        served = serve("--neuroglancer", "none")
        text = "FORGED-LINE"
        for line in (
            f"GET /{text}%0a%0d%1b[2J HTTP/1.1\r\nHost: 127.0.0.1",
            f"GET / HTTP/1.1\r\nHost: {text}",
            f"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {text}",
            f"{text} {text} {text}\r\n",
            f"\x1b[2J{text}",
        ):
            raw(served.url, f"{line}\r\n\r\n".encode())
        body = {"name": text, "token": text}
        assert httpx.post(f"{served.url}api/sign-in", json=body).status_code == 401
        served.stop()
        assert text not in served.process.stdout.read()
