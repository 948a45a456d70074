"""Operators rebuild, pause, resume and roll back read models over HTTP, and retry and skip dead letters."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import httpx2
import pytest
import pytest_asyncio

import command_api.app
import query_api.app
from projector.operation_worker import OperationWorker
from shared.ids import new_id
from shared.log.projection_events import ProjectionEventSkipped
from shared.log.read import read_all
from shared.read_models import operations
from shared.read_models.operations import ENDED
from shared.settings import Settings
from shared.supervision import end_tasks, keep_running
from shared.web.problems import STATUS
from tests.harness.clients import client_of
from tests.harness.log import Book
from tests.harness.projecting import Ledger, eventually, open_ledger
from tests.projector.test_dead_letters import Three, letters, poisoned
from tests.query_api.test_query_openapi import conforms

pytestmark = pytest.mark.services

WHY = {"reason": "ticket 4711"}


@pytest_asyncio.fixture
async def ledger(settings: Settings) -> AsyncIterator[Ledger]:
    async with open_ledger(settings) as opened:
        yield opened


class Operator:
    """Asks both APIs as an operator."""

    def __init__(self, commands: httpx2.AsyncClient, queries: httpx2.AsyncClient) -> None:
        self._commands = commands
        self._queries = queries

    async def ask(self, path: str, why: Any = WHY) -> httpx2.Response:
        return await self._commands.post(f"/v1/projections/{path}", json=why)

    async def shown(self, path: str) -> dict[str, Any]:
        found: dict[str, Any] = (await self._queries.get(f"/v1/{path}")).json()
        return found

    async def ended(self, answer: httpx2.Response) -> dict[str, Any]:
        """The operation of this answer, when it has ended."""
        assert answer.status_code == 202, answer.text
        path = answer.headers["location"].partition("/v1/")[2]

        async def has_ended() -> bool:
            return (await self.shown(path))["status"] in ENDED

        await eventually(has_ended)
        return await self.shown(path)

    async def refusal(self, answer: httpx2.Response) -> tuple[int, str]:
        """The status and the code of a refused operation. On a busy machine it is refused after the answer."""
        if answer.is_success:
            code: str = (await self.ended(answer))["code"]
            return STATUS[code], code
        return answer.status_code, answer.json()["code"]


@asynccontextmanager
async def operator_of(ledger: Ledger) -> AsyncIterator[Operator]:
    async with (
        client_of(command_api.app.create_app(ledger.settings)) as commands,
        client_of(query_api.app.create_app(ledger.settings)) as queries,
    ):
        yield Operator(commands, queries)


@asynccontextmanager
async def operating(ledger: Ledger) -> AsyncIterator[None]:
    """Runs what does the operations, until the block ends. It looks so often that an operation can end between two lines."""
    hurried = ledger.settings.model_copy(update={"projector_look_ms": 5})
    working = keep_running("worker of operations", OperationWorker(ledger.stores, hurried).run)
    try:
        yield
    finally:
        await end_tasks(working)


async def test_an_operator_rebuilds_pauses_resumes_and_rolls_back(ledger: Ledger) -> None:
    head = await ledger.append(Book(seed=3).history(60))
    await ledger.build("balances", "users")
    before = (await ledger.live("balances")).number
    async with operator_of(ledger) as operator, operating(ledger):
        rebuilt = await operator.ended(await operator.ask("balances/rebuild"))
        assert (rebuilt["status"], rebuilt["requested_by"], rebuilt["reason"]) == ("done", "operator", "ticket 4711")
        assert rebuilt["events_done"] == rebuilt["events_total"] >= head
        after = (await ledger.live("balances")).number
        assert after > before

        paused = await operator.ask("balances/pause")
        assert (paused.status_code, paused.json()["status"]) == (202, "done"), "what is short is answered when it is done"
        assert (await operator.shown("projections/balances"))["state"] == "paused"
        for impossible in ("rebuild", "rollback"):
            refusal = await operator.refusal(await operator.ask(f"balances/{impossible}"))
            assert refusal == (409, "projection-paused"), impossible
        assert (await operator.ask("balances/resume")).json()["status"] == "done"

        assert (await operator.ended(await operator.ask("balances/rollback")))["status"] == "done"
        assert (await ledger.live("balances")).number == before
        assert await operator.refusal(await operator.ask("users/rollback")) == (409, "nothing-kept")
        listed = await operator.shown("operations?limit=2")
        assert [each["projection"] for each in listed["items"]] == ["users", "balances"]
        assert listed["next"]
        records = (await operator.shown("audit-records"))["items"]
        assert records[0]["act"] == "operation-requested"
        assert records[0]["data"] == {
            "operation_id": listed["items"][0]["id"], "projection": "users", "kind": "rollback", "reason": "ticket 4711",
        }  # fmt: skip
        assert records[0]["caller"]["principal"] == "operator"


async def test_a_wrong_request_asks_for_nothing(ledger: Ledger) -> None:
    await ledger.append([Book().create_user()])
    async with operator_of(ledger) as operator:
        for path, why, status in (
            ("nothing/rebuild", WHY, 404),
            ("reports/rebuild", WHY, 404),
            ("Users/rebuild", WHY, 422),
            ("users/rebuild", {}, 422),
            ("users/rebuild", {"reason": ""}, 422),
            ("users/rebuild", {"reason": "x" * 141}, 422),
            ("users/rebuild", {"reason": "a\nb"}, 422),
            ("users/rebuild", WHY | {"more": 1}, 422),
            ("users/dead-letters/0/skip", WHY, 422),
            ("users/dead-letters/1_0/skip", WHY, 422),
            ("users/dead-letters/99999999999999999999/skip", WHY, 422),
        ):
            answer = await operator.ask(path, why)
            assert answer.status_code == status, f"{path} {why}: {answer.text}"
        assert (await operator.shown("operations"))["items"] == []
        assert (await operator.shown("projections/nothing/dead-letters"))["code"] == "not-found"


@pytest.mark.slow
async def test_an_operation_waits_for_a_worker_and_excludes_others_of_its_read_model(ledger: Ledger) -> None:
    """A second rebuild would only disturb the first. A pause must be possible meanwhile, because it stops the build."""
    await ledger.append(Book(seed=3).history(60))
    await ledger.build("balances", "accounts")
    async with operator_of(ledger) as operator:
        waiting = await operator.ask("balances/rebuild")
        assert (waiting.status_code, waiting.json()["status"]) == (202, "waiting")
        for other in ("balances/rebuild", "balances/dead-letters/retry"):
            answer = await operator.ask(other)
            assert (answer.status_code, answer.json()["code"]) == (409, "operation-under-way"), other
        resuming, elsewhere = [await operator.ask(path) for path in ("balances/resume", "accounts/rebuild")]
        async with operating(ledger):
            for each in (waiting, resuming, elsewhere):
                assert (await operator.ended(each))["status"] == "done"


async def test_what_a_worker_left_is_done_by_the_next_one_but_no_roll_back(ledger: Ledger) -> None:
    """A rolled back read model that is rolled back once more is the wrong one again."""
    await ledger.append(Book(seed=3).history(60))
    await ledger.build("balances", "accounts")
    await ledger.rebuild("balances", "accounts")
    live = {name: (await ledger.live(name)).number for name in ("balances", "accounts")}
    asked = {"balances": "rollback", "accounts": "rebuild"}
    ids = {name: new_id() for name in asked}
    async with ledger.writer.begin() as connection:
        for name, kind in asked.items():
            assert await operations.request(connection, "main", ids[name], name, kind, None, "why", "operator")  # type: ignore[arg-type]
    async with ledger.stores.engine.begin() as connection:
        for operation in await operations.read_open(connection):
            await operations.note(connection, operation, 1, 2)
    async with operator_of(ledger) as operator, operating(ledger):

        async def have_ended() -> bool:
            return all(each["status"] in ENDED for each in (await operator.shown("operations"))["items"])

        await eventually(have_ended)
        left = await operator.shown(f"operations/{ids['balances']}")
        assert (left["status"], left["code"]) == ("failed", "store-unavailable")
        assert (await operator.shown(f"operations/{ids['accounts']}"))["status"] == "done"
    assert (await ledger.live("balances")).number == live["balances"]
    assert (await ledger.live("accounts")).number > live["accounts"]


@pytest.mark.slow
async def test_dead_letters_are_listed_skipped_and_retried(ledger: Ledger) -> None:
    await poisoned(ledger, "accounts")
    async with operator_of(ledger) as operator, operating(ledger):
        shown = await operator.shown("projections/accounts/dead-letters")
        conforms("list_projection_dead_letters", shown)
        [letter] = shown["items"]
        assert (letter["event_position"], letter["type"]) == (Three.POISON, "FundsDeposited")

        healthy = await operator.ask(f"accounts/dead-letters/{Three.POISON - 1}/skip")
        assert await operator.refusal(healthy) == (404, "not-found"), "only a dead letter can be skipped"
        assert await skips(ledger) == []

        skipped = await operator.ended(await operator.ask(f"accounts/dead-letters/{Three.POISON}/skip"))
        assert (skipped["status"], skipped["event_position"]) == ("done", Three.POISON)
        assert await skips(ledger) == [(Three.POISON, "ticket 4711", "operator")]
        assert await letters(ledger, "accounts") == []
        assert (await operator.shown("projections/accounts/dead-letters"))["items"] == []
        assert await operator.refusal(await operator.ask("accounts/dead-letters/retry")) == (404, "not-found")


async def skips(ledger: Ledger) -> list[tuple[int, str, str]]:
    async with ledger.stores.engine.connect() as connection:
        recorded = await read_all(connection, ledger.ledger_id, 0)
    found = [(each.event, each.metadata) for each in recorded]
    return [
        (event.position, event.reason, metadata["principal"])
        for event, metadata in found
        if isinstance(event, ProjectionEventSkipped)
    ]


async def test_an_operation_is_begun_only_once(ledger: Ledger) -> None:
    """It ends between two looks, and a row that was read before its end must not begin it again."""
    await ledger.append(Book(seed=3).history(30))
    await ledger.build("balances")
    numbers = [(await ledger.live("balances")).number]
    async with operator_of(ledger) as operator, operating(ledger):
        for _ in range(5):
            assert (await operator.ended(await operator.ask("balances/rebuild")))["status"] == "done"
            numbers.append((await ledger.live("balances")).number)
    assert [later - earlier for earlier, later in pairwise(numbers)] == [1] * 5
