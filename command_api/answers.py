"""Builds the bodies of the command API's answers. The answer to a command contains the new state, so no query is needed for it.

Each class describes a body for the OpenAPI document, with an example. The functions build the same bodies as dicts and do not
use the classes, because validating a body again would cost time in every request.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from command_api.domain.account import AccountState, OpenAccount
from command_api.domain.transfer import MoneyCommand
from command_api.domain.user import UserState
from command_api.writer.command_request import Outcome
from shared.identity.access import Principal
from shared.identity.password_resets import NewResetToken
from shared.identity.sessions import NewSession, Session
from shared.log.events import Event
from shared.log.money_events import FundsDeposited, FundsTransferred, FundsWithdrawn
from shared.log.streams import account_stream, user_stream
from shared.timestamps import timestamp
from shared.web.members import MinorUnitAmount

PositionMember = Annotated[
    int,
    Field(description="The position in the ledger's log. To read this change, send it with a query as `Daybook-Min-Position`."),
]
VersionMember = Annotated[
    int,
    Field(
        description="The number of events of this resource. Send it as `If-Match` to reject a command if it has changed since."
    ),
]

ADA_ID = "0198c5a0-0000-7000-8000-00000000ada0"
EUROS_ID = "0198c5a0-0000-7000-8000-0000000000e1"
SAVINGS_ID = "0198c5a0-0000-7000-8000-0000000000e2"
TRANSFER_ID = "0198c5a0-0000-7000-8000-000000000042"


class UserBody(BaseModel):
    """A user after a command."""

    id: str
    position: PositionMember
    version: VersionMember
    name: Annotated[str | None, Field(description="null if the user was erased.")]
    email: Annotated[str | None, Field(description="null if the user was erased.")]
    status: Literal["active", "inactive", "erased"]

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": ADA_ID,
                "position": 1,
                "version": 1,
                "name": "Ada",
                "email": "ada@example.com",
                "status": "active",
            }
        }
    )


class LoginBody(BaseModel):
    """A new session and its token."""

    token: Annotated[str, Field(description="Send this token as `Authorization: Bearer …`. It is shown only here.")]
    user_id: str
    session_id: str
    expires_at: Annotated[
        str, Field(description="When the session ends if it is not used before then. Each use postpones this time.")
    ]
    ends_at: Annotated[str, Field(description="When the session ends even if it is used.")]

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "token": "dbs_4be0643f1d98473db2f9c3b1f0a6c7de_…",
                "user_id": ADA_ID,
                "session_id": "4be0643f-1d98-473d-b2f9-c3b1f0a6c7de",
                "expires_at": "2026-11-21T10:00:00.000000Z",
                "ends_at": "2026-11-21T21:30:00.000000Z",
            }
        }
    )


class ResetTokenBody(BaseModel):
    """A new reset token. With it, the user sets a password once."""

    token: Annotated[str, Field(description="Send this token to `POST /v1/password-resets`. It is shown only here.")]
    user_id: str
    expires_at: Annotated[str, Field(description="When the token ends: after an hour, or with the key that issued it.")]

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"token": "dbr_…", "user_id": ADA_ID, "expires_at": "2026-11-21T10:00:00.000000Z"},
        }
    )


class SessionItem(BaseModel):
    """A session that has not ended."""

    id: str
    network: Annotated[str, Field(description="The network from which the user logged in: a /24, or a /48 for IPv6.")]
    origin_key_id: Annotated[
        str, Field(description="The key that issued the reset token of the password. The session ends with this key.")
    ]
    created_at: str
    used_at: Annotated[str, Field(description="When the session was last used, accurate to a few seconds.")]
    expires_at: str
    ends_at: str
    current: Annotated[bool, Field(description="True for the session that this request was sent with.")]


class SessionsBody(BaseModel):
    """The sessions of a user, newest first."""

    items: list[SessionItem]

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "items": [
                    {
                        "id": "4be0643f-1d98-473d-b2f9-c3b1f0a6c7de",
                        "network": "192.0.2.0/24",
                        "origin_key_id": "k3vq7m2xnp",
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


class BalanceMember(BaseModel):
    """The balance of an account. `available` is what can be spent now: `posted` − `held` + the overdraft limit."""

    account_id: str
    posted: MinorUnitAmount
    held: MinorUnitAmount
    available: MinorUnitAmount


class AccountBalanceMember(BalanceMember):
    currency: str


class LimitsMember(BaseModel):
    """What an account may spend in one transfer, a day and a month. null is no limit."""

    per_transfer_min: MinorUnitAmount | None
    per_transfer_max: MinorUnitAmount | None
    per_day: MinorUnitAmount | None
    per_month: MinorUnitAmount | None


class AccountBody(BaseModel):
    """An account after a command."""

    id: str
    position: PositionMember
    version: VersionMember
    owner_id: str
    currency: str
    status: Literal["open", "frozen", "closed"]
    overdraft_limit: MinorUnitAmount
    limits: Annotated[LimitsMember | None, Field(description="Left out if the account has none.")] = None
    balance: AccountBalanceMember

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": EUROS_ID,
                "position": 2,
                "version": 1,
                "owner_id": ADA_ID,
                "currency": "EUR",
                "status": "open",
                "overdraft_limit": 0,
                "balance": {"account_id": EUROS_ID, "currency": "EUR", "posted": 0, "held": 0, "available": 0},
            }
        }
    )


class OutsideTransferBody(BaseModel):
    """A deposit from the outside world, or a withdrawal to it."""

    id: str
    position: PositionMember
    account_id: str
    amount: MinorUnitAmount
    currency: str
    occurred_at: str
    recorded_at: str
    reference: str | None = None
    metadata: dict[str, str] | None = None
    balances: list[BalanceMember]

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": TRANSFER_ID,
                "position": 3,
                "account_id": EUROS_ID,
                "amount": 1250,
                "currency": "EUR",
                "occurred_at": "2026-11-21T09:30:00.000000Z",
                "recorded_at": "2026-11-21T09:30:00.000000Z",
                "balances": [{"account_id": EUROS_ID, "posted": 1250, "held": 0, "available": 1250}],
            }
        }
    )


class TransferBody(BaseModel):
    """A transfer between two accounts. `balances` are the balances right after the transfer, the payer's first.

    Customers see only the balances of their own accounts.
    """

    id: str
    position: PositionMember
    from_account_id: str
    to_account_id: str
    amount: MinorUnitAmount
    currency: str
    occurred_at: str
    recorded_at: str
    reference: str | None = None
    metadata: dict[str, str] | None = None
    balances: list[BalanceMember]

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": TRANSFER_ID,
                "position": 42,
                "from_account_id": EUROS_ID,
                "to_account_id": SAVINGS_ID,
                "amount": 1250,
                "currency": "EUR",
                "occurred_at": "2026-11-21T09:30:00.000000Z",
                "recorded_at": "2026-11-21T09:30:00.000000Z",
                "reference": "rent",
                "balances": [
                    {"account_id": EUROS_ID, "posted": 0, "held": 0, "available": 0},
                    {"account_id": SAVINGS_ID, "posted": 1250, "held": 0, "available": 1250},
                ],
            }
        }
    )


class TransferResult(BaseModel):
    """The HTTP status and the body that this transfer would have got in a request of its own: the transfer, or a problem."""

    status: int
    body: TransferBody | dict[str, Any]


class TransferResults(BaseModel):
    """The results of the transfers, in the order of the request."""

    results: list[TransferResult]

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "results": [{"status": 201, "body": TransferBody.model_config["json_schema_extra"]["example"]}]  # type: ignore[index]
            }
        }
    )


def login_body(user_id: str, begun: NewSession) -> dict[str, Any]:
    """Builds a `LoginBody`."""
    return {
        "token": begun.token,
        "user_id": user_id,
        "session_id": begun.session_id,
        "expires_at": timestamp(begun.expires_at),
        "ends_at": timestamp(begun.ends_at),
    }


def reset_token_body(user_id: str, issued: NewResetToken) -> dict[str, Any]:
    """Builds a `ResetTokenBody`."""
    return {"token": issued.token, "user_id": user_id, "expires_at": timestamp(issued.expires_at)}


def sessions_body(sessions: Sequence[Session], principal: Principal) -> dict[str, Any]:
    """Builds a `SessionsBody`. If `principal`, the caller, authenticated with one of the sessions, that one is marked current."""
    return {"items": [_session_item(session, current=session.id == principal.key_id) for session in sessions]}


def _session_item(session: Session, *, current: bool) -> dict[str, Any]:
    return {
        "id": session.id,
        "network": session.network,
        "origin_key_id": session.origin_key_id,
        "created_at": timestamp(session.created_at),
        "used_at": timestamp(session.used_at),
        "expires_at": timestamp(session.expires_at),
        "ends_at": timestamp(session.ends_at),
        "current": current,
    }


def user_body(command: Any, outcome: Outcome) -> dict[str, Any]:
    """Builds a `UserBody` for a command about one user."""
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


def account_body(command: Any, outcome: Outcome) -> dict[str, Any]:
    """Builds an `AccountBody` for a command about one account."""
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
        # An account without limits has no such member, as in the replies that were stored before accounts had limits.
        **({"limits": msgspec.structs.asdict(account.limits)} if account.limits else {}),
        "balance": {**balance_member(account), "currency": account.currency},
    }


def transfer_body(command: MoneyCommand, outcome: Outcome) -> dict[str, Any]:
    """Builds a `TransferBody` or an `OutsideTransferBody`."""
    return _recorded_transfer(command, outcome.events[0], outcome.positions[0], outcome)


def _recorded_transfer(command: MoneyCommand, event: Event, position: int, outcome: Outcome) -> dict[str, Any]:
    recorded_at = timestamp(outcome.recorded_at)
    return {
        **command.model_dump(exclude_none=True),
        "position": position,
        "occurred_at": command.occurred_at or recorded_at,
        "recorded_at": recorded_at,
        # A customer who pays must not learn the balance of the payee.
        "balances": [
            balance_member(msgspec.structs.replace(account, posted=posted))
            for account_id, posted in _posted_after(event)
            for account in [outcome.states[account_stream(account_id)]]
            if outcome.customer in {None, account.owner_id}
        ],
    }


def _posted_after(event: Event) -> list[tuple[str, int]]:
    """Returns the id of each account that the event changed, with its posted balance after the event."""
    match event:
        case FundsTransferred():
            return [(event.from_account_id, event.from_balance), (event.to_account_id, event.to_balance)]
        case FundsDeposited() | FundsWithdrawn():
            return [(event.account_id, event.balance)]
        case _:
            msg = f"{type(event).__name__} moves no money"
            raise TypeError(msg)


def balance_member(account: AccountState) -> dict[str, Any]:
    """Builds a `BalanceMember`."""
    held = account.held if account.holds else 0
    available = account.posted + account.overdraft_limit - held
    return {"account_id": account.account_id, "posted": account.posted, "held": held, "available": available}
