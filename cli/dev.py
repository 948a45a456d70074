"""`daybook dev`, `down` and `env`: start, end and show a complete Daybook on this machine, for development."""

import shlex
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

import typer

from cli.tables import print_table
from dev.data_folder import DATA_FOLDER, RunningStack, find_running
from dev.detached_stack import end_stack, start_detached
from dev.example_requests import curl_lines
from dev.stack import ENGINES, STACK_VARIABLES, StackOptions, run
from shared.errors import StackError
from shared.http_values import PORT_MAX

DataDir = Annotated[Path, typer.Option(envvar="DAYBOOK_DATA_DIR", help="The folder for data and log files.", file_okay=False)]
CommandPort = Annotated[
    int, typer.Option(envvar="DAYBOOK_COMMAND_PORT", help="The port of the command API. 0 takes a free one.", min=0, max=PORT_MAX)
]
QueryPort = Annotated[
    int, typer.Option(envvar="DAYBOOK_QUERY_PORT", help="The port of the query API. 0 takes a free one.", min=0, max=PORT_MAX)
]


def _host(value: str) -> str:
    try:
        return str(ip_address(value))
    except ValueError:
        raise typer.BadParameter("give an IP address, such as 127.0.0.1 or 0.0.0.0") from None


def _engines(value: str) -> frozenset[str]:
    named = frozenset(each.strip() for each in value.split(",") if each.strip())
    if unknown := sorted(named - {*ENGINES}):
        raise typer.BadParameter(f"there is no {unknown[0]!r}; there is {', '.join(ENGINES)}", param_hint="--engines")
    return named


def dev(
    *,
    detach: Annotated[bool, typer.Option("--detach", help="Return when Daybook is ready. `daybook down` ends it.")] = False,
    data_dir: DataDir = DATA_FOLDER,
    command_port: CommandPort = StackOptions.command_port,
    query_port: QueryPort = StackOptions.query_port,
    host: Annotated[
        str, typer.Option(envvar="DAYBOOK_HOST", help="The IP address that both APIs listen on.", callback=_host)
    ] = StackOptions.host,
    engines: Annotated[str, typer.Option(help=f"Optional stores to use, separated by commas: {', '.join(ENGINES)}.")] = "",
    seed: Annotated[
        bool, typer.Option(help="If the ledger is empty, create example users, accounts and transfers.")
    ] = StackOptions.seed,
) -> None:
    """Start Daybook, and each database server that no environment variable configures.

    Example: daybook dev --detach --command-port 8100 --query-port 8101
    """
    if command_port == query_port != 0:
        raise typer.BadParameter(f"both APIs have port {query_port}: give them different ports", param_hint="--query-port")
    options = StackOptions(data_dir.absolute(), command_port, query_port, seed, host, _engines(engines))
    if detach:
        _print_stack(start_detached(options), options.folder)
    else:
        run(options, lambda running: _print_stack(running, options.folder), lambda line: typer.echo(f"daybook: {line}", err=True))


def down(data_dir: DataDir = DATA_FOLDER) -> None:
    """End the development stack, and wait until all its processes have ended.

    Example: daybook down
    """
    folder = data_dir.absolute()
    if not end_stack(folder):
        typer.echo(f"no stack runs on {folder}")


def env(
    *,
    data_dir: DataDir = DATA_FOLDER,
    unset: Annotated[bool, typer.Option("--unset", help="Print the line that removes these variables instead.")] = False,
) -> None:
    """Print shell exports of the variables of the running development stack.

    After `daybook down`, remove them from the shell with --unset. Otherwise the next `daybook dev` looks for the ended servers.

    Example: eval "$(daybook env)" && curl "$DAYBOOK_QUERY_URL/v1/stats"
    """
    if unset:
        typer.echo(f"unset {' '.join(STACK_VARIABLES)}")
        return
    running = find_running(data_dir.absolute())
    if running is None:
        raise StackError(f"no stack runs on {data_dir.absolute()}; `daybook dev` starts one")
    for variable, value in running.environment.items():
        typer.echo(f"export {variable}={shlex.quote(value)}")


def _print_stack(running: RunningStack, folder: Path) -> None:
    api_key = running.environment["DAYBOOK_API_KEY"]
    command_url, query_url = (running.environment[f"DAYBOOK_{api}_URL"] for api in ("COMMAND", "QUERY"))
    rows = (
        ("command API", command_url),
        ("query API", query_url),
        ("console", f"{query_url}/console"),
        ("documentation", f"{command_url}/docs\n{query_url}/docs"),
        ("API key", f"{api_key} (all scopes; `daybook env` exports it)"),
        ("data and logs", folder),
    )
    print_table(("Daybook", "is ready"), rows)
    for line in curl_lines(command_url, query_url, api_key):
        typer.echo(f"\n{line}")
    typer.echo()
