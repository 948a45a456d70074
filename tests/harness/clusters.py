"""Stores that are clusters, for tests of what happens when one of their servers is killed."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from dev.child_processes import LOOK_SECONDS
from dev.servers import Mongo, start_all, stop_all
from shared.private_files import write_private

MEMBERS: Final = 3
ELECTED_SECONDS: Final = 60.0


class MongoMember(Mongo):
    """One server of a replica set. It becomes a member when another one is told so."""

    def __init__(self, name: str, folder: Path, key: str) -> None:
        super().__init__(name, folder)
        self._key = key

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def _prepare(self) -> None:
        self.folder.mkdir(mode=0o700, exist_ok=True)
        if not (file := self.folder / "members.key").exists():
            write_private(file, self._key)

    async def _settle(self) -> None:
        await asyncio.to_thread(hello, self.place)


class MongoSet:
    """A replica set of three members, all of them with data."""

    def __init__(self, members: list[MongoMember], password: str) -> None:
        self.members = members
        self._password = password

    @property
    def url(self) -> str:
        places = ",".join(member.place for member in self.members)
        return f"mongodb://daybook:{self._password}@{places}/?replicaSet=daybook&authSource=admin"

    async def primary(self) -> MongoMember:
        """Waits until there is a primary, and returns it."""
        async with asyncio.timeout(ELECTED_SECONDS):
            while True:
                for member in self.members:
                    try:
                        if (await asyncio.to_thread(hello, member.place))["isWritablePrimary"]:
                            return member
                    except PyMongoError:
                        continue
                await asyncio.sleep(LOOK_SECONDS)

    async def initiate(self) -> None:
        members = [{"_id": number, "host": member.place} for number, member in enumerate(self.members)]
        await asyncio.to_thread(_command, self.members[0].place, "replSetInitiate", {"_id": "daybook", "members": members})
        place = (await self.primary()).place
        await asyncio.to_thread(_command, place, "createUser", "daybook", pwd=self._password, roles=["root"])


def hello(place: str) -> dict[str, Any]:
    return _command(place, "hello")


def _command(place: str, *command: Any, **more: Any) -> dict[str, Any]:
    """Runs a command without a login. MongoDB allows that from this machine until the set has a user, and `hello` always."""
    url = f"mongodb://{place}/?directConnection=true"
    with MongoClient[dict[str, Any]](url, serverSelectionTimeoutMS=500, connectTimeoutMS=500) as client:
        return client.admin.command(*command, **more)


@asynccontextmanager
async def running_mongo_set(folder: Path) -> AsyncIterator[MongoSet]:
    key = os.urandom(32).hex()
    members = [MongoMember(f"mongo-{number}", folder, key) for number in range(1, MEMBERS + 1)]
    async with AsyncExitStack() as stack:
        stack.push_async_callback(stop_all, *members)
        await start_all(*members)
        mongo_set = MongoSet(members, os.urandom(16).hex())
        await mongo_set.initiate()
        yield mongo_set
