"""Runs `daybook replay` as an operator does: beside readers, interrupted, killed, twice at once, and on emptied stores."""

import asyncio
import io
import json
import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from cli.terminal_progress import TerminalProgress
from projector.generations.rebuild import rebuild
from projector.projections.registry import PROJECTIONS, PROJECTIONS_BY_NAME
from shared.errors import Rebuilding
from shared.settings import Settings
from tests.harness.log import Book
from tests.harness.projecting import Ledger, eventually, open_ledger
from tests.harness.terminals import daybook

pytestmark = pytest.mark.services

EVENTS = 6_000


@pytest_asyncio.fixture
async def ledger(settings: Settings) -> AsyncIterator[Ledger]:
    async with open_ledger(settings) as opened:
        yield opened


def digests_in(out: str) -> dict[str, str]:
    """Read model → digest, from the lines that the command prints."""
    return {name: digest for name, _, digest in (line.split() for line in out.splitlines())}


async def test_replay_makes_read_models_and_ends_with_a_digest_of_each(ledger: Ledger) -> None:
    await ledger.append(Book().history(500))
    code, out, err = await daybook(ledger.settings, "replay").ended()
    assert code == 0, err
    assert digests_in(out) == await ledger.digests()
    assert [line.split()[1] for line in out.splitlines()] == ["500"] * len(PROJECTIONS)


async def test_amounts_beyond_32_bits_are_digested_like_others(ledger: Ledger) -> None:
    """MongoDB's driver reads such integers as a type of its own."""
    book = Book()
    opened = book.open_account(book.create_user().user_id)
    await ledger.append([opened, book.deposit(opened.account_id, 2**53 - 1)])
    code, out, err = await daybook(ledger.settings, "replay").ended()
    assert code == 0, err
    assert digests_in(out) == await ledger.digests()
    code, out, err = await daybook(ledger.settings, "verify").ended()
    assert "accounts     ok  1" in out, out + err


async def test_replay_on_emptied_stores_gives_the_same_digests(ledger: Ledger) -> None:
    await ledger.append(Book().history(500))
    _, first, _ = await daybook(ledger.settings, "replay").ended()
    await ledger.wipe()
    _, second, _ = await daybook(ledger.settings, "replay").ended()
    assert first == second


async def test_only_the_read_models_that_are_named_are_rebuilt(ledger: Ledger) -> None:
    await ledger.append(Book().history(100))
    await ledger.build()
    code, out, _ = await daybook(ledger.settings, "replay", "users", "balances").ended()
    assert (code, list(digests_in(out))) == (0, ["users", "balances"])
    numbers = {name: (await ledger.live(name)).number for name in PROJECTIONS_BY_NAME}
    assert numbers == {name: 2 if name in {"users", "balances"} else 1 for name in PROJECTIONS_BY_NAME}


@pytest.mark.parametrize("arguments", [("replay", "moons"), ("replay", "--ledger", "nowhere")])
async def test_a_missing_read_model_or_ledger_ends_with_exit_code_2(ledger: Ledger, arguments: tuple[str, ...]) -> None:
    code, _, err = await daybook(ledger.settings, *arguments).ended()
    assert (code, arguments[-1] in err) == (2, True)


@pytest.mark.slow
async def test_progress_is_a_line_of_json_where_there_is_no_terminal(ledger: Ledger) -> None:
    await ledger.append(Book().history(EVENTS))
    _, _, err = await daybook(ledger.settings, "replay").ended()
    lines = [json.loads(line) for line in err.splitlines()]
    assert lines[-1]["done"] == lines[-1]["total"] == EVENTS
    assert {"events_per_second", "seconds_left"} <= lines[-1].keys()


def test_no_time_is_left_when_the_log_has_grown_beyond_the_total() -> None:
    written = io.StringIO()
    with TerminalProgress("verify", 10, "events", written) as progress:
        progress.advance(12)
    line = json.loads(written.getvalue())
    assert (line["done"], line["total"], line["seconds_left"]) == (12, 10, 0)


async def started(ledger: Ledger) -> bool:
    """True if a rebuild has written a batch."""
    return bool(await ledger.stores.mongo.checkpoints.find_one({"position": {"$gt": 0}}))


@pytest.mark.slow
async def test_an_interrupted_replay_says_so_and_goes_on_when_started_again(ledger: Ledger) -> None:
    await ledger.append(Book().history(EVENTS))
    expected = await ledger.rebuild()
    await ledger.wipe()
    run = daybook(ledger.settings, "replay")
    await eventually(lambda: started(ledger))
    run.signal(signal.SIGINT)
    code, _, err = await run.ended()
    assert (code, "interrupted" in err) == (130, True)
    code, out, err = await daybook(ledger.settings, "replay").ended()
    assert (code, digests_in(out)) == (0, expected), err


@pytest.mark.slow
async def test_a_replay_that_is_killed_again_and_again_ends_right(ledger: Ledger) -> None:
    await ledger.append(Book().history(EVENTS))
    expected = await ledger.rebuild()
    await ledger.wipe()
    for _ in range(3):
        run = daybook(ledger.settings, "replay")
        await eventually(lambda: started(ledger))
        run.signal(signal.SIGKILL)
        await run.ended()
    code, out, err = await daybook(ledger.settings, "replay").ended()
    assert (code, digests_in(out)) == (0, expected), err


async def test_a_generation_left_unfinished_is_gone_on_with(ledger: Ledger) -> None:
    await ledger.append(Book().history(100))
    await ledger.build("users")
    unfinished = ledger.generations("users")
    build = unfinished.resume(await unfinished.open_new())
    await build.advance(40)
    positions: list[int] = []
    await rebuild(ledger.generations("users"), positions.append)
    assert (positions, (await ledger.live("users")).number) == ([40, 100], build.generation.number)


@pytest.mark.slow
async def test_two_replays_at_once_beside_a_projector_while_events_come_in(ledger: Ledger) -> None:
    book = Book(seed=31)
    head = await ledger.append(book.history(2_000))
    async with ledger.followed():
        await ledger.caught_up(head)
        runs = [daybook(ledger.settings, "replay").ended() for _ in range(2)]
        replays = asyncio.gather(*runs)
        while not replays.done():
            head = await ledger.append(book.history(20))
            await readers_see_a_read_model(ledger)
        for code, _, err in await replays:
            assert code == 0, err
        await ledger.caught_up(head)
    assert (await ledger.live("users")).number > 1
    assert await ledger.digests() == await ledger.rebuilt()


async def readers_see_a_read_model(ledger: Ledger) -> None:
    """Checks that every read model can be read now. `caught_up` checks that none goes back."""
    for name in PROJECTIONS_BY_NAME:
        try:
            await ledger.live(name)
        except Rebuilding:
            # The switch came between the reads of the pointer and the checkpoint: read both again.
            await ledger.live(name)


@pytest.mark.slow
async def test_a_replay_without_a_store_says_so_in_one_line(settings: Settings) -> None:
    lost = settings.model_copy(update={"mongo_url": "mongodb://127.0.0.1:1", "mongo_timeout_ms": 100})
    code, _, err = await daybook(lost, "replay", "users").ended()
    assert (code, err.splitlines()[-1][:8], "MongoDB does not answer" in err) == (69, "daybook:", True)
    assert "Traceback" not in err
