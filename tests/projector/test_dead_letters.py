"""An event that cannot be applied parks its streams only. It is kept, and an operator can retry or skip it."""

import getpass
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import msgspec
import pytest
import pytest_asyncio

from projector.dead_letters import DeadLetterFilter, DeadLetterTracker
from projector.projections.projection import Projection
from projector.projections.registry import PROJECTIONS, PROJECTIONS_BY_NAME
from projector.sinks.protocols import StepDeadLetters
from projector.verify.difference import DifferenceFound
from projector.verify.read_models import verify_read_model
from shared.log.events import RecordedEvent
from shared.log.heads import read_head
from shared.log.money_events import FundsDeposited
from shared.log.projection_events import ProjectionEventSkipped
from shared.log.read import read_all
from shared.log.streams import account_stream, user_stream
from shared.log.user_events import UserChanged
from shared.read_models.dead_letters import (
    DeadLetter,
    DeadLetterSummary,
    read_dead_letter_summary,
    read_dead_letters,
    read_parked_streams,
)
from shared.settings import Settings
from tests.harness.documents import StoredDocuments
from tests.harness.log import Book, recorded
from tests.harness.projecting import Ledger, eventually, open_ledger
from tests.harness.terminals import daybook

services = pytest.mark.services
both_stores = pytest.mark.parametrize("name", ["accounts", "balances"])


@pytest_asyncio.fixture
async def ledger(settings: Settings) -> AsyncIterator[Ledger]:
    async with open_ledger(settings) as opened:
        yield opened


class Poison:
    """A projection that cannot take certain events until `positions` is cleared. Records each attempt."""

    def __init__(self, name: str, *positions: int, act: Callable[[Any, RecordedEvent], None] | None = None) -> None:
        self.positions = set(positions)
        self.asked: list[int] = []
        self._act = act or self._raise
        self._real: Any = PROJECTIONS_BY_NAME[name]
        self.projection: Projection[Any] = msgspec.structs.replace(self._real, project=self._project)

    def _project(self, changes: Any, event: RecordedEvent, fact: Any) -> None:
        if event.position in self.positions:
            self.asked.append(event.position)
            self._act(changes, event)
        self._real.project(changes, event, fact)

    def _raise(self, _: Any, event: RecordedEvent) -> None:
        raise RuntimeError(f"Ada Lovelace, {event.position}")


class Three:
    """Accounts A, B and C with 100 each: events 1 to 7. Then, to be poisoned, a deposit to A: event 8."""

    POISON = 8

    def __init__(self) -> None:
        self.book = Book()
        user = self.book.create_user()
        opened = [self.book.open_account(user.user_id) for _ in range(3)]
        self.a, self.b, self.c = (each.account_id for each in opened)
        self.events: list[Any] = [user, *opened, *(self.book.deposit(each, 100) for each in (self.a, self.b, self.c))]
        self.events.append(self.book.deposit(self.a, 1))

    def go_on(self) -> list[Any]:
        """More events. The transfer parks B as well, and C never meets A or B."""
        return [
            self.book.deposit(self.c, 5),
            self.book.deposit(self.a, 2),
            self.book.transfer(self.a, self.b, 3),
            self.book.deposit(self.b, 4),
            self.book.deposit(self.c, 6),
        ]


async def posted(ledger: Ledger, name: str) -> dict[str, int]:
    live = await ledger.live(name)
    if name == "accounts":
        return {each["_id"]: each["posted"] for each in await StoredDocuments(ledger.stores.mongo, live).all()}
    redis: Any = ledger.stores.redis
    keys = [key async for key in redis.scan_iter(match=live.key("account:*").replace("{", "\\{"))]
    return {key.rpartition(":")[2]: int(await redis.hget(key, "posted")) for key in keys}


async def letters(ledger: Ledger, name: str) -> list[DeadLetter]:
    return await read_dead_letters(ledger.stores.mongo, ledger.stores.redis, await ledger.live(name))


async def aside(ledger: Ledger, name: str) -> DeadLetterSummary:
    return await read_dead_letter_summary(ledger.stores.mongo, ledger.stores.redis, await ledger.live(name))


def others(name: str) -> list[Projection[Any]]:
    return [projection for projection in PROJECTIONS if projection.name != name]


# ── what is left out ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_stream_is_folded_up_to_its_dead_letter_and_parks_the_streams_it_meets() -> None:
    three = Three()
    events = recorded([*three.events, *three.go_on()])
    tracker, added = DeadLetterTracker(letters={Three.POISON}), StepDeadLetters()
    folded = tracker.sift(PROJECTIONS_BY_NAME["accounts"], events, added)
    # Event 1 is the user's, which `accounts` does not handle.
    assert [event.position for event in folded] == [2, 3, 4, 5, 6, 7, 9, 13]
    assert added.parked == {account_stream(three.a): 8, account_stream(three.b): 11}
    assert added.put_aside == 3


def test_parked_streams_do_not_depend_on_how_the_log_is_cut_into_batches() -> None:
    three = Three()
    events = recorded([*three.events, *three.go_on(), *three.go_on()])
    for size in (1, 2, 3, 7, len(events)):
        tracker, folded = DeadLetterTracker(letters={Three.POISON}), []
        parked: dict[str, int] = {}
        for start in range(0, len(events), size):
            added = StepDeadLetters()
            folded += tracker.sift(PROJECTIONS_BY_NAME["accounts"], events[start : start + size], added)
            tracker.settle(added)
            parked |= added.parked
        assert [event.position for event in folded] == [2, 3, 4, 5, 6, 7, 9, 13, 14, 18]
        assert parked == {account_stream(three.a): 8, account_stream(three.b): 11}


def test_a_skip_leaves_out_one_event_and_parks_nothing() -> None:
    three = Three()
    events = recorded([*three.events, *three.go_on()])
    added = StepDeadLetters()
    folded = DeadLetterTracker(skips=frozenset({Three.POISON})).sift(PROJECTIONS_BY_NAME["accounts"], events, added)
    assert [event.position for event in folded] == [p for p in range(2, 14) if p != Three.POISON]
    assert (added.skipped, added.parked) == ([Three.POISON], {})


# ── parking ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@services
@both_stores
async def test_only_the_streams_of_the_poison_are_parked(ledger: Ledger, name: str) -> None:
    three, poison = Three(), Poison(name, Three.POISON)
    async with ledger.followed(poison.projection, *others(name)):
        await ledger.caught_up(await ledger.append(three.events))
        head = await ledger.append(three.go_on())
        await ledger.caught_up(head)
        await eventually(lambda: no_failures(ledger))
    # A and B are before the first event that was left out. C has all of its events.
    assert await posted(ledger, name) == {three.a: 100, three.b: 100, three.c: 111}
    assert await aside(ledger, name) == DeadLetterSummary(letters=1, parked=2, put_aside=3)
    [letter] = await letters(ledger, name)
    assert (letter.position, letter.type, letter.attempts) == (Three.POISON, "FundsDeposited", 5)
    assert account_stream(three.a) in letter.streams
    assert letter.cause.startswith("RuntimeError in _raise, test_dead_letters.py line ")
    parked = await read_parked_streams(ledger.stores.mongo, ledger.stores.redis, await ledger.live(name))
    assert parked == {account_stream(three.a): 8, account_stream(three.b): 11}
    for projection in others(name):
        assert await aside(ledger, projection.name) == DeadLetterSummary()


async def no_failures(ledger: Ledger) -> bool:
    return not await ledger.troubles()


@pytest.mark.slow
@services
@both_stores
async def test_a_parked_stream_stays_parked_for_later_workers(ledger: Ledger, name: str) -> None:
    three, poison = Three(), Poison(name, Three.POISON)
    async with ledger.followed(poison.projection):
        await ledger.caught_up(await ledger.append(three.events), name)
    poison.positions.clear()  # the code is mended, but the stream of A has a hole, so nothing more of it may be folded
    async with ledger.followed(poison.projection):
        await ledger.caught_up(await ledger.append(three.go_on()), name)
    assert await posted(ledger, name) == {three.a: 100, three.b: 100, three.c: 111}
    assert await aside(ledger, name) == DeadLetterSummary(letters=1, parked=2, put_aside=3)


@services
async def test_an_event_is_tried_as_often_as_the_settings_say_and_a_known_cause_only_once(ledger: Ledger) -> None:
    three, poison = Three(), Poison("accounts", Three.POISON, Three.POISON + 1)
    settings = ledger.settings.model_copy(update={"projector_attempts_max": 3})
    head = await ledger.append([*three.events, *three.go_on()])
    async with ledger.followed(poison.projection, settings=settings):
        await ledger.caught_up(head, "accounts")
    found = await letters(ledger, "accounts")
    # Event 9 is a deposit too, to C. It fails for a known cause, so it is not tried again.
    assert [(letter.position, letter.attempts) for letter in found] == [(8, 3), (9, 1)]


@services
async def test_many_poisoned_events_in_one_batch_are_all_found(ledger: Ledger) -> None:
    book = Book(seed=5)
    events = list(book.history(400))
    changes = [place for place, event in enumerate(events, 1) if isinstance(event, UserChanged)]
    deposits = [place for place, event in enumerate(events, 1) if isinstance(event, FundsDeposited)][10:20:3]
    poison = Poison("statistics", *changes[:2], *deposits)
    head = await ledger.append(events)
    async with ledger.followed(poison.projection):
        await ledger.caught_up(head, "statistics")
    found = {letter.position for letter in await letters(ledger, "statistics")}
    assert found
    tracker, added = DeadLetterTracker(letters=found), StepDeadLetters()
    folded = {event.position for event in tracker.sift(poison.projection, recorded(events), added)}
    # An event that was not folded is a dead letter or stands behind one.
    assert not folded & poison.positions
    assert found <= poison.positions


@services
async def test_beyond_the_bound_of_dead_letters_the_read_model_stops_and_reports_it(ledger: Ledger) -> None:
    three, poison = Three(), Poison("accounts", Three.POISON, Three.POISON + 1)
    settings = ledger.settings.model_copy(update={"projector_attempts_max": 2, "projector_dead_letters_max": 1})
    await ledger.append(three.events[:-1])
    await ledger.build()
    head = await ledger.append([three.events[-1], *three.go_on()])
    async with ledger.followed(poison.projection, *others("accounts"), settings=settings):
        await ledger.caught_up(head, *(each.name for each in others("accounts")))
        await eventually(lambda: reports(ledger, "accounts", "no more dead letters are allowed (there are 1)"))
        assert await ledger.positions() == {"accounts": 8} | {each.name: head for each in others("accounts")}


async def reports(ledger: Ledger, name: str, what: str) -> bool:
    failure = (await ledger.troubles()).get(name)
    return failure is not None and what in failure.cause


def _account_id(event: RecordedEvent) -> str:
    return cast("FundsDeposited", event.event).account_id


def _too_large(changes: Any, event: RecordedEvent) -> None:
    changes.change(_account_id(event), {"note": "x" * 17_000_000}, {})


def _not_an_integer_of_8_bytes(changes: Any, event: RecordedEvent) -> None:
    changes.change(_account_id(event), {"note": 2**63}, {})


def _a_second_time(changes: Any, _: RecordedEvent) -> None:
    changes.insert("00000000-0000-0000-0000-000000000001", {})
    changes.insert("00000000-0000-0000-0000-000000000001", {})


def _of_nobody(changes: Any, _: RecordedEvent) -> None:
    changes.change("nobody", {"status": "open"}, {})


def _to_a_text(changes: Any, event: RecordedEvent) -> None:
    changes.set(f"account:{_account_id(event)}", {"note": "none"})
    changes.count(f"account:{_account_id(event)}", {"note": 1})


def _to_a_key_of_another_kind(changes: Any, event: RecordedEvent) -> None:
    changes.push(f"account:{_account_id(event)}", "a list?", 3)


@pytest.mark.slow
@services
@pytest.mark.parametrize(
    ("name", "act"),
    [
        ("accounts", _too_large),
        ("accounts", _not_an_integer_of_8_bytes),
        ("accounts", _a_second_time),
        ("accounts", _of_nobody),
        ("balances", _to_a_text),
        ("balances", _to_a_key_of_another_kind),
    ],
)
async def test_an_event_that_a_store_cannot_take_becomes_a_dead_letter_too(ledger: Ledger, name: str, act: Any) -> None:
    three, poison = Three(), Poison(name, Three.POISON, act=act)
    settings = ledger.settings.model_copy(update={"projector_attempts_max": 2})
    head = await ledger.append([*three.events, *three.go_on()])
    async with ledger.followed(poison.projection, settings=settings):
        await ledger.caught_up(head, name)
    assert await posted(ledger, name) == {three.a: 100, three.b: 100, three.c: 111}
    assert [letter.position for letter in await letters(ledger, name)] == [Three.POISON]


@pytest.mark.parametrize("letters", [{8}, {8, 9}, {2}, {11}])
def test_the_filter_leaves_out_the_same_events_one_by_one(letters: set[int]) -> None:
    three = Three()
    events = recorded([*three.events, *three.go_on(), *three.go_on()])
    tracker, added = DeadLetterTracker(letters=letters, skips=frozenset({14})), StepDeadLetters()
    folded = tracker.sift(PROJECTIONS_BY_NAME["accounts"], events, added)
    left_out = DeadLetterFilter(
        DeadLetterSummary(len(letters), len(added.parked), added.put_aside, frozenset(added.skipped)),
        [DeadLetter(position, "", "", [], "", 1, "") for position in letters],
        added.parked,
    )
    handled = [event for event in events if type(event.event) in PROJECTIONS_BY_NAME["accounts"].handles]
    assert [event for event in handled if left_out.sift(PROJECTIONS_BY_NAME["accounts"], [event])] == folded


# ── verifying ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@services
@pytest.mark.parametrize("name", list(PROJECTIONS_BY_NAME))
async def test_a_read_model_with_dead_letters_verifies_against_the_rest_of_the_log(ledger: Ledger, name: str) -> None:
    book = Book(seed=6)
    events = [*book.history(300), *book.seldom()]
    handled = [place for place, event in enumerate(events, 1) if type(event) in PROJECTIONS_BY_NAME[name].handles]
    poison = Poison(name, handled[len(handled) // 2], handled[len(handled) // 2 + 3])
    head = await ledger.append(events)
    async with ledger.followed(poison.projection):
        await ledger.caught_up(head, name)
    feed = ledger.generations(name).feed
    verified = await verify_read_model(ledger.stores, PROJECTIONS_BY_NAME[name], feed, lambda _: None)
    assert verified.position == head
    assert verified.aside.letters
    await damage(ledger, name)
    with pytest.raises(DifferenceFound):
        await verify_read_model(ledger.stores, PROJECTIONS_BY_NAME[name], feed, lambda _: None)


async def damage(ledger: Ledger, name: str) -> None:
    live = await ledger.live(name)
    if PROJECTIONS_BY_NAME[name].model.store == "mongo":
        documents = StoredDocuments(ledger.stores.mongo, live)
        await documents.delete((await documents.one())["_id"])
    else:
        names = sorted(await ledger.generations(name).sink.sample(live, 1))
        await ledger.stores.redis.delete(live.key(names[0]))


# ── erasure ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@services
async def test_a_parked_user_who_is_erased_is_erased_here_too(ledger: Ledger) -> None:
    book = Book()
    ada, eve = book.create_user("Ada"), book.create_user("Eve")
    poison = Poison("users", 3)
    async with ledger.followed(poison.projection):
        await ledger.caught_up(await ledger.append([ada, eve, book.change_user(ada.user_id, "Countess")]), "users")
        await ledger.caught_up(await ledger.append([book.erase_user(ada.user_id)]), "users")
    live = await ledger.live("users")
    found = {each["_id"]: each["name"] for each in await StoredDocuments(ledger.stores.mongo, live).all()}
    assert found == {ada.user_id: "", eve.user_id: "Eve"}
    assert await aside(ledger, "users") == DeadLetterSummary(letters=1, parked=1)
    assert user_stream(ada.user_id) in (await letters(ledger, "users"))[0].streams


# ── what an operator does about it ───────────────────────────────────────────────────────────────────────────────────


async def done(ledger: Ledger, *arguments: str) -> str:
    code, out, err = await daybook(ledger.settings, "dead-letters", *arguments).ended()
    assert code == 0, out + err
    return out


async def refused(ledger: Ledger, *arguments: str) -> tuple[int, str]:
    code, out, err = await daybook(ledger.settings, *arguments).ended()
    assert code != 0, out + err
    return code, out + err


async def poisoned(ledger: Ledger, name: str) -> Three:
    """Makes a dead letter of the event at `Three.POISON`. The code that the test runs next can apply it."""
    three, poison = Three(), Poison(name, Three.POISON)
    head = await ledger.append([*three.events, *three.go_on()])
    async with ledger.followed(poison.projection, *others(name)):
        await ledger.caught_up(head)
    return three


@pytest.mark.slow
@services
@both_stores
async def test_dead_letters_are_listed_shown_and_retried_once_the_code_is_mended(ledger: Ledger, name: str) -> None:
    three = await poisoned(ledger, name)
    [held] = json.loads(await done(ledger, "list", "--json"))
    assert (held["projection"], held["letter"]["position"]) == (name, Three.POISON)
    assert (held["parked_streams"], held["put_aside"]) == (2, 3)
    assert "FundsDeposited" in await done(ledger, "list")
    shown = json.loads(await done(ledger, "show", name, str(Three.POISON), "--json"))
    assert shown["event"]["data"]["amount"] == 1
    assert shown["metadata"] == {"principal": "test"}

    assert (await refused(ledger, "verify"))[0] == 4
    head = 13
    assert await done(ledger, "retry", name) == f"{name}: every event up to {head} is applied\n"
    assert await aside(ledger, name) == DeadLetterSummary()
    assert await posted(ledger, name) == {three.a: 100, three.b: 107, three.c: 111}
    assert await ledger.digests() == await ledger.rebuilt()
    assert "no dead letters" in await done(ledger, "list")
    assert "no dead letters" in (await refused(ledger, "dead-letters", "retry", name))[1]


@pytest.mark.slow
@services
async def test_a_retry_that_fails_changes_nothing_and_reports_what_failed(ledger: Ledger) -> None:
    """Even the real code cannot apply a deposit to an account that was never opened."""
    book = Book()
    user = book.create_user()
    ghost, real = book.open_account(user.user_id), book.open_account(user.user_id)
    await ledger.append([user, real])
    await ledger.build()
    head = await ledger.append([book.deposit(ghost.account_id, 1), book.deposit(real.account_id, 2)])
    async with ledger.followed():
        await ledger.caught_up(head)
    before = await ledger.live("accounts")
    code, said = await refused(ledger, "dead-letters", "retry", "accounts")
    assert code == 1
    assert "event 3 (FundsDeposited" in said
    assert "nothing has changed" in said
    assert (await ledger.live("accounts")).number == before.number
    assert await posted(ledger, "accounts") == {real.account_id: 2}
    # A second retry does no harm either, and the worker goes on beside what it has built.
    await refused(ledger, "dead-letters", "retry", "accounts")
    async with ledger.followed():
        await ledger.caught_up(await ledger.append([book.deposit(real.account_id, 5)]))
    assert await posted(ledger, "accounts") == {real.account_id: 7}


@pytest.mark.slow
@services
@pytest.mark.parametrize("name", ["accounts", "balances", "activity"])
async def test_a_skip_is_an_event_and_every_rebuild_leaves_the_same_out(ledger: Ledger, name: str) -> None:
    await poisoned(ledger, name)
    reason = "ticket 4711: was entered twice"
    assert "up to 14" in await done(ledger, "skip", name, str(Three.POISON), "--reason", reason)
    assert await aside(ledger, name) == DeadLetterSummary(skipped=frozenset({Three.POISON}))
    async with ledger.stores.engine.connect() as connection:
        [recorded_skip] = await read_all(connection, "main", 13)
    assert recorded_skip.event == ProjectionEventSkipped(projection=name, position=Three.POISON, reason=reason)
    assert recorded_skip.metadata["principal"] == f"operator:{getpass.getuser()}"
    # Neither a worker with the old code nor one with the new code changes anything, and rebuilds by both agree.
    poison = Poison(name, Three.POISON)
    async with ledger.followed(poison.projection, *others(name)):
        await ledger.caught_up(14)
    assert not poison.asked
    live = await ledger.digests()
    for projection in (poison.projection, PROJECTIONS_BY_NAME[name]):
        await ledger.wipe()
        async with ledger.followed(projection, *others(name)):
            await ledger.caught_up(14)
        assert await ledger.digests() == live
    code, out, err = await daybook(ledger.settings, "verify").ended()
    assert code == 0, out + err


@services
async def test_the_events_behind_a_skipped_one_are_applied(ledger: Ledger) -> None:
    three = await poisoned(ledger, "accounts")
    await done(ledger, "skip", "accounts", str(Three.POISON), "--reason", "a test")
    # Events carry balances, so only the version shows that one event is missing.
    assert await posted(ledger, "accounts") == {three.a: 100, three.b: 107, three.c: 111}
    live = await ledger.live("accounts")
    assert (await StoredDocuments(ledger.stores.mongo, live).one({"_id": three.a}))["version"] == 4


@services
async def test_a_worker_carries_out_a_skip_whose_command_was_interrupted(ledger: Ledger) -> None:
    three = await poisoned(ledger, "balances")
    skip = ProjectionEventSkipped(projection="balances", position=Three.POISON, reason="as if the command was killed here")
    head = await ledger.append([skip])
    async with ledger.followed(Poison("balances", Three.POISON).projection):
        await eventually(lambda: is_skipped(ledger, "balances"))
        await ledger.caught_up(head, "balances")
    assert await posted(ledger, "balances") == {three.a: 100, three.b: 107, three.c: 111}


async def is_skipped(ledger: Ledger, name: str) -> bool:
    return await aside(ledger, name) == DeadLetterSummary(skipped=frozenset({Three.POISON}))


@services
async def test_an_event_that_stops_a_read_model_can_be_skipped(ledger: Ledger) -> None:
    three, poison = Three(), Poison("balances", Three.POISON)
    settings = ledger.settings.model_copy(update={"projector_attempts_max": 2, "projector_dead_letters_max": 0})
    await ledger.append(three.events[:-1])
    await ledger.build("balances")
    await ledger.append([three.events[-1], *three.go_on()])
    async with ledger.followed(poison.projection, settings=settings):
        await eventually(lambda: reports(ledger, "balances", "event 8 (FundsDeposited"))
        await done(ledger, "skip", "balances", str(Three.POISON), "--reason", "a test")
        await ledger.caught_up(14, "balances")
    assert await posted(ledger, "balances") == {three.a: 100, three.b: 107, three.c: 111}
    assert await aside(ledger, "balances") == DeadLetterSummary(skipped=frozenset({Three.POISON}))


@services
async def test_only_a_dead_letter_can_be_skipped(ledger: Ledger) -> None:
    await poisoned(ledger, "balances")
    for wrong in (("balances", "9"), ("accounts", "8")):
        code, said = await refused(ledger, "dead-letters", "skip", *wrong, "--reason", "a mistake")
        assert (code, "no dead letter at" in said) == (2, True)
    code, said = await refused(ledger, "dead-letters", "skip", "balances", "8", "--reason", " ")
    assert (code, "140 printable" in said) == (2, True)
    async with ledger.stores.engine.connect() as connection:
        assert (await read_head(connection, "main")).position == 13
