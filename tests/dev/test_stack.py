"""Runs `daybook dev` as a person does: one command starts everything, and another ends it without a trace."""

import json
import os
import re
import resource
import shutil
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

from dev.cassandra_server import CassandraServer
from dev.child_processes import alive, family
from dev.data_folder import ROOT, RunningStack, find_running, held_by, hold, publish
from dev.ports import free_port
from dev.search_servers import OpenSearchServer
from dev.seed import ADAS_EUROS
from dev.servers import MariaDb, Server
from dev.stack import STACK_VARIABLES
from shared.errors import StackError
from shared.web.api_client import bearer

SMALL_SHARED_MEMORY = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=1m tmpfs /dev/shm && exec "$@"', "sh")
"""Runs a command where /dev/shm has 1 MB."""
ENDED_SECONDS = 60.0
"""How long the end of a stack may take on a busy machine. It should take less than 10 seconds."""


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
    """Starts a stack on ports that the system chooses, so that it does not disturb one on the default ports."""
    return daybook("dev", "--detach", "--command-port", "0", "--query-port", "0", folder=folder, **environment)


@contextmanager
def stack_on(folder: Path) -> Iterator[RunningStack]:
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


def copied_checkout(folder: Path) -> Path:
    """Copies the rooms that a stack needs."""
    for room in ("cli", "command_api", "dev", "importers", "migrations", "projector", "query_api", "shared"):
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def poor_process() -> None:
    """Lets the process of `daybook` open few files."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))


def balance(running: RunningStack) -> int:
    url = f"{running.environment['DAYBOOK_QUERY_URL']}/v1/accounts/{ADAS_EUROS}/balance"
    answer = httpx2.get(url, headers=bearer(running.environment["DAYBOOK_API_KEY"]))
    return int(answer.json()["posted"])


# ── the stack ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.services
def test_a_stack_serves_ends_without_a_trace_and_comes_back_whatever_was_killed(tmp_path: Path) -> None:
    """One data folder has three stacks in turn, because most of the time goes into making the data of the first."""
    before = serve_and_end(tmp_path)
    with stack_on(tmp_path) as second:
        assert balance(second) == before
        kill_its_children(tmp_path, second)
        assert balance(second) == before
        os.kill(second.pid, signal.SIGKILL)
        with stack_on(tmp_path) as third:
            assert third.pid != second.pid
            assert balance(third) == before


def serve_and_end(folder: Path) -> int:
    """One command starts everything, and another ends it. Returns a balance."""
    started = start(folder)
    assert started.returncode == 0, started.stderr
    create, transfer, read_back = re.findall(r"^curl .*$", started.stdout, re.MULTILINE)
    for line in (create, transfer):
        answer = subprocess.run(["bash", "-c", f"{line} -o /dev/null -w '%{{http_code}}'"], capture_output=True, check=True)
        assert answer.stdout == b"201"
    answer = subprocess.run(["bash", "-c", read_back], capture_output=True, check=True)
    assert json.loads(answer.stdout)["posted"] == 1250

    status = daybook("status", folder=folder)
    assert status.returncode == 0, status.stdout
    assert status.stdout.count("ready") == 3
    running = find_running(folder)
    assert running is not None
    assert set(running.environment) == set(STACK_VARIABLES), "what `daybook env --unset` removes"
    query_url = running.environment["DAYBOOK_QUERY_URL"]
    assert f"{query_url}/console" in started.stdout
    asked = httpx2.get(f"{running.environment['DAYBOOK_COMMAND_URL']}/livez", headers={"origin": query_url}, trust_env=False)
    assert asked.headers["access-control-allow-origin"] == query_url, "the console may send commands"
    pids = family(running.pid)
    assert len(pids) == 7

    refused = start(folder)
    assert refused.returncode == 1
    assert f"a stack already runs on {folder} (process {running.pid})" in refused.stderr
    before = balance(running)
    assert before > 0

    assert daybook("down", folder=folder).returncode == 0
    assert held_by(folder) is None
    assert not (folder / "stack.json").exists()
    assert not [pid for pid in pids if alive(pid)]
    return before


def kill_its_children(folder: Path, running: RunningStack) -> None:
    """Each server and process that dies is started again."""
    children = set(family(running.pid)) - {running.pid}
    for pid in children:
        os.kill(pid, signal.SIGKILL)

    def all_back() -> bool:
        now = set(family(running.pid)) - {running.pid}
        return len(now) == len(children) and not now & children

    def serves() -> bool:
        return daybook("status", folder=folder).returncode == 0

    assert within(30, all_back)
    assert within(30, serves)
    said = (folder / "stack.log").read_text()
    for name in ("postgres", "mongo", "redis", "command-api", "query-api", "worker"):
        assert f"{name} ended (SIGKILL) and is started again" in said


def is_installed(server: type[Server]) -> bool:
    try:
        server.require_installed()
    except StackError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.services
def test_a_stack_with_optional_stores_answers_reports_searches_and_publishes(tmp_path: Path) -> None:
    """Search and the timeline are left out where `make engines` has not been run, and reports are in SQLite
    where MariaDB is not installed.
    """
    ports = ("--command-port", "0", "--query-port", "0")
    made = {"search": OpenSearchServer, "timeline": CassandraServer}
    engines = ("sql", "publish", *(name for name, server in made.items() if is_installed(server)))
    started = daybook("dev", "--detach", "--engines", ",".join(engines), *ports, folder=tmp_path)
    try:
        assert started.returncode == 0, started.stderr
        running = find_running(tmp_path)
        assert running is not None
        key = bearer(running.environment["DAYBOOK_API_KEY"])
        url = running.environment["DAYBOOK_QUERY_URL"]
        kind = running.environment["DAYBOOK_REPORTING_URL"].partition(":")[0]
        assert kind == ("mysql+aiomysql" if is_installed(MariaDb) else "sqlite+aiosqlite")
        assert within(60, lambda: httpx2.get(f"{url}/v1/reports/users", headers=key).json().get("total", 0) > 0)
        listed = daybook("projections", "list", folder=tmp_path, **running.environment)
        assert re.search(r"reports\W+1\W+live", listed.stdout), listed.stdout + listed.stderr
        if "search" in engines:
            assert within(60, lambda: httpx2.get(f"{url}/v1/search?q=ada", headers=key).json().get("items"))
        if "timeline" in engines:
            accounts = httpx2.get(f"{url}/v1/accounts", headers=key).json()["items"]
            path = f"{url}/v1/accounts/{accounts[0]['id']}/timeline"
            assert within(60, lambda: "items" in httpx2.get(path, headers=key).json())
        assert within(60, lambda: httpx2.get(f"{url}/readyz").json().get("publishing") == "ok")
        published = daybook("publish", folder=tmp_path, **running.environment)
        assert re.search(r"main\W+[1-9]\d*\W+0\W", published.stdout), published.stdout + published.stderr
        assert daybook("dev", "--engines", "hammer", folder=tmp_path).returncode == 2
    finally:
        daybook("down", folder=tmp_path)


@pytest.mark.slow
@pytest.mark.services
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_it_starts_ends_what_was_started(tmp_path: Path, ending: signal.Signals) -> None:
    command = [sys.executable, "-m", "cli.app", "dev", "--command-port", "0", "--query-port", "0"]
    with subprocess.Popen(command, env=os.environ | {"DAYBOOK_DATA_DIR": str(tmp_path)}, stdout=subprocess.DEVNULL) as supervisor:
        assert within(60, (tmp_path / "postgres.log").exists)
        supervisor.send_signal(ending)
        supervisor.wait(ENDED_SECONDS)
    assert held_by(tmp_path) is None


@pytest.mark.slow
@pytest.mark.services
def test_a_broken_server_is_one_error_and_nothing_is_left_running(tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir()
    (tmp_path / "redis" / "appendonly.aof").write_bytes(b"rubbish")
    (tmp_path / "redis" / "appendonlydir").touch()
    failed = start(tmp_path)
    assert failed.returncode == 1
    assert failed.stderr.startswith("daybook: redis does not start: exit code 1; from")
    assert held_by(tmp_path) is None


@pytest.mark.slow
@pytest.mark.services
def test_a_configured_database_that_does_not_answer_is_named_and_none_is_started_for_it(tmp_path: Path) -> None:
    failed = start(tmp_path, DAYBOOK_DATABASE_URL="postgresql://nobody@127.0.0.1:1/nowhere")
    assert failed.returncode == 1
    assert failed.stderr.startswith("daybook: DAYBOOK_DATABASE_URL names a server that does not answer")
    assert "`unset DAYBOOK_DATABASE_URL`" in failed.stderr
    assert failed.stderr.count("\n") == 1
    assert not (tmp_path / "postgres").exists()


@pytest.mark.slow
def test_a_taken_port_is_one_line_that_names_it(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        failed = daybook("dev", "--command-port", "0", "--query-port", str(port), folder=tmp_path)
    assert failed.returncode == 1
    assert failed.stderr == f"daybook: port {port} of the query API is in use: free it, or choose another with --query-port\n"
    assert held_by(tmp_path) is None


@pytest.mark.slow
@pytest.mark.services
def test_a_stack_starts_anywhere_with_any_environment(tmp_path: Path) -> None:
    """The paths have every odd character and 150 letters, HOME can only be read, and few files may be open.

    The variables of libpq in the shell reach no server and no connection, and PORT and HOST variables mean what they say.
    """
    odd = 'ö 100% "quoted" \\ $HOME `x` ' + "n" * 20
    checkout = copied_checkout(tmp_path / odd)
    home = tmp_path / "home"
    home.mkdir(mode=0o500)
    port = free_port()
    data = tmp_path / odd / ("data " + "d" * (145 - len(odd)))
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(checkout),
        "HOME": str(home),
        "LANG": "C",
        "LC_ALL": "C",
        "PGHOST": "192.0.2.1",
        "PGPORT": "1",
        "PGUSER": "somebody",
        "PGDATABASE": "nothing",
        "PGDATA": str(home),
        "PGOPTIONS": "-c fsync=off",
        "PGSSLMODE": "verify-full",
        "PGPASSFILE": "/dev/null",
        "PGTZ": "Mars/Phobos",
        "DAYBOOK_DATA_DIR": str(data),
        "DAYBOOK_COMMAND_PORT": str(port),
        "DAYBOOK_QUERY_PORT": "0",
        "DAYBOOK_HOST": "127.0.0.2",
    }

    can_mount = subprocess.run([*SMALL_SHARED_MEMORY, "true"], capture_output=True, check=False).returncode == 0

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*(SMALL_SHARED_MEMORY if can_mount else ()), sys.executable, "-m", "cli.app", *arguments]
        return subprocess.run(
            command,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
            preexec_fn=poor_process,
        )

    try:
        started = run("dev", "--detach")
        assert started.returncode == 0, started.stderr
        running = find_running(data)
        assert running is not None
        assert running.environment["DAYBOOK_COMMAND_URL"] == f"http://127.0.0.2:{port}"
        assert balance(running) > 0
        verified = run("verify")
        assert verified.returncode == 0, verified.stdout + verified.stderr
    finally:
        run("down")
    assert held_by(data) is None
    assert list(home.iterdir()) == []


# ── the data folder ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_stack_is_found_as_long_as_its_folder_is_held(tmp_path: Path) -> None:
    running = RunningStack(os.getpid(), {"DAYBOOK_SECRET": "s"})
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
    publish(tmp_path, RunningStack(1, {}))
    assert (tmp_path / "stack.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.slow
def test_each_command_says_so_if_nothing_runs(tmp_path: Path) -> None:
    assert daybook("env", folder=tmp_path).stderr == f"daybook: no stack runs on {tmp_path}; `daybook dev` starts one\n"
    assert "no development stack runs (`daybook dev` starts one)" in daybook("status", folder=tmp_path).stderr
    down = daybook("down", folder=tmp_path)
    assert (down.returncode, down.stdout) == (0, f"no stack runs on {tmp_path}\n")


def test_make_run_passes_its_options_on() -> None:
    """`make -n` prints what it would run."""
    outside_make = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}}
    command = ["make", "--no-print-directory", "-n", "run", "ARGS=--no-seed"]
    printed = subprocess.run(command, cwd=ROOT, env=outside_make, capture_output=True, text=True, check=True).stdout
    assert printed.splitlines()[-1].endswith("daybook dev --no-seed")
