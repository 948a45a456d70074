"""Seals as the worker makes them: what is signed, what is published, and what is never sealed."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import sqlalchemy.event
import structlog.testing
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from projector.sealing.seal_file import SealFile, read_file
from projector.sealing.sealer import make_sealer
from shared.identity.audit_records import NO_LEDGER, ActCaller, record
from shared.proof import merkle, seal_store
from shared.proof.merkle import Frontier, Range, is_consistent, leaf_hash
from shared.proof.seals import AUDIT_SUFFIX, Seal, SealingKey, is_signed, known_keys, read_line, write_line
from shared.settings import Settings
from shared.stores.postgres import open_postgres
from tests.harness.log import NEW_YEAR, Book, make_ledger
from tests.harness.running import Servers, run_stack
from tests.harness.seals import OTHER_KEY, SEAL_KEY, SealedLog, sealed_log, sealing

pytestmark = pytest.mark.services


@pytest.fixture
async def sealed(settings: Settings, servers: Servers, tmp_path: Path) -> AsyncIterator[SealedLog]:
    async with sealed_log(sealing(settings, tmp_path), servers) as log:
        yield log


async def stored(sealed: SealedLog, ledger_id: str = "main") -> list[Seal]:
    async with sealed.projector.connect() as connection:
        return await seal_store.read_seals(connection, ledger_id, 0, 2**63 - 1, 1_000)


def published(sealed: SealedLog) -> list[Seal | None]:
    seals = [read_line(line) for line in sealed.file.read_bytes().splitlines(keepends=True)]
    return [seal for seal in seals if seal is None or not seal.ledger_id.endswith(AUDIT_SUFFIX)]


async def test_a_seal_is_the_signed_root_of_all_events(sealed: SealedLog) -> None:
    await sealed.record(Book().history(700))
    await sealed.seal()
    [seal] = await stored(sealed)
    frontier = Frontier()
    async with sealed.projector.connect() as connection:
        for event_hash in await seal_store.read_hashes(connection, "main", 0, 700):
            list(frontier.append(leaf_hash(event_hash)))
    assert (seal.position, seal.root) == (700, frontier.root())
    assert seal.key_id == SealingKey(SEAL_KEY).key_id
    assert is_signed(seal, known_keys(SEAL_KEY, []))
    assert not is_signed(seal, known_keys(OTHER_KEY, []))


async def test_a_seal_is_made_only_when_there_are_new_events(sealed: SealedLog) -> None:
    await sealed.seal()
    assert await stored(sealed) == []
    await sealed.record(Book().history(3))
    await sealed.seal()
    await sealed.seal()
    assert [seal.position for seal in await stored(sealed)] == [3]


async def test_a_tree_that_grows_by_seals_is_the_tree_made_at_once(sealed: SealedLog) -> None:
    book = Book()
    history = book.history(1_500)
    for size in (1, 254, 1, 1, 255, 256, 700):
        await sealed.record(event for _, event in zip(range(size), history, strict=False))
        await sealed.seal()
    seals = await stored(sealed)
    assert [seal.position for seal in seals] == [1, 255, 256, 257, 512, 768, 1_468]
    frontier, roots = Frontier(), {}
    async with sealed.projector.connect() as connection:
        for event_hash in await seal_store.read_hashes(connection, "main", 0, 1_468):
            list(frontier.append(leaf_hash(event_hash)))
            roots[frontier.size] = frontier.root()
        for old in seals:
            assert old.root == roots[old.position]
            for new in seals:
                if new.position >= old.position:
                    ranges = merkle.consistency_ranges(old.position, new.position)
                    proof = await seal_store.read_ranges(connection, "main", ranges)
                    assert is_consistent(old.position, old.root, new.position, new.root, proof)
        assert await seal_store.count_nodes(connection, "main") == merkle.stored_count(1_468) == 5
        assert await seal_store.read_ranges(connection, "main", [Range(0, 1_468)]) == [seals[-1].root]


async def test_each_ledger_has_seals_of_its_own(sealed: SealedLog) -> None:
    await make_ledger(sealed.writer, "other")
    await sealed.record(Book().history(3))
    await sealed.seal()
    assert await stored(sealed, "other") == []
    assert [seal.ledger_id for seal in await stored(sealed)] == ["main"]


async def test_a_seal_is_published_as_it_is_stored(sealed: SealedLog) -> None:
    book = Book()
    for size in (3, 4):
        await sealed.record(book.history(size))
        await sealed.seal()
    assert published(sealed) == await stored(sealed)
    first = json.loads(sealed.file.read_text().splitlines()[0])
    assert set(first) == {"event", "ledger_id", "position", "root", "signature", "key_id", "sealed_at"}


async def test_a_seal_that_could_not_be_published_is_published_with_the_next(sealed: SealedLog) -> None:
    book = Book()
    await sealed.record(book.history(3))
    sealed.file.mkdir()
    with structlog.testing.capture_logs() as lines:
        await sealed.seal()
    assert {(line["event"], line["error"]) for line in lines} == {("not sealed", "IsADirectoryError")}
    sealed.file.rmdir()
    await sealed.seal()
    assert [seal and seal.position for seal in published(sealed)] == [3]


async def test_a_line_that_a_crash_cut_short_is_no_seal_and_no_seal_is_lost(sealed: SealedLog) -> None:
    book = Book()
    await sealed.record(book.history(3))
    await sealed.seal()
    whole = sealed.file.read_bytes()
    sealed.file.write_bytes(whole + whole[:40])
    await sealed.record(book.history(2))
    await sealed.seal()
    assert [seal and seal.position for seal in published(sealed)] == [3, None, 5]
    assert "2 in PostgreSQL and 2 in" in (await sealed.verify())[1]["seals"]


async def test_two_workers_make_each_seal_once(sealed: SealedLog) -> None:
    book = Book()
    for _ in range(3):
        await sealed.record(book.history(5))
        await asyncio.gather(*(sealed.seal() for _ in range(4)))
    await sealed.seal()
    assert [seal.position for seal in await stored(sealed)] == [5, 10, 15]
    assert published(sealed) == await stored(sealed)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET hash = decode(repeat('00', 32), 'hex') WHERE position = 2",
        "DELETE FROM events WHERE position = 2",
        "DELETE FROM events WHERE position = 5",
        "UPDATE log_heads SET position = 2",
        "DELETE FROM seals",
    ],
)
async def test_a_log_that_differs_from_what_was_sealed_is_not_sealed_again(sealed: SealedLog, statement: str) -> None:
    book = Book()
    await sealed.record(book.history(3))
    await sealed.seal()
    await sealed.record(book.history(3))
    before = published(sealed)
    await sealed.tamper(statement)
    await sealed.seal()
    assert published(sealed) == before
    assert len(await stored(sealed)) == (0 if "seals" in statement else 1)


@pytest.mark.parametrize("table", ["seals", "seal_nodes"])
async def test_seals_are_append_only_and_the_query_api_makes_none(sealed: SealedLog, table: str) -> None:
    for role, statement in (
        ("daybook_projector", f"UPDATE {table} SET ledger_id = 'x'"),
        ("daybook_projector", f"DELETE FROM {table}"),
        ("daybook_query", f"INSERT INTO {table} SELECT * FROM {table}"),
        ("daybook_command", f"INSERT INTO {table} SELECT * FROM {table}"),
    ):
        async with open_postgres(sealed.settings, role) as engine, engine.connect() as connection:  # type: ignore[arg-type]
            with pytest.raises(DBAPIError, match="permission denied"):
                await connection.execute(text(statement))
    await sealed.superuser.execute("SET session_replication_role = origin")
    for verb in (f"UPDATE {table} SET ledger_id = 'x'", f"DELETE FROM {table}", f"TRUNCATE {table}"):
        with pytest.raises(Exception, match="append-only"):
            await sealed.tamper(verb)


@pytest.mark.slow
async def test_the_worker_seals_by_itself(sealed: SealedLog, tmp_path: Path) -> None:
    await sealed.record(Book().history(7))
    async with run_stack(sealed.settings, tmp_path, DAYBOOK_SEAL_SECONDS="1"):
        while not sealed.file.exists() or not sealed.file.stat().st_size:
            await asyncio.sleep(0.1)
    assert published(sealed) == await stored(sealed)
    assert [seal.position for seal in await stored(sealed)] == [7]


def test_a_line_reads_back_and_other_log_lines_are_ignored() -> None:
    seal = SealingKey(SEAL_KEY).sign("main", 7, b"r" * 32, NEW_YEAR)
    assert read_line(write_line(seal)) == seal
    assert [read_line(line) for line in (b"", b"no json", b"{}", b'{"event":"x"}', write_line(seal)[:-9])] == [None] * 5


# ── audit records ────────────────────────────────────────────────────────────────────────────────────────────────────


async def make_audit_records(sealed: SealedLog, ledger_id: str) -> None:
    async with sealed.writer.begin() as connection:
        for number in range(3):
            await record(connection, ledger_id, "login-denied", {"user_id": f"number {number}"}, ActCaller("somebody"))


@pytest.mark.slow
@pytest.mark.parametrize("chain", ["main", NO_LEDGER])
async def test_an_end_of_the_audit_records_that_was_cut_off_is_found_by_their_seals(sealed: SealedLog, chain: str) -> None:
    """The rest of the chain is sound, so only a seal outside PostgreSQL shows it. The worker seals no such chain again."""
    await sealed.record(Book(3).history(5))
    await make_audit_records(sealed, chain)
    await sealed.seal()
    await sealed.seal()
    _, said = await sealed.verify()
    assert said["audit"].startswith("ok"), said["audit"]
    assert "1 published seals match them" in said["audit"]
    kept = sealed.file.with_name("kept.jsonl")
    kept.write_bytes(sealed.file.read_bytes())
    await sealed.tamper("DELETE FROM audit_records WHERE ledger_id = $1 AND position = 3", chain)
    for arguments in ((), ("--seals", str(kept))):
        code, said = await sealed.verify(*arguments)
        assert code == 3
        assert "position 3 of the audit records" in said["audit"], said["audit"]
    before = sealed.file.read_bytes()
    await sealed.seal()
    assert sealed.file.read_bytes() == before
    await make_audit_records(sealed, chain)
    code, said = await sealed.verify()
    assert code == 3
    assert "hash of that record" in said["audit"], said["audit"]


async def test_a_seal_of_audit_records_by_an_unknown_key_is_found(sealed: SealedLog) -> None:
    await sealed.record(Book(3).history(5))
    await make_audit_records(sealed, "main")
    await sealed.seal()
    lines = sealed.file.read_bytes().splitlines(keepends=True)
    place = next(number for number, line in enumerate(lines) if b":audit" in line)
    signature = re.search(rb'"signature":"(..)', lines[place])
    assert signature
    other = b"00" if signature[1] != b"00" else b"11"
    lines[place] = lines[place].replace(b'"signature":"' + signature[1], b'"signature":"' + other)
    sealed.file.write_bytes(b"".join(lines))
    code, said = await sealed.verify()
    assert code == 3
    assert "signature: expected 'one by a known key'" in said["audit"], said["audit"]


@pytest.mark.parametrize("name", ["main:audiv", "nain", "nain:audit"])
async def test_a_published_seal_that_was_given_to_a_ledger_that_does_not_exist_is_found(sealed: SealedLog, name: str) -> None:
    await sealed.record(Book(3).history(5))
    await make_audit_records(sealed, "main")
    await sealed.seal()
    await sealed.seal()
    assert (await sealed.verify())[1]["seals"].startswith("ok")
    file = sealed.file.read_bytes()
    assert b'"main:audit"' in file
    sealed.file.write_bytes(file.replace(b'"main:audit"', f'"{name}"'.encode(), 1))
    code, said = await sealed.verify()
    assert code == 3
    assert "ledger: expected 'one that exists'" in said["seals"], said["seals"]


async def test_what_has_not_moved_is_not_read_again_to_be_sealed(sealed: SealedLog) -> None:
    """The sealer asks for the ends of all logs and of all chains of audit records, and for nothing else."""
    await sealed.record(Book().history(3))
    sealer = make_sealer(sealed.projector, sealed.settings)
    assert sealer
    await sealer.seal_all()
    statements: list[str] = []
    engine = sealed.projector.sync_engine
    sqlalchemy.event.listen(engine, "before_cursor_execute", lambda *execution: statements.append(execution[2]))
    await sealer.seal_all()
    assert len(statements) == 2
    await sealed.record([Book(seed=2).create_user()])
    await sealer.seal_all()
    assert [seal.position for seal in await stored(sealed)] == [3, 4]


def test_a_crash_at_any_byte_of_a_line_neither_loses_nor_doubles_a_seal(tmp_path: Path) -> None:
    key, file = SealingKey(SEAL_KEY), tmp_path / "seals.jsonl"
    first, second = (key.sign("main", position, b"r" * 32, NEW_YEAR) for position in (3, 5))
    for cut in range(len(write_line(second)) + 1):
        file.write_bytes(write_line(first) + write_line(second)[:cut])
        SealFile(file).append([first, second])
        assert [seal for _, seal in read_file(file, "main", only_seals=True)] == [first, second], f"after {cut} bytes"


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line.replace(b"7272", b"7 272"),
        lambda line: line.replace(b'"root":"ab', b'"root":"AB'),
        lambda line: line.replace(b'":7', b'": 7'),
        lambda line: line.replace(b'"main"', b'"m\\u0061in"'),
        lambda line: line.replace(b"}", b',"more":1}'),
    ],
)
def test_a_line_that_means_a_seal_but_was_written_otherwise_is_damaged(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    file, line = tmp_path / "seals.jsonl", write_line(SealingKey(SEAL_KEY).sign("main", 7, b"\xab" + b"r" * 31, NEW_YEAR))
    file.write_bytes(change(line))
    assert change(line) != line
    assert [*read_file(file, "main", only_seals=True)] == [(1, None)]
