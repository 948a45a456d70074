"""Receipts: proofs that a transfer is in the sealed log.

A receipt contains everything that the hash of the transfer's event covers, and the path from that hash to a signed root. Anybody
who has the public key can check the receipt without access to Daybook or its stores.
"""

from typing import Annotated, Any, Final, Literal

import orjson
from fastapi import Response
from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncConnection

from query_api.documentation import LOG, documented
from query_api.log_reading import ask_log, read_log
from query_api.reading import AsOf, CallerView, JsonObject, as_fresh_as_can_be
from query_api.requests import QueryRequest, query_router
from query_api.resources.events import EVENT_EXAMPLE
from query_api.resources.seals import SEAL_EXAMPLE, SealResource
from query_api.responses import FactPosition, ResponseModel, TimestampText
from shared.errors import NotSealedYet
from shared.identity.access import only
from shared.input_types import Id
from shared.log.read import StoredEvent, read_stored, read_stream
from shared.log.streams import transfer_stream
from shared.proof import merkle, seal_store
from shared.timestamps import timestamp

router = query_router()


class HashedEvent(ResponseModel):
    """An event with everything that its hash covers."""

    hash_before: Annotated[str, Field(description="The hash of the previous event. Empty for the first event.")]
    ledger_id: str
    position: FactPosition
    event_id: str
    type: str
    schema_version: int
    data: dict[str, Any]
    metadata: dict[str, Any]
    recorded_at: TimestampText


class ReceiptResponse(ResponseModel):
    """Proof that a transfer is in the sealed log. Check it offline with `docs/verify_receipt.py`."""

    format: Literal["daybook-receipt-1"]
    position: FactPosition
    event: HashedEvent
    hash: Annotated[str, Field(description="The SHA-256 of `event`, in hexadecimal. It is a leaf of the Merkle tree.")]
    leaf_index: Annotated[int, Field(description="The index of the leaf in the tree: `position` − 1.")]
    audit_path: Annotated[
        list[str], Field(description="The sibling hashes from the leaf up to the root (RFC 6962), hexadecimal.")
    ]
    seal: SealResource


RECEIPT_EXAMPLE: Final = {
    "format": "daybook-receipt-1",
    "position": 4,
    "event": {
        "hash_before": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "ledger_id": "main",
        **{name: value for name, value in EVENT_EXAMPLE.items() if name != "hash"},
    },
    "hash": EVENT_EXAMPLE["hash"],
    "leaf_index": 3,
    "audit_path": ["6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"],
    "seal": SEAL_EXAMPLE,
}


RECEIPT_FORMAT: Final = "daybook-receipt-1"


async def find_receipt(view: CallerView, transfer_id: str) -> AsOf[JsonObject | None]:
    """Returns the receipt of a transfer, with the newest seal, or None if there is no such transfer.

    Raises:
        NotSealedYet: no seal covers the transfer yet.
    """
    stream_id = transfer_stream(transfer_id)
    position, found = await read_log(view, lambda connection: read_stream(connection, view.ledger_id, stream_id, 0, 1))
    receipt = None
    if found:
        receipt = await ask_log(view, lambda connection: _receipt(connection, found[0]))
    return as_fresh_as_can_be(AsOf(position, receipt), view.freshness)


async def _receipt(connection: AsyncConnection, event: StoredEvent) -> JsonObject:
    seal = await seal_store.newest_seal(connection, event.ledger_id)
    if seal is None or seal.position < event.position:
        raise NotSealedYet(position=event.position, sealed_position=seal.position if seal else 0)
    leaf = event.position - 1
    ranges = merkle.inclusion_ranges(leaf, seal.position)
    path = await seal_store.read_ranges(connection, event.ledger_id, ranges)
    before = await read_stored(connection, event.ledger_id, event.position - 2, 1) if leaf else []
    return {
        "format": RECEIPT_FORMAT,
        "position": event.position,
        "event": _hashed(event, before[0].hash if before else b""),
        "hash": event.hash.hex(),
        "leaf_index": leaf,
        "audit_path": [node.hex() for node in path],
        "seal": seal.members(),
    }


def _hashed(event: StoredEvent, hash_before: bytes) -> JsonObject:
    """Returns the members of a `HashedEvent`: everything that the event's hash covers."""
    return {
        "hash_before": hash_before.hex(),
        "ledger_id": event.ledger_id,
        "position": event.position,
        "event_id": event.event_id,
        "type": event.type,
        "schema_version": event.schema_version,
        "data": orjson.Fragment(event.data),
        "metadata": orjson.Fragment(event.metadata),
        "recorded_at": timestamp(event.recorded_at),
    }


@router.get(
    "/transfers/{transfer_id}/receipt",
    tags=["proof"],
    **documented(ReceiptResponse, RECEIPT_EXAMPLE, *LOG, "not-sealed-yet", access=only("ledger:read")),
)
async def get_receipt(request: QueryRequest, transfer_id: Id) -> Response:
    """Get a proof that a transfer, a deposit or a withdrawal is in the sealed log. You can check it without Daybook.

    Customers cannot get receipts, because the event in a receipt contains the balances of both accounts.
    """
    return request.answer_one(await find_receipt(request.view(), transfer_id))
