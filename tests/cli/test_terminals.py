"""Every command ends with a line and an exit code in every terminal and environment, and never with a traceback or a signal."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest
from typer.main import get_command

from cli.app import app
from cli.exit_codes import ExitCode
from dev.data_folder import ROOT, RunningStack, hold, publish
from projector.projections.registry import PROJECTIONS_BY_NAME
from shared.identity.access import SCOPES
from shared.settings import Settings
from tests.harness.log import MASTER_KEY, Book
from tests.harness.projecting import open_ledger
from tests.harness.running import environment_of
from tests.harness.terminals import ODD_TERMINALS, Terminal, TerminalRun, run_in

PLAIN: Final = Terminal("plain")
DEAD: Final = {
    "PATH": os.environ["PATH"],
    "DAYBOOK_DATABASE_URL": "postgresql://daybook:x@127.0.0.1:1/daybook",
    "DAYBOOK_MONGO_URL": "mongodb://127.0.0.1:1/?directConnection=true",
    "DAYBOOK_REDIS_URL": "redis://127.0.0.1:1/0",
    "DAYBOOK_COMMAND_URL": "http://127.0.0.1:1",
    "DAYBOOK_QUERY_URL": "http://127.0.0.1:1",
    "DAYBOOK_SECRET": "for tests only and long enough to be taken",
    "DAYBOOK_MASTER_KEYS": MASTER_KEY,
    "DAYBOOK_MONGO_TIMEOUT_MS": "50",
    "DAYBOOK_REDIS_TIMEOUT_MS": "50",
    "DAYBOOK_DATA_DIR": "/proc/nowhere",
    "XDG_CONFIG_HOME": "/proc/nowhere",
}
"""An environment whose stores do not answer, and where no data folder and no profile can be made."""

ACCOUNT: Final = "0198c5a0-0000-7000-8000-0000000000e1"
ARGUMENTS: Final[Mapping[str, tuple[str, ...]]] = {
    "import berka": (".",),
    "import csv": (".",),
    **{f"import {name}": ("/etc/hostname",) for name in ("ofx", "mt940", "camt053")},
    "explain": (ACCOUNT,),
    "events export": ("-",),
    "events import": ("-",),
    "keys create": ("--name", "a", "--scope", "ledger:read"),
    "keys revoke": ("k3vq7m2xnp",),
    "keys rotate": ("k3vq7m2xnp",),
    "dead-letters show": ("balances", "1"),
    "dead-letters retry": ("balances",),
    "dead-letters skip": ("balances", "1", "--reason", "r"),
    "profiles add": ("mine",),
    **{f"profiles {name}": ("mine",) for name in ("use", "remove")},
    "users create": ("--name", "Ada", "--email", "ada@example.com"),
    "accounts open": ("--owner", ACCOUNT, "--currency", "EUR"),
    **{f"{name} show": (ACCOUNT,) for name in ("users", "accounts", "transfers", "holds")},
    **dict.fromkeys(("balance", "statement"), (ACCOUNT,)),
    "send": ("1", "EUR", "--from", ACCOUNT, "--to", ACCOUNT),
    "deposit": ("1", "EUR", "--to", ACCOUNT),
    "withdraw": ("1", "EUR", "--from", ACCOUNT),
    **{f"projections {name}": ("balances",) for name in ("rebuild", "rollback", "prune", "pause", "resume", "diff")},
}
"""The arguments that a command needs."""


def _commands() -> list[list[str]]:
    names = []
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        names += [[name, sub] for sub in getattr(command, "commands", ())] or [[name]]
    return [[*name, *ARGUMENTS.get(" ".join(name), ())] for name in names]


def run(
    *arguments: str, terminal: Terminal = PLAIN, folder: Path | None = None, environment: Mapping[str, str] | None = None
) -> TerminalRun:
    ended = run_in(terminal, arguments, DEAD | dict(environment or {}), folder)
    assert "Traceback" not in ended.out + ended.err, ended
    assert ended.code in set(ExitCode), ended
    assert ended.code != ExitCode.DEFECT, ended
    return ended


@pytest.mark.slow
@pytest.mark.parametrize("terminal", ODD_TERMINALS, ids=lambda terminal: terminal.name)
def test_every_command_ends_well_in_an_odd_terminal(terminal: Terminal) -> None:
    """The stores do not answer, so most commands end with an error, which they may be unable to print."""
    for command in _commands():
        run(*command, terminal=terminal)
    assert run("--help", terminal=terminal).code in {ExitCode.DONE, ExitCode.FILE, ExitCode.READER_GONE}


BAD: Final[Mapping[str, tuple[tuple[str, ...], Mapping[str, str], ExitCode, str]]] = {
    "a URL of PostgreSQL that is none": (
        ("keys", "list"),
        {"DAYBOOK_DATABASE_URL": "nonsense"},
        ExitCode.SETTINGS,
        "DATABASE_URL",
    ),
    "a URL of another database": (("migrate",), {"DAYBOOK_DATABASE_URL": "mysql://wrong@h/d"}, ExitCode.SETTINGS, "DATABASE_URL"),
    "a port that is too large": (
        ("verify",),
        {"DAYBOOK_DATABASE_URL": "postgresql://u:wrong@127.0.0.1:99999/d"},
        ExitCode.SETTINGS,
        "DAYBOOK_DATABASE_URL",
    ),
    "an unknown option": (
        ("replay",),
        {"DAYBOOK_DATABASE_URL": "postgresql://u:wrong@h/d?mood=x"},
        ExitCode.SETTINGS,
        "DATABASE_URL",
    ),
    "a URL of MongoDB that is none": (
        ("projections", "list"),
        {"DAYBOOK_MONGO_URL": "mongodb://a:wrong@h:port/"},
        ExitCode.SETTINGS,
        "DAYBOOK_MONGO_URL",
    ),
    "a URL of Redis that is none": (("status",), {"DAYBOOK_REDIS_URL": "http://h"}, ExitCode.SETTINGS, "DAYBOOK_REDIS_URL"),
    "a URL of an API that is none": (("status",), {"DAYBOOK_QUERY_URL": "http://[::1"}, ExitCode.SETTINGS, "DAYBOOK_QUERY_URL"),
    "an API key that is not ASCII": (("status",), {"DAYBOOK_API_KEY": "wröng"}, ExitCode.SETTINGS, "DAYBOOK_API_KEY"),
    "a number that is too small": (("doctor",), {"DAYBOOK_READ_TIMEOUT_MS": "0"}, ExitCode.SETTINGS, "DAYBOOK_READ_TIMEOUT_MS"),
    "a bad setting of the stack": (
        ("dev",),
        {"DAYBOOK_READ_TIMEOUT_MS": "0", "DAYBOOK_DATA_DIR": "stack"},
        ExitCode.SETTINGS,
        "DAYBOOK_READ_TIMEOUT_MS",
    ),
    "a port that is no number": (("dev",), {"DAYBOOK_COMMAND_PORT": "web"}, ExitCode.USAGE, "--command-port"),
    "one port for both APIs": (("dev",), {"DAYBOOK_COMMAND_PORT": "8001"}, ExitCode.USAGE, "both APIs have port 8001"),
    "a host that is no address": (("dev",), {"DAYBOOK_HOST": "wrong host"}, ExitCode.USAGE, "--host"),
    "a data folder that cannot be made": (("dev",), {}, ExitCode.NO, "/proc/nowhere cannot hold the data"),
    "a position that is too large": (("dead-letters", "show", "balances", str(2**63)), {}, ExitCode.USAGE, "POSITION"),
    "a target that is too large": (
        ("projections", "rebuild", "balances", "--into", "a", "--to", str(2**63)),
        {},
        ExitCode.USAGE,
        "--to",
    ),
    "a moment out of range": (
        ("projections", "rebuild", "balances", "--into", "a", "--until", "0001-01-01T00:00:00+14:00"),
        {},
        ExitCode.USAGE,
        "--until",
    ),
    "a ledger that is not UTF-8": (("events", "export", "-", "--ledger", "\udcff"), {}, ExitCode.USAGE, "--ledger"),
    "a name that is not UTF-8": (("keys", "create", "--name", "\udcff", "--scope", "ops:admin"), {}, ExitCode.USAGE, "--name"),
    "a reason that is not UTF-8": (
        ("dead-letters", "skip", "balances", "1", "--reason", "\udcff"),
        {},
        ExitCode.USAGE,
        "--reason",
    ),
    "a key id that is not UTF-8": (("keys", "revoke", "\udcff"), {}, ExitCode.USAGE, "key_id"),
    "an encoding that is none": (("import", "csv", ".", "--encoding", "moon"), {}, ExitCode.USAGE, "--encoding"),
    "a form of dates that is none": (("import", "csv", ".", "--dates", "%q"), {}, ExitCode.USAGE, "--dates"),
    "a delimiter that is none": (("import", "csv", ".", "--delimiter", "--"), {}, ExitCode.USAGE, "--delimiter"),
    "a mapping that is not there": (("import", "csv", ".", "--mapping", "none.toml"), {}, ExitCode.FILE, "none.toml"),
    "a file that is not there": (("events", "import", "nothing"), {}, ExitCode.FILE, "nothing cannot be read"),
    "a file name that is too long": (("events", "import", "n" * 300), {}, ExitCode.FILE, "name too long"),
    "a file in no folder": (("events", "import", "\udcff/x.gz"), {}, ExitCode.FILE, "cannot be read"),
    "a command that does not exist": (("sing",), {}, ExitCode.USAGE, "sing"),
}
"""By the name of the mistake: a command, environment variables, the exit code, and a part of the line on stderr."""


@pytest.mark.slow
def test_every_mistake_is_one_line_with_its_own_cause(tmp_path: Path) -> None:
    """The line never repeats a password, and with DAYBOOK_DEBUG the traceback stands before it."""
    for mistake, (arguments, environment, code, part) in BAD.items():
        ended = run(*arguments, folder=tmp_path, environment=environment)
        assert (ended.code, ended.err.count("\n")) == (code, 1), (mistake, ended)
        assert ended.err.startswith("daybook: "), (mistake, ended)
        assert part in ended.err, (mistake, ended)
        assert "wrong@" not in ended.err, mistake
        assert "wröng" not in ended.err, mistake
    debugged = run_in(PLAIN, ["keys", "list"], DEAD | {"DAYBOOK_DEBUG": "1"})
    assert debugged.err.startswith("Traceback")
    assert debugged.err.splitlines()[-1].startswith("daybook: PostgreSQL does not answer")


def test_a_character_that_the_terminal_cannot_show_is_escaped(tmp_path: Path) -> None:
    (tmp_path / "transactions.csv").write_text("account_id,amount,date\na1,NaN,2026-01-02\n")
    ended = run("import", "csv", str(tmp_path), terminal=Terminal("Cyrillic", encoding="iso8859_5"))
    assert "\\xabNaN\\xbb is not an amount" in ended.out + ended.err


def test_a_command_does_not_mix_a_running_stack_with_addresses_of_the_environment(tmp_path: Path) -> None:
    """A stack runs. If one address of the environment is another one, none of the stack's variables is used."""
    stack = {name: value for name, value in DEAD.items() if name.startswith("DAYBOOK_") and name != "DAYBOOK_DATA_DIR"}
    with hold(tmp_path):
        publish(tmp_path, RunningStack(os.getpid(), stack))
        bare = {"PATH": os.environ["PATH"], "DAYBOOK_DATA_DIR": str(tmp_path)}
        used = run_in(PLAIN, ["keys", "list"], bare)
        same = run_in(PLAIN, ["keys", "list"], bare | {"DAYBOOK_DATABASE_URL": stack["DAYBOOK_DATABASE_URL"]})
        other = run_in(PLAIN, ["keys", "list"], bare | {"DAYBOOK_DATABASE_URL": "postgresql://other@127.0.0.1:1/other"})
    assert (used.code, same.code, other.code) == (ExitCode.UNAVAILABLE, ExitCode.UNAVAILABLE, ExitCode.SETTINGS)
    assert "DAYBOOK_MONGO_URL: field required" in other.err


@pytest.mark.slow
@pytest.mark.services
async def test_tables_are_whole_wherever_they_are_printed(settings: Settings) -> None:
    """No word is cut: not in a pipe, whatever COLUMNS says, and not on a narrow terminal, where each row becomes lines."""
    async with open_ledger(settings) as ledger:
        await ledger.append(Book(seed=1).history(5))
        await ledger.build()
    places = (
        Terminal("a pipe", environment={"COLUMNS": "40"}),
        Terminal("a pipe without columns", environment={"COLUMNS": "0", "FORCE_COLOR": "1"}),
        Terminal("a terminal of 80 columns", columns=80, environment={"TERM": "xterm"}),
        Terminal("a terminal of 40 columns in ASCII", columns=40, encoding="ascii"),
    )
    words = {
        ("keys", "list"): {*SCOPES, "operator", "principal", "main", "valid"},
        ("projections", "list"): {*PROJECTIONS_BY_NAME, "documents or keys", "live"},
        ("projections", "status"): {*PROJECTIONS_BY_NAME, "paused since", "being built", "lag seconds"},
        ("status",): {"command API", "does not answer (ConnectError)", settings.command_url},
    }
    environment = {"PATH": os.environ["PATH"], **environment_of(settings)}
    for place in places:
        for command, expected in words.items():
            ended = await asyncio.to_thread(run_in, place, command, environment)
            assert ended.code == (ExitCode.NO if command == ("status",) else ExitCode.DONE), ended
            assert not {word for word in expected if word not in ended.out}, (place.name, ended.out)


@pytest.mark.slow
@pytest.mark.services
async def test_python_itself_starts_and_ends_well_in_an_odd_terminal(settings: Settings) -> None:
    """The same with a new process, whose streams Python makes and closes: no descriptor, a full disk, and an ended reader."""
    async with open_ledger(settings) as ledger:
        await ledger.append(Book(seed=1).history(50))
    daybook = f"{sys.executable} -m cli.app"
    shells = {
        f"{daybook} events export - <&- >&- 2>&-": ExitCode.FILE,
        f"{daybook} events export - >/dev/full 2>/dev/full": ExitCode.FILE,
        f"set -o pipefail; {daybook} keys list 2>/dev/null | true": ExitCode.READER_GONE,
    }
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environment_of(settings)}
    for shell, code in shells.items():
        ended = await asyncio.to_thread(
            subprocess.run, ["bash", "-c", shell], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert ended.returncode == code, (shell, ended)
        assert "Traceback" not in ended.stderr
