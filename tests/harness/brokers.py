"""Brokers for tests, and what is stored in their topics."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import nats
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from projector.publishing.nats_broker import stream_name
from shared.settings import Settings

READ_SECONDS: Final = 30


@asynccontextmanager
async def jetstream_of(url: str) -> AsyncIterator[JetStreamContext]:
    connection = await nats.connect(url)
    try:
        yield connection.jetstream()
    finally:
        await connection.close()


async def stored_in(settings: Settings, ledger_id: str = "main") -> list[dict[str, Any]]:
    """Returns the CloudEvents in the topic of a ledger, in the order in which the broker has them, with repeats."""
    url = settings.publish_url or ""
    bodies = await (_in_nats if url.startswith("nats:") else _in_kafka)(settings, ledger_id)
    return [json.loads(body) for body in bodies]


async def positions_in(settings: Settings, ledger_id: str = "main") -> list[int]:
    return [int(each["id"]) for each in await stored_in(settings, ledger_id)]


async def _in_nats(settings: Settings, ledger_id: str) -> list[bytes]:
    async with jetstream_of(settings.publish_url or "") as jetstream:
        name = stream_name(settings.publish_prefix, ledger_id)
        try:
            state = (await jetstream.stream_info(name)).state
        except NotFoundError:
            return []
        messages = [await jetstream.get_msg(name, number) for number in range(state.first_seq, state.last_seq + 1)]
        assert all(message.headers and message.headers["Nats-Msg-Id"] for message in messages)
        return [message.data or b"" for message in messages]


async def _in_kafka(settings: Settings, ledger_id: str) -> list[bytes]:
    partition = TopicPartition(f"{settings.publish_prefix}.{ledger_id}", 0)
    consumer = AIOKafkaConsumer(bootstrap_servers=(settings.publish_url or "").removeprefix("kafka://"))
    await consumer.start()
    try:
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        end = (await consumer.end_offsets([partition]))[partition]
        records: list[Any] = []
        async with asyncio.timeout(READ_SECONDS):
            while await consumer.position(partition) < end:
                records += (await consumer.getmany(timeout_ms=500)).get(partition, [])
    finally:
        await consumer.stop()
    assert {record.key for record in records} <= {ledger_id.encode()}
    return [record.value for record in records]


async def delete_topic(settings: Settings, ledger_id: str = "main") -> None:
    url = settings.publish_url or ""
    if url.startswith("nats:"):
        async with jetstream_of(url) as jetstream:
            assert await jetstream.delete_stream(stream_name(settings.publish_prefix, ledger_id))
        return
    admin = AIOKafkaAdminClient(bootstrap_servers=url.removeprefix("kafka://"))
    await admin.start()
    try:
        await admin.delete_topics([f"{settings.publish_prefix}.{ledger_id}"])
    finally:
        await admin.close()
