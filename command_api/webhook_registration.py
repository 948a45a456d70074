"""Registers, changes and deletes webhooks. These acts are not in the ledger's log; they have audit records.

The URL is checked here, so that a mistake is told at once, and again by the worker before each delivery.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from command_api.webhook_bodies import NewWebhook, WebhookChanges
from shared.errors import IdTaken, NotFound
from shared.identity import audit_records
from shared.identity.audit_records import Act, ActCaller
from shared.ids import new_id
from shared.setting_values import read_networks
from shared.settings import Settings
from shared.webhook_errors import TooManyWebhooks
from shared.webhooks import addresses, store
from shared.webhooks.addresses import checked_address
from shared.webhooks.signatures import WebhookSecrets, new_secret, secret_text
from shared.webhooks.store import Webhook, WebhookPlace

TEST_TYPE = "WebhookTested"


class Webhooks:
    """The webhooks of all ledgers. A place names a webhook that may not exist; then the methods raise `NotFound`."""

    def __init__(self, engine: AsyncEngine, settings: Settings) -> None:
        self._engine = engine
        self._networks = read_networks(settings.webhook_networks)
        self._secrets = WebhookSecrets(settings)

    async def register(self, ledger_id: str, new: NewWebhook, caller: ActCaller) -> tuple[Webhook, str]:
        """Adds a webhook. Returns it with its secret, which nobody can read later.

        Raises:
            WebhookUrlRefused: Daybook may not send to this URL.
            IdTaken: the ledger has a webhook with this id.
            TooManyWebhooks: the ledger has `WEBHOOKS_MAX` already.
        """
        await checked_address(new.url, self._networks, addresses.resolve)
        place, secret = WebhookPlace(ledger_id, new.id), new_secret()
        wrapped = self._secrets.wrapped(ledger_id, new.id, secret)
        async with self._engine.begin() as connection:
            if await store.count_locked(connection, ledger_id) >= store.WEBHOOKS_MAX:
                raise TooManyWebhooks(limit=store.WEBHOOKS_MAX)
            if not await store.insert(connection, place, new.url, new.types, new.streams, wrapped, self._secrets.newest_id):
                raise IdTaken
            await _record(connection, place, "webhook-made", caller)
            return await _found(connection, place), secret_text(secret)

    async def change(self, place: WebhookPlace, changes: WebhookChanges, caller: ActCaller) -> Webhook:
        """Changes a webhook. One that is active afterwards goes on after its checkpoint, at once.

        Raises:
            WebhookUrlRefused: Daybook may not send to the new URL.
        """
        if changes.url is not None:
            await checked_address(changes.url, self._networks, addresses.resolve)
        async with self._engine.begin() as connection:
            before = await _found(connection, place)
            given: dict[str, Any] = {name: getattr(before, name) for name in ("url", "types", "streams", "status")}
            given |= {name: value for name, value in changes.model_dump().items() if value is not None}
            await store.change(connection, place, **given)
            await _record(connection, place, "webhook-changed", caller)
            return await _found(connection, place)

    async def delete(self, place: WebhookPlace, caller: ActCaller) -> None:
        """Deletes a webhook and the list of its deliveries."""
        async with self._engine.begin() as connection:
            if not await store.delete(connection, place):
                raise NotFound
            await _record(connection, place, "webhook-deleted", caller)

    async def rotate_secret(self, place: WebhookPlace, overlap_seconds: int, caller: ActCaller) -> tuple[str, datetime]:
        """Makes a new secret. Returns it, and when deliveries are no longer signed with the old one too."""
        secret = new_secret()
        wrapped = self._secrets.wrapped(place.ledger_id, place.webhook_id, secret)
        async with self._engine.begin() as connection:
            until = await store.rotate(connection, place, wrapped, self._secrets.newest_id, overlap_seconds)
            if until is None:
                raise NotFound
            await _record(connection, place, "webhook-secret-rotated", caller)
        return secret_text(secret), until

    async def test(self, place: WebhookPlace) -> str:
        """Asks the worker for a delivery that is about no event. Returns the id of the delivery."""
        delivery_id = new_id()
        async with self._existing(place) as connection:
            await store.request_delivery(connection, place, delivery_id, TEST_TYPE)
        return delivery_id

    async def repeat(self, place: WebhookPlace, delivery_id: str) -> None:
        """Asks the worker to send a delivery once more, with the same id."""
        async with self._existing(place) as connection:
            if not await store.repeat_delivery(connection, place, delivery_id):
                raise NotFound

    @asynccontextmanager
    async def _existing(self, place: WebhookPlace) -> AsyncIterator[AsyncConnection]:
        async with self._engine.begin() as connection:
            await _found(connection, place)
            yield connection


async def _found(connection: AsyncConnection, place: WebhookPlace) -> Webhook:
    webhook = await store.find(connection, place)
    if webhook is None:
        raise NotFound
    return webhook


async def _record(connection: AsyncConnection, place: WebhookPlace, act: Act, caller: ActCaller) -> None:
    """Records an act without the URL, which can contain a secret."""
    await audit_records.record(connection, place.ledger_id, act, {"webhook_id": place.webhook_id}, caller)
