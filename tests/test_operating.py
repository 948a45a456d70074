"""`daybook projections` as an operator runs it, beside readers and writers."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterable

import msgspec
import pytest
import pytest_asyncio

from projector.generations import BUILD_EVENTS_MAX, OvertakenError
from projector.sinks import digest
from query_api.progress import list_progress
from query_api.reading import Reader
from shared.errors import Rebuilding
from shared.read_models import Generation, labelled
from shared.settings import Settings
from tests.log import Book
from tests.projecting import BY_NAME, Ledger, eventually, open_ledger
from tests.test_replay import Run, daybook

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


def run(ledger: Ledger, *arguments: str) -> Run:
    return daybook(ledger.settings, "projections", *arguments)


async def numbers(ledger: Ledger, name: str) -> set[int]:
    return await ledger.generations(name).sink.numbers(BY_NAME[name].model, "main")


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
    # It has caught up before anybody sees it: no reader goes back in time.
    assert (live.number, live.position) == (1, head)
    await done(ledger, "rollback", name)
    assert (await ledger.live(name)).number == 2
    assert "generation to go back to" in (await again_after_prune(ledger, name))


async def again_after_prune(ledger: Ledger, name: str) -> str:
    assert await done(ledger, "prune", name) == f"{name} 1\n"
    assert await numbers(ledger, name) == {2}
    code, _, err = await run(ledger, "rollback", name).ended()
    assert code == 1
    return err


@both_stores
async def test_readers_see_no_hole_and_never_go_back_while_it_is_rebuilt_and_rolled_back(ledger: Ledger, name: str) -> None:
    book = Book(seed=12)
    await ledger.append(book.history(2_000))
    async with ledger.followed(BY_NAME[name]):
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
        # The pointer and the checkpoint were read one after the other, and the switch came between: look again.
        return await ledger.live(name)


@both_stores
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
async def test_a_rebuild_that_ends_early_goes_on_where_it_was(ledger: Ledger, name: str, how: signal.Signals) -> None:
    await ledger.append(Book().history(300))
    await ledger.build(name)
    unfinished = ledger.generations(name)
    copy = unfinished.copy(await unfinished.open_new())
    await copy.advance(100)
    broken = run(ledger, "rebuild", name)

    async def moved_on() -> bool:
        checkpoint = await unfinished.sink.read_checkpoint(copy.generation)
        return checkpoint is None or checkpoint.position > 100

    await eventually(moved_on)
    broken.process.send_signal(how)
    await broken.ended()
    await done(ledger, "rebuild", name)
    assert (await ledger.live(name)).number >= copy.generation.number
    assert await digest(unfinished.sink, await ledger.live(name)) == (await ledger.rebuild(name))[name]


async def test_a_dry_run_builds_nothing_and_says_what_would_be(ledger: Ledger) -> None:
    await ledger.append(Book().history(100))
    assert "there is none live" in await done(ledger, "rebuild", "balances", "--dry-run")
    await ledger.build("balances")
    out = await done(ledger, "rebuild", "balances", "--dry-run")
    assert "balances: 100 events at " in out
    assert "version 1, as the live one" in out
    assert await numbers(ledger, "balances") == {1}


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
    assert await sink.numbers(labelled(BY_NAME[name].model, "past"), "main") == set()


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
async def test_what_cannot_be_rebuilt_is_refused(ledger: Ledger, arguments: Iterable[str]) -> None:
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
    users = BY_NAME["users"]
    newer = msgspec.structs.replace(users, model=msgspec.structs.replace(users.model, version=2))
    async with ledger.followed(newer):
        await ledger.caught_up(head, "users")
    await ledger.append([book.erase_user(ada.user_id)])
    async with ledger.followed(users):
        await eventually(lambda: is_live(ledger, "users", 2))
    [erased] = (await ledger.generations("users").sink.pick(await ledger.live("users"), [ada.user_id])).values()
    assert (erased["status"], erased["name"], await numbers(ledger, "users")) == ("erased", "", {2})


@both_stores
async def test_a_paused_read_model_stands_still_for_workers_and_rebuilds_until_it_is_resumed(ledger: Ledger, name: str) -> None:
    book = Book()
    others = tuple(other for other in BY_NAME if other != name)
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


async def test_the_status_says_how_far_behind_and_what_is_being_built(ledger: Ledger) -> None:
    book = Book()
    await ledger.append(book.history(40))
    await ledger.build("balances", "accounts")
    head = await ledger.append(book.history(25))
    await ledger.build("accounts")
    unfinished = ledger.generations("accounts")
    await unfinished.copy(await unfinished.open_new()).advance(30)
    rows = await status_rows(ledger)
    assert list(rows) == list(BY_NAME)
    assert rows["balances"][:3] == ["1", "40", str(head - 40)]
    assert float(rows["balances"][3]) > 0
    assert rows["accounts"] == ["1", str(head), "0", "0.0", "", f"generation 2: 30 of {head}"]
    assert rows["users"][:3] == ["none", "None", str(head)]


async def status_rows(ledger: Ledger) -> dict[str, list[str]]:
    """Read model → what stands in its row."""
    code, out, err = await daybook(ledger.settings, "projections", "status", more={"COLUMNS": "200"}).ended()
    assert code == 0, err
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in out.splitlines() if line.startswith("│")]
    return {name: cells for name, *cells in rows}


async def state_of(ledger: Ledger, name: str) -> tuple[str, bool]:
    """What `/v1/projections` says, and whether it says how to go on."""
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
    copy = generations.copy(await generations.open())
    await ledger.append(book.history(10))
    await done(ledger, "pause", name)
    with pytest.raises(OvertakenError):
        await copy.advance(BUILD_EVENTS_MAX)
    assert (await ledger.live(name)).position == 40


@both_stores
async def test_a_new_version_in_code_is_built_beside_the_old_one_which_is_served_meanwhile(ledger: Ledger, name: str) -> None:
    book = Book()
    await ledger.append(book.history(100))
    await ledger.build(name)
    newer = msgspec.structs.replace(BY_NAME[name], model=msgspec.structs.replace(BY_NAME[name].model, version=2))
    generations = ledger.generations(name, newer)
    opened = await generations.open()
    assert (opened.live, opened.generation.number, (await ledger.live(name)).number) == (False, 2, 1)
    async with ledger.followed(newer):
        await eventually(lambda: is_live(ledger, name, 2))
    code, _, err = await run(ledger, "rollback", name).ended()
    assert code == 0, err  # by the code of version 1, that is: its worker goes on with what it knows
    assert (await ledger.live(name)).number == 1


async def is_live(ledger: Ledger, name: str, number: int) -> bool:
    return (await live_now(ledger, name)).number == number
