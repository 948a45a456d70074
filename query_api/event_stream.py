"""The stream of server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html

    id: 42                     to continue after this event, send it as `Last-Event-ID` or `after`
    event: FundsDeposited
    data: {"position": 42, …}  as in `GET /v1/events`

A heartbeat is a comment with an `id`: the position up to which there are no further matching events. It shows both sides that a
quiet connection still works. It also lets a reader whose filter matches few events continue near the end of the log after it
reconnects. A stream ends when the process stops, when the caller's credential ends, or when the reader stops reading.
"""

import asyncio
from typing import Final

import structlog
from fastapi.sse import EventSourceResponse
from starlette.types import Message, Receive, Scope, Send

from query_api.log_reading import EventFilter
from query_api.log_tail import LogTail, LogTails, follow
from query_api.requests import QueryRequest
from shared.errors import TooManyStreams, Unauthorized
from shared.stores.store_errors import POSTGRES_AND_REDIS_ERRORS
from shared.supervision import end_tasks
from shared.web.asgi_extensions import abort_connection, server_closing
from shared.web.problems import problem_response

log = structlog.get_logger()

RETRY_MS: Final = 1_000
RECHECK_SECONDS: Final = 5.0
"""How often to check the credential of a stream, in seconds.

A stream ends within twice this time after its credential has ended, because processes remember valid credentials for as long.
"""


async def open_event_stream(request: QueryRequest, tails: LogTails, wanted: EventFilter, after: int | None) -> "EventStream":
    """Returns a stream that begins after `Last-Event-ID`. Without this header, it begins after the position `after`.

    If both are missing, it begins with the next event that is recorded.

    Raises:
        NotFound: there is no such ledger.
        ValidationFailed: `Last-Event-ID` is not a position.
    """
    last = request.last_event_id()
    tail = await tails.open(request.ledger_id())
    return EventStream(request, tails, tail, wanted, after if last is None else last)


class EventStream(EventSourceResponse):
    """An endless answer with events. It ends if the caller leaves, stops reading or loses its access, or if the process stops."""

    def __init__(self, request: QueryRequest, tails: LogTails, tail: LogTail, wanted: EventFilter, after: int | None) -> None:
        super().__init__(())
        self._request = request
        self._tails = tails
        self._tail = tail
        self._wanted = wanted
        self._after = after
        settings = request.state.settings
        self._beat_seconds = settings.event_stream_heartbeat_ms / 1000
        self._stall_seconds = settings.event_stream_stall_ms / 1000

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        principal = self._request.principal
        try:
            reading = self._tails.reading(self._tail, (principal.ledger_id, principal.principal))
        except TooManyStreams as error:
            await problem_response(self._request, error)(scope, receive, send)
            return
        with reading:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            pushing = asyncio.create_task(self._push(send))
            others = [
                asyncio.create_task(_gone(receive)),
                asyncio.create_task(server_closing(scope)),
                asyncio.create_task(self._credential_ended()),
            ]
            try:
                await asyncio.wait([pushing, *others], return_when=asyncio.FIRST_COMPLETED)
            finally:
                await end_tasks(pushing, *others)
            if not pushing.cancelled() and isinstance(pushing.exception(), TimeoutError):
                abort_connection(scope)
            elif not others[0].done() or others[0].cancelled():
                await self._send(send, b"", more=False)

    async def _push(self, send: Send) -> None:
        await self._send(send, b"retry: %d\n\n" % RETRY_MS)
        if self._after is None:
            self._after = await self._tail.look_now()
        async for position, events in follow(self._tail, self._wanted, self._after, self._beat_seconds):
            await self._send(send, b"".join(event.lines for event in events) or b":\nid: %d\n\n" % position)

    async def _send(self, send: Send, body: bytes, *, more: bool = True) -> None:
        """Sends a part of the answer.

        Raises:
            TimeoutError: the reader did not read the parts before it in time.
        """
        message: Message = {"type": "http.response.body", "body": body, "more_body": more}
        async with asyncio.timeout(self._stall_seconds):
            await send(message)

    async def _credential_ended(self) -> None:
        authentication, authorization = self._request.state.authentication, self._request.headers.getlist("authorization")
        while True:
            await asyncio.sleep(RECHECK_SECONDS)
            try:
                if await authentication.authenticate_again(authorization) != self._request.principal:
                    return
            except Unauthorized:
                return
            except POSTGRES_AND_REDIS_ERRORS:
                log.warning("credential of a stream not looked up")  # a stream does not end because a store is down


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
