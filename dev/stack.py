"""The whole of Daybook on one machine: starts what is not configured, migrates, serves, and keeps it running.

Order is everything here: servers, migrations, processes; and backwards when it ends, so that no process loses its database on a
Ctrl-C. Whatever fails on the way up ends what was started before it.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dev.children import Child
from dev.folder import DATA_FOLDER, Running, hold, publish, withdraw
from dev.keys import development_key
from dev.processes import command_api, migrate, query_api, require_running, start_processes, worker
from dev.seed import caught_up, seed
from dev.servers import (
    Mongo,
    Postgres,
    Redis,
    Server,
    free_port,
    keep_secret,
    port_is_free,
    start_all,
    stop_all,
)
from shared.errors import StackError
from shared.seals import new_seed

SERVERS: Final[dict[str, tuple[str, type[Server]]]] = {
    "DAYBOOK_DATABASE_URL": ("postgres", Postgres),
    "DAYBOOK_MONGO_URL": ("mongo", Mongo),
    "DAYBOOK_REDIS_URL": ("redis", Redis),
}
CATCH_UP_SECONDS: Final = 5.0
STEADY_SECONDS: Final = 30.0
PAUSE_SECONDS_MIN: Final = 0.5
PAUSE_SECONDS_MAX: Final = 10.0
ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Say = Callable[[str], None]


@dataclass(frozen=True)
class Wishes:
    """What `daybook dev` was asked for. A port of 0 is chosen by the system."""

    folder: Path = DATA_FOLDER
    command_port: int = 8000
    query_port: int = 8001
    seed: bool = True


def run(wishes: Wishes, ready: Callable[[Running], None], say: Say) -> None:
    """Runs until SIGINT, SIGTERM or SIGHUP. `ready` is told once; `say` takes lines about what goes wrong and what is done.

    Raises:
        StackError: it could not start; nothing is left running.
    """
    with hold(wishes.folder) as lock:
        try:
            asyncio.run(_run(wishes, lock, ready, say))
        except asyncio.CancelledError:
            return


async def _run(wishes: Wishes, lock: int, ready: Callable[[Running], None], say: Say) -> None:
    _cancel_on_signal()
    async with AsyncExitStack() as exits:
        servers = await _start_servers(exits, wishes, lock)
        environment = _environment(wishes, servers)
        await migrate(wishes.folder, environment)
        environment["DAYBOOK_API_KEY"] = api_key = await development_key(wishes.folder, environment)
        processes = await _start_processes(exits, wishes, environment, lock)
        if wishes.seed:
            await seed(environment["DAYBOOK_COMMAND_URL"], environment["DAYBOOK_QUERY_URL"], api_key)
        if not await caught_up(environment["DAYBOOK_QUERY_URL"], api_key, CATCH_UP_SECONDS):
            say("the read models are still catching up: `daybook status` shows how far they are")
        require_running(*processes)
        running = Running(os.getpid(), environment)
        exits.callback(withdraw, wishes.folder)
        publish(wishes.folder, running)
        ready(running)
        await asyncio.gather(*(_keep(child, say) for child in (*servers.values(), *processes)))


def _cancel_on_signal() -> None:
    """Once: a second Ctrl-C does not interrupt the orderly end that the first one asked for."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def end() -> None:
        for each in ENDING:
            loop.add_signal_handler(each, lambda: None)
        if task:
            task.cancel()

    for each in ENDING:
        loop.add_signal_handler(each, end)


async def _start_servers(exits: AsyncExitStack, wishes: Wishes, lock: int) -> dict[str, Server]:
    """Those that are not configured, by the variable that would have configured them."""
    for process, port in (("command", wishes.command_port), ("query", wishes.query_port)):
        if not port_is_free(port):
            raise StackError(f"port {port} of the {process} API is taken: free it, or choose another with --{process}-port")
    servers = {
        variable: server(name, wishes.folder, inherit=[lock])
        for variable, (name, server) in SERVERS.items()
        if not os.environ.get(variable)
    }
    exits.push_async_callback(stop_all, *servers.values())
    await start_all(*servers.values())
    return servers


def _environment(wishes: Wishes, servers: Mapping[str, Server]) -> dict[str, str]:
    """What leads a process to this stack: what was configured, and what was started."""
    urls = {variable: servers[variable].url if variable in servers else os.environ[variable] for variable in SERVERS}
    owner = os.environ.get("DAYBOOK_MIGRATION_DATABASE_URL", urls["DAYBOOK_DATABASE_URL"])
    return {
        "DAYBOOK_COMMAND_URL": f"http://127.0.0.1:{wishes.command_port or free_port()}",
        "DAYBOOK_QUERY_URL": f"http://127.0.0.1:{wishes.query_port or free_port()}",
        **urls,
        "DAYBOOK_MIGRATION_DATABASE_URL": owner,
        # Kept, so that a list's cursor outlives a restart.
        "DAYBOOK_SECRET": os.environ.get("DAYBOOK_SECRET") or keep_secret(wishes.folder / "cursors.secret"),
        "DAYBOOK_SEAL_KEY": os.environ.get("DAYBOOK_SEAL_KEY") or keep_secret(wishes.folder / "seals.secret", new_seed),
        "DAYBOOK_SEAL_FILE": os.environ.get("DAYBOOK_SEAL_FILE") or str(wishes.folder.resolve() / "seals.jsonl"),
        # Kept, or every name in the stack's ledger would be erased.
        "DAYBOOK_MASTER_KEYS": os.environ.get("DAYBOOK_MASTER_KEYS") or keep_secret(wishes.folder / "master.key"),
    }


async def _start_processes(exits: AsyncExitStack, wishes: Wishes, environment: Mapping[str, str], lock: int) -> tuple[Child, ...]:
    processes = (
        command_api(wishes.folder, _port(environment["DAYBOOK_COMMAND_URL"]), environment, [lock]),
        query_api(wishes.folder, _port(environment["DAYBOOK_QUERY_URL"]), environment, [lock]),
        worker(wishes.folder, environment, [lock]),
    )
    exits.push_async_callback(stop_all, *processes)
    await start_processes(*processes)
    return processes


def _port(url: str) -> int:
    return int(url.rpartition(":")[2])


async def _keep(child: Child, say: Say) -> None:
    """Starts the child again whenever it has ended: at once the first time, then after growing pauses."""
    pause = 0.0
    while True:
        since = time.monotonic()
        await child.ended()
        if time.monotonic() - since > STEADY_SECONDS:
            pause = 0.0
        say(f"{child.name} ended ({child.outcome()}) and is started again; its log: {child.log}")
        await asyncio.sleep(pause)
        pause = min(max(2 * pause, PAUSE_SECONDS_MIN), PAUSE_SECONDS_MAX)
        try:
            await child.start()
        except StackError as error:
            say(str(error))
