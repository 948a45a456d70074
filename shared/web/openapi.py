"""The parts of the OpenAPI documents that both APIs share: problems and the security scheme."""

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from shared.errors import DaybookError
from shared.identity.access import SECURITY_SCHEME
from shared.web.problems import ERROR_OF_CODE, PROBLEM_JSON, STATUS, problem


def problem_responses(*codes: str) -> dict[int | str, dict[str, Any]]:
    """Returns a value for a route's `responses`: the problems with these codes, by status, with an example of each."""
    by_status: dict[int, list[type[DaybookError]]] = {}
    for code in codes:
        by_status.setdefault(STATUS[code], []).append(ERROR_OF_CODE[code])
    return {status: _documented(errors) for status, errors in sorted(by_status.items())}


def _documented(errors: list[type[DaybookError]]) -> dict[str, Any]:
    examples = {error.code: {"summary": error.title(), "value": problem(error())} for error in errors}
    return {
        "description": " · ".join(error.title() for error in errors),
        "content": {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": examples}},
    }


def openapi_document(app: FastAPI) -> dict[str, Any]:
    """Returns FastAPI's document with the schema of problems and the security scheme added. It is made only once for each app."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, summary=app.summary, description=app.description, routes=app.routes
        )
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas["Problem"] = _PROBLEM_SCHEMA
        document["components"]["securitySchemes"] = {SECURITY_SCHEME: {"type": "http", "scheme": "bearer"}}
        # FastAPI documents its own form of a 422 answer, but these apps answer 422 with a problem document.
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        for operation in (operation for path in document["paths"].values() for operation in path.values()):
            for parameter in operation.get("parameters", ()):
                if (parameter["in"], parameter["name"]) == ("query", "metadata"):
                    parameter |= {"style": "deepObject", "explode": True}  # metadata[name]=value
        app.openapi_schema = document
    return app.openapi_schema


_PROBLEM_SCHEMA: Final = {
    "type": "object",
    "description": "A problem document (RFC 9457). `code` is the same for every error of a kind. Some members depend on it.",
    "required": ["type", "title", "status", "detail", "code", "retryable", "request_id"],
    "properties": {
        "type": {"type": "string", "description": "The path of a page about this code."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "retryable": {"type": "boolean", "description": "True if the same request can succeed later."},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}
