"""`daybook top`: watches throughput, the queue of commands, and the lag of each read model."""

import json
import sys
import time
from collections.abc import Mapping
from itertools import count
from typing import Annotated, Any, Final, NamedTuple

import typer
from daybook_client import Daybook, NoAnswer
from rich.console import Console

from cli.api_access import ApiLedgerOption, ProfileOption, find_profile, open_api
from cli.profile_file import Profile
from cli.tables import print_table
from shared.web.metrics_reader import CommandCounts, read_command_counts

SECONDS: Final = 2.0
MODEL: Final = ("name", "state", "position", "applied_per_second", "lag_events", "lag_seconds", "dead_letters", "cause")


class Observation(NamedTuple):
    """The figures of a ledger at one moment."""

    seconds: float
    """By a clock that only measures durations."""
    position: int
    models: list[Mapping[str, Any]]
    """The items of `GET /v1/projections`."""
    commands: CommandCounts | None


def top(
    seconds: Annotated[float, typer.Option(min=0.1, max=3_600, help="The time between two observations.")] = SECONDS,
    times: Annotated[int | None, typer.Option(min=1, help="End after this many. Default: Ctrl-C ends it.")] = None,
    profile: ProfileOption = None,
    ledger: ApiLedgerOption = None,
) -> None:
    """Watch throughput, the queue of commands, and the lag of each read model.

    Rates are averages since the observation before. If stdout is no terminal, each observation is a line of JSON. Numbers of
    commands need a key with the scope `ops:admin`, and are those of the process of the command API that answers.

    Example: daybook top --seconds 5
    """
    _, chosen = find_profile(profile)
    show = _show_tables if sys.stdout.isatty() else _print_line
    before: Observation | None = None
    with open_api(profile, ledger) as api:
        for number in count(1):
            try:
                found = _observe(api, chosen, ledger or chosen.ledger)
                show(_measured(before, found))
                before = found
            except NoAnswer as lost:
                if before is None:
                    raise
                typer.echo(f"daybook: {lost}", err=True)
            if number == times:
                return
            time.sleep(seconds)


def _observe(api: Daybook, chosen: Profile, ledger: str | None) -> Observation:
    page: Any = api.list_projections()
    commands = read_command_counts(chosen.command_url, chosen.api_key, ledger)
    return Observation(time.monotonic(), page["position"], page["items"], commands)


def _measured(before: Observation | None, found: Observation) -> dict[str, Any]:
    """Returns what is shown. A rate is None in the first observation."""
    passed = found.seconds - before.seconds if before else None
    positions = {each["name"]: each["position"] for each in before.models} if before else {}
    counts, counted = found.commands, before and before.commands
    return {
        "position": found.position,
        "events_per_second": _rate(before and before.position, found.position, passed),
        "commands_per_second": _rate(counted and counted.by_outcome.total(), counts and counts.by_outcome.total(), passed),
        "rejected_per_second": _rate(
            counted and counted.by_outcome["rejected"], counts and counts.by_outcome["rejected"], passed
        ),
        "commands_waiting": counts and counts.waiting,
        "read_models": [
            {**each, "applied_per_second": _rate(positions.get(each["name"]), each["position"], passed)} for each in found.models
        ],
    }


def _rate(before: int | None, now: int | None, seconds: float | None) -> float | None:
    """Returns how much a number has grown in a second. A number that begins anew, as after a restart, has not grown."""
    if before is None or now is None or not seconds:
        return None
    return round(max(now - before, 0) / seconds, 1)


def _print_line(measured: Mapping[str, Any]) -> None:
    typer.echo(json.dumps(measured))
    sys.stdout.flush()


def _show_tables(measured: Mapping[str, Any]) -> None:
    Console().clear()
    numbers = {name.replace("_", " "): value for name, value in measured.items() if name != "read_models"}
    print_table([*numbers], [[*numbers.values()]])
    print_table(
        [name.replace("_", " ") for name in MODEL], [[each.get(name) for name in MODEL] for each in measured["read_models"]]
    )
