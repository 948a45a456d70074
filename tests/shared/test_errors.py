"""The tree of errors that the docstring of `shared.errors` draws is the tree of classes."""

import inspect
import re

from shared import day_errors, errors, hold_errors
from shared.money import AMOUNT_MAX
from shared.web.problems import STATUS, problem

CLASSES = {
    name: found
    for name, found in vars(errors).items()
    if inspect.isclass(found) and issubclass(found, errors.DaybookError) and found.__module__ == errors.__name__
}


def drawn() -> dict[str, str]:
    """Each class in the docstring, with the class that it is drawn under."""
    parents: dict[str, str] = {"DaybookError": "Exception"}
    branch = ""
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r" {4}[├└]── (\w+)", line):
            branch = found[1]
            parents[branch] = "DaybookError"
        elif found := re.match(r" {4}[│ ] {3}[├└]── [\w -]+?  +(.+)", line):
            for name, children in re.findall(r"(\w+)(?: \(([\w, ]+)\))?", found[1]):
                parents[name] = branch
                parents |= dict.fromkeys(re.findall(r"\w+", children), name)
    return parents


def test_the_drawn_tree_is_the_tree_of_classes() -> None:
    assert drawn() == {name: found.__base__.__name__ for name, found in CLASSES.items() if found.__base__}


def test_every_error_that_is_raised_has_a_code_and_a_title() -> None:
    leaves = [
        found for found in CLASSES.values() if found.__base__ is not errors.DaybookError and found is not errors.DaybookError
    ]
    assert leaves
    for leaf in leaves:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", leaf.code)
        assert leaf.title() != leaf.__name__


def test_one_code_has_one_meaning() -> None:
    """Two classes with the same code would give a client two answers to the question if a retry can help."""
    classes: dict[str, list[type[errors.DaybookError]]] = {}
    for found in CLASSES.values():
        if "code" in vars(found):
            classes.setdefault(found.code, []).append(found)
    assert {code: found for code, found in classes.items() if len(found) > 1} == {}


def test_a_message_holds_the_numbers_that_it_speaks_of() -> None:
    told = {
        errors.InsufficientFunds(available=1000, required=1001): ["1000", "1001"],
        errors.AccountNotEmpty(posted=-7, held=3): ["-7", "3"],
        hold_errors.HoldAmountExceeded(remaining=5, required=6): ["5", "6"],
        hold_errors.TooManyHolds(holds_max=500): ["500"],
        day_errors.DayOutOfOrder(next_day="2026-02-01"): ["2026", "-02", "-01"],
        day_errors.DayNotEnded(ends_at="2026-02-01"): ["2026", "-02", "-01"],
        errors.CurrencyMismatch(account_currency="EUR"): ["EUR"],
        errors.VersionMismatch(current_version=12): ["12"],
        errors.BalanceOutOfRange(account_id="…"): [str(AMOUNT_MAX)],
        errors.TooManyStreams(streams_max=20): ["20"],
        errors.ProjectionBehind(position=41, lag_events=3): ["41", "3"],
        errors.NotSealedYet(position=9, sealed_position=4): ["9", "4"],
        errors.RateLimited(retry_after_seconds=17): ["17"],
        errors.PayloadTooLarge(bytes_max=262_144): ["262144"],
    }
    for error, numbers in told.items():
        assert re.findall(r"-?\d+|[A-Z]{3}", error.detail) == numbers, error.detail
        assert problem(error)["detail"] == error.detail


def test_an_error_without_its_numbers_has_its_title_as_its_message() -> None:
    """The router raises some of these errors without the limits and counts that their messages speak of."""
    for found in CLASSES.values():
        if issubclass(found, errors.DaybookError) and getattr(found, "code", None) in STATUS:
            assert found().detail
