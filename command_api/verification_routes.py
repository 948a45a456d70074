"""The routes with which operators ask for the verification of a ledger, and cancel it. They record no events."""

from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict

from command_api.documentation import BODY_PROBLEMS, documented_login
from command_api.operation_bodies import OperationReason
from command_api.requests import CommandRoute, HttpRequest
from shared.identity.access import only
from shared.identity.audit_records import ActCaller
from shared.input_types import Id
from shared.proof.verifications import VerificationStatus

verification_router = APIRouter(prefix="/v1", route_class=CommandRoute)

_OPERATORS: Final = only("ops:admin")


class VerificationBody(BaseModel):
    """A verification of a ledger. `GET /v1/verifications/{id}` of the query API shows how far it is and what it found."""

    id: str
    status: VerificationStatus

    model_config = ConfigDict(json_schema_extra={"example": {"id": "0198c5a0-0000-7000-8000-0000000000f1", "status": "waiting"}})


def _documented(*problems: str) -> dict[str, Any]:
    return {"status_code": 202, "response_model": VerificationBody, **documented_login(*problems, access=_OPERATORS)}


def _caller(request: HttpRequest) -> ActCaller:
    return ActCaller.of_request(request.principal, request.state.address, request.state.request_id)


@verification_router.post("/verifications", **_documented("operation-under-way", *BODY_PROBLEMS))
async def verify_ledger(why: OperationReason, request: HttpRequest) -> Response:
    """Verify the ledger: fold its log again, and compare all that is derived from it. The worker does what `daybook verify` does.

    It can take minutes to hours. Workers verify one ledger at a time, with a low priority.
    """
    asked = await request.state.verifications.ask(request.ledger_id(), why.reason, _caller(request))
    return _accepted(request, asked, "waiting")


@verification_router.post("/verifications/{verification_id}/cancel", **_documented())
async def cancel_verification(verification_id: Id, request: HttpRequest) -> Response:
    """Cancel a verification. One that has ended stays as it is. Repeating this changes nothing."""
    status = await request.state.verifications.cancel(request.ledger_id(), verification_id, _caller(request))
    return _accepted(request, verification_id, status)


def _accepted(request: HttpRequest, verification_id: str, status: VerificationStatus) -> Response:
    response = request.json_response({"id": verification_id, "status": status})
    response.status_code = HTTPStatus.ACCEPTED
    response.headers["Location"] = f"{request.state.settings.query_url}/v1/verifications/{verification_id}"
    return response
