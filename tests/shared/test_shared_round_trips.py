"""Questions that share a round trip: each gets its own answer, and no answer is older than its question."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import pytest

from shared.stores.shared_round_trips import SharedRoundTrips


class Store:
    """A store that answers when `may_answer` is set. Each element of `rounds` has the questions of one round trip."""

    def __init__(self) -> None:
        self.rounds: list[list[int]] = []
        self.moment = 0
        self.fails: Exception | None = None
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def ask(self, questions: Sequence[int]) -> list[tuple[int, int] | Exception]:
        """Answers each question with (question, moment). A negative question gets an error of its own."""
        self.rounds.append(list(questions))
        moment, fails = self.moment, self.fails
        await self.may_answer.wait()
        if fails:
            raise fails
        return [ValueError(question) if question < 0 else (question, moment) for question in questions]


async def until_asked(store: Store, rounds: int) -> None:
    while len(store.rounds) < rounds:
        await asyncio.sleep(0)


async def test_questions_of_one_turn_share_a_round_trip_and_each_gets_its_own_answer() -> None:
    store = Store()
    rounds = SharedRoundTrips(store.ask, 100)

    async def ask(question: int) -> tuple[int, int]:
        return await rounds.ask(question)

    answers = await asyncio.gather(*map(ask, range(50)))
    assert answers == [(question, 0) for question in range(50)]
    assert store.rounds == [list(range(50))]


async def test_a_round_trip_carries_a_limited_number_of_questions() -> None:
    store = Store()
    rounds = SharedRoundTrips(store.ask, 20)
    assert [await each for each in [rounds.ask(question) for question in range(50)]] == [(n, 0) for n in range(50)]
    assert [len(each) for each in store.rounds] == [20, 20, 10]


async def test_a_question_that_comes_during_a_round_trip_goes_with_the_next_one() -> None:
    """The round trip under way may have read the store before the question came, and so before what its caller wrote."""
    store = Store()
    rounds = SharedRoundTrips(store.ask, 100)
    store.may_answer.clear()
    first = rounds.ask(1)
    await until_asked(store, 1)
    store.moment = 1
    same, other = rounds.ask(1), rounds.ask(2)
    store.may_answer.set()
    assert (await first, await same, await other) == ((1, 0), (1, 1), (2, 1))
    assert store.rounds == [[1], [1, 2]]


async def test_the_error_of_one_question_does_not_touch_the_others() -> None:
    rounds = SharedRoundTrips(Store().ask, 100)
    good, bad, fine = (rounds.ask(question) for question in (1, -2, 3))
    assert (await good, await fine) == ((1, 0), (3, 0))
    with pytest.raises(ValueError, match="-2"):
        await bad


async def test_a_failed_round_trip_fails_its_questions_and_the_next_one_is_tried() -> None:
    store = Store()
    rounds = SharedRoundTrips(store.ask, 100)
    store.may_answer.clear()
    store.fails = ConnectionError()
    failing = [rounds.ask(1), rounds.ask(2)]
    await until_asked(store, 1)
    later, store.fails = rounds.ask(3), None
    store.may_answer.set()
    for each in failing:
        with pytest.raises(ConnectionError):
            await each
    assert await later == (3, 0)
    assert await rounds.ask(4) == (4, 0)


async def test_no_question_waits_twice_for_a_silent_store() -> None:
    store = Store()
    rounds = SharedRoundTrips(store.ask, 100)
    store.may_answer.clear()
    store.fails = TimeoutError()
    silent = rounds.ask(1)
    await until_asked(store, 1)
    waiting = rounds.ask(2)
    store.may_answer.set()
    for each in (silent, waiting):
        with pytest.raises(TimeoutError):
            await each
    assert store.rounds == [[1]]
    store.fails = None
    assert await rounds.ask(3) == (3, 0)


async def test_a_cancelled_question_does_not_cancel_the_others() -> None:
    store = Store()
    rounds = SharedRoundTrips(store.ask, 100)
    store.may_answer.clear()

    async def ask(question: int) -> tuple[int, int]:
        return await rounds.ask(question)

    going, staying = asyncio.create_task(ask(1)), asyncio.create_task(ask(2))
    await until_asked(store, 1)
    late = asyncio.create_task(ask(3))
    await asyncio.sleep(0)
    going.cancel()
    late.cancel()
    store.may_answer.set()
    assert await staying == (2, 0)
    for each in (going, late):
        with suppress(asyncio.CancelledError):
            await each
        assert each.cancelled()
