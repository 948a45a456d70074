"""Every route answers each method, path and header as HTTP says, through the protocol, on a real connection."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from zlib import decompress

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

import command_api.app
import command_api.routes
import query_api.app
from shared.settings import Settings
from tests.harness.connections import Listener, ReceivedAnswer, listening
from tests.harness.keys import OPERATOR

pytestmark = pytest.mark.services

APPS = (command_api.app, query_api.app)
ID = "0198c5a0-0000-7000-8000-00000000ada0"
BODY_METHODS = {"POST", "PUT", "PATCH"}
VARYING = {"request-id", "ratelimit", "content-length", "transfer-encoding", "retry-after"}
"""Headers that differ from one answer to the next, or that only an answer with a body has."""


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[Listener]:
    async with app.router.lifespan_context(app) as state, listening(app, state=state) as listener:
        yield listener


async def ask(listener: Listener, method: str, path: str, *headers: str, body: bytes = b"") -> ReceivedAnswer:
    """Sends one request, with a credential and a length unless `headers` have other ones, and returns its answer."""
    names = {header.partition(":")[0].lower() for header in headers}
    lines = [f"{method} {path} HTTP/1.1", "Host: evil.example", "Connection: close", *headers]
    if "authorization" not in names:
        lines.append(f"Authorization: Bearer {OPERATOR}")
    if method in BODY_METHODS and not names & {"content-length", "transfer-encoding", "x-no-length"}:
        lines.append(f"Content-Length: {len(body)}")
    async with listener.connected() as connection:
        await connection.send("\r\n".join([*lines, "", ""]).encode() + body)
        if method == "HEAD":
            head, _, rest = (await connection.reader.read()).partition(b"\r\n\r\n")
            status, *fields = head.decode().split("\r\n")
            named = dict(field.split(": ", 1) for field in fields)
            return ReceivedAnswer(int(status.split()[1]), named, rest)
        [answer] = await connection.answers(1)
        return answer


def paths_of(app: FastAPI) -> Iterator[tuple[str, set[str]]]:
    """Each path of an app with all its methods."""
    documented = {path: {method.upper() for method in operations} for path, operations in app.openapi()["paths"].items()}
    others = {path: {"GET"} for path in ("/openapi.json", "/docs", "/redoc", "/problems/{code}")}
    return ((re.sub(r"\{\w+\}", ID, path), methods) for path, methods in (documented | others).items())


@pytest.mark.slow
async def test_head_answers_as_get_does_on_every_get_route(settings: Settings) -> None:
    """The same status and headers, no body, and an end also where GET would send events without end."""
    for module in APPS:
        app = module.create_app(settings)
        async with serving(app) as listener:
            for path, methods in paths_of(app):
                if "GET" not in methods:
                    continue
                head = await ask(listener, "HEAD", path)
                assert head.body == b"", path
                if path.endswith("/events/stream"):
                    assert head.status == 200
                    continue
                got = await ask(listener, "GET", path)
                assert head.status == got.status, path
                assert {*head.headers} ^ {*got.headers} <= VARYING, path
                same = head.headers.keys() & got.headers.keys() - VARYING
                assert {name: head.headers[name] for name in same} == {name: got.headers[name] for name in same}, path


@pytest.mark.slow
async def test_each_path_names_all_its_methods(settings: Settings) -> None:
    """In the answer to OPTIONS, and in the 405 to each method that it does not have."""
    for module in APPS:
        app = module.create_app(settings)
        async with serving(app) as listener:
            for path, methods in paths_of(app):
                allowed = {*methods, "OPTIONS", *({"HEAD"} if "GET" in methods else ())}
                options = await ask(listener, "OPTIONS", path)
                assert (options.status, options.body) == (204, b""), path
                assert {*options.headers["allow"].split(", ")} == allowed, path
                for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PURGE"} - allowed:
                    answer = await ask(listener, method, path)
                    assert (answer.status, json.loads(answer.body)["code"]) == (405, "method-not-allowed"), (method, path)
                    assert {*answer.headers["allow"].split(", ")} == allowed, (method, path)
            assert (await ask(listener, "OPTIONS", "/nowhere")).status == 404
            assert (await ask(listener, "OPTIONS", "*")).status == 404


@pytest.mark.slow
async def test_a_slash_at_the_end_is_another_path_and_no_answer_repeats_the_host(settings: Settings) -> None:
    for module in APPS:
        app = module.create_app(settings)
        async with serving(app) as listener:
            for path, methods in paths_of(app):
                for method in methods:
                    answer = await ask(listener, method, f"{path}/")
                    assert (answer.status, json.loads(answer.body)["code"]) == (404, "not-found"), (method, path)
                    assert "evil" not in repr(answer)


async def test_an_encoded_slash_leads_to_no_other_route(settings: Settings) -> None:
    app = query_api.app.create_app(settings)
    async with serving(app) as listener:
        answer = await ask(listener, "GET", f"/v1/accounts/{ID}%2Fbalance")
        assert (answer.status, json.loads(answer.body)["code"]) == (422, "validation-failed")
        assert (await ask(listener, "GET", "/v1%2Faccounts")).status == 404


@pytest.mark.parametrize(
    ("method", "path", "header"),
    [
        ("POST", "/v1/users", "Daybook-Ledger: main"),
        ("POST", "/v1/users", 'If-Match: "v1"'),
        ("POST", "/v1/users", "Content-Type: application/json"),
        ("POST", "/v1/users", "Content-Encoding: identity"),
        ("POST", "/v1/login", "Daybook-Ledger: main"),
        ("GET", "/metrics", "Daybook-Ledger: main"),
        ("GET", "/v1/accounts", "Daybook-Ledger: main"),
        ("GET", "/v1/accounts", "Daybook-Min-Position: 0"),
        ("GET", "/v1/events/stream", "Last-Event-ID: 0"),
    ],
)
async def test_a_deciding_header_that_is_sent_twice_is_refused(settings: Settings, method: str, path: str, header: str) -> None:
    """Also if both have the same value: the next reader may take another one."""
    module = query_api.app if method == "GET" and path != "/metrics" else command_api.app
    sent = [header] if header.startswith("Content-Type") else [header, "Content-Type: application/json"]
    body = (
        b'{"name": "Ada", "email": "a@example.com", "password": "p"}'
        if path == "/v1/login"
        else b'{"name": "A", "email": "a@b.example"}'
    )
    async with serving(module.create_app(settings)) as listener:
        answer = await ask(listener, method, path, *sent, header, body=body if method == "POST" else b"")
        assert (answer.status, json.loads(answer.body)["code"]) in {(400, "malformed-request"), (422, "validation-failed")}, (
            answer
        )
        authorized = f"Authorization: Bearer {OPERATOR}"
        answer = await ask(listener, method, path, *sent, authorized, authorized, body=body if method == "POST" else b"")
        assert answer.status == 401 or path == "/v1/login"


async def test_a_command_without_a_length_is_asked_for_one(settings: Settings) -> None:
    app = command_api.app.create_app(settings)
    with_body = [route for route in command_api.routes.router.routes if isinstance(route, APIRoute) and _takes_body(route)]
    assert len(with_body) > 5
    async with serving(app) as listener:
        for route in with_body:
            named = route.path.replace("{name}", "users").replace("{position}", "1").replace("{key_id}", "k3vq7m2xnp")
            path = re.sub(r"\{\w+\}", ID, named)
            method = next(iter(route.methods or ()))
            answer = await ask(listener, method, path, "Content-Type: application/json", "X-No-Length: 1")
            if answer.status != 403:  # only customers may call it
                assert (answer.status, json.loads(answer.body)["code"]) == (411, "length-required"), path


def _takes_body(route: APIRoute) -> bool:
    return bool(route.dependant.body_params)


async def test_media_types_and_codings_have_no_case(settings: Settings) -> None:
    async with serving(command_api.app.create_app(settings)) as listener:
        for n, (media_type, coding) in enumerate(
            [("application/json", "identity"), ("Application/JSON; charset=UTF-8", " IDENTITY ")]
        ):
            body = json.dumps({"name": "Ada", "email": f"ada{n}@example.com"}).encode()
            answer = await ask(
                listener, "POST", "/v1/users", f"Content-Type: {media_type}", f"Content-Encoding: {coding}", body=body
            )
            assert answer.status == 201, answer
        for header in ("Content-Encoding: gzip", "Content-Encoding: identity, gzip", "Content-Type: application/jsonx"):
            sent = [header] if "Type" in header else [header, "Content-Type: application/json"]
            answer = await ask(listener, "POST", "/v1/users", *sent, body=b"{}")
            assert (answer.status, json.loads(answer.body)["code"]) == (415, "unsupported-media-type")
    async with serving(query_api.app.create_app(settings)) as listener:
        for accept, is_lines in (
            ("application/x-ndjson", True),
            ("Application/X-NDJSON", True),
            ("application/x-ndjson;q=0", False),
            ("application/json, application/x-ndjson;q=0.5", False),
            ("application/x-ndjson, */*;q=0.1", True),
            ("*/*", False),
            ("text/application/x-ndjsonx", False),
        ):
            answer = await ask(listener, "GET", "/v1/events", f"Accept: {accept}")
            assert answer.status == 200
            assert (answer.headers["content-type"] == "application/x-ndjson") == is_lines, accept


async def test_if_match_works_through_a_command(settings: Settings) -> None:
    """`*` needs something that exists, a list needs one match, and a weak tag never matches."""
    async with serving(command_api.app.create_app(settings)) as listener:

        async def change(user_id: str, if_match: str) -> tuple[int, Any]:
            answer = await ask(
                listener, "PATCH", f"/v1/users/{user_id}", f"If-Match: {if_match}", "Content-Type: application/json", body=NAMED
            )
            return answer.status, json.loads(answer.body).get("code")

        body = json.dumps({"id": ID, "name": "Ada", "email": "ada@example.com"}).encode()
        new = ["Content-Type: application/json"]
        assert (await ask(listener, "POST", "/v1/users", *new, "If-Match: *", body=body)).status == 412
        assert (await ask(listener, "POST", "/v1/users", *new, body=body)).status == 201
        mismatch = (412, "stream-version-mismatch")
        assert await change(ID, 'W/"v1"') == mismatch
        assert await change(ID, '"v2", "other"') == mismatch
        assert await change(ID, '"v2", "v1"') == (200, None)
        assert await change(ID, "*") == (200, None)
        assert await change(ID, "v1") == (422, "validation-failed")


NAMED = b'{"name": "Ada Lovelace"}'


@pytest.mark.parametrize(
    ("header", "status"),
    [("Content-Type: application/json", 413), ("Content-Type: text/plain", 415), ("Authorization: Bearer dbk_nobody", 401)],
)
async def test_an_early_answer_reaches_a_client_that_sends_its_whole_body_first(
    settings: Settings, header: str, status: int
) -> None:
    async with serving(command_api.app.create_app(settings)) as listener:
        answer = await ask(listener, "POST", "/v1/users", header, body=b" " * 5_000_000)
        assert answer.status == status


async def test_large_answers_are_compressed_and_streams_and_tokens_are_not(settings: Settings) -> None:
    async with serving(query_api.app.create_app(settings)) as listener:
        plain = await ask(listener, "GET", "/openapi.json")
        small = await ask(listener, "GET", "/openapi.json", "Accept-Encoding: gzip")
        assert decompress(small.body, 31) == plain.body
        assert len(small.body) < len(plain.body) / 3
        stream = await ask(listener, "HEAD", "/v1/events/stream", "Accept-Encoding: gzip")
        assert "content-encoding" not in stream.headers
