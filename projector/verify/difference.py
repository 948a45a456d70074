"""Compares values, and describes the first difference without showing personal data."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from shared.log.encoding import canonical

SHOWN_CHARACTERS_MAX: Final = 200
PERSONAL: Final = {"name", "email", "metadata", "search"}
HIDDEN: Final = "(personal)"


class DifferenceFound(Exception):
    """Something does not match the log. The message names the place, what was expected and what was found."""

    def __init__(self, where: str, expected: object, found: object) -> None:
        super().__init__(f"{where}: expected {_shown(expected)}, found {_shown(found)}")


def require_equal(where: str, expected: Any, found: Any) -> None:
    """Compares two values, including their types: 1 and 1.0 differ.

    Raises:
        DifferenceFound: the values differ. The error names the field or list item with the first difference.
    """
    if expected == found and canonical(expected) == canonical(found):
        return
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        for name in sorted(expected.keys() | found.keys()):
            if name in PERSONAL and expected.get(name) != found.get(name):
                raise DifferenceFound(f"{where}, {name}", HIDDEN, f"another {HIDDEN}")
            require_equal(f"{where}, {name}", expected.get(name), found.get(name))
    if isinstance(expected, list) and isinstance(found, list):
        for place, (one, other) in enumerate(zip(expected, found, strict=False)):
            require_equal(f"{where}, item {place}", one, other)
    members = _members(expected), _members(found)
    if None not in members and canonical(members[0]) != canonical(members[1]):
        require_equal(where, *members)
    raise DifferenceFound(where, expected, found)


def difference(where: str, expected: Any, found: Any) -> str:
    """Returns a message that names the first difference between two values, or an empty text if they are equal."""
    try:
        require_equal(where, expected, found)
    except DifferenceFound as different:
        return str(different)
    return ""


def _members(text: object) -> Mapping[str, Any] | None:
    """Returns the members of a JSON object that is stored as a string. Returns None for every other value."""
    try:
        return msgspec.json.decode(text, type=dict[str, Any]) if isinstance(text, str) else None
    except msgspec.DecodeError:
        return None


def _shown(value: object) -> str:
    """Returns the value as text for terminals and log lines. What is personal is hidden."""
    if isinstance(value, Mapping):
        value = {name: HIDDEN if name in PERSONAL and part else part for name, part in value.items()}
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= SHOWN_CHARACTERS_MAX else text[:SHOWN_CHARACTERS_MAX] + "…"
