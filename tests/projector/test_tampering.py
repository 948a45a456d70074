"""A superuser changes the log behind Daybook's back, in every way there is. `daybook verify` finds each change and its place."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from projector.runner import Runner
from shared.log.events import Event
from shared.proof.seals import SealingKey
from shared.settings import Settings
from shared.stores.all_stores import open_stores
from tests.harness.log import Book
from tests.harness.running import Servers
from tests.harness.seals import OTHER_KEY, SEAL_KEY, SealedLog, sealed_log, sealing

pytestmark = pytest.mark.services

STRAY_TABLES = ("events", "stream_events", "streams", "seals", "person_keys")

SEALS = (20, 40, 55)
HEAD = 60
TRANSFER = 30


def history() -> list[Event]:
    """Users and accounts, then 50 transfers. Every event after the tenth is a transfer, and no two are alike."""
    book = Book()
    users = [book.create_user() for _ in range(2)]
    accounts = [book.open_account(user.user_id, overdraft_limit=10_000) for user in users for _ in range(2)]
    ids = [account.account_id for account in accounts]
    deposits = [book.deposit(account_id, 5_000) for account_id in ids]
    transfers = [book.transfer(ids[n % 4], ids[(n + 1) % 4], n + 1, reference=f"number {n}") for n in range(50)]
    return [*users, *accounts, *deposits, *transfers]


@pytest.fixture
async def log(settings: Settings, servers: Servers, tmp_path: Path) -> AsyncIterator[SealedLog]:
    """A log that was sealed three times and has no differences."""
    async with sealed_log(sealing(settings, tmp_path), servers) as sealed:
        events = history()
        for first, last in ((0, 20), (20, 40), (40, 55)):
            await sealed.record(events[first:last])
            await sealed.seal()
        assert await sealed.record(events[55:]) == HEAD
        await project(sealed)
        yield sealed


async def project(sealed: SealedLog) -> None:
    async with open_stores(sealed.settings, "daybook_projector") as stores:
        runner = Runner(stores, sealed.settings)
        running = asyncio.create_task(runner.run())
        try:
            async with asyncio.timeout(120):
                while (await sealed.verify())[0]:
                    await asyncio.sleep(0.05)
        finally:
            runner.stop()
            await running


async def test_a_log_that_nobody_has_touched_is_right(log: SealedLog) -> None:
    code, said = await log.verify()
    assert code == 0
    assert said["seals"] == f"ok  3 in PostgreSQL and 3 in {log.file}, all signed; events 1 to 55 match the seals"


# ── events ───────────────────────────────────────────────────────────────────────────────────────────────────────────

SWAP = """
    UPDATE events SET position = -30 WHERE position = 30;
    UPDATE events SET position = 30 WHERE position = 31;
    UPDATE events SET position = 31 WHERE position = -30
"""
COPY = """
    INSERT INTO events SELECT ledger_id, {to}, gen_random_uuid(), type, schema_version, data, metadata, recorded_at, hash
    FROM events WHERE position = 30
"""
INSERT = f"""
    UPDATE events SET position = -position WHERE position > 30;
    UPDATE events SET position = 1 - position WHERE position < 0;
    {COPY.format(to=31)};
    UPDATE log_heads SET position = position + 1
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statement", "position"),
    [
        ("UPDATE events SET data = jsonb_set(data, '{amount}', '999999') WHERE position = 30", 30),
        ("UPDATE events SET data = data - 'reference' WHERE position = 30", 30),
        ('UPDATE events SET metadata = \'{"principal": "somebody else"}\' WHERE position = 30', 30),
        ("UPDATE events SET type = 'FundsDeposited' WHERE position = 30", 30),
        ("UPDATE events SET schema_version = 0 WHERE position = 30", 30),
        ("UPDATE events SET event_id = gen_random_uuid() WHERE position = 30", 30),
        ("UPDATE events SET recorded_at = recorded_at + interval '1 microsecond' WHERE position = 30", 30),
        ("UPDATE events SET hash = sha256(hash) WHERE position = 30", 30),
        ("UPDATE events SET hash = sha256(hash) WHERE position = 60; UPDATE log_heads SET hash = sha256(hash)", 60),
        ("UPDATE log_heads SET hash = sha256(hash)", 60),
        ("UPDATE events SET data = '[]' WHERE position = 30", 30),
        ("UPDATE events SET data = '\"text\"' WHERE position = 30", 30),
        ("UPDATE events SET data = jsonb_set(data, '{amount}', '1e400') WHERE position = 30", 30),
        ("UPDATE events SET data = jsonb_set(data, '{amount}', '22.0') WHERE position = 30", 30),
        ("UPDATE events SET recorded_at = 'infinity' WHERE position = 30", 30),
        ("UPDATE events SET recorded_at = '-infinity' WHERE position = 30", 30),
        ("UPDATE events SET recorded_at = '4000-01-01 BC' WHERE position = 30", 30),
        ("UPDATE events SET recorded_at = '200000-01-01' WHERE position = 30", 30),
        ("DELETE FROM events WHERE position = 30", 30),
        ("DELETE FROM events WHERE position = 1", 1),
        ("DELETE FROM events WHERE position = 60", 60),
        ("DELETE FROM events", 1),
        ("UPDATE events SET ledger_id = 'other' WHERE position = 30", 30),
        (SWAP, 30),
        ("UPDATE events e SET data = o.data FROM events o WHERE e.position IN (30, 31) AND o.position = 61 - e.position", 30),
        (INSERT, 31),
        (COPY.format(to=61), 61),
        (COPY.format(to=0), 0),
        ("UPDATE log_heads SET position = 59", 59),
        ("UPDATE log_heads SET position = 61", 61),
        ("UPDATE log_heads SET position = 58, hash = (SELECT hash FROM events WHERE position = 58)", 59),
    ],
)
async def test_a_change_to_an_event_is_found_where_it_is(log: SealedLog, statement: str, position: int) -> None:
    await log.tamper(statement)
    code, said = await log.verify()
    assert code == 3
    assert said["log"].startswith("DIFFERENT")
    where = (
        f"position {position} of the log",
        f"the next position of the log: expected {position},",
        f"the next position of the log: expected 1, found {position}",
        f"log at {position}, hash",
    )
    assert any(place in said["log"] for place in where), said["log"]


async def test_another_time_of_the_head_is_found(log: SealedLog) -> None:
    """New events are never earlier than the head, so a forged head could date them all into the future."""
    await log.tamper("UPDATE log_heads SET recorded_at = recorded_at + interval '1 day'")
    code, said = await log.verify()
    assert code == 3
    assert "head of the log at 60, recorded_at: expected" in said["log"]


async def test_what_the_deciders_would_never_decide_is_found_although_every_balance_adds_up(log: SealedLog) -> None:
    """All hashes are computed again, so only the rules are left to show it."""
    opened = "(SELECT position FROM events WHERE type = 'AccountOpened' ORDER BY position LIMIT 1)"
    await log.tamper(f"UPDATE events SET data = jsonb_set(data, '{{owner_id}}', '\"nobody\"') WHERE position = {opened}")
    await log.chain_anew(1)
    code, said = await log.verify()
    assert (code, said["log"][:2]) == (3, "ok")
    assert "AccountOpened): owner_id: " in said["events"]


# ── the schema ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("ALTER TABLE events DROP CONSTRAINT events_pkey", "constraint events events_pkey"),
        ("ALTER TABLE idempotency_keys DROP CONSTRAINT idempotency_keys_pkey", "constraint idempotency_keys"),
        ("DROP INDEX events_type_idx", "index CREATE INDEX events_type_idx"),
        ("ALTER TABLE events DISABLE TRIGGER events_append_only", "events_append_only"),
        ("ALTER TABLE events ENABLE REPLICA TRIGGER events_append_only", "events_append_only"),
        ("DROP TRIGGER stream_events_append_only ON stream_events", "stream_events_append_only"),
        (
            "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
            "function refuse_change",
        ),
        ("GRANT UPDATE ON events TO daybook_command", "grant UPDATE on events to daybook_command"),
        ("GRANT SELECT ON api_keys TO PUBLIC", "grant SELECT on api_keys to everybody"),
        ("GRANT UPDATE (hash) ON passwords TO daybook_query", "grant UPDATE on passwords.hash to daybook_query"),
        ("REVOKE SELECT ON seals FROM daybook_query", "grant SELECT on seals to daybook_query"),
        ("ALTER TABLE events ALTER COLUMN hash DROP NOT NULL", "column events hash"),
        ("ALTER TABLE events ALTER COLUMN recorded_at SET DEFAULT now()", "column events recorded_at"),
        ("CREATE RULE nothing AS ON INSERT TO events DO INSTEAD NOTHING", "rule CREATE RULE nothing"),
        ("ALTER TABLE events ENABLE ROW LEVEL SECURITY", "table events r p"),
        ("ALTER TABLE streams SET UNLOGGED", "table streams"),
    ],
)
async def test_a_change_to_the_schema_is_found(log: SealedLog, statement: str, found: str) -> None:
    await log.tamper(statement)
    code, said = await log.verify()
    assert code == 3
    assert found in said["schema"], said["schema"]


# ── streams and snapshots ────────────────────────────────────────────────────────────────────────────────────────────

OF_TRANSFER = "stream_id = (SELECT min(stream_id) FROM stream_events WHERE position = 30)"


@pytest.mark.slow
@pytest.mark.parametrize(
    "statement",
    [
        f"UPDATE stream_events SET position = 31 WHERE position = 30 AND {OF_TRANSFER}",
        f"UPDATE stream_events SET position = 61 WHERE position = 30 AND {OF_TRANSFER}",
        f"UPDATE stream_events SET version = version + 1000 WHERE position = 30 AND {OF_TRANSFER}",
        f"DELETE FROM stream_events WHERE position = 30 AND {OF_TRANSFER}",
        (
            f"INSERT INTO stream_events SELECT ledger_id, stream_id, max(version) + 1, 60 FROM stream_events WHERE {OF_TRANSFER} "
            "GROUP BY 1, 2"
        ),
        f"UPDATE streams SET snapshot = '[]' WHERE {OF_TRANSFER}",
        f"UPDATE streams SET version = version + 1 WHERE {OF_TRANSFER}",
        f"UPDATE streams SET position = position - 1 WHERE {OF_TRANSFER}",
        f"DELETE FROM streams WHERE {OF_TRANSFER}",
        (
            f"UPDATE streams SET snapshot = (SELECT o.snapshot FROM streams o WHERE o.stream_id LIKE 'account-%' "
            f"AND o.stream_id <> streams.stream_id LIMIT 1) WHERE {OF_TRANSFER}"
        ),
    ],
)
async def test_a_change_to_a_stream_or_its_snapshot_is_found_where_it_is(log: SealedLog, statement: str) -> None:
    stream_id = await log.superuser.fetchval("SELECT min(stream_id) FROM stream_events WHERE position = 30")
    assert stream_id.startswith("account-")
    await log.tamper(statement)
    code, said = await log.verify()
    assert (code, said["log"][:2]) == (3, "ok")
    assert said["streams"].startswith("DIFFERENT")
    assert f"stream {stream_id}, " in said["streams"], said["streams"]


async def test_a_stream_that_no_event_names_is_found(log: SealedLog) -> None:
    await log.tamper("INSERT INTO stream_events VALUES ('main', 'aaa', 1, 30)")
    await log.tamper("INSERT INTO streams VALUES ('main', 'aaa', 1, 30, 1, '{}')")
    code, said = await log.verify()
    assert code == 3
    assert "stream aaa, version 1, event at 30" in said["streams"]


@pytest.mark.slow
@pytest.mark.parametrize("table", STRAY_TABLES)
async def test_rows_that_were_moved_to_a_ledger_that_does_not_exist_are_found(log: SealedLog, table: str) -> None:
    """Also where nothing misses them: a stored reply to a command that moved no money, or a whole copy of the log."""
    await log.tamper(f"CREATE TEMPORARY TABLE stray AS SELECT * FROM {table} LIMIT 1")
    await log.tamper("UPDATE stray SET ledger_id = 'mainx'")
    await log.tamper(f"INSERT INTO {table} TABLE stray")
    code, said = await log.verify()
    assert code == 3
    assert f"{table}, row of ledger 'mainx'" in said["schema"]


# ── what only seals can find ─────────────────────────────────────────────────────────────────────────────────────────

CUT_OFF = """
    DELETE FROM events WHERE position > 50;
    DELETE FROM stream_events WHERE position > 50;
    DELETE FROM streams s WHERE NOT EXISTS (SELECT FROM stream_events e WHERE e.stream_id = s.stream_id);
    UPDATE streams s SET (version, position, fold_version) =
        (SELECT max(version), max(position), -1 FROM stream_events e WHERE e.stream_id = s.stream_id);
    UPDATE log_heads SET (position, hash, recorded_at) = (SELECT position, hash, recorded_at FROM events WHERE position = 50)
"""


async def test_a_cut_off_end_is_found_by_the_seal_that_reaches_beyond_it(log: SealedLog) -> None:
    await log.tamper(CUT_OFF)
    code, said = await log.verify()
    assert (code, said["log"][:2], said["events"][:2], said["streams"][:2]) == (3, "ok", "ok", "ok")
    assert "position 51 of the log, which was sealed up to 55 (PostgreSQL)" in said["seals"]


async def test_a_cut_off_end_is_found_by_the_published_seal_when_those_in_postgres_are_gone(log: SealedLog) -> None:
    await log.tamper(CUT_OFF)
    await log.tamper("DELETE FROM seals WHERE position > 50")
    code, said = await log.verify()
    assert (code, said["log"][:2]) == (3, "ok")
    assert f"position 51 of the log, which was sealed up to 55 ({log.file}, line 3)" in said["seals"]


async def test_a_ledger_that_was_emptied_is_found_by_the_published_seals(log: SealedLog) -> None:
    for table in ("events", "stream_events", "streams", "seals", "seal_nodes"):
        await log.tamper(f"DELETE FROM {table}")
    await log.tamper("UPDATE log_heads SET position = 0, hash = ''")
    code, said = await log.verify()
    assert (code, said["log"][:2]) == (3, "ok")
    assert f"position 1 of the log, which was sealed up to 20 ({log.file}, line 1)" in said["seals"]


async def test_a_log_that_was_changed_and_chained_anew_is_found_between_two_seals(log: SealedLog) -> None:
    await log.tamper("UPDATE events SET data = jsonb_set(data, '{reference}', '\"forged\"') WHERE position = 30")
    await log.chain_anew(30)
    code, said = await log.verify()
    assert (code, said["log"][:2], said["events"][:2], said["streams"][:2]) == (3, "ok", "ok", "ok")
    assert f"({log.file}, line 2), root of events 1 to 40; the change is in 21 to 40" in said["seals"]


async def test_a_log_that_was_chained_and_sealed_anew_is_found_by_the_published_seals(log: SealedLog) -> None:
    await log.tamper("UPDATE events SET data = jsonb_set(data, '{reference}', '\"forged\"') WHERE position = 30")
    await log.chain_anew(30)
    await log.tamper("DELETE FROM seals; DELETE FROM seal_nodes")
    right, published = log.settings, log.file.rename(log.file.with_name("published"))
    log.settings = sealing(right, published.parent, OTHER_KEY)
    await log.seal()
    log.settings = right
    code, said = await log.verify("--seals", str(published))
    assert (code, said["log"][:2]) == (3, "ok")
    assert "seal at position 20 in PostgreSQL" in said["seals"]
    log.file.unlink()
    assert "seal at position 60 (PostgreSQL), signature: expected 'one by a known key'" in (await log.verify())[1]["seals"]


async def test_seals_of_another_key_are_right_once_it_is_known(log: SealedLog) -> None:
    right = log.settings
    log.settings = sealing(right, log.file.parent, OTHER_KEY)
    await log.seal()
    assert "signature" in (await log.verify())[1]["seals"]
    log.settings = log.settings.model_copy(update={"seal_public_keys": SealingKey(SEAL_KEY).public_text()})
    assert (await log.verify())[0] == 0


async def test_without_a_key_verify_says_that_signatures_are_not_checked(log: SealedLog) -> None:
    log.settings = log.settings.model_copy(update={"seal_key": None})
    code, said = await log.verify()
    assert code == 0
    assert "signatures NOT checked" in said["seals"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("UPDATE seals SET root = sha256(root) WHERE position = 40", "seal at position 40 (PostgreSQL), signature"),
        ("UPDATE seals SET signature = sha512(signature) WHERE position = 40", "seal at position 40 (PostgreSQL), signature"),
        ("UPDATE seals SET sealed_at = sealed_at + interval '1 s' WHERE position = 40", "seal at position 40 (PostgreSQL), sign"),
        ("UPDATE seals SET key_id = 'other' WHERE position = 40", "seal at position 40 (PostgreSQL), signature"),
        ("UPDATE seals SET position = 41 WHERE position = 40", "seal at position 40 in PostgreSQL: expected"),
        ("DELETE FROM seals WHERE position = 40", "seal at position 40 in PostgreSQL: expected"),
        (
            "INSERT INTO seals SELECT ledger_id, 45, root, signature, key_id, sealed_at FROM seals WHERE position = 40",
            "n 45 (Post",
        ),
        ("INSERT INTO seal_nodes VALUES ('main', 8, 0, sha256(''))", "stored nodes of the Merkle tree: expected 0, found 1"),
    ],
)
async def test_a_change_to_a_seal_is_found(log: SealedLog, statement: str, found: str) -> None:
    await log.tamper(statement)
    code, said = await log.verify()
    assert (code, said["log"][:2]) == (3, "ok")
    assert found in said["seals"]


@pytest.mark.slow
async def test_a_change_to_the_published_seals_is_found(log: SealedLog) -> None:
    lines = log.file.read_text().splitlines(keepends=True)
    log.file.write_text(lines[0] + lines[1].replace('"position":40', '"position":41') + lines[2])
    assert f"seal at position 40 in {log.file}: expected 'as in PostgreSQL'" in (await log.verify())[1]["seals"]
    log.file.write_text(lines[0] + lines[2] + lines[1])
    code, said = await log.verify()
    assert code == 3
    assert f"{log.file}, line 3, position: expected 'more than 55', found 40" in said["seals"]


@pytest.mark.slow
async def test_published_seals_that_are_missing_or_damaged_are_found(log: SealedLog) -> None:
    whole = log.file.read_bytes()
    first, second, third = whole.splitlines(keepends=True)
    for content, found in (
        (b"", f"seal at position 20 in {log.file}: expected 'as in PostgreSQL', found nothing"),
        (first + third, f"seal at position 40 in {log.file}: expected 'as in PostgreSQL'"),
        (first + second, f"seal at position 55 in {log.file}: expected 'as in PostgreSQL'"),
        (first + b"hello\n" + second + third, f"{log.file}, line 2: expected 'a seal'"),
        (first + second.replace(b'"root":"', b'"root":"x') + third, f"{log.file}, line 2: expected 'a seal'"),
        (first + second[:-60] + third, f"{log.file}, line 2: expected 'a seal'"),
    ):
        log.file.write_bytes(content)
        code, said = await log.verify()
        assert (code, found in said["seals"]) == (3, True), said["seals"]
    log.file.write_bytes(first + second[:40] + b"\n" + second + third)
    assert (await log.verify())[0] == 0, "a crash had cut a line, and the seal was published again"


@pytest.mark.slow
async def test_a_file_without_a_seal_proves_nothing(log: SealedLog) -> None:
    """An auditor passes a file to have its seals compared. A file that is empty or was cut short must not pass."""
    kept = log.file.with_name("kept.jsonl")
    lines = log.file.read_bytes()
    for path, content in (
        (Path("/dev/null"), None),
        (kept, b""),
        (kept, lines[:-40]),
        (kept, b'{"event":"other"}\n'),
        (kept, lines[:30]),
    ):
        if content is not None:
            kept.write_bytes(content)
        code, said = await log.verify("--seals", str(path))
        assert (code, said["seals"][:9]) == (3, "DIFFERENT"), (content, said["seals"])
    kept.write_bytes(b'{"event":"other"}\n' + lines.splitlines(keepends=True)[1])
    assert (await log.verify("--seals", str(kept)))[0] == 0, "an auditor may have kept one seal, between other log lines"


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("UPDATE seal_nodes SET hash = sha256(hash) WHERE number = 1", "node of the Merkle tree over events 257 to 512"),
        ("DELETE FROM seal_nodes WHERE number = 1", "node of the Merkle tree over events 257 to 512: expected"),
        ("INSERT INTO seal_nodes VALUES ('main', 8, 2, sha256(''))", "stored nodes of the Merkle tree: expected 2, found 3"),
    ],
)
async def test_a_change_to_the_tree_is_found(
    settings: Settings, servers: Servers, tmp_path: Path, statement: str, found: str
) -> None:
    async with sealed_log(sealing(settings, tmp_path), servers) as log:
        await log.record(Book().history(600))
        await log.seal()
        assert (await log.verify())[1]["seals"].startswith("ok")
        await log.tamper(statement)
        assert found in (await log.verify())[1]["seals"]
