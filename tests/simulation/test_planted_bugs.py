"""Shows that the simulation finds bugs: each test plants one, and the first hundred or so histories must break.

What is patched here is the bug. The histories and their checks are those of `test_simulation`.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import pytest

from command_api.domain.account import AccountState
from command_api.domain.command import States
from command_api.domain.schedule import RunSchedule, ScheduleState
from command_api.domain.stream_folds import at_moment
from command_api.domain.transfer import TransferFunds
from command_api.writer import basis, batch, ledger_writer
from command_api.writer.command_request import CommandRequest, Reply
from command_api.writer.handover import HandedBackError, WriterLink
from command_api.writer.ledger_writer import LedgerWriter, PendingCommand
from projector.sinks.protocols import Step
from shared.log.event_struct import ScheduledRun
from shared.log.events import Event
from shared.log.streams import schedule_stream
from shared.read_models.generations import Generation
from tests.simulation.histories import run_history
from tests.simulation.memory_postgres import MemoryDriver
from tests.simulation.memory_read_models import MemorySink, StoredGeneration
from tests.simulation.money_rules import WrongError
from tests.simulation.world import Plant

pytestmark = pytest.mark.long

SEEDS: Final = 200


def found(plant: Plant | None = None, *, has_workers: bool = False, has_handover: bool = False, reason: str = "") -> str:
    """Runs histories until one breaks, for a reason that has this text, and returns the reason."""
    for seed in range(1, SEEDS + 1):
        try:
            run_history(seed, plant, has_workers=has_workers, has_handover=has_handover)
        except WrongError as wrong:
            if reason in str(wrong):
                return str(wrong)
    return "nothing"


class CheckpointFirstSink(MemorySink):
    """Moves the checkpoint, and writes the data with a request of its own afterwards."""

    async def apply(self, generation: Generation, step: Step, changes: Any) -> bool:
        def move() -> bool:
            if self.may_apply(generation, step):
                self.move_checkpoint(generation, step)
                return True
            return False

        if not await self.store.ask(move):
            return False
        await self.store.ask(lambda: self.write(generation, changes))
        return True


def test_a_checkpoint_before_its_data_is_found() -> None:
    # Some histories never come to rest, because the read model has lost what is due. Others end with a wrong read model.
    reason = "is not the fold of the log"
    assert reason in found(Plant(sink=CheckpointFirstSink), has_workers=True, reason=reason)


class DataFirstSink(MemorySink):
    """Writes the data, and moves the checkpoint with a request of its own afterwards, so that a batch may come twice."""

    async def apply(self, generation: Generation, step: Step, changes: Any) -> bool:
        if not await self.store.ask(lambda: self.may_apply(generation, step)):
            return False
        await self.store.ask(lambda: self.write(generation, changes))
        await self.store.ask(lambda: self.move_checkpoint(generation, step))
        return True


def test_data_that_may_be_written_twice_are_found() -> None:
    reason = "is not the fold of the log"
    assert reason in found(Plant(sink=DataFirstSink), has_workers=True, reason=reason)


class BlindSwitchSink(MemorySink):
    """Makes a generation live although it is behind."""

    def is_behind(self, built: StoredGeneration, live: StoredGeneration) -> bool:  # noqa: ARG002
        return False


def test_a_switch_to_a_generation_that_is_behind_is_found() -> None:
    assert "went back from" in found(Plant(sink=BlindSwitchSink), has_workers=True)


async def _finds_nothing(*_: Any) -> dict[tuple[str, str], Any]:
    return {}


def test_a_retry_without_the_look_up_of_its_key_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(basis, "find_stored_replies", _finds_nothing)
    assert "got two replies" in found(Plant(unique_keys=False))


def test_a_retry_without_the_look_up_of_its_key_never_gets_its_reply_although_keys_are_unique(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(basis, "find_stored_replies", _finds_nothing)
    assert "not settled" in found()


def test_a_writer_that_is_not_fenced_is_found() -> None:
    """The append compares the head of the log, as others compare the term of a lease."""
    assert "there is no position" in found(Plant(fence="nothing"))


def test_a_lease_without_a_term_is_found() -> None:
    """The log takes what the holder of the lease decided before another process wrote, or in an earlier term."""
    assert "there is no position" in found(Plant(fence="holder"), has_handover=True)


async def _hand_over_blindly(
    link: WriterLink, ledger_id: str, requests: Sequence[CommandRequest], expires_at: float, writer: LedgerWriter
) -> list[Reply]:
    """Sends commands that come back to the writer of this process, as if nobody had them before."""
    commands = [PendingCommand(request, expires_at) for request in requests]
    numbers = link.send(ledger_id, commands)
    try:
        return await writer.replies_to(commands)
    except HandedBackError:
        return await writer.submit(requests, expires_at)
    finally:
        link.forget(numbers)


def test_a_handover_that_is_repeated_without_a_look_up_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_writer, "_hand_over", _hand_over_blindly)
    # Some are recorded twice. Others are refused because of what they have done themselves.
    assert "the log has" in found(has_handover=True)


def _at_no_moment(state: Any, now: str) -> Any:
    return state if isinstance(state, AccountState) else at_moment(state, now)


def test_an_expired_hold_that_still_counts_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "at_moment", _at_no_moment)
    assert "was refused with insufficient-funds" in found()


def _run_without_a_look(run: RunSchedule, states: States) -> list[Event]:
    """Makes the run that it was told of, whether or not it is recorded already."""
    schedule: ScheduleState = states[schedule_stream(run.schedule_id)]
    transfer = TransferFunds(
        id=run.id,
        from_account_id=schedule.from_account_id,
        to_account_id=schedule.to_account_id,
        amount=schedule.amount,
        currency=schedule.currency,
    )
    [made] = transfer.decide(states)
    return [msgspec.structs.replace(made, run=ScheduledRun(run.schedule_id, run.number))]


def test_a_scheduled_run_that_starts_twice_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunSchedule, "decide", _run_without_a_look)
    # Some histories never come to rest, because the run is refused again and again. Others record it twice.
    assert "started twice" in found(has_workers=True, reason="started twice")


async def _commit_without_waiting(driver: MemoryDriver) -> None:
    committing = asyncio.create_task(_commit(driver))
    committing.add_done_callback(lambda ended: None if ended.cancelled() else ended.exception())
    await asyncio.sleep(0)


_commit = MemoryDriver.commit


def test_a_reply_before_its_commit_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryDriver, "commit", _commit_without_waiting)
    assert "was answered with" in found()
