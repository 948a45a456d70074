"""Runs a complete Daybook on one machine, and restarts a server or process that ends by itself.

First it starts the database servers that are not configured, then it runs the migrations, and then it starts the processes. On a
Ctrl-C it ends them in the opposite order, so that no process loses a store while it still runs. If a server or process cannot be
started, all servers and processes are ended.
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

from dev.cassandra_server import CassandraServer
from dev.child_processes import Child
from dev.configured_servers import require_answers
from dev.data_folder import DATA_FOLDER, RunningStack, hold, publish, withdraw
from dev.daybook_processes import LOCALHOST, command_api, local_url, migrate, query_api, require_running, start_processes, worker
from dev.development_key import development_key
from dev.kept_secrets import keep_secret
from dev.nats_server import NatsServer
from dev.ports import free_port, port_is_free
from dev.search_servers import OpenSearchServer
from dev.seed import seed
from dev.servers import MariaDb, Mongo, Postgres, Redis, Server, start_all, stop_all
from shared.errors import SettingsInvalid, StackError
from shared.proof.seals import new_seed
from shared.settings import MISSING, is_origin, read_settings
from shared.web.api_client import wait_until_caught_up

SERVERS: Final[dict[str, tuple[str, type[Server]]]] = {
    "DAYBOOK_DATABASE_URL": ("postgres", Postgres),
    "DAYBOOK_MONGO_URL": ("mongo", Mongo),
    "DAYBOOK_REDIS_URL": ("redis", Redis),
}
STACK_VARIABLES: Final = (
    *(
        "DAYBOOK_COMMAND_URL",
        "DAYBOOK_QUERY_URL",
        "DAYBOOK_API_KEY",
        *SERVERS,
        "DAYBOOK_MIGRATION_DATABASE_URL",
        *("DAYBOOK_REPORTING_URL", "DAYBOOK_SEARCH_URL", "DAYBOOK_TIMELINE_URL", "DAYBOOK_PUBLISH_URL"),
    ),
    *("DAYBOOK_SECRET", "DAYBOOK_SEAL_KEY", "DAYBOOK_SEAL_FILE", "DAYBOOK_MASTER_KEYS"),
)
"""The variables with which programs reach a running stack."""
ENGINES: Final = ("sql", "search", "timeline", "publish")
"""The optional stores that a stack can start, each only if no other one is configured.

`sql` is SQL reporting in a MariaDB, or in a SQLite file where MariaDB is not installed. `search` is an OpenSearch, `timeline` a
Cassandra, and `publish` a NATS server to which all events are published.
"""
STARTED_ENGINES: Final[tuple[tuple[str, str, type[Server]], ...]] = (
    ("sql", "DAYBOOK_REPORTING_URL", MariaDb),
    ("search", "DAYBOOK_SEARCH_URL", OpenSearchServer),
    ("timeline", "DAYBOOK_TIMELINE_URL", CassandraServer),
    ("publish", "DAYBOOK_PUBLISH_URL", NatsServer),
)
"""The engines that are servers: name, the variable with the URL, and the class."""
CATCH_UP_SECONDS: Final = 5.0
STEADY_SECONDS: Final = 30.0
PAUSE_SECONDS_MIN: Final = 0.5
PAUSE_SECONDS_MAX: Final = 10.0
ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Say = Callable[[str], None]


@dataclass(frozen=True)
class StackOptions:
    """The options of `daybook dev`. A port of 0 takes a free one."""

    folder: Path = DATA_FOLDER
    command_port: int = 8000
    query_port: int = 8001
    seed: bool = True
    host: str = LOCALHOST
    engines: frozenset[str] = frozenset()
    """The optional stores to use, by name. Each is one of `ENGINES`."""


def run(options: StackOptions, ready: Callable[[RunningStack], None], say: Say) -> None:
    """Runs a stack until SIGINT, SIGTERM or SIGHUP. Calls `ready` once, and `say` with a line about each problem.

    Raises:
        StackError: the stack could not start. All its processes have ended.
        SettingsInvalid: a variable of the environment is wrong. Nothing was started.
    """
    _require_valid_settings()
    with hold(options.folder) as lock:
        try:
            asyncio.run(_run(options, lock, ready, say))
        except asyncio.CancelledError:
            return


def _require_valid_settings() -> None:
    """Checks the settings that the environment has. The stack itself makes those that are missing."""
    try:
        read_settings()
    except SettingsInvalid as invalid:
        if wrong := [problem for problem in invalid.problems if not problem.endswith(MISSING)]:
            raise SettingsInvalid(wrong) from None


async def _run(options: StackOptions, lock: int, ready: Callable[[RunningStack], None], say: Say) -> None:
    _cancel_on_signal()
    async with AsyncExitStack() as exits:
        # Made before the servers have data, so that a secret that is missing later was lost.
        secrets = _secrets(options.folder)
        servers = await _start_servers(exits, options, lock, say)
        environment = _environment(options, servers) | secrets
        await migrate(options.folder, environment)
        environment["DAYBOOK_API_KEY"] = api_key = await development_key(options.folder, environment)
        processes = await _start_processes(exits, options, environment, lock)
        if options.seed:
            await seed(environment["DAYBOOK_COMMAND_URL"], environment["DAYBOOK_QUERY_URL"], api_key)
        if not await wait_until_caught_up(environment["DAYBOOK_QUERY_URL"], api_key, CATCH_UP_SECONDS):
            say("the read models are still catching up: `daybook status` shows their positions")
        require_running(*processes)
        running = RunningStack(os.getpid(), environment)
        exits.callback(withdraw, options.folder)
        publish(options.folder, running)
        ready(running)
        await asyncio.gather(*(_keep(child, say) for child in (*servers.values(), *processes)))


def _cancel_on_signal() -> None:
    """Cancels this task on the first signal only, so that a second Ctrl-C does not interrupt the shutdown."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def end() -> None:
        for each in ENDING:
            loop.add_signal_handler(each, lambda: None)
        if task:
            task.cancel()

    for each in ENDING:
        loop.add_signal_handler(each, end)


async def _start_servers(exits: AsyncExitStack, options: StackOptions, lock: int, say: Say) -> dict[str, Server]:
    """Starts the servers that are not configured. Returns each under the name of the variable that would configure it."""
    for process, port in (("command", options.command_port), ("query", options.query_port)):
        if not port_is_free(port, options.host):
            raise StackError(
                f"port {port} of the {process} API is in use: free it, or choose another with --{process}-port"
                if port_is_free(0, options.host)
                else f"{options.host!r} is no address of this machine: choose another with --host"
            )
    servers = {
        variable: server(name, options.folder, inherit=[lock])
        for variable, (name, server) in SERVERS.items()
        if not os.environ.get(variable)
    }
    await require_answers({variable: os.environ[variable] for variable in SERVERS if variable not in servers})
    for engine, variable, server in STARTED_ENGINES:
        if engine in options.engines and not os.environ.get(variable) and not (engine == "sql" and _is_missing(server, say)):
            servers[variable] = server(engine, options.folder, inherit=[lock])
    exits.push_async_callback(stop_all, *servers.values())
    await start_all(*servers.values())
    return servers


def _is_missing(server: type[Server], say: Say) -> bool:
    """Says that SQL reporting is in a file, if the server for it is not installed."""
    try:
        server.require_installed()
    except StackError as missing:
        say(f"SQL reporting is in a SQLite file: {missing}")
        return True
    return False


def _environment(options: StackOptions, servers: Mapping[str, Server]) -> dict[str, str]:
    """Returns the variables for the processes of this stack: configured ones, and those of the servers started here."""
    urls = {variable: servers[variable].url if variable in servers else os.environ[variable] for variable in SERVERS}
    owner = os.environ.get("DAYBOOK_MIGRATION_DATABASE_URL") or urls["DAYBOOK_DATABASE_URL"]
    started = {
        variable: servers[variable].url if variable in servers else os.environ.get(variable, "")
        for _, variable, _ in STARTED_ENGINES
    }
    if "sql" in options.engines and not started["DAYBOOK_REPORTING_URL"]:
        started["DAYBOOK_REPORTING_URL"] = f"sqlite+aiosqlite:///{options.folder.resolve() / 'reports.sqlite'}"
    return {
        **started,
        "DAYBOOK_COMMAND_URL": local_url(options.host, options.command_port or free_port()),
        "DAYBOOK_QUERY_URL": local_url(options.host, options.query_port or free_port()),
        **urls,
        "DAYBOOK_MIGRATION_DATABASE_URL": owner,
        "DAYBOOK_SEAL_FILE": os.environ.get("DAYBOOK_SEAL_FILE") or str(options.folder.resolve() / "seals.jsonl"),
    }


def _secrets(folder: Path) -> dict[str, str]:
    """Returns the secrets of the stack. Those that are not configured are kept in files, so that they stay after a restart.

    Raises:
        StackError: the master key or the seal key was lost, and the folder has a ledger that was made with it.
    """
    ledger = folder / "postgres" / "data"
    given = os.environ.get
    return {
        "DAYBOOK_SECRET": given("DAYBOOK_SECRET") or keep_secret(folder / "cursors.secret"),
        "DAYBOOK_SEAL_KEY": given("DAYBOOK_SEAL_KEY") or keep_secret(folder / "seals.secret", new_seed, ledger),
        "DAYBOOK_MASTER_KEYS": given("DAYBOOK_MASTER_KEYS") or keep_secret(folder / "master.key", needed_by=ledger),
    }


async def _start_processes(
    exits: AsyncExitStack, options: StackOptions, environment: Mapping[str, str], lock: int
) -> tuple[Child, ...]:
    processes = (
        command_api(
            options.folder,
            _port(environment["DAYBOOK_COMMAND_URL"]),
            {**environment, "DAYBOOK_CORS_ORIGINS": _origins(environment["DAYBOOK_QUERY_URL"])},
            [lock],
            options.host,
        ),
        query_api(options.folder, _port(environment["DAYBOOK_QUERY_URL"]), environment, [lock], options.host),
        worker(options.folder, environment, [lock]),
    )
    exits.push_async_callback(stop_all, *processes)
    await start_processes(*processes)
    return processes


def _origins(query_url: str) -> str:
    """Returns the origins whose pages may send commands: configured ones, and the console under each of its names here."""
    configured = os.environ.get("DAYBOOK_CORS_ORIGINS", "")
    console = [query_url, f"http://localhost:{_port(query_url)}"]
    return ",".join(dict.fromkeys([*filter(None, configured.split(",")), *filter(is_origin, console)]))


def _port(url: str) -> int:
    return int(url.rpartition(":")[2])


async def _keep(child: Child, say: Say) -> None:
    """Restarts the child whenever it ends. The first restart is immediate; later ones come after growing pauses."""
    pause = 0.0
    while True:
        since = time.monotonic()
        await child.ended()
        if time.monotonic() - since > STEADY_SECONDS:
            pause = 0.0
        say(f"{child.name} ended ({child.outcome()}) and is started again; its log file is {child.log}")
        await asyncio.sleep(pause)
        pause = min(max(2 * pause, PAUSE_SECONDS_MIN), PAUSE_SECONDS_MAX)
        try:
            await child.start()
        except StackError as error:
            say(str(error))
