"""The bytes of a connection become exactly the requests that its client sent, whatever the segments they come in."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
import pytest_asyncio
import uvloop

from shared.web.protocol import DISCARDED_BYTES_MAX, FRAMING_BYTES_MAX, HEAD_BYTES_MAX, PARSED_AT_ONCE
from tests.harness.connections import Listener, RecordingApp, in_segments, listening

GET = b"GET /one HTTP/1.1\r\nHost: daybook\r\n\r\n"
SMUGGLED = b"POST /v1/deposits HTTP/1.1\r\nHost: daybook\r\nContent-Length: 2\r\n\r\n{}"
UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
CHUNKED = b"POST /chunked HTTP/1.1\r\nHost: daybook\r\nTransfer-Encoding: chunked\r\n"


@pytest_asyncio.fixture
async def app() -> RecordingApp:
    return RecordingApp()


@pytest_asyncio.fixture
async def listener(app: RecordingApp) -> AsyncIterator[Listener]:
    async with listening(app) as served:
        yield served


# ── upgrades ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def upgrading(body: bytes, framing: bytes = b"") -> bytes:
    framing = framing or b"Content-Length: %d\r\n" % len(body)
    return b"POST /one HTTP/1.1\r\nHost: daybook\r\n" + UPGRADE + framing + b"\r\n" + body


IN_CHUNKS = upgrading(b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED), b"Transfer-Encoding: chunked\r\n")


@pytest.mark.parametrize("request_bytes", [upgrading(SMUGGLED), IN_CHUNKS], ids=["with a length", "in chunks"])
async def test_an_upgrade_is_ignored_and_its_body_is_the_body_however_it_is_cut(request_bytes: bytes) -> None:
    """RFC 9110, 7.8. The body looks like a request, and must not become one, wherever the segments end."""
    for cut in range(0, len(request_bytes), 3):
        app = RecordingApp()
        async with listening(app) as listener, listener.connected() as connection:
            await connection.send(*in_segments(request_bytes + GET, [cut]))
            assert [answer.status for answer in await connection.answers(2)] == [200, 200]
        assert [(seen.method, seen.target, seen.body) for seen in app.seen] == [("POST", "/one", SMUGGLED), ("GET", "/one", b"")]
        assert not app.seen[0].header("upgrade")


async def test_requests_that_follow_an_upgrade_at_once_are_all_answered(listener: Listener, app: RecordingApp) -> None:
    async with listener.connected() as connection:
        await connection.send(GET + upgrading(b"{}") + upgrading(b"") + GET)
        assert len(await connection.answers(4)) == 4
    assert [seen.body for seen in app.seen] == [b"", b"{}", b"", b""]


async def test_a_web_socket_is_a_request_like_any_other(listener: Listener, app: RecordingApp) -> None:
    async with listener.connected() as connection:
        await connection.send(
            b"GET /socket HTTP/1.1\r\nHost: daybook\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\nSec-WebSocket-Version: 13\r\n\r\n" + GET
        )
        assert [answer.status for answer in await connection.answers(2)] == [200, 200]
    assert [seen.target for seen in app.seen] == ["/socket", "/one"]


async def test_connect_is_refused_and_what_follows_is_not_read(listener: Listener, app: RecordingApp) -> None:
    async with listener.connected() as connection:
        await connection.send(b"CONNECT bank.example:443 HTTP/1.1\r\nHost: bank.example:443\r\n\r\n" + GET)
        [answer] = await connection.all_answers()
    assert (answer.status, json.loads(answer.body)["code"]) == (405, "method-not-allowed")
    assert app.seen == []


# ── trailers, chunk extensions, and everything else after the head ───────────────────────────────────────────────────


async def test_trailers_are_no_headers(listener: Listener, app: RecordingApp) -> None:
    """Neither for their own request nor for the next one, in whichever segments they come."""
    trailers = b"0\r\nAuthorization: Bearer stolen\r\nIdempotency-Key: other\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n"
    sent = CHUNKED + b"\r\n2\r\n{}\r\n" + trailers + GET
    for cut in range(len(CHUNKED), len(sent), 7):
        async with listener.connected() as connection:
            await connection.send(*in_segments(sent, [cut]))
            assert len(await connection.answers(2)) == 2
    assert {name for seen in app.seen for name, _ in seen.headers} == {b"host", b"transfer-encoding"}
    assert {seen.body for seen in app.seen} == {b"{}", b""}


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (b"0\r\n", b"X-Many: 1\r\n"),
        (b"0\r\nX-Long: ", b"x" * 1_000),
        (b"0\r\nX-Name", b"x" * 1_000),
        (b"2;a=", b"x" * 1_000),
        (b"", b"1;" + b"x" * 500 + b"\r\n{\r\n"),
        (b"", b"0" * 1_000),
    ],
    ids=["trailers", "a trailer", "a trailer's name", "an extension", "extensions", "a size"],
)
async def test_what_is_sent_beside_the_body_is_bounded(listener: Listener, app: RecordingApp, start: bytes, more: bytes) -> None:
    """However small the body is, and although nobody has asked for a credential yet."""
    async with listener.connected() as connection:
        sent = len(CHUNKED) + 2 + len(start)
        await connection.send(CHUNKED + b"\r\n" + start)
        while not connection.protocol.is_lost and sent < 50 * FRAMING_BYTES_MAX:
            await connection.send(more * 20)
            sent += len(more) * 20
            if connection.reader._buffer:  # type: ignore[attr-defined]  # noqa: SLF001 # the answer is here
                break
        [answer] = await connection.answers(1)
        assert (answer.status, json.loads(answer.body)["code"]) in {(413, "payload-too-large"), (400, "malformed-request")}
        assert sent < 6 * FRAMING_BYTES_MAX
    assert app.seen == []


async def test_a_body_in_the_smallest_chunks_is_accepted(listener: Listener, app: RecordingApp) -> None:
    body = b"{" + b" " * 30_000 + b"}"
    chunks = b"".join(b"1\r\n%c\r\n" % letter for letter in body) + b"0\r\n\r\n"
    async with listener.connected() as connection:
        await connection.send(CHUNKED + b"\r\n", *in_segments(chunks, range(0, len(chunks), 5_000)))
        [answer] = await connection.answers(1)
    assert answer.status == 200
    assert app.seen[0].body == body


async def test_a_second_head_has_the_same_limit_as_the_first(listener: Listener, app: RecordingApp) -> None:
    """Also if both come in one segment, and if a large body is between them."""
    large = GET.replace(b"Host", b"X-Large: " + b"x" * HEAD_BYTES_MAX + b"\r\nHost")
    posted = b"POST /one HTTP/1.1\r\nHost: daybook\r\nContent-Length: 50000\r\n\r\n" + b" " * 50_000
    for before in (b"", GET, posted):
        async with listener.connected() as connection:
            await connection.send(before + large)
            answers = await connection.answers(2)
        assert [answer.status for answer in answers] == [200] * bool(before) + [431]
    upgrading_large = large.replace(b"Host", UPGRADE + b"Host")
    for cuts in (range(0), range(0, len(upgrading_large), 8_000)):
        async with listener.connected() as connection:
            await connection.send(*in_segments(upgrading_large, cuts))
            assert [answer.status for answer in await connection.answers(1)] == [431]
    fits = large.replace(b"x" * 100, b"", 1)
    for before in (b"", GET, posted):
        async with listener.connected() as connection:
            await connection.send(before + fits)
            assert [answer.status for answer in await connection.answers(2 if before else 1)][-1] == 200
    assert not [seen for seen in app.seen if sum(map(len, seen.header("x-large"))) >= HEAD_BYTES_MAX]


async def test_the_rest_of_a_body_that_nobody_reads_is_bounded(listener: Listener) -> None:
    async with listener.connected() as connection:
        await connection.send(b"POST /early HTTP/1.1\r\nHost: daybook\r\nContent-Length: 1000000000000\r\n\r\n")
        [answer] = await connection.answers(1)
        assert answer.status == 413
        sent = 0
        while not connection.protocol.is_lost and sent < 3 * DISCARDED_BYTES_MAX:
            await connection.send(b" " * 200_000)
            sent += 200_000
        assert connection.protocol.is_lost


async def test_requests_sent_ahead_wait_without_being_parsed(listener: Listener, app: RecordingApp) -> None:
    """A client that sends thousands of requests before it reads an answer costs a few kilobytes, and gets every answer."""
    async with listener.connected() as connection:
        most = 0

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, len(connection.protocol.pipeline))
                await asyncio.sleep(0)

        watching = asyncio.create_task(watch())
        connection.writer.write(GET * 10_000)
        assert len(await connection.answers(10_000)) == 10_000
        watching.cancel()
    assert len(app.seen) == 10_000
    assert most <= PARSED_AT_ONCE / len(GET) + 1


async def test_a_stream_behind_which_requests_wait_ends_when_the_client_leaves(listener: Listener, app: RecordingApp) -> None:
    endless = GET.replace(b"/one", b"/endless")
    for sent in (endless, endless + GET, endless + GET + GET):
        app.aborted = 0
        async with listener.connected() as connection:
            await connection.send(sent)
            await connection.reader.readuntil(b"part,")
            connection.protocol.transport.abort()
        async with asyncio.timeout(120):
            while not app.aborted:
                await asyncio.sleep(0)
        assert app.aborted == 1


# ── heads ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "head",
    [
        b"GET /one HTTP/1.1\r\n\r\n",
        b"GET /one HTTP/1.1\r\nHost: daybook\r\nHost: daybook\r\n\r\n",
        b"GET /one HTTP/1.1\r\nHost: daybook\r\nHost: other\r\n\r\n",
        b"GET /one HTTP/1.0\r\nHost: daybook\r\nHost: other\r\n\r\n",
        b"GET /one HTTP/1.1\r\nHost: day book\r\n\r\n",
        b"GET /one HTTP/1.1\r\nHost: daybook/path\r\n\r\n",
        b"GET /one HTTP/1.1\r\nHost: daybook, other\r\n\r\n",
        b"GET /one HTTP/1.1\r\nHost: user@daybook\r\n\r\n",
        b"GET /one HTTP/2.0\r\nHost: daybook\r\n\r\n",
        b"GET /one HTTP/0.9\r\nHost: daybook\r\n\r\n",
        b"POST /one HTTP/1.0\r\nHost: daybook\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"POST /one HTTP/1.1\r\nHost: daybook\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"POST /one HTTP/1.1\r\nHost: daybook\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /one HTTP/1.1\r\nHost: daybook\r\nTransfer-Encoding: identity\r\n\r\n",
        b"POST /one HTTP/1.1\r\nHost: daybook\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"POST /one HTTP/1.1\r\nHost: daybook\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"POST /one HTTP/1.1\r\nHost: daybook\r\nContent-Length: +2\r\n\r\n{}",
        b"POST /one HTTP/1.1\r\nHost: daybook\r\nContent-Length : 2\r\n\r\n{}",
        b"GET /one HTTP/1.1\r\nHost: daybook\r\nX-Folded: a\r\n b\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
async def test_a_head_that_can_be_read_in_two_ways_is_refused(listener: Listener, app: RecordingApp, head: bytes) -> None:
    """Each is answered 400 once, nothing reaches the app, and the connection ends: what follows may be anything."""
    async with listener.connected() as connection:
        await connection.send(head + SMUGGLED)
        [answer] = await connection.all_answers()
    assert (answer.status, json.loads(answer.body)["code"]) == (400, "malformed-request")
    assert answer.headers["connection"] == "close"
    assert app.seen == []


@pytest.mark.parametrize("host", [b"", b"daybook", b"DAYBOOK:8000", b"127.0.0.1:1", b"[::1]:8000", b"xn--bcher-kva.example"])
async def test_each_form_of_host_that_the_rfc_allows_is_accepted(listener: Listener, host: bytes) -> None:
    async with listener.connected() as connection:
        await connection.send(GET.replace(b"daybook", host))
        assert [answer.status for answer in await connection.answers(1)] == [200]


async def test_a_client_of_http_1_0_needs_no_host_and_gets_no_chunks(listener: Listener) -> None:
    for path, body in (b"/one", b"1"), (b"/streamed", b"part,part,part,end"):
        async with listener.connected() as connection:
            await connection.send(b"GET %b HTTP/1.0\r\n\r\n" % path)
            [answer] = await connection.all_answers()
        assert (answer.status, answer.body) == (200, body)
        assert "transfer-encoding" not in answer.headers
        assert answer.headers["connection"] == "close"
    async with listener.connected() as connection:
        await connection.send(GET.replace(b"/one", b"/streamed"))
        [answer] = await connection.answers(1)
        assert (answer.headers["transfer-encoding"], answer.body) == ("chunked", b"part,part,part,end")


@pytest.mark.parametrize(
    ("sent", "seen"),
    [
        (b"/a%2Fb", "/a%2Fb"),
        (b"/a%2fb%20c", "/a%2Fb c"),
        (b"/%61", "/a"),
        (b"/a?b=%2F", "/a?b=%2F"),
        (b"http://other.example/a", "/a"),
        (b"http://other.example", "/"),
        (b"http://other.example?a=1", "/?a=1"),
    ],
)
async def test_a_percent_encoded_slash_is_no_slash(listener: Listener, app: RecordingApp, sent: bytes, seen: str) -> None:
    async with listener.connected() as connection:
        await connection.send(GET.replace(b"/one", sent))
        assert [answer.status for answer in await connection.answers(1)] == [200]
    assert app.seen[0].target == seen


# ── the end of a connection ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"POST /early HTTP/1.1\r\nHost: daybook\r\nContent-Length: 3000000\r\n\r\n", 413),
        (b"POST /one HTTP/1.1\r\nHost: a, b\r\nContent-Length: 3000000\r\n\r\n", 400),
        (b"POST /one HTTP/1.1\r\nHost: daybook\r\nX-Large: %b\r\n\r\n" % (b"x" * HEAD_BYTES_MAX), 431),
        (CHUNKED + b"\r\n1;" + b"x" * 2 * FRAMING_BYTES_MAX, 413),
    ],
)
async def test_a_client_that_sends_all_before_it_reads_gets_its_answer(listener: Listener, head: bytes, status: int) -> None:
    """The connection is not reset under the answer: what the client still sends is read and discarded, within bounds."""
    async with listener.connected() as connection:
        connection.writer.write(head)
        for _ in range(30):
            connection.writer.write(b" " * 100_000)
            await connection.writer.drain()
        [answer] = await connection.all_answers()
    assert answer.status == status


async def test_a_late_request_gets_its_answer_and_then_the_end() -> None:
    """408 arrives although the client goes on sending. Then the connection ends, within as much time again."""
    app = RecordingApp()
    async with listening(app, read_timeout_ms=100) as listener:
        for late in (b"GET /one HTTP/1.1\r\nX: ", b"POST /one HTTP/1.1\r\nHost: daybook\r\nContent-Length: 5\r\n\r\n"):
            async with listener.connected() as connection:
                await connection.send(late)
                answering = asyncio.create_task(connection.all_answers())
                while not answering.done():
                    connection.writer.write(b"x" if b"GET" in late else b"")
                    await asyncio.sleep(0.01)
                [answer] = await answering
                assert answer.status == 408
                async with asyncio.timeout(120):
                    while not connection.protocol.is_lost:
                        await asyncio.sleep(0.01)


def test_a_reader_who_leaves_early_leaves_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """Under uvloop, as in production: its transports raise errors when something is written after their end."""
    complaints: list[object] = []

    async def leave_early() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        app = RecordingApp()
        async with listening(app) as listener:
            for path in (b"/streamed", b"/endless", b"/one"):
                for _ in range(100):
                    async with listener.connected() as connection:
                        connection.writer.write(GET.replace(b"/one", path))
                        await asyncio.sleep(0)
                        connection.writer.transport.abort()
            async with asyncio.timeout(120):
                while not all(protocol.is_lost for protocol in listener.protocols):
                    await asyncio.sleep(0)
            await asyncio.sleep(0.01)

    with caplog.at_level(logging.WARNING), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(leave_early())
    assert complaints == []
    assert caplog.records == []


async def test_every_cut_of_a_plain_exchange_gives_the_same_requests(app: RecordingApp) -> None:
    sent = GET + SMUGGLED + CHUNKED + b"Expect: 100-continue\r\n\r\n2\r\n{}\r\n0\r\n\r\n" + GET
    for first, second in pairwise(range(0, len(sent), 5)):
        app.seen.clear()
        async with listening(app) as listener, listener.connected() as connection:
            await connection.send(*in_segments(sent, [first, second]))
            assert len(await connection.answers(4)) == 4
        assert [seen.body for seen in app.seen] == [b"", b"{}", b"{}", b""]
