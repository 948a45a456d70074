"""The progress of the read models, and the reason if one does not advance."""

from typing import Annotated, Any, Final, Literal

from fastapi import Response
from pydantic import Field

from query_api.documentation import ANY_QUERY, LEDGER_HEADER, documented
from query_api.lists import ListSlice
from query_api.progress import list_dead_letters, list_progress
from query_api.reading import AsOf
from query_api.requests import QueryRequest, query_router
from query_api.responses import EVENT, MOMENT, Page, ResponseModel, TimestampText, page_of
from shared.identity.access import only
from shared.input_types import ProjectionName
from shared.read_models.dead_letters import DeadLetter

router = query_router()


class ProjectionResource(ResponseModel):
    name: str
    generation: Annotated[
        int | None, Field(description="The live generation, or the generation that is being built if none is live.")
    ]
    state: Annotated[
        Literal["live", "degraded", "behind", "rebuilding", "paused", "failed"],
        Field(
            description="`degraded`: events that could not be applied are dead letters, and later events of their "
            "streams are parked. `behind`: an event has waited for over 2 seconds. `paused`: an operator paused the read model. "
            "`failed`: an error stopped the read model, or its store does not answer."
        ),
    ]
    position: int | None
    lag_events: int | None
    lag_seconds: Annotated[float | None, Field(description="The age of the oldest event that is not applied yet.")]
    dead_letters: Annotated[int, Field(description="Events that could not be applied.")]
    parked_streams: Annotated[int, Field(description="Streams that are not applied any further because of dead letters.")]
    cause: Annotated[str | None, Field(description="The reason for the state, or null.")]


PROJECTION_EXAMPLE: Final = {
    "name": "accounts",
    "generation": 1,
    "state": "behind",
    "position": 40,
    "lag_events": 2,
    "lag_seconds": 3.25,
    "dead_letters": 0,
    "parked_streams": 0,
    "cause": "event 41, recorded 3 s ago, is not applied yet: writing to MongoDB takes 94% of the time, at 310 events/s",
}


class DeadLetterResource(ResponseModel):
    """An event that the read model could not apply."""

    event_position: int
    event_id: str
    type: str
    streams: list[str]
    cause: Annotated[str, Field(description="The kind of the error and its place in the code, without its text.")]
    attempts: int
    since: TimestampText


DEAD_LETTER_EXAMPLE: Final = {
    "event_position": 41,
    "event_id": EVENT,
    "type": "FundsDeposited",
    "streams": ["account-0198c5a0-0000-7000-8000-0000000000e1"],
    "cause": "KeyError in projector/projections/accounts.py:71",
    "attempts": 5,
    "since": MOMENT,
}

PROJECTION_READERS: Final = only("ledger:read", "ops:admin")
DEAD_LETTER_READERS: Final = only("ops:admin")


@router.get(
    "/projections",
    tags=["log"],
    **documented(
        Page[ProjectionResource],
        page_of(PROJECTION_EXAMPLE),
        *ANY_QUERY,
        access=PROJECTION_READERS,
        headers=[LEDGER_HEADER],
    ),
)
async def list_projections(request: QueryRequest) -> Response:
    """List the read models with their progress, and the reason if one is behind. `position` is the last position of the log."""
    head, items = await list_progress(request.state.reader, request.ledger_id())
    return request.answer_page(AsOf(head, ListSlice(items, None)))


@router.get(
    "/projections/{name}",
    tags=["log"],
    **documented(ProjectionResource, PROJECTION_EXAMPLE, *ANY_QUERY, access=PROJECTION_READERS, headers=[LEDGER_HEADER]),
)
async def get_projection(request: QueryRequest, name: ProjectionName) -> Response:
    """Get the progress of one read model."""
    head, items = await list_progress(request.state.reader, request.ledger_id())
    return request.answer_one(AsOf(head, next((item for item in items if item["name"] == name), None)))


@router.get(
    "/projections/{name}/dead-letters",
    tags=["log"],
    **documented(
        Page[DeadLetterResource],
        page_of(DEAD_LETTER_EXAMPLE),
        *ANY_QUERY,
        access=DEAD_LETTER_READERS,
        headers=[LEDGER_HEADER],
    ),
)
async def list_projection_dead_letters(request: QueryRequest, name: ProjectionName) -> Response:
    """List the events that a read model could not apply. There are never more than DAYBOOK_PROJECTOR_DEAD_LETTERS_MAX."""
    head, letters = await list_dead_letters(request.state.reader, request.ledger_id(), name)
    items = [_dead_letter_item(letter) for letter in letters] if letters is not None else None
    return request.answer_page(AsOf(head, None if items is None else ListSlice(items, None)))


def _dead_letter_item(letter: DeadLetter) -> dict[str, Any]:
    return {
        "event_position": letter.position,
        "event_id": letter.event_id,
        "type": letter.type,
        "streams": letter.streams,
        "cause": letter.cause,
        "attempts": letter.attempts,
        "since": letter.since,
    }
