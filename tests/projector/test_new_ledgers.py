"""A new ledger can be read soon after its first event, because the worker is told of it and does not find it by looking."""

import asyncio

import pytest

from command_api.app import create_app
from projector.runner import Runner
from query_api.app import create_app as create_query_app
from shared.identity.access import ALL_LEDGERS
from shared.settings import Settings
from shared.stores.all_stores import open_stores
from tests.harness.clients import client_of
from tests.harness.keys import add_key, bearer

pytestmark = pytest.mark.services

READ_MODELS = ("/v1/users", "/v1/accounts", "/v1/transfers", "/v1/holds", "/v1/activity", "/v1/stats")


async def test_a_message_wakes_the_worker_and_every_read_model_of_a_new_ledger_answers(settings: Settings) -> None:
    """A worker that only looks would find the ledger after an hour."""
    seldom = settings.model_copy(update={"projector_look_ms": 3_600_000})
    landlord = bearer(await add_key(settings.database_url, "landlord", ledger_id=ALL_LEDGERS, scopes=["ops:admin"]))
    tenant = bearer(await add_key(settings.database_url, "tenant", ledger_id="acme"))
    async with (
        client_of(create_app(settings), "") as commands,
        client_of(create_query_app(settings), "") as queries,
        open_stores(settings, "daybook_projector") as stores,
    ):
        runner = Runner(stores, seldom)
        running = asyncio.create_task(runner.run())
        while (await queries.get("/v1/users", headers=bearer())).status_code != 200:
            await asyncio.sleep(0.05)  # the worker has looked once, at its start
        made = await commands.post("/v1/ledgers", json={"id": "acme"}, headers=landlord)
        assert made.status_code == 201, made.text
        user = await commands.post("/v1/users", json={"name": "Ada", "email": "ada@example.com"}, headers=tenant)
        fresh = tenant | {"daybook-min-position": user.headers["daybook-position"], "prefer": "wait=60, handling=strict"}
        for path in READ_MODELS:
            while (answer := await queries.get(path, headers=fresh)).status_code == 503:
                await asyncio.sleep(0.05)
            assert answer.status_code == 200, f"{path}: {answer.text}"
        assert [each["name"] for each in (await queries.get("/v1/users", headers=fresh)).json()["items"]] == ["Ada"]
        runner.stop()
        await running
