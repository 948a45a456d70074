"""Runs `daybook events export` and `import` as an operator does: a ledger moves whole and works as before, or does not move."""

import asyncio
import gzip
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import asyncpg
import pytest
import pytest_asyncio
from typer.testing import CliRunner

from cli.app import app
from command_api.domain.stream_folds import fold_of
from command_api.past_history import DOMAIN
from dev.data_folder import ROOT
from shared.errors import FileUnusable, LogDamaged, OperatorError
from shared.ledger_file.ledger_export import export_ledger
from shared.ledger_file.ledger_import import ImportedLedger, import_ledger
from shared.settings import Settings
from tests.harness.clients import Commands, command_api, created
from tests.harness.log import Book, make_ledger
from tests.harness.progress import hide_progress
from tests.harness.projecting import eventually, open_ledger, tamper
from tests.harness.running import Servers, environment_of

pytestmark = pytest.mark.services

OTHER_MASTER_KEY: Final = "YW5vdGhlciBtYXN0ZXIga2V5IG9mIHRlc3RzLCAzMmI="
TABLES: Final = ("events", "stream_events", "streams", "log_heads", "idempotency_keys", "person_keys")


async def export_to(settings: Settings, file: Path, keys: Path | None = None, ledger_id: str = "main") -> None:
    await export_ledger(settings, ledger_id, file, keys, hide_progress)


async def import_from(settings: Settings, file: Path, keys: Path | None = None) -> ImportedLedger:
    return await import_ledger(settings, DOMAIN, file, keys, hide_progress)


class Ended:
    """A run of `daybook` that has ended."""

    def __init__(self, code: int, out: bytes, err: bytes) -> None:
        self.code, self.out, self.err = code, out, err.decode()


def start(settings: Settings, *arguments: str | Path, more: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    environment = {"PATH": "/usr/bin:/bin", **environment_of(settings), **(more or {})}
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", "cli.app", "events", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, stderr=pipe)


async def run(settings: Settings, *arguments: str | Path, given: bytes = b"") -> Ended:
    process = start(settings, *arguments)
    out, err = await asyncio.to_thread(process.communicate, given, 60)
    return Ended(process.returncode, out, err)


async def piped(settings: Settings, *arguments: str | Path, given: bytes = b"") -> bytes:
    ended = await run(settings, *arguments, given=given)
    assert ended.code == 0, ended.err
    return ended.out


async def refused(settings: Settings, file: Path, keys: Path | None = None) -> str:
    """Imports files that are refused, and checks that the database has not changed. Returns the message."""
    before = await contents(settings)
    with pytest.raises(OperatorError) as refusal:
        await import_from(settings, file, keys)
    assert await contents(settings) == before
    return str(refusal.value)


async def contents(settings: Settings, tables: Sequence[str] = TABLES) -> dict[str, list[Any]]:
    connection = await asyncpg.connect(settings.database_url, ssl=False)
    try:
        found = {}
        for table in tables:
            rows = await connection.fetch(f"SELECT CAST(t AS text) FROM {table} t")
            found[table] = sorted(row[0] for row in rows)
        return found
    finally:
        await connection.close()


class Moved:
    """A ledger with every kind of content, and the files that it was exported to."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.file, self.keys = folder / "ledger.jsonl", folder / "ledger.keys"
        self.users: list[str] = []
        self.accounts: list[str] = []
        self.answers: dict[str, bytes] = {}
        """Idempotency key → the body of the reply."""

    async def fill(self) -> None:
        async with command_api(self.settings) as commands:
            for number in range(3):
                body = {"name": f"Ada {number}", "email": f"ada{number}@example.com"}
                answer = await commands.post("/v1/users", body, idempotency_key=f"user-{number}")
                self.users.append(created(answer))
                self.answers[f"user-{number}"] = answer.content
            self.accounts = [await commands.account(self.users[n], balance=1_000) for n in range(2)]
            for number in range(20):
                answer = await self.transfer(commands, number)
                created(answer)
                self.answers[f"transfer-{number}"] = answer.content
            answer = await commands.withdraw(self.accounts[0], 10**6, idempotency_key="refused")
            assert answer.status_code == 409
            self.answers["refused"] = answer.content
            assert (await commands.post(f"/v1/users/{self.users[2]}/erase")).status_code == 200

    async def transfer(self, commands: Commands, number: int) -> Any:
        payer, payee = self.accounts
        return await commands.transfer(payer, payee, 10 + number, idempotency_key=f"transfer-{number}")

    async def export(self) -> None:
        await export_to(self.settings, self.file, self.keys)

    @property
    def lines(self) -> list[bytes]:
        return self.file.read_bytes().splitlines(keepends=True)


@pytest_asyncio.fixture
async def moved(settings: Settings, tmp_path: Path) -> AsyncIterator[Moved]:
    ledger = Moved(settings, tmp_path)
    await ledger.fill()
    await ledger.export()
    yield ledger


async def is_there(settings: Settings, ledger_id: str = "main") -> bool:
    """True if any table holds a part of the ledger."""
    rows = await contents(settings)
    return any(f"({ledger_id}," in row for table in TABLES if table != "log_heads" for row in rows[table])


# ── it works on as it did ────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_export_of_an_imported_ledger_is_the_same_to_the_byte(moved: Moved, elsewhere: Settings) -> None:
    assert (await import_from(elsewhere, moved.file, moved.keys)).is_new
    again = Moved(elsewhere, moved.file.parent / "..")
    again.file, again.keys = moved.file.with_name("again.jsonl"), moved.keys.with_name("again.keys")
    await again.export()
    assert again.file.read_bytes() == moved.file.read_bytes()
    assert again.keys.read_bytes() == moved.keys.read_bytes()
    tables = ("events", "stream_events", "log_heads", "idempotency_keys")
    assert await contents(elsewhere, tables) == await contents(moved.settings, tables)


@pytest.mark.slow
async def test_read_models_are_the_same_and_verify_finds_nothing(moved: Moved, elsewhere: Settings) -> None:
    await import_from(elsewhere, moved.file, moved.keys)
    digests = []
    for settings in (moved.settings, elsewhere):
        async with open_ledger(settings) as ledger:
            await ledger.build()
            digests.append(await ledger.digests())
    assert digests[0] == digests[1]
    environment = {"PATH": "/usr/bin:/bin", **environment_of(elsewhere)}
    verify = [sys.executable, "-m", "cli.app", "verify"]
    ended = await asyncio.to_thread(subprocess.run, verify, cwd=ROOT, env=environment, capture_output=True, check=False)
    assert ended.returncode == 0, ended.stdout.decode()


async def test_commands_go_on_where_they_were(moved: Moved, elsewhere: Settings) -> None:
    await import_from(elsewhere, moved.file, moved.keys)
    async with command_api(elsewhere) as commands:
        balances = (await moved.transfer(commands, 99)).json()["balances"]
        spent = sum(10 + number for number in (*range(20), 99))
        assert [balance["posted"] for balance in balances] == [1_000 - spent, 1_000 + spent]
        renamed = await commands.client.patch(
            f"/v1/users/{moved.users[0]}", json={"name": "Ada Lovelace"}, headers={"If-Match": '"v1"'}
        )
        assert (renamed.status_code, renamed.json()["email"]) == (200, "ada0@example.com")
        assert (await commands.post("/v1/users", {"name": "B", "email": "ada1@example.com"})).json()["code"] == "email-taken"
        assert (await commands.post(f"/v1/users/{moved.users[2]}/reactivate")).json()["code"] == "user-erased"
        created(await commands.post("/v1/users", {"name": "C", "email": "ada2@example.com"}))


async def test_a_repeated_command_gets_its_stored_reply_after_the_move(moved: Moved, elsewhere: Settings) -> None:
    """The stored replies move with the ledger, so a caller who repeats a command in the new place gets the same reply."""
    await import_from(elsewhere, moved.file, moved.keys)
    async with command_api(elsewhere) as commands:
        for number in range(20):
            answer = await moved.transfer(commands, number)
            assert (answer.content, answer.headers["idempotency-replayed"]) == (moved.answers[f"transfer-{number}"], "true")
        answer = await commands.withdraw(moved.accounts[0], 10**6, idempotency_key="refused")
        assert answer.content == moved.answers["refused"]
        for number in range(2):
            body = {"name": f"Ada {number}", "email": f"ada{number}@example.com"}
            answer = await commands.post("/v1/users", body, idempotency_key=f"user-{number}")
            assert answer.content == moved.answers[f"user-{number}"]
        answer = await commands.withdraw(moved.accounts[0], 1, idempotency_key="refused")
        assert answer.json()["code"] == "idempotency-key-reused"


@pytest.mark.slow
async def test_long_histories_get_the_snapshots_that_their_events_fold_to(
    settings: Settings, elsewhere: Settings, tmp_path: Path
) -> None:
    """The import reads several pages, into a ledger that did not exist."""
    async with open_ledger(settings, "second") as ledger:
        await make_ledger(ledger.writer, "second")
        await ledger.append(Book(seed=3).history(4_500))
    await export_to(settings, tmp_path / "l.jsonl.gz", tmp_path / "k", "second")
    await import_from(elsewhere, tmp_path / "l.jsonl.gz", tmp_path / "k")
    rows = {}
    for name, where in (("there", settings), ("here", elsewhere)):
        connection = await asyncpg.connect(where.database_url, ssl=False)
        rows[name] = await connection.fetch("SELECT * FROM streams WHERE ledger_id = 'second' ORDER BY stream_id")
        await connection.close()
    assert len(rows["here"]) == len(rows["there"]) > 3_500
    for here, there in zip(rows["here"], rows["there"], strict=True):
        if fold_of(here["stream_id"]).is_personal:
            assert (here["stream_id"], here["version"], here["position"]) == (
                there["stream_id"],
                there["version"],
                there["position"],
            )
        else:
            assert here == there


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
async def test_pipes_and_packed_files_hold_the_same(moved: Moved, elsewhere: Settings, tmp_path: Path) -> None:
    plain = await piped(moved.settings, "export", "-")
    assert plain == moved.file.read_bytes()
    packed, again = tmp_path / "ledger.jsonl.gz", tmp_path / "again.jsonl.gz"
    await export_to(moved.settings, packed)
    await export_to(moved.settings, again)
    assert gzip.decompress(packed.read_bytes()) == plain
    assert packed.read_bytes() == again.read_bytes()
    await piped(elsewhere, "import", "-", "--keys", moved.keys, given=plain)
    assert not (await import_from(elsewhere, packed, moved.keys)).is_new


async def test_files_are_for_their_owner_only(moved: Moved) -> None:
    assert {path.stat().st_mode & 0o777 for path in (moved.file, moved.keys)} == {0o600}


async def test_no_name_no_address_and_no_plain_key_stands_in_the_files(moved: Moved) -> None:
    raw = moved.file.read_bytes() + moved.keys.read_bytes()
    assert b"Ada" not in raw
    assert b"ada0@example.com" not in raw
    assert moved.settings.master_keys.get_secret_value().encode() not in raw


@pytest.mark.slow
async def test_cloud_events_are_every_event_and_nothing_else(moved: Moved, elsewhere: Settings, tmp_path: Path) -> None:
    events = [json.loads(line) for line in (await piped(moved.settings, "export", "-", "--format", "cloudevents")).splitlines()]
    exported = [line for line in map(json.loads, moved.lines) if line["line"] == "event"]
    assert [event["id"] for event in events] == [line["event_id"] for line in exported]
    assert [event["data"] for event in events] == [line["data"] for line in exported]
    (tmp_path / "c").write_text("\n".join(map(json.dumps, events)))
    assert "line 1" in await refused(elsewhere, tmp_path / "c")
    ended = await run(elsewhere, "import", tmp_path / "c")
    assert (ended.code, ended.err.splitlines()) == (
        65,
        ["daybook: line 1: this is not a line of a ledger file; nothing is imported"],
    )


@pytest.mark.slow
async def test_progress_and_hints_are_no_part_of_what_goes_to_stdout(moved: Moved) -> None:
    ended = await run(moved.settings, "export", "-")
    *progress, hint = ended.err.splitlines()
    assert json.loads(progress[-1])["done"] == json.loads(progress[-1])["total"] == len(moved.lines) - 2
    assert "--keys" in hint


@pytest.mark.slow
async def test_a_reader_who_goes_away_gets_no_traceback(settings: Settings) -> None:
    async with open_ledger(settings) as ledger:
        await ledger.append(Book().history(3_000))
    process = start(settings, "export", "-")
    assert process.stdout
    assert process.stdout.readline()
    process.stdout.close()
    assert process.stderr
    err = await asyncio.to_thread(process.stderr.read)
    process.stderr.close()
    assert process.stdin
    process.stdin.close()
    assert (await asyncio.to_thread(process.wait), b"Traceback" in err, b"has ended" in err) == (141, False, True)


async def test_a_file_that_cannot_be_written_is_named(settings: Settings, tmp_path: Path) -> None:
    async with open_ledger(settings) as ledger:
        await ledger.append(Book().history(300))
    for file in (tmp_path / "nowhere/ledger.jsonl", Path("/dev/full"), tmp_path):
        with pytest.raises(FileUnusable, match=f"{file} cannot be written"):
            await export_to(settings, file)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
async def test_only_regular_files_are_replaced_and_links_are_followed(moved: Moved, tmp_path: Path) -> None:
    """A file of another kind gets the content and stays what it is. What an earlier run has left behind gives nobody access."""
    whole, pipe, target, link = moved.file.read_bytes(), tmp_path / "pipe", tmp_path / "target", tmp_path / "link"
    os.mkfifo(pipe)
    reading = asyncio.create_task(asyncio.to_thread(pipe.read_bytes))
    await export_to(moved.settings, pipe)
    assert (await reading, pipe.is_fifo()) == (whole, True)
    link.symlink_to(target.name)
    await export_to(moved.settings, link)
    left_over = tmp_path / ".target.part"
    left_over.write_bytes(b"")
    left_over.chmod(0o666)
    with left_over.open("rb") as spy:
        await export_to(moved.settings, link)
        assert spy.read() == b""
    assert (link.is_symlink(), target.read_bytes(), target.stat().st_mode & 0o777) == (True, whole, 0o600)
    standard = await run(moved.settings, "export", "/dev/stdout")
    assert (standard.code, standard.out, Path("/dev/stdout").is_symlink()) == (0, whole, True)


async def test_the_keys_have_a_file_of_their_own_however_it_is_spelled(moved: Moved, tmp_path: Path) -> None:
    before = moved.file.read_bytes()
    (tmp_path / "link").symlink_to(moved.file)
    (tmp_path / "hard").hardlink_to(moved.file)
    (tmp_path / "dangling").symlink_to("new")
    same = [(moved.file, tmp_path / "link"), (moved.file, tmp_path / "hard"), (tmp_path / "new", tmp_path / "dangling")]
    same += [(moved.file, Path(tmp_path, "..", tmp_path.name, moved.file.name)), (Path("-"), Path("/dev/stdout"))]
    for file, keys in same:
        ended = await asyncio.to_thread(
            CliRunner().invoke, app, ["events", "export", str(file), "--keys", str(keys)], env=environment_of(moved.settings)
        )
        assert (ended.exit_code, "give a second file" in ended.output) == (2, True), (file, keys, ended.output)
    assert moved.file.read_bytes() == before


@pytest.mark.slow
async def test_a_missing_ledger_file_or_database_is_named(settings: Settings, tmp_path: Path) -> None:
    ended = await run(settings, "export", "-", "--ledger", "nowhere")
    assert (ended.code, "nowhere" in ended.err) == (2, True)
    assert "cannot be read" in await refused(settings, tmp_path / "nothing.jsonl")
    lost = settings.model_copy(update={"database_url": "postgresql://daybook:x@127.0.0.1:1/daybook"})
    ended = await run(lost, "export", "-")
    assert (ended.code, "PostgreSQL does not answer" in ended.err, "Traceback" in ended.err) == (69, True, False)


# ── whole or not at all ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_ledger_that_was_imported_is_not_imported_again(moved: Moved, elsewhere: Settings) -> None:
    await import_from(elsewhere, moved.file, moved.keys)
    before = await contents(elsewhere)
    assert not (await import_from(elsewhere, moved.file, moved.keys)).is_new
    assert await contents(elsewhere) == before
    assert not (await import_from(moved.settings, moved.file)).is_new


async def test_an_old_file_brings_nobody_back_who_was_erased_since(moved: Moved, elsewhere: Settings) -> None:
    await import_from(elsewhere, moved.file, moved.keys)
    async with command_api(elsewhere) as commands:
        assert (await commands.post(f"/v1/users/{moved.users[0]}/erase")).status_code == 200
    before = await contents(elsewhere)
    assert not (await import_from(elsewhere, moved.file, moved.keys)).is_new
    assert await contents(elsewhere) == before


async def test_older_keys_bring_nobody_back_who_was_erased_since(moved: Moved, elsewhere: Settings) -> None:
    async with command_api(moved.settings) as commands:
        assert (await commands.post(f"/v1/users/{moved.users[0]}/erase")).status_code == 200
    await export_to(moved.settings, moved.file)
    assert moved.users[0] in moved.keys.read_text()
    await import_from(elsewhere, moved.file, moved.keys)
    people = (await contents(elsewhere, ["person_keys"]))["person_keys"]
    assert [user for user in moved.users if any(user in row for row in people)] == [moved.users[1]]


async def test_a_ledger_with_other_events_stays_as_it_is(moved: Moved, elsewhere: Settings) -> None:
    async with open_ledger(elsewhere) as ledger:
        await ledger.append(Book(seed=8).history(100))
    assert "holds other events" in await refused(elsewhere, moved.file, moved.keys)


async def test_a_longer_copy_of_a_ledger_is_not_put_over_a_shorter_one(moved: Moved, elsewhere: Settings) -> None:
    await import_from(elsewhere, moved.file, moved.keys)
    async with command_api(moved.settings) as commands:
        created(await moved.transfer(commands, 50))
    await moved.export()
    assert "holds other events" in await refused(elsewhere, moved.file, moved.keys)


async def test_a_change_far_behind_leaves_nothing_of_what_came_before(
    settings: Settings, elsewhere: Settings, tmp_path: Path
) -> None:
    async with open_ledger(settings) as ledger:
        await ledger.append(Book(seed=4).history(5_000))
    await export_to(settings, tmp_path / "l", tmp_path / "k")
    lines = (tmp_path / "l").read_bytes().splitlines(keepends=True)
    place = lines[4_990].index(b'"hash"')
    lines[4_990] = lines[4_990][: place - 3] + b"9" + lines[4_990][place - 2 :]
    (tmp_path / "l").write_bytes(b"".join(lines))
    assert "line 4991" in await refused(elsewhere, tmp_path / "l", tmp_path / "k")
    packed = gzip.compress(b"".join(lines[:4_000]))
    (tmp_path / "l.gz").write_bytes(packed[:-2_000])
    assert "cannot be unpacked after line" in await refused(elsewhere, tmp_path / "l.gz", tmp_path / "k")


async def test_people_do_not_lose_their_names_for_a_missing_file(moved: Moved, elsewhere: Settings) -> None:
    assert "2 people" in await refused(elsewhere, moved.file)
    moved.keys.write_bytes(b"".join(moved.keys.read_bytes().splitlines(keepends=True)[:-1]))
    assert "keys of ledger 'main'" in await refused(elsewhere, moved.file, moved.keys)


async def test_keys_that_cannot_be_unwrapped_are_refused(moved: Moved, elsewhere: Settings) -> None:
    strange = elsewhere.model_copy(update={"master_keys": type(elsewhere.master_keys)(OTHER_MASTER_KEY)})
    assert "DAYBOOK_MASTER_KEYS does not name" in await refused(strange, moved.file, moved.keys)
    first, *keys = [json.loads(line) for line in moved.keys.read_bytes().splitlines()]
    people = [key for key in keys if key["person_id"] in moved.users]
    people[0]["person_id"], people[1]["person_id"] = people[1]["person_id"], people[0]["person_id"]
    moved.keys.write_text("".join(json.dumps(line) + "\n" for line in (first, *keys)))
    assert "was wrapped for another place" in await refused(elsewhere, moved.file, moved.keys)


@pytest.mark.slow
async def test_a_slow_pipe_is_waited_for(moved: Moved, elsewhere: Settings) -> None:
    hasty = {"DAYBOOK_DATABASE_IDLE_IN_TRANSACTION_TIMEOUT_MS": "100"}
    process = start(elsewhere, "import", "-", "--keys", moved.keys, more=hasty)
    assert process.stdin
    half = len(moved.lines) // 2
    process.stdin.write(b"".join(moved.lines[:half]))
    process.stdin.flush()
    await eventually(lambda: has_begun(elsewhere))
    await asyncio.sleep(0.3)
    process.stdin.write(b"".join(moved.lines[half:]))
    out, err = await asyncio.to_thread(process.communicate, None, 60)
    assert (process.returncode, b"imported" in out) == (0, True), err


async def has_begun(settings: Settings) -> bool:
    """True while an import is under way, which locks the ledger's head."""
    connection = await asyncpg.connect(settings.database_url, ssl=False)
    try:
        return not await connection.fetch("SELECT 1 FROM log_heads FOR UPDATE SKIP LOCKED")
    finally:
        await connection.close()


@pytest.mark.slow
@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -15), (signal.SIGKILL, -9)])
async def test_an_import_that_is_ended_leaves_nothing(moved: Moved, elsewhere: Settings, how: signal.Signals, code: int) -> None:
    before = await contents(elsewhere)
    process = start(elsewhere, "import", "-", "--keys", moved.keys)
    assert process.stdin
    process.stdin.write(b"".join(moved.lines[:-3]))
    process.stdin.flush()
    await eventually(lambda: has_begun(elsewhere))
    process.send_signal(how)
    assert await asyncio.to_thread(process.wait, 30) == code
    _, err = await asyncio.to_thread(process.communicate)
    assert b"Traceback" not in err
    assert (b"nothing was imported" in err) == (how == signal.SIGINT)
    assert await contents(elsewhere) == before
    await import_from(elsewhere, moved.file, moved.keys)


@pytest.mark.slow
async def test_an_import_killed_at_any_moment_is_whole_or_not_there(
    settings: Settings, elsewhere: Settings, tmp_path: Path
) -> None:
    async with open_ledger(settings) as ledger:
        await ledger.append(Book(seed=9).history(6_000))
    await export_to(settings, tmp_path / "l", tmp_path / "k")
    for attempt in range(4):
        process = start(elsewhere, "import", tmp_path / "l", "--keys", tmp_path / "k")
        await eventually(lambda running=process: begun_or_over(elsewhere, running))  # type: ignore[misc]
        await asyncio.sleep(random.Random(attempt).random() * 0.8)
        process.kill()
        await asyncio.to_thread(process.communicate)
        rows = await contents(elsewhere)
        assert len(rows["events"]) in {0, 6_000}
        if rows["events"]:
            assert all(len(rows[table]) > 0 for table in ("stream_events", "streams", "person_keys"))
    await import_from(elsewhere, tmp_path / "l", tmp_path / "k")
    await export_to(elsewhere, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "l").read_bytes()


async def begun_or_over(settings: Settings, process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is not None or await has_begun(settings)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
async def test_an_export_that_is_ended_leaves_the_file_that_was_there(
    settings: Settings, tmp_path: Path, how: signal.Signals
) -> None:
    file = tmp_path / "ledger.jsonl"
    async with open_ledger(settings) as ledger:
        await ledger.append(Book(seed=2).history(200))
        await export_to(settings, file)
        before = file.read_bytes()
        await ledger.append(Book(seed=3).history(8_000))
    process = start(settings, "export", file)
    part = tmp_path / ".ledger.jsonl.part"
    while not part.exists():
        await asyncio.sleep(0.001)
    process.send_signal(how)
    await asyncio.to_thread(process.communicate)
    assert process.returncode in {130, -9}
    assert file.read_bytes() == before
    assert part.exists() == (how == signal.SIGKILL)
    await export_to(settings, file)
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.slow
async def test_an_import_that_meets_somebody_who_writes_gives_up_and_says_why(moved: Moved, elsewhere: Settings) -> None:
    connection = await asyncpg.connect(elsewhere.database_url, ssl=False)
    async with connection.transaction():
        await connection.execute("SELECT 1 FROM log_heads WHERE ledger_id = 'main' FOR UPDATE")
        ended = await run(elsewhere, "import", moved.file, "--keys", moved.keys)
    await connection.close()
    assert (ended.code, "lock timeout" in ended.err) == (69, True), ended.err


async def test_a_damaged_log_is_not_exported(settings: Settings, tmp_path: Path, servers: Servers) -> None:
    async with open_ledger(settings) as ledger:
        await ledger.append(Book(seed=2).history(50))
    await tamper(servers.postgres, settings, "UPDATE events SET recorded_at = now() WHERE position = 20")
    ended = await run(settings, "export", tmp_path / "l")
    assert (ended.code, "position 20" in ended.err, (tmp_path / "l").exists()) == (65, True, False)
    await tamper(servers.postgres, settings, "DELETE FROM events WHERE position = 20")
    with pytest.raises(LogDamaged):
        await export_to(settings, tmp_path / "l")
    assert list(tmp_path.iterdir()) == []
