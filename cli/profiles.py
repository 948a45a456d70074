"""`daybook profiles`: keeps the addresses and API keys that the commands for people use."""

import os
import re
import sys
from typing import Annotated, Final

import typer

from cli.api_access import VARIABLES, ApiLedgerOption, checked_profile, profile_names, read_environment
from cli.profile_file import Profile, ProfileFile, profile_path, read_profiles, write_profiles
from cli.tables import print_table
from shared.http_values import read_http_url

app = typer.Typer(help="Keep the addresses and API keys of the Daybooks that you use, each under a name.", no_args_is_help=True)

NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")
KEY_PARTS: Final = 3
"""`dbk_<key id>_<secret>`"""


def _new_name(value: str) -> str:
    if not NAME.fullmatch(value):
        raise typer.BadParameter("give at most 31 lower-case letters, digits and hyphens")
    return value


def _known_name(value: str) -> str:
    if value not in read_profiles().profiles:
        raise typer.BadParameter("no profile has this name (`daybook profiles list` shows all)")
    return value


def _url(value: str | None) -> str | None:
    try:
        return value and read_http_url(value)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


NewName = Annotated[str, typer.Argument(metavar="NAME", help="A name for the profile, such as `production`.", callback=_new_name)]
KnownName = Annotated[
    str, typer.Argument(metavar="NAME", help="The name of the profile.", callback=_known_name, autocompletion=profile_names)
]


@app.command()
def add(
    name: NewName,
    command_url: Annotated[str | None, typer.Option(help="The URL of the command API.", metavar="URL", callback=_url)] = None,
    query_url: Annotated[str | None, typer.Option(help="The URL of the query API.", metavar="URL", callback=_url)] = None,
    ledger: ApiLedgerOption = None,
) -> None:
    """Add a profile, or replace the one of this name. The first one is used at once.

    Without both URLs, takes them and the API key from the variables that `daybook env` prints, or from the running development
    stack. With them, asks for the API key, or reads one line of stdin. The file is only for you: mode 0600.

    Example: daybook profiles add production --command-url https://write.example --query-url https://read.example < key
    """
    if (command_url is None) != (query_url is None):
        raise typer.BadParameter("give both --command-url and --query-url, or neither")
    file = read_profiles()
    if command_url is None:
        found = read_environment()
    else:
        found = {"command_url": command_url, "query_url": query_url, "api_key": _read_key()}
    file.profiles[name] = checked_profile(found, ledger)
    file.current = file.current or name
    write_profiles(file)
    typer.echo(f"{name}: added" + (", and in use" if file.current == name else ""))


def _read_key() -> str:
    """Asks for the API key on a terminal, where it is not shown. Elsewhere, it is the first line of stdin."""
    if sys.stdin.isatty():
        return str(typer.prompt("API key", hide_input=True, err=True)).strip()
    try:
        key = sys.stdin.readline().strip()
    except (OSError, UnicodeDecodeError):
        key = ""
    if not key:
        raise typer.BadParameter("give an API key in the first line of stdin")
    return key


@app.command(name="list")
def list_() -> None:
    """Show all profiles, with the id of each API key and never with its secret.

    Example: daybook profiles list
    """
    file = read_profiles()
    print_table(
        ("name", "in use", "command API", "query API", "ledger", "key id"),
        [_row(file, name, profile) for name, profile in sorted(file.profiles.items())],
    )
    if chosen := [variable for variable, _ in VARIABLES.values() if os.environ.get(variable)]:
        typer.echo(f"{chosen[0]} is set, so commands without --profile use the variables of the environment", err=True)


def _row(file: ProfileFile, name: str, profile: Profile) -> tuple[str | None, ...]:
    parts = profile.api_key.split("_", KEY_PARTS - 1)
    key_id = parts[1] if len(parts) == KEY_PARTS else None
    return name, "yes" if name == file.current else None, profile.command_url, profile.query_url, profile.ledger, key_id


@app.command()
def use(name: KnownName) -> None:
    """Use a profile in all commands for which neither --profile nor the environment names another.

    Example: daybook profiles use production
    """
    file = read_profiles()
    file.current = name
    write_profiles(file)
    typer.echo(f"{name}: in use")


@app.command()
def remove(name: KnownName) -> None:
    """Remove a profile with its API key from the file. The key stays valid: `daybook keys revoke` ends it.

    Example: daybook profiles remove production
    """
    file = read_profiles()
    del file.profiles[name]
    file.current = None if file.current == name else file.current
    write_profiles(file)
    typer.echo(f"{name}: removed from {profile_path()}")
