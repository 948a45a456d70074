"""The processes of Daybook as children of ours: the two APIs and the worker."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import httpx2

from dev.children import LOOK_SECONDS, Child
from dev.folder import ROOT
from shared.errors import StackError

READY_SECONDS: Final = 30.0
DRAIN_SECONDS: Final = "3"
"""How long an API that was told to end waits for the requests that it is working on."""


class Api(Child):
    """A uvicorn, ready when its `/readyz` says so."""

    def __init__(
        self, name: str, app: str, port: int, log: Path, environment: Mapping[str, str], inherit: Sequence[int] = ()
    ) -> None:
        command = [
            *(sys.executable, "-m", "uvicorn", "--factory", app, "--host", "127.0.0.1", "--port", str(port)),
            *("--timeout-graceful-shutdown", DRAIN_SECONDS, "--no-access-log", "--no-server-header", "--no-proxy-headers"),
            *("--http", "shared.protocol:Protocol", "--ws", "none"),
        ]
        super().__init__(name, log, command, environment=environment, inherit=inherit)
        self.url = f"http://127.0.0.1:{port}"

    async def ready(self) -> None:
        """Raises:
        StackError: it ended instead, or did not get ready in time.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + READY_SECONDS
        async with httpx2.AsyncClient(base_url=self.url, timeout=2, trust_env=False) as client:
            while self.running and loop.time() < end:
                try:
                    if (await client.get("/readyz")).is_success:
                        return
                except httpx2.TransportError:
                    pass
                await asyncio.sleep(LOOK_SECONDS)
        raise StackError(f"{self.name} does not get ready: {self.last_words()}")


def command_api(folder: Path, port: int, environment: Mapping[str, str], inherit: Sequence[int] = ()) -> Api:
    return Api("command-api", "command_api.app:create_app", port, folder / "command-api.log", environment, inherit)


def query_api(folder: Path, port: int, environment: Mapping[str, str], inherit: Sequence[int] = ()) -> Api:
    return Api("query-api", "query_api.app:create_app", port, folder / "query-api.log", environment, inherit)


def worker(folder: Path, environment: Mapping[str, str], inherit: Sequence[int] = ()) -> Child:
    command = [sys.executable, "-m", "arq", "projector.worker.WorkerSettings"]
    return Child("worker", folder / "worker.log", command, environment=environment, inherit=inherit)


async def start_processes(*processes: Child) -> None:
    """Side by side; returns when every API is ready. Who calls this ends them, also after an error."""
    for process in processes:
        await process.start()
    await asyncio.gather(*(process.ready() for process in processes if isinstance(process, Api)))
    require_running(*processes)


def require_running(*processes: Child) -> None:
    """Raises:
    StackError: one has ended.
    """
    for process in processes:
        if not process.running:
            raise StackError(f"{process.name} does not start: {process.last_words()}")


async def migrate(folder: Path, environment: Mapping[str, str]) -> None:
    """In a process of its own, since alembic has no way to be stopped inside ours."""
    command = [sys.executable, "-m", "alembic", "--config", str(ROOT / "alembic.ini"), "upgrade", "head"]
    child = Child("migrations", folder / "migrations.log", command, environment=environment)
    await child.start()
    try:
        await child.ended()
    finally:
        await child.stop()
    if child.process and child.process.returncode:
        raise StackError(f"the migrations failed: {child.last_words()}")
