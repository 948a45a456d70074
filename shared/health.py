"""`/livez`, `/readyz` and `/version`: whether the process lives, whether it can work, and what it is."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

CHECK_SECONDS: Final = 1.0

Check = Callable[[], Awaitable[object]]
"""Asks a store something; raises if it does not answer."""

Notes = Callable[[Request], Awaitable[Mapping[str, Any]]]
"""What else an operator should know of an app that is ready."""


async def _no_notes(_: Request) -> Mapping[str, Any]:
    return {}


def health_router(checks: Callable[[Request], Mapping[str, Check]], notes: Notes = _no_notes) -> APIRouter:
    """Routes that need no credential. `checks` names what the app cannot work without, by store."""
    router = APIRouter(tags=["health"])

    @router.get("/livez")
    async def livez() -> dict[str, str]:
        """Whether the process serves requests. Asks no store."""
        return {"status": "ok"}

    @router.get("/readyz", responses={503: {"description": "A store that is needed does not answer."}})
    async def readyz(request: Request) -> JSONResponse:
        """Whether every store that is needed answers, each within a second."""
        stores = checks(request)
        answers = await asyncio.gather(*map(_answers, stores.values()))
        ready = all(answers)
        body: dict[str, Any] = {
            "status": "ok" if ready else "unavailable",
            "stores": {name: "ok" if up else "unavailable" for name, up in zip(stores, answers, strict=True)},
        }
        if ready:
            body |= await notes(request)
        return JSONResponse(body, 200 if ready else 503, None if ready else {"Retry-After": "1"})

    @router.get("/version")
    async def version_() -> dict[str, str]:
        """Which Daybook this is."""
        return {"version": version("daybook")}

    return router


async def _answers(check: Check) -> bool:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await check()
    except Exception:  # noqa: BLE001 # whatever the reason, it does not answer
        return False
    return True


async def ask_postgres(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))


async def ask_redis(redis: "Redis") -> None:
    await redis.ping()
