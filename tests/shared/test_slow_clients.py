"""A client that is slow, sends too much, or sends no HTTP costs one connection for a while, and other clients nothing."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
import pytest_asyncio

import command_api.app
import query_api.app
from dev.daybook_processes import ApiProcess, start_processes
from dev.daybook_processes import command_api as command_process
from dev.ports import free_port
from dev.servers import stop_all
from shared.settings import Settings
from shared.web.protocol import HEAD_BYTES_MAX, HEADERS_MAX
from tests.harness.clients import client_of
from tests.harness.keys import OPERATOR
from tests.harness.running import environment_of

HEAD = f"POST /v1/users HTTP/1.1\r\nHost: daybook\r\nAuthorization: Bearer {OPERATOR}\r\nContent-Type: application/json\r\n"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(shared_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ApiProcess]:
    """A command API that runs as in production, with a read timeout of half a second."""
    environment = environment_of(shared_settings) | {"DAYBOOK_READ_TIMEOUT_MS": "500"}
    process = command_process(tmp_path_factory.mktemp("api"), free_port(), environment)
    try:
        await start_processes(process)
        yield process
    finally:
        await stop_all(process)


@asynccontextmanager
async def connected(api: ApiProcess) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    url = urlsplit(api.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def said(reader: asyncio.StreamReader) -> tuple[int, dict[str, object]]:
    """Status and problem document of the answer. The connection must end after it."""
    async with asyncio.timeout(120):
        whole = await reader.read()
    head, _, body = whole.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


async def drip(writer: asyncio.StreamWriter, text: str) -> None:
    """Sends one byte at a time, for ever if it must."""
    while True:
        for letter in text:
            writer.write(letter.encode())
            await writer.drain()
            await asyncio.sleep(0.05)


@pytest.mark.slow
async def test_a_slow_head_is_cut_off_while_others_are_served(api: ApiProcess) -> None:
    async with connected(api) as (reader, writer), httpx2.AsyncClient(base_url=api.url, trust_env=False) as other:
        writer.write(b"POST /v1/users HTTP/1.1\r\n")
        dripping = asyncio.create_task(drip(writer, "X-Slow: 1\r\n"))
        answering = asyncio.create_task(said(reader))
        while not answering.done():
            assert (await other.get("/livez")).status_code == 200
            await asyncio.sleep(0.1)
        status, problem = await answering
        assert (status, problem["code"]) == (408, "request-timeout")
        assert problem["request_id"]
        dripping.cancel()
        await asyncio.wait([dripping])


async def test_a_slow_body_is_cut_off(api: ApiProcess) -> None:
    async with connected(api) as (reader, writer):
        writer.write(f"{HEAD}Content-Length: 200\r\n\r\n".encode())
        dripping = asyncio.create_task(drip(writer, " "))
        status, problem = await said(reader)
        assert (status, problem["code"]) == (408, "request-timeout")
        dripping.cancel()
        await asyncio.wait([dripping])


@pytest.mark.parametrize("opening", [b"", b"\r\n", f"{HEAD.replace(OPERATOR, 'nobody')}Content-Length: 99999\r\n\r\n".encode()])
async def test_a_silent_connection_is_closed(api: ApiProcess, opening: bytes) -> None:
    """A connection is also closed if its request was answered before all of it had arrived."""
    async with connected(api) as (reader, writer):
        writer.write(opening)
        async with asyncio.timeout(120):
            while await reader.read(1_000):
                pass


async def test_a_connection_in_use_stays_open_beyond_the_time_limit(api: ApiProcess) -> None:
    async with connected(api) as (reader, writer):
        for _ in range(4):
            writer.write(b"GET /livez HTTP/1.1\r\nHost: daybook\r\n\r\n")
            assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
            await reader.readuntil(b"}")
            await asyncio.sleep(0.3)


@pytest.mark.parametrize(
    "headers",
    [
        "X-Large: " + "x" * HEAD_BYTES_MAX + "\r\n\r\n",
        "X-Large: " + "x" * 1_000_000,
        "X-Many: 1\r\n" * (HEADERS_MAX + 1) + "\r\n",
        "X: 1\r\n" * 100_000,
    ],
    ids=["one large", "one endless", "many", "100,000"],
)
async def test_a_head_that_is_too_large_is_rejected(api: ApiProcess, headers: str) -> None:
    async with connected(api) as (reader, writer):
        writer.write(f"GET /livez HTTP/1.1\r\nHost: daybook\r\n{headers}".encode())
        await writer.drain()
        status, problem = await said(reader)
        assert (status, problem["code"]) == (431, "head-too-large")


async def test_a_large_body_in_one_piece_with_the_head_does_not_make_the_head_too_large(api: ApiProcess) -> None:
    async with connected(api) as (reader, writer):
        body = b" " * 100_000
        writer.write(f"{HEAD}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        async with asyncio.timeout(120):
            assert b" 400 " in await reader.readuntil(b"\r\n")


@pytest.mark.parametrize("rubbish", [b"\x16\x03\x01 TLS, say\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nno colon\r\n\r\n"])
async def test_bytes_that_are_not_http_get_a_problem_document_too(api: ApiProcess, rubbish: bytes) -> None:
    async with connected(api) as (reader, writer):
        writer.write(rubbish)
        status, problem = await said(reader)
        assert (status, problem["code"]) == (400, "malformed-request")


async def test_a_body_beyond_the_limit_closes_the_connection(api: ApiProcess) -> None:
    async with connected(api) as (reader, writer):
        writer.write(f"{HEAD}Content-Length: 10000000000\r\n\r\n".encode())
        status, problem = await said(reader)
        assert (status, problem["code"]) == (413, "payload-too-large")


async def test_no_answer_names_the_server(api: ApiProcess) -> None:
    async with httpx2.AsyncClient(base_url=api.url, trust_env=False) as client:
        assert "server" not in (await client.get("/livez")).headers


@pytest.mark.slow
@pytest.mark.parametrize("depth", [10, 200, 500, 900, 1_000, 5_000, 50_000])
@pytest.mark.parametrize("form", ['{"name":%s1%s}', '{"name":"Ada","email":"a@example.com","x":%s1%s}'])
async def test_deeply_nested_json_is_a_bad_request_and_not_a_500(settings: Settings, depth: int, form: str) -> None:
    async with client_of(command_api.app.create_app(settings)) as client:
        for opening, closing in ("[", "]"), ('{"a":', "}"):
            body = form % (opening * depth, closing * depth)
            answer = await client.post("/v1/users", content=body, headers={"content-type": "application/json"})
            assert answer.status_code in {400, 413, 422}, answer.text


# ── browsers ─────────────────────────────────────────────────────────────────────────────────────────────────────────

PAGE = {"origin": "https://app.example.com"}
PREFLIGHT = PAGE | {"access-control-request-method": "GET", "access-control-request-headers": "authorization"}


async def test_scripts_of_a_web_page_can_call_only_if_its_origin_is_configured(settings: Settings) -> None:
    named = settings.model_copy(update={"cors_origins": PAGE["origin"]})
    for api in (command_api.app, query_api.app):
        async with client_of(api.create_app(settings)) as client:
            for answer in (await client.options("/v1/stats", headers=PREFLIGHT), await client.get("/v1/stats", headers=PAGE)):
                assert not [name for name in answer.headers if name.startswith("access-control")]
        async with client_of(api.create_app(named)) as client:
            preflight = await client.options("/v1/stats", headers=PREFLIGHT)
            assert preflight.status_code == 200
            assert preflight.headers["access-control-allow-origin"] == PAGE["origin"]
            answer = await client.get("/v1/stats", headers=PAGE)
            assert answer.headers["access-control-allow-origin"] == PAGE["origin"]
            assert "RateLimit" in answer.headers["access-control-expose-headers"]
            other = await client.get("/v1/stats", headers={"origin": "https://evil.example.com"})
            assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize("origins", ["*", "app.example.com", "https://a.example, https://b.example", "https://a.example/"])
def test_an_origin_that_matches_nothing_or_everything_is_rejected(settings: Settings, origins: str) -> None:
    with pytest.raises(ValueError, match="origins"):
        Settings(**settings.model_dump() | {"cors_origins": origins})


@pytest.mark.slow
async def test_every_answer_has_the_security_headers(settings: Settings) -> None:
    for api in (command_api.app, query_api.app):
        async with client_of(api.create_app(settings)) as client:
            for path in ("/livez", "/v1/stats", "/nowhere", "/openapi.json", "/docs", "/redoc"):
                headers = (await client.get(path)).headers
                assert headers["x-content-type-options"] == "nosniff"
                assert headers["cache-control"] == "no-store"
                assert headers["x-frame-options"] == "DENY"
                assert "frame-ancestors 'none'" in headers["content-security-policy"]
                # The pages' own scripts must run.
                assert ("default-src 'none'" in headers["content-security-policy"]) == (path not in {"/docs", "/redoc"})
                assert "strict-transport-security" not in headers
            secure = await client.get("https://daybook/livez")
            assert secure.headers["strict-transport-security"] == "max-age=31536000"


def test_the_procfile_runs_both_apis_with_these_limits() -> None:
    lines = [line for line in (Path(__file__).parents[2] / "Procfile").read_text().splitlines() if "uvicorn" in line]
    assert len(lines) == 2
    for flag in (
        "--http shared.web.protocol:Protocol",
        "--ws none",
        "--no-server-header",
        "--no-proxy-headers",
        "--no-access-log",
    ):
        assert all(flag in line for line in lines)
