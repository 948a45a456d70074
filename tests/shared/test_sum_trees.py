"""Trees of sums: what was added up to a moment, from the documents that the read model has."""

from collections import Counter
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from shared.read_models.sum_trees import POSITIONS, Tree, add_at, place_of, stages_up_to, stored_amount, sums_in
from shared.timestamps import timestamp

DIGITS = st.sampled_from([0, 1, 59])
MOMENTS = st.builds(
    lambda year, month, day, hour, minute, second, fraction: timestamp(
        datetime(year, month, day, hour, minute, second, fraction, UTC)
    ),
    st.sampled_from([1900, 2025, 2026]),
    st.sampled_from([1, 2, 12]),
    st.sampled_from([1, 2, 28]),
    st.sampled_from([0, 1, 23]),
    DIGITS,
    DIGITS,
    st.sampled_from([0, 1, 1_000, 999_999, 500_000]),
)
AMOUNTS = st.integers(-(2**53), 2**53)
Sums = dict[str, dict[str, int]]


def sums_up_to(sums: Sums, *trees: Tree) -> Counter[str]:
    """Reads the documents as MongoDB does, and adds them up."""
    match, group = stages_up_to(trees)
    ranges = [(each["_id"]["$gte"], each["_id"]["$lte"]) for each in match["$match"]["$or"]]
    _, lasts = group["$group"]["_id"]["is_last"]["$in"]
    groups: dict[tuple[str, bool], Counter[str]] = {}
    for document_id, counts in sums.items():
        if any(first <= document_id <= last for first, last in ranges):
            groups.setdefault((document_id.split("/")[0], document_id in lasts), Counter()).update(counts)
    return sums_in(
        {"_id": {"owner": owner, "is_last": is_last}, **{name: counts[name] for name in names(group)}}
        for (owner, is_last), counts in groups.items()
    )


def names(group: dict[str, dict[str, object]]) -> list[str]:
    return [name for name in group["$group"] if name != "_id"]


@given(st.lists(st.tuples(MOMENTS, AMOUNTS), max_size=30), MOMENTS)
def test_the_sum_up_to_a_moment_is_that_of_all_that_was_added_at_it_or_before(added: list[tuple[str, int]], at: str) -> None:
    sums: Sums = {}
    for moment, amount in added:
        add_at(sums, "a", moment, amount)
        add_at(sums, "b", moment, 1)
    for moment in {at, *(moment for moment, _ in added)}:
        found = sums_up_to(sums, Tree("a", moment), Tree("b", at))
        assert found["a"] == sum(amount for other, amount in added if other <= moment)
        assert found["b"] == sum(1 for other, _ in added if other <= at)


PLACES = st.integers(0, 12) | st.sampled_from([999, 1_000, 1_001, 999_999, 10**6, 10**9, 10**9 + 1, 2**53 - 1])


@given(st.lists(st.tuples(PLACES, AMOUNTS), max_size=30), PLACES)
def test_the_sum_up_to_a_position_is_that_of_all_that_was_added_at_it_or_before(added: list[tuple[int, int]], at: int) -> None:
    sums: Sums = {}
    for position, amount in added:
        add_at(sums, "a", place_of(position), amount, POSITIONS)
    found = sums_up_to(sums, Tree("a", place_of(at), POSITIONS))
    assert found["a"] == sum(amount for position, amount in added if position <= at)


@given(st.lists(MOMENTS, max_size=10), MOMENTS, AMOUNTS)
def test_what_is_taken_away_at_the_same_moment_leaves_no_number_behind(others: list[str], moment: str, amount: int) -> None:
    sums: Sums = {}
    for other in others:
        add_at(sums, "a", other, 7)
    before = {document_id: Counter(counts) for document_id, counts in sums.items()}
    add_at(sums, "a", moment, amount)
    add_at(sums, "a", moment, -amount)
    assert all(Counter(counts) == before.get(document_id, Counter()) for document_id, counts in sums.items())


def test_a_moment_of_which_only_the_day_is_known_makes_two_documents() -> None:
    sums: Sums = {}
    add_at(sums, "a", "2025-03-05T00:00:00.000000Z", 5)
    assert list(sums) == ["a/0/2025-03", "a/1/2025-03-05"]
    add_at(sums, "a", "2025-03-05T00:00:00.000001Z", 5)
    assert len(sums) == 7


@given(AMOUNTS)
def test_a_billion_of_the_largest_amounts_fit_into_64_bits(amount: int) -> None:
    billions, rest = stored_amount(amount)
    assert billions * 10**9 + rest == amount
    assert max(abs(billions), abs(rest)) * 10**9 < 2**63
