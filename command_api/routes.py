"""The routes of the command API, one for each command. Those that move money are in `money_routes`, and schedules
in `schedule_routes`.

A route builds a command and runs it. `requests.CommandRoute` reads and validates the request body, whose fields are those of the
command. The rules are in `domain`, and `answers` builds the body of the answer.
"""

from http import HTTPStatus
from typing import Final

from fastapi import APIRouter, Response

from command_api.answers import (
    AccountBody,
    LoginBody,
    ResetTokenBody,
    SessionsBody,
    UserBody,
    account_body,
    login_body,
    reset_token_body,
    sessions_body,
    user_body,
)
from command_api.credentials.login import LoginCredentials
from command_api.credentials.password_changes import NewPassword, TokenPassword, UserChangesBody
from command_api.day_routes import day_router
from command_api.documentation import (
    BODY_PROBLEMS,
    LIMIT_PROBLEMS,
    MONEY_PROBLEMS,
    documented,
    documented_login,
    documented_reset,
)
from command_api.domain.account import (
    ChangeOverdraftLimit,
    CloseAccount,
    FreezeAccount,
    NewOverdraftLimit,
    OpenAccount,
    UnfreezeAccount,
)
from command_api.domain.account_limits import ChangeLimits, NewLimits
from command_api.domain.account_metadata import ChangeAccountMetadata, NewMetadata
from command_api.domain.hold import CaptureHold, HoldCapture, PlaceHold, ReleaseHold
from command_api.domain.user import (
    ChangeUser,
    CreateUser,
    DeactivateUser,
    EraseUser,
    NewUser,
    ReactivateUser,
    UserChanges,
    hash_email,
)
from command_api.hold_answers import CaptureBody, HoldBody, capture_body, hold_body
from command_api.key_routes import key_router
from command_api.ledger_routes import ledger_router
from command_api.money_routes import money_router
from command_api.projection_routes import projection_router
from command_api.requests import CommandRoute, HttpRequest
from command_api.schedule_routes import schedule_router
from command_api.verification_routes import verification_router
from command_api.webhook_routes import webhook_router
from shared.currency_table import HISTORICAL
from shared.errors import CurrencyUnknown
from shared.identity.access import Principal, anybody, only, only_own, own_or
from shared.identity.audit_records import ActCaller
from shared.input_types import Id
from shared.web.problems import validation_failed

WITHDRAWN: Final = "ISO 4217 has withdrawn this currency. To open accounts in it, name it in DAYBOOK_HISTORICAL_CURRENCIES"

router = APIRouter(prefix="/v1", route_class=CommandRoute)
for others in (
    money_router,
    schedule_router,
    ledger_router,
    day_router,
    webhook_router,
    projection_router,
    verification_router,
    key_router,
):
    router.routes.extend(others.routes)


def _act_caller(request: HttpRequest, principal: Principal | None) -> ActCaller:
    """Returns the caller for an audit record. `principal` is None if the route needs no credential."""
    return ActCaller.of_request(principal, request.state.address, request.state.request_id)


# ── users ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@router.post(
    "/users", status_code=201, response_model=UserBody, **documented("id-taken", "email-taken", access=only("users:write"))
)
async def create_user(user: NewUser, request: HttpRequest) -> Response:
    """Create a user. No two users have the same e-mail address."""
    command = CreateUser(user=user, email_hash=hash_email(user.email, await request.pepper()))
    return await request.run(command, user_body, new="users")


@router.patch(
    "/users/{user_id}",
    response_model=UserBody,
    **documented("user-inactive", "user-erased", "email-taken", "password-wrong", access=own_or("users:write")),
)
async def change_user(user_id: Id, body: UserChangesBody, request: HttpRequest) -> Response:
    """Change a user's name, e-mail address or metadata. Other users can then use the old address.

    The address is the login name. Customers who change it must send their current password. Other callers need the scope
    `credentials:write` as well. Metadata are encrypted like the name, and only operators can change them: the pairs replace all
    that the user has. The answer is the user without metadata, which queries show.
    """
    about = request.ledger_id(), user_id, body, request.principal, request.state.address, _act_caller(request, request.principal)
    await request.state.passwords.require_right_to_move(*about)
    changes = UserChanges(**body.model_dump(include=body.model_fields_set - {"current_password"}))
    # A stored reply has a hash of the arguments. It must not tell whether a guessed password is the right one.
    request.arguments = {"user_id": user_id, "body": changes}
    email_hash = hash_email(changes.email, await request.pepper()) if changes.email else None
    return await request.run(ChangeUser(user_id=user_id, changes=changes, email_hash=email_hash), user_body)


@router.post("/users/{user_id}/deactivate", response_model=UserBody, **documented("user-erased", access=only("users:write")))
async def deactivate_user(user_id: Id, request: HttpRequest) -> Response:
    """Deactivate a user, who can then neither log in nor open accounts. Repeating this changes nothing."""
    response = await request.run(DeactivateUser(user_id=user_id), user_body)
    return await _after_sessions_ended(user_id, request, response)


@router.post("/users/{user_id}/reactivate", response_model=UserBody, **documented("user-erased", access=only("users:write")))
async def reactivate_user(user_id: Id, request: HttpRequest) -> Response:
    """Reactivate a user. Repeating this changes nothing."""
    return await request.run(ReactivateUser(user_id=user_id), user_body)


@router.post("/users/{user_id}/erase", response_model=UserBody, **documented(access=only("users:write")))
async def erase_user(user_id: Id, request: HttpRequest) -> Response:
    """Erase a user's personal data by deleting the person key. This cannot be undone. Accounts and money stay."""
    response = await request.run(EraseUser(user_id=user_id), user_body)
    return await _after_sessions_ended(user_id, request, response)


async def _after_sessions_ended(user_id: str, request: HttpRequest, response: Response) -> Response:
    """Removes the user's sessions from Redis if the command succeeded. The command itself has already made them invalid."""
    if response.status_code == HTTPStatus.OK and not request.is_dry_run:
        await request.state.login.forget_sessions(request.ledger_id(), user_id)
        request.forget_credentials(user_id)
    return response


# ── logging in ───────────────────────────────────────────────────────────────────────────────────────────────────────


@router.post("/login", response_model=LoginBody, **documented_login("login-refused", *BODY_PROBLEMS, access=anybody()))
async def log_in(credentials: LoginCredentials, request: HttpRequest) -> Response:
    """Log in with an e-mail address and a password, and begin a session. Every failed login gets the same answer."""
    user_id, session = await request.state.login.log_in(
        request.unchecked_ledger_id(), credentials, request.state.address, _act_caller(request, None)
    )
    return request.secret_response(login_body(user_id, session))


@router.put(
    "/users/{user_id}/password",
    status_code=204,
    **documented_login("password-wrong", "user-inactive", "user-erased", *BODY_PROBLEMS, access=only_own("users:write")),
)
async def change_password(user_id: Id, new: NewPassword, request: HttpRequest) -> Response:
    """Change your own password and end all your sessions. You must send the current password."""
    about = request.ledger_id(), user_id, new, request.principal, request.state.address, _act_caller(request, request.principal)
    await request.state.passwords.change_password(*about)
    request.forget_credentials(user_id)
    return Response(status_code=204)


@router.post(
    "/users/{user_id}/reset-token",
    response_model=ResetTokenBody,
    **documented_login("user-inactive", "user-erased", access=only("credentials:write")),
)
async def issue_reset_token(user_id: Id, request: HttpRequest) -> Response:
    """Issue a token with which a user can set a password once, within an hour. It replaces an earlier token of the user.

    The sessions that begin with the password have those of a customer's scopes that your key has, and end with your key.
    """
    caller = _act_caller(request, request.principal)
    issued = await request.state.passwords.issue_reset_token(request.ledger_id(), user_id, request.principal, caller)
    return request.secret_response(reset_token_body(user_id, issued))


@router.post(
    "/password-resets", status_code=204, **documented_reset("reset-token-invalid", "user-inactive", "user-erased", *BODY_PROBLEMS)
)
async def reset_password(given: TokenPassword, request: HttpRequest) -> Response:
    """Set a password with a reset token, and end all sessions of the user. The token can be used once."""
    reset = await request.state.passwords.reset_password(given, _act_caller(request, None))
    request.state.authentication.forget(reset.ledger_id, reset.user_id)
    return Response(status_code=204)


@router.get(
    "/users/{user_id}/sessions", response_model=SessionsBody, **documented_login(access=own_or("users:write", "ledger:read"))
)
async def list_sessions(user_id: Id, request: HttpRequest) -> Response:
    """List the sessions of a user that have not ended, newest first."""
    await request.state.login.require_own(request.ledger_id(), user_id, request.principal)
    sessions = await request.state.login.sessions.all_of(request.ledger_id(), user_id)
    return request.json_response(sessions_body(sessions, request.principal))


@router.delete("/users/{user_id}/sessions/{session_id}", status_code=204, **documented_login(access=own_or("users:write")))
async def end_session(user_id: Id, session_id: Id, request: HttpRequest) -> Response:
    """End a session. To log out, end your own session. Repeating this changes nothing."""
    await request.state.login.require_own(request.ledger_id(), user_id, request.principal)
    await request.state.login.end_session(request.ledger_id(), user_id, session_id, _act_caller(request, request.principal))
    request.forget_credentials(user_id)
    return Response(status_code=204)


@router.delete("/users/{user_id}/sessions", status_code=204, **documented_login(access=own_or("users:write")))
async def end_sessions(user_id: Id, request: HttpRequest) -> Response:
    """End all sessions of a user, including the one that this request was sent with."""
    await request.state.login.require_own(request.ledger_id(), user_id, request.principal)
    await request.state.login.end_sessions(request.ledger_id(), user_id, _act_caller(request, request.principal))
    request.forget_credentials(user_id)
    return Response(status_code=204)


# ── accounts ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@router.post(
    "/accounts",
    status_code=201,
    response_model=AccountBody,
    **documented(
        "amount-out-of-range", "currency-unknown", "id-taken", "user-inactive", "user-erased", access=only("accounts:write")
    ),
)
async def open_account(command: OpenAccount, request: HttpRequest) -> Response:
    """Open an account in one currency for a user. The balance can fall below zero only as far as the overdraft limit allows.

    `GET /v1/currencies` lists the currencies. Those that ISO 4217 has withdrawn need `DAYBOOK_HISTORICAL_CURRENCIES`.
    """
    if command.currency in HISTORICAL and command.currency not in request.state.settings.historical_currencies.split(","):
        raise validation_failed([{"loc": ("body", "currency"), "type": "currency_unknown", "msg": WITHDRAWN}], CurrencyUnknown)
    return await request.run(command, account_body, new="accounts")


@router.post(
    "/accounts/{account_id}/freeze", response_model=AccountBody, **documented("account-closed", access=only("accounts:write"))
)
async def freeze_account(account_id: Id, request: HttpRequest) -> Response:
    """Freeze an account: no money can move into it or out of it. Repeating this changes nothing."""
    return await request.run(FreezeAccount(account_id=account_id), account_body)


@router.post(
    "/accounts/{account_id}/unfreeze", response_model=AccountBody, **documented("account-closed", access=only("accounts:write"))
)
async def unfreeze_account(account_id: Id, request: HttpRequest) -> Response:
    """Unfreeze an account: money can move again. Repeating this changes nothing."""
    return await request.run(UnfreezeAccount(account_id=account_id), account_body)


@router.post(
    "/accounts/{account_id}/close",
    response_model=AccountBody,
    **documented("account-frozen", "account-not-empty", access=only("accounts:write")),
)
async def close_account(account_id: Id, request: HttpRequest) -> Response:
    """Close an empty account permanently. Repeating this changes nothing."""
    return await request.run(CloseAccount(account_id=account_id), account_body)


@router.put(
    "/accounts/{account_id}/overdraft-limit",
    response_model=AccountBody,
    **documented(
        "amount-out-of-range", "account-closed", "insufficient-funds", "balance-out-of-range", access=only("accounts:write")
    ),
)
async def change_overdraft_limit(account_id: Id, body: NewOverdraftLimit, request: HttpRequest) -> Response:
    """Change how far below zero the balance may go. The limit cannot be lowered by more than is available.

    Repeating this changes nothing. The events of the account's stream show all changes.
    """
    command = ChangeOverdraftLimit(account_id=account_id, overdraft_limit=body.overdraft_limit)
    return await request.run(command, account_body)


@router.patch("/accounts/{account_id}", response_model=AccountBody, **documented("account-closed", access=only("accounts:write")))
async def change_account(account_id: Id, body: NewMetadata, request: HttpRequest) -> Response:
    """Change the metadata of an account. The pairs replace all that it has. Repeating this changes nothing.

    The answer is the account without its metadata, which queries show.
    """
    return await request.run(ChangeAccountMetadata(account_id=account_id, metadata=body.metadata), account_body)


@router.put(
    "/accounts/{account_id}/limits",
    response_model=AccountBody,
    **documented("amount-out-of-range", "account-closed", access=only("accounts:write")),
)
async def change_limits(account_id: Id, body: NewLimits, request: HttpRequest) -> Response:
    """Change what an account may spend: the smallest and largest amount of a transfer, and the most in a day and in a month.

    The body has all limits: one that is null or left out is removed. Days and months are those of UTC. A limit counts what is
    spent while the account has it, and keeps its count when its amount changes. Repeating this changes nothing.
    """
    return await request.run(ChangeLimits(account_id=account_id, limits=body), account_body)


# ── holds ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@router.post(
    "/holds",
    status_code=201,
    response_model=HoldBody,
    **documented(
        *MONEY_PROBLEMS,
        "same-account",
        "hold-expiry-passed",
        "too-many-holds",
        "insufficient-funds",
        access=only("transfers:write"),
        money=True,
    ),
)
async def place_hold(command: PlaceHold, request: HttpRequest) -> Response:
    """Reserve money of an account. It cannot be spent until the hold is captured, released or has expired.

    A hold expires exactly at `expires_at`.
    """
    return await request.run(command, hold_body, new="holds", moves_money=True)


@router.post(
    "/holds/{hold_id}/capture",
    status_code=201,
    response_model=CaptureBody,
    **documented(
        *MONEY_PROBLEMS,
        *LIMIT_PROBLEMS,
        "same-account",
        "hold-not-active",
        "hold-amount-exceeded",
        "balance-out-of-range",
        access=only("transfers:write"),
        money=True,
    ),
)
async def capture_hold(hold_id: Id, body: HoldCapture, request: HttpRequest) -> Response:
    """Move held money, all that remains or a part of it. The answer has the transfer and the hold.

    A part leaves the rest held. With `final`, the rest is released.
    """
    return await request.run(CaptureHold(hold_id=hold_id, capture=body), capture_body, new="transfers", moves_money=True)


@router.post("/holds/{hold_id}/release", response_model=HoldBody, **documented("hold-not-active", access=only("transfers:write")))
async def release_hold(hold_id: Id, request: HttpRequest) -> Response:
    """End a hold. What it still holds can be spent again."""
    return await request.run(ReleaseHold(hold_id=hold_id), hold_body)
