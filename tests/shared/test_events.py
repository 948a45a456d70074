"""The storage format of events: everything that was ever stored must decode forever."""

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import errors
from shared.log.day_events import CurrencyTotals
from shared.log.encoding import NO_KEYS, DecryptionKeys, Upcaster, canonical, decode, encode, upcasted
from shared.log.event_struct import ScheduledRun, Spent
from shared.log.events import EVENT_TYPES, Event
from shared.log.money_events import Leg
from shared.privacy.encryption import people_of
from shared.schedule_rules import PlannedRun, ScheduleRule
from shared.timestamps import timestamp

GOLDEN = json.loads((Path(__file__).parent / "golden" / "events.json").read_text())
EVENT_ID = "00000000-0000-0000-0000-0000000000ee"
KEYS = {"00000000-0000-0000-0000-0000000000a1": bytes(range(32))}
RUNS = st.builds(PlannedRun, st.text(max_size=9), st.none() | st.text(max_size=9))
VALUES: dict[Any, st.SearchStrategy[Any]] = {
    tuple[Leg, ...]: st.lists(
        st.builds(Leg, st.none() | st.text(), st.text(), st.integers(-(2**53), 2**53), st.none() | st.integers(0, 2**53)),
        max_size=3,
    ).map(tuple),
    tuple[CurrencyTotals, ...]: st.lists(
        st.builds(CurrencyTotals, st.text(), st.integers(0, 2**53), st.text(), st.text(), st.text()), max_size=3
    ).map(tuple),
    str: st.text(st.characters(codec="utf-8", exclude_characters="\x00")),
    int: st.integers(-(2**53) + 1, 2**53 - 1),
    int | None: st.none() | st.integers(-(2**53) + 1, 2**53 - 1),
    tuple[str, ...] | None: st.none() | st.lists(st.text(max_size=5), max_size=3).map(tuple),
    str | None: st.none() | st.text(st.characters(codec="utf-8"), max_size=20),
    Spent | None: st.none() | st.builds(Spent, st.text(max_size=9), st.integers(0, 2**53), st.integers(0, 2**53)),
    PlannedRun: RUNS,
    PlannedRun | None: st.none() | RUNS,
    ScheduledRun | None: st.none() | st.builds(ScheduledRun, st.text(max_size=9), st.integers(1, 2**53), st.none() | RUNS),
    ScheduleRule | None: st.none()
    | st.builds(ScheduleRule, st.just("month"), st.text(max_size=5), st.text(max_size=5), st.none() | st.integers(1, 31)),
    dict[str, int] | None: st.none() | st.dictionaries(st.text(max_size=5), st.integers(0, 2**53), max_size=3),
    dict[str, str] | None: st.none() | st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
}


@st.composite
def events(draw: st.DrawFn) -> Event:
    event_type = draw(st.sampled_from(list(EVENT_TYPES.values())))
    fields = msgspec.structs.fields(event_type)
    return event_type(**{field.name: draw(_values(field.type)) for field in fields})


def _values(kind: Any) -> st.SearchStrategy[Any]:
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    return st.sampled_from(get_args(kind)) if get_origin(kind) is Literal else VALUES[kind]


def encoded(event: Event) -> tuple[bytes, DecryptionKeys]:
    """The event as it is stored, and what is needed to decode it."""
    keys = dict.fromkeys(people_of(event), bytes(32))
    return encode("main", EVENT_ID, event, keys), DecryptionKeys("main", EVENT_ID, keys)


@given(events())
def test_decoding_an_encoded_event_gives_the_same_event(event: Event) -> None:
    data, keys = encoded(event)
    assert decode(type(event).__name__, event.schema_version, data, keys) == event


@given(events())
def test_canonical_json_does_not_depend_on_the_order_of_keys_and_on_spaces(event: Event) -> None:
    """PostgreSQL prints jsonb with its own order of keys and with spaces. That must not change the hash."""
    data, _ = encoded(event)
    respaced = json.dumps(dict(reversed(json.loads(data).items())), indent=2, ensure_ascii=True)
    assert canonical(msgspec.json.decode(respaced)) == data


@pytest.mark.parametrize("stored", GOLDEN, ids=lambda stored: f"{stored['type']} v{stored['schema_version']}")
def test_events_stored_by_every_earlier_version_still_decode(stored: dict[str, Any]) -> None:
    keys = DecryptionKeys("main", EVENT_ID, KEYS)
    event = decode(stored["type"], stored["schema_version"], json.dumps(stored["data"]), keys)
    assert "(erased)" not in canonical(event).decode()
    assert type(event).__name__ == stored["type"]
    assert list(event.streams()) == stored["streams"]


def test_each_version_of_each_event_has_a_golden_example() -> None:
    golden = {(stored["type"], stored["schema_version"]) for stored in GOLDEN}
    expected = {(name, v) for name, kind in EVENT_TYPES.items() for v in range(1, kind.schema_version + 1)}
    assert golden == expected


def test_old_versions_go_through_every_step_to_the_present_one() -> None:
    steps: dict[tuple[str, int], Upcaster] = {
        ("MoonSeen", 1): lambda data: {"phases": [data["phase"]]},
        ("MoonSeen", 2): lambda data: {**data, "seen_by": "nobody"},
    }
    assert upcasted("MoonSeen", 1, 3, {"phase": "new"}, steps) == {"phases": ["new"], "seen_by": "nobody"}
    assert upcasted("MoonSeen", 2, 3, {"phases": []}, steps) == {"phases": [], "seen_by": "nobody"}
    assert upcasted("MoonSeen", 3, 3, {"phases": []}, steps) == {"phases": []}
    with pytest.raises(errors.UnknownEvent, match="never had schema version 0"):
        upcasted("MoonSeen", 0, 3, {}, steps)


@pytest.mark.parametrize(
    ("type_name", "schema_version", "data"),
    [
        ("FundsVanished", 1, "{}"),
        ("UserDeactivated", 99, '{"user_id":"u"}'),
        ("UserDeactivated", 1, "{}"),
        ("UserDeactivated", 1, '{"user_id":"u","more":1}'),
        ("UserCreated", 1, '{"user_id":"u","name":"in plain","email":"a@b.c","email_hash":"h"}'),
        ("FundsDeposited", 1, '{"transfer_id":"t","account_id":"a","amount":1.0,"currency":"EUR","balance":1}'),
    ],
)
def test_an_event_that_this_code_cannot_read_is_never_ignored(type_name: str, schema_version: int, data: str) -> None:
    with pytest.raises(errors.UnknownEvent):
        decode(type_name, schema_version, data, NO_KEYS)


def test_moments_sort_as_text_whatever_their_zone() -> None:
    earlier = datetime(2026, 3, 1, 0, 30, tzinfo=timezone(timedelta(hours=2)))
    later = datetime(2026, 2, 28, 23, 0, 0, 1, tzinfo=UTC)
    assert timestamp(earlier) == "2026-02-28T22:30:00.000000Z"
    assert timestamp(earlier) < timestamp(later)
