"""Keeps secrets of a development stack in files that only their owner may read."""

import secrets
from collections.abc import Callable
from pathlib import Path

from shared.errors import StackError
from shared.private_files import write_private


def keep_secret(path: Path, make: Callable[[], str] = secrets.token_urlsafe, needed_by: Path | None = None) -> str:
    """Returns the secret in this file. If the file does not exist, makes a secret and writes it first.

    `needed_by` is a folder with data that are lost without the secret that they were made with.

    Raises:
        StackError: the file is missing, and the folder `needed_by` exists.
    """
    if not path.exists():
        if needed_by and needed_by.exists():
            raise StackError(
                f"{path} is missing, and the data in {needed_by} are of no use without it: put the file back, or delete the "
                f"folder {path.parent} to begin with an empty ledger"
            )
        write_private(path, make())
    return path.read_text()
