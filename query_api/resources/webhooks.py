"""The webhooks of a ledger and their deliveries. Secrets are never shown: this process cannot even read them."""

from datetime import datetime
from typing import Annotated, Any, Final, Literal

from fastapi import Query, Response
from pydantic import Field

from query_api.cursors import CursorKey
from query_api.documentation import ANY_QUERY, LEDGER_HEADER, PAGE_HEADERS, documented
from query_api.lists import ListSlice
from query_api.parameters import PageParameters
from query_api.reading import AsOf, CallerView
from query_api.requests import QueryRequest, query_router
from query_api.responses import MOMENT, AsOfPosition, Page, ResponseModel, TimestampText, as_of, page_of
from shared.identity.access import only
from shared.input_types import Id
from shared.timestamps import timestamp
from shared.webhooks import store
from shared.webhooks.store import Delivery, Webhook, WebhookPlace

router = query_router()

READERS: Final = only("ops:admin")
LATEST_NUMBER: Final = 2**63 - 1


class WebhookResource(ResponseModel):
    """A webhook without its secret."""

    id: str
    url: str
    types: list[str]
    streams: list[str]
    status: Literal["active", "disabled"]
    notice: Annotated[str | None, Field(description="Why Daybook disabled the webhook.")]
    delivered_position: Annotated[
        int, Field(description="All events up to this position were delivered, or are none for this webhook.")
    ]
    failures: Annotated[int, Field(description="Attempts that failed since the last one that succeeded.")]
    failing_since: TimestampText | None
    next_attempt_at: TimestampText
    created_at: TimestampText
    old_secret_until: Annotated[TimestampText | None, Field(description="Until then, the old secret signs too.")]


class WebhookResponse(WebhookResource):
    position: AsOfPosition


class DeliveryResource(ResponseModel):
    """A delivery, and how its last attempt ended."""

    id: Annotated[str, Field(description="The header `webhook-id`: the id of the event, or the id of a test.")]
    event_position: Annotated[int | None, Field(description="null for a test.")]
    type: str
    status: Annotated[
        Literal["delivered", "retrying", "failed", "requested"],
        Field(description="`requested`: a test or a repetition that the worker has not sent yet."),
    ]
    attempts: int
    outcome: Annotated[str | None, Field(description="The status of the last answer, or what went wrong.")]
    changed_at: TimestampText


WEBHOOK_EXAMPLE: Final = {
    "id": "0198c5a0-0000-7000-8000-0000000000b1",
    "url": "https://example.com/daybook",
    "types": ["FundsDeposited"],
    "streams": [],
    "status": "disabled",
    "notice": "disabled at position 42, because it has failed for 259231 s; the last attempt ended with: 503",
    "delivered_position": 41,
    "failures": 23,
    "failing_since": MOMENT,
    "next_attempt_at": MOMENT,
    "created_at": MOMENT,
    "old_secret_until": MOMENT,
}
DELIVERY_EXAMPLE: Final = {
    "id": "0198c5a0-0000-7000-8000-0000000000c1",
    "event_position": 42,
    "type": "FundsDeposited",
    "status": "retrying",
    "attempts": 2,
    "outcome": "503",
    "changed_at": MOMENT,
}

WebhookId = Annotated[Id, Field(examples=["0198c5a0-0000-7000-8000-0000000000b1"])]


class WebhookParameters(PageParameters):
    pass


class DeliveryParameters(PageParameters):
    pass


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else timestamp(moment)


def _webhook_item(webhook: Webhook) -> dict[str, Any]:
    return {
        "id": webhook.id,
        "url": webhook.url,
        "types": webhook.types,
        "streams": webhook.streams,
        "status": webhook.status,
        "notice": webhook.notice,
        "delivered_position": webhook.position,
        "failures": webhook.failures,
        "failing_since": _moment(webhook.failing_since),
        "next_attempt_at": timestamp(webhook.next_attempt_at),
        "created_at": timestamp(webhook.created_at),
        "old_secret_until": _moment(webhook.old_secret_until),
    }


def _delivery_item(delivery: Delivery) -> dict[str, Any]:
    return {
        "id": delivery.id,
        "event_position": delivery.position,
        "type": delivery.type,
        "status": delivery.status,
        "attempts": delivery.attempts,
        "outcome": delivery.outcome,
        "changed_at": timestamp(delivery.changed_at),
    }


async def find_webhooks(view: CallerView, parameters: WebhookParameters, key: CursorKey | None) -> AsOf[ListSlice]:
    """Reads one page of webhooks, in the order of their ids."""
    position = await view.reader.require_ledger(view.ledger_id)
    async with view.reader.postgres.connect() as connection:
        found = await store.read(connection, view.ledger_id, str(key[0]) if key else "", parameters.limit + 1)
    page = found[: parameters.limit]
    next_key = [page[-1].id] if len(found) > parameters.limit else None
    return AsOf(position, ListSlice([_webhook_item(webhook) for webhook in page], next_key))


async def find_webhook(view: CallerView, webhook_id: str) -> AsOf[Any]:
    position = await view.reader.require_ledger(view.ledger_id)
    async with view.reader.postgres.connect() as connection:
        found = await store.find(connection, WebhookPlace(view.ledger_id, webhook_id))
    return AsOf(position, _webhook_item(found) if found else None)


async def find_deliveries(
    view: CallerView, webhook_id: str, parameters: DeliveryParameters, key: CursorKey | None
) -> AsOf[ListSlice | None]:
    """Reads one page of deliveries, newest first, or returns None if there is no such webhook."""
    position = await view.reader.require_ledger(view.ledger_id)
    before: Any = LATEST_NUMBER if key is None else key[0]
    place = WebhookPlace(view.ledger_id, webhook_id)
    async with view.reader.postgres.connect() as connection:
        if await store.find(connection, place) is None:
            return AsOf(position, None)
        found = await store.read_deliveries(connection, place, before, parameters.limit + 1)
    page = found[: parameters.limit]
    next_key = [page[-1].number] if len(found) > parameters.limit else None
    return AsOf(position, ListSlice([_delivery_item(delivery) for delivery in page], next_key))


@router.get(
    "/webhooks",
    tags=["webhooks"],
    **documented(
        Page[WebhookResource],
        page_of(WEBHOOK_EXAMPLE),
        *ANY_QUERY,
        "cursor-invalid",
        access=READERS,
        headers=[LEDGER_HEADER],
        response_headers=PAGE_HEADERS,
    ),
)
async def list_webhooks(request: QueryRequest, parameters: Annotated[WebhookParameters, Query()]) -> Response:
    """List the webhooks of the ledger."""
    return request.answer_page(await find_webhooks(request.view(), parameters, request.cursor_key(parameters)), parameters)


@router.get(
    "/webhooks/{webhook_id}",
    tags=["webhooks"],
    **documented(WebhookResponse, as_of(WEBHOOK_EXAMPLE), *ANY_QUERY, access=READERS, headers=[LEDGER_HEADER]),
)
async def get_webhook(request: QueryRequest, webhook_id: WebhookId) -> Response:
    """Get a webhook: how far it has come, whether it fails, and why it was disabled."""
    return request.answer_one(await find_webhook(request.view(), webhook_id))


@router.get(
    "/webhooks/{webhook_id}/deliveries",
    tags=["webhooks"],
    **documented(
        Page[DeliveryResource],
        page_of(DELIVERY_EXAMPLE),
        *ANY_QUERY,
        "cursor-invalid",
        access=READERS,
        headers=[LEDGER_HEADER],
        response_headers=PAGE_HEADERS,
    ),
)
async def list_deliveries(
    request: QueryRequest, webhook_id: WebhookId, parameters: Annotated[DeliveryParameters, Query()]
) -> Response:
    """List what was sent to a webhook in the last 30 days, newest first, with the outcome of each last attempt."""
    found = await find_deliveries(request.view(), webhook_id, parameters, request.cursor_key(parameters))
    return request.answer_page(found, parameters)
