"""Publishes to Kafka. A ledger's topic has one partition, and all its records have the id of the ledger as their key.

Each batch of records is sent when the one before it is acknowledged by all replicas that are in sync. The producer is idempotent:
a batch that the driver sends again is stored once. After any failure, the producer is closed and a new one begins.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from projector.publishing.broker import ANSWER_SECONDS, CONTENT_TYPE, BrokerFailure, PublishedMessage
from shared.broker_address import BrokerAddress, kafka_login
from shared.logs import kind_of

BATCH_BYTES_MAX: Final = 900_000
"""A broker accepts a megabyte, unless it is configured otherwise."""
_HEADERS: Final = [("content-type", CONTENT_TYPE.encode())]
_PARTITION: Final = 0
_OF_THE_BROKER: Final = -1


def make_broker(address: BrokerAddress, prefix: str) -> "KafkaBroker":
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # the publisher says what failed
    return KafkaBroker(address, prefix)


class KafkaBroker:
    """The `Broker` in Kafka."""

    def __init__(self, address: BrokerAddress, prefix: str) -> None:
        self._options = _options(address)
        self._prefix = prefix
        self._connecting = asyncio.Lock()
        self._producer: AIOKafkaProducer | None = None
        self._topics: set[str] = set()

    async def has_topic(self, ledger_id: str) -> bool:
        if ledger_id not in self._topics:
            names = await self._administer(lambda admin: admin.list_topics())
            if self._topic(ledger_id) in names:
                self._topics.add(ledger_id)
        return ledger_id in self._topics

    async def make_topic(self, ledger_id: str) -> None:
        # The driver takes the broker's own number of replicas only with a list of assignments, which may be empty.
        topic = NewTopic(self._topic(ledger_id), 1, _OF_THE_BROKER, replica_assignments={})
        answer = await self._administer(lambda admin: admin.create_topics([topic]))
        for _, code, *_ in answer.topic_errors:
            if code and for_code(code) is not TopicAlreadyExistsError:
                raise BrokerFailure(f"Kafka refuses to make the topic ({for_code(code).__name__})")

    async def publish(self, ledger_id: str, messages: Sequence[PublishedMessage]) -> None:
        sent = 0
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                producer = await self._started()
                while sent < len(messages):
                    sent += await self._send_batch(producer, ledger_id, messages[sent:])
        except (KafkaError, OSError, TimeoutError) as error:
            await self.close()
            raise BrokerFailure(_cause(error), sent) from error

    async def close(self) -> None:
        producer, self._producer = self._producer, None
        self._topics.clear()
        if producer is not None:
            await _stop(producer)

    def _topic(self, ledger_id: str) -> str:
        return f"{self._prefix}.{ledger_id}"

    async def _send_batch(self, producer: AIOKafkaProducer, ledger_id: str, messages: Sequence[PublishedMessage]) -> int:
        """Sends as many messages as fit into one batch. Returns their number when they are acknowledged."""
        batch, count = producer.create_batch(), 0
        for message in messages:
            if batch.append(key=ledger_id.encode(), value=message.body, timestamp=None, headers=_HEADERS) is None:
                break
            count += 1
        # Not cancelled with this task: the driver would have to know what to do with a batch that nobody waits for.
        await asyncio.shield(await producer.send_batch(batch, self._topic(ledger_id), partition=_PARTITION))
        return count

    async def _administer(self, question: Any) -> Any:
        admin = AIOKafkaAdminClient(**self._options)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await admin.start()
                return await question(admin)
        except (KafkaError, OSError, TimeoutError) as error:
            raise BrokerFailure(_cause(error)) from error
        finally:
            await admin.close()

    async def _started(self) -> AIOKafkaProducer:
        async with self._connecting:
            if self._producer is None:
                producer = AIOKafkaProducer(**self._options, acks="all", enable_idempotence=True, max_batch_size=BATCH_BYTES_MAX)
                try:
                    await producer.start()
                except BaseException:
                    await _stop(producer)
                    raise
                self._producer = producer
            return self._producer


async def _stop(producer: AIOKafkaProducer) -> None:
    with suppress(KafkaError, OSError, TimeoutError):
        async with asyncio.timeout(ANSWER_SECONDS):
            await producer.stop()


def _cause(error: Exception) -> str:
    if isinstance(error, KafkaError) and not error.retriable:
        return f"Kafka refuses ({kind_of(error)})"
    return f"Kafka does not answer ({kind_of(error)})"


def _options(address: BrokerAddress) -> dict[str, Any]:
    """Returns what the producer and the client for administration need to connect."""
    return {
        "bootstrap_servers": ",".join(address.servers),
        "client_id": "daybook-publisher",
        "request_timeout_ms": int(ANSWER_SECONDS * 1_000),
        **kafka_login(address),
    }
