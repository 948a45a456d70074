"""Makes the sink of each store. Add a new store here."""

from typing import Any

from redis.asyncio import Redis

from projector.sinks.mongo import MongoSink
from projector.sinks.protocols import Sink
from projector.sinks.redis import RedisSink
from shared.read_models.shapes import Store
from shared.stores.mongo import MongoDatabase


def make_sinks(mongo: MongoDatabase, redis: "Redis") -> dict[Store, Sink[Any]]:
    return {"mongo": MongoSink(mongo), "redis": RedisSink(redis)}
