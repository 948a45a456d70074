"""PgBouncer for tests, from Debian's package."""

import os
from pathlib import Path
from typing import Final

import asyncpg

from dev.child_processes import ProgramArguments
from dev.programs import find_program
from dev.servers import Postgres, Server
from shared.errors import StackError
from shared.private_files import write_private
from tests.harness.engines import lacks

SESSIONS: Final = 3
"""The sessions that PgBouncer has with PostgreSQL: fewer than there are clients, so that clients share them."""
LOGIN: Final = "pooled"


class PgBouncer(Server):
    """PgBouncer in transaction mode in front of a PostgreSQL that runs.

    Its login inherits no rights: without the role that each transaction sets, no statement about a table succeeds.
    """

    def __init__(self, name: str, folder: Path, postgres: Postgres) -> None:
        super().__init__(name, folder)
        self._postgres = postgres
        try:
            self._program = find_program("pgbouncer")
        except StackError as missing:
            lacks("pgbouncer", str(missing))

    @property
    def url(self) -> str:
        return f"postgresql://{LOGIN}:{self._password(LOGIN)}@127.0.0.1:{self.port}/daybook"

    async def _prepare(self) -> None:
        await super()._prepare()
        if self.port:
            return
        connection = await asyncpg.connect(self._postgres.superuser_url, ssl=False)
        try:
            await connection.execute(f"""
                CREATE ROLE {LOGIN} LOGIN NOINHERIT PASSWORD '{self._password(LOGIN)}'
                IN ROLE daybook_command, daybook_projector, daybook_query
            """)
        finally:
            await connection.close()

    def _command(self) -> ProgramArguments:
        users, configuration = self.folder / "users.txt", self.folder / "pgbouncer.ini"
        write_private(users, f'"{LOGIN}" "{self._password(LOGIN)}"\n')
        lines = (
            f"[databases]\n* = host=127.0.0.1 port={self._postgres.port}\n[pgbouncer]",
            f"pool_mode = transaction\ndefault_pool_size = {SESSIONS}\nmax_client_conn = 200",
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =",
            f"auth_type = scram-sha-256\nauth_file = {users}",
            *(("user = nobody",) if os.geteuid() == 0 else ()),
        )
        write_private(configuration, "\n".join(lines))
        self.folder.chmod(0o755)
        for file in (users, configuration):
            file.chmod(0o644)  # PgBouncer leaves root before it reads them
        return [self._program, configuration]

    async def _settle(self) -> None:
        connection = await asyncpg.connect(self.url, ssl=False, statement_cache_size=0)
        await connection.close()
