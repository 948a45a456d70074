"""Runs `daybook projections` as an operator does, beside readers and writers."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterable

import msgspec
import pytest
import pytest_asyncio

from projector.generations.build import BUILD_EVENTS_MAX, OvertakenError
from projector.projections.registry import PROJECTIONS_BY_NAME
from projector.sinks.content_digest import digest
from query_api.progress import list_progress
from query_api.reading import Reader
from shared.errors import Rebuilding
from shared.read_models.generations import Generation
from shared.read_models.shapes import labelled
from shared.settings import Settings
from tests.harness.log import Book
from tests.harness.projecting import Ledger, eventually, open_ledger
from tests.harness.terminals import ForkedCommand, daybook

pytestmark = pytest.mark.services
both_stores = pytest.mark.parametrize("name", ["accounts", "balances"])


@pytest_asyncio.fixture
async def ledger(settings: Settings) -> AsyncIterator[Ledger]:
    async with open_ledger(settings) as opened:
        yield opened


async def done(ledger: Ledger, *arguments: str) -> str:
    code, out, err = await run(ledger, *arguments).ended()
    assert code == 0, out + err
    return out


def run(ledger: Ledger, *arguments: str) -> ForkedCommand:
    return daybook(ledger.settings, "projections", *arguments)


async def numbers(ledger: Ledger, name: str) -> set[int]:
    return await ledger.generations(name).sink.numbers(PROJECTIONS_BY_NAME[name].model, "main")


@pytest.mark.slow
@both_stores
async def test_a_rebuild_keeps_the_old_generation_and_a_rollback_makes_it_live_again(ledger: Ledger, name: str) -> None:
    book = Book()
    await ledger.append(book.history(200))
    await ledger.build(name)
    out = await done(ledger, "rebuild", name)
    assert "all content is equal" in out
    assert ((await ledger.live(name)).number, await numbers(ledger, name)) == (2, {1, 2})
    head = await ledger.append(book.history(50))
    await done(ledger, "rollback", name)
    live = await ledger.live(name)
    # It caught up before it became live, so that no reader goes back in time.
    assert (live.number, live.position) == (1, head)
    await done(ledger, "rollback", name)
    assert (await ledger.live(name)).number == 2
    assert "generation to roll back to" in (await again_after_prune(ledger, name))


async def again_after_prune(ledger: Ledger, name: str) -> str:
    assert await done(ledger, "prune", name) == f"{name} 1\n"
    assert await numbers(ledger, name) == {2}
    code, _, err = await run(ledger, "rollback", name).ended()
    assert code == 1
    return err


@pytest.mark.slow
@both_stores
async def test_readers_see_no_hole_and_never_go_back_while_it_is_rebuilt_and_rolled_back(ledger: Ledger, name: str) -> None:
    book = Book(seed=12)
    await ledger.append(book.history(2_000))
    async with ledger.followed(PROJECTIONS_BY_NAME[name]):
        await ledger.caught_up(2_000, name)
        enough = asyncio.Event()
        reading = asyncio.create_task(read_on(ledger, name, enough))
        for command in ("rebuild", "rollback", "rollback", "rebuild"):
            ended = asyncio.ensure_future(run(ledger, command, name).ended())
            while not ended.done():
                head = await ledger.append(book.history(10))
            code, out, err = await ended
            assert code == 0, out + err
        await ledger.caught_up(head, name)
        enough.set()
        await reading
    live = await digest(ledger.generations(name).sink, await ledger.live(name))
    await done(ledger, "rebuild", name)
    assert await digest(ledger.generations(name).sink, await ledger.live(name)) == live


async def read_on(ledger: Ledger, name: str, enough: asyncio.Event) -> None:
    position = 0
    while not enough.is_set():
        live = await live_now(ledger, name)
        assert live.position >= position, f"{live} after {position}"
        position = live.position
        await asyncio.sleep(0.002)


async def live_now(ledger: Ledger, name: str) -> Generation:
    try:
        return await ledger.live(name)
    except Rebuilding:
        # The switch came between the reads of the pointer and the checkpoint: read both again.
        return await ledger.live(name)


@pytest.mark.slow
@both_stores
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
async def test_a_rebuild_that_ends_early_goes_on_where_it_was(ledger: Ledger, name: str, how: signal.Signals) -> None:
    await ledger.append(Book().history(300))
    await ledger.build(name)
    unfinished = ledger.generations(name)
    build = unfinished.resume(await unfinished.open_new())
    await build.advance(100)
    broken = run(ledger, "rebuild", name)

    async def moved_on() -> bool:
        checkpoint = await unfinished.sink.read_checkpoint(build.generation)
        return checkpoint is None or checkpoint.position > 100

    await eventually(moved_on)
    broken.signal(how)
    await broken.ended()
    await done(ledger, "rebuild", name)
    assert (await ledger.live(name)).number >= build.generation.number
    assert await digest(unfinished.sink, await ledger.live(name)) == (await ledger.rebuild(name))[name]


async def test_a_dry_run_builds_nothing_and_says_what_would_be(ledger: Ledger) -> None:
    await ledger.append(Book().history(100))
    assert "no generation is live" in await done(ledger, "rebuild", "balances", "--dry-run")
    await ledger.build("balances")
    out = await done(ledger, "rebuild", "balances", "--dry-run")
    assert "balances: 100 events at " in out
    assert f"version {PROJECTIONS_BY_NAME['balances'].model.version}, the same as the live generation" in out
    assert await numbers(ledger, "balances") == {1}


@pytest.mark.slow
@both_stores
async def test_a_copy_as_of_the_past_is_what_a_rebuild_then_would_have_been_and_is_never_served(
    ledger: Ledger, name: str
) -> None:
    book = Book(seed=9)
    await ledger.append(book.history(120))
    await ledger.build(name)
    then = await digest(ledger.generations(name).sink, await ledger.live(name))
    await ledger.append(book.history(200))
    await ledger.build(name)
    out = await done(ledger, "rebuild", name, "--to", "120", "--into", "past")
    assert out == f"{name}@past 120 {then}\n"
    assert (await ledger.live(name)).number == 1
    code, out, _ = await run(ledger, "diff", name, "past", "live").ended()
    assert (code, f"{name}@past 1 (copy)" in out, "sampled differ" in out) == (1, True, True)
    assert await done(ledger, "rebuild", name, "--to", "60", "--into", "past")
    assert f"{name}@past" in await done(ledger, "list")
    assert await done(ledger, "prune", name) == f"{name}@past\n"
    sink = ledger.generations(name).sink
    assert await sink.numbers(labelled(PROJECTIONS_BY_NAME[name].model, "past"), "main") == set()


async def test_until_means_all_that_was_recorded_up_to_then(ledger: Ledger) -> None:
    await ledger.append(Book().history(30))
    code, _, err = await run(ledger, "rebuild", "balances", "--until", "2001-01-01T00:00:00Z", "--into", "early").ended()
    assert code == 0, err
    out = await done(ledger, "rebuild", "balances", "--until", "2999-01-01T00:00:00Z", "--into", "late")
    assert out.startswith("balances@late 30 ")


@pytest.mark.parametrize(
    "arguments",
    [("moons",), ("balances", "--to", "3"), ("balances", "--into", "x"), ("users", "--to", "3", "--into", "x")],
)
async def test_a_rebuild_with_wrong_arguments_is_rejected(ledger: Ledger, arguments: Iterable[str]) -> None:
    code, _, _ = await run(ledger, "rebuild", *arguments).ended()
    assert code == 2


async def test_nothing_is_kept_of_a_read_model_that_an_erasure_must_reach(ledger: Ledger) -> None:
    await ledger.append(Book().history(50))
    await ledger.build("users")
    await done(ledger, "rebuild", "users")
    assert await numbers(ledger, "users") == {2}
    code, _, err = await run(ledger, "rollback", "users").ended()
    assert (code, "daybook projections rebuild users" in err) == (1, True)


async def test_the_code_of_the_version_before_brings_back_what_is_not_kept_without_those_who_were_erased(ledger: Ledger) -> None:
    book = Book()
    ada = book.create_user("Ada")
    head = await ledger.append([ada, *book.history(50)])
    users = PROJECTIONS_BY_NAME["users"]
    newer = msgspec.structs.replace(users, model=msgspec.structs.replace(users.model, version=users.model.version + 1))
    async with ledger.followed(newer):
        await ledger.caught_up(head, "users")
    await ledger.append([book.erase_user(ada.user_id)])
    async with ledger.followed(users):
        await eventually(lambda: is_live(ledger, "users", 2))
    [erased] = (await ledger.generations("users").sink.pick(await ledger.live("users"), [ada.user_id])).values()
    assert (erased["status"], erased["name"], await numbers(ledger, "users")) == ("erased", "", {2})


@pytest.mark.slow
@both_stores
async def test_a_paused_read_model_stands_still_for_workers_and_rebuilds_until_it_is_resumed(ledger: Ledger, name: str) -> None:
    book = Book()
    others = tuple(other for other in PROJECTIONS_BY_NAME if other != name)
    async with ledger.followed():
        await ledger.caught_up(await ledger.append(book.history(40)))
        await done(ledger, "pause", name)
        head = await ledger.append(book.history(40))
        await ledger.caught_up(head, *others)
        assert (await ledger.live(name)).position == 40
        code, _, err = await run(ledger, "rebuild", name).ended()
        assert (code, f"daybook projections resume {name}" in err) == (1, True)
        assert "T" in (await status_rows(ledger))[name][4]
        assert await state_of(ledger, name) == ("paused", True)
        await done(ledger, "resume", name)
        await ledger.caught_up(head)
        assert await state_of(ledger, name) == ("live", False)


@both_stores
async def test_a_worker_cannot_write_a_generation_that_was_replaced(ledger: Ledger, name: str) -> None:
    """If a worker that slept through the switch could write, readers would never see the change, or see it after a rollback."""
    book = Book()
    await ledger.append(book.history(40))
    await ledger.build(name)
    asleep = ledger.generations(name)
    build = asleep.resume(await asleep.open())
    await ledger.rebuild(name)
    await ledger.append(book.history(10))
    with pytest.raises(OvertakenError):
        await build.advance(BUILD_EVENTS_MAX)
    checkpoint = await asleep.sink.read_checkpoint(build.generation)
    assert checkpoint is None or checkpoint.position == 40


@both_stores
async def test_a_generation_behind_the_live_one_does_not_become_live(ledger: Ledger, name: str) -> None:
    await ledger.append(Book().history(40))
    await ledger.build(name)
    generations = ledger.generations(name)
    build = generations.resume(await generations.open_new())
    await build.advance(30)
    assert not await generations.sink.switch(build.generation, await generations.read_pointer())
    assert ((await ledger.live(name)).number, (await ledger.live(name)).position) == (1, 40)
    await build.advance(10)
    assert await generations.sink.switch(build.generation, await generations.read_pointer())
    assert (await ledger.live(name)).number == 2


async def test_the_status_says_how_far_behind_and_what_is_being_built(ledger: Ledger) -> None:
    book = Book()
    await ledger.append(book.history(40))
    await ledger.build("balances", "accounts")
    head = await ledger.append(book.history(25))
    await ledger.build("accounts")
    unfinished = ledger.generations("accounts")
    await unfinished.resume(await unfinished.open_new()).advance(30)
    rows = await status_rows(ledger)
    assert list(rows) == list(PROJECTIONS_BY_NAME)
    assert rows["balances"][:3] == ["1", "40", str(head - 40)]
    assert float(rows["balances"][3]) > 0
    assert rows["accounts"] == ["1", str(head), "0", "0.0", "", f"generation 2: 30 of {head}"]
    assert rows["users"][:3] == ["none", "None", str(head)]


async def status_rows(ledger: Ledger) -> dict[str, list[str]]:
    """Read model → the cells of its row."""
    code, out, err = await daybook(ledger.settings, "projections", "status", more={"COLUMNS": "200"}).ended()
    assert code == 0, err
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in out.splitlines() if line.startswith("│")]
    return {name: cells for name, *cells in rows}


async def state_of(ledger: Ledger, name: str) -> tuple[str, bool]:
    """The state that `/v1/projections` shows, and whether its cause names the command that resumes the read model."""
    reader = Reader(ledger.stores.engine, ledger.stores.mongo, ledger.stores.redis, ledger.settings)
    _, items = await list_progress(reader, ledger.ledger_id)
    [item] = [item for item in items if item["name"] == name]
    return item["state"], f"projections resume {name}" in (item["cause"] or "")


@both_stores
async def test_a_batch_under_way_when_it_is_paused_is_refused(ledger: Ledger, name: str) -> None:
    book = Book()
    await ledger.append(book.history(40))
    await ledger.build(name)
    generations = ledger.generations(name)
    build = generations.resume(await generations.open())
    await ledger.append(book.history(10))
    await done(ledger, "pause", name)
    with pytest.raises(OvertakenError):
        await build.advance(BUILD_EVENTS_MAX)
    assert (await ledger.live(name)).position == 40


@both_stores
async def test_a_new_version_in_code_is_built_beside_the_old_one_which_is_served_meanwhile(ledger: Ledger, name: str) -> None:
    book = Book()
    await ledger.append(book.history(100))
    await ledger.build(name)
    model = PROJECTIONS_BY_NAME[name].model
    newer = msgspec.structs.replace(PROJECTIONS_BY_NAME[name], model=msgspec.structs.replace(model, version=model.version + 1))
    generations = ledger.generations(name, newer)
    opened = await generations.open()
    assert (opened.live, opened.generation.number, (await ledger.live(name)).number) == (False, 2, 1)
    async with ledger.followed(newer):
        await eventually(lambda: is_live(ledger, name, 2))
    code, _, err = await run(ledger, "rollback", name).ended()
    assert code == 0, err  # this process has the older code, so the older version becomes live again
    assert (await ledger.live(name)).number == 1


async def is_live(ledger: Ledger, name: str, number: int) -> bool:
    return (await live_now(ledger, name)).number == number
