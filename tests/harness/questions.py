"""A client for tests of the query API. The real app runs on real stores, which the real projector fills."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import httpx2
from sqlalchemy.ext.asyncio import AsyncEngine

from projector.runner import Runner
from query_api.app import create_app
from shared.log.events import Event
from shared.read_models.channels import WAKE_CHANNEL
from shared.settings import Settings
from shared.stores.all_stores import Stores, open_stores
from shared.stores.postgres import open_postgres
from shared.tracing import open_traces
from tests.harness import log
from tests.harness.clients import client_of, served


class Questions:
    """Appends events to the log, and sends queries to the query API, which reads the projector's read models."""

    def __init__(self, client: httpx2.AsyncClient, writer: AsyncEngine, stores: Stores) -> None:
        self.client = client
        self.writer = writer
        self.stores = stores
        self.position = 0

    async def record(self, events: Iterable[Event], ledger_id: str = "main") -> int:
        """Appends events. Later calls of `ask` wait until the read models show them."""
        position = await log.append(self.writer, events, ledger_id)
        await self.stores.redis.publish(WAKE_CHANNEL, ledger_id)
        if ledger_id == "main":
            self.position = position
        return position

    async def ask(self, path: str, parameters: Any = None, **headers: str) -> httpx2.Response:
        """Sends a query that waits for all events of `record`. Header names have underscores for hyphens."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        defaults = {"daybook-min-position": str(self.position), "prefer": "wait=10, handling=strict"}
        return await self.client.get(path, params=parameters, headers=defaults | named)

    async def get(self, path: str, parameters: Any = None, **headers: str) -> Any:
        """Sends a query, checks that the status is 200, and returns the body."""
        answer = await served(partial(self.ask, path, parameters, **headers))
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def pages(self, path: str, parameters: dict[str, Any]) -> list[list[Any]]:
        """Returns the items of a list, page by page."""
        pages = []
        cursor: dict[str, str] = {}
        while True:
            body = await self.get(path, parameters | cursor)
            pages.append(body["items"])
            if body["next"] is None:
                return pages
            cursor = {"cursor": body["next"]}


@asynccontextmanager
async def query_api(settings: Settings, *, is_patient: bool = True) -> AsyncIterator[Questions]:
    """Starts the query API without a projector."""
    async with (
        open_postgres(settings, "daybook_command") as writer,
        open_stores(settings, "daybook_projector") as stores,
        client_of(create_app(settings), is_patient=is_patient) as client,
    ):
        yield Questions(client, writer, stores)


@asynccontextmanager
async def projecting(questions: Questions, settings: Settings) -> AsyncIterator[None]:
    """Runs the projector until the block ends."""
    async with open_traces(settings, "worker") as traces:
        runner = Runner(questions.stores, settings, traces=traces)
        running = asyncio.create_task(runner.run())
        try:
            yield
        finally:
            runner.stop()
            await running
