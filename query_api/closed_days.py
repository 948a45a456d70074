"""Says which transfers were recorded after the day was closed in which they occurred."""

from collections.abc import Sequence

from query_api.reading import AsOf, CallerView, JsonObject
from shared.read_models.shapes import DAYS


async def mark_late(view: CallerView, transfers: Sequence[JsonObject]) -> AsOf[None] | None:
    """Gives each transfer the member `after_close`. Returns the position of what was read for it, or None if nothing was."""
    for transfer in transfers:
        transfer["after_close"] = False
    backdated = [each for each in transfers if each["occurred_at"] < each["recorded_at"]]
    if not backdated:
        return None
    moments = [each["occurred_at"] for each in backdated]
    stages: list[JsonObject] = [
        {"$match": {"end": {"$gt": min(moments)}, "start": {"$lte": max(moments)}}},
        {"$project": {"_id": 0, "start": 1, "end": 1, "up_to": 1}},
    ]
    days = await view.documents(DAYS, stages, alone=len(backdated) > 1)
    for transfer in backdated:
        transfer["after_close"] = any(
            day["start"] <= transfer["occurred_at"] < day["end"] and day["up_to"] < transfer["position"] for day in days.data
        )
    return days.holding(None)
