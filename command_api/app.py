"""The routes of the command API: what each command is called in HTTP.

A route is one line that runs a command. The bodies are the commands' own fields and the rules are theirs too (`user`, `account`,
`transfer`); `answers` says what they answer, and `requests.CommandRoute` reads the arguments.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, Final, TypedDict

from fastapi import APIRouter, FastAPI, Request, Response
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from sqlalchemy.ext.asyncio import AsyncEngine

from command_api.account import CloseAccount, FreezeAccount, OpenAccount, UnfreezeAccount
from command_api.answers import (
    AccountAnswer,
    LoginAnswer,
    MoneyAnswer,
    SessionsAnswer,
    TransferAnswer,
    TransferResults,
    UserAnswer,
    describe_account,
    describe_all,
    describe_login,
    describe_money,
    describe_sessions,
    describe_user,
)
from command_api.handler import CommandHandler
from command_api.login import Credentials, Login, NewPassword
from command_api.requests import CALL_HEADERS, LEDGER_HEADER, Call, CommandApp, CommandRoute
from command_api.transfer import Deposit, TransferFunds, Withdraw
from command_api.transfers import TransferAll, TransferBatch
from command_api.user import ChangeUser, CreateUser, DeactivateUser, EraseUser, NewUser, ReactivateUser, UserChanges, hash_email
from command_api.wake import Waker
from shared.access import Rule, anybody, only, own_or
from shared.connections import open_postgres, open_redis, require_durable_postgres, require_schema
from shared.doctor import require_safe
from shared.fields import Id
from shared.garbage import calm_collector
from shared.gate import Gate
from shared.health import Check, ask_postgres, health_router
from shared.http import prepare, problem_responses
from shared.logs import say
from shared.metrics import Requests, metrics_router
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


def documented_login(*problems: str, access: Rule) -> dict[str, Any]:
    """What is no command: nothing of it stands in the log."""
    codes = ("rate-limited", "validation-failed", "not-found", "overloaded", "store-unavailable")
    known = () if access.anybody else ("unauthorized", "forbidden")
    return {
        "openapi_extra": {"parameters": [LEDGER_HEADER], **access.documented()},
        "responses": problem_responses(*problems, *known, *codes),
    }


ANY_BODY: Final = ("malformed-json", "unsupported-media-type", "payload-too-large", "request-timeout")
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
    """Deactivate a user, who can then open no accounts and not log in. Doing it again changes nothing."""
    return await _ending_sessions(user_id, call, await call.run(DeactivateUser(user_id=user_id), describe_user))


@router.post("/users/{user_id}/reactivate", response_model=UserAnswer, **documented("user-erased", access=only("users:write")))
async def reactivate_user(user_id: Id, call: Call) -> Response:
    """Reactivate a user. Doing it again changes nothing."""
    return await call.run(ReactivateUser(user_id=user_id), describe_user)


@router.post("/users/{user_id}/erase", response_model=UserAnswer, **documented(access=only("users:write")))
async def erase_user(user_id: Id, call: Call) -> Response:
    """Destroy the key of everything personal that is stored about a user. There is no way back; accounts and money stay."""
    return await _ending_sessions(user_id, call, await call.run(EraseUser(user_id=user_id), describe_user))


async def _ending_sessions(user_id: str, call: Call, answer: Response) -> Response:
    """Where the command was accepted, the user's sessions are worth nothing already."""
    if answer.status_code == HTTPStatus.OK:
        await call.state.login.end_sessions(call.ledger_id(), user_id)
        call.ended_for(user_id)
    return answer


# ── logging in ───────────────────────────────────────────────────────────────────────────────────────────────────────


@router.post("/login", response_model=LoginAnswer, **documented_login("login-refused", *ANY_BODY, access=anybody()))
async def log_in(credentials: Credentials, call: Call) -> Response:
    """Begin a session with an e-mail address and a password. Whatever is wrong, the answer is the same."""
    user_id, begun = await call.state.login.log_in(call.any_ledger_id(), credentials, call.state.address)
    return call.answer(describe_login(user_id, begun))


@router.put(
    "/users/{user_id}/password",
    status_code=204,
    **documented_login("password-wrong", "user-inactive", "user-erased", *ANY_BODY, access=own_or("users:write")),
)
async def set_password(user_id: Id, new: NewPassword, call: Call) -> Response:
    """Set a user's password, which ends all sessions of the user. Customers give the current one, if there is one."""
    await call.state.login.set_password(call.ledger_id(), user_id, new, call.principal, call.state.address)
    return call.ended_for(user_id)


@router.get(
    "/users/{user_id}/sessions", response_model=SessionsAnswer, **documented_login(access=own_or("users:write", "ledger:read"))
)
async def list_sessions(user_id: Id, call: Call) -> Response:
    """List the sessions of a user that have not ended, the newest first."""
    await call.state.login.require_own(call.ledger_id(), user_id, call.principal)
    sessions = await call.state.login.sessions.all_of(call.ledger_id(), user_id)
    return call.answer(describe_sessions(sessions, call.principal))


@router.delete("/users/{user_id}/sessions/{session_id}", status_code=204, **documented_login(access=own_or("users:write")))
async def end_session(user_id: Id, session_id: Id, call: Call) -> Response:
    """End a session; one's own is logging out. Ending it again changes nothing."""
    await call.state.login.require_own(call.ledger_id(), user_id, call.principal)
    await call.state.login.sessions.end(call.ledger_id(), user_id, session_id)
    return call.ended_for(user_id)


@router.delete("/users/{user_id}/sessions", status_code=204, **documented_login(access=own_or("users:write")))
async def end_sessions(user_id: Id, call: Call) -> Response:
    """End all sessions of a user, also the one that asks."""
    await call.state.login.require_own(call.ledger_id(), user_id, call.principal)
    await call.state.login.sessions.end_all(call.ledger_id(), user_id)
    return call.ended_for(user_id)


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
    login: Login
    gate: Gate
    refusals: Refusals
    requests: Requests
    engine: AsyncEngine


def checks(request: Request) -> dict[str, Check]:
    """PostgreSQL only: without Redis commands succeed and are projected a moment later."""
    return {"postgres": partial(ask_postgres, request.state.engine)}


async def load_of(request: Request, ledger_id: str) -> list[Metric]:
    """How busy the ledger's writer is."""
    handler: CommandHandler = request.state.handler
    writer = handler.writer(ledger_id)
    waiting = GaugeMetricFamily("daybook_commands_waiting", "Commands that no batch has taken yet.", labels=["ledger"])
    sizes = HistogramMetricFamily("daybook_batch_commands", "Commands in a transaction.", labels=["ledger"])
    if writer:
        waiting.add_metric([ledger_id], writer.waiting)
        sizes.add_metric([ledger_id], [*writer.batch_sizes.buckets()], writer.batch_sizes.total)
    return [waiting, sizes]


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
            login = Login(engine, handler, redis, configured)
            gate = Gate(engine, redis, configured)
            refusals = Refusals(redis, configured, "commands", PATHS)
            calm_collector()
            yield State(
                settings=configured,
                handler=handler,
                login=login,
                gate=gate,
                refusals=refusals,
                requests=Requests(),
                engine=engine,
            )
            await handler.close()
            login.close()
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
    app.include_router(metrics_router(load_of))
    prepare(app, configured.log_level)
    return app


DESCRIPTION: Final = """\
Every command is synchronous and durable: when the answer arrives, its event is on disk. Money is an integer count of minor units.

Send an `Idempotency-Key` with each command that moves money: the same key with the same content has one effect and one answer,
forever. Errors are `application/problem+json` with a stable `code`.
"""
