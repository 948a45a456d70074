"""The commands for people, which work over HTTP: profiles, lists in each form, money that moves once, and docs/cli.md."""

import csv
import io
import json
import os
import pty
import re
import shlex
import signal
import stat
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import uuid4

import pytest
import pytest_asyncio
import typer
from daybook_client import Daybook, Money
from daybook_client.money import Exponents

from cli.api_access import find_profile
from cli.exit_codes import ExitCode
from cli.profile_file import Profile, ProfileFile, read_profiles, write_profiles
from cli.request_errors import RequestRefused
from cli.send import read_money
from dev.data_folder import ROOT
from dev.seed import seed
from projector.projections.registry import PROJECTIONS_BY_NAME
from shared.errors import SettingsInvalid
from shared.settings import Settings
from shared.web.api_client import wait_until_caught_up
from tests.docs.test_readme import as_pattern, steps
from tests.harness.keys import OPERATOR, add_key
from tests.harness.running import run_stack
from tests.harness.terminals import ODD_TERMINALS, ForkedCommand, Terminal, TerminalRun, run_in

PLAIN: Final = Terminal("plain")
NARROW: Final = Terminal("a narrow terminal", columns=40, environment={"TERM": "dumb"})
PAGE: Final = (ROOT / "docs/cli.md").read_text()
SECRET: Final = "dbk_k3vq7m2xnp_not-a-real-key"


class People(NamedTuple):
    """A running Daybook with the data of the development stack, and what a user of it has."""

    environment: Mapping[str, str]
    api: Daybook
    reader: str
    """A key that may only read."""

    def run(self, *arguments: str, terminal: Terminal = PLAIN, more: Mapping[str, str] | None = None) -> TerminalRun:
        ended = run_in(terminal, arguments, {**self.environment, **(more or {})})
        assert "Traceback" not in ended.out + ended.err, ended
        return ended

    def done(self, *arguments: str, terminal: Terminal = PLAIN) -> str:
        """Returns what a command prints that must end well."""
        ended = self.run(*arguments, terminal=terminal)
        assert ended.code == ExitCode.DONE, ended
        return ended.out

    def account(self, cents: int = 0) -> str:
        """Opens an account in euros for a new user."""
        user = self.api.create_user(name="Zoë", email=f"{uuid4()}@example.com")
        account = self.api.open_account(owner_id=user["id"], currency="EUR")
        if cents:
            self.api.deposit(account_id=account["id"], amount=Money(cents, "EUR", 2))
        return account["id"]

    def head(self) -> int:
        """Returns the last position of the log."""
        return self.api.list_projections()["position"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def people(module_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[People]:
    folder = tmp_path_factory.mktemp("people")
    async with run_stack(module_settings, folder) as stack:
        urls = stack.settings.command_url, stack.settings.query_url
        await seed(*urls, OPERATOR)
        assert await wait_until_caught_up(urls[1], OPERATOR, 60)
        environment = _bare(folder) | {
            "DAYBOOK_COMMAND_URL": urls[0],
            "DAYBOOK_QUERY_URL": urls[1],
            "DAYBOOK_API_KEY": OPERATOR,
        }
        reader = await add_key(module_settings.database_url, "reader", scopes=["ledger:read"])
        with Daybook(*urls, OPERATOR) as api:
            yield People(environment, api, reader)


def _bare(folder: Path) -> dict[str, str]:
    """The environment of a user who has a folder for configuration, and no stack."""
    return {"PATH": "/usr/bin:/bin", "XDG_CONFIG_HOME": str(folder / "config"), "DAYBOOK_DATA_DIR": str(folder / "none")}


@contextmanager
def typing(text: str) -> Iterator[Terminal]:
    """Yields a terminal whose user has typed this."""
    controller, window = pty.openpty()
    try:
        os.write(controller, text.encode())
        yield Terminal("a user", stdin=os.ttyname(window))
    finally:
        os.close(window)
        os.close(controller)


# ── the page ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_command_of_the_page_prints_what_stands_below_it(people: People, tmp_path: Path) -> None:
    commands = steps(PAGE)
    assert len(commands) >= 15
    for command, printed in commands:
        said, _, called = command.rpartition(" | ")
        typed = tmp_path / "stdin"
        typed.write_text("\n".join(shlex.split(said)[1:]))
        name, *arguments = shlex.split(called)
        assert name == "daybook"
        ended = people.run(*arguments, terminal=Terminal("plain", stdin=str(typed)), more={"XDG_CONFIG_HOME": str(tmp_path)})
        found = (ended.out + ended.err).replace("\r\n", "\n").strip()
        assert as_pattern(printed).fullmatch(found), f"{command}\nprinted  {found}\nexpected {printed}"


# ── profiles ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_profile_is_kept_for_its_user_alone(tmp_path: Path) -> None:
    """The key comes from stdin, although the environment has another one for another address."""
    environment, typed = _bare(tmp_path), tmp_path / "typed"
    typed.write_text(f"{SECRET}\n")
    urls = "--command-url", "https://write.example/", "--query-url", "https://read.example"
    terminal = Terminal("plain", stdin=str(typed))
    added = run_in(terminal, ["profiles", "add", "a", *urls], environment | {"DAYBOOK_API_KEY": "of somebody else"})
    assert (added.code, added.out) == (ExitCode.DONE, "a: added, and in use\n"), added.err
    file = tmp_path / "config/daybook/profiles.json"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (file, file.parent)] == [0o600, 0o700]
    profile = {"command_url": "https://write.example", "query_url": "https://read.example", "api_key": SECRET, "ledger": None}
    assert json.loads(file.read_text()) == {"current": "a", "profiles": {"a": profile}}
    listed = run_in(PLAIN, ["profiles", "list"], environment)
    assert ("k3vq7m2xnp" in listed.out, "not-a-real-key" in listed.out + listed.err) == (True, False)
    file.chmod(0o640)
    refused = run_in(PLAIN, ["users", "list"], environment)
    assert (refused.code, f"chmod 600 {file}" in refused.err) == (ExitCode.SETTINGS, True), refused


MISTAKES: Final[Mapping[str, tuple[tuple[str, ...], ExitCode, str]]] = {
    "one URL": (("profiles", "add", "a", "--command-url", "https://write.example"), ExitCode.USAGE, "neither"),
    "no URL": (("profiles", "add", "a"), ExitCode.SETTINGS, "DAYBOOK_COMMAND_URL: is not set"),
    "a bad URL": (
        ("profiles", "add", "a", "--command-url", "nonsense", "--query-url", "https://read.example"),
        ExitCode.USAGE,
        "--command-url",
    ),
    "no key": (
        ("profiles", "add", "a", "--command-url", "https://write.example", "--query-url", "https://read.example"),
        ExitCode.USAGE,
        "first line of stdin",
    ),
    "a bad name": (("profiles", "add", "A b"), ExitCode.USAGE, "lower-case"),
    "an unknown profile": (("profiles", "use", "nobody"), ExitCode.USAGE, "no profile has this name"),
    "another unknown profile": (("top", "--profile", "nobody"), ExitCode.USAGE, "daybook profiles add"),
    "nothing to use": (("users", "list"), ExitCode.SETTINGS, "daybook dev"),
    "no id": (("balance", "mine"), ExitCode.USAGE, "ACCOUNT"),
    "no moment": (("transfers", "list", "--since", "yesterday"), ExitCode.USAGE, "--since"),
    "a text that is not UTF-8": (("users", "list", "--search", "\udcff"), ExitCode.USAGE, "--search"),
    "a key that is no header": (
        ("deposit", "1", "EUR", "--to", str(uuid4()), "--idempotency-key", "ö"),
        ExitCode.USAGE,
        "--idempotency-key",
    ),
}


def test_every_mistake_is_one_line_with_a_next_step(tmp_path: Path) -> None:
    for mistake, (arguments, code, part) in MISTAKES.items():
        ended = run_in(PLAIN, arguments, _bare(tmp_path))
        assert (ended.code, ended.out, ended.err.count("\n")) == (code, "", 1), (mistake, ended)
        assert part in ended.err, (mistake, ended)


def test_a_profile_is_used_whole_and_from_the_first_place_that_has_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in _bare(tmp_path).items():
        monkeypatch.setenv(name, value)
    mine, other = (Profile(f"https://{name}.example", "https://read.example", name) for name in ("mine", "other"))
    write_profiles(ProfileFile("mine", {"mine": mine, "other": other}))
    assert find_profile(None) == ("profile mine", mine)
    assert find_profile("other") == ("profile other", other)
    monkeypatch.setenv("DAYBOOK_API_KEY", "a key for another address")
    with pytest.raises(SettingsInvalid, match="DAYBOOK_COMMAND_URL: is not set"):
        find_profile(None)
    monkeypatch.setenv("DAYBOOK_COMMAND_URL", "https://write.example/")
    monkeypatch.setenv("DAYBOOK_QUERY_URL", "https://read.example")
    assert find_profile(None).profile == Profile("https://write.example", "https://read.example", "a key for another address")
    assert find_profile("other").profile == other


def test_a_file_of_profiles_that_was_damaged_is_refused_without_telling_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    write_profiles(ProfileFile("a", {"a": Profile("https://write.example", "https://read.example", SECRET)}))
    file = tmp_path / "daybook/profiles.json"
    whole = file.read_text()
    for damaged in (whole[:-5], whole.replace("api_key", "key"), whole.replace(f'"{SECRET}"', "1"), "[]", ""):
        file.write_text(damaged)
        with pytest.raises(SettingsInvalid, match="profiles") as refused:
            read_profiles()
        assert SECRET not in str(refused.value)


# ── lists ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_list_reads_the_pages_that_its_limit_needs_and_says_that_there_are_more(people: People) -> None:
    account = people.account()
    commands: Any = [
        {"type": "deposit", "account_id": account, "amount": number, "currency": "EUR", "reference": "=1+1"}
        for number in range(1, 131)
    ]
    results: Any = people.api.run_batch(commands=commands, mode="atomic")
    people.api.wait_for(max(each["body"]["position"] for each in results["results"]))
    asked = "transfers", "list", "--account", account, "--sort", "recorded_at"
    first = people.run(*asked, "--limit", "120", "--output", "csv")
    rows = list(csv.DictReader(io.StringIO(first.out)))
    assert [row["amount"] for row in rows] == [f"{cents // 100}.{cents % 100:02}" for cents in range(1, 121)]
    assert len({row["id"] for row in rows}) == 120
    assert {row["reference"] for row in rows} == {"'=1+1"}
    assert "the first 120" in first.err
    answered = list(people.api.every(people.api.list_transfers, account_id=account, sort="recorded_at"))
    whole = people.run(*asked, "--limit", "200", "--output", "jsonl")
    assert ([json.loads(line) for line in whole.out.splitlines()], whole.err) == (answered, "")
    assert json.loads(people.done(*asked, "--limit", "130", "--output", "json")) == answered


def test_each_thing_can_be_shown(people: People) -> None:
    account = people.account(1250)
    [transfer] = people.api.list_transfers(account_id=account)["items"]
    hold = people.api.place_hold(account_id=account, amount=Money(50, "EUR", 2))
    people.api.wait_for(people.api.release_hold(hold["id"])["position"])
    user = people.api.get_account(account)["owner_id"]
    shown = {
        ("users", "show", user): people.api.get_user(user),
        ("accounts", "show", account): people.api.get_account(account),
        ("transfers", "show", transfer["id"]): transfer,
        ("holds", "show", hold["id"]): people.api.get_hold(hold["id"]),
        ("balance", account): people.api.get_balance(account),
        ("statement", account): people.api.get_statement(account),
    }
    for command, expected in shown.items():
        found, known = json.loads(people.done(*command, "--output", "json")), dict(expected)
        assert (found.pop("position", 0) >= known.pop("position", 0), found) == (True, known), command
    assert "12.50" in people.done("balance", account)
    assert "12.50" not in people.done("balance", account, "--at", "2026-01-01")


def test_every_table_ends_well_in_an_odd_terminal(people: People) -> None:
    """In a narrow one, each word is whole."""
    account = people.account(1250)
    people.api.wait_for(people.head())
    commands = (("users", "list"), ("accounts", "list"), ("transfers", "list"), ("balance", account), ("statement", account))
    for command in commands:
        for terminal in ODD_TERMINALS:
            ended = people.run(*command, terminal=terminal)
            assert ended.code in {ExitCode.DONE, ExitCode.FILE, ExitCode.READER_GONE}, (command, terminal.name, ended)
    narrow = people.done("accounts", "list", "--sort", "-opened_at", terminal=NARROW)
    assert [word for word in (f"id: {account}", "available: 12.50", "currency: EUR") if word not in narrow] == []


# ── money ────────────────────────────────────────────────────────────────────────────────────────────────────────────


NO_AMOUNTS: Final[Mapping[tuple[str, str], str]] = {
    **{
        (text, "EUR"): "decimal point"
        for text in ("", " 1", "-1", "+1", "1e3", "1_000", "１２", "NaN", "Infinity", "1,5", ".5", "1.")
    },
    ("12.505", "EUR"): "3 decimal places",
    ("12.500", "EUR"): "3 decimal places",  # in some countries that means twelve thousand five hundred
    ("1.0", "JPY"): "whole units",
    ("0", "EUR"): "above zero",
    ("0.00", "EUR"): "above zero",
    ("1", "XXX"): "no currency",
    ("1", "\udcff"): "no currency",
}


def test_an_amount_is_read_exactly_or_not_at_all() -> None:
    """`90071992547409.91` and `0.29` are no floats."""
    money_of = Exponents({"EUR": 2, "JPY": 0, "KWD": 3}).money
    amounts = {
        ("90071992547409.91", "EUR"): 2**53 - 1,
        ("0.29", "eur"): 29,
        ("7", "JPY"): 7,
        ("1.005", "KWD"): 1005,
        ("3", "KWD"): 3000,
    }
    for (text, currency), units in amounts.items():
        assert read_money(money_of, text, currency).minor_units == units
    for (text, currency), part in NO_AMOUNTS.items():
        with pytest.raises(typer.BadParameter, match=part):
            read_money(money_of, text, currency)


def test_nothing_is_sent_before_the_user_says_yes(people: People) -> None:
    payer, payee = people.account(10_000), people.account()
    before = people.head()
    order = "send", "1.50", "EUR", "--from", payer, "--to", payee
    shown = people.done(*order, "--dry-run")
    assert f"then {payer} has 98.50 EUR, of which 98.50 is available" in shown
    assert f"then {payee} has 1.50 EUR" in shown
    unasked = people.run(*order)
    assert (unasked.code, unasked.out, "--yes" in unasked.err) == (ExitCode.USAGE, "", True), unasked
    for answer in ("n\n", "\n", "\x04"):
        with typing(answer) as user:
            refused = people.run(*order, terminal=user)
        assert (refused.code, refused.out, "nothing was sent" in refused.err) == (ExitCode.NO, "", True), refused
    assert people.head() == before
    with typing("y\n") as user:
        sent = people.run(*order, "--output", "json", terminal=user)
    assert (sent.code, json.loads(sent.out)["amount"], "98.50" in sent.err) == (ExitCode.DONE, 150, True), sent
    assert people.head() == before + 1


def test_if_no_answer_comes_the_command_can_be_repeated_and_takes_effect_once(people: People) -> None:
    account, before = people.account(), people.head() + 2
    order = "deposit", "5", "EUR", "--to", account, "--yes", "--output", "json"
    lost = people.run(*order, more={"DAYBOOK_COMMAND_URL": "http://127.0.0.1:1"})
    [key] = re.findall(r"--idempotency-key (\S+)`", lost.err)
    assert (lost.code, lost.out) == (ExitCode.UNAVAILABLE, ""), lost
    first, second = (json.loads(people.done(*order, "--idempotency-key", key)) for _ in range(2))
    assert (first, people.head()) == (second, before - 1)


def test_a_repeated_command_is_asked_about_also_if_a_new_one_would_be_refused(people: People) -> None:
    account = people.account(500)
    order = "withdraw", "5", "EUR", "--from", account, "--idempotency-key", str(uuid4()), "--output", "json"
    first = json.loads(people.done(*order, "--yes"))
    with typing("yes\n") as user:
        again = people.run(*order, terminal=user)
    assert (json.loads(again.out), "insufficient-funds" in again.err) == (first, True), again


def test_a_refused_request_tells_title_code_cause_and_next_step(people: People) -> None:
    account = people.account(100)
    cases: list[tuple[tuple[str, ...], Mapping[str, str], ExitCode, str]] = [
        (
            ("withdraw", "2", "EUR", "--from", account, "--yes"),
            {},
            ExitCode.NO,
            "The account has not enough available (insufficient-funds): available 100, required 200; send less",
        ),
        (("balance", str(uuid4())), {}, ExitCode.USAGE, "There is no such thing (not-found); check the id"),
        (("balance", account), {"DAYBOOK_API_KEY": SECRET}, ExitCode.DENIED, "(unauthorized); check the API key"),
        (("deposit", "1", "EUR", "--to", account, "--yes"), {"DAYBOOK_API_KEY": people.reader}, ExitCode.DENIED, "(forbidden)"),
        (
            ("statement", account, "--from", "2026-02-01", "--to", "2026-01-01"),
            {},
            ExitCode.USAGE,
            "/problems/validation-failed",
        ),
        (("users", "list"), {"DAYBOOK_QUERY_URL": "http://127.0.0.1:1"}, ExitCode.UNAVAILABLE, "check the addresses"),
    ]
    for command, more, code, part in cases:
        ended = people.run(*command, more=more)
        assert (ended.code, ended.out, ended.err.count("\n")) == (code, "", 1), ended
        assert part in ended.err, ended


def test_an_answer_of_another_server_is_told_as_such() -> None:
    refused = RequestRefused(502, {}, "https://read.example")
    assert (refused.exit_code, "without a problem document" in str(refused)) == (ExitCode.UNAVAILABLE, True)


# ── top and completion ───────────────────────────────────────────────────────────────────────────────────────────────


def test_top_prints_a_line_for_each_observation(people: People) -> None:
    first, second = map(json.loads, people.done("top", "--times", "2", "--seconds", "0.1").splitlines())
    assert (first["events_per_second"], first["commands_per_second"]) == (None, None)
    assert (second["events_per_second"] >= 0, second["commands_per_second"] >= 0, second["commands_waiting"]) == (True, True, 0)
    assert {each["name"] for each in second["read_models"]} == PROJECTIONS_BY_NAME.keys()
    assert all(each["applied_per_second"] >= 0 for each in second["read_models"])
    allowed = json.loads(people.run("top", "--times", "1", more={"DAYBOOK_API_KEY": people.reader}).out)
    assert (allowed["commands_waiting"], allowed["position"] > 0) == (None, True)
    assert {*PROJECTIONS_BY_NAME, "waiting:"} <= set(people.done("top", "--times", "1", terminal=NARROW).split())


def test_top_ends_with_ctrl_c(people: People, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "out")
    started = ForkedCommand(Terminal("a pipe", stdout=str(tmp_path / "out")), ["top"], people.environment)
    with (tmp_path / "out").open() as reader:
        assert json.loads(reader.readline())["read_models"]
        started.signal(signal.SIGINT)
        ended = started.wait()
    assert (ended.code, ended.err) == (ExitCode.INTERRUPTED, "")


def test_a_shell_completes_commands_options_and_profiles(tmp_path: Path) -> None:
    environment = _bare(tmp_path)
    add = "profiles", "add", "local", "--command-url", "https://write.example", "--query-url", "https://read.example"
    (tmp_path / "typed").write_text(SECRET)
    assert run_in(Terminal("plain", stdin=str(tmp_path / "typed")), add, environment).code == ExitCode.DONE
    for words, expected in {
        "daybook us": "users",
        "daybook users li": "list",
        "daybook holds list --status a": "active",
        "daybook balance --profile l": "local",
        "daybook send --dry": "--dry-run",
    }.items():
        asked = {"_DAYBOOK_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        completed = run_in(PLAIN, [], environment | asked)
        assert (completed.code, completed.out) == (0, f"{expected}\n"), (words, completed)
    named = environment | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}  # else it depends on who runs the tests
    script = run_in(PLAIN, ["--show-completion", "bash"], named).out
    bash = subprocess.run(["bash", "-c", f"{script}\ncomplete -p daybook"], capture_output=True, text=True, check=True)
    assert bash.stdout.endswith(" daybook\n")
