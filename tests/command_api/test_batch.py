"""What a batch comes to, without a server: requests and the states before them in, verdicts and rows out."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from command_api.domain.account import AccountState
from command_api.domain.command import Command
from command_api.domain.stream_folds import fold_of
from command_api.domain.transfer import Deposit, Withdraw
from command_api.writer.batch import Basis, decide, prepare
from command_api.writer.command_request import CommandRequest, Outcome, Reply, ReplyKey
from command_api.writer.ledger_view import StreamState
from shared.errors import IdempotencyKeyReused, Rejection, StoreUnavailable
from shared.ids import new_id
from shared.log.heads import Head
from shared.log.ledger_state import LedgerState
from shared.log.money_events import FundsDeposited
from shared.log.stored_replies import StoredReply
from shared.log.streams import LEDGER_STREAM, account_stream

ONE = "0198c5a0-0000-7000-8000-0000000000e1"
NOW = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
NONE: Mapping[ReplyKey, StoredReply] = {}


class Codes:
    """Replies with the position, or with the code of the rejection."""

    def accepted(self, outcome: Outcome) -> tuple[int, bytes]:
        return 201, json.dumps({"position": outcome.position, "version": outcome.version}).encode()

    def rejected(self, rejection: Rejection) -> tuple[int, bytes]:
        return 409, json.dumps({"code": rejection.code}).encode()


def request(command: Command, key: str | None = None, **fields: Any) -> CommandRequest:
    return CommandRequest(command=command, reply_format=Codes(), metadata={}, idempotency_key=key, **fields)


def deposit(amount: int) -> Deposit:
    return Deposit(id=new_id(), account_id=ONE, amount=amount, currency="EUR")


def withdrawal(amount: int) -> Withdraw:
    return Withdraw(id=new_id(), account_id=ONE, amount=amount, currency="EUR")


def basis(*requests: CommandRequest, replies: Mapping[ReplyKey, StoredReply] = NONE) -> Basis:
    """A log of 40 events, in which account ONE has version 7."""
    created = {stream_id for each in requests for stream_id in each.command.new_streams()}
    streams = {stream_id: StreamState(0, 0, fold_of(stream_id).initial) for stream_id in created}
    streams[LEDGER_STREAM] = StreamState(0, 0, LedgerState())
    streams[account_stream(ONE)] = StreamState(7, 31, AccountState(ONE, "", "EUR", "open"))
    return Basis(Head(40, bytes(32), NOW), streams, replies, alone=True)


def bodies(verdicts: list[Any]) -> list[Any]:
    return [json.loads(verdict.body) for verdict in verdicts]


def test_each_command_is_decided_on_what_the_one_before_left() -> None:
    requests = [request(deposit(10)), request(withdrawal(4)), request(withdrawal(6))]
    decided = decide(requests, basis(*requests))
    assert bodies(decided.verdicts) == [{"position": 41 + n, "version": 8 + n} for n in range(3)]
    assert decided.streams[account_stream(ONE)].state.posted == 0


def test_a_rejected_command_rejects_only_itself_and_takes_no_position() -> None:
    requests = [request(deposit(10)), request(withdrawal(11)), request(withdrawal(10))]
    decided = decide(requests, basis(*requests))
    assert bodies(decided.verdicts)[1] == {"code": "insufficient-funds"}
    assert [new.event.balance for new in decided.events if hasattr(new.event, "balance")] == [10, 0]
    assert [(each.version, each.position) for each in decided.stream_events if each.stream_id == account_stream(ONE)] == [
        (8, 41),
        (9, 42),
    ]


def test_a_key_that_comes_twice_in_one_batch_has_one_effect() -> None:
    requests = [request(deposit(10), "key", request_hash=b"a"), request(deposit(10), "key", request_hash=b"a")]
    decided = decide(requests, basis(*requests))
    first, second = decided.verdicts
    assert isinstance(first, Reply)
    assert isinstance(second, Reply)
    assert (first.body, first.replayed, second.replayed) == (second.body, False, True)
    assert len(decided.events) == len(decided.replies) == 1


def test_a_key_with_another_request_is_not_decided() -> None:
    requests = [request(deposit(10), "key", request_hash=b"a"), request(deposit(20), "key", request_hash=b"b")]
    decided = decide(requests, basis(*requests))
    assert isinstance(decided.verdicts[1], IdempotencyKeyReused)
    assert [type(new.event) for new in decided.events] == [FundsDeposited]


def part(number: int, amount: int = 10, request_hash: bytes = b"a") -> CommandRequest:
    return request(deposit(amount), "key", part=number, request_hash=request_hash)


def test_the_first_part_of_a_request_takes_its_key_and_each_part_has_a_reply() -> None:
    requests = [part(0), part(1), part(2)]
    decided = decide(requests, basis(*requests))
    assert [reply.key for reply in decided.replies] == ["key", "key\x1f1", "key\x1f2"]
    assert len(decided.events) == 3


def test_a_later_part_is_decided_in_another_batch_than_the_first_if_the_key_belongs_to_its_request() -> None:
    zero, one = part(0), part(1)
    [first] = decide([zero], basis(zero)).replies
    decided = decide([one], basis(one, replies={("", "key"): first}))
    assert [reply.key for reply in decided.replies] == ["key\x1f1"]


def test_a_later_part_of_a_request_whose_key_belongs_to_another_is_not_decided() -> None:
    """A batch of transfers and another request with the same key must not both have an effect."""
    other, one = request(deposit(20), "key", request_hash=b"b"), part(1)
    [first] = decide([other], basis(other)).replies
    decided = decide([one], basis(one, replies={("", "key"): first}))
    assert isinstance(decided.verdicts[0], IdempotencyKeyReused)
    assert not decided.writes


def test_a_later_part_is_not_recorded_if_the_first_was_not() -> None:
    """Otherwise the key would be free, and another request could take it."""
    one = part(1)
    decided = decide([one], basis(one))
    assert isinstance(decided.verdicts[0], StoreUnavailable)
    assert not decided.writes


def test_a_rejection_is_stored_under_its_key_too() -> None:
    [wanted] = requests = [request(withdrawal(1), "key")]
    decided = decide(requests, basis(wanted))
    [stored] = decided.replies
    assert (stored.status, stored.position, decided.events) == (409, None, [])
    assert decided.writes


def test_a_reply_given_before_is_given_again_and_nothing_is_written() -> None:
    [wanted] = requests = [request(deposit(10), "key")]
    first = decide(requests, basis(wanted))
    again = decide(requests, basis(wanted, replies={("", "key"): first.replies[0]}))
    assert bodies(again.verdicts) == bodies(first.verdicts)
    assert not again.writes


def test_what_is_prepared_ends_the_log_where_the_batch_ends() -> None:
    requests = [request(deposit(10)), request(withdrawal(11)), request(deposit(1))]
    decided = decide(requests, basis(*requests))
    end = prepare("main", decided, {}).head
    assert (end.position, end.now, len(end.hash)) == (42, NOW, 32)
    assert not decided.is_about_people()
