"""The query API as a test meets it: the real app on real stores, with the real projector behind it."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from sqlalchemy.ext.asyncio import AsyncEngine

from projector.runner import Runner
from query_api.app import create_app
from shared.connections import Stores, open_postgres, open_stores
from shared.events import Event
from shared.read_models import WAKE_CHANNEL
from shared.settings import Settings
from tests import log
from tests.clients import client_of


class Questions:
    """Appends events to the log and asks the query API, which reads what the projector made of them."""

    def __init__(self, client: httpx2.AsyncClient, writer: AsyncEngine, stores: Stores) -> None:
        self.client = client
        self.writer = writer
        self.stores = stores
        self.position = 0

    async def record(self, events: Iterable[Event], ledger_id: str = "main") -> int:
        """From then on, `ask` waits for them."""
        position = await log.append(self.writer, events, ledger_id)
        await self.stores.redis.publish(WAKE_CHANNEL, ledger_id)
        if ledger_id == "main":
            self.position = position
        return position

    async def ask(self, path: str, parameters: Any = None, **headers: str) -> httpx2.Response:
        """Sees what `record` recorded. Header names with underscores."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        defaults = {"daybook-min-position": str(self.position), "prefer": "wait=10, handling=strict"}
        return await self.client.get(path, params=parameters, headers=defaults | named)

    async def get(self, path: str, parameters: Any = None, **headers: str) -> Any:
        """The body of a 200."""
        answer = await self.ask(path, parameters, **headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def pages(self, path: str, parameters: dict[str, Any]) -> list[list[Any]]:
        """All pages of a list."""
        pages = []
        cursor: dict[str, str] = {}
        while True:
            body = await self.get(path, parameters | cursor)
            pages.append(body["items"])
            if body["next"] is None:
                return pages
            cursor = {"cursor": body["next"]}


@asynccontextmanager
async def query_api(settings: Settings) -> AsyncIterator[Questions]:
    """Without a projector."""
    async with (
        open_postgres(settings, "daybook_command") as writer,
        open_stores(settings, "daybook_projector") as stores,
        client_of(create_app(settings)) as client,
    ):
        yield Questions(client, writer, stores)


@asynccontextmanager
async def projecting(questions: Questions, settings: Settings) -> AsyncIterator[None]:
    """The projector follows the log meanwhile."""
    runner = Runner(*questions.stores, settings)
    running = asyncio.create_task(runner.run())
    try:
        yield
    finally:
        runner.stop()
        await running
