"""Activity: the most recently recorded transfers."""

from typing import Annotated

import orjson
from fastapi import Query, Response
from pydantic import Field

from query_api.documentation import READ_MODEL, documented
from query_api.lists import ListSlice
from query_api.parameters import LIMIT_DEFAULT, Integer, Parameters
from query_api.reading import AsOf, CallerView
from query_api.requests import QueryRequest, query_router
from query_api.resources.transfers import ACTIVITY_EXAMPLE, ActivityResource
from query_api.responses import Page, page_of
from shared.identity.access import only
from shared.read_models.shapes import ACTIVITY, ACTIVITY_MAX

router = query_router()


class ActivityParameters(Parameters):
    limit: Annotated[Integer, Field(ge=1, le=ACTIVITY_MAX, description="The maximum number of items to return.")] = LIMIT_DEFAULT


async def find_activity(view: CallerView, limit: int) -> AsOf[ListSlice]:
    found = await view.values(ACTIVITY, ("LRANGE", "recent", "0", str(limit - 1)))
    return found.holding(ListSlice([orjson.Fragment(item) for item in found.data[0]], None))


@router.get(
    "/activity",
    tags=["statistics"],
    **documented(Page[ActivityResource], page_of(ACTIVITY_EXAMPLE), *READ_MODEL, access=only("ledger:read")),
)
async def list_activity(request: QueryRequest, parameters: Annotated[ActivityParameters, Query()]) -> Response:
    """List the most recently recorded transfers, newest first."""
    return request.answer_page(await find_activity(request.view(), parameters.limit))
