"""The routes `/livez`, `/readyz` and `/version`: if the process is alive, if it can serve requests, and its version."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from typing import Any, Final, TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.supervision import end_tasks, keep_running, task_health, tasks_in_words

T = TypeVar("T")

CHECK_SECONDS: Final = 1.0

LOOK_SECONDS: Final = 1.0
"""How long after an answer of the stores they are asked again."""
STALE_SECONDS: Final = 5.0
"""If the stores were not asked for this long, the process counts as not ready."""

StoreCheck = Callable[[], Awaitable[object]]
"""Sends a request to a store. Raises an error if the store does not answer."""

ReadinessNotes = Callable[[], Awaitable[Mapping[str, Any]]]
"""Returns members that `/readyz` adds to its answer when the app is ready, for operators."""


async def _no_notes() -> Mapping[str, Any]:
    return {}


class Readiness:
    """Knows if the stores that the app needs have answered lately.

    One task asks them. Nobody who asks `/readyz` causes work, so no stranger can take connections from callers by asking it.
    """

    def __init__(
        self,
        checks: Mapping[str, StoreCheck],
        notes: ReadinessNotes = _no_notes,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`checks` has a check for each store that the app needs. `notes` returns more members for the answer of `/readyz`.

        `clock` returns seconds.
        """
        self.is_ending = False
        """True from the moment when the process was told to end. It still serves requests, and should get no more of them."""
        self._clock = clock
        self._checks = checks
        self._notes = notes
        self._answers = dict.fromkeys(checks, False)
        self._is_noted = False
        self._noted: Mapping[str, Any] = {}
        self._looked_at = float("-inf")
        self._looking: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Asks the stores, and starts the task that asks them again and again."""
        await self.look()
        self._looking = keep_running("checks of readiness", self._look_again)

    async def look(self) -> None:
        answers = await asyncio.gather(*map(_answer, self._checks.values()))
        noted = await _answer(self._notes) if all(answers) else None
        # Without notes, a store has stopped answering after its check.
        self._answers = {name: answer is not None for name, answer in zip(self._checks, answers, strict=True)}
        self._noted = {} if noted is None else noted[0]
        self._is_noted = noted is not None
        self._looked_at = self._clock()

    def body(self) -> tuple[bool, dict[str, Any]]:
        """Returns if the app is ready, and the members of the answer of `/readyz`."""
        is_fresh = self._clock() - self._looked_at < STALE_SECONDS
        ready = is_fresh and self._is_noted and not self.is_ending
        body: dict[str, Any] = {
            "status": "ok" if ready else "ending" if self.is_ending else "unavailable",
            "stores": {name: "ok" if is_fresh and up else "unavailable" for name, up in self._answers.items()},
            "tasks": tasks_in_words(task_health()),
        }
        return ready, {**body, **self._noted} if ready else body

    async def close(self) -> None:
        if self._looking is not None:
            await end_tasks(self._looking)

    async def _look_again(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.look()


async def _answer(ask: Callable[[], Awaitable[T]]) -> tuple[T] | None:
    """Returns what `ask` returns, or None if it does not return in time."""
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return (await ask(),)
    except Exception:  # noqa: BLE001 # the store does not answer, for whatever reason
        return None


def health_router() -> APIRouter:
    """Returns the router of the health routes, which need no credential. The app's state must have a started `readiness`."""
    router = APIRouter(tags=["health"])

    @router.get("/livez")
    async def livez() -> dict[str, str]:
        """Report that the process serves requests. This does not ask the stores."""
        return {"status": "ok"}

    @router.get("/readyz", responses={503: {"description": "A store that the app needs does not answer, or the process ends."}})
    async def readyz(request: Request) -> JSONResponse:
        """Report for each store that the app needs if it answered within a second when it was asked last.

        The stores are asked every second, whether or not somebody asks for this. From SIGTERM on, the status is `ending`.
        """
        readiness: Readiness = request.state.readiness
        ready, body = readiness.body()
        return JSONResponse(body, 200 if ready else 503, None if ready else {"Retry-After": "1"})

    @router.get("/version")
    async def version_() -> dict[str, str]:
        """Get the version of Daybook."""
        return {"version": version("daybook")}

    return router


async def ask_postgres(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))


async def ask_redis(redis: "Redis") -> None:
    """Asks Redis, or one server of a cluster: if another one is away, only the queries that need it get no answer."""
    await redis.ping()
