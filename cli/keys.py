"""`daybook keys`: makes, lists, rotates and revokes API keys. Needs a database login that may act as daybook_admin."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, TypeVar

import typer
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.table import Column, Table
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from shared import api_keys
from shared.access import CUSTOMER_SCOPES, SCOPES
from shared.api_keys import ApiKey
from shared.connections import open_postgres
from shared.errors import KeyRefused
from shared.fields import LEDGER_ID, Id
from shared.settings import read_settings

T = TypeVar("T")

app = typer.Typer(help="Make, list, rotate and revoke API keys.", no_args_is_help=True)

NEVER: Final = "never"
WIDE: Final = 400
_SPAN: Final = re.compile(r"([1-9][0-9]{0,4})([dhm])")
_UNITS: Final = {"d": "days", "h": "hours", "m": "minutes"}


def _span(value: str) -> timedelta | None:
    """`90d`, `24h`, `30m`; `never` is None."""
    if value == NEVER:
        return None
    found = _SPAN.fullmatch(value)
    if found is None:
        raise typer.BadParameter("a number of days, hours or minutes: 90d, 24h, 30m")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def _overlap(value: str) -> timedelta:
    return timedelta() if value == "0" else _span(value) or timedelta()


def _scopes(values: list[str], user_id: str | None) -> list[str]:
    unknown = [value for value in values if value not in SCOPES]
    if unknown:
        raise typer.BadParameter(f"there is no scope {unknown[0]!r}; there are {', '.join(SCOPES)}", param_hint="--scope")
    return values or list(CUSTOMER_SCOPES if user_id else ())


def _user_id(value: str | None) -> str | None:
    try:
        return value and TypeAdapter[str](Id).validate_python(value)
    except ValidationError:
        raise typer.BadParameter("a user's id is a UUID") from None


def _ledger_id(value: str) -> str:
    if not LEDGER_ID.fullmatch(value):
        raise typer.BadParameter("a lower-case name of letters, digits and hyphens, at most 31 long")
    return value


KeyId = Annotated[str, typer.Argument(help="The part between the underscores, as `daybook keys list` shows it.")]


@app.command()
def create(
    name: Annotated[str, typer.Option(help="Who has it; stands as principal in the events that it causes.")],
    scope: Annotated[list[str] | None, typer.Option(help=f"May be repeated. One of {', '.join(SCOPES)}.")] = None,
    user: Annotated[
        str | None, typer.Option(help="A customer's key: reads and moves only what is this user's own.", callback=_user_id)
    ] = None,
    ledger: Annotated[str, typer.Option(help="The only ledger that it opens.", callback=_ledger_id)] = "main",
    expires: Annotated[str, typer.Option(help="90d, 24h, 30m, or never.")] = "90d",
) -> None:
    """Make a key and show it, once. A customer's key without a scope has all that customers have a use for.

    Example: daybook keys create --name billing --scope transfers:write --scope ledger:read --expires 90d
    """
    scopes, lifetime = _scopes(scope or [], user), _span(expires)
    if not scopes:
        raise typer.BadParameter("give at least one", param_hint="--scope")

    async def make(connection: AsyncConnection) -> str:
        return await api_keys.make_key(connection, name, scopes, ledger_id=ledger, user_id=user, lifetime=lifetime)

    typer.echo(_as_admin(make))


@app.command(name="list")
def list_() -> None:
    """Show all keys, without their secrets.

    Example: daybook keys list
    """
    # Whole, however narrow the terminal: it is what `rotate` and `revoke` take.
    key_id = Column("key", no_wrap=True, min_width=10)
    table = Table(key_id, "ledger", "principal", "customer", "scopes", "state", "expires", "last used")
    for key in _as_admin(api_keys.list_keys):
        shown = (key.user_id or "", " ".join(key.scopes), _state(key), _moment(key.expires_at), _moment(key.last_used_at))
        table.add_row(key.key_id, key.ledger_id, key.principal, *shown)
    console = Console()
    # A script that reads it has no width to keep to.
    (console if console.is_terminal else Console(width=WIDE)).print(table)


def _state(key: ApiKey) -> str:
    if key.revoked_at:
        return "revoked"
    return "expired" if key.expires_at and key.expires_at <= datetime.now(UTC) else "valid"


def _moment(moment: datetime | None) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M") if moment else "never"


@app.command()
def revoke(key_id: KeyId) -> None:
    """End a key. The APIs refuse it within 5 seconds.

    Example: daybook keys revoke k3vq7m2xnp
    """

    async def end(connection: AsyncConnection) -> None:
        await api_keys.revoke_key(connection, key_id)

    _as_admin(end)


@app.command()
def rotate(
    key_id: KeyId,
    overlap: Annotated[str, typer.Option(help="How long the old key stays valid: 24h, 30m, 0.")] = "24h",
) -> None:
    """Make a new key for the same principal, and show it, once. Idempotency keys hold across the two.

    Example: daybook keys rotate k3vq7m2xnp --overlap 24h
    """
    span = _overlap(overlap)

    async def renew(connection: AsyncConnection) -> str:
        return await api_keys.rotate_key(connection, key_id, span)

    typer.echo(_as_admin(renew))


def _as_admin(work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    """In one transaction, on the owner's URL."""
    settings = read_settings()
    owners = settings.model_copy(update={"database_url": settings.migration_database_url or settings.database_url})

    async def run() -> Any:
        async with open_postgres(owners, "daybook_admin") as engine, engine.begin() as connection:
            return await work(connection)

    try:
        result: T = asyncio.run(run())
    except (OSError, DBAPIError) as error:
        reason = str(getattr(error, "orig", error)).partition("\n")[0]
        raise KeyRefused(f"PostgreSQL refuses or does not answer: {reason}") from error
    return result
