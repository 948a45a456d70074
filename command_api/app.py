"""The routes of the command API: what each command is called in HTTP.

A route is one line that runs a command. The bodies are the commands' own fields and the rules are theirs too (`user`, `account`,
`transfer`); `answers` says what they answer, and `requests.CommandRoute` reads the arguments.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import Any, Final, TypedDict

from fastapi import APIRouter, FastAPI, Request, Response
from sqlalchemy.ext.asyncio import AsyncEngine

from command_api.account import CloseAccount, FreezeAccount, OpenAccount, UnfreezeAccount
from command_api.answers import (
    AccountAnswer,
    MoneyAnswer,
    TransferAnswer,
    TransferResults,
    UserAnswer,
    describe_account,
    describe_all,
    describe_money,
    describe_user,
)
from command_api.handler import CommandHandler
from command_api.requests import CALL_HEADERS, Call, CommandApp, CommandRoute
from command_api.transfer import Deposit, TransferFunds, Withdraw
from command_api.transfers import TransferAll, TransferBatch
from command_api.user import ChangeUser, CreateUser, DeactivateUser, EraseUser, NewUser, ReactivateUser, UserChanges, hash_email
from command_api.wake import Waker
from shared.access import Rule, only, own_or
from shared.connections import open_postgres, open_redis, require_durable_postgres, require_schema
from shared.doctor import require_safe
from shared.fields import Id
from shared.garbage import calm_collector
from shared.gate import Gate
from shared.health import Check, ask_postgres, health_router
from shared.http import prepare, problem_responses
from shared.logs import say
from shared.refusals import Refusals
from shared.settings import Settings, settings_or_exit

router = APIRouter(prefix="/v1", route_class=CommandRoute)


def documented(*rejections: str, access: Rule, money: bool = False) -> dict[str, Any]:
    """What every command's documentation has in common, with its own rejections and the rule of who may send it."""
    key = ("idempotency-key-required",) if money else ()
    return {
        "openapi_extra": {"parameters": CALL_HEADERS, **access.documented()},
        "responses": problem_responses(*rejections, *key, *ANY_COMMAND),
    }


ANY_COMMAND: Final = (
    "unauthorized",
    "forbidden",
    "rate-limited",
    "malformed-json",
    "validation-failed",
    "unsupported-media-type",
    "payload-too-large",
    "request-timeout",
    "idempotency-key-invalid",
    "idempotency-key-reused",
    "not-found",
    "stream-version-mismatch",
    "overloaded",
    "store-unavailable",
)
MONEY: Final = (
    "amount-out-of-range",
    "currency-unknown",
    "id-taken",
    "account-closed",
    "account-frozen",
    "currency-mismatch",
)

# ── users ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@router.post(
    "/users", status_code=201, response_model=UserAnswer, **documented("id-taken", "email-taken", access=only("users:write"))
)
async def create_user(user: NewUser, call: Call) -> Response:
    """Create a user. No two users have the same e-mail address."""
    command = CreateUser(user=user, email_hash=hash_email(user.email, await call.pepper()))
    return await call.run(command, describe_user, new="users")


@router.patch(
    "/users/{user_id}",
    response_model=UserAnswer,
    **documented("user-inactive", "user-erased", "email-taken", access=own_or("users:write")),
)
async def change_user(user_id: Id, changes: UserChanges, call: Call) -> Response:
    """Change a user's name or e-mail address. An address that is given up can be taken by others."""
    email_hash = hash_email(changes.email, await call.pepper()) if changes.email else None
    return await call.run(ChangeUser(user_id=user_id, changes=changes, email_hash=email_hash), describe_user)


@router.post("/users/{user_id}/deactivate", response_model=UserAnswer, **documented("user-erased", access=only("users:write")))
async def deactivate_user(user_id: Id, call: Call) -> Response:
    """Deactivate a user, who can then open no accounts. Doing it again changes nothing."""
    return await call.run(DeactivateUser(user_id=user_id), describe_user)


@router.post("/users/{user_id}/reactivate", response_model=UserAnswer, **documented("user-erased", access=only("users:write")))
async def reactivate_user(user_id: Id, call: Call) -> Response:
    """Reactivate a user. Doing it again changes nothing."""
    return await call.run(ReactivateUser(user_id=user_id), describe_user)


@router.post("/users/{user_id}/erase", response_model=UserAnswer, **documented(access=only("users:write")))
async def erase_user(user_id: Id, call: Call) -> Response:
    """Destroy the key of everything personal that is stored about a user. There is no way back; accounts and money stay."""
    return await call.run(EraseUser(user_id=user_id), describe_user)


# ── accounts ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@router.post(
    "/accounts",
    status_code=201,
    response_model=AccountAnswer,
    **documented(
        "amount-out-of-range", "currency-unknown", "id-taken", "user-inactive", "user-erased", access=only("accounts:write")
    ),
)
async def open_account(command: OpenAccount, call: Call) -> Response:
    """Open an account in one currency for a user. Its balance never goes below the negative of its overdraft limit."""
    return await call.run(command, describe_account, new="accounts")


@router.post(
    "/accounts/{account_id}/freeze", response_model=AccountAnswer, **documented("account-closed", access=only("accounts:write"))
)
async def freeze_account(account_id: Id, call: Call) -> Response:
    """Stop all money in and out of an account. Doing it again changes nothing."""
    return await call.run(FreezeAccount(account_id=account_id), describe_account)


@router.post(
    "/accounts/{account_id}/unfreeze", response_model=AccountAnswer, **documented("account-closed", access=only("accounts:write"))
)
async def unfreeze_account(account_id: Id, call: Call) -> Response:
    """Let money move again. Doing it again changes nothing."""
    return await call.run(UnfreezeAccount(account_id=account_id), describe_account)


@router.post(
    "/accounts/{account_id}/close",
    response_model=AccountAnswer,
    **documented("account-frozen", "account-not-empty", access=only("accounts:write")),
)
async def close_account(account_id: Id, call: Call) -> Response:
    """Close an empty account for good. Doing it again changes nothing."""
    return await call.run(CloseAccount(account_id=account_id), describe_account)


# ── money ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@router.post(
    "/deposits",
    status_code=201,
    response_model=MoneyAnswer,
    **documented(*MONEY, access=only("transfers:write"), money=True),
)
async def deposit(command: Deposit, call: Call) -> Response:
    """Bring money from the outside world into an account."""
    return await call.run(command, describe_money, new="transfers", moves_money=True)


@router.post(
    "/withdrawals",
    status_code=201,
    response_model=MoneyAnswer,
    **documented(*MONEY, "insufficient-funds", access=own_or("transfers:write"), money=True),
)
async def withdraw(command: Withdraw, call: Call) -> Response:
    """Take money out of an account to the outside world."""
    return await call.run(command, describe_money, new="transfers", moves_money=True)


@router.post(
    "/transfers",
    status_code=201,
    response_model=TransferAnswer,
    **documented(*MONEY, "same-account", "insufficient-funds", access=own_or("transfers:write"), money=True),
)
async def transfer_funds(command: TransferFunds, call: Call) -> Response:
    """Move money from one account to another of the same currency."""
    return await call.run(command, describe_money, new="transfers", moves_money=True)


@router.post(
    "/transfers/batch",
    response_model=TransferResults,
    **documented(*MONEY, "same-account", "insufficient-funds", access=own_or("transfers:write"), money=True),
)
async def transfer_many(wanted: TransferBatch, call: Call) -> Response:
    """Move money many times in one request: each transfer with its own verdict, or all or none."""
    if wanted.mode == "independent":
        return await call.run_each(wanted.transfers, describe_money)
    return await call.run(TransferAll(transfers=wanted.transfers), describe_all, moves_money=True)


PATHS: Final = [route.path for route in router.routes if isinstance(route, CommandRoute)]

# ── the app ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class State(TypedDict):
    """What lives as long as the app and reaches a request as `request.state`."""

    settings: Settings
    handler: CommandHandler
    gate: Gate
    refusals: Refusals
    engine: AsyncEngine


def checks(request: Request) -> dict[str, Check]:
    """PostgreSQL only: without Redis commands succeed and are projected a moment later."""
    return {"postgres": partial(ask_postgres, request.state.engine)}


def create_app(settings: Settings | None = None) -> FastAPI:
    """The command API; its settings come from the environment unless they are given."""
    configured = settings or settings_or_exit()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        async with open_postgres(configured, "daybook_command") as engine, open_redis(configured) as redis:
            await require_schema(engine, configured.schema_wait_seconds)
            await require_durable_postgres(engine)
            await require_safe(configured, "daybook_command", say)
            waker = Waker(redis, configured.wake_timeout_ms)
            handler = CommandHandler(engine, configured, waker.wake)
            gate = Gate(engine, redis, configured)
            refusals = Refusals(redis, configured, "commands", PATHS)
            calm_collector()
            yield State(settings=configured, handler=handler, gate=gate, refusals=refusals, engine=engine)
            await handler.close()
            await gate.close()
            await refusals.close()
            await waker.close()

    app = CommandApp(
        title="Daybook commands",
        version=version("daybook"),
        summary="Records users, accounts and the movement of money.",
        description=DESCRIPTION,
        lifespan=lifespan,
        generate_unique_id_function=lambda route: route.name,
    )
    app.include_commands(router, configured.cors_origins)
    app.include_router(health_router(checks))
    prepare(app, configured.log_level)
    return app


DESCRIPTION: Final = """\
Every command is synchronous and durable: when the answer arrives, its event is on disk. Money is an integer count of minor units.

Send an `Idempotency-Key` with each command that moves money: the same key with the same content has one effect and one answer,
forever. Errors are `application/problem+json` with a stable `code`.
"""
