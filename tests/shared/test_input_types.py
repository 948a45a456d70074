"""What the types of request fields accept, and the one form that they give. No server."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from query_api.parameters import OccurredAtRange
from shared.input_types import Moment

MOMENT = TypeAdapter[str](Moment)


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("2026-11-21T09:30:00Z", "2026-11-21T09:30:00.000000Z"),
        ("2026-11-21T09:30:00.5Z", "2026-11-21T09:30:00.500000Z"),
        ("2026-11-21T09:30:00.1234567Z", "2026-11-21T09:30:00.123456Z"),
        ("2026-11-21T09:30:00.123456789+01:00", "2026-11-21T08:30:00.123456Z"),
        ("2026-12-31T23:59:59.999999999Z", "2026-12-31T23:59:59.999999Z"),
        ("2026-11-21T09:30:00." + "9" * 500 + "Z", "2026-11-21T09:30:00.999999Z"),
        ("2026-11-21t09:30:00-00:00", "2026-11-21T09:30:00.000000Z"),
        ("2026-11-21T09:30:00+14:00", "2026-11-20T19:30:00.000000Z"),
        ("1900-01-01T00:00:00Z", "1900-01-01T00:00:00.000000Z"),
        ("1899-12-31T23:00:00-01:00", "1900-01-01T00:00:00.000000Z"),
        ("2199-12-31T23:59:59.999999999Z", "2199-12-31T23:59:59.999999Z"),
        ("2200-01-01T00:30:00+01:00", "2199-12-31T23:30:00.000000Z"),
    ],
)
def test_a_moment_is_kept_in_utc_with_microseconds_and_further_digits_are_cut_off(written: str, kept: str) -> None:
    """.NET writes 7 digits of a second; Go and Java write 9. Cutting them off never moves a moment into the future."""
    assert MOMENT.validate_python(written) == kept


@pytest.mark.parametrize(
    "written",
    [
        "2026-11-21T09:30:00+00:90",
        "2026-11-21T09:30:00+14:01",
        "2026-11-21T09:30:00-15:00",
        "2026-11-21T09:30:00+24:00",
        "2026-11-21T24:00:00Z",
        "2026-11-21T09:60:00Z",
        "2026-02-29T09:30:00Z",
        "2026-11-21T09:30:00.Z",
        "2026-11-21T09:30:00,5Z",
        "2026-11-21T09:30:00.٣Z",
        "2199-12-31T23:30:00-01:00",
        "1900-01-01T00:30:00+01:00",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "0000-01-01T00:00:00Z",
    ],
)
def test_a_moment_that_is_no_moment_or_leaves_the_allowed_years_in_utc_is_refused(written: str) -> None:
    with pytest.raises(ValidationError, match="1900 to 2199"):
        MOMENT.validate_python(written)


def test_a_leap_second_is_refused_with_what_to_send_instead() -> None:
    """No store can hold it, and a ledger must not change a moment without a word."""
    with pytest.raises(ValidationError, match=r"leap second.*:59"):
        MOMENT.validate_python("2016-12-31T23:59:60Z")


zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(st.datetimes(datetime(1901, 1, 1), datetime(2198, 12, 31)), zones, st.integers(0, 12))  # noqa: DTZ001 # the zone is added
def test_each_moment_that_is_accepted_can_be_asked_for_in_a_filter(moment: datetime, zone: timezone, digits: int) -> None:
    """The form in which a moment is kept is accepted again, and stays as it is."""
    offset = moment.replace(tzinfo=zone).strftime("%z")
    fraction = f".{moment.microsecond:06}123456"[: digits + 1] if digits else ""
    kept = MOMENT.validate_python(f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}{offset[:3]}:{offset[3:]}")
    assert datetime.fromisoformat(kept).tzinfo == UTC
    assert OccurredAtRange.model_validate({"occurred_at[gte]": kept}).occurred_at_gte == kept
