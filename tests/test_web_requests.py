"""Nothing that a request holds is believed: paths, bodies, numbers, and decisions about what is not one's own."""

import socket
import sqlite3
import tracemalloc
from dataclasses import replace

import pytest
from sites import contents, raw, status

from twostream.base.errors import InputError
from twostream.base.geometry import Box
from twostream.project.project import LATER_STEPS
from twostream.task.answers import AnswerKind

pytest.importorskip("fastapi")
pytest.importorskip("httpx")

from twostream.web import guard, queue
from twostream.web.guard import MAX_BODY

JSON = {"Content-Type": "application/json"}
MALFORMED = [
    b"", b"null", b"[]", b"1", b'"x"', b"{", b"[" * 1_000_000, b'{"a":' * 100_000, b"9" * 5000, b"\xff\xfe{}", b"\x00",
    b'"\\ud800"', b'{"\\ud800": 1}', b"NaN", b"Infinity", b'{"key": NaN}', b'{"key": "\\ud800"}', b'{"key": 1e999}',
    b'{"center_zyx": [NaN, 0, 0]}', b'{"center_zyx": [Infinity, 0, 0]}', b'{"center_zyx": [1e400, 0, 0]}',
    b'{"center_zyx": [9e15, -9e15, 9e15], "radius_nm": 1e6}', b'{"center_zyx": [1, 1, 1], "radius_nm": 0}',
    b'{"decisions": NaN}', b'{"decisions": []}', b'{"decisions": [1]}',
    *(
        b'{"decisions": [{"key": "aaaaaaaa", "query": 1, "kind": "true", %s}]}' % rest
        for rest in (
            b'"seconds": NaN', b'"seconds": -1', b'"seconds": 1e400', b'"kind": "\\ud800"', b'"reason": "\\u001b[2J"',
            b'"reason": "\\u0000"', b'"reason": "\\ud800"', b'"annotator": "bob"', b'"supersedes": 1',
            b'"query": 1.5', b'"query": true', b'"query": "1"', b'"drawing": {}',
            b'"adjudicates": 1', b'"key": "../x/y/z"',
        )
    ),
]  # fmt: skip


class TestFiles:
    """Only the page's own files can be read."""

    @pytest.mark.parametrize("start", ["/static/", "/neuroglancer/v/local/", "/ng/{token}/", "/api/queries/", "/"])
    @pytest.mark.parametrize(
        "path",
        ["../app.py", "..%2fapp.py", "%2e%2e/app.py", "%2e%2e%2f%2e%2e%2f__init__.py", "..\\app.py", "..%5capp.py",
         "%252e%252e/app.py", "/etc/passwd", "%2fetc%2fpasswd", "main.js%00.png", "....//app.py", ".serve_secret",
         "../../../../../../../../../../etc/passwd", "%c0%ae%c0%ae/app.py", "../.serve_secret", "ledger.sqlite"],
    )  # fmt: skip
    def test_no_path_leads_out(self, one_site, start, path):
        token = one_site.security.capability("neuroglancer")
        line = f"GET {start.format(token=token)}{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
        assert status(raw(one_site.address, line.encode())) in (400, 401, 404, 422)

    def test_static_files_are_listed_nowhere(self, one_site):
        client = one_site.client("")
        assert client.get("static/main.js").headers["content-type"].startswith("text/javascript")
        assert {client.get(path).status_code for path in ("static/", "static/./", "api", "api/", "ng/")} == {404}


class TestBodies:
    def test_a_body_that_says_it_is_too_large(self, one_site):
        head = b"POST /api/decisions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY + 1)
        assert status(raw(one_site.address, head)) == 413

    def test_a_body_that_does_not_say_it(self, one_site):
        sent = 0

        def endless():
            nonlocal sent
            while True:
                sent += 65536
                yield b" " * 65536

        answer = one_site.client("").post("api/sign-in", content=endless(), headers=JSON)
        assert answer.status_code == 413
        assert sent < 4 * MAX_BODY

    def test_a_refusal_reaches_who_reads_only_after_sending(self, one_site):
        # Without reading on, the connection is reset and the answer is lost with it, now and then.
        head = b"POST /api/decisions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY + 1)
        host, port = one_site.address.removeprefix("http://").rstrip("/").split(":")
        for _ in range(20):
            with socket.create_connection((host, int(port)), 20) as connection:
                connection.sendall(head + b" " * (MAX_BODY + 1))
                answer = b"".join(iter(lambda: connection.recv(65536), b""))
            assert status(answer) == 413
            assert answer.endswith(b'bytes are taken."}')

    def test_a_body_that_never_ends(self, site, monkeypatch):
        monkeypatch.setattr(guard, "BODY_SECONDS", 0.2)
        here = site()
        head = b"POST /api/sign-in HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n{"
        assert status(raw(here.address, head)) == 408
        assert here.client("").get("").status_code == 200

    @pytest.mark.parametrize(
        "length", [b"-1", b"+1", b"1_0", b"\xb2", b"99999999999999999999", b"1\r\nContent-Length: 2", b"", b"0x10"]
    )
    def test_lengths_that_are_none(self, one_site, length):
        head = b"POST /api/sign-in HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: " + length + b"\r\n\r\n"
        assert status(raw(one_site.address, head)) in (400, 413, 415)

    @pytest.mark.parametrize("path", ["sign-in", "lease", "decisions", "undo", "grow"])
    def test_what_is_not_understood_is_refused_and_not_repeated(self, one_site, path):
        client = one_site.client("ann")
        for body in MALFORMED:
            answer = client.post(f"api/{path}", content=body, headers=JSON)
            assert answer.status_code in (400, 422), body[:100]
            assert isinstance(answer.json()["detail"], str)
            assert len(answer.text) < 1000

    def test_no_token_is_repeated(self, one_site):
        answer = one_site.client("").post("api/sign-in", json={"name": "ann", "token": "s3cret" * 100})
        assert answer.status_code == 422
        assert "s3cret" not in answer.text


class TestNumbers:
    """Numbers beyond what a volume, a browser or SQLite holds."""

    @pytest.mark.parametrize("number", [0, -1, 2**53 - 1, 2**53, 2**63, 2**64, 10**30, 10**4000])
    def test_ids(self, one_site, number):
        client = one_site.client("ann")
        for path in ("", "/mask", "/patch.png", "/neuroglancer"):
            assert client.get(f"api/queries/{number}{path}").status_code in (404, 422)
        token = one_site.security.capability("neuroglancer")
        assert client.get(f"ng/{token}/query/{number}/info").status_code == 404
        assert number == 0 or client.get(f"ng/{token}/segmentation/{number}/info").status_code == 404
        body = f'{{"decisions": [{{"key": "aaaaaaaa", "query": {number}, "kind": "true"}}]}}'
        answer = client.post("api/decisions", content=body, headers=JSON)
        assert answer.status_code in (400, 422) or answer.json()["results"][0]["answer"] is None

    @pytest.mark.parametrize(
        "query",
        ["box=0:9999999999,0:9999999999,0:9999999999", "box=1:0,0:1,0:1", "box=0:0,0:1,0:1", "box=-1:1,0:1,0:1",
         "box=0:1,0:1,0:1&stride=0,1,1", "box=0:1,0:1,0:1&stride=1,1", "box=0:1,0:1,0:1&stride=1000,1,1", "box=%ff",
         "box=0:99999999999999999999,0:1,0:1", "box=%D9%A0:1,0:1,0:1", "box=0:1,0:1,0:1%0a", "box=", "", "box=nan",
         "box=0:9,0:1,0:1"],
    )  # fmt: skip
    def test_boxes(self, one_site, query):
        client = one_site.client("ann")
        assert client.get(f"api/image?{query}").status_code == 422
        if "stride" not in query:
            assert client.get(f"api/segmentation?{query}").status_code == 422

    def test_the_largest_stride_reads_one_voxel(self, one_site):
        answer = one_site.client("ann").get("api/image?box=0:8,0:96,0:240&stride=999,999,999")
        assert len(answer.content) == 1


def decision(key: str, query: int | None, kind: str = "true", **more) -> dict:
    return {"decisions": [{"key": key * 8, "query": query, "kind": kind} | more]}


def sent(client, body) -> dict:
    """The result of one decision."""
    answer = client.post("api/decisions", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["results"][0]


class TestDrawings:
    """A drawing of a few bytes that describes a huge box takes no memory (a bomb)."""

    def peak(self, shape, runs, image=(4000, 4000, 4000)) -> int:
        from twostream.web.corrections import DrawingBody, mask_of

        body = DrawingBody(offset_zyx=(0, 0, 0), shape_zyx=shape, runs=runs)
        tracemalloc.start()
        try:
            mask_of(body, Box.whole(image), 1)
        except InputError:
            pass
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        return peak

    def test_what_is_refused_takes_no_memory(self):
        for shape, runs in [
            ((4000, 4000, 4000), [1, 4000**3]), ((2**53 - 1,) * 3, [1, 2**53 - 1]), ((200, 200, 200), [1, 2**53 - 1]),
            ((200, 200, 200), [0, 200**3]), ((200, 200, 200), [255, 200**3]), ((1, 1, 2**53 - 1), [1, 2**53 - 1]),
        ]:  # fmt: skip
            assert self.peak(shape, runs) < 1_000_000

    def test_what_is_taken_takes_a_few_bytes_a_voxel(self):
        assert self.peak((200, 200, 200), [1, 200**3]) < 8 * 200**3

    def test_the_server_refuses_them(self, one_site):
        client = one_site.client("ann")
        n = 8 * 96 * 240
        for drawing in (
            {"offset_zyx": [0, 0, 0], "shape_zyx": [4000, 4000, 4000], "runs": [1, 4000**3]},
            {"offset_zyx": [2**53 - 1] * 3, "shape_zyx": [1, 1, 1], "runs": [1, 1]},
            {"offset_zyx": [0, 0, 1], "shape_zyx": [8, 96, 240], "runs": [1, n]},
            {"offset_zyx": [0, 0, 0], "shape_zyx": [8, 96, 240], "runs": [2, n]},
            {"offset_zyx": [0, 0, 0], "shape_zyx": [8, 96, 240], "runs": [1, n + 1]},
            {"offset_zyx": [0, 0, 0], "shape_zyx": [8, 96, 0], "runs": []},
            {"offset_zyx": [0, 0, 0], "shape_zyx": [8, 96, 240], "runs": [1]},
        ):
            for query, kind in ((1, "corrected"), (None, "missed")):
                assert sent(client, decision("d", query, kind, drawing=drawing))["answer"] is None
        for key, value in (
            ("offset_zyx", [2**53, 0, 0]),
            ("shape_zyx", [-1, 1, 1]),
            ("runs", [1.0, 1]),
            ("runs", [-1, 1]),
        ):
            drawing = {"offset_zyx": [0, 0, 0], "shape_zyx": [1, 1, 1], "runs": [1, 1], key: value}
            assert client.post("api/decisions", json=decision("d", 1, "corrected", drawing=drawing)).status_code == 422


class TestDecisions:
    def test_kinds_that_nobody_may_send(self, one_site):
        client = one_site.client("ann")
        bodies = [
            decision("a", 1, "retracted"), decision("a", 1, "x"), decision("a", None), decision("a", 1, "missed"),
            decision("a", None, "missed"), decision("a", 1, "corrected"), decision("a", 1, "swapped"),
            decision("a", 2**53 - 1), decision("a", None, "missed", split_of=2**53 - 1),
        ]  # fmt: skip
        for body in bodies:
            result = sent(client, body)
            assert result["answer"] is None
            assert result["refused"]

    def test_a_ledger_that_cannot_be_written_refuses_nothing(self, site, monkeypatch):
        """The browser must keep the decision and send it again, instead of taking it for refused."""
        here = site()
        client = here.client("ann")
        query = here.project.ledger.open_queries()[0].id
        monkeypatch.setattr(here.project.ledger._database, "_timeout", 0.2)
        here.project.ledger.close()  # so that connections are made anew, with this patience
        holder = sqlite3.connect(here.project.root / "ledger.sqlite", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        answer = client.post("api/decisions", json=decision("k", query))
        assert answer.status_code == 503
        assert "is locked by another program" in answer.json()["detail"]
        holder.execute("ROLLBACK")
        holder.close()
        assert sent(client, decision("k", query))["answer"] is not None

    def test_a_key_of_somebody_else(self, site):
        """Nobody learns or changes an answer by sending its key."""
        here = site(annotators=("ann", "bob"))
        ann, bob = here.client("ann"), here.client("bob")
        first, second = (q.id for q in here.project.ledger.open_queries()[:2])
        mine = sent(ann, decision("k", first))
        assert sent(ann, decision("k", first)) == mine
        for body in (decision("k", first), decision("k", second), decision("k", first, "nothing")):
            theirs = sent(bob, body)
            assert theirs["answer"] is None
            assert str(mine["answer"]) not in theirs["refused"]
        assert sent(ann, decision("k", second))["answer"] is None
        assert [a.annotator for a in here.project.ledger.current_answers(first)] == ["ann"]
        assert here.project.ledger.current_answers(second) == []

    def test_nobody_undoes_what_others_did(self, site):
        here = site(annotators=("ann", "bob"))
        ann, bob = here.client("ann"), here.client("bob")
        query = here.project.ledger.open_queries()[0].id
        sent(ann, decision("k", query))
        for path in ("undo", "redo"):
            assert bob.post(f"api/{path}", json={"key": "k" * 8}).status_code == 409
        assert bob.get("api/history").json() == {"answers": [], "queries": []}
        assert [a.kind for a in here.project.ledger.current_answers(query)] == ["true"]

    def test_one_decision_that_is_refused_does_not_take_others_along(self, site):
        here = site()
        client = here.client()
        query = here.project.ledger.open_queries()[0].id
        both = [decision("a", 2**53 - 1)["decisions"][0], decision("b", query)["decisions"][0]]
        results = client.post("api/decisions", json={"decisions": both}).json()["results"]
        assert results[0]["answer"] is None
        assert results[1]["refused"] is None
        assert here.project.ledger.counts().answers == 1

    def test_a_query_of_an_older_round(self, site, monkeypatch):
        """It is recorded as what it is: an answer to the older round, which leaves the open one as it was."""
        monkeypatch.setattr(queue, "STEP_SECONDS", 0.0)
        here = site()
        client, ledger = here.client(), here.project.ledger
        queries = ledger.open_queries()
        for number, query in enumerate(queries):
            kind = AnswerKind.SKIPPED if number == 0 else AnswerKind.TRUE
            sent(client, decision(f"{number:02d}", query.id, str(kind)))
        ledger.register(1, [])
        ledger.ask(1, [replace(queries[0], id=0)])
        for step in [(0, "answer"), *((1, name) for name in LATER_STEPS if name != "answer")]:
            ledger.finish_step(*step, 0.0, {})
        (open_query,) = ledger.open_queries()
        assert open_query.round == 1
        result = sent(client, decision("zz", queries[1].id, "nothing"))
        (now,) = ledger.current_answers(queries[1].id)
        assert (now.id, now.round, now.kind) == (result["answer"], 0, "nothing")
        assert [q.id for q in ledger.open_queries()] == [open_query.id]
        left = client.post("api/lease", json={"number": 10}).json()
        assert [q["id"] for q in left["queries"]] == [open_query.id]

    def test_what_people_write_becomes_no_markup(self, site):
        here = site()
        client = here.client()
        query = here.project.ledger.open_queries()[0].id
        text = "<img src=x onerror=alert(1)>\n\t\u202e=cmd|' /C calc'!A0"
        sent(client, decision("k", query, reason=text))
        assert here.project.ledger.current_answers(query)[0].reason == text
        answer = client.get("api/history")
        assert answer.headers["content-type"] == "application/json"
        assert answer.json()["answers"][0]["reason"] == text
        assert "onerror" not in client.get(f"api/queries/{query}").json()["card"]

    def test_nothing_but_the_ledger_changes(self, site):
        here = site()
        before = contents(here.project.root)
        client = here.client()
        for query in client.post("api/lease", json={"number": 3}).json()["queries"]:
            sent(client, decision("k", query["id"]))
            client.post("api/undo", json={"key": "u" * 8})
            client.post("api/grow", json={"center_zyx": [1, 1, 1]})
        assert contents(here.project.root) == before
