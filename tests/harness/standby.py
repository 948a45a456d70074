"""A standby of PostgreSQL for tests. It follows its primary without being waited for."""

import os
from pathlib import Path

import asyncpg

from dev.child_processes import Child, unprivileged
from dev.programs import find_program
from dev.servers import START_SECONDS, Postgres


class _BaseBackup(Child):
    shuns_root = True


class Standby(Postgres):
    """A copy of a primary that runs, made when it starts for the first time. It has the primary's logins."""

    def __init__(self, name: str, folder: Path, primary: Postgres) -> None:
        super().__init__(name, folder)
        self._primary = primary

    def _password(self, name: str, needed_by: Path | None = None) -> str:
        return self._primary._password(name, needed_by)  # noqa: SLF001 # the data are the primary's

    async def _prepare(self) -> None:
        self.folder.mkdir(mode=0o700, exist_ok=True)
        if self._data.exists():
            return
        if user := unprivileged():
            os.chown(self.folder, user.pw_uid, user.pw_gid)
        backup = _BaseBackup("pg_basebackup", self.log)
        options = ("--write-recovery-conf", "--checkpoint=fast", "--no-sync", "--dbname", self._primary.superuser_url)
        backup.spawn([find_program("pg_basebackup"), "--pgdata", self._data, *options])
        await backup.ended(START_SECONDS)

    async def _settle(self) -> None:
        await self.execute("SELECT 1")

    async def execute(self, statement: str) -> object:
        connection = await asyncpg.connect(self._url("postgres", "daybook"), ssl=False)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()
