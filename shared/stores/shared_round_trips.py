"""Sends all waiting questions to a store in one round trip. Questions that arrive during a round trip wait for the next one.

This does for reads what group commit does for writes. A single question is sent immediately. Questions that arrive together
share a round trip and the driver's work for it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")

Ask = Callable[[Sequence[Q]], Awaitable[Sequence[A | Exception]]]
"""A function that sends questions to a store. It returns, in the order of the questions, an answer or an error for each."""


class SharedRoundTrips(Generic[Q, A]):
    """Round trips for one kind of question. An answer is never older than its question: each question is sent after `ask`."""

    def __init__(self, ask: Ask[Q, A], questions_max: int) -> None:
        """Creates the object. `ask` sends one round trip, which carries up to `questions_max` questions."""
        self._ask = ask
        self._questions_max = questions_max
        self._waiting: list[tuple[Q, asyncio.Future[A]]] = []
        self._going: asyncio.Task[None] | None = None

    def ask(self, question: Q) -> "asyncio.Future[A]":
        """Adds a question and returns the future of its answer. Awaiting the future raises the store's error, if any."""
        answer: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, answer))
        if self._going is None:
            # The event loop starts a new task after everything that is ready now, so all questions until then share a round trip.
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
            # Questions that waited during this round trip fail too, so that they do not wait for a second timeout.
            _fail([*asked, *self._waiting], error)
            self._waiting.clear()
        except Exception as error:  # noqa: BLE001 # raised where the answers are awaited
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
    """Sets the result or the error of a question's future. Does nothing if the question was cancelled in the meantime."""
    if future.done():
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)
