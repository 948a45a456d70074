"""What commands answer: the new state, so that nobody has to read back. Shapes with examples for the OpenAPI document."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from command_api.account import AccountState, OpenAccount
from command_api.batch import Outcome
from command_api.transfer import MoneyCommand
from command_api.transfers import TransferAll
from command_api.user import UserState
from shared.access import Principal
from shared.events import Event, FundsDeposited, FundsTransferred, FundsWithdrawn, account_stream, timestamp, user_stream
from shared.sessions import Begun, Session

Position = Annotated[
    int, Field(description="Where in the ledger's log this stands; send it as `Daybook-Min-Position` to read it.")
]
Version = Annotated[
    int, Field(description="How many events this has; send it as `If-Match` to be sure that nothing came between.")
]
MinorUnits = Annotated[int, Field(description="Minor units of the currency.")]

ADA = "0198c5a0-0000-7000-8000-00000000ada0"
EUROS = "0198c5a0-0000-7000-8000-0000000000e1"
SAVINGS = "0198c5a0-0000-7000-8000-0000000000e2"
TRANSFER = "0198c5a0-0000-7000-8000-000000000042"


class UserAnswer(BaseModel):
    id: str
    position: Position
    version: Version
    name: Annotated[str | None, Field(description="null where the user was erased.")]
    email: Annotated[str | None, Field(description="null where the user was erased.")]
    status: Literal["active", "inactive", "erased"]

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": ADA,
                "position": 1,
                "version": 1,
                "name": "Ada",
                "email": "ada@example.com",
                "status": "active",
            }
        }
    )


class LoginAnswer(BaseModel):
    token: Annotated[str, Field(description="To be sent as `Authorization: Bearer …`. It is shown once.")]
    user_id: str
    session_id: str
    expires_at: Annotated[str, Field(description="When the session ends if it is not used; each use moves this.")]
    ends_at: Annotated[str, Field(description="When the session ends in any case.")]

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "token": "dbs_4be0643f1d98473db2f9c3b1f0a6c7de_…",
                "user_id": ADA,
                "session_id": "4be0643f-1d98-473d-b2f9-c3b1f0a6c7de",
                "expires_at": "2026-11-21T10:00:00.000000Z",
                "ends_at": "2026-11-21T21:30:00.000000Z",
            }
        }
    )


class SessionItem(BaseModel):
    id: str
    network: Annotated[str, Field(description="Where it was begun from: a /24, or for IPv6 a /48.")]
    created_at: str
    used_at: Annotated[str, Field(description="Exact to some seconds.")]
    expires_at: str
    ends_at: str
    current: Annotated[bool, Field(description="Whether it is the one that asks.")]


class SessionsAnswer(BaseModel):
    items: list[SessionItem]

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "items": [
                    {
                        "id": "4be0643f-1d98-473d-b2f9-c3b1f0a6c7de",
                        "network": "192.0.2.0/24",
                        "created_at": "2026-11-21T09:30:00.000000Z",
                        "used_at": "2026-11-21T09:30:00.000000Z",
                        "expires_at": "2026-11-21T10:00:00.000000Z",
                        "ends_at": "2026-11-21T21:30:00.000000Z",
                        "current": True,
                    }
                ]
            }
        }
    )


class Balance(BaseModel):
    """`available` is what can be taken now: posted, less what is held, plus the overdraft limit."""

    account_id: str
    posted: MinorUnits
    held: MinorUnits
    available: MinorUnits


class AccountBalance(Balance):
    currency: str


class AccountAnswer(BaseModel):
    id: str
    position: Position
    version: Version
    owner_id: str
    currency: str
    status: Literal["open", "frozen", "closed"]
    overdraft_limit: MinorUnits
    balance: AccountBalance

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": EUROS,
                "position": 2,
                "version": 1,
                "owner_id": ADA,
                "currency": "EUR",
                "status": "open",
                "overdraft_limit": 0,
                "balance": {"account_id": EUROS, "currency": "EUR", "posted": 0, "held": 0, "available": 0},
            }
        }
    )


class MoneyAnswer(BaseModel):
    """A deposit or a withdrawal; the other side is the outside world."""

    id: str
    position: Position
    account_id: str
    amount: MinorUnits
    currency: str
    occurred_at: str
    recorded_at: str
    reference: str | None = None
    metadata: dict[str, str] | None = None
    balances: list[Balance]

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": TRANSFER,
                "position": 3,
                "account_id": EUROS,
                "amount": 1250,
                "currency": "EUR",
                "occurred_at": "2026-11-21T09:30:00.000000Z",
                "recorded_at": "2026-11-21T09:30:00.000000Z",
                "balances": [{"account_id": EUROS, "posted": 1250, "held": 0, "available": 1250}],
            }
        }
    )


class TransferAnswer(BaseModel):
    """Balances are those right after the transfer, the paying account's first. A customer sees those of own accounts only."""

    id: str
    position: Position
    from_account_id: str
    to_account_id: str
    amount: MinorUnits
    currency: str
    occurred_at: str
    recorded_at: str
    reference: str | None = None
    metadata: dict[str, str] | None = None
    balances: list[Balance]

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": TRANSFER,
                "position": 42,
                "from_account_id": EUROS,
                "to_account_id": SAVINGS,
                "amount": 1250,
                "currency": "EUR",
                "occurred_at": "2026-11-21T09:30:00.000000Z",
                "recorded_at": "2026-11-21T09:30:00.000000Z",
                "reference": "rent",
                "balances": [
                    {"account_id": EUROS, "posted": 0, "held": 0, "available": 0},
                    {"account_id": SAVINGS, "posted": 1250, "held": 0, "available": 1250},
                ],
            }
        }
    )


class TransferResult(BaseModel):
    """`body` is what the transfer by itself would have been answered: the transfer, or the problem."""

    status: int
    body: TransferAnswer | dict[str, Any]


class TransferResults(BaseModel):
    """In the order of the request."""

    results: list[TransferResult]

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "results": [{"status": 201, "body": TransferAnswer.model_config["json_schema_extra"]["example"]}]  # type: ignore[index]
            }
        }
    )


def describe_login(user_id: str, begun: Begun) -> dict[str, Any]:
    return {
        "token": begun.token,
        "user_id": user_id,
        "session_id": begun.session_id,
        "expires_at": timestamp(begun.expires_at),
        "ends_at": timestamp(begun.ends_at),
    }


def describe_sessions(sessions: Sequence[Session], principal: Principal) -> dict[str, Any]:
    return {"items": [_session(session, current=session.id == principal.key_id) for session in sessions]}


def _session(session: Session, *, current: bool) -> dict[str, Any]:
    return {
        "id": session.id,
        "network": session.network,
        "created_at": timestamp(session.created_at),
        "used_at": timestamp(session.used_at),
        "expires_at": timestamp(session.expires_at),
        "ends_at": timestamp(session.ends_at),
        "current": current,
    }


def describe_user(command: Any, outcome: Outcome) -> dict[str, Any]:
    user_id: str = command.person_id()
    user: UserState = outcome.states[user_stream(user_id)]
    return {
        "id": user_id,
        "position": outcome.position,
        "version": outcome.version,
        "name": user.name or None,
        "email": user.email or None,
        "status": user.status,
    }


def describe_account(command: Any, outcome: Outcome) -> dict[str, Any]:
    account_id = command.id if isinstance(command, OpenAccount) else command.account_id
    account: AccountState = outcome.states[account_stream(account_id)]
    return {
        "id": account_id,
        "position": outcome.position,
        "version": outcome.version,
        "owner_id": account.owner_id,
        "currency": account.currency,
        "status": account.status,
        "overdraft_limit": account.overdraft_limit,
        "balance": {**_balance(account), "currency": account.currency},
    }


def describe_money(command: MoneyCommand, outcome: Outcome) -> dict[str, Any]:
    return _describe_move(command, outcome.events[0], outcome.positions[0], outcome)


def describe_all(command: TransferAll, outcome: Outcome) -> dict[str, Any]:
    """Each transfer as by itself, with the balances right after it."""
    moves = zip(command.transfers, outcome.events, outcome.positions, strict=True)
    return {"results": [{"status": 201, "body": _describe_move(*move, outcome)} for move in moves]}


def _describe_move(command: MoneyCommand, event: Event, position: int, outcome: Outcome) -> dict[str, Any]:
    recorded_at = timestamp(outcome.recorded_at)
    return {
        **command.model_dump(exclude_none=True),
        "position": position,
        "occurred_at": command.occurred_at or recorded_at,
        "recorded_at": recorded_at,
        # Whoever pays learns nothing of what the payee has.
        "balances": [
            _balance(msgspec.structs.replace(outcome.states[account_stream(account_id)], posted=posted))
            for account_id, posted in _balances_after(event)
            if outcome.customer in {None, outcome.states[account_stream(account_id)].owner_id}
        ],
    }


def _balances_after(event: Event) -> list[tuple[str, int]]:
    match event:
        case FundsTransferred():
            return [(event.from_account_id, event.from_balance), (event.to_account_id, event.to_balance)]
        case FundsDeposited() | FundsWithdrawn():
            return [(event.account_id, event.balance)]
        case _:
            msg = f"{type(event).__name__} moves no money"
            raise TypeError(msg)


def _balance(account: AccountState) -> dict[str, Any]:
    return {"account_id": account.account_id, "posted": account.posted, "held": 0, "available": account.available}
