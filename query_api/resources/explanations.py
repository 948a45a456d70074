"""Explanations of balances: the facts that make the balance of an account, added up one after another.

The facts come from the read model `entries` in MongoDB, the balance from `balances` in Redis. So the two check each other.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated, Final

import msgspec
from fastapi import Query, Response
from pydantic import Field

from query_api.cursors import CursorKey
from query_api.documentation import READ_MODEL, documented
from query_api.parameters import PageParameters
from query_api.reading import AsOf, CallerView, Freshness, JsonObject, as_fresh_as_can_be, rebuilding
from query_api.requests import QueryRequest, query_router
from query_api.responses import EUROS, TRANSFER, AsOfPosition, FactPosition, ResponseModel, TransferKind, as_of
from shared.identity.access import own_or
from shared.input_types import Id
from shared.read_models.shapes import BALANCES, ENTRIES, Entry, entry_id
from shared.web.members import MinorUnitAmount

router = query_router()


class FactResource(ResponseModel):
    """A fact that changed the balance. `amount` is negative if money left the account. `balance` is the sum after this fact."""

    position: FactPosition
    type: TransferKind
    transfer_id: str
    amount: MinorUnitAmount
    balance: Annotated[int, Field(description="The sum of the amounts of this fact and all facts before it.")]


class ExplanationResponse(ResponseModel):
    account_id: str
    currency: str
    balance: Annotated[int, Field(description="What the account has posted, as of `position`.")]
    facts: list[FactResource]
    adds_up: Annotated[
        bool,
        Field(
            description="True if the facts from the first to the last of this page add up to the balances that they tell. On the "
            "last page, they must also add up to `balance`."
        ),
    ]
    next: Annotated[str | None, Field(description="Send this as `cursor` to get the next page. null on the last page.")]
    position: AsOfPosition


EXPLANATION_EXAMPLE: Final = {
    "account_id": EUROS,
    "currency": "EUR",
    "balance": 1250,
    "facts": [{"position": 4, "type": "deposit", "transfer_id": TRANSFER, "amount": 1250, "balance": 1250}],
    "adds_up": True,
    "next": "Ct9FmEcvrOb9gOdN8fORwFs0MV0",
}


def add_up(entries: Iterable[Entry], before: int) -> tuple[list[JsonObject], bool]:
    """Adds the amounts of entries, in the order of the log, to the sum `before` of all earlier ones.

    Returns the facts with their sums, and True if every entry tells the balance that the sum says.
    """
    facts: list[JsonObject] = []
    total, adds_up = before, True
    for entry in entries:
        total += entry.amount
        adds_up = adds_up and total == entry.balance
        fact = {"position": entry.position, "type": entry.kind, "transfer_id": entry.transfer_id}
        facts.append({**fact, "amount": entry.amount, "balance": total})
    return facts, adds_up


def explain(entries: Sequence[Entry], limit: int, key: CursorKey | None, posted: int) -> tuple[JsonObject, CursorKey | None]:
    """Returns the members of one page of an explanation, and the key of the next page or None.

    `entries` has one entry more than the page if there is a next page. A key holds the position of the last fact of a page, the
    sum up to it, and 1 if everything added up so far.
    """
    before, added_up_before = (key[1], bool(key[2])) if key else (0, True)
    facts, adds_up = add_up(entries[:limit], before)
    adds_up = adds_up and added_up_before
    total = facts[-1]["balance"] if facts else before
    if len(entries) > limit:
        return {"facts": facts, "adds_up": adds_up}, [facts[-1]["position"], total, int(adds_up)]
    return {"facts": facts, "adds_up": adds_up and total == posted}, None


async def find_explanation(
    view: CallerView, account_id: str, parameters: PageParameters, key: CursorKey | None
) -> AsOf[tuple[JsonObject, CursorKey | None] | None]:
    """Reads one page of the explanation, or returns None if there is no such account that the caller may see.

    Raises:
        ProjectionBehind: the entries did not reach the position of the balance in time, or the balance is older than the cursor.
    """
    found = await view.values(BALANCES, ("HMGET", f"account:{account_id}", "owner_id", "currency", "posted"))
    owner_id, currency, posted = found.data[0]
    if owner_id is None and currency is None and posted is None:
        return found.holding(None)
    if owner_id is None or currency is None or posted is None:
        await view.reader.give_up(BALANCES, view.ledger_id)
    if not view.sees(owner_id):
        return found.holding(None)
    if key:  # a balance from before the facts of the previous page cannot be explained by them
        as_fresh_as_can_be(found, Freshness(key[0], strict=True))
    entries = await _find_entries(view, account_id, parameters.limit + 1, key[0] if key else 0, found.position)
    body, next_key = explain(entries, parameters.limit, key, int(posted))
    return found.holding(({"account_id": account_id, "currency": currency, "balance": int(posted), **body}, next_key))


async def _find_entries(view: CallerView, account_id: str, limit: int, after: int, up_to: int) -> list[Entry]:
    """Reads entries after one position and up to another one, in the order of the log. Waits until they have reached it."""
    ids = {"$gt": entry_id(account_id, after), "$lte": entry_id(account_id, up_to)}
    stages: list[JsonObject] = [{"$match": {"_id": ids}}, {"$sort": {"_id": 1}}, {"$limit": limit}]
    found = await view.reaching(up_to).documents(ENTRIES, stages)
    if any("item" not in document for document in found.data):
        raise rebuilding(ENTRIES)
    return [msgspec.json.decode(document["item"], type=Entry) for document in found.data]


@router.get(
    "/accounts/{account_id}/explain",
    tags=["accounts"],
    **documented(ExplanationResponse, as_of(EXPLANATION_EXAMPLE), *READ_MODEL, "cursor-invalid", access=own_or("ledger:read")),
)
async def explain_balance(request: QueryRequest, account_id: Id, parameters: Annotated[PageParameters, Query()]) -> Response:
    """Explain the balance of an account: list the facts that make it, oldest first, and add them up."""
    found = await find_explanation(request.view(), account_id, parameters, request.cursor_key(parameters))
    body = None
    if found.data:
        page, key = found.data
        body = {**page, "next": request.sign_cursor(parameters, key)}
    return request.answer_one(found.holding(body))
