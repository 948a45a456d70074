"""Failures that stop a read model. The worker stores them; the query API and the CLI show them.

The failure of a read model in MongoDB is stored in Redis, and the reverse, because the read model's own store may be down:

    MongoDB   troubles                                  {_id: "main/balances", cause, position, since}
    Redis     daybook:{main}:troubles                   hash: "users" → JSON of the same
"""

import msgspec
from redis.asyncio import Redis

from shared.read_models.generations import pointer_id
from shared.read_models.shapes import READ_MODELS
from shared.stores.mongo import MongoDatabase


class ProjectionFailure(msgspec.Struct, frozen=True, omit_defaults=True):
    """A failure that stops a read model.

    `position` is its checkpoint. `since` is when this cause was first seen (see `shared.timestamps.timestamp`).
    `event_position` is the position of the event that cannot be applied, if that is the cause.
    """

    cause: str
    position: int
    since: str
    event_position: int | None = None


def failures_key(ledger_id: str) -> str:
    return f"daybook:{{{ledger_id}}}:troubles"


async def read_failures(mongo: MongoDatabase, redis: "Redis", ledger_id: str) -> dict[str, ProjectionFailure]:
    """Returns the failures of a ledger's read models, by the name of the read model. A read model that works is left out."""
    models = {pointer_id(model, ledger_id): model.name for model in READ_MODELS if model.store == "redis"}
    documents = await mongo.troubles.find({"_id": {"$in": list(models)}}).to_list(None)
    failures = {models[document.pop("_id")]: msgspec.convert(document, ProjectionFailure) for document in documents}
    fields = await redis.hgetall(failures_key(ledger_id))  # type: ignore[misc]  # typed for both clients at once
    return failures | {name: msgspec.json.decode(found, type=ProjectionFailure) for name, found in fields.items()}
