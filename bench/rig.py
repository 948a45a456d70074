"""What benchmarks run on: servers and a folder of their own, ledgers that are filled, processes that are started.

Everything is gone when the rig is closed, also by Ctrl-C; if we are killed with -9, the servers end and the folder stays.
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

from bench.filling import open_accounts
from bench.scale import Scale
from bench.workloads import API_KEY
from dev.children import Child
from dev.processes import Api, command_api, migrate, query_api, start_processes, worker
from dev.servers import Mongo, Postgres, Redis, free_port, start_all, stop_all
from shared.access import SCOPES
from shared.api_keys import key_id_of
from shared.callers import hash_token
from shared.settings import Settings

EMPTY: Final = "ledger_empty"
FOLDER: Final = "/var/tmp"  # noqa: S108 # a folder with a name of its own below it; unlike /tmp it is on a disk
SYNC_WRITES: Final = 200

CACHE_GB: Final = 4
"""For each of the two databases: together a third of a machine with 24 GB, as one would give them in production."""


class Rig:
    """One run's servers. Databases are numbered and never used twice."""

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
        """Settings that lead to a new ledger with so many accounts, and to empty read models."""
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
        """The key that all requests send (see `bench.workloads`)."""
        connection = await asyncpg.connect(self._superuser_url(EMPTY))
        try:
            await connection.execute(
                "INSERT INTO api_keys (key_id, ledger_id, principal, scopes, token_hash, created_at)"
                " VALUES ($1, 'main', 'bench', $2, $3, now())",
                *(key_id_of(API_KEY), list(SCOPES), hash_token(API_KEY)),
            )
        finally:
            await connection.close()

    async def copy(self, database: str) -> Settings:
        """Settings that lead to a copy of a database that nobody is connected to, and to empty read models."""
        number = next(self._numbers)
        name = f"bench_{number}"
        await self.as_superuser(f"CREATE DATABASE {name} TEMPLATE {database} OWNER daybook STRATEGY file_copy")
        return self._settings(name, number)

    async def scratch(self) -> str:
        """The URL of a new, empty database, for yardsticks."""
        name = f"scratch_{next(self._numbers)}"
        await self.as_superuser(f"CREATE DATABASE {name} OWNER daybook")
        return self.database_url(name)

    async def age(self) -> None:
        """Has PostgreSQL make files of its log, which it then uses again as after its first hours: who needs a new one waits."""
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
        """Does now what the server would do by itself while we measure something else."""
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
            secret="of a benchmark, and long enough to be taken",  # noqa: S106 # guards nothing
            master_keys="A" * 43,
            rate_limit_caller_per_minute=100_000_000,  # counted as in production, and never reached
        )

    # ── processes ────────────────────────────────────────────────────────────────────────────────────────────────────

    def command(self, settings: Settings) -> Api:
        return command_api(self.log_folder(), free_port(), environment_of(settings))

    def query(self, settings: Settings) -> Api:
        return query_api(self.log_folder(), free_port(), environment_of(settings))

    def worker(self, settings: Settings) -> Child:
        return worker(self.log_folder(), environment_of(settings))

    def yardstick(self, app: str, environment: Mapping[str, str]) -> Api:
        """An app of `bench.yardsticks`, run exactly as the command API is."""
        return Api(app, f"bench.yardsticks.{app}", free_port(), self.log_folder() / "yardstick.log", environment)

    def log_folder(self) -> Path:
        """One for each process: what it said last must be its own."""
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
    """The variables that make a process read these very settings."""
    values = settings.model_dump(exclude_none=True)
    plain = {name: value.get_secret_value() if isinstance(value, SecretStr) else value for name, value in values.items()}
    return {f"DAYBOOK_{name.upper()}": str(value) for name, value in plain.items()}


@asynccontextmanager
async def open_rig(scale: Scale) -> AsyncIterator[Rig]:
    with tempfile.TemporaryDirectory(prefix="daybook-bench-", dir=FOLDER) as name:
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
    """The median time in which the disk says that 4 KiB are safe: what a commit waits for."""
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
    """Progress, for who waits: a line on stderr; stdout is for results."""
    stamp = time.strftime("%H:%M:%S")
    text = f"{stamp}  {line}" if sys.stderr.isatty() else json.dumps({"at": stamp, "doing": line}, ensure_ascii=False)
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
