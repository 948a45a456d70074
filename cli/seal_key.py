"""`daybook seal-key`: the key that seals are signed with, and what others check them with."""

from typing import Annotated

import typer

from shared.errors import SettingsInvalid
from shared.seals import SealingKey, new_seed
from shared.settings import read_settings


def seal_key(
    *, new: Annotated[bool, typer.Option("--new", help="Make up a secret key for DAYBOOK_SEAL_KEY instead.")] = False
) -> None:
    """Print the public key that belongs to DAYBOOK_SEAL_KEY, for auditors: base64 of 32 bytes.

    Example: daybook seal-key > daybook-public-key
    """
    if new:
        typer.echo(new_seed())
        return
    seed = read_settings().seal_key
    if seed is None:
        raise SettingsInvalid(["DAYBOOK_SEAL_KEY: field required"])
    typer.echo(SealingKey(seed.get_secret_value()).public_text())
