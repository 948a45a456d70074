"""`daybook dev`, `down` and `env`: the whole of Daybook on this machine, for development."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final

import httpx2
import typer
from rich.console import Console
from rich.table import Table

from dev.children import alive
from dev.folder import DATA_FOLDER, Running, find_running, held_by
from dev.seed import ADA, ADAS_EUROS
from dev.stack import Wishes, run
from shared.errors import StackError

DOWN_SECONDS: Final = 20.0
LOOK_SECONDS: Final = 0.1

DataDir = Annotated[Path, typer.Option(envvar="DAYBOOK_DATA_DIR", help="Where data and logs lie.", file_okay=False)]
Port = Annotated[int, typer.Option(help="On 127.0.0.1; 0 lets the system choose.", min=0, max=65_535)]


def dev(
    *,
    detach: Annotated[bool, typer.Option("--detach", help="Return when it is ready; `daybook down` ends it.")] = False,
    data_dir: DataDir = DATA_FOLDER,
    command_port: Port = Wishes.command_port,
    query_port: Port = Wishes.query_port,
    seed: Annotated[bool, typer.Option(help="Put a little money into an empty ledger.")] = Wishes.seed,
) -> None:
    """Start Daybook with everything that it needs and that is not configured.

    Example: daybook dev --detach --command-port 8100 --query-port 8101
    """
    wishes = Wishes(data_dir.absolute(), command_port, query_port, seed)
    if detach:
        show(_start_detached(wishes), wishes.folder)
    else:
        run(wishes, lambda running: show(running, wishes.folder), lambda line: typer.echo(f"daybook: {line}", err=True))


def down(data_dir: DataDir = DATA_FOLDER) -> None:
    """End the running stack and wait until all of it has gone.

    Example: daybook down
    """
    folder = data_dir.absolute()
    supervisor = held_by(folder)
    if supervisor is None:
        typer.echo(f"nothing runs on {folder}")
        return
    with suppress(ProcessLookupError):  # it was killed, and its servers are about to follow
        os.kill(supervisor, signal.SIGTERM)
    end = time.monotonic() + DOWN_SECONDS
    while held_by(folder) is not None or alive(supervisor):
        if time.monotonic() > end:
            raise StackError(f"process {supervisor} was told to end and still has {folder}")
        time.sleep(LOOK_SECONDS)


def env(data_dir: DataDir = DATA_FOLDER) -> None:
    """Print the shell exports that lead to the running stack.

    Example: eval "$(daybook env)" && curl "$DAYBOOK_QUERY_URL/v1/stats"
    """
    running = find_running(data_dir.absolute())
    if running is None:
        raise StackError(f"nothing runs on {data_dir.absolute()}; `daybook dev` starts it")
    for variable, value in running.environment.items():
        typer.echo(f"export {variable}={shlex.quote(value)}")


def show(running: Running, folder: Path) -> None:
    command_url, query_url = (running.environment[f"DAYBOOK_{api}_URL"] for api in ("COMMAND", "QUERY"))
    table = Table("Daybook", "is ready")
    table.add_row("command API", command_url)
    table.add_row("query API", query_url)
    table.add_row("documentation", f"{command_url}/docs\n{query_url}/docs")
    table.add_row("data and logs", str(folder))
    Console(soft_wrap=True).print(table)
    for line in curl_lines(command_url, query_url):
        typer.echo(f"\n{line}")
    typer.echo()


def curl_lines(command_url: str, query_url: str) -> list[str]:
    """Create, transfer, read back. Empty when the ledger does not hold the money that we seed."""
    funds = httpx2.get(f"{query_url}/v1/accounts/{ADAS_EUROS}/balance", trust_env=False)
    if not funds.is_success:
        return []
    account_id = str(uuid.uuid4())
    # The account is one event and the transfer another.
    position = funds.json()["position"] + 2
    account = {"id": account_id, "owner_id": ADA, "currency": "EUR"}
    transfer = {"from_account_id": ADAS_EUROS, "to_account_id": account_id, "amount": 1250, "currency": "EUR"}
    return [
        _curl_post(f"{command_url}/v1/accounts", f"open-{account_id}", account),
        _curl_post(f"{command_url}/v1/transfers", f"fund-{account_id}", transfer),
        f"curl -s -H 'Daybook-Min-Position: {position}' {query_url}/v1/accounts/{account_id}/balance",
    ]


def _curl_post(url: str, key: str, body: Mapping[str, object]) -> str:
    return f"curl -s {url} -H 'Content-Type: application/json' -H 'Idempotency-Key: {key}' -d '{json.dumps(body)}'"


def _start_detached(wishes: Wishes) -> Running:
    """The same command again as a session of its own, which a closed terminal does not end."""
    wishes.folder.mkdir(parents=True, exist_ok=True)
    log = wishes.folder / "stack.log"
    command = [
        *(sys.executable, "-m", "cli.app", "dev", "--data-dir", str(wishes.folder)),
        *("--command-port", str(wishes.command_port), "--query-port", str(wishes.query_port)),
        "--seed" if wishes.seed else "--no-seed",
    ]
    with log.open("ab") as out:
        said_before = out.tell()
        supervisor = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
    try:
        while supervisor.poll() is None:
            running = find_running(wishes.folder)
            if running and running.pid == supervisor.pid:
                return running
            time.sleep(LOOK_SECONDS)
    except KeyboardInterrupt:
        supervisor.terminate()
        supervisor.wait()
        raise
    said = log.read_bytes()[said_before:].decode(errors="replace")
    raise StackError(said.strip().removeprefix("daybook: "))
