"""Questions that share a round trip: each gets its own answer, and nobody one that is older than the question."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import pytest

from shared.rounds import Rounds


class Store:
    """Answers when it is let. What it is asked at once stands in `rounds`."""

    def __init__(self) -> None:
        self.rounds: list[list[int]] = []
        self.moment = 0
        self.fails: Exception | None = None
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def ask(self, questions: Sequence[int]) -> list[tuple[int, int] | Exception]:
        """Question and moment; a negative one has an error of its own."""
        self.rounds.append(list(questions))
        moment, fails = self.moment, self.fails
        await self.may_answer.wait()
        if fails:
            raise fails
        return [ValueError(question) if question < 0 else (question, moment) for question in questions]


async def until_asked(store: Store, rounds: int) -> None:
    while len(store.rounds) < rounds:
        await asyncio.sleep(0)


async def test_who_asks_in_one_turn_shares_a_round_and_gets_the_own_answer() -> None:
    store = Store()
    rounds = Rounds(store.ask, 100)

    async def ask(question: int) -> tuple[int, int]:
        return await rounds.ask(question)

    answers = await asyncio.gather(*map(ask, range(50)))
    assert answers == [(question, 0) for question in range(50)]
    assert store.rounds == [list(range(50))]


async def test_a_round_has_a_limit() -> None:
    store = Store()
    rounds = Rounds(store.ask, 20)
    assert [await each for each in [rounds.ask(question) for question in range(50)]] == [(n, 0) for n in range(50)]
    assert [len(each) for each in store.rounds] == [20, 20, 10]


async def test_who_comes_while_a_round_is_under_way_is_asked_about_afterwards() -> None:
    """What the round under way finds was perhaps read before that question came: it may be older than what its caller wrote."""
    store = Store()
    rounds = Rounds(store.ask, 100)
    store.may_answer.clear()
    first = rounds.ask(1)
    await until_asked(store, 1)
    store.moment = 1
    same, other = rounds.ask(1), rounds.ask(2)
    store.may_answer.set()
    assert (await first, await same, await other) == ((1, 0), (1, 1), (2, 1))
    assert store.rounds == [[1], [1, 2]]


async def test_what_is_wrong_with_one_question_is_its_own_matter() -> None:
    rounds = Rounds(Store().ask, 100)
    good, bad, fine = (rounds.ask(question) for question in (1, -2, 3))
    assert (await good, await fine) == ((1, 0), (3, 0))
    with pytest.raises(ValueError, match="-2"):
        await bad


async def test_a_failed_round_fails_for_those_in_it_and_the_next_one_is_tried() -> None:
    store = Store()
    rounds = Rounds(store.ask, 100)
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


async def test_nobody_waits_for_the_silence_of_a_store_twice() -> None:
    store = Store()
    rounds = Rounds(store.ask, 100)
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


async def test_who_goes_away_takes_nobody_along() -> None:
    store = Store()
    rounds = Rounds(store.ask, 100)
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
