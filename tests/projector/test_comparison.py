"""A new generation is compared with the log and with the generation before, until then nobody reads it."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from projector.generations.build import GenerationBuild
from projector.generations.comparison import Comparison, GenerationComparer
from projector.generations.generations import Generations
from projector.generations.rebuild import rebuild
from projector.projections.projection import Projection
from projector.projections.registry import PROJECTIONS, PROJECTIONS_BY_NAME
from shared.errors import GenerationMismatch, Rebuilding
from shared.log.events import RecordedEvent
from shared.read_models.generations import Generation
from shared.settings import Settings
from tests.harness.documents import StoredDocuments
from tests.harness.log import Book
from tests.harness.projecting import Ledger, eventually, open_ledger
from tests.harness.terminals import daybook

pytestmark = pytest.mark.services
EVENTS = 300
each_model = pytest.mark.parametrize("name", PROJECTIONS_BY_NAME)
with_origins = pytest.mark.parametrize("name", [name for name, projection in PROJECTIONS_BY_NAME.items() if projection.origin])
Damage = Callable[[Ledger, Generation], Awaitable[object]]


@pytest_asyncio.fixture
async def ledger(settings: Settings) -> AsyncIterator[Ledger]:
    async with open_ledger(settings) as opened:
        yield opened


async def built(ledger: Ledger, name: str, book: Book) -> tuple[Generations, GenerationBuild]:
    """Builds a live generation, and one beside it at the same position."""
    await ledger.append([*book.history(EVENTS), *book.seldom()])
    await ledger.build(name)
    generations = ledger.generations(name)
    build = generations.resume(await generations.open_new())
    while await build.advance_far():
        pass
    return generations, build


async def compare(generations: Generations, build: GenerationBuild) -> Comparison:
    comparing = GenerationComparer(generations.projection, generations.sink, generations.feed, build.generation)
    return await comparing.compare((await generations.read_pointer()).live)


@pytest.mark.slow
@each_model
async def test_a_right_generation_is_found_equal_to_the_log_and_to_the_one_before(ledger: Ledger, name: str) -> None:
    generations, build = await built(ledger, name, Book())
    found = await compare(generations, build)
    assert found.before
    assert (found.count > 0, found.before.compared > 0, found.before.differing) == (True, True, [])
    assert found.sampled > 0 or not PROJECTIONS_BY_NAME[name].origin


async def first_name(generations: Generations, generation: Generation) -> str:
    return (await generations.sink.sample(generation, 1))[0]


async def change(ledger: Ledger, generations: Generations, generation: Generation) -> None:
    """Damages one field of one document or key."""
    name = await first_name(generations, generation)
    field = "status" if generation.model.name in {"users", "accounts", "balances"} else "currency"
    if generation.model.store == "mongo":
        await StoredDocuments(ledger.stores.mongo, generation).set({field: "wrong"}, {"_id": name})
    else:
        await ledger.stores.redis.hset(generation.key(name), field, "wrong")  # type: ignore[misc]


async def lose(ledger: Ledger, generations: Generations, generation: Generation) -> None:
    name = await first_name(generations, generation)
    if generation.model.store == "mongo":
        await StoredDocuments(ledger.stores.mongo, generation).delete(name)
    else:
        await ledger.stores.redis.delete(generation.key(name))


async def add(ledger: Ledger, _generations: Generations, generation: Generation) -> None:
    """Adds a document or key that no event made."""
    if generation.model.store == "mongo":
        await StoredDocuments(ledger.stores.mongo, generation).insert({"_id": "nobody", "position": 1})
    else:
        await ledger.stores.redis.hset(generation.key("account:nobody"), "position", "1")  # type: ignore[misc]


@pytest.mark.slow
@with_origins
@pytest.mark.parametrize("damage", [lose, add])
async def test_a_missing_or_an_extra_document_is_found(ledger: Ledger, name: str, damage: Any) -> None:
    """Also of entries, although some events make one entry and others of the same type make two."""
    generations, build = await built(ledger, name, Book())
    await damage(ledger, generations, build.generation)
    with pytest.raises(GenerationMismatch, match="number of documents"):
        await compare(generations, build)


@pytest.mark.slow
@with_origins
async def test_a_wrong_generation_never_becomes_live_and_is_dropped(ledger: Ledger, name: str) -> None:
    """All documents are wrong, so that any sample shows it."""
    generations, build = await built(ledger, name, Book())
    wrong = "status" if name in {"users", "accounts", "balances"} else "currency"
    for each in await generations.sink.sample(build.generation, 10_000):
        if build.generation.model.store == "mongo":
            await StoredDocuments(ledger.stores.mongo, build.generation).set({wrong: "?"}, {"_id": each})
        else:
            await ledger.stores.redis.hset(build.generation.key(each), wrong, "?")  # type: ignore[misc]
    with pytest.raises(GenerationMismatch, match="no reader will see it"):
        await generations.finish(build)
    pointer = await generations.read_pointer()
    assert (pointer.live, pointer.building, await generations.sink.numbers(PROJECTIONS_BY_NAME[name].model, "main")) == (
        1,
        None,
        {1},
    )
    await ledger.rebuild(name)
    assert (await ledger.live(name)).number == 2


@pytest.mark.slow
@with_origins
async def test_a_wrong_live_generation_is_reported_and_replaced(ledger: Ledger, name: str) -> None:
    generations, build = await built(ledger, name, Book())
    live = await ledger.live(name)
    await change(ledger, generations, live)
    code, out, err = await daybook(ledger.settings, "projections", "rebuild", name).ended()
    assert code == 0, err
    assert "was wrong, and the new one matches the log" in out
    assert (await ledger.live(name)).number == build.generation.number


@pytest.mark.slow
@each_model
async def test_a_generation_of_other_code_may_differ_from_the_one_before_and_the_difference_is_shown(
    ledger: Ledger, name: str
) -> None:
    generations, build = await built(ledger, name, Book())
    live = await ledger.live(name)
    if live.model.store == "mongo":
        await ledger.stores.mongo.checkpoints.update_one({"_id": f"main/{name}/1"}, {"$set": {"model_version": 99}})
        await StoredDocuments(ledger.stores.mongo, live).set({"more": 1})
    else:
        await ledger.stores.redis.hset(live.key("origin"), "model_version", "99")  # type: ignore[misc]
        await ledger.stores.redis.delete(*[live.key(each) for each in await generations.sink.sample(live, 10_000)])
    found = await compare(generations, build)
    assert found.before
    assert (found.before.version, len(found.before.differing)) == (99, found.before.compared)


@pytest.mark.parametrize("name", ["statistics", "activity"])
async def test_a_read_model_that_depends_on_the_whole_log_is_compared_with_all_of_it(ledger: Ledger, name: str) -> None:
    _, build = await built(ledger, name, Book())
    key = build.generation.key("transfers" if name == "statistics" else "recent")
    if name == "statistics":
        await ledger.stores.redis.hincrby(key, "2020-02-29", 1)  # type: ignore[misc]
    else:
        await ledger.stores.redis.lpop(key)  # type: ignore[misc]
    code, _, err = await daybook(ledger.settings, "projections", "rebuild", name).ended()
    assert (code, "does not match the log" in err) == (1, True)
    assert (await ledger.live(name)).number == 1


async def test_with_verify_one_wrong_document_among_all_is_found(ledger: Ledger) -> None:
    generations, build = await built(ledger, "entries", Book())
    await change(ledger, generations, build.generation)
    code, _, err = await daybook(ledger.settings, "projections", "rebuild", "entries", "--verify").ended()
    assert (code, "does not match the log" in err) == (1, True)
    code, out, err = await daybook(ledger.settings, "projections", "rebuild", "entries", "--verify").ended()
    last = json.loads(err.splitlines()[-1])
    read = 2 * (EVENTS + len(Book().seldom()))
    assert (code, last["done"], last["total"]) == (0, read, read), out + err


@pytest.mark.slow
async def test_generations_are_compared_while_both_move_on(ledger: Ledger) -> None:
    """Nothing stands still, and no right document is taken for wrong."""
    book = Book(seed=4)
    head = await ledger.append(book.history(EVENTS))
    async with ledger.followed():
        await ledger.caught_up(head)
        for _ in range(3):
            for name in PROJECTIONS_BY_NAME:
                await ledger.append(book.history(20))
                generations = ledger.generations(name)
                build = generations.resume(await generations.open_new())
                await build.advance(EVENTS // 2)
                await ledger.append(book.history(20))
                # One in the middle of its way, beside a live one that is ahead and goes on.
                found = await compare(generations, build)
                assert found.before
                assert not found.before.differing
        assert not await ledger.troubles()


def wrong_project(changes: Any, recorded: RecordedEvent, event: Any) -> None:
    """A projection that is no function of the log: its result depends on how many events come at once."""
    PROJECTIONS_BY_NAME["accounts"].project(changes, recorded, event)
    account_id = getattr(event, "account_id", None) or getattr(event, "from_account_id", None)
    if account_id:
        changes.change(account_id, {"posted": len(changes)}, {})


async def test_a_worker_reports_a_wrong_build_and_readers_keep_the_live_generation(ledger: Ledger) -> None:
    book = Book()
    await ledger.append(book.history(EVENTS))
    await ledger.build("accounts")
    accounts = PROJECTIONS_BY_NAME["accounts"]
    model = msgspec.structs.replace(accounts.model, version=accounts.model.version + 1)
    newer: Projection[Any] = msgspec.structs.replace(accounts, model=model, project=wrong_project)

    async def told() -> bool:
        trouble = (await ledger.troubles()).get("accounts")
        return trouble is not None and "does not match the log" in trouble.cause

    async with ledger.followed(newer):
        await eventually(told)
    assert (await ledger.live("accounts")).number == 1


async def test_a_rebuild_prints_what_it_was_compared_with(ledger: Ledger) -> None:
    await ledger.append(Book().history(EVENTS))
    with pytest.raises(Rebuilding):
        await ledger.live("accounts")
    first = (await rebuild(ledger.generations("accounts"), lambda _: None)).comparison
    second = (await rebuild(ledger.generations("accounts"), lambda _: None)).comparison
    assert first
    assert second
    assert second.before
    assert (first.before, second.before.number, len(PROJECTIONS)) == (None, 1, len(PROJECTIONS_BY_NAME))


async def test_a_person_who_is_erased_after_the_position_of_a_generation_does_not_make_it_wrong(ledger: Ledger) -> None:
    """The log cannot tell any more what the document says of the person. All else of it is still compared."""
    book = Book()
    ada = book.create_user()
    await ledger.append([ada, book.change_user(ada.user_id, "Ada", number="4711")])
    await ledger.build("users")
    generations = ledger.generations("users")
    build = generations.resume(await generations.open_new())
    while await build.advance_far():
        pass
    await ledger.append([book.erase_user(ada.user_id)])
    assert (await compare(generations, build)).sampled == 1
    await change(ledger, generations, build.generation)
    with pytest.raises(GenerationMismatch, match="status"):
        await compare(generations, build)
