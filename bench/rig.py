"""The rig of a benchmark run: its servers, its folder, filled ledgers, and processes.

Closing the rig removes all of this, also after a Ctrl-C. If this process is killed with -9, the servers end but the folder stays.
"""

import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import asyncpg
from pydantic import SecretStr

from bench.ledger_filling import open_accounts
from bench.scale import Scale
from bench.workloads import API_KEY, BYSTANDER_KEY
from dev.child_processes import Child
from dev.daybook_processes import ApiProcess, command_api, migrate, query_api, start_processes, worker
from dev.ports import free_port
from dev.servers import Mongo, Postgres, Redis, start_all, stop_all
from shared.identity.access import SCOPES
from shared.identity.api_keys import key_id_of
from shared.identity.credential_cache import hash_token
from shared.settings import Settings

EMPTY: Final = "ledger_empty"
FOLDER: Final = "/var/tmp"  # noqa: S108 # a folder with a name of its own below it; unlike /tmp it is on a disk
SYNC_WRITES: Final = 200

CACHE_GB: Final = 4
"""The cache of PostgreSQL and that of MongoDB, in GB each. As in production, both together are a third of the machine (24 GB)."""


class Rig:
    """The servers of one run. Every ledger gets a database with a new number, so none is used twice."""

    def __init__(self, folder: Path, scale: Scale, postgres: Postgres, mongo: Mongo, redis: Redis) -> None:
        self.folder = folder
        self.scale = scale
        self.postgres = postgres
        self.mongo = mongo
        self.redis = redis
        self._numbers = itertools.count(1)
        self._templates: set[str] = set()

    # ── databases ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def ledger(self, accounts: int) -> Settings:
        """Makes a new ledger with this many accounts, and with empty read models. Returns its settings."""
        template = f"ledger_{accounts}"
        if template not in self._templates:
            say(f"opening {accounts:,} accounts")
            await self._make_template(template, accounts)
        return await self.copy(template)

    async def _make_template(self, template: str, accounts: int) -> None:
        if not self._templates:
            await self.as_superuser(f"CREATE DATABASE {EMPTY} OWNER daybook")
            await migrate(self.folder, {"DAYBOOK_DATABASE_URL": self.database_url(EMPTY)})
            await self._add_key()
        await self.as_superuser(f"CREATE DATABASE {template} TEMPLATE {EMPTY} OWNER daybook")
        await open_accounts(self._settings(template, 0), accounts)
        await self.settle(template)
        self._templates.add(template)

    async def _add_key(self) -> None:
        """Inserts the API keys that requests send; see `bench.workloads`."""
        connection = await asyncpg.connect(self._superuser_url(EMPTY))
        try:
            await connection.executemany(
                "INSERT INTO api_keys (key_id, ledger_id, principal, scopes, token_hash, created_at)"
                " VALUES ($1, 'main', $2, $3, $4, now())",
                [
                    (key_id_of(key), principal, list(SCOPES), hash_token(key))
                    for key, principal in ((API_KEY, "bench"), (BYSTANDER_KEY, "bystander"))
                ],
            )
        finally:
            await connection.close()

    async def copy(self, database: str) -> Settings:
        """Copies a database that must have no open connections. Returns the settings of the copy, with empty read models."""
        number = next(self._numbers)
        name = f"bench_{number}"
        await self.as_superuser(f"CREATE DATABASE {name} TEMPLATE {database} OWNER daybook STRATEGY file_copy")
        return self._settings(name, number)

    async def scratch(self) -> str:
        """Makes a new, empty database for a yardstick, and returns its URL."""
        name = f"scratch_{next(self._numbers)}"
        await self.as_superuser(f"CREATE DATABASE {name} OWNER daybook")
        return self.database_url(name)

    async def age(self) -> None:
        """Makes PostgreSQL create files of its write-ahead log, as after some hours of work.

        PostgreSQL reuses these files later, so that no measurement contains the time to create one.
        """
        begun = time.perf_counter()
        connection = await asyncpg.connect(self.postgres.superuser_url)
        try:
            for _ in range(self.scale.log_files):
                await connection.execute("SELECT pg_logical_emit_message(false, 'daybook', 'to have something to switch from')")
                await connection.execute("SELECT pg_switch_wal()")
            took = time.perf_counter() - begun
            await connection.execute("CHECKPOINT")
        finally:
            await connection.close()
        say(f"{self.scale.log_files} files of PostgreSQL's log made, {took / self.scale.log_files * 1e3:.0f} ms each")

    async def settle(self, database: str) -> None:
        """Vacuums a database and writes a checkpoint now, so that PostgreSQL does not do it during a measurement."""
        connection = await asyncpg.connect(self._superuser_url(database))
        try:
            await connection.execute("VACUUM (ANALYZE)")
            await connection.execute("CHECKPOINT")
        finally:
            await connection.close()

    async def as_superuser(self, statement: str) -> None:
        connection = await asyncpg.connect(self.postgres.superuser_url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    def database_url(self, name: str) -> str:
        return self.postgres.url.removesuffix("daybook") + name

    def _superuser_url(self, name: str) -> str:
        return self.postgres.superuser_url.removesuffix("postgres") + name

    def _settings(self, database: str, number: int) -> Settings:
        return Settings(
            database_url=self.database_url(database),
            mongo_url=self.mongo.url,
            mongo_database=database,
            redis_url=self.redis.url.removesuffix("/0") + f"/{number % 64}",
            secret="of a benchmark and long enough to be taken",  # noqa: S106 # guards nothing
            master_keys="A" * 43,
            rate_limit_caller_per_minute=100_000_000,  # counted as in production, and never reached
        )

    # ── processes ────────────────────────────────────────────────────────────────────────────────────────────────────

    def command(self, settings: Settings) -> ApiProcess:
        return command_api(self.log_folder(), free_port(), environment_of(settings))

    def query(self, settings: Settings) -> ApiProcess:
        return query_api(self.log_folder(), free_port(), environment_of(settings))

    def worker(self, settings: Settings) -> Child:
        return worker(self.log_folder(), environment_of(settings))

    def yardstick(self, app: str, environment: Mapping[str, str]) -> ApiProcess:
        """Returns a process for an app of `bench.yardsticks`. It runs in the same way as the command API."""
        return ApiProcess(app, f"bench.yardsticks.{app}", free_port(), self.log_folder() / "yardstick.log", environment)

    def log_folder(self) -> Path:
        """Makes and returns a new folder for the log file of one process, so that the file has lines of this process only."""
        folder = self.folder / f"process-{next(self._numbers)}"
        folder.mkdir()
        return folder


@asynccontextmanager
async def running(*processes: Child) -> AsyncIterator[None]:
    try:
        await start_processes(*processes)
        yield
    finally:
        await stop_all(*processes)


def environment_of(settings: Settings) -> dict[str, str]:
    """Returns the environment variables with which a process reads exactly these settings."""
    values = settings.model_dump(exclude_none=True)
    plain = {name: value.get_secret_value() if isinstance(value, SecretStr) else value for name, value in values.items()}
    return {f"DAYBOOK_{name.upper()}": str(value) for name, value in plain.items()}


@asynccontextmanager
async def open_rig(scale: Scale) -> AsyncIterator[Rig]:
    with tempfile.TemporaryDirectory(prefix=f"daybook-bench-{os.getpid()}-", dir=FOLDER) as name:
        folder = Path(name)
        postgres, mongo, redis = Postgres("postgres", folder), Mongo("mongo", folder), Redis("redis", folder)
        postgres.cache_gb = mongo.cache_gb = CACHE_GB
        try:
            await start_all(postgres, mongo, redis)
            rig = Rig(folder, scale, postgres, mongo, redis)
            await rig.age()
            yield rig
        finally:
            await stop_all(postgres, mongo, redis)


def sync_microseconds(folder: Path) -> float:
    """Returns the median time in microseconds that the disk takes to make 4 KiB durable. A commit waits for this."""
    took = sorted(_sync_times(folder / "sync"))
    return took[len(took) // 2] * 1e6


def _sync_times(path: Path) -> Iterator[float]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        for _ in range(SYNC_WRITES):
            begin = time.perf_counter()
            os.pwrite(descriptor, bytes(4096), 0)
            os.fdatasync(descriptor)
            yield time.perf_counter() - begin
    finally:
        os.close(descriptor)
        path.unlink()


def say(line: str) -> None:
    """Prints a line of progress to stderr, because stdout is for results."""
    stamp = time.strftime("%H:%M:%S")
    text = f"{stamp}  {line}" if sys.stderr.isatty() else json.dumps({"at": stamp, "doing": line}, ensure_ascii=False)
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
