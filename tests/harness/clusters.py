"""Stores that are clusters, for tests of what happens when one of their servers is killed."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from pymongo import MongoClient
from pymongo.errors import PyMongoError
from redis.asyncio import Redis as RedisClient
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from dev.child_processes import LOOK_SECONDS
from dev.ports import PORTS, free_port, port_is_free
from dev.servers import Mongo, Redis, start_all, stop_all
from shared.private_files import write_private

MEMBERS: Final = 3
MASTERS: Final = 3
BUS: Final = 10_000
"""Servers of a Redis Cluster talk to each other on a port that is so much higher than the one for clients."""
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


class RedisMember(Redis):
    """One server of a Redis Cluster. It becomes a member when another one is told so."""

    def __init__(self, name: str, folder: Path, password: str) -> None:
        super().__init__(name, folder)
        self._shared_password = password

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.port}"

    def client(self) -> Any:
        return RedisClient.from_url(self.url, decode_responses=True, socket_timeout=5, socket_connect_timeout=5)

    def _password(self, _name: str, needed_by: Path | None = None) -> str:  # noqa: ARG002 # the members have the same one
        return self._shared_password

    async def _prepare(self) -> None:
        await super()._prepare()
        while self.port is None:
            port = free_port()
            if port + BUS in PORTS and port_is_free(port + BUS):
                self.port = port

    def _configuration(self) -> list[str]:
        return [
            *super()._configuration(),
            *("cluster-enabled yes", "cluster-config-file nodes.conf", "cluster-node-timeout 2000"),
            *("cluster-require-full-coverage no", f"masterauth {self._shared_password}"),
        ]


class RedisCluster:
    """Three masters, and as many replicas as were asked for."""

    def __init__(self, folder: Path, *, replicas: bool = False) -> None:
        """Defines servers with their data in this folder. With `replicas`, each master has one."""
        self.password = os.urandom(16).hex()
        names = [f"redis-{number}" for number in range(1, 1 + MASTERS * (2 if replicas else 1))]
        members = [RedisMember(name, folder, self.password) for name in names]
        self.masters, self.replicas = members[:MASTERS], members[MASTERS:]

    @property
    def members(self) -> list[RedisMember]:
        return [*self.masters, *self.replicas]

    @property
    def url(self) -> str:
        return f"redis+cluster://:{self.password}@{','.join(member.place for member in self.masters)}"

    def master_of(self, key: str) -> RedisMember:
        """Returns the server that had the slot of a key at the beginning."""
        return next(master for master, slots in zip(self.masters, _shares(), strict=True) if key_slot(key.encode()) in slots)

    def ledger_of(self, master: RedisMember) -> str:
        """Returns the id of a ledger whose keys are on this server at the beginning."""
        return next(ledger_id for number in range(1_000) if self.master_of(f"{{{(ledger_id := f'ledger-{number}')}}}") is master)

    async def start(self) -> None:
        """Starts the servers, makes them a cluster, and waits until each of them knows who has which slots."""
        await start_all(*self.members)
        for number, (member, slots) in enumerate(zip(self.masters, _shares(), strict=True), 1):
            async with member.client() as client:
                await client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number)
                await client.execute_command("CLUSTER", "ADDSLOTS", *slots)
        for member in self.members[1:]:
            async with member.client() as client:
                await client.execute_command("CLUSTER", "MEET", "127.0.0.1", self.masters[0].port)
        await self.wait_until_whole(known=0)
        for master, replica in zip(self.masters, self.replicas, strict=False):
            async with master.client() as client:
                master_id = await client.execute_command("CLUSTER", "MYID")
            async with replica.client() as client:
                await client.execute_command("CLUSTER", "REPLICATE", master_id)
        await self.wait_until_whole()

    async def wait_until_whole(self, known: int | None = None) -> None:
        """Waits until every server knows all others, all slots have a server, and all replicas follow their masters."""
        async with asyncio.timeout(ELECTED_SECONDS):
            for member in self.members:
                while not await self._is_whole(member, len(self.members) if known is None else known):
                    await asyncio.sleep(LOOK_SECONDS)

    async def _is_whole(self, member: RedisMember, serving: int) -> bool:
        async with member.client() as client:
            told: dict[str, str] = await client.execute_command("CLUSTER INFO")
            ranges = await client.execute_command("CLUSTER SLOTS")
            replication = await client.info("replication")
        known = {tuple(server[:2]) for _, _, *servers in ranges for server in servers}
        is_following = replication["role"] == "master" or replication["master_link_status"] == "up"
        covered = sum(end + 1 - start for start, end, *_ in ranges)
        return (
            told["cluster_state"] == "ok"
            and int(told["cluster_known_nodes"]) == len(self.members)
            and covered == REDIS_CLUSTER_HASH_SLOTS
            and is_following
            and len(known) >= serving
        )


def _shares() -> list[range]:
    """Returns the slots of each master."""
    bounds = [REDIS_CLUSTER_HASH_SLOTS * number // MASTERS for number in range(MASTERS + 1)]
    return [range(*pair) for pair in pairwise(bounds)]


@asynccontextmanager
async def running_redis_cluster(folder: Path, *, replicas: bool = False) -> AsyncIterator[RedisCluster]:
    cluster = RedisCluster(folder, replicas=replicas)
    try:
        await cluster.start()
        yield cluster
    finally:
        await stop_all(*cluster.members)
