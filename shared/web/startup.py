"""Prepares an app before it starts, and reports a failed start in one line."""

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.errors import DaybookError
from shared.logs import configure_logs
from shared.web.compression import Compression
from shared.web.documentation import add_documentation
from shared.web.envelope import Envelope, HeadAsGet
from shared.web.openapi import openapi_document
from shared.web.problems import DRIVER_ERRORS, answer_error, explain_problem


def prepare_app(app: FastAPI, log_level: str) -> None:
    """Configures log lines, and adds error handlers, middleware, problem and documentation pages and the OpenAPI document."""
    configure_logs(log_level)
    for error_type in (RequestValidationError, HTTPException, DaybookError, *DRIVER_ERRORS, Exception):
        app.add_exception_handler(error_type, answer_error)
    # The last one is the outermost.
    app.add_middleware(Compression)
    app.add_middleware(HeadAsGet)
    app.add_middleware(Envelope)
    app.add_api_route("/problems/{code}", explain_problem, include_in_schema=False)
    add_documentation(app)
    app.openapi = lambda: openapi_document(app)  # type: ignore[method-assign]  # the documented way to change the document


async def run_lifespan(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Runs the app's lifespan. If a `DaybookError` makes the start fail, reports it in one line instead of a traceback.

    Starlette first sends a report with a traceback and then raises the error. So this function holds the report back until it
    knows the error. For any other error, it passes the report on and raises the error.
    """
    failed: Message | None = None

    async def send_unless_failed(message: Message) -> None:
        nonlocal failed
        if message["type"] == "lifespan.startup.failed":
            failed = message
        else:
            await send(message)

    try:
        await app(scope, receive, send_unless_failed)
    except BaseException as error:
        if failed and isinstance(error, DaybookError):
            await send({**failed, "message": f"daybook: {error.detail}"})
            return
        if failed:
            await send(failed)
        raise
