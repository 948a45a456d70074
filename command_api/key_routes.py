"""The routes with which an operator revokes and rotates API keys. They record no events."""

from datetime import timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from command_api.documentation import BODY_PROBLEMS, documented_login
from command_api.domain.command_fields import StrictFields
from command_api.requests import CommandRoute, HttpRequest
from shared.identity.access import only
from shared.identity.api_keys import key_id_of
from shared.identity.audit_records import ActCaller
from shared.input_types import ApiKeyId
from shared.timestamps import timestamp

key_router = APIRouter(prefix="/v1", route_class=CommandRoute)

OVERLAP_SECONDS: Final = 86_400
OVERLAP_SECONDS_MAX: Final = 30 * 86_400
KEY_ID: Final = "k3vq7m2xnp"


class KeyRotation(StrictFields):
    """How long the old key stays valid beside the new one."""

    model_config = ConfigDict(json_schema_extra={"example": {"overlap_seconds": 3600}})

    overlap_seconds: Annotated[int, Field(ge=0, le=OVERLAP_SECONDS_MAX)] = OVERLAP_SECONDS


class RevokedKeyBody(BaseModel):
    """A key that was revoked."""

    id: str
    revoked_key_ids: Annotated[
        list[str], Field(description="What this request has ended: the key, and those that were made with it. Empty if repeated.")
    ]

    model_config = ConfigDict(json_schema_extra={"example": {"id": KEY_ID, "revoked_key_ids": [KEY_ID]}})


class RotatedKeyBody(BaseModel):
    """A new key and its token."""

    id: str
    token: Annotated[str, Field(description="Send this token as `Authorization: Bearer …`. It is shown only here.")]
    expires_at: Annotated[str | None, Field(description="When the new key ends: with your key at the latest.")]
    old_key_id: str
    old_expires_at: str

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "h4wz2c6ykq",
                "token": "dbk_h4wz2c6ykq_…",
                "expires_at": "2027-02-19T09:30:00.000000Z",
                "old_key_id": KEY_ID,
                "old_expires_at": "2026-11-21T10:30:00.000000Z",
            }
        }
    )


def _documented(*problems: str) -> dict[str, Any]:
    return documented_login(*problems, access=only("credentials:write"))


def _caller(request: HttpRequest) -> ActCaller:
    return ActCaller.of_request(request.principal, request.state.address, request.state.request_id)


@key_router.post("/keys/{key_id}/revoke", response_model=RevokedKeyBody, **_documented())
async def revoke_key(key_id: ApiKeyId, request: HttpRequest) -> Response:
    """Revoke an API key, and what comes from it: keys that were made with it, reset tokens, passwords and sessions.

    You need all scopes of the key. This cannot be undone. Repeating this changes nothing.
    """
    revoked = await request.state.keys.revoke(request.ledger_id(), key_id, request.principal, _caller(request))
    request.state.authentication.forget_keys(revoked)
    return request.json_response({"id": key_id, "revoked_key_ids": revoked})


@key_router.post("/keys/{key_id}/rotate", status_code=201, response_model=RotatedKeyBody, **_documented(*BODY_PROBLEMS))
async def rotate_key(key_id: ApiKeyId, rotation: KeyRotation, request: HttpRequest) -> Response:
    """Make a new API key for the holder of a key, with the same scopes. The old key stays valid for the overlap.

    You need all scopes of the key. The new key ends with your key at the latest, and is revoked with it. If the answer is lost,
    revoke the key that `GET /v1/keys` shows, and rotate once more.
    """
    overlap = timedelta(seconds=rotation.overlap_seconds)
    rotated = await request.state.keys.rotate(request.ledger_id(), key_id, overlap, request.principal, _caller(request))
    body = {
        "id": key_id_of(rotated.token),
        "token": rotated.token,
        "expires_at": rotated.expires_at and timestamp(rotated.expires_at),
        "old_key_id": key_id,
        "old_expires_at": timestamp(rotated.old_expires_at),
    }
    response = request.secret_response(body)
    response.status_code = 201
    return response
