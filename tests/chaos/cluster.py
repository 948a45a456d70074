"""All parts of Daybook on this machine, as direct children of this process, with a proxy in front of each store."""

import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dev.child_processes import Child
from dev.daybook_processes import ApiProcess, command_api, migrate, query_api, worker
from dev.ports import free_port
from dev.servers import Mongo, Postgres, Redis, Server, start_all, stop_all
from shared.settings import Settings
from tests.harness.clocks import LIBRARIES, JumpingClock
from tests.harness.databases import copy_postgres
from tests.harness.keys import OPERATOR, add_key
from tests.harness.log import MASTER_KEY
from tests.harness.proxy import Proxy, proxy_to
from tests.harness.running import environment_of

DISK_BYTES: Final = 1 << 30
"""The size of the disk of PostgreSQL, where a full disk can be tried."""


@dataclass(frozen=True)
class Cluster:
    """Two command APIs, a query API, two workers and three stores. Daybook reaches each store through its proxy."""

    stores: dict[str, Server]
    proxies: dict[str, Proxy]
    command_apis: list[ApiProcess]
    query_api: ApiProcess
    workers: list[Child]
    settings: Settings
    disk: Path | None
    """The folder of a small disk that holds PostgreSQL, or None if this machine does not allow one."""
    clocks: dict[str, JumpingClock]
    """The clock of each process of Daybook that has one of its own. Without Debian's `faketime`, there are none."""

    @property
    def processes(self) -> list[Child]:
        return [*self.command_apis, self.query_api, *self.workers]

    @property
    def children(self) -> list[Child]:
        return [*self.processes, *self.stores.values()]

    async def daybook(self, name: str, *arguments: str, within_seconds: float = 300) -> Child:
        """Runs a command of `daybook` in a child process, and returns it after it has ended."""
        log = self.command_apis[0].log.parents[1] / f"{name}.log"
        command = [sys.executable, "-m", "cli.app", *arguments]
        child = Child(name, log, command, environment=environment_of(self.settings))
        await child.start()
        try:
            await child.ended(within_seconds)
        finally:
            await child.stop()
        return child


@asynccontextmanager
async def running_cluster(folder: Path, migrated: Path | None = None) -> AsyncIterator[Cluster]:
    """Starts everything, and does not wait until it is ready: the first clients do.

    `migrated` is the folder of a stopped PostgreSQL to copy; without it, a new one is made.
    """
    async with AsyncExitStack() as stack:
        disk = stack.enter_context(_small_disk(folder / "disk"))
        where = disk or folder
        postgres = copy_postgres(migrated, where) if migrated else Postgres("postgres", where)
        stores: dict[str, Server] = {"postgres": postgres, "mongo": Mongo("mongo", folder), "redis": Redis("redis", folder)}
        stack.push_async_callback(stop_all, *stores.values())
        await start_all(*stores.values())
        if migrated is None:
            await migrate(folder, {"DAYBOOK_DATABASE_URL": postgres.url})
            await add_key(postgres.url, token=OPERATOR)
        proxied = {name: await stack.enter_async_context(proxy_to(store.url)) for name, store in stores.items()}
        urls = {name: url for name, (_, url) in proxied.items()}
        settings = cluster_settings(urls["postgres"], urls["mongo"], urls["redis"])
        proxies = {name: proxy for name, (proxy, _) in proxied.items()}
        yield await stack.enter_async_context(running_processes(folder, settings, stores, proxies, disk))


@asynccontextmanager
async def running_processes(
    folder: Path,
    settings: Settings,
    stores: dict[str, Server],
    proxies: dict[str, Proxy] | None = None,
    disk: Path | None = None,
) -> AsyncIterator[Cluster]:
    """Starts the processes of Daybook on stores that run, and does not wait until they are ready."""
    cluster = _processes(folder, settings, stores, proxies or {}, disk)
    try:
        for process in cluster.processes:
            await process.start()
        yield cluster
    finally:
        await stop_all(*cluster.processes)


def cluster_settings(postgres_url: str, mongo_url: str, redis_url: str) -> Settings:
    return Settings(
        database_url=postgres_url,
        mongo_url=mongo_url,
        mongo_database="chaos",
        redis_url=redis_url,
        secret="a secret of the tests and of nothing else",
        master_keys=MASTER_KEY,
        log_level="WARNING",
    )


def _processes(
    folder: Path, settings: Settings, stores: dict[str, Server], proxies: dict[str, Proxy], disk: Path | None
) -> Cluster:
    clocks: dict[str, JumpingClock] = {}

    def own(name: str) -> Path:
        (folder / name).mkdir()
        return folder / name

    def environment(name: str) -> dict[str, str]:
        if LIBRARIES:
            clocks[name] = JumpingClock(folder / name)
        return {**environment_of(settings), **(clocks[name].environment() if LIBRARIES else {})}

    command_apis = [command_api(own(name), free_port(), environment(name)) for name in ("command-1", "command-2")]
    queries = query_api(own("query"), free_port(), environment("query"))
    workers = [worker(own(name), environment(name)) for name in ("worker-1", "worker-2")]
    return Cluster(stores, proxies, command_apis, queries, workers, settings, disk, clocks)


@contextmanager
def _small_disk(folder: Path) -> Iterator[Path | None]:
    """Mounts a disk that a test can fill. Only root can, and not on every machine."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        yield None
        return
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@asynccontextmanager
async def new_cluster() -> AsyncIterator[Cluster]:
    """Starts everything in a folder that is deleted afterwards."""
    with tempfile.TemporaryDirectory(prefix="daybook-chaos-") as name:
        async with running_cluster(Path(name)) as cluster:
            yield cluster
