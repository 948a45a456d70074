"""Distributes the collections over the shards of MongoDB, by ledger: `daybook migrate --mongo-sharding`.

The shard key is `_id`, by range. Each `_id` begins with the ledger (see `shared.read_models.generations`), so the documents of a
ledger are neighbours, and each write goes to the shards that have them.
"""

from collections.abc import AsyncIterator
from typing import Any, Final

from pymongo.errors import OperationFailure

from shared.errors import SettingsInvalid
from shared.read_models.shapes import READ_MODELS
from shared.settings import Settings
from shared.stores.mongo import open_mongo

SHARD_KEY: Final = {"_id": 1}
COLLECTIONS: Final = (
    *("pointers", "checkpoints", "dead_letters", "parked_streams", "troubles"),
    *(model.name for model in READ_MODELS if model.store == "mongo"),
)
"""All collections of Daybook."""

_COMMAND_NOT_FOUND: Final = 59
_UNAUTHORIZED: Final = 13


def sharding_commands(database: str) -> list[dict[str, Any]]:
    return [{"shardCollection": f"{database}.{name}", "key": SHARD_KEY} for name in COLLECTIONS]


async def shard_collections(settings: Settings) -> AsyncIterator[str]:
    """Sends the commands to `mongos`. Yields each as text before it is sent. One that has been sent before changes nothing.

    Raises:
        SettingsInvalid: the server is no `mongos`, or the login may not shard collections.
    """
    async with open_mongo(settings, role="daybook_projector") as mongo:
        for command in sharding_commands(settings.mongo_database):
            yield f"shardCollection {command['shardCollection']} by _id"
            try:
                await mongo.client.admin.command(command)
            except OperationFailure as failure:
                raise SettingsInvalid([f"DAYBOOK_MONGO_URL: {_next_step(failure)}"]) from None


def _next_step(failure: OperationFailure) -> str:
    if failure.code == _COMMAND_NOT_FOUND:
        return "names a server that is no mongos: collections are sharded through a mongos, so name one"
    if failure.code == _UNAUTHORIZED:
        return "its login may not shard collections: give it the role clusterManager, or use another login for this command"
    return f"mongos refused shardCollection: {failure.details.get('errmsg') if failure.details else failure}"
