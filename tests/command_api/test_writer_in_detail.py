"""The details of the writer, without a server: what it reads before a batch, keeps between batches, and tries again.

Most of these were found with `make mutants`: no other test failed without them.
"""

import json
import time
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import asyncpg
import msgspec
import pytest
from sqlalchemy.exc import DBAPIError

from command_api.domain.account import ACCOUNT_FOLD, AccountState
from command_api.domain.command import Command
from command_api.domain.reversal import Reversal, ReverseTransfer
from command_api.domain.user import DeactivateUser
from command_api.writer import stored_replies, transaction
from command_api.writer.basis import read_ahead
from command_api.writer.batch import decide
from command_api.writer.command_request import Reply
from command_api.writer.ledger_view import FIRST_REPLIES_MAX, LedgerView, StreamState
from command_api.writer.measurements import (
    ACCEPTED,
    FAILED,
    OVERLOADED,
    REHEARSED,
    REJECTED,
    REPEATED,
    UNAVAILABLE,
    WriterMeasurements,
)
from command_api.writer.queue import CommandQueue
from command_api.writer.transaction import LostRaceError
from shared.errors import Overloaded, StoreUnavailable
from shared.log.heads import Head, StreamHead
from shared.log.stored_replies import StoredReply
from shared.log.stream_fold import snapshot_context
from shared.log.streams import LEDGER_STREAM, account_stream, transfer_stream, user_stream
from shared.privacy.encryption import ERASED, DecryptionFailed
from shared.stores.database_clock import DatabaseClock
from tests.command_api.test_batch import NOW, ONE, basis, bodies, deposit, request, withdrawal

ADA = "0198c5a0-0000-7000-8000-00000000ada0"
OTHER = "0198c5a0-0000-7000-8000-0000000000e2"


def trusted_view() -> LedgerView:
    clock = DatabaseClock(time.monotonic)
    clock.set(NOW)
    view = LedgerView(100, clock)
    view.update(Head(40, bytes(32), NOW), {}, (), alone=True, trusted=True)
    return view


def head_of(stream_id: str, fold_version: int = ACCOUNT_FOLD.version) -> StreamHead:
    state = AccountState(ONE, ADA, "EUR", "open", posted=5)
    return StreamHead(stream_id, 7, 31, fold_version, ACCOUNT_FOLD.write(state, snapshot_context("main", stream_id, 7), {}))


async def reads_of(*commands: Command, heads: Mapping[str, StreamHead] | None = None, **fields: Any) -> tuple[set[str], Any]:
    """Returns the streams whose heads are read for the commands, and the basis."""
    asked: set[str] = set()

    async def read(stream_ids: set[str]) -> Mapping[str, StreamHead]:
        asked.update(stream_ids)
        return {stream_id: head for stream_id, head in (heads or {}).items() if stream_id in stream_ids}

    found = await read_ahead("main", [request(each, **fields) for each in commands], trusted_view(), read)
    return asked, found


# ── what is read before a batch ──────────────────────────────────────────────────────────────────────────────────────


async def test_the_stream_that_a_command_creates_is_not_read() -> None:
    paid = deposit(10)
    asked, found = await reads_of(paid)
    assert asked == {account_stream(ONE), LEDGER_STREAM}
    assert found.streams[transfer_stream(paid.id)].version == 0


async def test_it_is_read_if_another_command_of_the_batch_depends_on_it() -> None:
    paid = deposit(10)
    asked, _ = await reads_of(paid, ReverseTransfer(transfer_id=paid.id, reversal=Reversal(id=OTHER)))
    assert asked == {account_stream(ONE), LEDGER_STREAM, transfer_stream(paid.id)}


async def test_a_snapshot_of_this_fold_is_the_state_and_an_older_one_needs_locks() -> None:
    stream = account_stream(ONE)
    _, found = await reads_of(deposit(10), heads={stream: head_of(stream)})
    assert (found.streams[stream].version, found.streams[stream].position, found.streams[stream].state.posted) == (7, 31, 5)
    _, older = await reads_of(deposit(10), heads={stream: head_of(stream, ACCOUNT_FOLD.version + 1)})
    assert older is None


async def test_personal_states_need_locks_because_their_keys_must_be_read() -> None:
    stream = user_stream(ADA)
    head = StreamHead(stream, 1, 1, 2, "{}")
    assert (await reads_of(DeactivateUser(user_id=ADA), heads={stream: head}))[1] is None
    assert (await reads_of(DeactivateUser(user_id=ADA)))[1] is not None, "a user who does not exist has nothing personal"


@pytest.mark.parametrize("fields", [{"is_repeated": True}, {"rehearsed": (request(deposit(1)),)}, {"key": "k", "part": 1}])
async def test_what_may_be_recorded_already_or_never_will_be_needs_locks(fields: dict[str, Any]) -> None:
    asked, found = await reads_of(deposit(10), **fields)
    assert (asked, found) == (set(), None)


# ── what is kept between batches ─────────────────────────────────────────────────────────────────────────────────────


def reply(key: str, body: bytes = b"{}") -> StoredReply:
    return StoredReply("p", key, b"h", 201, body, 1)


def test_the_newest_first_replies_are_kept_until_a_doubt() -> None:
    view = trusted_view()
    view.remember_first_replies(reply(str(number)) for number in range(FIRST_REPLIES_MAX + 2))
    keys = [("p", str(number)) for number in (0, 1, 2, FIRST_REPLIES_MAX + 1)]
    assert [*view.find_first_replies(keys)] == keys[2:]
    view.doubt()
    assert (view.find_first_replies(keys), view.trusted) == ({}, False)


def test_the_view_keeps_the_streams_that_were_used_last() -> None:
    stream = StreamState(7, 31, AccountState())
    view = LedgerView(2, DatabaseClock(time.monotonic))
    for name in ("a", "b", "a", "c"):
        view.update(Head(1, b"", NOW), {name: stream}, (), alone=True, trusted=True)
    assert view.find(("a", "b", "c")).keys() == {"a", "c"}
    view.update(Head(2, b"", NOW), {"d": stream}, ("a",), alone=True, trusted=True)
    assert view.find(("a", "b", "c", "d")).keys() == {"c", "d"}
    view.update(Head(3, b"", NOW), {"e": stream}, (), alone=False, trusted=False)
    assert view.find(("c", "d", "e")).keys() == {"e"}, "another writer may have changed the others"


def test_a_personal_reply_is_kept_encrypted_for_its_ledger_and_its_key_alone() -> None:
    said = reply("k", b'{"id":"x","name":"Ada","email":"ada@example.com","empty":""}')
    people, keys = {("p", "k"): ADA}, {ADA: bytes(32)}
    kept = stored_replies.encrypted("main", said, people, keys)
    assert b"Ada" not in kept.body
    assert (stored_replies.people([said], people), stored_replies.people_in([kept, said])) == ({ADA}, {ADA})
    assert json.loads(stored_replies.decrypted("main", kept, keys).body) == json.loads(said.body)
    erased = json.loads(stored_replies.decrypted("main", kept, {}).body)
    assert (erased["id"], erased["name"], erased["email"]) == ("x", ERASED, ERASED)
    for ledger_id, other in (("other", kept), ("main", msgspec.structs.replace(kept, key="other"))):
        with pytest.raises(DecryptionFailed):
            stored_replies.decrypted(ledger_id, other, keys)


def test_a_reply_about_nobody_is_kept_as_it_is() -> None:
    said = reply("k", b'{"name":"Ada"}')
    assert stored_replies.encrypted("main", said, {}, {}) is said
    assert stored_replies.decrypted("main", said, {}) is said
    assert (stored_replies.people([said], {}), stored_replies.people([reply("k")], {("p", "k"): ADA})) == (set(), set())


# ── what is tried again ──────────────────────────────────────────────────────────────────────────────────────────────


def error_with(sqlstate: str | None, *, is_lost: bool = False) -> DBAPIError:
    return DBAPIError("statement", {}, SimpleNamespace(sqlstate=sqlstate), connection_invalidated=is_lost)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "is_retried", "is_conflict"),
    [
        (LostRaceError(), True, True),
        (error_with("23505"), True, True),
        (error_with("40001"), True, True),
        (error_with("40P01"), True, True),
        (error_with("0A000"), True, False),
        (error_with("57P01"), True, False),
        (error_with("25P03"), True, False),
        (error_with("53100"), False, False),
        (error_with(None), False, False),
        (error_with(None, is_lost=True), True, False),
        (error_with("53100", is_lost=True), True, False),
        (asyncpg.InterfaceError("connection is closed"), True, False),
        (asyncpg.UniqueViolationError("key"), True, True),
        (asyncpg.DiskFullError("disk"), False, False),
        (TimeoutError(), False, False),
        (ValueError(), False, False),
    ],
)
def test_only_errors_that_another_attempt_can_mend_are_tried_again(
    error: BaseException,
    is_retried: bool,  # noqa: FBT001 # a table
    is_conflict: bool,  # noqa: FBT001
) -> None:
    assert transaction._can_retry(error) is is_retried  # noqa: SLF001 # a table of errors that servers hardly ever make
    assert transaction._is_conflict(error) is is_conflict  # noqa: SLF001


# ── batches and the queue ────────────────────────────────────────────────────────────────────────────────────────────


def test_commands_that_are_recorded_together_have_the_position_of_the_last() -> None:
    together = request(deposit(1), "k", together=(request(deposit(10)), request(withdrawal(4))))
    inside = basis(*together.together)
    decided = decide([together], inside)
    [verdict] = decided.verdicts
    assert isinstance(verdict, Reply)
    assert (verdict.status, verdict.position) == (200, 42)
    assert [each["body"]["position"] for each in json.loads(verdict.body)["results"]] == [41, 42]
    assert decided.streams[account_stream(ONE)].state.posted == 6


def test_one_that_is_rejected_rejects_all_that_are_recorded_together_and_is_named() -> None:
    together = request(deposit(1), "k", together=(request(deposit(10)), request(withdrawal(11))))
    decided = decide([together], basis(*together.together))
    assert (bodies(decided.verdicts), decided.events) == ([{"code": "insufficient-funds"}], [])
    assert decided.streams[account_stream(ONE)].state.posted == 0
    [stored] = decided.replies
    assert (stored.status, stored.position) == (409, None)


class Waits:
    """A command in the queue."""

    def __init__(self, caller: str, expires_at: float = 100.0) -> None:
        self.caller, self.expires_at = caller, expires_at

    def is_answered(self) -> bool:
        return False


def test_a_caller_fills_nine_tenths_of_the_queue_and_others_the_rest() -> None:
    queue: CommandQueue[Waits] = CommandQueue(10, 100, lambda: 0.0)
    queue.add([Waits("a")] * 9)
    with pytest.raises(Overloaded):
        queue.add([Waits("a")])
    queue.add([Waits("b")])
    with pytest.raises(Overloaded):
        queue.add([Waits("c")])
    assert len(queue) == 10


def test_a_command_whose_deadline_is_now_is_left_out() -> None:
    queue: CommandQueue[Waits] = CommandQueue(10, 100, lambda: 5.0)
    late, soon = Waits("a", 5.0), Waits("a", 5.1)
    queue.add([late])
    queue.add([soon])
    assert queue.take(2) == [soon]
    assert len(queue) == 0


def test_the_next_batch_begins_when_as_many_wait_as_are_written_or_fill_one() -> None:
    queue: CommandQueue[Waits] = CommandQueue(100, 3, lambda: 0.0)
    assert (queue.has_enough(0), queue.has_enough(1)) == (True, False)
    queue.add([Waits("a")] * 2)
    assert (queue.has_enough(2), queue.has_enough(3)) == (True, False)
    queue.add([Waits("a")])
    assert queue.has_enough(50)


# ── what is counted ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_command_is_counted_by_how_it_ended() -> None:
    measured = WriterMeasurements()
    paid, taken = request(deposit(1)), request(withdrawal(1))
    measured.count([paid, paid, taken], OVERLOADED)
    measured.count([paid], OVERLOADED)
    assert measured.outcomes == {("Deposit", OVERLOADED): 3, ("Withdraw", OVERLOADED): 1}


@pytest.mark.parametrize(
    ("verdict", "fields", "name", "outcome"),
    [
        (Reply(201, b"", 41), {}, "Deposit", ACCEPTED),
        (Reply(409, b"", None), {}, "Deposit", REJECTED),
        (Reply(201, b"", 41, replayed=True), {}, "Deposit", REPEATED),
        (Reply(200, b"", None), {"rehearsed": (request(deposit(1)),)}, "Deposit", REHEARSED),
        (Reply(200, b"", 42), {"together": (request(deposit(1)),)}, "CommandBatch", ACCEPTED),
        (StoreUnavailable(), {}, "Deposit", UNAVAILABLE),
        (Overloaded(), {}, "Deposit", REJECTED),
        (ValueError(), {}, "Deposit", FAILED),
    ],
)
def test_a_verdict_is_one_outcome(verdict: Reply | Exception, fields: dict[str, Any], name: str, outcome: str) -> None:
    measured = WriterMeasurements()
    for count in (1, 2):
        measured.count_verdicts([request(deposit(1), **fields)], [verdict])
        assert measured.outcomes == {(name, outcome): count}
