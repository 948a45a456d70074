"""Says which transfers were recorded after the day was closed in which they occurred."""

from collections.abc import Sequence

import msgspec

from query_api.reading import AsOf, CallerView, JsonObject
from shared.read_models.shapes import DAYS


class Recording(msgspec.Struct, frozen=True):
    """When a transfer occurred, and when it was recorded at which position."""

    occurred_at: str
    recorded_at: str
    position: int


async def find_late(view: CallerView, recordings: Sequence[Recording]) -> tuple[set[int], AsOf[None] | None]:
    """Finds those that came after the day was closed in which they occurred.

    Returns their positions, and as of when the days were read. The second is None if no day had to be read, because nothing is
    back-dated.
    """
    backdated = [each for each in recordings if each.occurred_at < each.recorded_at]
    if not backdated:
        return set(), None
    moments = [each.occurred_at for each in backdated]
    stages: list[JsonObject] = [
        {"$match": {"end": {"$gt": min(moments)}, "start": {"$lte": max(moments)}}},
        {"$project": {"_id": 0, "start": 1, "end": 1, "up_to": 1}},
    ]
    days = await view.documents(DAYS, stages, alone=len(backdated) > 1)
    late = {
        each.position
        for each in backdated
        if any(day["start"] <= each.occurred_at < day["end"] and day["up_to"] < each.position for day in days.data)
    }
    return late, days.holding(None)
