"""Fills ledgers through the command handler, in this process and without HTTP. The rows are the same as after HTTP requests."""

from collections.abc import Iterable, Iterator
from itertools import islice, repeat
from time import perf_counter
from typing import Final

import msgspec
import orjson

from bench.workloads import Workload, account_id, nonce
from command_api.answers import account_body, transfer_body, user_body
from command_api.domain.account import OpenAccount
from command_api.domain.command import Command
from command_api.domain.transfer import TransferFunds
from command_api.domain.user import CreateUser, NewUser
from command_api.requests import BuildBody
from command_api.writer.command_request import CommandRequest, Outcome
from command_api.writer.ledger_writer import CommandHandler
from shared.errors import Rejection
from shared.ids import new_id
from shared.log.heads import read_head
from shared.read_models.channels import WAKE_CHANNEL
from shared.settings import Settings
from shared.stores.all_stores import open_stores
from shared.stores.postgres import open_postgres

OWNER: Final = "00000000-0000-4000-8000-0000000000aa"
LIMIT: Final = 10**9
"""The overdraft limit of all accounts. It is checked as usual, but is so high that no transfer is rejected."""

AT_ONCE: Final = 1_024
PATIENT: Final = {"command_deadline_ms": 60_000, "database_statement_timeout_ms": 60_000}


class FillingReplies(msgspec.Struct, frozen=True):
    """Makes the same replies as the command API. Raises an AssertionError for a rejection, because no command may be rejected."""

    command: Command
    build_body: BuildBody

    def accepted(self, outcome: Outcome) -> tuple[int, bytes]:
        return 201, orjson.dumps(self.build_body(self.command, outcome))

    def rejected(self, rejection: Rejection) -> tuple[int, bytes]:
        raise AssertionError(rejection)


async def open_accounts(settings: Settings, count: int) -> None:
    """Opens the accounts 1 to `count` in euros, all of one user."""
    accounts = (
        OpenAccount(id=account_id(number), owner_id=OWNER, currency="EUR", overdraft_limit=LIMIT)
        for number in range(1, count + 1)
    )
    owner = NewUser(id=OWNER, name="Bench", email="bench@example.com")
    await _handle_all(settings, iter([_request(CreateUser(user=owner, email_hash="of-the-benchmark"), user_body)]))
    await _handle_all(settings, (_request(command, account_body) for command in accounts))


async def create_user(settings: Settings, ledger_id: str) -> int:
    """Creates a user in a ledger, and returns the position of the event."""
    user = NewUser(id=new_id(), name="Bench", email="bench@example.com")
    async with open_stores(settings, "daybook_command") as stores:
        handler = CommandHandler(stores.engine, settings, wake_up=lambda _: None)
        await handler.handle(ledger_id, [_request(CreateUser(user=user, email_hash=user.id), user_body)])
        await handler.close()
        await stores.redis.publish(WAKE_CHANNEL, ledger_id)
        async with stores.engine.connect() as connection:
            return (await read_head(connection, ledger_id)).position


async def append_transfers(
    settings: Settings, count: int, payers: Iterable[int], payees: Iterable[int], moments: Iterable[str | None] = repeat(None)
) -> float:
    """Appends `count` transfers from `payers` to `payees`, which are account numbers. Returns the transfers per second.

    `moments` says when each of them occurred, or None for the time of recording.
    """
    transfers = (
        TransferFunds(
            id=new_id(),
            from_account_id=account_id(payer),
            to_account_id=account_id(payee),
            amount=7,
            currency="EUR",
            occurred_at=moment,
        )
        for payer, payee, moment in zip(payers, payees, moments, strict=False)
    )
    run = nonce()
    requests = (
        _request(command, transfer_body, key=f"{run}-{number}") for number, command in enumerate(islice(transfers, count))
    )
    begin = perf_counter()
    await _handle_all(settings, requests)
    return count / (perf_counter() - begin)


async def append_uniform(settings: Settings, count: int, accounts: int) -> float:
    """Appends `count` transfers between random pairs of the accounts 1 to `accounts`. Returns the transfers per second."""
    pairs = Workload("POST", "", accounts).pairs()
    drawn = list(islice(pairs, count))
    return await append_transfers(settings, count, (payer for payer, _ in drawn), (payee for _, payee in drawn))


def _request(command: Command, build_body: BuildBody, key: str | None = None) -> CommandRequest:
    return CommandRequest(
        command=command,
        reply_format=FillingReplies(command, build_body),
        metadata={"command": type(command).__name__, "request_id": new_id()},
        idempotency_key=key,
        request_hash=bytes(32),
    )


async def _handle_all(settings: Settings, requests: Iterator[CommandRequest]) -> None:
    async with open_postgres(settings.model_copy(update=PATIENT), "daybook_command") as engine:
        handler = CommandHandler(engine, settings.model_copy(update=PATIENT), wake_up=lambda _: None)
        while some := list(islice(requests, AT_ONCE)):
            await handler.handle("main", some)
        await handler.close()
