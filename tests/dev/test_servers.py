"""The database servers of development and tests keep their data, and none outlives the process that started it."""

import asyncio
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure
from redis.asyncio import Redis as RedisClient
from redis.exceptions import AuthenticationError

from dev.child_processes import Child, alive, drop_root, last_lines
from dev.ports import free_port, port_is_free
from dev.servers import Mongo, Postgres, Redis, Server, start_all, stop_all
from shared.errors import StackError


@pytest.fixture
async def postgres(tmp_path: Path) -> AsyncIterator[Postgres]:
    server = Postgres("postgres", tmp_path)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def mongo(tmp_path: Path) -> AsyncIterator[Mongo]:
    server = Mongo("mongo", tmp_path)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[Redis]:
    server = Redis("redis", tmp_path)
    await server.start()
    yield server
    await server.stop()


async def query(url: str, statement: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


# ── what each of them is ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.services
@pytest.mark.parametrize("setting", ["fsync", "synchronous_commit", "full_page_writes"])
async def test_postgres_is_never_faster_than_it_is_safe(postgres: Postgres, setting: str) -> None:
    assert await query(postgres.url, f"SHOW {setting}") == "on"


@pytest.mark.services
async def test_the_application_owns_its_database_and_is_no_superuser(postgres: Postgres) -> None:
    assert await query(postgres.url, "SELECT current_setting('is_superuser')") == "off"
    owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()"
    assert await query(postgres.url, owner) == "daybook"


@pytest.mark.services
async def test_passwords_are_asked_for_and_kept_for_the_owner_only(postgres: Postgres, redis: Redis) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(postgres.url.replace(postgres.url.split(":")[2].split("@")[0], "wrong"))
    async with RedisClient(host="127.0.0.1", port=redis.port or 0) as client:
        with pytest.raises(AuthenticationError):
            await client.get("anything")
    secrets = [*postgres.folder.glob("*.password"), *redis.folder.glob("*.password"), redis.folder / "redis.conf"]
    assert len(secrets) == 4
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets} == {0o600}


@pytest.mark.services
async def test_mongo_asks_for_a_password_and_logs_no_document(mongo: Mongo) -> None:
    """Also of an operation that is slow."""
    url = f"mongodb://{mongo.url.partition('@')[2]}"
    with MongoClient[dict[str, object]](url) as stranger, pytest.raises(OperationFailure, match="auth"):
        stranger.daybook.things.insert_one({})
    with MongoClient[dict[str, object]](mongo.url) as client:
        client.daybook.people.insert_one({"name": "Lovelace"})
        found = client.daybook.people.find_one({"name": "Lovelace", "$where": "sleep(300) || true"})
    assert found
    assert "Lovelace" not in mongo.log.read_text()
    assert {stat.S_IMODE(path.stat().st_mode) for path in (mongo.folder / "members.key", mongo.log)} == {0o600}


@pytest.mark.services
async def test_redis_never_evicts_and_writes_every_change(redis: Redis) -> None:
    async with RedisClient.from_url(redis.url) as client:
        settings = await client.config_get("*")
    assert (settings["maxmemory-policy"], settings["appendonly"]) == ("noeviction", "yes")


@pytest.mark.slow
@pytest.mark.services
async def test_mongo_has_transactions_also_after_it_moved_to_another_port(mongo: Mongo) -> None:
    for _ in range(2):
        with MongoClient[dict[str, object]](mongo.url) as client, client.start_session() as session:
            with session.start_transaction():
                client.daybook.things.insert_one({}, session=session)
        await mongo.stop()
        mongo.port = None
        await mongo.start()
    with MongoClient[dict[str, object]](mongo.url) as client:
        assert client.daybook.things.count_documents({}) == 2


# ── trouble ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.services
async def test_a_killed_postgres_starts_again_on_its_port_with_what_was_acknowledged(postgres: Postgres) -> None:
    port = postgres.port
    for expected in range(3):
        await query(postgres.url, "CREATE TABLE IF NOT EXISTS things (id int)")
        assert await query(postgres.url, "SELECT count(*) FROM things") == expected
        await query(postgres.url, "INSERT INTO things VALUES (1)")
        await postgres.kill()
        await postgres.start()
    assert postgres.port == port


@pytest.mark.slow
@pytest.mark.services
async def test_a_frozen_postgres_keeps_its_connections_and_answers_when_it_is_thawed(postgres: Postgres) -> None:
    connection = await asyncpg.connect(postgres.url)
    postgres.freeze()
    with pytest.raises(TimeoutError):
        await connection.fetchval("SELECT 1", timeout=0.3)
    postgres.thaw()
    assert await query(postgres.url, "SELECT 1") == 1
    await connection.close(timeout=5)


@pytest.mark.slow
@pytest.mark.services
@pytest.mark.parametrize("server", [Postgres, Mongo, Redis])
async def test_a_broken_server_says_why_and_leaves_nothing_running(server: type[Server], tmp_path: Path) -> None:
    broken = server("broken", tmp_path)
    await broken.start()
    await broken.stop()
    for path in broken.folder.rglob("*"):
        if path.is_file() and path.suffix != ".password":
            path.write_bytes(b"rubbish")
    with pytest.raises(StackError, match=r"broken does not start: .*broken\.log"):
        await broken.start()
    assert not broken.running


@pytest.mark.slow
@pytest.mark.services
async def test_one_server_that_cannot_start_ends_the_others(tmp_path: Path, redis: Redis) -> None:
    sound, broken = Mongo("mongo", tmp_path), Redis("other", tmp_path)
    broken.port = redis.port
    with pytest.raises(StackError, match="other does not start"):
        await start_all(sound, broken)
    assert not sound.running


@pytest.mark.slow
@pytest.mark.services
async def test_servers_die_with_the_process_that_started_them(tmp_path: Path) -> None:
    program = """
import asyncio, sys
from pathlib import Path
from dev.servers import Mongo, Postgres, Redis, start_all

async def main():
    servers = [server(server.__name__, Path(sys.argv[1])) for server in (Postgres, Mongo, Redis)]
    await start_all(*servers)
    print(*(server.pid for server in servers), flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""
    parent = subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        pids = [int(pid) for pid in (await asyncio.to_thread(parent.stdout.readline)).split()]
    assert len(pids) == 3
    parent.kill()
    parent.wait()
    async with asyncio.timeout(120):
        while any(alive(pid) for pid in pids):
            await asyncio.sleep(0.05)


async def test_a_child_ends_also_if_its_parent_dies_before_it_asked_for_a_death_signal(tmp_path: Path) -> None:
    """A slow `setpriv` asks for it. On a busy machine, the real one can be as late."""
    program = """
import asyncio, os, sys
from pathlib import Path
from dev.child_processes import Child

child = Child("orphan", Path(sys.argv[1]) / "log", ["sleep", "600"])
asyncio.run(child.start())
print(child.pid, flush=True)
os._exit(0)
"""
    slow = tmp_path / "setpriv"
    slow.write_text(f'#!/bin/sh\nwhile [ ! -e {tmp_path}/orphaned ]; do sleep 0.01; done\nexec {shutil.which("setpriv")} "$@"\n')
    slow.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, tmp_path, stdout=subprocess.PIPE, env=environment
    )
    pid = int((await parent.communicate())[0])
    (tmp_path / "orphaned").touch()
    try:
        async with asyncio.timeout(120):
            while alive(pid):
                await asyncio.sleep(0.05)
    finally:
        if alive(pid):
            os.kill(pid, signal.SIGKILL)


# ── children ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_child_that_does_not_end_when_it_is_asked_to_is_killed(tmp_path: Path) -> None:
    child = Child("stubborn", tmp_path / "log", ["sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.1; done"])
    child.stop_seconds = 0.2
    await child.start()
    while not last_lines(child.log):
        await asyncio.sleep(0.01)
    await child.stop()
    assert child.outcome() == signal.SIGKILL.name


async def test_the_last_words_of_a_child_are_how_it_ended_and_the_end_of_its_log(tmp_path: Path) -> None:
    child = Child("failing", tmp_path / "log", ["sh", "-c", "echo one; echo two; exit 7"])
    await child.start()
    await child.ended()
    assert child.last_words() == f"exit code 7; from {tmp_path / 'log'}:\n  one\n  two"


async def test_children_do_not_hear_the_terminal(tmp_path: Path) -> None:
    """A Ctrl-C reaches only the terminal's foreground group, so that the supervisor can end its children in order."""
    child = Child("quiet", tmp_path / "log", ["sleep", "60"])
    await child.start()
    assert os.getpgid(child.pid) != os.getpgid(0)
    await child.stop()
    assert not child.running


def test_a_port_that_somebody_listens_on_is_not_free() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        assert not port_is_free(listener.getsockname()[1])


async def test_stopping_what_never_started_is_nothing(tmp_path: Path) -> None:
    never = Child("never", tmp_path / "log", ["true"])
    await stop_all(never)
    assert not never.running


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_server_that_shuns_root_may_run_programs_in_a_folder_that_is_closed_to_others(tmp_path: Path) -> None:
    """The program initdb asks the kernel whether it may run postgres before it runs it. So does `test -x`."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    program = closed / "program"
    program.write_text("#!/bin/sh\nid -un\n")
    program.chmod(0o755)
    asking = subprocess.run(["setpriv", *drop_root(), "test", "-x", program], check=False)
    running = subprocess.run(["setpriv", *drop_root(), program], capture_output=True, text=True, check=False)
    assert (asking.returncode, running.stdout) == (0, "nobody\n")


def test_a_process_gets_no_port_twice_before_its_servers_have_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dev.ports.PORTS", range(20_000, 20_100))
    ports = [free_port() for _ in range(50)]
    assert len({*ports}) == len(ports)
