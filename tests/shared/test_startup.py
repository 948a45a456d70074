"""How an app reports a start that fails."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.types import ASGIApp, Message

import command_api.app
import query_api.app
from shared.errors import SchemaMismatch
from shared.settings import Settings
from shared.web.startup import run_lifespan
from tests.harness.log import MASTER_KEY


async def messages_of(app: ASGIApp) -> list[Message]:
    """The messages that the app sends to a server that starts it and then stops it."""
    sent: list[Message] = []
    received = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive() -> Message:
        return received.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Any = {"type": "lifespan", "state": {}}
    await app(scope, receive, send)
    return sent


def app_that_starts_with(error: Exception | None) -> ASGIApp:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if error:
            raise error
        yield

    return partial(run_lifespan, FastAPI(lifespan=lifespan))


async def test_an_error_of_daybook_ends_the_start_with_one_line() -> None:
    [message] = await messages_of(app_that_starts_with(SchemaMismatch("the schema is missing")))
    assert message == {"type": "lifespan.startup.failed", "message": "daybook: the schema is missing"}


async def test_any_other_error_ends_the_start_with_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        await messages_of(app_that_starts_with(ZeroDivisionError("a mistake")))


async def test_a_start_that_succeeds_is_reported_as_it_is() -> None:
    sent = await messages_of(app_that_starts_with(None))
    assert [message["type"] for message in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


@pytest.mark.parametrize("create_app", [command_api.app.create_app, query_api.app.create_app])
async def test_both_apis_report_a_store_that_does_not_answer_in_one_line(create_app: Any) -> None:
    settings = Settings(
        database_url="postgresql://u:p@127.0.0.1:1/x",
        mongo_url="mongodb://127.0.0.1:1/",
        redis_url="redis://127.0.0.1:1/0",
        secret="a secret of the tests and of nothing else",
        master_keys=MASTER_KEY,
    )
    [message] = await messages_of(create_app(settings))
    assert message["message"].startswith("daybook: PostgreSQL does not answer")
    assert "\n" not in message["message"]
