"""Random bytes on a connection: what becomes a request depends on the bytes alone, and nothing else happens.

Each try has a seed, which a failure names. `make prove` makes many more tries.
"""

import asyncio
import logging
import random
import re
from collections.abc import Iterator
from itertools import islice
from typing import Final

import pytest
import uvloop

from tests.harness.connections import Listener, ReceivedAnswer, RecordingApp, SeenRequest, in_segments, listening

FORGED: Final = b"x-forged"
"""The name of each trailer and extension that we send. No app may see it: a valid request has no header with this name."""
LAST: Final = re.compile(rb"close|HTTP/1\.0", re.IGNORECASE)
"""What a request contains that its client calls the last one of the connection."""
Exchanged = tuple[list[SeenRequest], list[ReceivedAnswer] | None]
TRIES_ON_A_LISTENER: Final = 100
PIECES: Final = [
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\r\n\r\n",
        b" ",
        b"\t",
        b":",
        b";",
        b",",
        b"\x00",
        b"\xff",
        b"0",
        b"0\r\n\r\n",
        b"ffffffffffffffff",
    ),
    *(
        b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /b HTTP/1.0\r\n",
        b"HTTP/1.1",
        b"HTTP/1.0",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ),
    *(b"Content-Length: 3\r\n", b"Content-Length: -1\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip\r\n"),
    *(
        b"Connection: Upgrade\r\nUpgrade: h2c\r\n",
        b"Upgrade: websocket\r\n",
        b"Connection: close\r\n",
        b"Expect: 100-continue\r\n",
    ),
    *(b"Host: b\r\n", b" folded\r\n", b"X-A: " + b"a" * 5_000 + b"\r\n", b"X: y\r\n" * 120, b"a" * 40_000, b"\r\n" * 3_000),
]


def any_request(rng: random.Random) -> tuple[bytes, SeenRequest]:
    """Returns a valid request, and what an app must see of it."""
    method = rng.choice([b"GET", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"])
    target = rng.choice([b"/a", b"/b/%41?c=d", b"/streamed", b"/%2F/e", b"/" + b"l" * rng.randrange(300)])
    headers = [(b"Host", rng.choice([b"daybook", b"[::1]:80", b""]))]
    headers += [(b"X-%d" % n, rng.choice([b"", b"value", b"v" * rng.randrange(2_000)])) for n in range(rng.randrange(4))]
    body = rng.randbytes(rng.choice([0, 1, 5, 200, 3_000])) if rng.random() < 0.7 else SMUGGLED
    framing, content = rng.choice([_no_body, _with_length, _in_chunks])(rng, body)
    upgrade = [(b"Connection", b"Upgrade"), (b"Upgrade", rng.choice([b"h2c", b"websocket", b"TLS/1.0"]))]
    extra = rng.choice([[], [], upgrade, upgrade[:1], upgrade[1:], [(b"Expect", b"100-continue")]])
    headers += [*framing, *extra]
    rng.shuffle(headers)
    seen_headers = [(name.lower(), value) for name, value in headers]
    if extra is upgrade:
        seen_headers = [(name, value) for name, value in seen_headers if name != b"upgrade"]
    head = b"%b %b HTTP/1.1\r\n" % (method, target) + b"".join(b"%b: %b\r\n" % header for header in headers) + b"\r\n"
    seen_target = target.decode().replace("%41", "A")
    return head + content, SeenRequest(method.decode(), seen_target, tuple(seen_headers), body if framing else b"")


SMUGGLED: Final = b"POST /smuggled HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"


def _no_body(_: random.Random, __: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    return [], b""


def _with_length(_: random.Random, body: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    return [(b"Content-Length", b"%d" % len(body))], body


def _in_chunks(rng: random.Random, body: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    chunks = in_segments(body, [rng.randrange(len(body) + 1) for _ in range(rng.randrange(5))])
    extension = rng.choice([b"", b";%b=1" % FORGED, b';%b="quoted"' % FORGED])
    content = b"".join(b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in chunks)
    trailers = b"".join(b"%b-%d: t\r\n" % (FORGED, number) for number in range(rng.randrange(3)))
    return [(b"Transfer-Encoding", b"chunked")], content + b"0\r\n" + trailers + b"\r\n"


def damaged(rng: random.Random, data: bytes) -> bytes:
    """Returns the data with one to four random changes."""
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 5)):
        place = rng.randrange(len(changed) + 1)
        end = min(len(changed), place + rng.choice([1, 1, 2, 10, 100]))
        match rng.randrange(5):
            case 0:
                changed[place:end] = rng.randbytes(end - place)
            case 1:
                changed[place:place] = rng.choice(PIECES)
            case 2:
                del changed[place:end]
            case 3:
                changed[place:place] = changed[place:end]
            case _:
                changed[place:end] = rng.choice(PIECES)
    return bytes(changed)


def any_cuts(rng: random.Random, data: bytes) -> list[int]:
    """Returns places to cut the data: few, or everywhere in a part of it."""
    if rng.random() < 0.3 and len(data) > 1:
        start = rng.randrange(len(data))
        return list(range(start, min(len(data), start + 40)))
    return sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(8)))


async def exchange(listener: Listener, app: RecordingApp, segments: list[bytes]) -> Exchanged:
    """Sends segments. Returns the requests that the app saw, and the answers, which are None if the system lost them.

    A client that goes on sending after its last request, by its own words, resets the connection.
    """
    app.seen.clear()
    answers = None
    async with listener.connected() as connection:
        try:
            await connection.send(*segments)
            answers = await connection.answers_so_far()
        except ConnectionError:
            assert LAST.search(b"".join(segments))
    return list(app.seen), answers


async def try_seed(listener: Listener, app: RecordingApp, seed: int) -> None:
    """One try: valid requests arrive as they are, and damaged ones are read alike however they are cut."""
    rng = random.Random(seed)
    requests = [any_request(rng) for _ in range(rng.randrange(1, 6))]
    sent = b"".join(request for request, _ in requests)
    if seed % 2:
        seen, answers = await exchange(listener, app, in_segments(sent, any_cuts(rng, sent)))
        assert seen == [expected for _, expected in requests], f"seed {seed}"
        assert [answer.status for answer in answers or ()] == [200] * len(requests), f"seed {seed}"
        return
    sent = damaged(rng, sent)
    whole, whole_answers = await exchange(listener, app, [sent])
    cut, cut_answers = await exchange(listener, app, in_segments(sent, any_cuts(rng, sent)))
    assert cut == whole, f"seed {seed}"
    if whole_answers is None or cut_answers is None:
        return
    for answers in whole_answers, cut_answers:
        # A request can be wrong in two ways, and the cuts decide which is found first.
        assert [answer.status for answer in answers[: len(whole)]] == [200] * len(whole), f"seed {seed}"
        assert [answer.status for answer in answers[len(whole) :]] in ([], [400], [405], [413], [431]), f"seed {seed}"
    assert len(cut_answers) == len(whole_answers), f"seed {seed}"


async def try_seeds(seeds: Iterator[int], complaints: list[object]) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    while some := list(islice(seeds, TRIES_ON_A_LISTENER)):
        app = RecordingApp()
        async with listening(app) as listener:
            for seed in some:
                await try_seed(listener, app, seed)
                assert not complaints, f"seed {seed}: {complaints}"


@pytest.mark.proof(300, 300_000)
def test_the_same_bytes_are_the_same_requests_however_they_are_cut(
    seeds: Iterator[int], caplog: pytest.LogCaptureFixture
) -> None:
    """And what we send beside a body reaches no app, nothing is logged, and no error escapes. Under uvloop, as in production."""
    complaints: list[object] = []
    with caplog.at_level(logging.WARNING), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(try_seeds(seeds, complaints))
    assert complaints == []
    assert caplog.records == []
