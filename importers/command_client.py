"""Posts many commands to the command API, and retries each until there is an answer. Idempotency keys make the retries safe."""

import asyncio
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Any, Final, NamedTuple

import httpx2

from importers.book import Place
from shared.errors import OperatorError, StoreUnavailable
from shared.progress import CountDone

ATTEMPTS_MAX: Final = 40
PAUSE_SECONDS: Final = 0.1
PAUSE_SECONDS_MAX: Final = 2
RETRY_AFTER_SECONDS_MAX: Final = 60
TIMEOUT_SECONDS: Final = 30
RETRIED: Final = {HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS}


class PostedCommand(NamedTuple):
    """A command as an HTTP request: path, idempotency key and body; and the place in the files that it comes from."""

    path: str
    idempotency_key: str
    body: dict[str, Any]
    place: Place


Stages = list[list[list[PostedCommand]]]
"""Stages run one after another. A stage is a list of chains, which run in parallel. A chain is a list of commands in order."""


class ImportFailed(OperatorError):
    """The import stopped, because a command was rejected."""

    code = "import-failed"


async def post_commands(
    command_url: str,
    api_key: str,
    stages: Stages,
    concurrency: int,
    count_done: CountDone,
    rehearsals: Sequence[PostedCommand] = (),
) -> int:
    """Posts all commands, with `concurrency` requests at once. Returns how many were new; the others were recorded before.

    First, dry runs of `rehearsals` show whether the ledger takes their currencies. If not, nothing is recorded.

    Raises:
        ImportFailed: a command was rejected. The same import can be run again.
        StoreUnavailable: the command API did not answer. The same import can be run again.
    """
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    limits = httpx2.Limits(max_connections=concurrency)
    new = 0
    async with httpx2.AsyncClient(base_url=command_url, headers=headers, limits=limits, timeout=TIMEOUT_SECONDS) as client:
        for command in rehearsals:
            await _rehearse(client, command)
        for stage in stages:
            try:
                new += await _post_stage(client, iter(stage), concurrency, count_done)
            except ExceptionGroup as failures:
                if failed := failures.subgroup((ImportFailed, StoreUnavailable)):
                    raise failed.exceptions[0] from None  # the first one ended the other tasks
                raise
    return new


async def _rehearse(client: httpx2.AsyncClient, command: PostedCommand) -> None:
    rehearsal = command._replace(path=f"{command.path}?dry_run=true")
    code, detail = _problem(await _answer(client, rehearsal, command.idempotency_key))
    if code == "currency-unknown":
        raise ImportFailed(f"{_where(command)}: {detail}; nothing was imported")


async def _post_stage(
    client: httpx2.AsyncClient, chains: Iterator[list[PostedCommand]], concurrency: int, count_done: CountDone
) -> int:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_post_chains(client, chains, count_done)) for _ in range(concurrency)]
    return sum(task.result() for task in tasks)


async def _post_chains(client: httpx2.AsyncClient, chains: Iterator[list[PostedCommand]], count_done: CountDone) -> int:
    """Posts chains from the iterator until it is empty, and returns how many commands were new. All tasks share the iterator."""
    new = 0
    for chain in chains:
        for command in chain:
            new += await _post(client, command)
            count_done(1)
    return new


async def _post(client: httpx2.AsyncClient, command: PostedCommand) -> bool:
    """Posts a command until it is recorded. Returns True if it was new, False if it was recorded before.

    A rejection is stored under its key for ever. So if an earlier run was rejected, the command is decided again with a next key.
    The id of what it makes is always the same, so it cannot be recorded twice.
    """
    key, runs = command.idempotency_key, 1
    while True:
        response = await _answer(client, command, key)
        replayed = "Idempotency-Replayed" in response.headers
        if response.is_success:
            return not replayed
        code, detail = _problem(response)
        if code == "id-taken":  # by a run with another API key, or before something changed that is left as it is
            return False
        if not replayed:
            raise ImportFailed(f"{_where(command)}: {detail}; correct it, and run the same import again to complete it")
        runs += 1
        key = f"{command.idempotency_key}:{runs}"


async def _answer(client: httpx2.AsyncClient, command: PostedCommand, key: str) -> httpx2.Response:
    """Sends a request until there is an answer that is not a 503 or a 429."""
    for attempt in range(ATTEMPTS_MAX):
        pause = min(PAUSE_SECONDS * 2**attempt, PAUSE_SECONDS_MAX)
        try:
            response = await client.post(command.path, json=command.body, headers={"Idempotency-Key": key})
        except httpx2.TransportError:
            pass
        else:
            if response.status_code not in RETRIED:
                return response
            asked = response.headers.get("Retry-After", "")
            if asked.isdecimal():
                pause = max(pause, min(int(asked), RETRY_AFTER_SECONDS_MAX))
        await asyncio.sleep(pause)
    raise StoreUnavailable(f"the command API at {client.base_url} does not answer; start it, and run the same import again")


def _where(command: PostedCommand) -> str:
    return f"{command.place.file}, row {command.place.row}"


def _problem(response: httpx2.Response) -> tuple[str, str]:
    """Returns the code and the reason of a rejection. Another server than the command API may have answered anything."""
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict) or not isinstance(body.get("code"), str):
        return "", f"the command API answered {response.status_code}"
    code = body["code"]
    if code == "idempotency-key-reused":
        return code, "this transaction was imported before with other values"
    errors = body.get("errors")
    return code, f"{body.get('detail') or code} ({response.status_code} {code})" + (f" {errors}" if errors else "")
