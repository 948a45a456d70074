"""`daybook migrate`: brings PostgreSQL to the schema that this code needs."""

import typer
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationInfo
from alembic.util import CommandError

from dev.data_folder import ROOT
from shared.errors import SchemaMismatch


def _print_migration(*, step: MigrationInfo, **_: object) -> None:
    typer.echo(f"ran migration {step.up_revision_id}")


def migrate() -> None:
    """Run the missing migrations. Uses DAYBOOK_MIGRATION_DATABASE_URL, or DAYBOOK_DATABASE_URL if that is not set.

    Example: daybook migrate
    """
    config = Config()
    config.set_main_option("script_location", str(ROOT / "migrations").replace("%", "%%"))
    config.attributes["on_version_apply"] = _print_migration
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise SchemaMismatch(f"cannot migrate: {error}") from error
    typer.echo("the schema is up to date")
