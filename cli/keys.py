"""`daybook keys`: makes, lists, rotates and revokes API keys. The PostgreSQL login needs the role `daybook_admin`."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, TypeVar

import typer
from pydantic import TypeAdapter, ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from cli.arguments import ledger_id, utf8
from cli.tables import print_table
from shared.identity import api_keys
from shared.identity.access import ALL_LEDGERS, CUSTOMER_SCOPES, SCOPES
from shared.identity.api_keys import ApiKey
from shared.identity.audit_records import ActCaller
from shared.input_types import Id
from shared.login_name import login_name
from shared.settings import read_settings
from shared.stores.postgres import open_postgres

T = TypeVar("T")

app = typer.Typer(help="Make, list, rotate and revoke API keys.", no_args_is_help=True)

NEVER: Final = "never"
_SPAN: Final = re.compile(r"([1-9][0-9]{0,4})([dhm])")
_UNITS: Final = {"d": "days", "h": "hours", "m": "minutes"}


def _span(value: str) -> timedelta | None:
    """Parses a duration such as `90d`, `24h` or `30m`. Returns None for `never`."""
    if value == NEVER:
        return None
    found = _SPAN.fullmatch(value)
    if found is None:
        raise typer.BadParameter("give a number of days, hours or minutes: 90d, 24h, 30m")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def _overlap(value: str) -> timedelta:
    return timedelta() if value == "0" else _span(value) or timedelta()


def _scopes(values: list[str], user_id: str | None) -> list[str]:
    unknown = [value for value in values if value not in SCOPES]
    if unknown:
        raise typer.BadParameter(f"there is no scope {unknown[0]!r}; the scopes are {', '.join(SCOPES)}", param_hint="--scope")
    return values or list(CUSTOMER_SCOPES if user_id else ())


def _user_id(value: str | None) -> str | None:
    try:
        return value and TypeAdapter[str](Id).validate_python(value)
    except ValidationError:
        raise typer.BadParameter("give the id of a user, which is a UUID") from None


KeyId = Annotated[
    str,
    typer.Argument(help="The id of the key: the part between its underscores, as `daybook keys list` shows it.", callback=utf8),
]


@app.command()
def create(
    name: Annotated[
        str,
        typer.Option(help="The name of the key's holder. Events that the key causes name it as the principal.", callback=utf8),
    ],
    scope: Annotated[
        list[str] | None, typer.Option(help=f"A scope of the key: {', '.join(SCOPES)}. Repeat the option for more.")
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(help="Make a customer's key, which can read and move only what this user owns.", callback=_user_id),
    ] = None,
    ledger: Annotated[str, typer.Option(help="The only ledger that the key gives access to.", callback=ledger_id)] = "main",
    *,
    all_ledgers: Annotated[
        bool, typer.Option("--all-ledgers", help="Make a key for all ledgers, also new ones. Its scope is ops:admin.")
    ] = False,
    expires: Annotated[
        str, typer.Option(help="How long the key is valid, such as 90d, 24h or 30m, or never to not expire.")
    ] = "90d",
) -> None:
    """Make a key and show it. It cannot be shown again. A customer's key without --scope gets all scopes that customers can use.

    Example: daybook keys create --name billing --scope transfers:write --scope ledger:read --expires 90d
    """
    scopes, lifetime = _scopes(scope or [], user), _span(expires)
    ledger_id_of_key = ALL_LEDGERS if all_ledgers else ledger
    if not scopes:
        raise typer.BadParameter("give at least one scope", param_hint="--scope")

    async def make(connection: AsyncConnection) -> str:
        return await api_keys.make_key(
            connection, name, scopes, ledger_id=ledger_id_of_key, user_id=user, lifetime=lifetime, caller=_operator()
        )

    typer.echo(_as_admin(make))


@app.command(name="list")
def list_() -> None:
    """Show all keys, without their secrets.

    Example: daybook keys list
    """
    rows = []
    for key in _as_admin(api_keys.list_keys):
        shown = (key.user_id, " ".join(key.scopes), _state(key), _moment(key.expires_at), _moment(key.last_used_at))
        rows.append((key.key_id, "all" if key.ledger_id == ALL_LEDGERS else key.ledger_id, key.principal, *shown))
    print_table(("key", "ledger", "principal", "customer", "scopes", "state", "expires", "last used"), rows)


def _state(key: ApiKey) -> str:
    if key.revoked_at:
        return "revoked"
    return "expired" if key.expires_at and key.expires_at <= datetime.now(UTC) else "valid"


def _moment(moment: datetime | None) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M") if moment else "never"


@app.command()
def revoke(key_id: KeyId) -> None:
    """Revoke a key. The APIs stop accepting it within 5 seconds, and also the passwords and sessions that come from it.

    Example: daybook keys revoke k3vq7m2xnp
    """

    async def end(connection: AsyncConnection) -> None:
        await api_keys.revoke_key(connection, key_id, _operator())

    _as_admin(end)


@app.command()
def rotate(
    key_id: KeyId,
    overlap: Annotated[str, typer.Option(help="How long the old key stays valid, such as 24h or 30m, or 0.")] = "24h",
) -> None:
    """Replace a key: make and show a new one for the same principal. A request may be repeated with the new key.

    Example: daybook keys rotate k3vq7m2xnp --overlap 24h
    """
    span = _overlap(overlap)

    async def renew(connection: AsyncConnection) -> str:
        return await api_keys.rotate_key(connection, key_id, span, _operator())

    typer.echo(_as_admin(renew))


def _operator() -> ActCaller:
    """Returns the caller of these commands for audit records."""
    return ActCaller.operator(login_name())


def _as_admin(work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    """Runs `work` in one transaction as the role `daybook_admin`, and returns its result. Uses the migration URL if it is set."""
    settings = read_settings()
    owners = settings.model_copy(update={"database_url": settings.migration_database_url or settings.database_url})

    async def run() -> Any:
        async with open_postgres(owners, "daybook_admin", keeps_session=True) as engine, engine.begin() as connection:
            return await work(connection)

    result: T = asyncio.run(run())
    return result
