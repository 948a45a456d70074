"""What is built is compared with the log and with the generation before, before anybody reads it."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from projector.comparison import Comparing, Comparison
from projector.generations import Copy, Generations
from projector.projections import PROJECTIONS, Projection
from projector.rebuild import rebuild
from shared.errors import GenerationRefused, Rebuilding
from shared.events import FundsTransferred, RecordedEvent
from shared.read_models import Generation
from shared.settings import Settings
from tests.log import Book
from tests.projecting import BY_NAME, Ledger, eventually, open_ledger
from tests.test_replay import daybook

pytestmark = pytest.mark.services
EVENTS = 300
each_model = pytest.mark.parametrize("name", BY_NAME)
with_origins = pytest.mark.parametrize("name", [name for name, projection in BY_NAME.items() if projection.origin])
Damage = Callable[[Ledger, Generation], Awaitable[object]]


@pytest_asyncio.fixture
async def ledger(settings: Settings) -> AsyncIterator[Ledger]:
    async with open_ledger(settings) as opened:
        yield opened


async def built(ledger: Ledger, name: str, book: Book) -> tuple[Generations, Copy]:
    """A live generation, and one beside it that has come as far."""
    await ledger.append(book.history(EVENTS))
    await ledger.build(name)
    generations = ledger.generations(name)
    copy = generations.copy(await generations.open_new())
    while await copy.advance_far():
        pass
    return generations, copy


async def compare(generations: Generations, copy: Copy) -> Comparison:
    comparing = Comparing(generations.projection, generations.sink, generations.feed, copy.generation)
    return await comparing.compare((await generations.read_pointer()).live)


@each_model
async def test_what_is_right_is_found_right_and_equal_to_the_one_before(ledger: Ledger, name: str) -> None:
    generations, copy = await built(ledger, name, Book())
    found = await compare(generations, copy)
    assert found.before
    assert (found.count > 0, found.before.compared > 0, found.before.differing) == (True, True, [])
    assert found.sampled > 0 or not BY_NAME[name].origin


async def first_name(generations: Generations, generation: Generation) -> str:
    return (await generations.sink.sample(generation, 1))[0]


async def change(ledger: Ledger, generations: Generations, generation: Generation) -> None:
    """One field of one document or key, as an accident might."""
    name = await first_name(generations, generation)
    field = "status" if generation.model.name in {"users", "accounts", "balances"} else "currency"
    if generation.model.store == "mongo":
        await generation.collection(ledger.stores.mongo).update_one({"_id": name}, {"$set": {field: "wrong"}})
    else:
        await ledger.stores.redis.hset(generation.key(name), field, "wrong")  # type: ignore[misc]


async def lose(ledger: Ledger, generations: Generations, generation: Generation) -> None:
    name = await first_name(generations, generation)
    if generation.model.store == "mongo":
        await generation.collection(ledger.stores.mongo).delete_one({"_id": name})
    else:
        await ledger.stores.redis.delete(generation.key(name))


async def add(ledger: Ledger, _generations: Generations, generation: Generation) -> None:
    """Something that no event made."""
    if generation.model.store == "mongo":
        await generation.collection(ledger.stores.mongo).insert_one({"_id": "nobody", "position": 1})
    else:
        await ledger.stores.redis.hset(generation.key("account:nobody"), "position", "1")  # type: ignore[misc]


@with_origins
@pytest.mark.parametrize("damage", [lose, add])
async def test_one_document_too_few_or_too_many_is_found(ledger: Ledger, name: str, damage: Any) -> None:
    generations, copy = await built(ledger, name, Book())
    await damage(ledger, generations, copy.generation)
    with pytest.raises(GenerationRefused, match="number of documents"):
        await compare(generations, copy)


@with_origins
async def test_a_wrong_generation_is_never_switched_to_and_is_gone(ledger: Ledger, name: str) -> None:
    """All of its documents are wrong, so that any sample shows it."""
    generations, copy = await built(ledger, name, Book())
    wrong = "status" if name in {"users", "accounts", "balances"} else "currency"
    for each in await generations.sink.sample(copy.generation, 10_000):
        if copy.generation.model.store == "mongo":
            await copy.generation.collection(ledger.stores.mongo).update_one({"_id": each}, {"$set": {wrong: "?"}})
        else:
            await ledger.stores.redis.hset(copy.generation.key(each), wrong, "?")  # type: ignore[misc]
    with pytest.raises(GenerationRefused, match="no reader will see it"):
        await generations.finish(copy)
    pointer = await generations.read_pointer()
    assert (pointer.live, pointer.building, await generations.sink.numbers(BY_NAME[name].model, "main")) == (1, None, {1})
    await ledger.rebuild(name)
    assert (await ledger.live(name)).number == 2


@with_origins
async def test_where_the_one_before_is_wrong_the_log_says_so_and_the_new_one_takes_its_place(ledger: Ledger, name: str) -> None:
    generations, copy = await built(ledger, name, Book())
    live = await ledger.live(name)
    await change(ledger, generations, live)
    code, out, err = await daybook(ledger.settings, "projections", "rebuild", name).ended()
    assert code == 0, err
    assert "the one before was wrong" in out
    assert (await ledger.live(name)).number == copy.generation.number


@each_model
async def test_made_by_other_code_it_may_differ_from_the_one_before_and_that_is_shown(ledger: Ledger, name: str) -> None:
    generations, copy = await built(ledger, name, Book())
    live = await ledger.live(name)
    if live.model.store == "mongo":
        await ledger.stores.mongo.checkpoints.update_one({"_id": f"main/{name}/1"}, {"$set": {"model_version": 99}})
        await live.collection(ledger.stores.mongo).update_many({}, {"$set": {"more": 1}})
    else:
        await ledger.stores.redis.hset(live.key("origin"), "model_version", "99")  # type: ignore[misc]
        await ledger.stores.redis.delete(*[live.key(each) for each in await generations.sink.sample(live, 10_000)])
    found = await compare(generations, copy)
    assert found.before
    assert (found.before.version, len(found.before.differing)) == (99, found.before.compared)


@pytest.mark.parametrize("name", ["statistics", "activity"])
async def test_what_is_made_of_the_whole_log_is_compared_with_the_whole_log(ledger: Ledger, name: str) -> None:
    _, copy = await built(ledger, name, Book())
    key = copy.generation.key("transfers" if name == "statistics" else "recent")
    if name == "statistics":
        await ledger.stores.redis.hincrby(key, "2020-02-29", 1)  # type: ignore[misc]
    else:
        await ledger.stores.redis.lpop(key)  # type: ignore[misc]
    code, _, err = await daybook(ledger.settings, "projections", "rebuild", name).ended()
    assert (code, "is not what the log says" in err) == (1, True)
    assert (await ledger.live(name)).number == 1


async def test_with_verify_one_wrong_document_among_all_is_found(ledger: Ledger) -> None:
    generations, copy = await built(ledger, "entries", Book())
    await change(ledger, generations, copy.generation)
    code, _, err = await daybook(ledger.settings, "projections", "rebuild", "entries", "--verify").ended()
    assert (code, "is not what the log says" in err) == (1, True)
    code, out, err = await daybook(ledger.settings, "projections", "rebuild", "entries", "--verify").ended()
    last = json.loads(err.splitlines()[-1])
    assert (code, last["done"], last["total"]) == (0, 2 * EVENTS, 2 * EVENTS), out + err


async def test_it_is_compared_while_both_generations_move_on(ledger: Ledger) -> None:
    """Nothing stands still, and nothing that is right is taken for wrong."""
    book = Book(seed=4)
    head = await ledger.append(book.history(EVENTS))
    async with ledger.followed():
        await ledger.caught_up(head)
        for _ in range(3):
            for name in BY_NAME:
                await ledger.append(book.history(20))
                generations = ledger.generations(name)
                copy = generations.copy(await generations.open_new())
                await copy.advance(EVENTS // 2)
                await ledger.append(book.history(20))
                # One in the middle of its way, beside a live one that is ahead and goes on.
                found = await compare(generations, copy)
                assert found.before
                assert not found.before.differing
        assert not await ledger.troubles()


def wrong_project(changes: Any, recorded: RecordedEvent, event: Any) -> None:
    """Code that gives something else when it sees many events at once: not a function of the log."""
    BY_NAME["accounts"].project(changes, recorded, event)
    if isinstance(event, FundsTransferred) and len(changes) > 2:
        changes.change(event.from_account_id, {"posted": 0}, {})


async def test_a_worker_says_that_what_it_built_is_wrong_and_readers_keep_what_they_have(ledger: Ledger) -> None:
    book = Book()
    await ledger.append(book.history(EVENTS))
    await ledger.build("accounts")
    newer: Projection[Any] = msgspec.structs.replace(
        BY_NAME["accounts"], model=msgspec.structs.replace(BY_NAME["accounts"].model, version=2), project=wrong_project
    )

    async def told() -> bool:
        trouble = (await ledger.troubles()).get("accounts")
        return trouble is not None and "not what the log says" in trouble.cause

    async with ledger.followed(newer):
        await eventually(told)
    assert (await ledger.live("accounts")).number == 1


async def test_rebuilds_say_what_they_were_compared_with(ledger: Ledger) -> None:
    await ledger.append(Book().history(EVENTS))
    with pytest.raises(Rebuilding):
        await ledger.live("accounts")
    first = (await rebuild(ledger.generations("accounts"), lambda _: None)).comparison
    second = (await rebuild(ledger.generations("accounts"), lambda _: None)).comparison
    assert first
    assert second
    assert second.before
    assert (first.before, second.before.number, len(PROJECTIONS)) == (None, 1, len(BY_NAME))
