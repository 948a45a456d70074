"""Questions to a store, all that there are in one round trip: who comes while others are answered goes with the next round.

It is to reading what group commit is to writing. A question that comes alone goes alone and at once; where many come together, a
round trip, and what the driver does for one, is shared by all of them.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")

Ask = Callable[[Sequence[Q]], Awaitable[Sequence[A | Exception]]]
"""Asks a store all of the questions; gives one answer to each, in their order, or what is wrong with that one."""


class Rounds(Generic[Q, A]):
    """Rounds of one kind of question. No answer is older than its question: it is asked after that came."""

    def __init__(self, ask: Ask[Q, A], questions_max: int) -> None:
        """`questions_max` in one round."""
        self._ask = ask
        self._questions_max = questions_max
        self._waiting: list[tuple[Q, asyncio.Future[A]]] = []
        self._going: asyncio.Task[None] | None = None

    def ask(self, question: Q) -> "asyncio.Future[A]":
        """Raises, when it is awaited, what the store raises."""
        answer: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, answer))
        if self._going is None:
            # A task begins after everything that is ready now, so whoever else asks in this turn of the loop is in its round.
            self._going = asyncio.create_task(self._go())
        return answer

    async def _go(self) -> None:
        try:
            while self._waiting:
                asked = self._waiting[: self._questions_max]
                del self._waiting[: self._questions_max]
                await self._round(asked)
        finally:
            self._going = None

    async def _round(self, asked: list[tuple[Q, "asyncio.Future[A]"]]) -> None:
        try:
            answers = await self._ask([question for question, _ in asked])
        except TimeoutError as error:
            # Who waited for this round is not made to wait for the same silence again.
            _fail([*asked, *self._waiting], error)
            self._waiting.clear()
        except Exception as error:  # noqa: BLE001 # it is those who asked that it is raised to
            _fail(asked, error)
        except asyncio.CancelledError:
            for _, future in (*asked, *self._waiting):
                future.cancel()
            raise
        else:
            for (_, future), answer in zip(asked, answers, strict=True):
                _settle(future, answer)


def _fail(asked: Sequence[tuple[Q, "asyncio.Future[A]"]], error: Exception) -> None:
    for _, future in asked:
        _settle(future, error)


def _settle(future: "asyncio.Future[A]", answer: A | Exception) -> None:
    """Who was cancelled meanwhile wants no answer any more."""
    if future.done():
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)
