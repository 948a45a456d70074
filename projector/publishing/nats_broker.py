"""Publishes to NATS with JetStream. A ledger's topic is a stream of JetStream with one subject.

The messages of a slice are sent one after the other without a wait for each acknowledgement. Each says which message must be the
last one of the stream (`Nats-Expected-Last-Msg-Id`), so if the server refuses one, it refuses those behind it too. The first
message of a slice says nothing of the kind: it is sent only after the slice before it was acknowledged, and it may be a repeat.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import takewhile
from typing import Final, TypeVar

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error
from nats.js import JetStreamContext
from nats.js.api import StreamConfig
from nats.js.errors import APIError, NotFoundError

from projector.publishing.broker import ANSWER_SECONDS, CONTENT_TYPE, BrokerFailure, PublishedMessage
from shared.broker_address import BrokerAddress
from shared.logs import kind_of
from shared.publishing.nats_client import connect_to_nats

T = TypeVar("T")
Acknowledgement = asyncio.Future[None]

CONNECT_SECONDS: Final = 3
CONNECT_PAUSE_SECONDS: Final = 0.1
HEADERS_BYTES_MAX: Final = 1_000
"""What the headers of a message take at most. The limit of the server is for both together."""
MESSAGE_ID: Final = "Nats-Msg-Id"
_LAST_ID: Final = "Nats-Expected-Last-Msg-Id"
_STATUS: Final = "Status"
_NOT_STORED: Final = "503"


def make_broker(address: BrokerAddress, prefix: str) -> "NatsBroker":
    logging.getLogger("nats").setLevel(logging.CRITICAL)  # the publisher says what failed
    return NatsBroker(address, prefix)


def stream_name(prefix: str, ledger_id: str) -> str:
    """Returns the name of a ledger's stream. A subject has a dot in place of the underscore, which a stream cannot have."""
    return f"{prefix}_{ledger_id}"


class _Refusal(msgspec.Struct):
    description: str


class _Answer(msgspec.Struct):
    error: _Refusal | None = None


class NatsBroker:
    """The `Broker` in NATS. After a failed connection, nothing that was sent before is sent again by the driver."""

    def __init__(self, address: BrokerAddress, prefix: str) -> None:
        self._address = address
        self._prefix = prefix
        self._connecting = asyncio.Lock()
        self._connection: Client | None = None
        self._inbox = ""
        self._waiting: dict[str, Acknowledgement] = {}
        self._topics: set[str] = set()

    async def has_topic(self, ledger_id: str) -> bool:
        if ledger_id not in self._topics and await self._ask(partial(self._find, ledger_id)):
            self._topics.add(ledger_id)
        return ledger_id in self._topics

    async def make_topic(self, ledger_id: str) -> None:
        config = StreamConfig(name=stream_name(self._prefix, ledger_id), subjects=[self._subject(ledger_id)])
        await self._ask(lambda connection: _jetstream(connection).add_stream(config))

    async def publish(self, ledger_id: str, messages: Sequence[PublishedMessage]) -> None:
        acks: list[Acknowledgement] = []
        try:
            await self._ask(partial(self._send, ledger_id, messages, acks))
        except BrokerFailure as failure:
            self._topics.discard(ledger_id)
            raise BrokerFailure(failure.cause, _acknowledged(acks)) from failure

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        self._topics.clear()
        if connection is not None:
            await connection.close()
        await self._give_up()

    def _subject(self, ledger_id: str) -> str:
        return f"{self._prefix}.{ledger_id}"

    async def _find(self, ledger_id: str, connection: Client) -> bool:
        try:
            await _jetstream(connection).stream_info(stream_name(self._prefix, ledger_id))
        except NotFoundError:
            return False
        return True

    async def _send(
        self, ledger_id: str, messages: Sequence[PublishedMessage], acks: list[Acknowledgement], connection: Client
    ) -> None:
        bytes_max = connection.max_payload - HEADERS_BYTES_MAX
        fitting = [*takewhile(lambda message: len(message.body) <= bytes_max, messages)]
        subject, last_id = self._subject(ledger_id), None
        for message in fitting:
            message_id = str(message.position)
            headers = {MESSAGE_ID: message_id, "Content-Type": CONTENT_TYPE}
            if last_id is not None:
                headers[_LAST_ID] = last_id
            reply_to = f"{self._inbox}.{ledger_id}.{message_id}"
            acks.append(self._expect(reply_to))
            await connection.publish(subject, message.body, reply=reply_to, headers=headers)
            last_id = message_id
        if acks:
            await asyncio.wait(acks)
        for ack in acks:
            ack.result()
        if len(fitting) < len(messages):
            position = messages[len(fitting)].position
            raise BrokerFailure(f"NATS refuses: event {position} is larger than its max_payload")

    # ── acknowledgements ─────────────────────────────────────────────────────────────────────────────────────────────
    # The driver's own `publish_async` leaves a message waiting for ever if the server refuses it.

    def _expect(self, reply_to: str) -> Acknowledgement:
        ack = self._waiting[reply_to] = asyncio.get_running_loop().create_future()
        return ack

    async def _take(self, answer: Msg) -> None:
        ack = self._waiting.pop(answer.subject, None)
        if ack is None or ack.done():
            return
        if answer.headers and answer.headers.get(_STATUS) == _NOT_STORED:
            ack.set_exception(BrokerFailure("NATS has no stream for this subject"))
        elif refusal := msgspec.json.decode(answer.data, type=_Answer).error:
            ack.set_exception(BrokerFailure(f"NATS refuses: {refusal.description}"))
        else:
            ack.set_result(None)

    async def _give_up(self) -> None:
        """Ends the wait for acknowledgements that can no longer come."""
        waiting, self._waiting = self._waiting, {}
        for ack in waiting.values():
            if not ack.done():
                ack.set_exception(BrokerFailure("NATS has closed the connection"))

    # ── the connection ───────────────────────────────────────────────────────────────────────────────────────────────

    async def _ask(self, question: Callable[[Client], Awaitable[T]]) -> T:
        """Asks over the connection, which is opened if there is none, and closed if the server does not answer."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await question(await self._connected())
        except APIError as refusal:
            raise BrokerFailure(f"NATS refuses: {refusal.description}") from refusal
        except (Error, OSError, TimeoutError) as error:
            await self.close()
            raise BrokerFailure(f"NATS does not answer ({kind_of(error)})") from error

    async def _connected(self) -> Client:
        async with self._connecting:
            if self._connection is None or not self._connection.is_connected:
                await self.close()
                connection = await connect_to_nats(
                    self._address,
                    name="daybook publisher",
                    connect_timeout=CONNECT_SECONDS,
                    # A driver that connects again by itself also sends again, and then nobody knows in which order.
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=CONNECT_PAUSE_SECONDS,
                    disconnected_cb=self._give_up,
                    error_cb=_ignore,
                )
                self._inbox = connection.new_inbox()
                await connection.subscribe(f"{self._inbox}.*.*", cb=self._take)
                self._connection = connection
            return self._connection


def _jetstream(connection: Client) -> JetStreamContext:
    return connection.jetstream(timeout=ANSWER_SECONDS)


async def _ignore(_: Exception) -> None:
    """Does nothing. The client raises the error where an answer is awaited, too."""


def _acknowledged(acks: Sequence[Acknowledgement]) -> int:
    """Returns how many messages from the first on are acknowledged."""
    are_stored = [ack.done() and not ack.cancelled() and ack.exception() is None for ack in acks]
    return [*are_stored, False].index(False)
