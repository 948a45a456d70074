"""`daybook migrate`: brings PostgreSQL, and the reporting database if there is one, to the schemas that this code needs.

It also distributes tables over the servers of Citus, and collections over the shards of MongoDB.
"""

import asyncio
import os
from importlib import import_module
from typing import Annotated

import typer
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationInfo
from alembic.util import CommandError

from dev.data_folder import ROOT
from shared.errors import SchemaMismatch, SettingsInvalid
from shared.read_models.sharding import shard_collections
from shared.settings import read_settings
from shared.stores.citus import distribute_tables


def _print_migration(*, step: MigrationInfo, **_: object) -> None:
    typer.echo(f"ran migration {step.up_revision_id}")


def migrate(
    *,
    citus: Annotated[
        bool, typer.Option("--citus", help="Then distribute the tables over the servers of Citus, by ledger.")
    ] = False,
    mongo_sharding: Annotated[
        bool, typer.Option("--mongo-sharding", help="Then distribute the collections over the shards of MongoDB, by ledger.")
    ] = False,
) -> None:
    """Run the missing migrations. Uses DAYBOOK_MIGRATION_DATABASE_URL, or DAYBOOK_DATABASE_URL if that is not set.

    If DAYBOOK_REPORTING_URL is set, also makes or changes the tables of SQL reporting.

    Example: daybook migrate
    """
    config = Config()
    config.set_main_option("script_location", str(ROOT / "migrations").replace("%", "%%"))
    config.attributes["on_version_apply"] = _print_migration
    _upgrade(config)
    typer.echo("the schema is up to date")
    if url := os.environ.get("DAYBOOK_REPORTING_URL"):
        _upgrade(_reporting_migrations(url))
        typer.echo("the reporting tables are up to date")
    if citus:
        asyncio.run(_distribute_tables())
    if mongo_sharding:
        asyncio.run(_shard_collections())


async def _distribute_tables() -> None:
    url = os.environ.get("DAYBOOK_MIGRATION_DATABASE_URL") or os.environ["DAYBOOK_DATABASE_URL"]  # the migrations have run
    async for statement in distribute_tables(url):
        typer.echo(statement)
    typer.echo("the tables are distributed by ledger")


async def _shard_collections() -> None:
    async for line in shard_collections(read_settings()):
        typer.echo(line)
    typer.echo("the collections are sharded by ledger")


def _upgrade(config: Config) -> None:
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise SchemaMismatch(f"cannot migrate: {error}") from error


def _reporting_migrations(url: str) -> Config:
    try:
        schema = import_module("shared.reporting.schema")
        found: Config = schema.reporting_migrations(url, on_version_apply=_print_migration)
    except ModuleNotFoundError as missing:
        problem = f"needs the package {missing.name}, which is not installed: run `pip install 'daybook[sql]'`"
        raise SettingsInvalid([f"DAYBOOK_REPORTING_URL: {problem}"]) from None
    return found
