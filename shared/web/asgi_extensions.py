"""Extensions of the ASGI scope for endless answers, such as the stream of events. `shared.web.protocol` provides them."""

import asyncio
from typing import Final

from starlette.types import Scope

CLOSING: Final = "daybook.closing"
"""An `asyncio.Event` that is set when the server is told to stop."""
ABORT: Final = "daybook.abort"
"""A function that closes the connection without sending the data that is still buffered."""


async def server_closing(scope: Scope) -> None:
    """Waits until the server is told to stop. Waits for ever under a server without the extension."""
    closing: asyncio.Event | None = scope.get("extensions", {}).get(CLOSING)
    if closing is None:
        await asyncio.Event().wait()
    else:
        await closing.wait()


def abort_connection(scope: Scope) -> None:
    """Closes the connection immediately; unsent data is lost. Does nothing under a server without the extension."""
    abort = scope.get("extensions", {}).get(ABORT)
    if abort is not None:
        abort()
