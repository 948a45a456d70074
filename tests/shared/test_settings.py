"""Settings that are wrong: the message names the variable, and never shows a secret's value."""

import traceback
from pathlib import Path
from typing import Any

import pytest

from dev.development_key import development_key
from shared.errors import SettingsInvalid
from shared.settings import Settings, read_settings
from tests.harness.log import MASTER_KEY

SECRETS = ("master_keys", "secret", "seal_key")
GIVEN: dict[str, Any] = {"database_url": "", "mongo_url": "", "redis_url": "", "secret": "x" * 32, "master_keys": MASTER_KEY}


@pytest.mark.parametrize("name", SECRETS)
def test_no_error_shows_the_value_of_a_mistyped_secret(name: str) -> None:
    """Neither the line for people nor the traceback of pydantic's own error."""
    wrong = {**GIVEN, name: "tell-nobody"}
    with pytest.raises(SettingsInvalid, match=f"DAYBOOK_{name.upper()}") as told:
        read_settings(**wrong)
    with pytest.raises(ValueError, match=name) as raised:
        Settings(**wrong)
    for error in (told.value, raised.value):
        assert "tell-nobody" not in "".join(traceback.format_exception(error))


async def test_the_development_stack_tells_of_a_mistyped_secret_in_one_line(tmp_path: Path) -> None:
    environment = {
        **{f"DAYBOOK_{name.upper()}": value for name, value in GIVEN.items()},
        "DAYBOOK_MIGRATION_DATABASE_URL": "",
        "DAYBOOK_MASTER_KEYS": "tell-nobody",
    }
    with pytest.raises(SettingsInvalid) as told:
        await development_key(tmp_path, environment)
    assert "\n" not in str(told.value)
    assert "tell-nobody" not in "".join(traceback.format_exception(told.value))
