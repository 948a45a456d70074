"""How the commands for people reach the two APIs: by a profile, or by the variables that `daybook env` prints."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Final, NamedTuple, ParamSpec

import typer
from daybook_client import Daybook, NoAnswer, Problem

from cli.arguments import ledger_id
from cli.profile_file import Profile, ProfileFile, read_profiles
from cli.request_errors import RequestRefused
from cli.running_stack import use_running_stack
from shared.errors import SettingsInvalid, StoreUnavailable
from shared.http_values import read_header_value, read_http_url

P = ParamSpec("P")

ATTEMPTS_MAX: Final = 4
"""A person waits for each of them."""
PAGE_MAX: Final = 100
LIMIT: Final = 20
VARIABLES: Final = {
    "command_url": ("DAYBOOK_COMMAND_URL", read_http_url),
    "query_url": ("DAYBOOK_QUERY_URL", read_http_url),
    "api_key": ("DAYBOOK_API_KEY", read_header_value),
}
"""What a profile consists of: the variable that has it, and how it is checked."""


class ChosenProfile(NamedTuple):
    """The profile that a command uses, and where it comes from, in words."""

    source: str
    profile: Profile


def profile_names(incomplete: str) -> list[str]:
    """Completes the name of a profile. A file that cannot be read completes nothing."""
    try:
        return [name for name in read_profiles().profiles if name.startswith(incomplete)]
    except (OSError, SettingsInvalid):
        return []


ProfileOption = Annotated[
    str | None,
    typer.Option(
        envvar="DAYBOOK_PROFILE",
        help="The profile to use, as `daybook profiles list` shows it.",
        autocompletion=profile_names,
    ),
]
ApiLedgerOption = Annotated[
    str | None,
    typer.Option(
        "--ledger",
        help="The ledger. Default: that of the profile, or else that of its API key.",
        callback=lambda value: value and ledger_id(value),
    ),
]
LimitOption = Annotated[int, typer.Option(min=1, help="The most items to show. All pages that they need are read.")]


@contextmanager
def open_api(profile: str | None, ledger: str | None) -> Iterator[Daybook]:
    """Yields a client of both APIs.

    Raises:
        RequestRefused: an API refused a request of the block.
        StoreUnavailable: an API did not answer.
    """
    source, found = find_profile(profile)
    with Daybook(
        found.command_url, found.query_url, found.api_key, ledger=ledger or found.ledger, attempts_max=ATTEMPTS_MAX
    ) as api:
        try:
            yield api
        except Problem as problem:
            raise RequestRefused(problem.status, problem.members, found.query_url) from problem
        except NoAnswer as lost:
            raise StoreUnavailable(f"{lost}; check the addresses of {source}, and run the same command again") from lost


def find_profile(name: str | None) -> ChosenProfile:
    """Returns the profile to use, always whole from one place: no API key goes to an address that it was not given for.

    The first of these counts: the name, the variables of the environment, the profile in use, the running development stack.

    Raises:
        SettingsInvalid: there is none, or it is not complete.
    """
    if name:
        return _named(read_profiles(), name)
    if not any(os.environ.get(variable) for variable, _ in VARIABLES.values()):
        file = read_profiles()
        if file.current:
            return _named(file, file.current)
    return ChosenProfile("the environment", checked_profile(read_environment()))


def read_environment() -> dict[str, str | None]:
    """Returns the members of a profile as the environment has them, or else the running development stack."""
    use_running_stack()
    return {field: os.environ.get(variable) for field, (variable, _) in VARIABLES.items()}


def _named(file: ProfileFile, name: str) -> ChosenProfile:
    if name not in file.profiles:
        known = f"there is {', '.join(file.profiles)}" if file.profiles else "there is none yet"
        raise typer.BadParameter(f"no profile has this name; {known} (`daybook profiles add` adds one)", param_hint="--profile")
    return ChosenProfile(f"profile {name}", file.profiles[name])


def checked_profile(found: dict[str, str | None], ledger: str | None = None) -> Profile:
    """Makes a profile of its address and key.

    Raises:
        SettingsInvalid: one of them is missing or wrong. The message does not repeat a key.
    """
    problems = []
    for field, (variable, check) in VARIABLES.items():
        text = found.get(field)
        if not text:
            problems.append(f"{variable}: is not set")
            continue
        try:
            found[field] = check(text)
        except ValueError as error:
            problems.append(f"{variable}: {error}")
    if problems:
        raise SettingsInvalid([*problems, "`daybook profiles add` stores addresses and a key, and `daybook dev` starts a stack"])
    return Profile(**{field: text for field, text in found.items() if text}, ledger=ledger)


def pages(list_: Callable[P, Any], limit: int, /, *arguments: P.args, **filters: P.kwargs) -> Iterator[dict[str, Any]]:
    """Yields the items of a list, page by page, up to a limit. If there are more, a line on stderr says so."""
    left = limit
    while left:
        filters["limit"] = min(left, PAGE_MAX)
        page = list_(*arguments, **filters)
        yield from page["items"]
        left -= len(page["items"])
        filters["cursor"] = page["next"]
        if page["next"] is None:
            return
    typer.echo(f"these are the first {limit}, and there are more: give a larger --limit", err=True)
