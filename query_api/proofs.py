"""Questions about proof: receipts of transfers, seals, and proofs that one seal extends another.

A receipt holds everything that the event's hash covers, and the path from that hash to a signed root: whoever has it and the
public key needs neither us nor our database to check it.
"""

from typing import Any

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from query_api.events import read_log
from query_api.parameters import ConsistencyParameters, SealParameters
from query_api.queries import Key, Page
from query_api.reading import AsOf, Document, View, as_fresh_as_can_be
from shared import merkle, seal_store
from shared.errors import NotFound, NotSealedYet
from shared.event_store import StoredEvent, read_stored, read_stream
from shared.events import timestamp, transfer_stream

RECEIPT_FORMAT = "daybook-receipt-1"
FOR_ALL_TIME = 2**63 - 1


async def get_receipt(view: View, transfer_id: str) -> AsOf[Document | None]:
    """The receipt against the newest seal; None where there is no such transfer.

    Raises:
        NotSealedYet: no seal covers the transfer yet.
    """
    stream_id = transfer_stream(transfer_id)
    position, found = await read_log(view, lambda connection: read_stream(connection, view.ledger_id, stream_id, 0, 1))
    receipt = None
    if found:
        async with view.reader.postgres.connect() as connection:
            receipt = await _receipt(connection, found[0])
    return as_fresh_as_can_be(AsOf(position, receipt), view.freshness)


async def _receipt(connection: AsyncConnection, event: StoredEvent) -> Document:
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


def _hashed(event: StoredEvent, hash_before: bytes) -> Document:
    """What the event's hash covers."""
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


async def list_seals(view: View, parameters: SealParameters, key: Key | None) -> AsOf[Page]:
    """The newest first."""
    before: Any = FOR_ALL_TIME if key is None else key[0]
    position = await view.reader.require_ledger(view.ledger_id)
    async with view.reader.postgres.connect() as connection:
        seals = await seal_store.read_seals_before(connection, view.ledger_id, before, parameters.limit + 1)
    page = [seal.members() for seal in seals[: parameters.limit]]
    next_key = [page[-1]["position"]] if len(seals) > parameters.limit else None
    return AsOf(position, Page(page, next_key))


async def get_consistency(view: View, position: int, parameters: ConsistencyParameters) -> AsOf[Document]:
    """Raises:
    NotFound: there is no seal at one of the two positions, or the first is after the second.
    """
    head = await view.reader.require_ledger(view.ledger_id)
    async with view.reader.postgres.connect() as connection:
        seals = [await seal_store.find_seal(connection, view.ledger_id, each) for each in (parameters.from_position, position)]
        first, second = seals
        if first is None or second is None or first.position > second.position:
            raise NotFound("There are no two such seals.")
        ranges = merkle.consistency_ranges(first.position, second.position)
        path = await seal_store.read_ranges(connection, view.ledger_id, ranges)
    return AsOf(head, {"from": first.members(), "to": second.members(), "path": [node.hex() for node in path]})
