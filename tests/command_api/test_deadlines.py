"""A command gets its answer within one deadline, which covers all look-ups before the command too."""

import asyncio
import uuid

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from command_api.domain.account import OpenAccount
from command_api.writer.command_request import CommandRequest, Outcome
from command_api.writer.ledger_writer import CommandHandler
from shared.errors import Rejection, StoreUnavailable
from shared.settings import Settings
from tests.harness.clients import command_api, served

pytestmark = pytest.mark.services

NEW_USER = {"name": "Ada", "email": "ada@example.com"}


class Unread:
    """A reply format whose replies nobody reads."""

    def accepted(self, _: Outcome) -> tuple[int, bytes]:
        return 201, b"{}"

    def rejected(self, _: Rejection) -> tuple[int, bytes]:
        return 409, b"{}"


@pytest.mark.slow
@pytest.mark.parametrize("table", ["api_keys", "log_heads", "person_keys"])
async def test_each_look_up_before_a_command_counts_into_its_deadline(settings: Settings, table: str) -> None:
    """The caller's key, the ledger and its pepper are looked up first. Here PostgreSQL would let these wait for a minute."""
    patient = {"database_statement_timeout_ms": 60_000, "database_lock_timeout_ms": 60_000, "command_deadline_ms": 1_000}
    blocker = await asyncpg.connect(settings.database_url, ssl=False)
    try:
        async with command_api(settings.model_copy(update=patient), is_patient=False) as api:
            transaction = blocker.transaction()
            await transaction.start()
            await blocker.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            try:
                async with asyncio.timeout(120):
                    answer = await api.post("/v1/users", NEW_USER, idempotency_key="k")
            finally:
                await transaction.rollback()
            assert (answer.status_code, answer.json()["code"]) == (503, "store-unavailable")
            assert "retry-after" in answer.headers
            assert (await served(lambda: api.post("/v1/users", NEW_USER, idempotency_key="k"))).status_code == 201
    finally:
        await blocker.close()


async def test_a_command_whose_time_was_used_up_by_look_ups_is_not_recorded(engine: AsyncEngine, settings: Settings) -> None:
    handler = CommandHandler(engine, settings, lambda _: None)
    await handler.pepper("main")  # from now on, the handler needs no look-up for the ledger
    command = OpenAccount(id=str(uuid.uuid4()), owner_id=str(uuid.uuid4()), currency="EUR")
    request = CommandRequest(command=command, reply_format=Unread(), metadata={}, idempotency_key="k")
    with pytest.raises(StoreUnavailable):
        await handler.handle("main", [request], asyncio.get_running_loop().time() + 0.000_001)
    await handler.close()
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM idempotency_keys")) == 0
