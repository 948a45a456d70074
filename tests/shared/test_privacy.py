"""An erased person disappears from the log, read models, answers, files, dumps and log lines. The money stays."""

import asyncio
import base64
import json
import shutil
import subprocess
import uuid
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest
from pymongo import AsyncMongoClient
from redis.asyncio import Redis as RedisClient
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from command_api.past_history import DOMAIN
from dev.child_processes import ProgramArguments
from dev.programs import find_program
from dev.servers import Mongo, Postgres, Redis, start_all, stop_all
from projector.generations.operator_rebuilds import replay
from projector.projections.registry import PROJECTIONS
from projector.verify.ledger import CheckOutcome, CheckVerdict, verify_ledger
from shared.errors import MasterKeyUnknown
from shared.privacy.key_rotation import rotate_master_keys
from shared.privacy.person_keys import PersonKeys
from shared.settings import Settings
from shared.stores.postgres import open_postgres, open_postgres_as_owner
from tests.harness.clients import Commands, command_api, created, served
from tests.harness.databases import copy_postgres
from tests.harness.keys import OPERATOR, add_key, bearer
from tests.harness.log import MASTER_KEY, Book, make_ledger
from tests.harness.passwords import give_password
from tests.harness.progress import hide_progress
from tests.harness.questions import Questions, projecting, query_api
from tests.harness.running import Stack, run_stack

pytestmark = pytest.mark.services

OTHER_MASTER_KEY = base64.b64encode(b"another master key of the tests!").decode()
NAME, EMAIL = "Augusta Ada Lovelace", "countess@ockham.example"
METADATA = {"passport": "Byron-1815"}
PERSONAL = ("Augusta", "Lovelace", "lovelace", "countess", "ockham", "passport", "Byron")
ERASED_ANSWER = {"name": None, "email": None, "status": "erased"}


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Commands]:
    async with command_api(settings) as commands:
        yield commands


@pytest.fixture
async def engine(settings: Settings) -> AsyncIterator[AsyncEngine]:
    async with open_postgres_as_owner(settings) as owner:
        yield owner


def personal_in(content: str | bytes) -> list[str]:
    raw = content.encode() if isinstance(content, str) else content
    return [word for word in PERSONAL if word.encode() in raw]


async def tables(engine: AsyncEngine) -> str:
    """All rows of all tables as text, with bytes decoded, so that a text in them is found too."""
    names = ("events", "streams", "stream_events", "idempotency_keys", "log_heads", "person_keys")
    async with engine.connect() as connection:
        rows = [row for name in names for row in await connection.execute(text(f"SELECT * FROM {name}"))]
    return str([tuple(row) for row in rows])  # SQLAlchemy shortens the text of a row


async def erase(api: Commands, user_id: str) -> dict[str, Any]:
    answer = await api.post(f"/v1/users/{user_id}/erase")
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


# ── commands ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_no_table_ever_holds_a_personal_field_unencrypted(api: Commands, engine: AsyncEngine) -> None:
    user_id = created(await api.post("/v1/users", {"name": NAME, "email": EMAIL}))
    changes = {"name": f"{NAME} King", "metadata": METADATA}
    await api.client.patch(f"/v1/users/{user_id}", json=changes, headers={"Idempotency-Key": "k"})
    await api.post(f"/v1/users/{user_id}/deactivate")
    rows = await tables(engine)
    assert rows.count("'sealed'") >= 8, "two events and a snapshot, each with name and address, and two of them with metadata"
    assert personal_in(rows) == []


async def test_the_answer_about_an_erased_user_has_no_name_and_no_address(api: Commands) -> None:
    user_id = created(await api.post("/v1/users", {"name": NAME, "email": EMAIL}))
    body = await erase(api, user_id)
    assert body == {"id": user_id, "position": 2, "version": 2, **ERASED_ANSWER}
    assert await erase(api, user_id) == body, "erasing again changes nothing"


async def test_commands_about_an_erased_user_are_rejected_and_the_address_is_free(api: Commands) -> None:
    user_id = created(await api.post("/v1/users", {"name": NAME, "email": EMAIL}))
    await erase(api, user_id)
    refused = await api.client.patch(f"/v1/users/{user_id}", json={"name": "Ada"})
    assert (refused.status_code, refused.json()["code"]) == (409, "user-erased")
    refused = await api.post("/v1/accounts", {"owner_id": user_id, "currency": "EUR"})
    assert (refused.status_code, refused.json()["code"]) == (409, "user-erased")
    refused = await api.post("/v1/users", {"id": user_id, "name": NAME, "email": EMAIL})
    assert refused.json()["code"] == "id-taken"
    assert created(await api.post("/v1/users", {"name": NAME, "email": EMAIL.upper()})) != user_id


async def test_one_batch_may_answer_about_a_person_and_erase_the_person(api: Commands) -> None:
    """Commands that arrive together are decided in one transaction, in the order of their arrival."""
    for _ in range(5):
        user_id = await api.user()
        paths = [f"/v1/users/{user_id}/{verb}" for verb in ("reactivate", "deactivate", "erase", "erase")]
        blocked = asyncio.create_task(api.user())
        answers = await asyncio.gather(*(api.post(path) for path in paths))
        await blocked
        assert [answer.status_code for answer in answers] in ([200] * 4, [409, 409, 200, 200], [200, 409, 200, 200])


async def test_a_user_who_never_existed_cannot_be_erased(api: Commands) -> None:
    answer = await api.post(f"/v1/users/{uuid.uuid4()}/erase")
    assert (answer.status_code, answer.json()["code"]) == (404, "not-found")


async def test_the_money_of_an_erased_user_moves_on(api: Commands) -> None:
    owner = await api.user()
    mine, other = await api.account(owner, balance=100), await api.account()
    await erase(api, owner)
    created(await api.transfer(mine, other, 60))


async def test_moving_money_reads_no_key(settings: Settings, engine: AsyncEngine) -> None:
    """Neither a process that has just started nor one that knows the streams reads a key."""
    async with command_api(settings) as api:
        payer, payee = [await api.account(balance=100) for _ in range(2)]
    async with engine.begin() as connection:
        await connection.execute(text("REVOKE ALL ON person_keys, passwords FROM daybook_command"))
    async with command_api(settings) as api:
        for amount in (1, 2):
            created(await api.transfer(payer, payee, amount))
            created(await api.deposit(payer, amount))
            created(await api.withdraw(payer, amount))
        refused = await api.post("/v1/users", {"name": NAME, "email": EMAIL})
        assert refused.status_code >= 500, "a command about a person does need them"


async def test_a_repeated_request_gets_the_first_answer_and_after_the_erasure_nothing_personal(api: Commands) -> None:
    """The request has no second effect, and other content under the same idempotency key is still rejected."""
    body = {"name": NAME, "email": EMAIL}
    first = await api.post("/v1/users", body, idempotency_key="k")
    again = await api.post("/v1/users", body, idempotency_key="k")
    assert again.headers["idempotency-replayed"] == "true"
    assert again.content == first.content
    await erase(api, created(first))
    after = await api.post("/v1/users", body, idempotency_key="k")
    assert after.status_code == 201
    assert after.json() == first.json() | {"name": "(erased)", "email": "(erased)"}
    assert (await api.post("/v1/users", body | {"name": "Ada"}, idempotency_key="k")).json()["code"] == "idempotency-key-reused"


async def test_another_process_decrypts_and_notices_an_erasure(settings: Settings) -> None:
    async with command_api(settings) as one, command_api(settings) as two:
        user_id = created(await one.post("/v1/users", {"name": NAME, "email": EMAIL}))
        changed = await two.client.patch(f"/v1/users/{user_id}", json={"name": "Ada"})
        assert (changed.json()["name"], changed.json()["email"]) == ("Ada", EMAIL)
        taken = await two.post("/v1/users", {"name": "Bob", "email": EMAIL})
        assert taken.json()["code"] == "email-taken", "both hash addresses alike"
        await erase(one, user_id)
        assert (await two.post(f"/v1/users/{user_id}/deactivate")).json()["code"] == "user-erased"


async def test_a_snapshot_of_an_earlier_fold_is_folded_anew_from_sealed_events(api: Commands, settings: Settings) -> None:
    user_id = created(await api.post("/v1/users", {"name": NAME, "email": EMAIL}))
    async with open_postgres(settings, "daybook_command") as engine, engine.begin() as connection:
        await connection.execute(text("UPDATE streams SET fold_version = 0, snapshot = '{}'"))
    async with command_api(settings) as other:
        assert (await other.post(f"/v1/users/{user_id}/deactivate")).json()["name"] == NAME


async def test_the_same_address_has_another_hash_in_another_ledger(
    api: Commands, settings: Settings, engine: AsyncEngine
) -> None:
    await make_ledger(engine, "other")
    elsewhere = await add_key(settings.database_url, "elsewhere", ledger_id="other")
    for token in (OPERATOR, elsewhere):
        created(await api.post("/v1/users", {"name": NAME, "email": EMAIL}, **bearer(token)))
    async with engine.connect() as connection:
        hashes = (await connection.execute(text("SELECT data ->> 'email_hash' FROM events"))).scalars().all()
    assert len(set(hashes)) == 2


# ── keys ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_erasure_leaves_no_key(api: Commands, engine: AsyncEngine) -> None:
    ada, bob = await api.user(), await api.user()
    await erase(api, ada)
    async with engine.connect() as connection:
        left = (await connection.execute(text("SELECT person_id FROM person_keys"))).scalars()
        assert set(left) == {bob, "addresses"}


@pytest.mark.parametrize("role", ["daybook_command", "daybook_projector", "daybook_query"])
async def test_no_process_can_change_a_key_and_only_the_command_api_can_delete_one(settings: Settings, role: Any) -> None:
    statements = ["UPDATE person_keys SET master_key_id = 'x'", *["DELETE FROM person_keys"] * (role != "daybook_command")]
    async with open_postgres(settings, role) as engine:
        for statement in statements:
            with pytest.raises(DBAPIError) as denied:
                async with engine.begin() as connection:
                    await connection.execute(text(statement))
            assert denied.value.orig.sqlstate == "42501"  # type: ignore[union-attr]


async def test_rotation_rewraps_all_keys_goes_on_where_it_was_and_changes_no_event(
    settings: Settings, engine: AsyncEngine
) -> None:
    async with command_api(settings) as api:
        ada = created(await api.post("/v1/users", {"name": NAME, "email": EMAIL}))
        await api.user()
        rotating = settings.model_copy(update={"master_keys": _keys(OTHER_MASTER_KEY, MASTER_KEY)})
        async with engine.connect() as connection:
            hashes = (await connection.execute(text("SELECT hash FROM events ORDER BY position"))).all()
        async with engine.begin() as connection:
            assert await PersonKeys(rotating).rewrap(connection, 1) == 1, "interrupted after the first"
        counts: list[int] = []
        assert await rotate_master_keys(engine, PersonKeys(rotating), counts.append) == 2, "another person and the addresses"
        assert await rotate_master_keys(engine, PersonKeys(rotating), counts.append) == 0
        assert counts == [2]
    only_new = settings.model_copy(update={"master_keys": _keys(OTHER_MASTER_KEY)})
    async with command_api(only_new) as api:
        assert (await api.post(f"/v1/users/{ada}/deactivate")).json()["name"] == NAME
        assert (await api.post("/v1/users", {"name": "Bob", "email": EMAIL})).json()["code"] == "email-taken"
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT hash FROM events ORDER BY position LIMIT 2"))).all() == hashes


async def test_a_master_key_that_is_missing_is_never_taken_for_an_erasure(settings: Settings, engine: AsyncEngine) -> None:
    async with command_api(settings) as api:
        user_id = await api.user()
    wrong = PersonKeys(settings.model_copy(update={"master_keys": _keys(OTHER_MASTER_KEY)}))
    async with engine.connect() as connection:
        with pytest.raises(MasterKeyUnknown, match="DAYBOOK_MASTER_KEYS"):
            await wrong.read(connection, "main", [user_id])


def _keys(*keys: str) -> Any:
    return Settings(database_url="", mongo_url="", redis_url="", secret="x" * 32, master_keys=",".join(keys)).master_keys


# ── read models ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def questions(settings: Settings) -> AsyncIterator[Questions]:
    async with query_api(settings) as asking, projecting(asking, settings):
        yield asking


async def test_an_erased_user_is_found_by_id_only(questions: Questions) -> None:
    book = Book()
    ada, bob = book.create_user(NAME, EMAIL), book.create_user("Bob", "bob@example.com")
    await questions.record([ada, bob, book.change_user(ada.user_id, NAME, **METADATA)])
    assert (await questions.get(f"/v1/users/{ada.user_id}"))["name"] == NAME
    await questions.record([book.erase_user(ada.user_id)])
    user = await questions.get(f"/v1/users/{ada.user_id}")
    assert {name: user[name] for name in ERASED_ANSWER} == ERASED_ANSWER
    for word in (*PERSONAL, "erased"):
        assert (await questions.get("/v1/users", {"search": word}))["items"] == []
    by_name = await questions.pages("/v1/users", {"sort": "name", "limit": 1})
    assert [item["name"] for page in by_name for item in page] == [None, "Bob"]
    assert [item["id"] for item in (await questions.get("/v1/users", {"status": "erased"}))["items"]] == [ada.user_id]
    assert (await questions.get("/v1/stats"))["users"] == {"active": 1, "inactive": 0, "erased": 1}


async def test_events_are_shown_as_they_are_stored_with_encrypted_fields(questions: Questions) -> None:
    ada = Book().create_user(NAME, EMAIL)
    await questions.record([ada])
    [event] = (await questions.get("/v1/events"))["items"]
    assert event["data"]["name"].keys() == {"sealed"}
    assert personal_in(json.dumps(event)) == []


@pytest.mark.slow
async def test_after_an_erasure_live_and_rebuilt_read_models_are_the_same_and_all_verifies(
    questions: Questions, settings: Settings
) -> None:
    book = Book()
    await questions.record(book.history(300))
    await questions.record([book.erase_user(user_id) for user_id in list(book.emails)[:3]])
    await questions.get("/v1/users")
    outcomes: list[CheckOutcome] = []
    assert await verify_ledger(settings, "main", None, DOMAIN, hide_progress, outcomes.append) == {CheckVerdict.OK}, outcomes
    first, second = [await replay(settings, PROJECTIONS, "main", hide_progress) for _ in range(2)]
    assert [rebuilt.digest for rebuilt in first] == [rebuilt.digest for rebuilt in second]
    assert all(rebuilt.digest for rebuilt in first)
    assert await verify_ledger(settings, "main", None, DOMAIN, hide_progress, outcomes.append) == {CheckVerdict.OK}
    assert "3 were erased" in next(outcome.text for outcome in outcomes if outcome.name == "people")


@pytest.mark.parametrize(
    "statement", ["DELETE FROM person_keys WHERE person_id = :id", "UPDATE person_keys SET wrapped_key = '\\x00'"]
)
async def test_a_key_that_was_lost_or_changed_is_found(
    questions: Questions, settings: Settings, engine: AsyncEngine, statement: str
) -> None:
    ada = Book().create_user(NAME, EMAIL)
    await questions.record([ada])
    async with engine.begin() as connection:
        await connection.execute(text(statement), {"id": ada.user_id} if ":id" in statement else {})
    outcomes: list[CheckOutcome] = []
    assert CheckVerdict.DIFFERENT in await verify_ledger(settings, "main", None, DOMAIN, hide_progress, outcomes.append)
    shown = "\n".join(outcome.text for outcome in outcomes)
    assert ada.user_id in shown
    assert personal_in(shown) == []


async def test_a_person_gets_all_data_that_are_held_about_them(questions: Questions) -> None:
    book = Book()
    ada, bob = book.create_user(NAME, EMAIL), book.create_user("Bob", "bob@example.com")
    one, two, other = (book.open_account(owner.user_id) for owner in (ada, ada, bob))
    changed = book.change_user(ada.user_id, "Ada King", **METADATA)
    paid, moved = book.deposit(one.account_id, 100), book.transfer(one.account_id, two.account_id, 30)
    gone, theirs = book.transfer(two.account_id, other.account_id, 10), book.deposit(other.account_id, 7)
    await questions.record([ada, bob, one, two, other, changed, paid, moved, gone, theirs])
    answer = await questions.ask(f"/v1/users/{ada.user_id}/export")
    assert answer.headers["cache-control"] == "no-store"
    export = answer.json()
    assert (export["user"]["name"], export["user"]["email"], export["user"]["metadata"]) == ("Ada King", EMAIL, METADATA)
    assert {account["id"] for account in export["accounts"]} == {one.account_id, two.account_id}
    transfers = [transfer["id"] for transfer in export["transfers"]]
    assert sorted(transfers) == sorted([paid.transfer_id, moved.transfer_id, gone.transfer_id])
    facts = [event["data"] for event in export["events"] if event["type"].startswith("User")]
    assert [(fact["name"], fact["email"]) for fact in facts] == [(NAME, EMAIL), ("Ada King", EMAIL)]
    assert {event["position"] for event in export["events"]} == {1, 3, 4, 6, 7, 8, 9}
    assert "bob" not in answer.text
    assert export["position"] == 10


async def test_the_export_of_an_erased_person_holds_nothing_personal(questions: Questions) -> None:
    book = Book()
    ada = book.create_user(NAME, EMAIL)
    changed = book.change_user(ada.user_id, NAME, **METADATA)
    await questions.record([ada, book.open_account(ada.user_id), changed, book.erase_user(ada.user_id)])
    answer = await questions.ask(f"/v1/users/{ada.user_id}/export")
    assert answer.status_code == 200
    assert personal_in(answer.content) == []
    assert (await questions.ask(f"/v1/users/{uuid.uuid4()}/export")).status_code == 404


# ── raw bytes ────────────────────────────────────────────────────────────────────────────────────────────────────────


class PlainMongo(Mongo):
    """A mongod without compression, so that a text can be found in its files."""

    def _command(self) -> ProgramArguments:
        plain = ("--wiredTigerCollectionBlockCompressor", "--wiredTigerJournalCompressor")
        return [
            *super()._command(),
            *(word for option in plain for word in (option, "none")),
            "--wiredTigerIndexPrefixCompression",
            "false",
        ]


@pytest.mark.slow
async def test_the_raw_bytes_of_all_stores_dumps_and_logs_hold_nothing_of_an_erased_person(
    migrated_postgres: Path, tmp_path: Path
) -> None:
    """As a positive control, another person who stays is found in the same bytes, wherever names are kept at all."""
    postgres = copy_postgres(migrated_postgres, tmp_path)
    mongo, redis = PlainMongo("mongo", tmp_path), Redis("redis", tmp_path)
    fresh = PlainMongo("fresh", tmp_path)
    await start_all(postgres, mongo, redis, fresh)
    try:
        settings = Settings(
            database_url=postgres.url,
            mongo_url=mongo.url,
            redis_url=redis.url,
            secret="for tests only and long enough to be taken",
            master_keys=MASTER_KEY,
        )
        async with run_stack(settings, tmp_path) as stack:
            wrapped = await _live_and_be_erased(stack, postgres)
        assert await _documents(mongo) == []
        async with run_stack(settings.model_copy(update={"mongo_url": fresh.url}), tmp_path) as stack:
            await _ask(stack, "/v1/users", 7)
        dumps = [await _dump_postgres(postgres, tmp_path), await _dump_redis(redis)]
        assert [personal_in(dump) for dump in dumps] == [[], []]
        assert await _documents(fresh) == []
        await _vacuum(postgres)
    finally:
        await stop_all(postgres, mongo, redis, fresh)
    assert _files_with(tmp_path / "mongo", b"Lovelace"), "MongoDB keeps old data until its oplog is overwritten"
    shutil.rmtree(tmp_path / "mongo")  # read models are rebuilt from the log, as `fresh` was
    for word in PERSONAL:
        assert _files_with(tmp_path, word.encode()) == []
    assert any("fresh" in str(path) for path in _files_with(tmp_path, b"Hopper")), "the person who was not erased is there"
    assert _files_with(tmp_path / "postgres", b"Hopper") == [], "the log holds no name at all"
    assert _files_with(tmp_path / "postgres" / "data" / "base", wrapped) == [], "and the key is gone"


async def _live_and_be_erased(stack: Stack, postgres: Postgres) -> bytes:
    """Runs all commands about two people, erases one, and returns the wrapped key of the erased person."""
    async with httpx2.AsyncClient(base_url=stack.command.url, headers=bearer(), timeout=60) as client:
        api = Commands(client)
        ada = created(await api.post("/v1/users", {"name": NAME, "email": EMAIL}))
        created(await api.post("/v1/users", {"name": "Grace Hopper", "email": "grace@example.com"}))
        changes = {"name": f"{NAME} King", "metadata": METADATA}
        await client.patch(f"/v1/users/{ada}", json=changes, headers={"Idempotency-Key": "k"})
        account_id = await api.account(ada, balance=100)
        await api.post("/v1/users", {"name": NAME, "email": EMAIL})
        await api.post("/v1/users", {"name": f"{NAME}\u202e", "email": f"{EMAIL}@"})
        await api.client.patch(f"/v1/users/{ada}", json={"email": "grace@example.com"})
        assert (await give_password(client, ada, "correct horse battery")).is_success
        for password in ("correct horse battery", "Lovelace, countess"):
            await client.post("/v1/login", json={"email": EMAIL, "password": password})
        await _ask(stack, f"/v1/users/{ada}", 5)
        await _ask(stack, "/v1/users?search=lovelace", 5)
        assert "Byron" in await _ask(stack, "/v1/users?metadata[passport]=Byron-1815", 5)
        connection = await asyncpg.connect(postgres.superuser_url.removesuffix("postgres") + "daybook")
        wrapped: bytes = await connection.fetchval("SELECT wrapped_key FROM person_keys WHERE person_id = $1", ada)
        await connection.close()
        await erase(api, ada)
        created(await api.deposit(account_id, 5))
    shown = await _ask(stack, "/v1/users", 7)
    assert personal_in(shown) == []
    assert "Hopper" in shown
    return wrapped


async def _ask(stack: Stack, path: str, position: int) -> str:
    headers = {"Daybook-Min-Position": str(position), "Prefer": "wait=10, handling=strict"}
    async with httpx2.AsyncClient(base_url=stack.query.url, headers=bearer(), timeout=60) as client:
        answer = await served(partial(client.get, path, headers=headers))
        assert answer.status_code == 200, answer.text
        return answer.text


async def _documents(mongo: Mongo) -> list[str]:
    """The personal words that are found in any collection of ours."""
    seen = b""
    async with AsyncMongoClient[dict[str, Any]](mongo.url) as client:
        for name in await client["daybook"].list_collection_names():
            seen += str(await client["daybook"][name].find().to_list(None)).encode()
    assert b"Hopper" in seen
    return personal_in(seen)


async def _dump_postgres(postgres: Postgres, folder: Path) -> bytes:
    subprocess.run([find_program("pg_dump"), "--inserts", "--file", folder / "dump.sql", postgres.url], check=True)
    dump = (folder / "dump.sql").read_bytes()
    assert b"UserErased" in dump
    return dump


async def _dump_redis(redis: Redis) -> bytes:
    async with RedisClient.from_url(redis.url) as client:
        await client.bgrewriteaof()
        dumps = [await client.dump(key) async for key in client.scan_iter()]
    assert dumps
    return b"".join(dump or b"" for dump in dumps)


async def _vacuum(postgres: Postgres) -> None:
    connection = await asyncpg.connect(postgres.superuser_url.removesuffix("postgres") + "daybook")
    for statement in ("VACUUM FULL", "CHECKPOINT"):
        await connection.execute(statement)
    await connection.close()


def _files_with(folder: Path, word: bytes) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and word in path.read_bytes()]


# ── the key that hashes addresses ────────────────────────────────────────────────────────────────────────────────────


async def test_the_key_that_hashes_addresses_is_never_made_anew(settings: Settings, engine: AsyncEngine) -> None:
    """Without it, no address is accepted a second time, the log says what to restore, and `verify` names it."""
    async with command_api(settings) as api:
        created(await api.post("/v1/users", {"name": NAME, "email": EMAIL}))
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM person_keys WHERE person_id = 'addresses'"))
    async with command_api(settings) as api:
        with capture_logs() as lines:
            answer = await api.post("/v1/users", {"name": NAME, "email": EMAIL})
    assert (answer.status_code, answer.json()["code"]) == (500, "internal-error")
    assert "restore the row" in str(next(line["exc_info"] for line in lines if line["event"] == "unexpected error"))
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM events")) == 1
        assert await connection.scalar(text("SELECT count(*) FROM person_keys WHERE person_id = 'addresses'")) == 0
    outcomes: list[CheckOutcome] = []
    await verify_ledger(settings, "main", None, DOMAIN, hide_progress, outcomes.append)
    [people] = [outcome for outcome in outcomes if outcome.name == "people"]
    assert people.verdict == CheckVerdict.DIFFERENT
    assert "hashes of e-mail addresses" in people.text
