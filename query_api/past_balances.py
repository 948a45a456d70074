"""What accounts had posted at a past moment or position, read from a few documents, however many entries an account has.

There are two axes. On `recorded_at`, the answer is what the log said then: the balance after the account's last entry up to the
position. Nothing changes it later. On `occurred_at`, the answer is what was true then, as far as the log tells today: a
back-dated entry counts from the moment when it occurred. That is the balance on the other axis plus the account's shifts up to
the moment: see `shared.read_models.sum_trees`.

What an account held cannot be read so, because a hold also ends by itself. So only the posted amount is known of the past.
"""

import asyncio
from collections.abc import Sequence

import msgspec

from query_api.parameters import Axis
from query_api.reading import AsOf, CallerView, JsonObject, rebuilding
from shared.errors import ValidationFailed
from shared.read_models.shapes import CURRENCY_SUMS, ENTRIES, SHIFTS, entry_id, recorded_sum, shifted_sum
from shared.read_models.sum_trees import POSITIONS, Tree, place_of, stages_up_to, sums_in


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


async def find_posted(view: CallerView, account_ids: Sequence[str], past: PastMoment, axis: Axis) -> AsOf[dict[str, int]]:
    """Returns what accounts had posted. The position of the answer is the last one that it depends on.

    On `recorded_at` this is the position of the moment. On `occurred_at` it is that of the shifts, because each later event can
    be back-dated. An account without entries had 0, also if it was not open yet. Each account costs a question of its own.

    Raises:
        Rebuilding: the ledger has no live generation of a read model.
        ProjectionBehind: a read model did not reach the moment in time.
    """
    up_to_then = view.reaching(past.position)
    last_entries = [_last_entry(account_id, past.position) for account_id in account_ids]
    found = await asyncio.gather(*(up_to_then.documents(ENTRIES, stages) for stages in last_entries))
    pairs = zip(account_ids, found, strict=True)
    posted = {account_id: _balance_in(entries.data[0]) if entries.data else 0 for account_id, entries in pairs}
    if axis == "recorded_at" or not account_ids:
        return AsOf(past.position, posted)
    trees = [Tree(account_id, past.moment) for account_id in account_ids]
    shifts = await _up_to_now(view, past).documents(SHIFTS, stages_up_to(trees), alone=len(trees) > 1)
    shifted = sums_in(shifts.data)
    return shifts.holding({account_id: amount + shifted[account_id] for account_id, amount in posted.items()})


def _last_entry(account_id: str, position: int) -> list[JsonObject]:
    ids = {"$gte": entry_id(account_id, 0), "$lte": entry_id(account_id, position)}
    return [{"$match": {"_id": ids}}, {"$sort": {"_id": -1}}, {"$limit": 1}]


async def find_sums(
    view: CallerView, currencies: Sequence[str], past: PastMoment, axis: Axis
) -> AsOf[dict[str, tuple[int, int]]]:
    """Returns what all accounts of each currency had together, and what the outside world had. The position is as above.

    Raises:
        Rebuilding: the ledger has no live generation of a read model.
        ProjectionBehind: the read model did not reach the moment in time.
    """
    sides = [(currency, side) for currency in currencies for side in ("accounts", "outside")]
    trees = [Tree(recorded_sum(*each), place_of(past.position), POSITIONS) for each in sides]
    if axis == "occurred_at":
        trees += [Tree(shifted_sum(*each), past.moment) for each in sides]
    if not trees:
        return AsOf(past.position, {})
    reaching = _up_to_now(view, past) if axis == "occurred_at" else view.reaching(past.position)
    found = await reaching.documents(CURRENCY_SUMS, stages_up_to(trees), alone=True)
    sums = sums_in(found.data)
    totals = {each: sums[recorded_sum(*each)] + sums[shifted_sum(*each)] for each in sides}
    position = found.position if axis == "occurred_at" else past.position
    return AsOf(position, {each: (totals[each, "accounts"], totals[each, "outside"]) for each in currencies})


def _up_to_now(view: CallerView, past: PastMoment) -> CallerView:
    """Returns a view for what may change later: as fresh as the caller needs it, and not older than the moment."""
    return view.reaching(max(past.position, view.freshness.min_position))


class _Balance(msgspec.Struct):
    balance: int


def _balance_in(document: JsonObject) -> int:
    if "item" not in document:
        raise rebuilding(ENTRIES)
    return msgspec.json.decode(document["item"], type=_Balance).balance
