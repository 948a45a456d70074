"""Decides the log of a ledger again, and computes again what the callers were answered, for `daybook verify` and the import.

An accepted reply follows from the log: the same functions that made its body make it once more from the event and the states
after it. A rejected reply does not, because it left no event; of it only the form is checked. This module does no I/O.
"""

import re
from collections import deque
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec
import orjson

from command_api.answers import account_body, user_body
from command_api.batch_answers import MONEY_ANSWERS
from command_api.day_answers import day_body
from command_api.domain.account import AccountState, FreezeAccount, OpenAccount
from command_api.domain.command import Command
from command_api.domain.command_batch import COMMANDS_MAX
from command_api.domain.day import CloseDay
from command_api.domain.exchange import ExchangeFunds
from command_api.domain.hold import CaptureHold, PlaceHold
from command_api.domain.ledger import ChangeLedger, CloseLedger, CreateLedger
from command_api.domain.past_decisions import PastDecisions
from command_api.domain.postings import MoveFunds
from command_api.domain.reversal import ReverseTransfer
from command_api.domain.schedule import CancelSchedule, CreateSchedule, ScheduleState
from command_api.domain.stream_folds import fold_of, owner_of
from command_api.domain.transfer import Deposit, MoneyCommand, TransferFunds, Withdraw
from command_api.domain.user import CreateUser, DeactivateUser, UserCommand
from command_api.ledger_answers import ledger_body
from command_api.requests import TOGETHER
from command_api.schedule_answers import schedule_body
from command_api.writer import stored_replies
from command_api.writer.command_request import Outcome, results_body
from shared.errors import EventImpossible, Rejection
from shared.log.event_check import Domain
from shared.log.events import RecordedEvent
from shared.log.money_events import MoneyEvent
from shared.log.stored_replies import StoredReply
from shared.log.streams import DAYS_STREAM, LEDGER_STREAM, schedule_stream
from shared.privacy.encryption import KeysByPerson
from shared.timestamps import timestamp

OK: Final = 200
CREATED: Final = 201
REJECTED: Final = range(400, 500)
HASH_BYTES: Final = 32

_KEY: Final = re.compile(r"[\x1f-\x7e]{1,300}")
_KINDS_WITH_KEY: Final[tuple[type[Command], ...]] = (
    *(Deposit, Withdraw, TransferFunds, MoveFunds, ExchangeFunds, ReverseTransfer),
    *(PlaceHold, CaptureHold, CreateSchedule),
)
_WITH_KEY: Final = frozenset(kind.__name__ for kind in _KINDS_WITH_KEY)
"""The commands that each record one event and cannot be sent without an idempotency key."""


class PastEvent(NamedTuple):
    """An event that was decided again, its command, and the states of its streams after it.

    `version` is that of the command's first stream, if its state is kept.
    """

    recorded: RecordedEvent
    command: Command
    states: dict[str, Any]
    version: int


class PastHistory:
    """Implements `shared.log.event_check.History`. It keeps the states of all streams, and the last events for their replies."""

    def __init__(self, pepper: bytes | None) -> None:
        self._decisions = PastDecisions(pepper)
        self._recent: deque[PastEvent] = deque(maxlen=COMMANDS_MAX)

    def enter(self, recorded: RecordedEvent) -> None:
        now = timestamp(recorded.recorded_at)
        command = self._decisions.decide_again(recorded.position, recorded.event, now)
        states = self._decisions.states_of(command, now)
        version = self._decisions.versions[command.streams()[0]]
        self._recent.append(PastEvent(recorded, command, states, version))

    def recall(self, position: int, event: MoneyEvent) -> None:
        self._decisions.recall(position, event)

    def needs_reply(self, recorded: RecordedEvent, following: RecordedEvent | None) -> bool:
        metadata = recorded.metadata
        if metadata.get("command") == TOGETHER:
            request = following.metadata.get("request_id") if following else None
            return request is None or request != metadata.get("request_id")
        return metadata.get("command") in _WITH_KEY

    def people_of_reply(self, reply: StoredReply) -> set[str]:
        try:
            people = stored_replies.people_in([reply])
            return {person_id for person_id in people if isinstance(person_id, str) and person_id.isprintable()}
        except (ValueError, KeyError, TypeError):
            return set()

    def require_reply(self, ledger_id: str, reply: StoredReply, recorded: RecordedEvent | None, keys: KeysByPerson) -> None:
        if not reply.principal or not reply.principal.isprintable():
            raise EventImpossible("its principal has no name that can be printed")
        if not _KEY.fullmatch(reply.key) or len(reply.request_hash) != HASH_BYTES:
            raise EventImpossible("it has another key or request hash than any request")
        if reply.position is None:
            _require_rejection(reply)
        elif recorded is None:
            raise EventImpossible(f"it is about the event at {reply.position}, which the log does not have")
        elif not any(self._is_reply(ledger_id, reply, keys)):
            raise EventImpossible(f"it is not what the log says about the event at {reply.position}")

    def _is_reply(self, ledger_id: str, reply: StoredReply, keys: KeysByPerson) -> Iterator[bool]:
        """Yields True for each body that the last event allows and that the reply has."""
        last = self._recent[-1]
        found = (reply.status, reply.body)
        if type(last.command) in MONEY_ANSWERS and last.recorded.metadata.get("principal", reply.principal) == reply.principal:
            yield any(found == _reply(last, customer) for customer in _customers(last))
            yield reply.status == OK and any(reply.body == body for body in self._results(reply))
        for stream_id, state in last.states.items():
            if isinstance(state, AccountState) and reply.status in _statuses(last.command, OpenAccount):
                command = FreezeAccount.model_construct(account_id=state.account_id)
                yield any(
                    reply.body
                    == orjson.dumps(account_body(command, self._outcome(last._replace(states={stream_id: each}), stream_id)))
                    for each in state.until_all_expire()  # a reply to a later command without effect is as of later
                )
            if isinstance(state, ScheduleState) and reply.status in _statuses(last.command, CreateSchedule):
                schedule = CancelSchedule(schedule_id=stream_id.removeprefix(schedule_stream("")))
                yield reply.body == orjson.dumps(schedule_body(schedule, self._outcome(last, stream_id)))
        if isinstance(last.command, CloseDay):
            yield found == (OK, orjson.dumps(day_body(last.command, self._outcome(last, DAYS_STREAM))))
        if isinstance(last.command, CreateLedger | ChangeLedger | CloseLedger):
            body = ledger_body(ledger_id, last.command, self._outcome(last, LEDGER_STREAM))
            is_created = isinstance(last.command, CreateLedger) and reply.status == CREATED
            yield (is_created or reply.status == OK) and reply.body == orjson.dumps(body)
        if isinstance(last.command, CreateUser | UserCommand):
            yield self._is_about_user(ledger_id, reply, keys, last)

    def _outcome(self, last: PastEvent, stream_id: str) -> Outcome:
        return _outcome([last.recorded], last.states, self._decisions.versions[stream_id], None)

    def _results(self, reply: StoredReply) -> Iterator[bytes]:
        """Yields the bodies of a reply to many commands, of which the last event was the last."""
        try:
            count = len(orjson.loads(reply.body)["results"])
        except (ValueError, KeyError, TypeError):
            return
        past = list(self._recent)[-count:] if count else []
        if len(past) == count and all(type(each.command) in MONEY_ANSWERS for each in past):
            for customer in _customers(past[0]):
                yield results_body(_reply(each, customer) for each in past)

    def _is_about_user(self, ledger_id: str, reply: StoredReply, keys: KeysByPerson, last: PastEvent) -> bool:
        user_id = last.command.person_id() or ""
        if not _is_as_dumped(reply.body.removeprefix(stored_replies.PREFIX)):
            return False
        try:
            body = orjson.loads(stored_replies.decrypted(ledger_id, reply, keys).body)
        except (ValueError, KeyError, TypeError):
            return False
        expected = user_body(DeactivateUser.model_construct(user_id=user_id), self._outcome(last, f"user-{user_id}"))
        is_created = isinstance(last.command, CreateUser) and reply.status == CREATED
        if not isinstance(body, dict) or not (reply.status == OK or is_created):
            return False
        # A personal member cannot be forged without the person's key, so that it can be decrypted is enough.
        named = [body.pop(name, None) is not None for name in stored_replies.MEMBERS]
        expected_named = [expected.pop(name) is not None for name in stored_replies.MEMBERS]
        return body == expected and named == expected_named and reply.body.startswith(stored_replies.PREFIX)


def _reply(past: PastEvent, customer: str | None) -> tuple[int, bytes]:
    """Returns the status and the body that the command of an event about money was answered."""
    build_body, status = MONEY_ANSWERS[type(past.command)]
    return status, orjson.dumps(build_body(past.command, _outcome([past.recorded], past.states, past.version, customer)))


def _statuses(command: Command, creating: type[Command]) -> set[int]:
    """Returns the statuses of a reply about a resource after a command, or after a later one without effect."""
    return {OK, CREATED} if isinstance(command, creating) else {OK}


def _customers(past: PastEvent) -> list[str | None]:
    """Returns the callers that an answer can be for: one who sees all balances, and the customer who pays."""
    if not isinstance(past.command, MoneyCommand):
        return [None]
    [owned] = past.command.owned_streams()
    return [None, owner_of(owned, past.states[owned])]


def _outcome(recorded: list[RecordedEvent], states: dict[str, Any], version: int, customer: str | None) -> Outcome:
    return Outcome(
        events=[each.event for each in recorded],
        positions=[each.position for each in recorded],
        states=states,
        version=version,
        position=recorded[-1].position,
        recorded_at=recorded[-1].recorded_at,
        customer=customer,
    )


class _Problem(msgspec.Struct):
    """The members of a problem document that a rejection always has. Others, such as `available`, depend on its code."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    retryable: bool
    request_id: str


_decode_problem: Final = msgspec.json.Decoder(_Problem).decode


def _is_as_dumped(body: bytes) -> bool:
    """Returns True if the bytes are JSON as this code writes it, without spaces."""
    try:
        return orjson.dumps(orjson.loads(body)) == body
    except (ValueError, TypeError):
        return False


def _rejections(error_type: type[Rejection]) -> Iterator[type[Rejection]]:
    for subclass in error_type.__subclasses__():
        yield subclass
        yield from _rejections(subclass)


def _require_rejection(reply: StoredReply) -> None:
    """Checks that a reply without an event is the problem document of a rejection.

    Raises:
        EventImpossible: it is not.
    """
    try:
        problem = _decode_problem(reply.body)
    except (ValueError, RecursionError):
        raise EventImpossible("it has no event, and its body is not the problem document of a rejection") from None
    if not _is_as_dumped(reply.body):
        raise EventImpossible("it has no event, and its body has another form of JSON than Daybook writes")
    titles = {each.title() for each in _rejections(Rejection) if each.code == problem.code}
    if problem.title not in titles or problem.type != f"/problems/{problem.code}":
        raise EventImpossible("it has no event, and no rejection has its code and title")
    if problem.status != reply.status or reply.status not in REJECTED:
        raise EventImpossible("it has no event, and another status than its problem document")


DOMAIN: Final = Domain(fold_of, PastHistory)
