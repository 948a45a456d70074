"""`daybook master-keys`: rotates the master keys, which wrap the person keys."""

import typer
import uvloop

from cli.terminal_progress import TerminalProgress
from shared.privacy.key_rotation import rotate_master_keys
from shared.privacy.person_keys import PersonKeys
from shared.settings import Settings, read_settings
from shared.stores.postgres import open_postgres_as_owner
from shared.webhooks.secret_rotation import rewrap_secrets
from shared.webhooks.signatures import WebhookSecrets

app = typer.Typer(help="Rotate the master keys. They wrap the person keys, which encrypt personal data.", no_args_is_help=True)


@app.callback()
def main() -> None:
    """Does nothing. Without a callback, Typer would replace a group that has a single command by that command."""


@app.command()
def rotate() -> None:
    """Wrap all person keys and secrets of webhooks with the newest master key, which is the first in DAYBOOK_MASTER_KEYS.

    All processes may keep running. If you interrupt the command, run it again to continue. Afterwards, only backups need the
    older master keys. At the end, the table of person keys is rewritten, so that no deleted key remains in its file.

    Example: daybook master-keys rotate
    """
    rewrapped, key_id = uvloop.run(_rotate(read_settings()))
    typer.echo(f"{rewrapped} person keys were wrapped again; master key {key_id} now wraps all person keys")


async def _rotate(settings: Settings) -> tuple[int, str]:
    """Rotates the master keys. Returns the number of person keys wrapped again, and the id of the newest master key."""
    person_keys = PersonKeys(settings)
    async with open_postgres_as_owner(settings) as owner:
        async with owner.connect() as connection:
            total = await person_keys.count_old(connection)
        with TerminalProgress("rotate", total, "keys") as progress:
            rewrapped = await rotate_master_keys(owner, person_keys, progress.advance)
        await rewrap_secrets(owner, WebhookSecrets(settings))
    return rewrapped, person_keys.newest_id
