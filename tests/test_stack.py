"""`daybook dev` as a person meets it: one command starts everything, and nothing of it is left behind."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from dev.children import alive, family
from dev.folder import Running, find_running, held_by, hold, publish
from dev.seed import ADAS_EUROS, bearer
from shared.errors import StackError

ENDED_SECONDS = 15.0
"""For the end of a stack on a noisy machine; it is meant to take less than 10."""


def daybook(*arguments: str | Path, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli.app", *arguments],
        env=os.environ | environment | {"DAYBOOK_DATA_DIR": str(folder), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def start(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """On ports of the system's choice, so that a stack on the usual ones is left alone."""
    return daybook("dev", "--detach", "--command-port", "0", "--query-port", "0", folder=folder, **environment)


@contextmanager
def stack_on(folder: Path) -> Iterator[Running]:
    started = start(folder)
    try:
        assert started.returncode == 0, started.stderr
        running = find_running(folder)
        assert running is not None
        yield running
    finally:
        daybook("down", folder=folder)


def within(seconds: float, is_so: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while not is_so() and time.monotonic() < end:
        time.sleep(0.05)
    return is_so()


def balance(running: Running) -> int:
    url = f"{running.environment['DAYBOOK_QUERY_URL']}/v1/accounts/{ADAS_EUROS}/balance"
    answer = httpx2.get(url, headers=bearer(running.environment["DAYBOOK_API_KEY"]))
    return int(answer.json()["posted"])


# ── the stack ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.services
def test_one_command_starts_everything_and_another_ends_it_and_a_second_run_finds_the_data(tmp_path: Path) -> None:
    started = start(tmp_path)
    assert started.returncode == 0, started.stderr
    create, transfer, read_back = re.findall(r"^curl .*$", started.stdout, re.MULTILINE)
    for line in (create, transfer):
        answer = subprocess.run(["bash", "-c", f"{line} -o /dev/null -w '%{{http_code}}'"], capture_output=True, check=True)
        assert answer.stdout == b"201"
    answer = subprocess.run(["bash", "-c", read_back], capture_output=True, check=True)
    assert json.loads(answer.stdout)["posted"] == 1250

    status = daybook("status", folder=tmp_path)
    assert status.returncode == 0, status.stdout
    assert status.stdout.count("ready") == 3
    first = find_running(tmp_path)
    assert first is not None
    before = balance(first)
    pids = family(first.pid)
    assert len(pids) == 7

    assert daybook("down", folder=tmp_path).returncode == 0
    assert held_by(tmp_path) is None
    assert not (tmp_path / "stack.json").exists()
    assert not [pid for pid in pids if alive(pid)]

    with stack_on(tmp_path) as second:
        assert balance(second) == before


@pytest.mark.services
def test_a_second_stack_on_the_same_data_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    with stack_on(tmp_path) as running:
        second = start(tmp_path)
        assert second.returncode == 1
        assert f"a stack already runs on {tmp_path} (process {running.pid})" in second.stderr
        assert balance(running) > 0


@pytest.mark.services
def test_killing_the_supervisor_leaves_nothing_and_the_next_stack_starts(tmp_path: Path) -> None:
    with stack_on(tmp_path) as running:
        before = balance(running)
        os.kill(running.pid, signal.SIGKILL)
        with stack_on(tmp_path) as next_one:
            assert next_one.pid != running.pid
            assert balance(next_one) == before


@pytest.mark.services
def test_what_dies_is_started_again(tmp_path: Path) -> None:
    with stack_on(tmp_path) as running:
        children = set(family(running.pid)) - {running.pid}
        for pid in children:
            os.kill(pid, signal.SIGKILL)

        def all_back() -> bool:
            now = set(family(running.pid)) - {running.pid}
            return len(now) == len(children) and not now & children

        def serves() -> bool:
            return daybook("status", folder=tmp_path).returncode == 0

        assert within(30, all_back)
        assert within(30, serves)
        said = (tmp_path / "stack.log").read_text()
        for name in ("postgres", "mongo", "redis", "command-api", "query-api", "worker"):
            assert f"{name} ended (SIGKILL) and is started again" in said


@pytest.mark.services
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_it_starts_ends_what_was_started(tmp_path: Path, ending: signal.Signals) -> None:
    command = [sys.executable, "-m", "cli.app", "dev", "--command-port", "0", "--query-port", "0"]
    with subprocess.Popen(command, env=os.environ | {"DAYBOOK_DATA_DIR": str(tmp_path)}, stdout=subprocess.DEVNULL) as supervisor:
        assert within(60, (tmp_path / "postgres.log").exists)
        supervisor.send_signal(ending)
        supervisor.wait(ENDED_SECONDS)
    assert held_by(tmp_path) is None


@pytest.mark.services
def test_a_broken_server_is_one_error_and_nothing_is_left_running(tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir()
    (tmp_path / "redis" / "appendonly.aof").write_bytes(b"rubbish")
    (tmp_path / "redis" / "appendonlydir").touch()
    failed = start(tmp_path)
    assert failed.returncode == 1
    assert failed.stderr.startswith("daybook: redis does not start: exit code 1; from")
    assert held_by(tmp_path) is None


@pytest.mark.services
def test_a_configured_database_is_used_as_it_is_and_none_is_started_for_it(tmp_path: Path) -> None:
    failed = start(tmp_path, DAYBOOK_DATABASE_URL="postgresql://nobody@127.0.0.1:1/nowhere")
    assert failed.returncode == 1
    assert "the migrations failed" in failed.stderr
    assert not (tmp_path / "postgres").exists()
    assert (tmp_path / "redis").exists()


def test_a_taken_port_is_one_line_that_names_it(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        failed = daybook("dev", "--command-port", "0", "--query-port", str(port), folder=tmp_path)
    assert failed.returncode == 1
    assert failed.stderr == f"daybook: port {port} of the query API is taken: free it, or choose another with --query-port\n"
    assert held_by(tmp_path) is None


@pytest.mark.parametrize("url", ["nonsense", "postgresql://daybook:wrong@127.0.0.1:1/daybook"])
def test_a_wrong_database_url_is_one_line_when_it_comes_to_migrating(tmp_path: Path, url: str) -> None:
    migrated = daybook("migrate", folder=tmp_path, DAYBOOK_DATABASE_URL=url)
    assert migrated.returncode == 1
    assert migrated.stderr.startswith("daybook: cannot migrate: ")
    assert migrated.stderr.count("\n") == 1
    assert "wrong" not in migrated.stderr, "a password is never printed"


# ── the data folder ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_stack_is_found_as_long_as_its_folder_is_held(tmp_path: Path) -> None:
    running = Running(os.getpid(), {"DAYBOOK_SECRET": "s"})
    assert find_running(tmp_path) is None
    with hold(tmp_path):
        assert find_running(tmp_path) is None
        publish(tmp_path, running)
        assert find_running(tmp_path) == running
        assert held_by(tmp_path) == os.getpid()
        with pytest.raises(StackError, match="already runs"), hold(tmp_path):
            pytest.fail("two stacks have one folder")
    assert find_running(tmp_path) is None, "what a killed stack left behind does not count"


def test_the_secrets_of_a_stack_are_for_its_owner_only(tmp_path: Path) -> None:
    publish(tmp_path, Running(1, {}))
    assert (tmp_path / "stack.json").stat().st_mode & 0o777 == 0o600


def test_where_nothing_runs_each_command_says_so(tmp_path: Path) -> None:
    assert daybook("env", folder=tmp_path).stderr == f"daybook: nothing runs on {tmp_path}; `daybook dev` starts it\n"
    assert "no stack runs here" in daybook("status", folder=tmp_path).stderr
    down = daybook("down", folder=tmp_path)
    assert (down.returncode, down.stdout) == (0, f"nothing runs on {tmp_path}\n")
