"""What an account had posted at a past moment or position, read from a few documents, however many entries the account has.

There are two axes. On `recorded_at`, the answer is what the log said then: the balance after the account's last entry up to the
position. Nothing changes it later. On `occurred_at`, the answer is what was true then, as far as the log tells today: a
back-dated entry counts from the moment when it occurred. That is the balance on the other axis plus the account's shifts up to
the moment: see `shared.read_models.sum_trees`.

What an account held cannot be read so, because a hold also ends by itself. So only the posted amount is known of the past.
"""

import msgspec

from query_api.parameters import Axis
from query_api.reading import AsOf, CallerView, JsonObject, rebuilding
from shared.errors import ValidationFailed
from shared.read_models.shapes import ENTRIES, SHIFTS, entry_id
from shared.read_models.sum_trees import stages_up_to, sum_in


class PastMoment(msgspec.Struct, frozen=True):
    """A place in the past: a moment, and the position of the last event that was recorded up to it."""

    moment: str
    position: int


async def find_moment(view: CallerView, at: int | str, axis: Axis) -> PastMoment:
    """Finds the position of a moment, or the moment of a position. The log has it, so this reads no read model.

    Events of one transaction have the same moment. On `occurred_at`, a position means its moment, with all that occurred then.

    Raises:
        NotFound: there is no such ledger.
        ValidationFailed: the log has not reached the position.
    """
    clock = view.reader.clock
    if isinstance(at, str):
        position = await clock.position_at(view.ledger_id, at)
        return PastMoment(at, await view.reader.require_ledger(view.ledger_id) if position is None else position)
    moment = await clock.moment_of(view.ledger_id, at)
    if moment is None:
        await view.reader.require_ledger(view.ledger_id)
        raise ValidationFailed(errors=[{"pointer": "query: at", "detail": "The log has not reached this position"}])
    return PastMoment(moment, at) if axis == "recorded_at" else await find_moment(view, moment, axis)


async def find_posted(view: CallerView, account_id: str, past: PastMoment, axis: Axis) -> AsOf[int]:
    """Returns what an account had posted. The position of the answer is the last one that it depends on.

    On `recorded_at` this is the position of the moment. On `occurred_at` it is that of the shifts, because each later event can
    be back-dated. An account without entries had 0, also if it was not open yet.

    Raises:
        Rebuilding: the ledger has no live generation of a read model.
        ProjectionBehind: a read model did not reach the moment in time.
    """
    ids = {"$gte": entry_id(account_id, 0), "$lte": entry_id(account_id, past.position)}
    stages: list[JsonObject] = [{"$match": {"_id": ids}}, {"$sort": {"_id": -1}}, {"$limit": 1}]
    found = await view.reaching(past.position).documents(ENTRIES, stages)
    posted = _balance_in(found.data[0]) if found.data else 0
    if axis == "recorded_at":
        return AsOf(past.position, posted)
    up_to_now = view.reaching(max(past.position, view.freshness.min_position))
    shifts = await up_to_now.documents(SHIFTS, stages_up_to(account_id, past.moment))
    return shifts.holding(posted + sum_in(shifts.data))


class _Balance(msgspec.Struct):
    balance: int


def _balance_in(document: JsonObject) -> int:
    if "item" not in document:
        raise rebuilding(ENTRIES)
    return msgspec.json.decode(document["item"], type=_Balance).balance
