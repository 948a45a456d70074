"""`daybook verify` finds every change and its place, and finds nothing if nothing was changed."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from command_api.past_history import DOMAIN
from projector.feed import Feed
from projector.projections.registry import PROJECTIONS_BY_NAME
from projector.verify.difference import DifferenceFound, require_equal
from projector.verify.ledger import CheckVerdict, LogChecks, outcome_of
from projector.verify.read_models import verify_read_model
from projector.verify.trusted_seals import trusted_seals
from shared.read_models.dead_letters import SKIPPED
from shared.read_models.generations import pointer_key
from shared.settings import Settings
from tests.harness.documents import documents_of
from tests.harness.log import PERSON_KEYS, Book
from tests.harness.projecting import Ledger, open_ledger, tamper
from tests.harness.running import Servers
from tests.harness.terminals import daybook

pytestmark = pytest.mark.services


@pytest_asyncio.fixture
async def ledger(settings: Settings) -> AsyncIterator[Ledger]:
    """A ledger with a history of 120 events, recorded in one transaction, and its read models."""
    async with open_ledger(settings) as opened:
        book = Book(seed=1)
        await opened.append([*book.history(79), book.close_day(), *book.history(40)])
        await opened.build()
        yield opened


async def log_differences(ledger: Ledger) -> dict[str, str]:
    """Check → the difference that it found, for the checks that found one."""
    trusted = trusted_seals(ledger.settings, None)
    checks = LogChecks(ledger.stores, ledger.ledger_id, 120, PERSON_KEYS, trusted, DOMAIN)
    outcomes = [await outcome_of(check.name, check.run, lambda _: None) for check in checks.in_order()]
    return {outcome.name: outcome.text for outcome in outcomes if outcome.verdict == CheckVerdict.DIFFERENT}


async def difference_in(ledger: Ledger, name: str) -> str:
    feed = Feed(ledger.stores.engine, ledger.ledger_id, PERSON_KEYS)
    try:
        await verify_read_model(ledger.stores, PROJECTIONS_BY_NAME[name], feed, lambda _: None)
    except DifferenceFound as difference:
        return str(difference)
    return ""


# ── the command ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_every_check_says_so_if_everything_is_right(ledger: Ledger) -> None:
    code, out, err = await daybook(ledger.settings, "verify").ended()
    assert code == 0, err
    lines = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert list(lines) == ["schema", "log", "seals", "events", "replies", "people", "audit", "streams", *PROJECTIONS_BY_NAME]
    assert all(line.startswith("ok ") for line in lines.values()), out
    assert "120 events" in lines["log"]


async def test_a_difference_is_printed_without_what_is_personal_and_the_exit_code_is_3(ledger: Ledger) -> None:
    users = documents_of(ledger.stores.mongo, "users")
    user = await users.one()
    await users.set({"email": "eve@example.com"}, {"_id": user["_id"]})
    code, out, _ = await daybook(ledger.settings, "verify").ended()
    assert code == 3
    expected = f"DIFFERENT  users {user['_id']}, email: expected '(personal)', found 'another (personal)'"
    assert [line.split(maxsplit=1)[1] for line in out.splitlines() if "DIFFERENT" in line] == [expected]


async def test_verify_is_exact_while_everything_moves(ledger: Ledger) -> None:
    book = Book(seed=2)
    async with ledger.followed():
        verifying = daybook(ledger.settings, "verify")
        while verifying.is_running:
            await ledger.append(book.history(30))
        code, out, err = await verifying.ended()
    assert code == 0, out + err


async def test_an_empty_ledger_is_right(settings: Settings) -> None:
    async with open_ledger(settings) as ledger:
        await ledger.build()
        assert await log_differences(ledger) == {}
        assert [await difference_in(ledger, name) for name in PROJECTIONS_BY_NAME] == [""] * len(PROJECTIONS_BY_NAME)


async def test_a_read_model_that_is_not_there_is_a_difference(settings: Settings) -> None:
    async with open_ledger(settings) as ledger:
        assert "being rebuilt" in await difference_in(ledger, "users")


# ── the log, changed by someone who can ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("UPDATE events SET data = jsonb_set(data, '{amount}', '7') WHERE position = 3", "position 3 of the log"),
        ("UPDATE events SET metadata = '{}' WHERE position = 50", "position 50 of the log"),
        ("UPDATE events SET recorded_at = recorded_at + interval '1 s' WHERE position = 50", "position 50 of the log"),
        ("UPDATE events SET type = 'FundsWithdrawn' WHERE position = 3", "position 3 of the log"),
        ("UPDATE events SET event_id = gen_random_uuid() WHERE position = 9", "position 9 of the log"),
        ("DELETE FROM events WHERE position = 60", "the next position of the log: expected 60, found 61"),
        ("DELETE FROM events WHERE position > 110", "position 111 of the log: expected 'an event', found nothing"),
        ("UPDATE events SET position = -position WHERE position = 120", "the next position of the log: expected 1, found -120"),
        ("UPDATE events SET position = 500 WHERE position = 120", "the next position of the log: expected 120, found 500"),
        ("UPDATE log_heads SET position = 119", "head of the log at 119, hash"),
        ("UPDATE log_heads SET hash = '\\x00'", "head of the log at 120, hash"),
    ],
)
async def test_a_changed_log_is_found_and_located(ledger: Ledger, servers: Servers, statement: str, expected: str) -> None:
    await tamper(servers.postgres, ledger.settings, statement)
    assert expected in (await log_differences(ledger))["log"]


async def test_a_changed_log_that_projections_fail_at_is_a_difference_of_theirs(ledger: Ledger, servers: Servers) -> None:
    """Each event that names an account now names one that was never opened."""
    for field in ("account_id", "from_account_id", "user_id"):
        change = f"UPDATE events SET data = jsonb_set(data, '{{{field}}}', '\"forged\"') WHERE data ? '{field}' AND position > 60"
        await tamper(servers.postgres, ledger.settings, change)
    found = {name: await difference_in(ledger, name) for name in PROJECTIONS_BY_NAME}
    assert "events that follow from each other" in found["accounts"]
    assert "(KeyError)" in found["users"]
    code, out, err = await daybook(ledger.settings, "verify").ended()
    assert code == 3, out + err
    assert len(out.splitlines()) == 8 + len(PROJECTIONS_BY_NAME), "every check has its line"


async def test_an_event_beyond_the_head_is_found(ledger: Ledger, servers: Servers) -> None:
    columns = "gen_random_uuid(), type, 1, data, metadata, recorded_at, hash"
    forged = f"INSERT INTO events SELECT ledger_id, 121, {columns} FROM events WHERE position = 120"
    await tamper(servers.postgres, ledger.settings, forged)
    found = (await log_differences(ledger))["log"]
    assert found.startswith("position 121 of the log: expected 'no event outside 1 to the head'")


async def test_two_events_that_were_swapped_are_found(ledger: Ledger, servers: Servers) -> None:
    await tamper(
        servers.postgres,
        ledger.settings,
        *(f"UPDATE events SET position = {new} WHERE position = {old}" for old, new in ((40, 999), (41, 40), (999, 41))),
    )
    assert "position 40 of the log" in (await log_differences(ledger))["log"]


async def test_a_forged_chain_does_not_hide_a_forged_balance(ledger: Ledger, servers: Servers) -> None:
    """An attacker who can change an event can also compute hashes, but the balances still do not agree."""
    await tamper(
        servers.postgres, ledger.settings, "UPDATE events SET data = jsonb_set(data, '{balance}', '7') WHERE position = 3"
    )
    found = await log_differences(ledger)
    assert "position 3 of the log, account" in found["events"]
    assert "balance: expected" in found["events"]


# ── streams and snapshots ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("DELETE FROM stream_events WHERE position = 3 AND stream_id LIKE 'account-%'", "next version: expected 2, found 3"),
        ("DELETE FROM stream_events WHERE position = 3 AND stream_id LIKE 'transfer-%'", "version 1, position: expected 3"),
        ("UPDATE stream_events SET position = 4 WHERE position = 3 AND stream_id LIKE 'transfer-%'", "event at 4"),
        ("UPDATE streams SET version = version + 1 WHERE stream_id LIKE 'email-%'", "head of stream email-"),
        ("UPDATE streams SET position = 1 WHERE position = 120", "position: expected 120, found 1"),
        (
            "DELETE FROM streams WHERE stream_id = (SELECT max(stream_id) FROM streams WHERE stream_id LIKE 'account-%')",
            "version: expected",
        ),
        (
            "UPDATE streams SET snapshot = jsonb_set(snapshot, '{posted}', '1') WHERE stream_id LIKE 'account-%'",
            "snapshot, posted: expected",
        ),
        ("UPDATE streams SET snapshot = '[]' WHERE stream_id LIKE 'user-%'", "snapshot: expected 'one that can be read'"),
        (
            "INSERT INTO streams SELECT ledger_id, 'user-0', 1, 1, fold_version, snapshot FROM streams LIMIT 1",
            "head of stream user-0",
        ),
        (
            "INSERT INTO stream_events SELECT ledger_id, 'user-0', 1, 1 FROM log_heads",
            "stream user-0, version 1, event at 1: expected",
        ),
    ],
)
async def test_a_changed_stream_is_found_and_named(ledger: Ledger, servers: Servers, statement: str, expected: str) -> None:
    await tamper(servers.postgres, ledger.settings, statement)
    found = await log_differences(ledger)
    assert list(found) == ["streams"]
    assert expected in found["streams"]


async def test_a_snapshot_of_an_older_fold_is_not_a_difference(ledger: Ledger, servers: Servers) -> None:
    await tamper(servers.postgres, ledger.settings, "UPDATE streams SET fold_version = 0, snapshot = '{}'")
    assert await log_differences(ledger) == {}


# ── read models ──────────────────────────────────────────────────────────────────────────────────────────────────────

MONGO_MODELS = [name for name, projection in PROJECTIONS_BY_NAME.items() if projection.model.store == "mongo"]


@pytest.mark.slow
@pytest.mark.parametrize("name", MONGO_MODELS)
async def test_a_document_that_was_changed_removed_or_added_is_found(ledger: Ledger, name: str) -> None:
    await ledger.append(Book(seed=2).seldom())
    await ledger.build()
    documents = documents_of(ledger.stores.mongo, name)
    document = await documents.one(direction=-1)
    field = next(each for each in ("position", "within_rest", "item") if each in document)
    await documents.set({field: 1}, {"_id": document["_id"]})
    found = await difference_in(ledger, name)
    assert f"{name} {document['_id']}, {field}: expected {document[field]!r}, found 1" in found
    await documents.delete(document["_id"])
    assert f"{name} {document['_id']}: expected" in await difference_in(ledger, name)
    await documents.insert(document, {"_id": "stray", "position": 2})
    assert f"{name} stray: expected nothing, found" in await difference_in(ledger, name)
    await documents.delete("stray")
    assert await difference_in(ledger, name) == ""


async def test_a_document_that_names_a_generation_to_which_its_id_does_not_belong_is_found(ledger: Ledger) -> None:
    """Lists are read by the field, and other queries by the id. Each of them must find the same."""
    users = documents_of(ledger.stores.mongo, "users")
    user = await users.one()
    await users.set({"generation": "other.1"}, {"_id": user["_id"]})
    assert f"users {user['_id']}, generation: expected nothing, found 'other.1'" in await difference_in(ledger, "users")
    await users.set({"generation": "main.1"}, {"_id": user["_id"]})
    await users.collection.insert_one({"_id": "other.1/stray", "generation": "main.1", "position": 2})
    assert "users other.1/stray: expected nothing, found" in await difference_in(ledger, "users")


async def test_a_value_of_another_type_is_a_difference_even_where_python_calls_it_equal(ledger: Ledger) -> None:
    documents = documents_of(ledger.stores.mongo, "accounts")
    account = await documents.one()
    await documents.set({"posted": float(account["posted"])}, {"_id": account["_id"]})
    assert "posted: expected" in await difference_in(ledger, "accounts")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "command", "expected"),
    [
        ("statistics", ("HINCRBY", "sums", "EUR", "1"), "statistics sums, EUR: expected"),
        ("statistics", ("ZINCRBY", "busiest", "1", "nobody"), "statistics busiest, nobody: expected nothing, found 1.0"),
        ("statistics", ("DEL", "transfers"), "statistics transfers: expected"),
        ("statistics", ("SET", "stray", "1"), "statistics stray: expected nothing, found"),
        ("activity", ("LPOP", "recent"), "activity recent, item 0, amount: expected"),
        ("activity", ("SET", "recent", "1"), "a key of another type"),
    ],
)
async def test_a_key_that_was_changed_removed_or_added_is_found(
    ledger: Ledger, name: str, command: tuple[str, ...], expected: str
) -> None:
    word, key, *rest = command
    redis: Any = ledger.stores.redis
    await redis.execute_command(word, (await ledger.live(name)).key(key), *rest)
    assert expected in await difference_in(ledger, name)


async def test_a_balance_that_was_changed_in_redis_is_found(ledger: Ledger) -> None:
    live = await ledger.live("balances")
    account = await documents_of(ledger.stores.mongo, "accounts").one()
    await ledger.stores.redis.hset(live.key(f"account:{account['_id']}"), "posted", "5")  # type: ignore[misc]
    expected = f"balances account:{account['_id']}, posted: expected '{account['posted']}', found '5'"
    assert await difference_in(ledger, "balances") == expected


async def test_a_skip_that_no_operator_decided_hides_nothing(ledger: Ledger) -> None:
    """A mark beside the checkpoint, with the document of the event gone, must not look like an operator's decision."""
    transfers = documents_of(ledger.stores.mongo, "transfers")
    transfer = await transfers.one()
    await transfers.delete(transfer["_id"])
    marks = ledger.stores.mongo.checkpoints
    await marks.update_one({"_id": "main/transfers/1"}, {"$push": {"skipped": transfer["position"]}})
    expected = f"transfers, event {transfer['position']}: expected 'folded: the log has no decision to skip it', found 'skipped'"
    assert await difference_in(ledger, "transfers") == expected
    live = await ledger.live("balances")
    await ledger.stores.redis.hset(live.key("origin"), f"{SKIPPED}3", "1")  # type: ignore[misc]
    assert "balances, event 3: expected 'folded" in await difference_in(ledger, "balances")


@pytest.mark.slow
@pytest.mark.parametrize("key", ["account", "checkpoint", "origin", ""])
async def test_a_key_that_will_expire_is_found(ledger: Ledger, key: str) -> None:
    live = await ledger.live("balances")
    account = await documents_of(ledger.stores.mongo, "accounts").one()
    name = {"account": live.key(f"account:{account['_id']}"), "": pointer_key(live.model, "main")}.get(key, live.key(key))
    assert await ledger.stores.redis.expire(name, 1_000)
    assert "time to live: expected nothing, found" in await difference_in(ledger, "balances")


async def test_other_indexes_and_options_of_a_collection_are_found(ledger: Ledger) -> None:
    transfers = ledger.stores.mongo.transfers
    await transfers.create_index("recorded_at", expireAfterSeconds=10**8)
    assert "transfers, collection, indexes" in await difference_in(ledger, "transfers")
    await transfers.drop_indexes()
    assert "transfers, collection, indexes: expected" in await difference_in(ledger, "transfers")
    await transfers.create_index("recorded_at", expireAfterSeconds=10**8)
    await ledger.rebuild("transfers")
    assert await difference_in(ledger, "transfers") == ""
    await ledger.stores.mongo.command("collMod", "accounts", validator={"posted": {"$lt": 5}}, validationAction="warn")
    assert "accounts, collection, options" in await difference_in(ledger, "accounts")


async def test_a_read_model_of_another_log_is_a_difference(ledger: Ledger) -> None:
    await ledger.stores.mongo.checkpoints.update_one({"_id": "main/users/1"}, {"$set": {"log_hash": "00"}})
    assert "users, checkpoint, hash of the log at 120" in await difference_in(ledger, "users")
    await ledger.stores.mongo.checkpoints.update_one({"_id": "main/accounts/1"}, {"$set": {"position": 900}})
    assert "accounts, checkpoint: expected 'at most 120" in await difference_in(ledger, "accounts")


def test_the_first_difference_is_named_down_to_its_field() -> None:
    with pytest.raises(DifferenceFound, match=r"^here, a, item 1: expected 2, found 3$"):
        require_equal("here", {"a": [1, 2], "b": 1}, {"a": [1, 3], "b": 2})


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ('{"a":1,"b":3}', "here, b: expected 2, found 3"),
        ('{"a":1,"b":2.0}', "here, b: expected 2, found 2.0"),
        ('{"a":1, "b":2}', """here: expected '{"a":1,"b":2}', found '{"a":1, "b":2}'"""),
        ("[1,2]", """here: expected '{"a":1,"b":2}', found '[1,2]'"""),
        ("no JSON", """here: expected '{"a":1,"b":2}', found 'no JSON'"""),
        (None, """here: expected '{"a":1,"b":2}', found nothing"""),
    ],
)
def test_a_difference_in_stored_json_is_named_down_to_its_member(found: str | None, said: str) -> None:
    with pytest.raises(DifferenceFound) as raised:
        require_equal("here", '{"a":1,"b":2}', found)
    assert str(raised.value) == said
