"""Runs the processes of Daybook as child processes: the two APIs, the worker and the migrations."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import httpx2

from dev.child_processes import LOOK_SECONDS, Child
from dev.ports import is_listening
from shared.errors import StackError

READY_SECONDS: Final = 30.0
LOCALHOST: Final = "127.0.0.1"
GRACE_SECONDS: Final = "3"
"""The number of seconds that an API waits for running requests when it has to end."""


class ApiProcess(Child):
    """An API in a uvicorn process. It is ready when `/readyz` answers with success."""

    def __init__(
        self,
        name: str,
        app: str,
        port: int,
        log: Path,
        environment: Mapping[str, str],
        inherit: Sequence[int] = (),
        host: str = LOCALHOST,
    ) -> None:
        command = [
            *(sys.executable, "-m", "uvicorn", "--factory", app, "--host", host, "--port", str(port)),
            *("--timeout-graceful-shutdown", GRACE_SECONDS, "--no-access-log", "--no-server-header", "--no-proxy-headers"),
            *("--http", "shared.web.protocol:Protocol", "--ws", "none"),
        ]
        super().__init__(name, log, command, environment=environment, inherit=inherit)
        self.url = local_url(host, port)
        self._address = _reached(host), port

    async def ready(self) -> None:
        """Waits until the API is ready.

        Raises:
            StackError: the API ended, or was not ready in `READY_SECONDS`.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + READY_SECONDS
        async with httpx2.AsyncClient(base_url=self.url, timeout=2, trust_env=False) as client:
            while self.running and loop.time() < end:
                # uvicorn listens last. To try the port is much cheaper than to send a request, and the start needs the processor.
                if is_listening(*self._address):
                    with suppress(httpx2.TransportError):
                        if (await client.get("/readyz")).is_success:
                            return
                await asyncio.sleep(LOOK_SECONDS)
        raise StackError(f"{self.name} is not ready: {self.last_words()}")


def local_url(host: str, port: int) -> str:
    """Returns the URL at which this machine reaches an API that listens on `host`."""
    reached = _reached(host)
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"


def _reached(host: str) -> str:
    return {"0.0.0.0": LOCALHOST, "": LOCALHOST, "::": "::1"}.get(host, host)  # noqa: S104 # no server listens here


def command_api(
    folder: Path, port: int, environment: Mapping[str, str], inherit: Sequence[int] = (), host: str = LOCALHOST
) -> ApiProcess:
    return ApiProcess("command-api", "command_api.app:create_app", port, folder / "command-api.log", environment, inherit, host)


def query_api(
    folder: Path, port: int, environment: Mapping[str, str], inherit: Sequence[int] = (), host: str = LOCALHOST
) -> ApiProcess:
    return ApiProcess("query-api", "query_api.app:create_app", port, folder / "query-api.log", environment, inherit, host)


def worker(folder: Path, environment: Mapping[str, str], inherit: Sequence[int] = ()) -> Child:
    command = [sys.executable, "-m", "arq", "projector.worker.WorkerSettings"]
    return Child("worker", folder / "worker.log", command, environment=environment, inherit=inherit)


async def start_processes(*processes: Child) -> None:
    """Starts several processes at once, and returns when every API is ready. The caller must end them, even after an error."""
    for process in processes:
        await process.start()
    await asyncio.gather(*(process.ready() for process in processes if isinstance(process, ApiProcess)))
    require_running(*processes)


def require_running(*processes: Child) -> None:
    """Checks that all processes are running.

    Raises:
        StackError: a process has ended.
    """
    for process in processes:
        if not process.running:
            raise StackError(f"{process.name} does not start: {process.last_words()}")


async def migrate(folder: Path, environment: Mapping[str, str]) -> None:
    """Runs `daybook migrate` in a child process, because alembic could not be stopped if it ran in this one.

    Raises:
        StackError: the migrations failed.
    """
    command = [sys.executable, "-m", "cli.app", "migrate"]
    child = Child("migrations", folder / "migrations.log", command, environment=environment)
    await child.start()
    try:
        await child.ended()
    finally:
        await child.stop()
    if child.process and child.process.returncode:
        raise StackError(f"the migrations failed: {child.last_words()}")
