"""`daybook migrate`: brings the database's schema to what this code needs."""

import logging

import typer
from alembic import command
from alembic.config import Config
from sqlalchemy.exc import DBAPIError

from dev.folder import ROOT
from shared.errors import SchemaMismatch


class _OneLineEach(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith("Running"):
            typer.echo(record.getMessage())


def migrate() -> None:
    """Run the migrations that are new; needs DAYBOOK_MIGRATION_DATABASE_URL or DAYBOOK_DATABASE_URL.

    Example: daybook migrate
    """
    steps = logging.getLogger("alembic.runtime.migration")
    steps.setLevel(logging.INFO)
    steps.addHandler(_OneLineEach())
    try:
        command.upgrade(Config(ROOT / "alembic.ini"), "head")
    except (OSError, DBAPIError) as error:
        reason = str(getattr(error, "orig", error)).splitlines()[0]
        raise SchemaMismatch(f"cannot migrate: {reason}") from error
    typer.echo("the schema is up to date")
