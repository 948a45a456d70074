"""Seals: the signed Merkle roots of the log, and proofs that one seal extends another."""

from typing import Annotated, Any, Final

from fastapi import Query, Response
from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncConnection

from query_api.cursors import CursorKey
from query_api.documentation import ANY_QUERY, LEDGER_HEADER, PAGE_HEADERS, documented
from query_api.lists import ListSlice
from query_api.log_reading import ask_log
from query_api.parameters import PageParameters, Parameters, PositionParameter
from query_api.reading import AsOf, CallerView, JsonObject
from query_api.requests import QueryRequest, query_router
from query_api.responses import MOMENT, AsOfPosition, Page, ResponseModel, TimestampText, as_of, page_of
from shared.errors import NotFound
from shared.identity.access import only
from shared.proof import merkle, seal_store

router = query_router()


class SealResource(ResponseModel):
    """A seal. Its signature (Ed25519, hexadecimal) covers six lines: `daybook-seal-1`, ledger, position, root, key id, time."""

    ledger_id: str
    position: Annotated[
        int, Field(description="The seal covers the events from 1 to this position, so this is also the size of the tree.")
    ]
    root: Annotated[str, Field(description="The root of the Merkle tree (RFC 6962) of the events' hashes, hexadecimal.")]
    signature: str
    key_id: Annotated[str, Field(description="The first 16 hexadecimal digits of the SHA-256 of the public key.")]
    sealed_at: TimestampText


class ConsistencyResponse(ResponseModel):
    """Proof (RFC 6962, 2.1.2) that the seal `to` covers all events that the seal `from` covers, unchanged."""

    from_: Annotated[SealResource, Field(alias="from")]
    to: SealResource
    path: list[str]
    position: AsOfPosition


SEAL_EXAMPLE: Final = {
    "ledger_id": "main",
    "position": 4,
    "root": "5df6e0e2761359d30a8275058e299fcc0381534545f55cf43e41983f5d4c9456",
    "signature": "d2c1a0b9" * 16,
    "key_id": "8d3f6e2b1c0a9f47",
    "sealed_at": MOMENT,
}
CONSISTENCY_EXAMPLE: Final = {
    "from": SEAL_EXAMPLE,
    "to": SEAL_EXAMPLE,
    "path": ["6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"],
}


SealPosition = Annotated[PositionParameter, Field(examples=[42])]


class SealParameters(PageParameters):
    pass


class ConsistencyParameters(Parameters):
    from_position: Annotated[
        PositionParameter, Field(alias="from", ge=1, description="The position of the earlier seal.", examples=[7])
    ]


LATEST_POSITION: Final = 2**63 - 1


async def find_seals(view: CallerView, parameters: SealParameters, key: CursorKey | None) -> AsOf[ListSlice]:
    """Reads one page of seals, newest first."""
    before: Any = LATEST_POSITION if key is None else key[0]
    position = await view.reader.require_ledger(view.ledger_id)
    async with view.reader.postgres.connect() as connection:
        seals = await seal_store.read_seals_before(connection, view.ledger_id, before, parameters.limit + 1)
    page = [seal.members() for seal in seals[: parameters.limit]]
    next_key = [page[-1]["position"]] if len(seals) > parameters.limit else None
    return AsOf(position, ListSlice(page, next_key))


async def find_consistency_proof(view: CallerView, position: int, parameters: ConsistencyParameters) -> AsOf[JsonObject]:
    """Returns the proof that the seal at `position` extends the seal at `parameters.from_position`.

    Raises:
        NotFound: there is no seal at one of the two positions, or `from_position` is after `position`.
    """

    async def prove(connection: AsyncConnection) -> JsonObject:
        seals = [await seal_store.find_seal(connection, view.ledger_id, each) for each in (parameters.from_position, position)]
        first, second = seals
        if first is None or second is None or first.position > second.position:
            raise NotFound("There is no seal at one of these positions, or `from` is after the other one.")
        ranges = merkle.consistency_ranges(first.position, second.position)
        path = await seal_store.read_ranges(connection, view.ledger_id, ranges)
        return {"from": first.members(), "to": second.members(), "path": [node.hex() for node in path]}

    return AsOf(await view.reader.require_ledger(view.ledger_id), await ask_log(view, prove))


@router.get(
    "/seals",
    tags=["proof"],
    **documented(
        Page[SealResource],
        page_of(SEAL_EXAMPLE),
        *ANY_QUERY,
        "cursor-invalid",
        access=only("ledger:read"),
        headers=[LEDGER_HEADER],
        response_headers=PAGE_HEADERS,
    ),
)
async def list_seals(request: QueryRequest, parameters: Annotated[SealParameters, Query()]) -> Response:
    """List the seals of the log, newest first. A seal is a signed Merkle root."""
    return request.answer_page(await find_seals(request.view(), parameters, request.cursor_key(parameters)), parameters)


@router.get(
    "/seals/{position}/consistency",
    tags=["proof"],
    **documented(
        ConsistencyResponse,
        as_of(CONSISTENCY_EXAMPLE),
        *ANY_QUERY,
        access=only("ledger:read"),
        headers=[LEDGER_HEADER],
    ),
)
async def get_consistency(
    request: QueryRequest, position: SealPosition, parameters: Annotated[ConsistencyParameters, Query()]
) -> Response:
    """Get a proof that the seal at `position` extends the seal at `from`: events were only added, and none was changed."""
    return request.answer_one(await find_consistency_proof(request.view(), position, parameters))
