"""The routes of commands on ledgers. Their callers need a key for all ledgers, and `Daybook-Ledger` plays no part in them."""

from functools import partial
from typing import Any, Final

from fastapi import APIRouter, Response

from command_api.documentation import COMMAND_PROBLEMS
from command_api.domain.ledger import (
    ChangedLedger,
    ChangeLedger,
    CloseLedger,
    CreateLedger,
    LedgerRules,
    LedgerSettings,
    NewLedger,
)
from command_api.ledger_answers import LedgerBody, ledger_body
from command_api.requests import COMMAND_HEADERS, COMMAND_LEDGER_HEADER, CommandRoute, HttpRequest
from shared.identity.access import only_for_all_ledgers
from shared.input_types import LedgerId
from shared.web.openapi import problem_responses

ledger_router = APIRouter(prefix="/v1", route_class=CommandRoute)

_HEADERS: Final = [header for header in COMMAND_HEADERS if header is not COMMAND_LEDGER_HEADER]


def _documented(*rejections: str) -> dict[str, Any]:
    access = only_for_all_ledgers("ops:admin")
    return {
        "openapi_extra": {"parameters": _HEADERS, **access.documented()},
        "responses": problem_responses(*rejections, *COMMAND_PROBLEMS),
    }


@ledger_router.post("/ledgers", status_code=201, response_model=LedgerBody, **_documented("id-taken", "currency-unknown"))
async def create_ledger(ledger: NewLedger, request: HttpRequest) -> Response:
    """Create a ledger, which takes commands at once. Its settings are the first event of its log.

    The answer has no credential for it: `daybook keys create --ledger` makes one.
    """
    settings = LedgerSettings(**ledger.model_dump(exclude={"id", "name"}))
    request.named_ledger_id = ledger.id
    command = CreateLedger(name=ledger.name or ledger.id, settings=settings)
    return await request.run(command, partial(ledger_body, ledger.id), new="ledgers")


@ledger_router.put("/ledgers/{ledger_id}/settings", response_model=LedgerBody, **_documented("ledger-closed", "currency-unknown"))
async def change_ledger(ledger_id: LedgerId, ledger: ChangedLedger, request: HttpRequest) -> Response:
    """Replace the settings of a ledger, except its time zone. A setting that is left out gets its default."""
    request.named_ledger_id = ledger_id
    command = ChangeLedger(name=ledger.name or ledger_id, rules=LedgerRules(**ledger.model_dump(exclude={"name"})))
    return await request.run(command, partial(ledger_body, ledger_id))


@ledger_router.post("/ledgers/{ledger_id}/close", response_model=LedgerBody, **_documented())
async def close_ledger(ledger_id: LedgerId, request: HttpRequest) -> Response:
    """Close a ledger permanently: it takes no more commands, and can still be read. Repeating this changes nothing."""
    request.named_ledger_id = ledger_id
    return await request.run(CloseLedger(), partial(ledger_body, ledger_id))
