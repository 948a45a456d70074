"""The heads of answers are the bytes that uvicorn would write, and what uvicorn refuses is refused."""

import asyncio
import logging
from typing import Any, Final

import pytest
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from shared.web.answer_cycle import AnswerCycle

LENGTH: Final = (b"content-length", b"2")
KIND: Final = (b"content-type", b"application/json")


class RecordingTransport(asyncio.Transport):
    """A transport that keeps what is written, and each write by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:  # type: ignore[override] # uvicorn writes only bytes
        self.writes.append(data)

    def close(self) -> None:
        self.writes.append(b"closed")

    def is_closing(self) -> bool:
        return False


async def written(
    kind: type[RequestResponseCycle], status: int, headers: list[tuple[bytes, bytes]], *, keep_alive: bool, method: str
) -> tuple[list[bytes], str]:
    """Answers a request with an empty object. Returns what was written, and the error of the answer, or an empty text."""
    transport = RecordingTransport()
    log = logging.getLogger(__name__)
    scope: Any = {"type": "http", "method": method, "http_version": "1.1"}
    cycle = kind(
        scope=scope,
        transport=transport,
        flow=FlowControl(transport),
        logger=log,
        access_logger=log,
        access_log=False,
        default_headers=[(b"date", b"Mon, 30 Nov 2026 12:00:00 GMT")],
        message_event=asyncio.Event(),
        expect_100_continue=False,
        keep_alive=keep_alive,
        on_response=lambda: None,
    )
    error = ""
    try:
        await cycle.send({"type": "http.response.start", "status": status, "headers": headers})
        await cycle.send({"type": "http.response.body", "body": b"" if status == 204 else b"{}"})
    except RuntimeError as refused:
        error = str(refused)
    return transport.writes, error


ANSWERS: Final[dict[str, list[tuple[bytes, bytes]]]] = {
    "usual": [KIND, LENGTH, (b"etag", b'"v7"'), (b"ratelimit", b'"caller";r=9;t=1')],
    "bytes beyond ascii and a tab": [LENGTH, (b"link", "</ü>;\trel=next".encode("latin-1"))],
    "an empty value": [LENGTH, (b"x-empty", b"")],
    "without a length": [KIND],
    "the last answer": [LENGTH, (b"connection", b"close")],
    "chunked by the app": [(b"transfer-encoding", b"chunked")],
    "two cookies": [LENGTH, (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")],
    "two lengths": [LENGTH, (b"content-length", b"3")],
    "capital letters": [(b"Content-Length", b"2"), (b"X-Name", b"1")],
    "a wrong length": [(b"content-length", b"7")],
    "a header in a value": [LENGTH, (b"location", b"/v1\r\nset-cookie: a=1")],
    "a line end in a value": [LENGTH, (b"location", b"/v1\n")],
    "a line end in a name": [LENGTH, (b"a: b\r\nc", b"d")],
    "a space in a name": [LENGTH, (b"a b", b"d")],
    "a zero byte": [LENGTH, (b"location", b"/\x00")],
}


@pytest.mark.parametrize("method", ["POST", "HEAD"])
@pytest.mark.parametrize("keep_alive", [True, False])
@pytest.mark.parametrize("headers", ANSWERS.values(), ids=ANSWERS)
async def test_an_answer_is_what_uvicorn_would_write(
    headers: list[tuple[bytes, bytes]], method: str, *, keep_alive: bool
) -> None:
    for status in (201, 409, 503):
        expected = await written(RequestResponseCycle, status, headers, keep_alive=keep_alive, method=method)
        assert await written(AnswerCycle, status, headers, keep_alive=keep_alive, method=method) == expected


async def test_an_answer_without_a_body_is_what_uvicorn_would_write() -> None:
    expected = await written(RequestResponseCycle, 204, [KIND], keep_alive=True, method="DELETE")
    assert await written(AnswerCycle, 204, [KIND], keep_alive=True, method="DELETE") == expected


@pytest.mark.parametrize("name", ["a header in a value", "a line end in a value", "a line end in a name", "a zero byte"])
async def test_no_value_can_add_a_header(name: str) -> None:
    writes, error = await written(AnswerCycle, 201, ANSWERS[name], keep_alive=True, method="POST")
    assert writes == []
    assert "Invalid HTTP header" in error
