"""The file with the user's profiles: where the two APIs are, with which API key, and in which ledger.

Only its owner may read the file. If others can, it is refused, because they may know the keys.
"""

import os
import stat
from pathlib import Path
from typing import Final

import msgspec

from shared.errors import SettingsInvalid
from shared.private_files import write_private

OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


class Profile(msgspec.Struct, forbid_unknown_fields=True):
    """A Daybook that the user uses. Without a ledger, requests go to the ledger of the API key."""

    command_url: str
    query_url: str
    api_key: str
    ledger: str | None = None


class ProfileFile(msgspec.Struct, forbid_unknown_fields=True):
    """The content of the file."""

    current: str | None = None
    """The name of the profile that is used if the command and the environment name nothing else."""
    profiles: dict[str, Profile] = {}


def profile_path() -> Path:
    """Returns the path of the file, in the user's folder for configuration.

    Raises:
        SettingsInvalid: the user has no home folder.
    """
    try:
        return Path(os.environ.get("XDG_CONFIG_HOME") or Path("~/.config").expanduser()) / "daybook" / "profiles.json"
    except RuntimeError:
        raise SettingsInvalid(["XDG_CONFIG_HOME: is not set, and there is no home folder for profiles"]) from None


def read_profiles() -> ProfileFile:
    """Reads the file. No file is a file without profiles.

    Raises:
        SettingsInvalid: others can read the file, or it is not what `write_profiles` writes. The message repeats no key.
        OSError: the file cannot be read.
    """
    path = profile_path()
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return ProfileFile()
    with os.fdopen(descriptor, "rb") as file:
        if os.fstat(descriptor).st_mode & OTHERS:
            advice = f"run `chmod 600 {path}`, and rotate the keys if somebody else may have read them"
            raise SettingsInvalid([f"{path}: other users can read the API keys in it: {advice}"])
        try:
            return msgspec.json.decode(file.read(), type=ProfileFile)
        except msgspec.DecodeError as error:
            raise SettingsInvalid([f"{path}: {error}: correct it, or remove it and add the profiles again"]) from None


def write_profiles(file: ProfileFile) -> None:
    """Writes the file, whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    path = profile_path()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(path, msgspec.json.format(msgspec.json.encode(file), indent=2).decode() + "\n")
