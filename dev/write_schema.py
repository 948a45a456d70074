"""Writes the file with the definition of PostgreSQL's schema, from a new database with all migrations. `make schema` runs this.

Run it after you add or change a migration: `daybook verify` compares databases with the file.
"""

import asyncio
import base64
import tempfile
from pathlib import Path

from dev.daybook_processes import migrate
from dev.servers import Postgres, start_all, stop_all
from shared.settings import Settings
from shared.stores import schema_definition
from shared.stores.postgres import open_postgres_as_owner


async def write_schema(folder: Path) -> None:
    postgres = Postgres("postgres", folder)
    await start_all(postgres)
    try:
        await migrate(folder, {"DAYBOOK_DATABASE_URL": postgres.url})
        unused = {"mongo_url": "", "redis_url": "", "secret": "x" * 32, "master_keys": base64.b64encode(bytes(32)).decode()}
        settings = Settings.model_validate({"database_url": postgres.url, **unused})
        async with open_postgres_as_owner(settings) as engine, engine.connect() as connection:
            lines = await schema_definition.read_definition(connection)
    finally:
        await stop_all(postgres)
    file = Path(schema_definition.__file__).with_name(schema_definition.FILE_NAME)
    await asyncio.to_thread(file.write_text, "\n".join(lines) + "\n")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        asyncio.run(write_schema(Path(made)))
