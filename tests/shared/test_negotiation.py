"""A request is read as RFC 9110 says: names without case, qualities, versions in `If-Match`, and each deciding header once."""

import asyncio
import zlib
from collections.abc import Sequence
from typing import Any

import pytest
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from command_api.requests import expected_versions_of
from shared.errors import MalformedRequest, ValidationFailed
from shared.web.compression import COMPRESSED_BYTES_MIN, SECRECY, Compression, compressed_if_large
from shared.web.headers import SentHeaders, qualities, quality_of
from shared.web.protocol import decoded_path

LARGE = b'{"items":[' + b'{"amount":100},' * 2_000 + b"{}]}"


def test_a_header_that_decides_something_counts_once() -> None:
    headers = SentHeaders(
        {"type": "http", "headers": [(b"if-match", b'"v1"'), (b"prefer", b"a"), (b"prefer", b"b"), (b"x", b"")]}
    )
    assert headers.get("if-match") == '"v1"'
    assert headers.get("x", "default") == ""
    assert headers.get("absent", "default") == "default"
    assert headers.getlist("prefer") == ["a", "b"]
    with pytest.raises(MalformedRequest, match="prefer was sent more than once"):
        headers.get("prefer")


@pytest.mark.parametrize(
    ("sent", "accepted", "refused"),
    [
        (None, [0, 1, 7], []),
        ("*", [1, 7, 10**15], [0]),
        (" * ", [1], [0]),
        ('"v7"', [7], [0, 1, 70]),
        ('"v7", "v9"', [7, 9], [8]),
        ('"other","v9" , W/"v8"', [9], [8]),
        ('W/"v7"', [], [0, 7]),
        ('"7"', [], [7]),
        ('"v07"', [], [7]),
        ('"a,b", "v7"', [7], []),
        ('"v999999999999999999999999999"', [], [7]),
        ('""', [], [0]),
    ],
)
def test_if_match_names_versions_as_the_rfc_says(sent: str | None, accepted: list[int], refused: list[int]) -> None:
    """RFC 9110, 13.1.1: `*` is any version of what exists, one match in a list is enough, and a weak tag never matches."""
    versions = expected_versions_of(sent)
    assert all(versions is None or version in versions for version in accepted)
    assert not any(versions is None or version in versions for version in refused)


@pytest.mark.parametrize(
    "sent", ["", "7", "v7", '"v7', 'w/"v7"', '"v7" "v8"', '"v7",', ',"v7"', '*, "v7"', '"v7"\n', '"a b"', '"é"x']
)
def test_an_if_match_of_another_form_is_refused(sent: str) -> None:
    with pytest.raises(ValidationFailed, match="If-Match must be"):
        expected_versions_of(sent)


@pytest.mark.parametrize(
    ("sent", "quality"),
    [
        ([], 0),
        (["application/json"], 1),
        (["APPLICATION/JSON; Q=0.5"], 0.5),
        (["application/*;q=0.3, */*"], 0.3),
        (["text/html", "*/*; q=0.1"], 0.1),
        (["application/json;q=0", "*/*"], 0),
        (["application/json;q=x"], 0),
        (["application/json;charset=utf-8;q=0.7"], 0.7),
        ([",,application/json,"], 1),
    ],
)
def test_the_quality_of_a_media_type_is_that_of_its_most_specific_range(sent: Sequence[str], quality: float) -> None:
    assert quality_of("application/json", qualities(sent)) == quality


@pytest.mark.parametrize(
    ("path", "decoded"),
    [("/a%2Fb", "/a%2Fb"), ("/a%2fb", "/a%2Fb"), ("/%C3%A9", "/é"), ("/%252F", "/%2F"), ("/%", "/%"), ("/a%20%2F", "/a %2F")],
)
def test_an_encoded_slash_stays_encoded(path: str, decoded: str) -> None:
    assert decoded_path(path) == decoded


# ── compression ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def answered(response: Response, accept_encoding: bytes | None, **state: Any) -> list[tuple[dict[bytes, bytes], bytes]]:
    """The headers and the body of an answer, on both ways: directly, and through the middleware."""
    headers = [] if accept_encoding is None else [(b"accept-encoding", accept_encoding)]
    found = []
    for way in ("direct", "middleware"):
        scope: Scope = {"type": "http", "method": "GET", "path": "/", "headers": headers, "state": state}
        messages: list[Message] = []

        async def send(message: Message, messages: list[Message] = messages) -> None:
            messages.append(message)

        async def receive() -> Message:
            return await asyncio.Event().wait()  # type: ignore[return-value] # never

        if way == "direct":
            await response(scope, receive, compressed_if_large(scope, response, send))
        else:
            await Compression(response)(scope, receive, send)
        body = b"".join(message.get("body", b"") for message in messages[1:])
        found.append((dict(messages[0]["headers"]), body))
    return found


@pytest.mark.parametrize("accepted", [b"gzip", b"GZIP", b"deflate, gzip;q=0.5", b"*", b"br, *;q=0.1"])
async def test_a_large_answer_is_compressed_if_the_client_asks_for_it(accepted: bytes) -> None:
    for headers, body in await answered(Response(LARGE, media_type="application/json"), accepted):
        assert headers[b"content-encoding"] == b"gzip"
        assert headers[b"vary"] == b"Accept-Encoding"
        assert int(headers[b"content-length"]) == len(body) < len(LARGE) / 4
        assert zlib.decompress(body, 31) == LARGE


@pytest.mark.parametrize("accepted", [None, b"", b"identity", b"gzip;q=0", b"gzip;q=0.000, *", b"*;q=0", b"br"])
async def test_an_answer_is_as_it_is_if_the_client_does_not_ask_for_gzip(accepted: bytes | None) -> None:
    for headers, body in await answered(Response(LARGE, media_type="application/json"), accepted):
        assert b"content-encoding" not in headers
        assert body == LARGE


async def test_what_should_not_be_compressed_is_not() -> None:
    """Small answers, streams of events, answers with an ETag, answers that are compressed already, and answers with secrets."""
    json = "application/json"
    small = Response(LARGE[: COMPRESSED_BYTES_MIN - 1], media_type=json)
    for response, state in (
        (small, {}),
        (StreamingInTwo(media_type="text/event-stream"), {}),
        (Response(LARGE, headers={"ETag": '"v1"'}, media_type=json), {}),
        (Response(LARGE, headers={"Content-Encoding": "br"}, media_type=json), {}),
        (Response(LARGE, media_type=json), {SECRECY: True}),
        (Response(LARGE, media_type="image/png"), {}),
    ):
        for headers, body in await answered(response, b"gzip", **state):
            assert headers.get(b"content-encoding") != b"gzip"
            assert LARGE.startswith(body[:100])


async def test_an_answer_in_pieces_is_compressed_as_one() -> None:
    for headers, body in await answered(StreamingInTwo(media_type="application/json"), b"gzip"):
        assert headers[b"content-encoding"] == b"gzip"
        assert b"content-length" not in headers
        assert zlib.decompress(body, 31) == LARGE * 2


class StreamingInTwo(StreamingResponse):
    """The large answer twice, piece by piece. It can be sent more than once."""

    def __init__(self, media_type: str) -> None:
        super().__init__((), media_type=media_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 # it is the same for everybody
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        for _ in range(2):
            await send({"type": "http.response.body", "body": LARGE, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def test_plain_text_is_compressed_too() -> None:
    for headers, _ in await answered(PlainTextResponse("a" * COMPRESSED_BYTES_MIN), b"gzip"):
        assert headers[b"content-encoding"] == b"gzip"
