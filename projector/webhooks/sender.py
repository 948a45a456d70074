"""Sends the events of all ledgers to their webhooks, each webhook by a task of its own: a slow receiver delays only itself.

A task sends one event after another, in the order of the log, and moves the checkpoint after each that was accepted. If one is
not accepted, the next attempt is at `next_attempt_at`, with that same event. So a receiver gets every event at least once, and
never one before an earlier one was accepted. Only one worker sends: the one whose connection has the lock.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from projector.webhooks.delivery import Attempt, Deliverer, event_body, ping_body
from shared.backoff import backoff_seconds
from shared.log.read import StoredEvent, read_at, read_stored
from shared.setting_values import read_networks
from shared.settings import Settings
from shared.supervision import end_tasks
from shared.webhooks import addresses, store
from shared.webhooks.addresses import Resolve
from shared.webhooks.signatures import WebhookSecrets
from shared.webhooks.store import Delivery, Webhook, WebhookPlace

log = structlog.get_logger()

EVENTS_MAX: Final = 200
REQUESTED_MAX: Final = 20
RETRY_SECONDS: Final = (1.0, 6 * 3600.0)
FORGET_SECONDS: Final = 3600.0
CONNECTIONS_MAX: Final = 4
"""One has the lock. The others are used for a statement or two between deliveries, and never during one."""
SENDING_MAX: Final = 100
"""How many webhooks are served at once. A receiver that does not answer takes a place for `webhook_timeout_ms` at most."""


class WebhookSender:
    """Sends to all webhooks from `run` until it is cancelled. Needs `CONNECTIONS_MAX` connections of its own.

    So it waits for none that the followers of the log have, and they for none that it has.
    """

    def __init__(self, engine: AsyncEngine, settings: Settings, resolve: Resolve = addresses.resolve) -> None:
        self._engine = engine
        self._secrets = WebhookSecrets(settings)
        networks = read_networks(settings.webhook_networks)
        self._deliverer = Deliverer(networks, settings.webhook_timeout_ms / 1000, resolve)
        self._give_up_seconds = settings.webhook_give_up_seconds
        self._look_seconds = settings.projector_look_ms / 1000
        self._serving: dict[WebhookPlace, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Looks at regular intervals what is due. Raises the errors of PostgreSQL; then run it again."""
        alone = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        async with alone.connect() as connection:
            try:
                while not await store.lead(connection):  # noqa: ASYNC110 # another process has the lock
                    await asyncio.sleep(self._look_seconds)
                await self._serve_due(connection)
            finally:
                await end_tasks(*self._serving.values())
                self._serving.clear()
                # The pool would keep the connection, and with it the lock.
                await connection.invalidate()

    async def _serve_due(self, connection: AsyncConnection) -> None:
        loop = asyncio.get_running_loop()
        forget_at = loop.time()
        while True:
            if loop.time() >= forget_at:
                await store.forget_old_deliveries(connection)
                forget_at = loop.time() + FORGET_SECONDS
            for place in await store.read_due(connection):
                if place not in self._serving and len(self._serving) < SENDING_MAX:
                    task = self._serving[place] = asyncio.create_task(self._serve(place))
                    task.add_done_callback(partial(self._forget, place))
            await asyncio.sleep(self._look_seconds)

    def _forget(self, place: WebhookPlace, _: asyncio.Task[None]) -> None:
        self._serving.pop(place, None)

    async def _serve(self, place: WebhookPlace) -> None:
        """Sends what a webhook has to get, until it has everything or a delivery fails."""
        try:
            async with self._engine.connect() as connection:
                requested = await store.read_requested(connection, place, REQUESTED_MAX)
            for delivery in requested:
                await self._send_requested(place, delivery)
            while await self._send_some(place):
                pass
        except Exception as error:  # noqa: BLE001 # it must not end the others, and is tried again at the next look
            log.warning("a webhook is not served", ledger=place.ledger_id, webhook=place.webhook_id, error=type(error).__name__)

    async def _send_some(self, place: WebhookPlace) -> bool:
        """Sends the next events. Returns False if there is nothing more to do now."""
        async with self._engine.connect() as connection:
            webhook = await store.find_due(connection, place)
            if webhook is None:
                return False
            events = await read_stored(connection, place.ledger_id, webhook.position, EVENTS_MAX)
            if not events:
                return False
            wanted = await _wanted(connection, webhook, events)
        for event in wanted:
            attempt = await self._attempt(place, event.event_id, event_body(event))
            if attempt is None or not await self._settle(place, webhook, event, attempt):
                return False
        async with self._engine.begin() as connection:
            if not wanted or wanted[-1].position != events[-1].position:
                return await store.move(connection, place, events[-1].position)
        return True

    async def _attempt(self, place: WebhookPlace, delivery_id: str, body: bytes) -> Attempt | None:
        """Sends once, to the URL and with the secrets of this moment. Returns None if the webhook was deleted."""
        async with self._engine.connect() as connection:
            receiver = await store.read_receiver(connection, place)
        if receiver is None:
            return None
        stored = receiver.secrets
        wrapped = [(stored.secret, stored.master_key_id), (stored.old_secret, stored.old_master_key_id)]
        secrets = [self._secrets.unwrapped(place.ledger_id, place.webhook_id, each, key) for each, key in wrapped if each and key]
        return await self._deliverer.send(receiver.url, secrets, delivery_id, body, datetime.now(UTC))

    async def _settle(self, place: WebhookPlace, webhook: Webhook, event: StoredEvent, attempt: Attempt) -> bool:
        """Records an attempt and moves the checkpoint, or plans the next attempt. Returns True if the next event is due."""
        told = event.event_id, event.position, event.type
        async with self._engine.begin() as connection:
            if attempt.is_delivered:
                await store.record_attempt(connection, place, *told, "delivered", attempt.outcome)
                return await store.move(connection, place, event.position)
            failing_seconds = await store.postpone(connection, place, backoff_seconds(webhook.failures + 1, RETRY_SECONDS))
            gives_up = attempt.is_gone or failing_seconds >= self._give_up_seconds
            await store.record_attempt(connection, place, *told, "failed" if gives_up else "retrying", attempt.outcome)
            if gives_up:
                reason = "it wants no more" if attempt.is_gone else f"it has failed for {failing_seconds:.0f} s"
                notice = (
                    f"disabled at position {event.position}, because {reason}; the last attempt ended with: {attempt.outcome}"
                )
                await store.disable(connection, place, notice)
        if gives_up:
            log.error("a webhook is disabled", ledger=place.ledger_id, webhook=place.webhook_id, position=event.position)
        return False

    async def _send_requested(self, place: WebhookPlace, delivery: Delivery) -> None:
        """Sends a test, or an event once more. If it fails, it is not retried: whoever asked can ask again."""
        async with self._engine.connect() as connection:
            found = [] if delivery.position is None else await read_at(connection, place.ledger_id, [delivery.position])
        body = event_body(found[0]) if found else ping_body(place.ledger_id, delivery.changed_at)
        attempt = await self._attempt(place, delivery.id, body)
        if attempt is not None:
            status: store.DeliveryStatus = "delivered" if attempt.is_delivered else "failed"
            async with self._engine.begin() as connection:
                told = delivery.id, delivery.position, delivery.type
                await store.record_attempt(connection, place, *told, status, attempt.outcome)


async def _wanted(connection: AsyncConnection, webhook: Webhook, events: Sequence[StoredEvent]) -> list[StoredEvent]:
    """Returns those of the events that the webhook gets."""
    wanted = [event for event in events if not webhook.types or event.type in webhook.types]
    if wanted and webhook.streams:
        first, last = wanted[0], wanted[-1]
        inside = await store.positions_in_streams(connection, first.ledger_id, webhook.streams, first.position - 1, last.position)
        wanted = [event for event in wanted if event.position in inside]
    return wanted
