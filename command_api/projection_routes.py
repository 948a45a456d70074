"""The routes with which operators rebuild, roll back, pause and resume read models, and retry or skip dead letters.

They record no events, except that a skip does. The worker does the work: see `projector.operation_worker`.
"""

from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter, Response

from command_api.documentation import BODY_PROBLEMS, documented_login
from command_api.operation_bodies import OperationBody, OperationReason
from command_api.requests import CommandRoute, HttpRequest
from shared.identity.access import only
from shared.identity.audit_records import ActCaller
from shared.input_types import EventPosition, ProjectionName
from shared.read_models.operations import OperationKind
from shared.web.problems import ERROR_OF_CODE, problem_response

projection_router = APIRouter(prefix="/v1", route_class=CommandRoute)

_OPERATORS: Final = only("ops:admin")
_BUILD_PROBLEMS: Final = ("projection-paused", "generation-refused", "event-refused")


def _documented(*problems: str) -> dict[str, Any]:
    declared = documented_login("operation-under-way", *problems, *BODY_PROBLEMS, access=_OPERATORS)
    return {"status_code": 202, "response_model": OperationBody, **declared}


@projection_router.post("/projections/{name}/rebuild", **_documented(*_BUILD_PROBLEMS))
async def rebuild_projection(name: ProjectionName, why: OperationReason, request: HttpRequest) -> Response:
    """Build a new generation of a read model, compare it with the log, and make it live. Readers keep the old one until then."""
    return await _ask(request, name, "rebuild", why)


@projection_router.post("/projections/{name}/rollback", **_documented(*_BUILD_PROBLEMS, "nothing-kept"))
async def rollback_projection(name: ProjectionName, why: OperationReason, request: HttpRequest) -> Response:
    """Bring the generation before up to date and make it live again. A second rollback undoes the first."""
    return await _ask(request, name, "rollback", why)


@projection_router.post("/projections/{name}/pause", **_documented())
async def pause_projection(name: ProjectionName, why: OperationReason, request: HttpRequest) -> Response:
    """Stop a read model until it is resumed. Readers still see it, as of the position where it stopped."""
    return await _ask(request, name, "pause", why)


@projection_router.post("/projections/{name}/resume", **_documented())
async def resume_projection(name: ProjectionName, why: OperationReason, request: HttpRequest) -> Response:
    """Let a paused read model follow the log again."""
    return await _ask(request, name, "resume", why)


@projection_router.post("/projections/{name}/dead-letters/retry", **_documented(*_BUILD_PROBLEMS))
async def retry_dead_letters_of_projection(name: ProjectionName, why: OperationReason, request: HttpRequest) -> Response:
    """Rebuild a read model, and make the result live only if every event could be applied. First deploy the corrected code."""
    return await _ask(request, name, "retry", why)


@projection_router.post("/projections/{name}/dead-letters/{position}/skip", **_documented(*_BUILD_PROBLEMS))
async def skip_dead_letter(name: ProjectionName, position: EventPosition, why: OperationReason, request: HttpRequest) -> Response:
    """Leave an event out of a read model for ever. The log records it with the reason, and the read model is rebuilt."""
    return await _ask(request, name, "skip", why, position)


async def _ask(
    request: HttpRequest, name: str, kind: OperationKind, why: OperationReason, position: int | None = None
) -> Response:
    """Answers 202 with the operation, which may be done already. One that has failed already is answered with its problem."""
    caller = ActCaller.of_request(request.principal, request.state.address, request.state.request_id)
    asked = await request.state.operations.ask(request.ledger_id(), name, kind, why.reason, caller, position)
    if asked.code is not None:
        return problem_response(request, ERROR_OF_CODE[asked.code](asked.outcome))
    response = request.json_response(asked.members())
    response.status_code = HTTPStatus.ACCEPTED
    response.headers["Location"] = f"{request.state.settings.query_url}/v1/operations/{asked.id}"
    return response
