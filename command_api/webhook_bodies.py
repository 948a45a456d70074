"""The bodies of requests and answers about webhooks, for validation and for the OpenAPI document."""

from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

from command_api.domain.command_fields import StrictFields
from shared.ids import new_id
from shared.input_types import Id
from shared.log.events import EVENT_TYPES
from shared.timestamps import timestamp
from shared.webhooks.addresses import URL_CHARACTERS_MAX
from shared.webhooks.store import Webhook

TYPES_MAX: Final = 100
STREAMS_MAX: Final = 100
OVERLAP_SECONDS: Final = 86_400
OVERLAP_SECONDS_MAX: Final = 30 * 86_400
WEBHOOK_ID: Final = "0198c5a0-0000-7000-8000-0000000000b1"
DELIVERY_ID: Final = "0198c5a0-0000-7000-8000-0000000000c1"
SECRET_EXAMPLE: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw…"  # noqa: S105 # signs nothing
WEBHOOK_EXAMPLE: Final[dict[str, Any]] = {
    "id": WEBHOOK_ID,
    "url": "https://example.com/daybook",
    "types": ["FundsDeposited"],
    "streams": [],
    "status": "active",
    "position": 42,
}

Url = Annotated[
    str,
    StringConstraints(min_length=1, max_length=URL_CHARACTERS_MAX),
    Field(
        description="An https URL at a public address. Others only if `DAYBOOK_WEBHOOK_NETWORKS` allows them.",
        examples=["https://example.com/daybook"],
    ),
]


def _event_type(value: str) -> str:
    if value not in EVENT_TYPES:
        code, message = "event_type_unknown", "Must be the type of an event"
        raise PydanticCustomError(code, message)
    return value


TypeName = Annotated[str, AfterValidator(_event_type), Field(json_schema_extra={"enum": list(EVENT_TYPES)})]
TypeNames = Annotated[list[TypeName], Field(max_length=TYPES_MAX, description="Only events of these types. Empty: of all types.")]
StreamName = Annotated[
    str,
    StringConstraints(pattern=r"^(ledger|days|[a-z]+-[0-9a-zA-Z-]{1,40})$", to_lower=True),
    Field(examples=["account-0198c5a0-0000-7000-8000-0000000000e1"]),
]
StreamNames = Annotated[
    list[StreamName], Field(max_length=STREAMS_MAX, description="Only events of these streams. Empty: of all streams.")
]


class NewWebhook(StrictFields):
    """A URL that gets the ledger's events from now on."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"url": "https://example.com/daybook", "types": ["FundsDeposited"], "streams": []}}
    )

    id: Id = Field(default_factory=new_id)
    url: Url
    types: TypeNames = Field(default_factory=list)
    streams: StreamNames = Field(default_factory=list)


class WebhookChanges(StrictFields):
    """What to change. `active` enables a webhook again, or stops it; its failures are forgotten in any case."""

    model_config = ConfigDict(json_schema_extra={"example": {"status": "active"}})

    url: Url | None = None
    types: TypeNames | None = None
    streams: StreamNames | None = None
    status: Annotated[Literal["active", "disabled"] | None, Field(description="A disabled webhook gets nothing.")] = None


class SecretRotation(StrictFields):
    """How long deliveries are signed with both secrets."""

    model_config = ConfigDict(json_schema_extra={"example": {"overlap_seconds": 3600}})

    overlap_seconds: Annotated[int, Field(ge=0, le=OVERLAP_SECONDS_MAX)] = OVERLAP_SECONDS


class WebhookBody(BaseModel):
    """A webhook."""

    id: str
    url: str
    types: list[str]
    streams: list[str]
    status: Literal["active", "disabled"]
    position: Annotated[int, Field(description="All events up to this position were delivered, or are none for this webhook.")]

    model_config = ConfigDict(json_schema_extra={"example": WEBHOOK_EXAMPLE})


class NewWebhookBody(WebhookBody):
    """A new webhook with its secret."""

    secret: Annotated[str, Field(description="The key of the signatures. It is shown only here.")]

    model_config = ConfigDict(json_schema_extra={"example": WEBHOOK_EXAMPLE | {"secret": SECRET_EXAMPLE}})


class RotatedSecretBody(BaseModel):
    """A new secret, and when the old one stops to sign."""

    id: str
    secret: Annotated[str, Field(description="The key of the signatures. It is shown only here.")]
    old_secret_until: str

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"id": WEBHOOK_ID, "secret": SECRET_EXAMPLE, "old_secret_until": "2026-11-22T09:30:00.000000Z"}
        }
    )


class RequestedDeliveryBody(BaseModel):
    """A delivery that the worker sends in a moment. `GET /v1/webhooks/{id}/deliveries` shows how it ended."""

    delivery_id: str

    model_config = ConfigDict(json_schema_extra={"example": {"delivery_id": DELIVERY_ID}})


def webhook_body(webhook: Webhook) -> dict[str, Any]:
    return {
        "id": webhook.id,
        "url": webhook.url,
        "types": webhook.types,
        "streams": webhook.streams,
        "status": webhook.status,
        "position": webhook.position,
    }


def rotated_secret_body(webhook_id: str, secret: str, until: datetime) -> dict[str, Any]:
    return {"id": webhook_id, "secret": secret, "old_secret_until": timestamp(until)}
