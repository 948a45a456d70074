"""`daybook seal-key`: makes the secret key that signs seals, and prints the public key that checks them."""

from typing import Annotated

import typer

from shared.errors import SettingsInvalid
from shared.proof.seals import SealingKey, new_seed
from shared.settings import read_settings


def seal_key(
    *, new: Annotated[bool, typer.Option("--new", help="Print a new secret key for DAYBOOK_SEAL_KEY instead.")] = False
) -> None:
    """Print the public key that belongs to DAYBOOK_SEAL_KEY, for auditors. It has 32 bytes and is encoded in base64.

    Example: daybook seal-key > daybook-public-key
    """
    if new:
        typer.echo(new_seed())
        return
    seed = read_settings().seal_key
    if seed is None:
        raise SettingsInvalid(["DAYBOOK_SEAL_KEY: field required"])
    typer.echo(SealingKey(seed.get_secret_value()).public_text())
