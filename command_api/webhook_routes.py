"""The routes that register, change, test and delete webhooks. They record no events."""

from typing import Any, Final

from fastapi import APIRouter, Response

from command_api.documentation import BODY_PROBLEMS, documented_login
from command_api.requests import CommandRoute, HttpRequest
from command_api.webhook_bodies import (
    NewWebhook,
    NewWebhookBody,
    RequestedDeliveryBody,
    RotatedSecretBody,
    SecretRotation,
    WebhookBody,
    WebhookChanges,
    rotated_secret_body,
    webhook_body,
)
from shared.identity.access import only
from shared.identity.audit_records import ActCaller
from shared.input_types import Id
from shared.webhooks.store import WebhookPlace

webhook_router = APIRouter(prefix="/v1", route_class=CommandRoute)

_WRITERS: Final = only("ops:admin")


def _documented(*problems: str) -> dict[str, Any]:
    return documented_login(*problems, access=_WRITERS)


def _caller(request: HttpRequest) -> ActCaller:
    return ActCaller.of_request(request.principal, request.state.address, request.state.request_id)


@webhook_router.post(
    "/webhooks",
    status_code=201,
    response_model=NewWebhookBody,
    **_documented("webhook-url-refused", "id-taken", "too-many-webhooks", *BODY_PROBLEMS),
)
async def register_webhook(webhook: NewWebhook, request: HttpRequest) -> Response:
    """Register a webhook: the worker sends it each event from now on, signed as Standard Webhooks defines."""
    made, secret = await request.state.webhooks.register(request.ledger_id(), webhook, _caller(request))
    response = request.secret_response(webhook_body(made) | {"secret": secret})
    response.status_code = 201
    response.headers["Location"] = f"{request.state.settings.query_url}/v1/webhooks/{made.id}"
    return response


@webhook_router.patch("/webhooks/{webhook_id}", response_model=WebhookBody, **_documented("webhook-url-refused", *BODY_PROBLEMS))
async def change_webhook(webhook_id: Id, changes: WebhookChanges, request: HttpRequest) -> Response:
    """Change a webhook, stop it, or enable it again. It goes on after the last event that was delivered."""
    place = WebhookPlace(request.ledger_id(), webhook_id)
    return request.json_response(webhook_body(await request.state.webhooks.change(place, changes, _caller(request))))


@webhook_router.delete("/webhooks/{webhook_id}", status_code=204, **_documented())
async def delete_webhook(webhook_id: Id, request: HttpRequest) -> Response:
    """Delete a webhook and the list of its deliveries."""
    await request.state.webhooks.delete(WebhookPlace(request.ledger_id(), webhook_id), _caller(request))
    return Response(status_code=204)


@webhook_router.post("/webhooks/{webhook_id}/rotate-secret", response_model=RotatedSecretBody, **_documented(*BODY_PROBLEMS))
async def rotate_webhook_secret(webhook_id: Id, rotation: SecretRotation, request: HttpRequest) -> Response:
    """Make a new secret. For some time, deliveries have a signature by the new one and a signature by the old one."""
    place = WebhookPlace(request.ledger_id(), webhook_id)
    secret, until = await request.state.webhooks.rotate_secret(place, rotation.overlap_seconds, _caller(request))
    return request.secret_response(rotated_secret_body(webhook_id, secret, until))


@webhook_router.post("/webhooks/{webhook_id}/test", status_code=202, response_model=RequestedDeliveryBody, **_documented())
async def test_webhook(webhook_id: Id, request: HttpRequest) -> Response:
    """Send a test, which is about no event, also to a disabled webhook. It is not retried."""
    delivery_id = await request.state.webhooks.test(WebhookPlace(request.ledger_id(), webhook_id))
    return _requested(request, delivery_id)


@webhook_router.post(
    "/webhooks/{webhook_id}/deliveries/{delivery_id}/repeat",
    status_code=202,
    response_model=RequestedDeliveryBody,
    **_documented(),
)
async def repeat_delivery(webhook_id: Id, delivery_id: Id, request: HttpRequest) -> Response:
    """Send a delivery once more, with the same id, out of order and without retries."""
    await request.state.webhooks.repeat(WebhookPlace(request.ledger_id(), webhook_id), delivery_id)
    return _requested(request, delivery_id)


def _requested(request: HttpRequest, delivery_id: str) -> Response:
    response = request.json_response({"delivery_id": delivery_id})
    response.status_code = 202
    return response
