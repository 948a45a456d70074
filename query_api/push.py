"""Events as a stream of server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html

    id: 42                     what to come back with, as `Last-Event-ID` or `after`
    event: FundsDeposited
    data: {"position": 42, …}  as in `GET /v1/events`

A comment and the present id come when there is nothing else, so that neither side takes a dead connection for a quiet one and
a reader of rare events does not begin far back. Every stream ends when the process is told to, when the caller's credential
ends, and when the reader does not read.
"""

import asyncio
from typing import Final

import orjson
import structlog
from fastapi.sse import EventSourceResponse
from starlette.types import Message, Receive, Scope, Send

from query_api.answers import EVENT_EXAMPLE
from query_api.parameters import PushParameters
from query_api.requests import Question
from query_api.tail import Tail, Tails, Wanted, follow
from shared.connections import STORE_ERRORS
from shared.errors import Unauthorized
from shared.http import ABORT, CLOSING

log = structlog.get_logger()

RETRY_MS: Final = 1_000
RECHECK_SECONDS: Final = 5.0
"""With what is remembered of a credential, one that has ended is noticed within twice that."""


EVENT_STREAM: Final = "text/event-stream"
PUSH_EXAMPLE: Final = "retry: 1000\n\nid: 4\nevent: FundsDeposited\ndata: " + orjson.dumps(EVENT_EXAMPLE).decode() + "\n\n"


async def push(question: Question, tails: Tails, parameters: PushParameters) -> "EventStream":
    """Raises:
    NotFound, TooManyStreams, ValidationFailed: there is nothing to begin with.
    """
    last = question.last_event_id()
    tails.admit((question.principal.ledger_id, question.principal.principal))
    tail = await tails.open(question.ledger_id())
    after = parameters.after if last is None else last
    return EventStream(question, tails, tail, Wanted(parameters.type, parameters.stream), after)


class EventStream(EventSourceResponse):
    """Answers until one of the two sides has had enough."""

    def __init__(self, question: Question, tails: Tails, tail: Tail, wanted: Wanted, after: int | None) -> None:
        super().__init__(())
        self._question = question
        self._tails = tails
        self._tail = tail
        self._wanted = wanted
        self._after = after
        settings = question.state.settings
        self._beat_seconds = settings.event_stream_heartbeat_ms / 1000
        self._stall_seconds = settings.event_stream_stall_ms / 1000

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        principal = self._question.principal
        with self._tails.reading(self._tail, (principal.ledger_id, principal.principal)):
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            pushing = asyncio.create_task(self._push(send))
            others = [
                asyncio.create_task(_gone(receive)),
                asyncio.create_task(_closing(scope)),
                asyncio.create_task(self._credential_ended()),
            ]
            try:
                await asyncio.wait([pushing, *others], return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (pushing, *others):
                    task.cancel()
                await asyncio.gather(pushing, *others, return_exceptions=True)
            if not pushing.cancelled() and isinstance(pushing.exception(), TimeoutError):
                _abort(scope)
            elif not others[0].done() or others[0].cancelled():
                await self._send(send, b"", more=False)

    async def _push(self, send: Send) -> None:
        await self._send(send, b"retry: %d\n\n" % RETRY_MS)
        if self._after is None:
            self._after = await self._tail.look_now()
        async for position, events in follow(self._tail, self._wanted, self._after, self._beat_seconds):
            await self._send(send, b"".join(event.lines for event in events) or b":\nid: %d\n\n" % position)

    async def _send(self, send: Send, body: bytes, *, more: bool = True) -> None:
        """Raises:
        TimeoutError: what was sent before is not being read.
        """
        message: Message = {"type": "http.response.body", "body": body, "more_body": more}
        async with asyncio.timeout(self._stall_seconds):
            await send(message)

    async def _credential_ended(self) -> None:
        gate, authorization = self._question.state.gate, self._question.headers.getlist("authorization")
        while True:
            await asyncio.sleep(RECHECK_SECONDS)
            try:
                if await gate.recognise(authorization) != self._question.principal:
                    return
            except Unauthorized:
                return
            except STORE_ERRORS:
                log.warning("credential of a stream not looked up")  # a store that is away ends nobody's stream


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _closing(scope: Scope) -> None:
    closing: asyncio.Event | None = scope.get("extensions", {}).get(CLOSING)
    if closing is None:
        await asyncio.Event().wait()
    else:
        await closing.wait()


def _abort(scope: Scope) -> None:
    """What lies in the buffers is not waited for."""
    abort = scope.get("extensions", {}).get(ABORT)
    if abort is not None:
        abort()
