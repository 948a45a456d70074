"""Trees of sums: what was added up to a moment, found by reading a few documents, however much was added.

A moment lies in a month, a day, an hour and so on, down to a microsecond. Each period to which something was added is a document
of the read model. It has the sum of all that was added within the period (`within`), and the sum of what was added exactly at its
start (`start`). A moment that is the start of a period needs no shorter periods: an entry of which only the day is known makes
two documents at most.

The sum up to a moment consists of the sums within the earlier periods of the same month, day, hour and so on, and of what was
added at the starts of the periods that the moment lies in. Nothing is ever read to add to a tree, and adding changes no other
document, so a late entry rewrites nothing.

A sum has no upper limit, and a number in MongoDB has one. So a sum is stored as two numbers: see `stored_amount`.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

PERIOD_LENGTHS: Final = (7, 10, 13, 16, 19, 23, 26)
"""How many characters of a timestamp name its month, day, hour, minute, second, millisecond and microsecond."""
_STARTS: Final = "0000-01-01T00:00:00.000000Z"
_UNIT: Final = 10**9


def add_at(sums: dict[str, dict[str, int]], owner_id: str, moment: str, amount: int) -> None:
    """Adds an amount to the tree of `owner_id`. `sums` gets what to add to each document, by id and field."""
    for level, length in enumerate(PERIOD_LENGTHS):
        counts = sums.setdefault(f"{owner_id}/{level}/{moment[:length]}", {})
        _add(counts, "within", amount)
        if moment[length:] == _STARTS[length:]:
            _add(counts, "start", amount)
            break


def _add(counts: dict[str, int], name: str, amount: int) -> None:
    for part, value in zip(("billions", "rest"), stored_amount(amount), strict=True):
        counts[f"{name}_{part}"] = counts.get(f"{name}_{part}", 0) + value


def stored_amount(amount: int) -> tuple[int, int]:
    """Returns an amount as two numbers, billions and the rest, that 64 bits can add up billions of times."""
    billions, rest = divmod(abs(amount), _UNIT)
    return (billions, rest) if amount >= 0 else (-billions, -rest)


def stages_up_to(owner_id: str, moment: str) -> list[dict[str, Any]]:
    """Returns the aggregation stages that read the sum of a tree up to a moment, inclusive. `sum_in` reads their answer."""
    lasts = [f"{owner_id}/{level}/{moment[:length]}" for level, length in enumerate(PERIOD_LENGTHS)]
    firsts = [f"{owner_id}/{level}/{moment[:length]}" for level, length in enumerate((0, *PERIOD_LENGTHS[:-1]))]
    ranges = [{"_id": {"$gte": first, "$lte": last}} for first, last in zip(firsts, lasts, strict=True)]
    sums = {name: {"$sum": f"${name}"} for name in _names()}
    return [{"$match": {"$or": ranges}}, {"$group": {"_id": {"$in": ["$_id", lasts]}, **sums}}]


def _names() -> Iterator[str]:
    return (f"{name}_{part}" for name in ("within", "start") for part in ("billions", "rest"))


def sum_in(groups: list[dict[str, Any]]) -> int:
    """Returns the sum that the stages of `stages_up_to` found. Of a period that the moment lies in, only the start counts."""
    return sum(_amount(group, "start" if group["_id"] else "within") for group in groups)


def _amount(counts: Mapping[str, int], name: str) -> int:
    return counts[f"{name}_billions"] * _UNIT + counts[f"{name}_rest"]
