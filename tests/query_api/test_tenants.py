"""Ledgers share collections in MongoDB, and none of them ever sees, changes or deletes what is another one's."""

import asyncio
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

import pytest
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from projector.sinks.mongo import drop_old_collections
from projector.verify.read_models import verify_read_model
from shared.errors import Rebuilding
from shared.read_models.documents import GenerationDocuments, stored_numbers
from shared.read_models.generations import Generation
from shared.read_models.shapes import GENERATION_FIELD, READ_MODELS, USERS, index_options
from shared.settings import Settings
from tests.harness.documents import BY_NAME, documents_of
from tests.harness.keys import OPERATOR, add_key, bearer
from tests.harness.log import Book, make_ledger
from tests.harness.mongo_listeners import listen
from tests.harness.projecting import Ledger
from tests.harness.questions import Questions, projecting, query_api
from tests.query_api.test_query_openapi import ELSEWHERE, OPERATIONS, PROOFS, QUERIES, REPORTS

services = pytest.mark.services

SHARED: Final = {model.name for model in READ_MODELS if model.store == "mongo"}
ABOUT_NO_DOCUMENT: Final = {"create", "createIndexes", "drop", "dropIndexes", "getMore", "listIndexes"}
TENANT: Final = re.compile(r"[a-z][a-z0-9-]*(@[a-z][a-z0-9-]*)?\.[0-9]+")

PLACE = GenerationDocuments("accounts", "main", 2)


class Sent(CommandListener):
    """Notes all commands about shared collections, and those that do not say which generation they are about."""

    def __init__(self) -> None:
        self.kinds: set[str] = set()
        self.generations: set[str] = set()
        self.wrong: list[str] = []
        self.sent_to_all_shards: list[str] = []
        """Writes that do not say which documents they are about, by the shard key `_id`. `mongos` would refuse or spread them."""

    def failed(self, event: CommandFailedEvent) -> None:
        pass

    def succeeded(self, event: CommandSucceededEvent) -> None:
        pass

    def started(self, event: CommandStartedEvent) -> None:
        command = event.command
        written = [each["q"] for each in (*command.get("updates", ()), *command.get("deletes", ()))]
        written += [command["query"]] if event.command_name == "findAndModify" else []
        self.sent_to_all_shards += [f"{event.command_name}: {each}" for each in written if not names_shard_key(each)]
        for name, filters in _filters(event.command_name, command):
            self.kinds.add(event.command_name)
            for each in filters:
                if generation := generation_in(each):
                    self.generations.add(generation)
                else:
                    self.wrong.append(f"{event.command_name} {name}: {each}")


def names_shard_key(asked: Any) -> bool:
    """True if a filter names one id, several, or a range of ids with both ends."""
    ids = asked.get("_id")
    if isinstance(ids, str):
        return True
    return isinstance(ids, dict) and ("$in" in ids or {name[:3] for name in ids} == {"$gt", "$lt"})


def _filters(kind: str, command: Any) -> Iterator[tuple[str, list[Any]]]:
    """Yields each shared collection that a command is about, with the filters and documents that it is asked with."""
    name = command.get(kind)
    if kind == "aggregate":
        lookups = [stage["$lookup"] for stage in command["pipeline"] if "$lookup" in stage]
        for each in lookups:
            if each["from"] in SHARED:
                yield each["from"], [each["pipeline"][0]["$match"]]
    if not isinstance(name, str) or name not in SHARED or kind in ABOUT_NO_DOCUMENT:
        return
    match kind:
        case "insert":
            yield name, [{"_id": each["_id"], GENERATION_FIELD: each.get(GENERATION_FIELD)} for each in command["documents"]]
        case "update":
            yield name, [each["q"] for each in command["updates"]]
        case "delete":
            yield name, [each["q"] for each in command["deletes"]]
        case "aggregate":
            yield name, [command["pipeline"][0].get("$match", {})]
        case _:
            yield name, [command.get("filter", command.get("query", {}))]


def generation_in(asked: Any) -> str:
    """Returns the only generation, or ledger, that a filter can find documents of, or an empty text."""
    found = {asked[GENERATION_FIELD]} if GENERATION_FIELD in asked else set()
    found |= _of_ids(asked["_id"]) if "_id" in asked and not found else set()
    found |= {found_in for each in asked.get("$and", ()) if (found_in := generation_in(each))}
    if not found and "$or" in asked:
        found = {generation_in(each) for each in asked["$or"]}
    return found.pop() if len(found) == 1 and all(found) else ""


def _of_ids(asked: Any) -> set[str]:
    if isinstance(asked, str):
        return {_tenant(asked)}
    if "$in" in asked:
        return {_tenant(each) for each in asked["$in"]} or {"nothing.0"}
    lower, upper = (asked.get(f"${end}", asked.get(f"${end}e", "")) for end in ("gt", "lt"))
    if upper == lower.partition(".")[0] + "/":  # all generations of a ledger, of which only the numbers are asked for
        return {upper}
    begin = _tenant(lower)
    return {begin} if begin and (upper == f"{begin}0" or _tenant(upper) == begin) else {""}


def _tenant(document_id: str) -> str:
    tenant, slash, _ = document_id.partition("/")
    return tenant if slash and TENANT.fullmatch(tenant) else ""


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    """Listens to all clients that are opened from now on."""
    listener = Sent()
    listen(monkeypatch, listener)
    return listener


class Tenants:
    """Two ledgers with the same users, accounts and transfers, and a walk over all routes that read them."""

    def __init__(self, api: Questions) -> None:
        self.api = api
        self.book = Book(4)
        self.history = list(self.book.history(150)) + self.book.seldom()
        self.names = self._names()

    def _names(self) -> dict[str, str]:
        account_id, user_id = next(iter(self.book.accounts)), next(iter(self.book.emails))
        found = {
            name: next(getattr(event, name) for event in reversed(self.history) if hasattr(event, name))
            for name in ("transfer_id", "hold_id", "schedule_id", "day")
        }
        return found | {"account_id": account_id, "user_id": user_id, "stream": f"account-{account_id}", "name": "accounts"}

    async def walk(self, token: str, position: int) -> dict[str, Any]:
        """Returns the answers of all routes about the ledger that a key is for, by route."""
        answers = {}
        for operation_id in sorted(set(QUERIES) - PROOFS - REPORTS - ELSEWHERE):
            path = OPERATIONS[operation_id][0]
            if set(re.findall(r"{(\w+)}", path)) <= self.names.keys():
                headers = bearer(token) | {"daybook_min_position": str(position)}
                answers[path] = await self.api.get(path.format(**self.names), **headers)
        return answers


@services
async def test_no_ledger_sees_what_another_one_with_the_same_ids_records(settings: Settings, sent: Sent) -> None:
    async with query_api(settings) as api, projecting(api, settings):
        tenants = Tenants(api)
        main = await api.record(tenants.history)
        alone = await tenants.walk(OPERATOR, main)
        assert len(alone) > 20
        await make_ledger(api.writer, "system")
        token = await add_key(settings.database_url, ledger_id="system")
        other = await api.record(Tenants(api).history, "system")
        beside = await tenants.walk(token, other)
        assert differing(await tenants.walk(OPERATOR, main), alone) == []
        more = await api.record(tenants.book.history(60))
        changed = await tenants.walk(OPERATOR, more)
        assert {"/v1/users", "/v1/accounts", "/v1/transfers", "/v1/accounts/{account_id}/entries"} <= {*differing(changed, alone)}
        assert differing(await tenants.walk(token, other), beside) == []
    assert sent.wrong == sent.sent_to_all_shards == []
    assert {"aggregate", "find", "insert", "update"} <= sent.kinds
    assert {"main.1", "system.1"} <= sent.generations


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Returns the routes that answer something else, apart from what moves with the time."""
    moving = {"/v1/ledgers", "/v1/projections", "/v1/log"}
    return [path for path in one if path not in moving and one[path] != other[path]]


@services
async def test_dropping_and_verifying_one_ledger_leaves_the_other_whole(settings: Settings, sent: Sent) -> None:
    async with query_api(settings) as api:
        ledgers = [Ledger(settings, api.stores, api.writer, name) for name in ("main", "system")]
        await make_ledger(api.writer, "system")
        for ledger in ledgers:
            await ledger.append(Book(4).history(60))
            await ledger.build("accounts", "entries")
        before = {name: await documents_of(api.stores.mongo, name, 1, "system").all() for name in ("accounts", "entries")}
        await ledgers[0].rebuild("accounts", "entries")
        for name, documents in before.items():
            sink = ledgers[0].generations(name).sink
            assert await sink.numbers(BY_NAME[name], "main") == {1, 2}
            await ledgers[0].generations(name).drop_kept()
            assert await stored_numbers(api.stores.mongo, name, "main") == {2}
            assert await documents_of(api.stores.mongo, name, 1, "system").all() == documents
            for ledger in ledgers:
                await verify_read_model(api.stores, ledger.generations(name).projection, ledger.feed(), lambda _: None)
    assert sent.wrong == sent.sent_to_all_shards == []
    assert {"aggregate", "delete", "find", "insert"} <= sent.kinds


@services
async def test_an_interrupted_deletion_is_found_and_gone_on_with(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("projector.sinks.mongo.DROP_DOCUMENTS", 1)
    async with query_api(settings) as api:
        ledger = Ledger(settings, api.stores, api.writer)
        await ledger.append(Book(4).history(100))
        await ledger.build("entries")
        await ledger.rebuild("entries")
        generations, old = ledger.generations("entries"), documents_of(api.stores.mongo, "entries")
        before = await old.all()
        dropping = asyncio.create_task(generations.drop_kept())
        while await old.count() == len(before):
            pass
        dropping.cancel()
        with suppress(asyncio.CancelledError):
            await dropping
        assert 0 < await old.count() < len(before)
        assert await generations.sink.read_checkpoint(Generation(BY_NAME["entries"], "main", 1)) is None
        assert await ledger.generations("entries").prune() == {1}
        assert await generations.sink.numbers(BY_NAME["entries"], "main") == {2}
        assert await documents_of(api.stores.mongo, "entries", 2).all() == before


@services
async def test_what_older_code_has_made_is_not_answered_and_is_built_again(settings: Settings) -> None:
    """It had a collection for each generation of each ledger, and the pointers in another one."""
    async with query_api(settings) as api:
        mongo, ledger = api.stores.mongo, Ledger(settings, api.stores, api.writer)
        user = Book(4).create_user()
        await ledger.append([user])
        await mongo["main.users.1"].insert_one({"_id": user.user_id, "name": "Ada"})
        await mongo["main.limit-history@audit.12"].insert_one({"_id": "x"})
        await mongo.read_models.insert_one({"_id": "main/users", "live": 1, "building": None, "previous": None})
        old = {"position": 1, "log_hash": "00", "model_version": USERS.version, "collection_uuid": "00"}
        await mongo.checkpoints.insert_one({"_id": "main/users/1", **old})
        with pytest.raises(Rebuilding):
            await ledger.live("users")
        await ledger.build("users")
        assert (await ledger.live("users")).number == 2
        assert [found["_id"] for found in await mongo.checkpoints.find().to_list(None)] == ["main/users/2"]
        assert await drop_old_collections(mongo) == 3
        assert {*await mongo.list_collection_names()} == {"checkpoints", "pointers", "users"}


# ── what is sent ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_index_begins_with_the_generation() -> None:
    indexes = [keys for model in READ_MODELS for keys, _ in index_options(model)]
    assert indexes
    assert {keys[0] for keys in indexes} == {(GENERATION_FIELD, 1)}


@pytest.mark.parametrize(
    ("asked", "is_named"),
    [
        ({"_id": "main.2/a"}, True),
        ({"_id": {"$in": ["main.2/a"]}, "status": "open"}, True),
        ({"_id": {"$gte": "main.2/", "$lt": "main.20"}}, True),
        ({"_id": {"$gte": "main.2/"}}, False),
        ({"generation": "main.2", "status": "open"}, False),
        ({}, False),
    ],
)
def test_a_write_for_all_shards_is_seen(asked: Any, is_named: bool) -> None:  # noqa: FBT001
    assert names_shard_key(asked) == is_named


WHOLE = {"_id": {"$gte": "main.2/", "$lt": "main.20"}}


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, WHOLE),
        ({"_id": "a"}, {"_id": "main.2/a"}),
        ({"_id": {"$in": ["a", "b"]}}, {"_id": {"$in": ["main.2/a", "main.2/b"]}}),
        ({"_id": {"$gt": "a"}}, {"_id": {"$gt": "main.2/a", "$lt": "main.20"}}),
        ({"_id": {"$lte": "a"}}, {"_id": {"$lte": "main.2/a", "$gte": "main.2/"}}),
        ({"status": "open"}, {"generation": "main.2", "status": "open"}),
        ({"$and": [{"status": "open"}, {"_id": "a"}]}, {"$and": [{"status": "open"}, {"_id": "main.2/a"}]}),
        ({"$or": [{"_id": "a"}, {"_id": "b"}]}, {"$or": [{"_id": "main.2/a"}, {"_id": "main.2/b"}]}),
        (
            {"$or": [{"_id": "a"}, {"status": "open"}]},
            {"generation": "main.2", "$or": [{"_id": "main.2/a"}, {"status": "open"}]},
        ),
        ({"$nor": [{"_id": "a"}]}, {"generation": "main.2", "$nor": [{"_id": "main.2/a"}]}),
    ],
)
def test_every_filter_names_the_generation(wanted: Any, expected: Any) -> None:
    assert PLACE.match(wanted) == expected
    assert generation_in(expected) == "main.2"


@pytest.mark.parametrize("wrong", [{"_id": {"$ne": "a"}}, {"_id": {"$regex": "a"}}, {"_id": {"$not": {"$gt": "a"}}}, {"_id": {}}])
def test_a_condition_that_could_reach_beyond_the_generation_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="_id is asked for"):
        PLACE.match(wrong)


@pytest.mark.parametrize("stages", [[{"$sort": {"_id": 1}}], [{"$match": {}}, {"$match": {}}], [{"$match": {}}, {"$lookup": {}}]])
def test_a_pipeline_that_could_reach_beyond_the_generation_is_refused(stages: Any) -> None:
    with pytest.raises(ValueError, match="begins with \\$match"):
        PLACE.stages(stages)


@pytest.mark.parametrize(("order", "begin"), [("_id", WHOLE), ("opened_at", PLACE.named)])
def test_documents_are_found_by_the_index_that_orders_them(order: str, begin: Any) -> None:
    for wanted in ({}, {"status": "open"}):
        stages = PLACE.stages([{"$match": wanted}, {"$sort": {order: 1}}])
        assert stages == [{"$match": {**begin, **wanted}}, {"$sort": {order: 1}}]


def test_an_id_within_a_group_has_no_generation() -> None:
    [first, group] = PLACE.stages([{"$match": {}}, {"$group": {"_id": None, "ids": {"$addToSet": "$_id"}}}])
    assert first == {"$match": WHOLE}
    assert group == {"$group": {"_id": None, "ids": {"$addToSet": {"$substrBytes": ["$_id", 7, -1]}}}}
    assert PLACE.told({"_id": None, "_ids": ["main.2/a", "main.2/b"]}) == {"_id": None, "_ids": ["a", "b"]}


@services
async def test_the_numbers_of_a_ledger_are_found_whatever_the_others_are_called(settings: Settings) -> None:
    async with query_api(settings) as api:
        mongo = api.stores.mongo
        for ledger_id, number in (("main", 1), ("main", 2), ("main", 10), ("main-2", 3), ("mai", 4), ("maina", 5), ("m", 6)):
            await documents_of(mongo, "users", number, ledger_id).insert({"_id": "a"}, {"_id": "~"})
        await documents_of(mongo, "users", 7).collection.insert_one({"_id": "main@audit.8/a"})
        assert await stored_numbers(mongo, "users", "main") == {1, 2, 10}
        assert await stored_numbers(mongo, "users@audit", "main") == {8}
        assert await stored_numbers(mongo, "users", "main-2") == {3}
        assert [document["_id"] for document in await documents_of(mongo, "users", 1).all()] == ["a", "~"]
