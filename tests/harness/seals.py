"""Support for tests of seals: a seal key, a ledger that is sealed, and a superuser who can falsify it."""

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
from projector.sealing.sealer import make_sealer
from shared.log.events import Event
from shared.log.read import read_stored
from shared.settings import Settings
from shared.stores.postgres import open_postgres
from tests.harness import log
from tests.harness.running import Servers, environment_of

SEAL_KEY = "c2VhbHMgb2YgdGVzdHMsIGFuZCBvZiBub3RoaW5nLi4="
OTHER_KEY = "YW5vdGhlciBrZXksIG9mIHdob2V2ZXIgdGFtcGVycy4="


def sealing(settings: Settings, folder: Path, key: str = SEAL_KEY) -> Settings:
    return settings.model_copy(update={"seal_key": SecretStr(key), "seal_file": str(folder / "seals.jsonl")})


class SealedLog:
    """A ledger in PostgreSQL that only the test reads and writes."""

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
        """Executes a statement as a superuser, whom neither permissions nor triggers stop."""
        await self.superuser.execute(statement, *values)

    async def verify(self, *arguments: str) -> tuple[int, dict[str, str]]:
        """Runs `daybook verify`. Returns its exit code and the result of each check, by the name of the check."""
        run = await asyncio.to_thread(CliRunner().invoke, app, ["verify", *arguments], env=environment_of(self.settings))
        assert run.exit_code in {0, 3}, run.exception
        # A worker that runs in this process logs to the same stdout and can interrupt a line.
        lines = (line.split(maxsplit=1) for line in run.stdout.splitlines())
        return run.exit_code, {line[0]: line[1] for line in lines if len(line) > 1}

    async def chain_anew(self, first: int) -> None:
        """Hides a change as a superuser could: computes all hashes from position `first` on again, and the head's."""
        async with self.projector.connect() as connection:
            before = await read_stored(connection, "main", first - 2, 1)
            events = await read_stored(connection, "main", first - 1, 10_000)
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
