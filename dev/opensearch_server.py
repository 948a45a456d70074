"""Runs OpenSearch for development and tests, from the jars that `make engines` gets."""

import asyncio
from urllib.request import urlopen

from dev.child_processes import ProgramArguments
from dev.engine_jars import DEFINITIONS, class_path
from dev.ports import free_port
from dev.programs import find_program
from dev.servers import Server

_HEAP: str = "512m"


class OpenSearchServer(Server):
    """OpenSearch with one node, without a login: everybody on this machine can read it."""

    start_seconds = 120.0
    stop_seconds = 10.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _command(self) -> ProgramArguments:
        return [
            *(find_program("java"), f"-Xms{_HEAP}", f"-Xmx{_HEAP}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
            f"-Dlog4j2.configurationFile={DEFINITIONS / 'opensearch' / 'log4j2.properties'}",
            *("-cp", class_path("opensearch"), "OpenSearchNode", self.folder, str(self.port), str(free_port())),
        ]

    async def _settle(self) -> None:
        await asyncio.to_thread(self._ask)

    def _ask(self) -> None:
        with urlopen(f"{self.url}/_cluster/health?wait_for_status=yellow&timeout=1s", timeout=2) as answer:  # noqa: S310 # http
            answer.read()
