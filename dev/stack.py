"""The whole of Daybook on one machine: starts what is not configured, migrates, serves, and keeps it running.

Order is everything here: servers, migrations, processes; and backwards when it ends, so that no process ever loses its database
on a Ctrl-C. Whatever fails on the way up ends what was started before.
"""

import asyncio
import os
import secrets
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dev.children import Child
from dev.folder import DATA_FOLDER, Running, find_running, held_by, hold, publish, withdraw
from dev.processes import command_api, migrate, query_api, start_processes, worker
from dev.seed import seed, wait_until_caught_up
from dev.servers import Mongo, Postgres, Redis, Server, free_port, port_is_free, start_all, stop_all, write_private
from shared.errors import StackError

SERVERS: Final[dict[str, type[Server]]] = {
    "DAYBOOK_DATABASE_URL": Postgres,
    "DAYBOOK_MONGO_URL": Mongo,
    "DAYBOOK_REDIS_URL": Redis,
}
STEADY_SECONDS: Final = 30.0
PAUSE_SECONDS_MAX: Final = 10.0
DOWN_SECONDS: Final = 15.0


@dataclass(frozen=True)
class Wishes:
    """What `daybook dev` was asked for. A port of 0 is chosen by the system."""

    folder: Path = DATA_FOLDER
    command_port: int = 8000
    query_port: int = 8001
    seed: bool = True


def stack_environment() -> dict[str, str]:
    """The variables that lead to the running stack of this checkout; none when nothing runs."""
    running = find_running(_folder())
    return running.environment if running else {}


def _folder() -> Path:
    return Path(os.environ.get("DAYBOOK_DATA_DIR", DATA_FOLDER))


async def run(wishes: Wishes, ready: Callable[[Running], None], say: Callable[[str], None]) -> None:
    """Runs until SIGINT, SIGTERM or SIGHUP. `ready` is told once, `say` whenever something ended and is started again.

    Raises:
        StackError: it could not start; nothing is left running.
    """
    _cancel_on_signal()
    async with AsyncExitStack() as exits:
        lock = exits.enter_context(hold(wishes.folder))
        ports = _take_port(wishes.command_port, "command"), _take_port(wishes.query_port, "query")
        servers = _servers(wishes.folder, lock)
        exits.push_async_callback(stop_all, *servers.values())
        await start_all(*servers.values())
        environment = _environment(wishes.folder, servers, ports)
        await migrate(wishes.folder, environment)
        processes = (
            command_api(wishes.folder, ports[0], environment, [lock]),
            query_api(wishes.folder, ports[1], environment, [lock]),
            worker(wishes.folder, environment, [lock]),
        )
        exits.push_async_callback(stop_all, *processes)
        await start_processes(*processes)
        if wishes.seed:
            await seed(environment)
        await wait_until_caught_up(environment["DAYBOOK_QUERY_URL"])
        children = (*servers.values(), *processes)
        running = Running(os.getpid(), environment, tuple(child.name for child in children))
        exits.callback(withdraw, wishes.folder)
        publish(wishes.folder, running)
        ready(running)
        await asyncio.gather(*(_keep(child, say) for child in children))
