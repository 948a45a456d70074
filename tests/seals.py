"""For tests of proof: a key, a ledger that is sealed as it grows, and a superuser who changes what nobody may."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
from pydantic import SecretStr
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine
from typer.testing import CliRunner

from cli.app import app
from projector.sealing import make_sealer
from shared import event_store
from shared.connections import open_postgres
from shared.events import Event
from shared.settings import Settings
from tests import log
from tests.running import Servers, environment_of

SEAL_KEY = "c2VhbHMgb2YgdGVzdHMsIGFuZCBvZiBub3RoaW5nLi4="
OTHER_KEY = "YW5vdGhlciBrZXksIG9mIHdob2V2ZXIgdGFtcGVycy4="


def sealing(settings: Settings, folder: Path, key: str = SEAL_KEY) -> Settings:
    return settings.model_copy(update={"seal_key": SecretStr(key), "seal_file": str(folder / "seals.jsonl")})


class SealedLog:
    """A ledger in PostgreSQL that nothing but the test reads and writes."""

    def __init__(self, settings: Settings, writer: AsyncEngine, projector: AsyncEngine, superuser: asyncpg.Connection) -> None:
        self.settings = settings
        self.writer = writer
        self.projector = projector
        self.superuser = superuser
        self.head = 0

    @property
    def file(self) -> Path:
        assert self.settings.seal_file
        return Path(self.settings.seal_file)

    async def record(self, events: Iterable[Event]) -> int:
        self.head = await log.append(self.writer, events)
        return self.head

    async def seal(self) -> None:
        sealer = make_sealer(self.projector, self.settings)
        assert sealer
        await sealer.seal_all()

    async def tamper(self, statement: str, *values: Any) -> None:
        """What grants and triggers cannot stop."""
        await self.superuser.execute(statement, *values)

    async def verify(self, *arguments: str) -> tuple[int, dict[str, str]]:
        """Exit code of `daybook verify`, and what it says of each check."""
        run = await asyncio.to_thread(CliRunner().invoke, app, ["verify", *arguments], env=environment_of(self.settings))
        assert run.exit_code in {0, 3}, run.exception
        # A worker in this process, which runs meanwhile, logs to the same stdout, also in the middle of a line.
        lines = (line.split(maxsplit=1) for line in run.stdout.splitlines())
        return run.exit_code, {line[0]: line[1] for line in lines if len(line) > 1}

    async def chain_anew(self, first: int) -> None:
        """What a superuser does to hide a change: computes every hash from there on, and the head's."""
        async with self.projector.connect() as connection:
            before = await event_store.read_stored(connection, "main", first - 2, 1)
            events = await event_store.read_stored(connection, "main", first - 1, 10_000)
        last = before[0].hash if first > 1 else b""
        for event in events:
            last = event.computed_hash(last)
            await self.tamper("UPDATE events SET hash = $1 WHERE position = $2", last, event.position)
        await self.tamper("UPDATE log_heads SET hash = $1", last)


@asynccontextmanager
async def sealed_log(settings: Settings, servers: Servers) -> AsyncIterator[SealedLog]:
    database = make_url(settings.database_url).database
    superuser = await asyncpg.connect(servers.postgres.superuser_url, database=database)
    await superuser.execute("SET session_replication_role = replica")
    try:
        async with (
            open_postgres(settings, "daybook_command") as writer,
            open_postgres(settings, "daybook_projector") as projector,
        ):
            yield SealedLog(settings, writer, projector, superuser)
    finally:
        await superuser.close()
