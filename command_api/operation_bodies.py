"""The bodies of requests and answers about operations on read models, for validation and for the OpenAPI document."""

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from command_api.domain.command_fields import StrictFields
from shared.read_models.operations import OperationKind, OperationStatus
from shared.text_types import Reference

OPERATION_EXAMPLE: Final[dict[str, Any]] = {
    "id": "0198c5a0-0000-7000-8000-0000000000d1",
    "projection": "balances",
    "kind": "rebuild",
    "event_position": None,
    "reason": "ticket 4711",
    "requested_by": "operator",
    "status": "running",
    "events_done": 20_000,
    "events_total": 42_000,
    "code": None,
    "outcome": None,
    "requested_at": "2026-11-21T09:30:00.000000Z",
    "changed_at": "2026-11-21T09:30:01.000000Z",
}


class OperationReason(StrictFields):
    """Why an operation is asked for."""

    model_config = ConfigDict(json_schema_extra={"example": {"reason": "ticket 4711"}})

    reason: Annotated[Reference, Field(description="Kept for ever in an audit record, so write no personal data.")]


class OperationBody(BaseModel):
    """An operation on a read model. `GET /v1/operations/{id}` of the query API shows how it goes on."""

    id: str
    projection: str
    kind: OperationKind
    event_position: int | None
    reason: str
    requested_by: str
    status: OperationStatus
    events_done: int
    events_total: int
    code: str | None
    outcome: str | None
    requested_at: str
    changed_at: str

    model_config = ConfigDict(json_schema_extra={"example": OPERATION_EXAMPLE})
