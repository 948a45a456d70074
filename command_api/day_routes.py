"""The route that closes a business day. It reads what the log says of the day, and records that."""

import asyncio

from fastapi import APIRouter, Response

from command_api.day_answers import DayBody, day_body
from command_api.day_closing import close_command
from command_api.documentation import documented
from command_api.requests import CommandRoute, HttpRequest
from shared.identity.access import only
from shared.input_types import Day

day_router = APIRouter(prefix="/v1", route_class=CommandRoute)


@day_router.post(
    "/days/{day}/close",
    response_model=DayBody,
    **documented("day-not-ended", "day-out-of-order", access=only("accounts:write")),
)
async def close_day(day: Day, request: HttpRequest) -> Response:
    """Close a business day of the ledger. Days are closed in order. Closing the last closed day again changes nothing.

    Entries can still be back-dated into a closed day, and are marked. A day with very many events can take longer than a command
    may: `daybook close` has no such limit.
    """
    async with asyncio.timeout_at(request.expires_at):
        command = await close_command(request.state.engine, request.ledger_id(), day)
    return await request.run(command, day_body)
