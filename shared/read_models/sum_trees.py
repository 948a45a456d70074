"""Trees of sums: what was added up to a moment or a position, found by reading a few documents, however much was added.

A moment lies in a month, a day, an hour and so on, down to a microsecond. Each period to which something was added is a document
of the read model. It has the sum of all that was added within the period (`within`), and the sum of what was added exactly at its
start (`start`). A moment that is the start of a period needs no shorter periods: an entry of which only the day is known makes
two documents at most.

The sum up to a moment consists of the sums within the earlier periods of the same month, day, hour and so on, and of what was
added at the starts of the periods that the moment lies in. Nothing is ever read to add to a tree, and adding changes no other
document, so a late entry rewrites nothing.

A position of the log is a place like a moment: its periods are those of a billion, a million and a thousand positions.

A sum has no upper limit, and a number in MongoDB has one. So a sum is stored as two numbers: see `stored_amount`.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple


class Places(NamedTuple):
    """How many characters of a place name each of its periods, and a place with which all its periods start."""

    lengths: tuple[int, ...]
    start: str


MOMENTS: Final = Places((7, 10, 13, 16, 19, 23, 26), "0000-01-01T00:00:00.000000Z")
"""The month, day, hour, minute, second, millisecond and microsecond of a timestamp."""
POSITIONS: Final = Places((7, 10, 13, 16), "0" * 16)
"""The billion, the million, the thousand and the position itself: see `place_of`."""


class Tree(NamedTuple):
    """The tree of `owner_id`, read up to a place."""

    owner_id: str
    place: str
    places: Places = MOMENTS


_UNIT: Final = 10**9


def place_of(position: int) -> str:
    """Returns a position as a place."""
    return f"{position:016d}"


def add_at(sums: dict[str, dict[str, int]], owner_id: str, place: str, amount: int, places: Places = MOMENTS) -> None:
    """Adds an amount to the tree of `owner_id`, an id without `/`. `sums` gets what to add to each document, by id and field."""
    for level, length in enumerate(places.lengths):
        counts = sums.setdefault(f"{owner_id}/{level}/{place[:length]}", {})
        _add(counts, "within", amount)
        if place[length:] == places.start[length:]:
            _add(counts, "start", amount)
            break


def _add(counts: dict[str, int], name: str, amount: int) -> None:
    for part, value in zip(("billions", "rest"), stored_amount(amount), strict=True):
        counts[f"{name}_{part}"] = counts.get(f"{name}_{part}", 0) + value


def stored_amount(amount: int) -> tuple[int, int]:
    """Returns an amount as two numbers, billions and the rest, that 64 bits can add up billions of times."""
    billions, rest = divmod(abs(amount), _UNIT)
    return (billions, rest) if amount >= 0 else (-billions, -rest)


def stages_up_to(trees: Sequence[Tree]) -> list[dict[str, Any]]:
    """Returns the aggregation stages that read trees, each up to its place, inclusive. `sums_in` reads their answer."""
    ranges, lasts = [], []
    for tree in trees:
        lengths = tree.places.lengths
        begun = [f"{tree.owner_id}/{level}/{tree.place[:length]}" for level, length in enumerate(lengths)]
        firsts = [f"{tree.owner_id}/{level}/{tree.place[:length]}" for level, length in enumerate((0, *lengths[:-1]))]
        ranges += [{"_id": {"$gte": first, "$lte": last}} for first, last in zip(firsts, begun, strict=True)]
        lasts += begun
    owner = {"$arrayElemAt": [{"$split": ["$_id", "/"]}, 0]}
    sums = {name: {"$sum": f"${name}"} for name in _names()}
    return [{"$match": {"$or": ranges}}, {"$group": {"_id": {"owner": owner, "is_last": {"$in": ["$_id", lasts]}}, **sums}}]


def _names() -> Iterator[str]:
    return (f"{name}_{part}" for name in ("within", "start") for part in ("billions", "rest"))


def sums_in(groups: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """Returns what the stages of `stages_up_to` found, by owner. Of a period that the place lies in, only the start counts."""
    sums = Counter[str]()
    for group in groups:
        sums[group["_id"]["owner"]] += _amount(group, "start" if group["_id"]["is_last"] else "within")
    return sums


def _amount(counts: Mapping[str, int], name: str) -> int:
    return counts[f"{name}_billions"] * _UNIT + counts[f"{name}_rest"]
