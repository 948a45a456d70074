"""What verifying finds: the first place where something is not what the log says it must be."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from shared.events import canonical

SHOWN_CHARACTERS_MAX: Final = 200
PERSONAL: Final = {"name", "email", "search"}
HIDDEN: Final = "(personal)"


class DifferenceFound(Exception):
    """Says where, what was expected and what was found."""

    def __init__(self, where: str, expected: object, found: object) -> None:
        super().__init__(f"{where}: expected {_shown(expected)}, found {_shown(found)}")


def require_equal(where: str, expected: Any, found: Any) -> None:
    """Raises:
    DifferenceFound: names the field, or the place in a list, where the two begin to differ; 1 and 1.0 do.
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
    """Where the two begin to differ; empty where they are equal."""
    try:
        require_equal(where, expected, found)
    except DifferenceFound as different:
        return str(different)
    return ""


def _members(text: object) -> Mapping[str, Any] | None:
    """Of an object that is stored as JSON; None of everything else."""
    try:
        return msgspec.json.decode(text, type=dict[str, Any]) if isinstance(text, str) else None
    except msgspec.DecodeError:
        return None


def _shown(value: object) -> str:
    """What is found is read in terminals and logs, so it never shows what a person is called."""
    if isinstance(value, Mapping):
        value = {name: HIDDEN if name in PERSONAL and part else part for name, part in value.items()}
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= SHOWN_CHARACTERS_MAX else text[:SHOWN_CHARACTERS_MAX] + "…"
