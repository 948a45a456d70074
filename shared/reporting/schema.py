"""The migrations of SQL reporting, for `daybook migrate` and for tests."""

from pathlib import Path
from typing import Any, Final

from alembic.config import Config

MIGRATIONS: Final = Path(__file__).parent / "migrations"


def reporting_migrations(url: str, **attributes: Any) -> Config:
    """Returns the configuration with which alembic's commands migrate the database at a URL."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    config.attributes.update(attributes, url=url)
    return config
