"""Fills ledgers through the command handler, in this process and without HTTP: every row is one that a client would leave."""

from collections.abc import Iterable, Iterator
from itertools import islice
from time import perf_counter
from typing import Final

import msgspec
import orjson

from bench.workloads import Workload, account_id, nonce
from command_api.account import OpenAccount
from command_api.answers import describe_account, describe_money, describe_user
from command_api.batch import Outcome, Request
from command_api.command import Command
from command_api.handler import CommandHandler
from command_api.requests import Describe
from command_api.transfer import TransferFunds
from command_api.user import CreateUser, NewUser
from shared.connections import open_postgres
from shared.errors import Rejection
from shared.ids import new_id
from shared.settings import Settings

OWNER: Final = "00000000-0000-4000-8000-0000000000aa"
LIMIT: Final = 10**9
"""Overdraft, so that no transfer is refused; the check is made all the same."""

AT_ONCE: Final = 1_024
PATIENT: Final = {"command_deadline_ms": 60_000, "database_statement_timeout_ms": 60_000}


class Replies(msgspec.Struct, frozen=True):
    """What the API would answer; a refusal is a mistake of ours."""

    command: Command
    describe: Describe

    def accepted(self, outcome: Outcome) -> tuple[int, bytes]:
        return 201, orjson.dumps(self.describe(self.command, outcome))

    def refused(self, rejection: Rejection) -> tuple[int, bytes]:
        raise AssertionError(rejection)


async def open_accounts(settings: Settings, count: int) -> None:
    """Numbers 1 to `count`, all of one user, all in euros."""
    accounts = (
        OpenAccount(id=account_id(number), owner_id=OWNER, currency="EUR", overdraft_limit=LIMIT)
        for number in range(1, count + 1)
    )
    owner = NewUser(id=OWNER, name="Bench", email="bench@example.com")
    await _handle_all(settings, iter([_request(CreateUser(user=owner, email_hash="of-the-benchmark"), describe_user)]))
    await _handle_all(settings, (_request(command, describe_account) for command in accounts))


async def append_transfers(settings: Settings, count: int, payers: Iterable[int], payees: Iterable[int]) -> float:
    """How many a second."""
    transfers = (
        TransferFunds(id=new_id(), from_account_id=account_id(payer), to_account_id=account_id(payee), amount=7, currency="EUR")
        for payer, payee in zip(payers, payees, strict=False)
    )
    run = nonce()
    requests = (
        _request(command, describe_money, key=f"{run}-{number}") for number, command in enumerate(islice(transfers, count))
    )
    begin = perf_counter()
    await _handle_all(settings, requests)
    return count / (perf_counter() - begin)


async def append_uniform(settings: Settings, count: int, accounts: int) -> float:
    """Transfers between any two of the first accounts; how many a second."""
    pairs = Workload("POST", "", accounts).pairs()
    drawn = list(islice(pairs, count))
    return await append_transfers(settings, count, (payer for payer, _ in drawn), (payee for _, payee in drawn))


def _request(command: Command, describe: Describe, key: str | None = None) -> Request:
    return Request(
        command=command,
        replies=Replies(command, describe),
        metadata={"command": type(command).__name__, "request_id": new_id()},
        idempotency_key=key,
        request_hash=bytes(32),
    )


async def _handle_all(settings: Settings, requests: Iterator[Request]) -> None:
    async with open_postgres(settings.model_copy(update=PATIENT), "daybook_command") as engine:
        handler = CommandHandler(engine, settings.model_copy(update=PATIENT), wake=lambda _: None)
        while some := list(islice(requests, AT_ONCE)):
            await handler.handle("main", some)
        await handler.close()
