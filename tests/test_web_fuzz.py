"""Requests that are drawn from the OpenAPI description, and beyond it: none makes the server fail, none writes what it
should not."""

import json

import pytest
from served import contents

pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")
schemathesis = pytest.importorskip("schemathesis")

import hypothesis  # noqa: E402
from hypothesis import HealthCheck, Phase, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from schemathesis import GenerationMode  # noqa: E402

EXAMPLES = 25
"""Requests of each kind, for each operation: a pass takes some ten seconds."""
QUICKLY = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
KNOWN = {200, 202, 204, 307, 400, 401, 403, 404, 405, 409, 413, 415, 422, 429}


def described(client):
    """The operations of the server's own description, by name."""
    schema = schemathesis.openapi.from_dict(client.get("api/openapi.json").json())
    return {found.ok().label: found.ok() for found in schema.get_all_operations()}


def fuzz(operation, client, kept=lambda case, answer: None) -> set[int]:
    """Send requests that fit the description of an operation and such that do not.

    Args:
        operation: of the description.
        client: sends them.
        kept: called with each request and its answer.

    Returns:
        The statuses of the answers.
    """
    seen: set[int] = set()
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

        @QUICKLY
        @given(case=operation.as_strategy(generation_mode=mode))
        def send(case):
            values = case.as_transport_kwargs(base_url=str(client.base_url).rstrip("/"))
            headers = {k: v for k, v in (values.pop("headers", None) or {}).items() if k.lower() != "user-agent"}
            request = client.build_request(
                values.pop("method"), values.pop("url"), params=values.get("params"),
                json=values["json"] if "json" in values else None, content=values.get("data"), headers=headers,
            )  # fmt: skip
            answer = client.send(request)
            assert answer.status_code in KNOWN, (answer.status_code, case.as_curl_command())
            seen.add(answer.status_code)
            kept(case, answer)

        send()
    return seen


def test_probe(one_site):
    client = one_site.client("ann")
    print(list(described(client)))
    for name, operation in described(client).items():
        import time
        t = time.time()
        print(name, fuzz(operation, client), time.time() - t)
