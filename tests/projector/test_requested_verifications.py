"""Operators ask for the verification of a ledger over HTTP, see how far it is and what it found, and cancel it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from sqlalchemy import text

import command_api.app
import query_api.app
from projector.verification_worker import VerificationWorker, check_of
from shared.proof.verifications import Check
from shared.settings import Settings
from shared.stores.postgres import open_postgres_as_owner
from shared.supervision import end_tasks, keep_running
from tests.harness.clients import client_of
from tests.harness.log import Book
from tests.harness.projecting import Ledger, eventually, open_ledger
from tests.harness.running import environment_of
from tests.query_api.test_query_openapi import conforms

pytestmark = [pytest.mark.services, pytest.mark.slow]

WHY = {"reason": "ticket 4711"}
ENDED = {"done", "failed", "cancelled"}


@pytest_asyncio.fixture
async def ledger(settings: Settings) -> AsyncIterator[Ledger]:
    async with open_ledger(settings) as opened:
        yield opened


class Verifier:
    """Asks both APIs as an operator."""

    def __init__(self, commands: httpx2.AsyncClient, queries: httpx2.AsyncClient) -> None:
        self.commands = commands
        self.queries = queries

    async def ask(self) -> httpx2.Response:
        return await self.commands.post("/v1/verifications", json=WHY)

    async def cancel(self, verification_id: str) -> httpx2.Response:
        return await self.commands.post(f"/v1/verifications/{verification_id}/cancel")

    async def shown(self, verification_id: str) -> dict[str, Any]:
        found: dict[str, Any] = (await self.queries.get(f"/v1/verifications/{verification_id}")).json()
        return found

    async def when(self, verification_id: str, *statuses: str) -> dict[str, Any]:
        async def is_so() -> bool:
            return (await self.shown(verification_id))["status"] in statuses

        await eventually(is_so)
        return await self.shown(verification_id)

    async def ended(self) -> dict[str, Any]:
        """Asks for a verification, and returns it when it has ended."""
        asked = await self.ask()
        assert asked.status_code == 202, asked.text
        return await self.when(asked.json()["id"], *ENDED)


@asynccontextmanager
async def verifier_of(ledger: Ledger) -> AsyncIterator[Verifier]:
    async with (
        client_of(command_api.app.create_app(ledger.settings)) as commands,
        client_of(query_api.app.create_app(ledger.settings)) as queries,
    ):
        yield Verifier(commands, queries)


@asynccontextmanager
async def verifying(ledger: Ledger, *command: str) -> AsyncIterator[None]:
    """Runs what does the verifications until the block ends, with a command of the test if there is one."""
    hurried = ledger.settings.model_copy(update={"projector_look_ms": 5})
    worker = (
        VerificationWorker(ledger.stores.engine, hurried, command)
        if command
        else VerificationWorker(ledger.stores.engine, hurried)
    )
    working = keep_running("worker of verifications", worker.run)
    try:
        yield
    finally:
        await end_tasks(working)


def shell(script: str) -> Sequence[str]:
    return ("sh", "-c", script)


async def test_a_ledger_is_verified_and_a_difference_is_told_without_its_values(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command that runs is the one of a shell, with the settings of the worker."""
    for name, value in environment_of(ledger.settings).items():
        monkeypatch.setenv(name, value)
    await ledger.append(Book(seed=3).history(60))
    await ledger.build("balances")
    async with verifier_of(ledger) as verifier, verifying(ledger):
        first = await verifier.ended()
        assert (first["status"], first["reason"], first["requested_by"]) == ("done", "ticket 4711", "operator"), first
        verdicts = {check["name"]: check["verdict"] for check in first["checks"]}
        assert [*verdicts][:8] == ["schema", "log", "seals", "events", "replies", "people", "audit", "streams"]
        assert verdicts["balances"] == "ok"
        conforms("get_verification", first)
        async with open_postgres_as_owner(ledger.settings) as owner, owner.begin() as connection:
            await connection.execute(
                text("UPDATE streams SET version = 4711 WHERE stream_id = (SELECT max(stream_id) FROM streams)")
            )
        second = await verifier.ended()
    assert (second["status"], second["verdict"]) == ("done", "different")
    [wrong] = [check for check in second["checks"] if check["name"] == "streams"]
    assert wrong["verdict"] == "different"
    assert "4711" not in wrong["text"]


async def test_one_verification_of_a_ledger_is_open_at_a_time_and_is_cancelled(ledger: Ledger, tmp_path: Path) -> None:
    """The process ends with it, and the worker goes on to the next one."""
    await ledger.append([Book().create_user()])
    progress = '{"task": "verify log", "done": 3, "total": 7, "events_per_second": 1, "seconds_left": 4}'
    script = f"echo $$ > {tmp_path}/pid; echo 'log  ok  3 events'; echo '{progress}' >&2; sleep 60"
    async with verifier_of(ledger) as verifier:
        asked = (await verifier.ask()).json()
        assert asked["status"] == "waiting"
        other = await verifier.ask()
        assert (other.status_code, other.json()["code"]) == (409, "operation-under-way")
        async with verifying(ledger, *shell(script)):

            async def has_progress() -> bool:
                return bool((await verifier.shown(asked["id"]))["events_total"])

            await eventually(has_progress)
            found = await verifier.shown(asked["id"])
            assert (found["status"], found["step"], found["events_done"], found["events_total"]) == ("running", "log", 3, 7)
            assert found["checks"] == [{"name": "log", "verdict": "ok", "text": "3 events"}]
            assert found["verdict"] is None
            for _ in range(2):
                assert (await verifier.cancel(asked["id"])).json()["status"] == "cancelled"
            process = Path("/proc", (tmp_path / "pid").read_text().strip())
            await eventually(lambda: asyncio.to_thread(lambda: not process.exists()))
            await verifier.when((await verifier.ask()).json()["id"], "running")
        records = (await verifier.queries.get("/v1/audit-records")).json()["items"]
        acts = [(each["act"], each["data"].get("verification_id")) for each in reversed(records)][1:3]
        assert acts == [("verification-requested", asked["id"]), ("verification-cancelled", asked["id"])]
        assert (await verifier.shown(asked["id"]))["status"] == "cancelled"


async def test_a_command_that_fails_makes_the_verification_fail(ledger: Ledger) -> None:
    await ledger.append([Book().create_user()])
    async with verifier_of(ledger) as verifier, verifying(ledger, *shell("echo 'daybook: a secret' >&2; exit 1")):
        found = await verifier.ended()
        assert (found["status"], found["verdict"]) == ("failed", None)
        assert "secret" not in found["outcome"]
        assert "ended with 1" in found["outcome"]


async def test_what_a_worker_left_is_begun_again_by_the_next_one(ledger: Ledger) -> None:
    await ledger.append([Book().create_user()])
    async with verifier_of(ledger) as verifier:
        asked = (await verifier.ask()).json()["id"]
        async with verifying(ledger, *shell("sleep 60")):
            await verifier.when(asked, "running")
        async with verifying(ledger, *shell("echo 'log  PARKED  3 events'; exit 4")):
            found = await verifier.when(asked, *ENDED)
        assert (found["status"], found["verdict"]) == ("done", "dead-letters")


async def test_a_wrong_request_asks_for_nothing(ledger: Ledger) -> None:
    await ledger.append([Book().create_user()])
    async with verifier_of(ledger) as verifier:
        for body in ({}, {"reason": ""}, {"reason": "x" * 141}, WHY | {"more": 1}):
            assert (await verifier.commands.post("/v1/verifications", json=body)).status_code == 422
        assert (await verifier.cancel("0198c5a0-0000-7000-8000-000000000001")).json()["code"] == "not-found"
        assert (await verifier.queries.get("/v1/verifications")).json()["items"] == []


def test_lines_of_the_command_become_checks() -> None:
    assert check_of("audit        ok  7 records") == Check("audit", "ok", "7 records")
    different = check_of("streams      DIFFERENT  stream account-1, version: expected 3, found 'a secret'")
    assert different == Check("streams", "different", "stream account-1, version: `daybook verify` in a shell says what differs")
    assert check_of("daybook: something else") is None
    assert check_of("") is None
