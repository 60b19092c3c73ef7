"""Requests drawn from the OpenAPI description, and beyond it: none makes the server fail, none writes unasked.

Three people send them: somebody who has not signed in, somebody whose requests do not come from the page, and an
annotator. Only what the annotator was told is recorded may be in the ledger afterwards.
"""

import contextlib
import json
import sqlite3
from urllib.parse import quote

import pytest
from sites import contents

pytest.importorskip("fastapi")
pytest.importorskip("httpx")
schemathesis = pytest.importorskip("schemathesis")

from hypothesis import HealthCheck, Phase, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from hypothesis.errors import Unsatisfiable  # noqa: E402
from schemathesis import GenerationMode  # noqa: E402

from twostream.task.answers import MEANING, RETRACTED  # noqa: E402

EXAMPLES = 6
"""Requests that fit the description, and as many that do not, for each operation and each of the three people."""
REFUSED = {400, 401, 403, 404, 405, 409, 413, 415, 422, 429}
DONE = {200, 202, 204, 307}


def drawn(examples: int = EXAMPLES) -> settings:
    """Settings of Hypothesis: the same requests in every run, and no time limit for one of them."""
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def operations(client):
    """The operations that the server describes. Signing in comes last: its limit would keep others out."""
    schema = schemathesis.openapi.from_dict(client.get("api/openapi.json").json())
    found = [operation.ok() for operation in schema.get_all_operations()]
    assert len(found) > 15
    return sorted(found, key=lambda operation: operation.path.endswith("sign-in"))


def fuzz(operation, client, see) -> None:
    """Send requests that fit the description of an operation, and such that do not, and show each answer to ``see``."""

    def sending(mode):
        @drawn()
        @given(case=operation.as_strategy(generation_mode=mode))
        def send(case):
            values = case.as_transport_kwargs(base_url=str(client.base_url).rstrip("/"))
            values = {key: values.get(key) for key in ("method", "url", "params", "headers", "json", "data", "cookies")}
            body = values.pop("data")
            # What is sent is the client's: its session and, where it has one, its CSRF token.
            headers = {k: v for k, v in (values.pop("headers") or {}).items() if k.lower() == "content-type"}
            values.pop("cookies")
            answer = client.send(client.build_request(**values, content=body, headers=headers))
            assert answer.status_code in REFUSED | DONE, (answer.status_code, case.as_curl_command())
            see(operation, answer)

        return send

    sending(GenerationMode.POSITIVE)()
    with contextlib.suppress(Unsatisfiable):  # nothing is wrong where nothing is given
        sending(GenerationMode.NEGATIVE)()


def rows(project) -> list[str]:
    """Everything that the ledger holds."""
    with contextlib.closing(sqlite3.connect(project.ledger.path)) as database:
        return list(database.iterdump())


def test_who_has_not_signed_in_gets_nothing(site):
    here = site(neuroglancer="local")
    before, told = contents(here.project.root), rows(here.project)
    client = here.client("")

    def see(operation, answer):
        assert answer.status_code in REFUSED, operation.label

    for operation in operations(client):
        fuzz(operation, client, see)
    assert rows(here.project) == told
    assert contents(here.project.root) == before


def test_a_request_that_does_not_come_from_the_page_writes_nothing(site):
    here = site()
    client = here.client()
    client.headers["X-CSRF-Token"] = "0" * 32
    before, told = contents(here.project.root), rows(here.project)

    def see(operation, answer):
        assert answer.status_code in REFUSED or operation.method == "get", operation.label

    for operation in operations(client):
        fuzz(operation, client, see)
    assert rows(here.project) == told
    assert contents(here.project.root) == before


def check_answers(project, recorded, moved) -> None:
    """Every answer in the ledger is one that was acknowledged, or part of an acknowledged undo or redo."""
    found = project.ledger.answers_after(0)
    for answer in found:
        step, _, rest = answer.key.partition(":")
        assert answer.id in recorded or (step in ("undo", "redo") and rest.split("/")[0] in moved), answer
        assert answer.annotator == "ann"
    assert set(recorded) <= {answer.id for answer in found}


def test_an_annotator_records_what_was_acknowledged_and_nothing_else(site):
    here = site()
    client = here.client()
    before = contents(here.project.root)
    recorded, moved, statuses = set(), set(), set()

    def see(operation, answer):
        statuses.add(answer.status_code)
        if operation.path.endswith("decisions") and answer.status_code == 200:
            recorded.update(r["answer"] for r in answer.json()["results"] if r["answer"] is not None)
        if operation.path.endswith(("undo", "redo")) and answer.status_code == 200:
            moved.add(json.loads(answer.request.content)["key"])

    for operation in operations(client):
        fuzz(operation, client, see)
    assert {200, 401, 404, 415, 422} <= statuses
    check_answers(here.project, recorded, moved)
    assert contents(here.project.root) == before


NUMBERS = st.one_of(st.integers(1, 30), st.integers(), st.sampled_from([0, 2**53 - 1, 2**53, 2**63, 2**64, 10**40]))
COORDINATES = st.one_of(st.integers(0, 8), st.integers(-1, 300), NUMBERS)
DRAWINGS = st.one_of(
    st.just({"offset_zyx": [0, 20, 70], "shape_zyx": [2, 2, 2], "runs": [1, 8]}),
    st.fixed_dictionaries(
        {
            "offset_zyx": st.lists(COORDINATES, min_size=2, max_size=4),
            "shape_zyx": st.lists(st.integers(0, 4), min_size=3, max_size=3),
            "runs": st.lists(st.one_of(st.integers(0, 3), NUMBERS), max_size=8),
        }
    ),
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
DECISIONS = st.fixed_dictionaries(
    {
        "key": st.one_of(st.from_regex(r"\A[0-9a-f]{8}(/[0-9])?\Z"), st.sampled_from(["same-key", "same-key/1"])),
        "query": st.one_of(st.integers(1, 24), st.none(), NUMBERS),
        "kind": st.one_of(st.sampled_from([*map(str, MEANING), RETRACTED]), st.text()),
    },
    optional={
        "reason": st.one_of(st.sampled_from(["merge", ""]), st.text(st.characters())),
        "seconds": st.one_of(st.floats(0, 100), st.floats()),
        "drawing": DRAWINGS | ANYTHING,
        "adjudicates": st.booleans() | ANYTHING,
        "split_of": NUMBERS,
    },
)


def test_decisions_that_are_nearly_right(site):
    here = site()
    client = here.client()
    before = contents(here.project.root)
    recorded, refused = set(), []

    @drawn(100)
    @given(st.lists(DECISIONS, min_size=1, max_size=3))
    def send(decisions):
        content = json.dumps({"decisions": decisions})
        answer = client.post("api/decisions", content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code in (200, 400, 422), content
        if answer.status_code == 200:
            results = answer.json()["results"]
            assert [r["key"] for r in results] == [d["key"] for d in decisions]
            assert all((r["answer"] is None) != (r["refused"] is None) for r in results)
            recorded.update(r["answer"] for r in results if r["answer"] is not None)
            refused.extend(r["refused"] for r in results if r["refused"] is not None)

    send()
    assert len(recorded) > 5
    assert len(refused) > 5
    check_answers(here.project, recorded, set())
    assert contents(here.project.root) == before


def test_anything_as_a_body_or_as_an_address(site):
    here = site(neuroglancer="local")
    client = here.client()
    before, told = contents(here.project.root), rows(here.project)
    token = here.security.capability("neuroglancer")
    places = ["", "api/", "api/queries/", "static/", f"ng/{token}/", f"ng/{token}/query/", "neuroglancer/v/local/"]

    @drawn(100)
    @given(st.sampled_from(["lease", "decisions", "undo", "redo", "grow", "run"]), ANYTHING | st.binary(max_size=40))
    def body(path, value):
        content = value if isinstance(value, bytes) else json.dumps(value)
        answer = client.post(f"api/{path}", content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code in REFUSED | {200}, (path, content)

    @drawn(150)
    @given(st.sampled_from(places), st.text(max_size=30), st.sampled_from(["GET", "HEAD", "PUT", "DELETE", "OPTIONS"]))
    def address(place, text, method):
        answer = client.request(method, place + quote(text))
        assert answer.status_code in REFUSED | DONE, (method, place, text)

    body()
    address()
    assert [line for line in rows(here.project) if '"lease"' not in line] == [x for x in told if '"lease"' not in x]
    assert contents(here.project.root) == before
