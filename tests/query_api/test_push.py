"""Events are pushed as they are recorded: each once, in order, to readers that may read them and do."""

import asyncio
import json
import os
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.daybook_processes import ApiProcess, query_api, start_processes
from dev.ports import free_port
from dev.servers import stop_all
from shared.identity.api_keys import key_id_of, revoke_key
from shared.identity.audit_records import ActCaller
from shared.identity.signed_tokens import LEEWAY_SECONDS
from shared.settings import Settings
from shared.stores.postgres import open_postgres
from tests.harness import log
from tests.harness.keys import OPERATOR, add_key, bearer
from tests.harness.log import Book
from tests.harness.projecting import eventually
from tests.harness.running import environment_of
from tests.harness.tokens import accepting_tokens, signed

pytestmark = pytest.mark.services

WAIT_SECONDS = 60.0
PATH = "/v1/events/stream"


class Reader:
    """One stream of events."""

    def __init__(self, answer: httpx2.Response) -> None:
        self.answer = answer
        self._blocks = self._read()
        self.last_id = ""
        self.is_ended = False

    async def _read(self) -> AsyncIterator[dict[str, str]]:
        block: dict[str, str] = {}
        async for line in self.answer.aiter_lines():
            if line:
                name, _, value = line.partition(":")
                block[name] = value.strip()
                continue
            self.last_id = block.get("id", self.last_id)
            yield block
            block = {}
        self.is_ended = True

    async def events(self, count: int) -> list[Any]:
        """The next events, without the heartbeats between them."""
        found: list[Any] = []
        async with asyncio.timeout(WAIT_SECONDS):
            while len(found) < count:
                block = await anext(self._blocks)
                if "data" in block:
                    found.append(json.loads(block["data"]))
        return found

    async def block(self) -> dict[str, str]:
        async with asyncio.timeout(WAIT_SECONDS):
            return await anext(self._blocks)

    async def end(self) -> None:
        """Returns when the stream ends cleanly."""
        async with asyncio.timeout(WAIT_SECONDS):
            async for _ in self._blocks:
                pass


class Pushing:
    """A query API that runs as in production, and a log to write to."""

    def __init__(self, api: ApiProcess, client: httpx2.AsyncClient, writer: AsyncEngine) -> None:
        self.api = api
        self.client = client
        self.writer = writer

    @asynccontextmanager
    async def read(self, parameters: Any = None, token: str = OPERATOR, **headers: str) -> AsyncIterator[Reader]:
        named = bearer(token) | {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.client.stream("GET", PATH, params=parameters, headers=named) as answer:
            assert answer.status_code == 200, await answer.aread()
            reader = Reader(answer)
            assert await reader.block() == {"retry": "1000"}
            yield reader

    async def record(self, *events: Any) -> int:
        return await log.append(self.writer, events)


@asynccontextmanager
async def run_pushing(settings: Settings, folder: Path, **more: str) -> AsyncIterator[Pushing]:
    api = query_api(folder, free_port(), environment_of(settings) | more)
    try:
        await start_processes(api)
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
        async with (
            httpx2.AsyncClient(base_url=api.url, trust_env=False, timeout=WAIT_SECONDS, limits=limits) as client,
            open_postgres(settings, "daybook_command") as writer,
        ):
            yield Pushing(api, client, writer)
    finally:
        await stop_all(api)


@pytest_asyncio.fixture
async def pushing(settings: Settings, tmp_path: Path) -> AsyncIterator[Pushing]:
    async with run_pushing(settings, tmp_path, DAYBOOK_EVENT_STREAM_HEARTBEAT_MS="200", DAYBOOK_EVENT_STREAMS_MAX="3") as opened:
        yield opened


@pytest.mark.slow
async def test_a_reader_gets_events_as_they_are_recorded_and_can_go_on_where_it_stopped(pushing: Pushing) -> None:
    book = Book()
    history = list(book.history(500))
    await pushing.record(*history[:300])
    async with pushing.read({"after": "0"}) as reader:
        assert [event["position"] for event in await reader.events(300)] == list(range(1, 301))
        new = []
        for start, end in ((300, 301), (301, 303), (303, 310)):
            await pushing.record(*history[start:end])
            new += await reader.events(end - start)
        listed = (await pushing.client.get("/v1/events?after=300&limit=10", headers=bearer(OPERATOR))).json()
        assert new == listed["items"]
        assert reader.last_id == "310"
    await pushing.record(*history[310:])
    async with pushing.read({"after": "0"}, last_event_id="310") as reader:
        assert [event["position"] for event in await reader.events(len(history) - 310)] == list(range(311, len(history) + 1))
        # Events that were read for the reader before must not be sent again.
        head = await pushing.record(Book(seed=9).create_user())
        assert [event["position"] for event in await reader.events(1)] == [head]


@pytest.mark.slow
async def test_a_reader_without_a_position_gets_only_new_events(pushing: Pushing) -> None:
    book = Book()
    await pushing.record(*book.history(20))
    async with pushing.read() as reader:
        assert (await reader.block())["id"] == "20"  # there is nothing new: a heartbeat with the position
        await pushing.record(book.create_user())
        assert [event["position"] for event in await reader.events(1)] == [21]


@pytest.mark.slow
async def test_a_filtered_stream_sends_only_matching_events_and_still_advances_its_id(pushing: Pushing) -> None:
    book = Book()
    user = book.create_user()
    first, second = book.open_account(user.user_id), book.open_account(user.user_id)
    await pushing.record(user, first, second, book.deposit(first.account_id, 5))
    stream = f"account-{first.account_id}"
    wanted = {"after": "0", "stream": stream}
    async with pushing.read(wanted) as reader, pushing.read({**wanted, "type": "FundsDeposited"}) as deposits:
        assert [event["position"] for event in await reader.events(2)] == [2, 4]
        assert [event["position"] for event in await deposits.events(1)] == [4]
        await pushing.record(
            book.deposit(second.account_id, 5), book.withdraw(first.account_id, 1), book.deposit(first.account_id, 2)
        )
        assert [event["position"] for event in await reader.events(2)] == [6, 7]
        assert [event["position"] for event in await deposits.events(1)] == [7]
        await pushing.record(book.deposit(second.account_id, 5))
        while reader.last_id != "8":
            assert "data" not in await reader.block()


@pytest.mark.slow
async def test_the_stream_is_denied_to_the_same_callers_as_the_list_of_events(pushing: Pushing, settings: Settings) -> None:
    customer = await add_key(settings.database_url, name="ada", scopes=["ledger:read"], user_id=Book().new_id())
    asked: list[tuple[dict[str, str], dict[str, str], int, str]] = [
        ({}, {}, 401, "unauthorized"),
        ({}, bearer(customer), 401, "unauthorized"),  # its user does not exist
        ({"after": "-1"}, bearer(OPERATOR), 422, "validation-failed"),
        ({"limit": "5"}, bearer(OPERATOR), 422, "validation-failed"),
        ({}, bearer(OPERATOR) | {"last-event-id": "x"}, 422, "validation-failed"),
        ({}, bearer(OPERATOR) | {"daybook-ledger": "other"}, 404, "not-found"),
    ]
    for parameters, headers, status, code in asked:
        answer = await pushing.client.get(PATH, params=parameters, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert (await pushing.client.get("/v1/events/other", headers=bearer(OPERATOR))).status_code == 404


@pytest.mark.slow
async def test_a_caller_cannot_open_more_streams_than_the_limit(pushing: Pushing) -> None:
    async with AsyncExitStack() as streams:
        for _ in range(3):
            await streams.enter_async_context(pushing.read())
        async with asyncio.timeout(WAIT_SECONDS):  # an admitted stream would have no end
            refused = await pushing.client.get(PATH, headers=bearer(OPERATOR))
        assert (refused.status_code, refused.json()["code"]) == (429, "too-many-streams")

    async def is_free() -> bool:
        return (await _status(pushing)) == 200

    await eventually(is_free)


async def _status(pushing: Pushing) -> int:
    async with pushing.client.stream("GET", PATH, headers=bearer(OPERATOR)) as answer:
        return answer.status_code


@pytest.mark.slow
async def test_a_caller_that_opens_two_hundred_streams_at_once_gets_as_many_as_the_limit(pushing: Pushing) -> None:
    """Each stream is counted in the same step in which it is admitted."""
    async with AsyncExitStack() as streams:

        async def open_stream() -> int:
            answer = await streams.enter_async_context(pushing.client.stream("GET", PATH, headers=bearer(OPERATOR)))
            if answer.status_code != 200:
                assert json.loads(await answer.aread())["code"] == "too-many-streams"
            return answer.status_code

        async with asyncio.timeout(WAIT_SECONDS):
            statuses = Counter(await asyncio.gather(*(open_stream() for _ in range(200))))
    assert statuses == {200: 3, 429: 197}


@pytest.mark.slow
async def test_a_revoked_key_ends_the_stream(pushing: Pushing, settings: Settings) -> None:
    token = await add_key(settings.database_url, name="short", scopes=["events:read"])
    async with pushing.read(token=token) as reader, pushing.read() as other:
        async with open_postgres(settings, "daybook_admin") as engine, engine.begin() as connection:
            await revoke_key(connection, key_id_of(token), ActCaller.operator("of a test"))
        await reader.end()
        await pushing.record(Book().create_user())
        assert len(await other.events(1)) == 1


@pytest.mark.slow
async def test_a_credential_that_ends_by_itself_ends_the_stream(settings: Settings, tmp_path: Path) -> None:
    """A key that expires, and a token of an identity provider: nothing announces their end."""
    async with run_pushing(accepting_tokens(settings), tmp_path) as pushing:
        key = await add_key(settings.database_url, name="short", scopes=["events:read"], lifetime=timedelta(seconds=8))
        end = int(time.time()) + 8 - LEEWAY_SECONDS
        token = signed(scope="events:read", iat=end - 60, exp=end)
        async with pushing.read(token=key) as by_key, pushing.read(token=token) as by_token, pushing.read() as other:
            await asyncio.gather(by_key.end(), by_token.end())
            await pushing.record(Book().create_user())
            assert len(await other.events(1)) == 1


async def test_customers_have_no_streams(pushing: Pushing, settings: Settings) -> None:
    """So a stream need not check that its user is still active."""
    user = Book().create_user()
    await pushing.record(user)
    customer = await add_key(settings.database_url, name="ada", scopes=["events:read"], user_id=user.user_id)
    answer = await pushing.client.get(PATH, headers=bearer(customer))
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


async def test_a_server_that_is_told_to_stop_ends_its_streams_first(settings: Settings, tmp_path: Path) -> None:
    async with run_pushing(settings, tmp_path) as pushing, pushing.read() as reader:
        assert pushing.api.process
        pushing.api.process.terminate()
        await reader.end()  # raises if the end is not clean
        assert await asyncio.to_thread(pushing.api.process.wait, WAIT_SECONDS) in {0, -15}
        assert "Cancel" not in pushing.api.log.read_text()


@pytest.mark.slow
async def test_a_reader_that_does_not_read_is_cut_off_and_costs_little(settings: Settings, tmp_path: Path) -> None:
    async with run_pushing(settings, tmp_path, DAYBOOK_EVENT_STREAM_STALL_MS="500", DAYBOOK_EVENT_STREAMS_MAX="50") as pushing:
        await pushing.record(*Book().history(12_000))
        assert pushing.api.process
        before = _resident(pushing.api.process.pid)
        url = urlsplit(pushing.api.url)
        deaf = []
        for _ in range(20):
            connection = socket.create_connection((url.hostname or "", url.port or 0))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            connection.sendall(f"GET {PATH}?after=0 HTTP/1.1\r\nHost: d\r\nAuthorization: Bearer {OPERATOR}\r\n\r\n".encode())
            deaf.append(connection)
        async with pushing.read({"after": "0"}) as reader:
            assert len(await reader.events(12_000)) == 12_000
        assert _resident(pushing.api.process.pid) - before < 60_000_000
        port = url.port
        await eventually(lambda: _none_connected(port))
        for connection in deaf:
            connection.close()


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def _none_connected(port: int | None) -> bool:
    """True when the server holds no connection any more."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    held = [line.split() for line in lines if line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "01"]
    return not held


@pytest.mark.slow
async def test_two_hundred_readers_share_one_tail(settings: Settings, tmp_path: Path) -> None:
    async with run_pushing(settings, tmp_path, DAYBOOK_EVENT_STREAMS_MAX="200") as pushing, AsyncExitStack() as streams:
        readers = [await streams.enter_async_context(pushing.read()) for _ in range(200)]
        began = time.monotonic()
        await pushing.record(*Book().history(100))
        seen = await asyncio.gather(*(reader.events(100) for reader in readers))
        took = time.monotonic() - began
        assert all([event["position"] for event in events] == list(range(1, 101)) for events in seen), took
