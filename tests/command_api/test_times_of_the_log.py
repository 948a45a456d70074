"""The times in the log come from PostgreSQL's clock, whatever the clock of a command API says."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

import command_api
from command_api.app import create_app
from command_api.domain.transfer import Deposit
from command_api.writer.command_request import CommandRequest, Outcome, Reply
from command_api.writer.measurements import WriterMeasurements
from command_api.writer.transaction import BatchTransaction
from shared.errors import Rejection
from shared.ids import new_id
from shared.log.heads import READ_RECORDED
from shared.privacy.person_keys import PersonKeys
from shared.settings import Settings
from shared.stores.database_clock import DatabaseClock
from tests.harness.clients import Commands, client_of
from tests.harness.log import Book, append

DAY_SECONDS = 86_400


class Monotonic:
    """A clock that the test turns."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Recorded:
    """Replies with 201, and with 409 to a rejection."""

    def accepted(self, _: Outcome) -> tuple[int, bytes]:
        return 201, b"{}"

    def rejected(self, _: Rejection) -> tuple[int, bytes]:
        return 409, b"{}"


def test_a_database_clock_goes_on_from_the_time_that_was_told() -> None:
    monotonic, told = Monotonic(), datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
    clock = DatabaseClock(monotonic)
    assert clock.now() is None
    clock.set(told)
    monotonic.now += 1.5
    assert clock.now() == told + timedelta(seconds=1.5)


def test_what_decides_and_records_reads_no_clock_of_its_machine() -> None:
    folder = Path(command_api.__file__).parent
    files = [*(folder / "writer").rglob("*.py"), *(folder / "domain").rglob("*.py")]
    assert files
    assert [file for file in files if "datetime.now(" in file.read_text() or "time.time(" in file.read_text()] == []


@pytest.mark.services
@pytest.mark.parametrize("wrong_seconds", [DAY_SECONDS, -DAY_SECONDS])
async def test_a_writer_whose_time_is_a_day_wrong_stamps_no_event_ahead_of_postgres(
    engine: AsyncEngine, settings: Settings, wrong_seconds: int
) -> None:
    """Before, one process a day ahead made all processes give their events one frozen time for a day."""
    book, monotonic = Book(), Monotonic()
    account = book.open_account(book.new_id())
    await append(engine, [account])
    transaction = BatchTransaction("main", engine, settings, PersonKeys(settings), DatabaseClock(monotonic), WriterMeasurements())
    ended = asyncio.get_running_loop().create_future()
    ended.set_result(None)

    async def deposit() -> None:
        command = Deposit(id=new_id(), account_id=account.account_id, amount=1, currency=account.currency)
        request = CommandRequest(command=command, reply_format=Recorded(), metadata={})
        [verdict] = (await transaction.record([request], ended, lambda: None)).verdicts
        assert isinstance(verdict, Reply)
        assert verdict.status == 201

    for wrong in (0, 0, wrong_seconds, 0, 0):
        monotonic.now += wrong
        await deposit()
    await transaction.release()
    async with engine.connect() as connection:
        times = list(await connection.scalars(text("SELECT recorded_at FROM events ORDER BY position")))
        now = await connection.scalar(text("SELECT clock_timestamp()"))
    assert times == sorted(times)
    assert now is not None
    assert times[-1] <= now
    assert len(set(times[-2:])) == 2, "time passes between the events after the wrong one"


@pytest.mark.services
async def test_a_command_that_is_rejected_does_not_move_the_time_of_the_head(engine: AsyncEngine, settings: Settings) -> None:
    """The head has the time of the last event, as `daybook verify` expects, also if only a rejection was stored after it."""
    async with client_of(create_app(settings)) as client:
        api = Commands(client)
        payer, payee = await api.account(balance=1), await api.account()
        assert (await api.transfer(payer, payee, 2)).status_code == 409
    async with engine.connect() as connection:
        [(position, of_head, of_event)] = await connection.execute(READ_RECORDED, {"ledger_id": "main"})
        [(replies,)] = await connection.execute(text("SELECT count(*) FROM idempotency_keys WHERE status = 409"))
    assert (position, of_head, replies) == (5, of_event, 1)
