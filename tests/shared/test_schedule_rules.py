"""When runs are due: the dates of rules, and their moments in time zones, at changes of the clock and on weekends."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.schedule_errors import TimeZoneUnknown
from shared.schedule_rules import LAST_DATE, PlannedRun, ScheduleRule, first_run, run_after
from shared.timestamps import timestamp

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "Pacific/Apia", "America/St_Johns"]
DATES = st.dates(date(1975, 1, 1), date(2060, 1, 1))
RULES = st.builds(
    lambda every, day, weekend, clock, zone, start: ScheduleRule(
        every,
        clock.strftime("%H:%M"),
        zone,
        None if every == "day" else min(day, 7) if every == "week" else day,
        weekend if every == "month" else "same",
        start and start.isoformat(),
    ),
    st.sampled_from(["day", "week", "month"]),
    st.integers(1, 31),
    st.sampled_from(["same", "before", "after"]),
    st.times(),
    st.sampled_from(ZONES),
    st.none() | DATES,
)
MOMENTS = st.integers(157_766_400, 2_840_140_800).map(lambda seconds: timestamp(datetime.fromtimestamp(seconds, UTC)))


def runs(rule: ScheduleRule, now: str, count: int) -> list[PlannedRun]:
    found: list[PlannedRun] = []
    run = first_run(rule, now)
    while run and len(found) < count:
        found.append(run)
        run = run_after(rule, run)
    return found


def moments(now: str, count: int = 3, **fields: Any) -> list[str]:
    rule = ScheduleRule(**{"every": "day", "time": "02:30", "time_zone": "Europe/Berlin"} | fields)
    return [run.due_at.removesuffix(":00.000000Z") for run in runs(rule, f"{now}.000000Z", count)]


def test_a_day_that_a_month_does_not_have_is_its_last_day() -> None:
    """And the month after has the day of the rule again."""
    found = moments("2027-12-31T23:00:00", 4, every="month", day=31, time="12:00", time_zone="UTC")
    assert found == ["2028-01-31T12:00", "2028-02-29T12:00", "2028-03-31T12:00", "2028-04-30T12:00"]
    assert moments("2027-02-01T00:00:00", 1, every="month", day=30, time="12:00", time_zone="UTC") == ["2027-02-28T12:00"]


def test_the_moment_follows_the_clock_of_the_zone() -> None:
    found = moments("2027-03-26T12:00:00", 3, time="09:00")
    assert found == ["2027-03-27T08:00", "2027-03-28T07:00", "2027-03-29T07:00"]


def test_a_time_that_clocks_skip_counts_from_the_clock_before_the_change() -> None:
    """In Berlin, 02:00 to 03:00 does not exist on 28 March 2027. So 02:30 is then 03:30 of the summer."""
    assert moments("2027-03-26T12:00:00") == ["2027-03-27T01:30", "2027-03-28T01:30", "2027-03-29T00:30"]


def test_a_time_that_comes_twice_is_the_first_one() -> None:
    """In Berlin, 02:00 to 03:00 comes twice on 31 October 2027."""
    assert moments("2027-10-29T12:00:00") == ["2027-10-30T00:30", "2027-10-31T00:30", "2027-11-01T01:30"]
    assert moments("2027-10-31T00:30:00", 1) == ["2027-11-01T01:30"], "not again an hour later"


@pytest.mark.parametrize(
    ("weekend", "expected"),
    [
        ("same", ["2027-01-31", "2027-02-28", "2027-03-31"]),
        ("before", ["2027-01-29", "2027-02-26", "2027-03-31"]),
        ("after", ["2027-02-01", "2027-03-01", "2027-03-31"]),
    ],
)
def test_a_run_moves_off_a_weekend_and_the_other_runs_stay(weekend: str, expected: list[str]) -> None:
    """31 January and 28 February 2027 are Sundays."""
    found = moments("2027-01-20T00:00:00", 3, every="month", day=31, time="12:00", time_zone="UTC", weekend=weekend)
    assert [each[:10] for each in found] == expected


def test_a_run_that_moved_into_the_month_before_or_after_is_found_from_there() -> None:
    """1 August 2027 is a Sunday, 31 July a Saturday."""
    first = {"every": "month", "day": 1, "time": "12:00", "time_zone": "UTC"}
    assert moments("2027-07-30T11:59:59", 1, **first, weekend="before") == ["2027-07-30T12:00"]
    assert moments("2027-07-30T12:00:00", 1, **first, weekend="before") == ["2027-09-01T12:00"]
    last = first | {"day": 31, "weekend": "after"}
    assert moments("2027-08-02T11:00:00", 2, **last) == ["2027-08-02T12:00", "2027-08-31T12:00"]


def test_a_rule_of_weeks_has_its_day() -> None:
    found = moments("2026-12-01T00:00:00", 3, every="week", day=7, time="12:00", time_zone="UTC")
    assert found == ["2026-12-06T12:00", "2026-12-13T12:00", "2026-12-20T12:00"]


def test_a_rule_runs_from_its_first_date_until_its_last() -> None:
    daily = {"time": "12:00", "time_zone": "UTC"}
    assert moments("2026-12-01T00:00:00", 9, **daily, starts_on="2027-01-01", until="2027-01-03") == [
        "2027-01-01T12:00",
        "2027-01-02T12:00",
        "2027-01-03T12:00",
    ]
    assert moments("2027-01-03T12:00:00", 9, **daily, starts_on="2027-01-01", until="2027-01-03") == []
    assert moments("2027-01-01T00:00:00", 9, every="month", day=3, **daily, weekend="after", until="2027-01-03") == [
        "2027-01-04T12:00"
    ], "the last date counts before the run moves off the weekend"


def test_the_last_moment_of_all_can_be_stored() -> None:
    for weekend in ("same", "after"):
        rule = ScheduleRule("month", "23:59", "Pacific/Pago_Pago", 31, weekend)
        found = runs(rule, "2199-10-01T00:00:00.000000Z", 9)
        assert len(found) == 3
        assert found[-1].due_at < "2200"
    daily = ScheduleRule("day", "23:59", "Pacific/Pago_Pago")
    assert runs(daily, "2199-12-01T00:00:00.000000Z", 99)[-1].due_at < "2200"
    assert runs(daily, "2199-12-01T00:00:00.000000Z", 99)[-1].date == LAST_DATE.isoformat()


def test_an_unknown_zone_is_an_error_that_says_so() -> None:
    for zone in ("Europe/Atlantis", "posixrules", "../../etc/passwd"):
        with pytest.raises(TimeZoneUnknown, match="time zone"):
            first_run(ScheduleRule("day", "12:00", zone), "2027-01-01T00:00:00.000000Z")


@given(RULES, MOMENTS)
def test_runs_are_in_order_one_for_each_date_and_at_the_time_of_the_rule(rule: ScheduleRule, now: str) -> None:
    """Wherever one begins, the runs are the same. Only where clocks skip the time is it another."""
    found = runs(rule, now, 40)
    assert all(now < run.due_at for run in found)
    for one, other in pairwise(found):
        assert one.due_at <= other.due_at, "equal only where a zone skips a whole day"
        assert (one.date or "") < (other.date or "")
    for run in found:
        local = datetime.fromisoformat(run.due_at).astimezone(ZoneInfo(rule.time_zone))
        exists = local.strftime("%H:%M") == rule.time
        was_skipped = (local - timedelta(hours=25)).utcoffset() != (local + timedelta(hours=25)).utcoffset()
        assert exists or was_skipped
        assert rule.weekend == "same" or local.weekday() < 5
        assert rule.starts_on is None or (run.date or "") >= rule.starts_on
    if len(found) > 1:
        assert runs(rule, found[0].due_at, 39) == [run for run in found[1:] if run.due_at > found[0].due_at]


@given(RULES, MOMENTS, st.integers(-60, 60), st.integers(-3, 3))
def test_a_recorded_moment_is_believed_only_for_the_run_that_comes_next(
    rule: ScheduleRule, now: str, minutes: int, days: int
) -> None:
    """So whoever decides an event again with other data of time zones finds it right, but not if it skips or repeats a run."""
    first = first_run(rule, now)
    assert first is not None
    following = run_after(rule, first)
    assert following is not None
    moved = timestamp(max(_moment(following) + timedelta(minutes=minutes), _moment(first)))
    other_data = PlannedRun(moved, following.date)
    assert run_after(rule, first, other_data) == other_data
    on = (date.fromisoformat(following.date or "") + timedelta(days=days)).isoformat()
    other_run = PlannedRun(timestamp(_moment(following) + timedelta(days=days)), on)
    assert run_after(rule, first, other_run) == following
    assert first_run(rule, now, first) == first
    if _moment(first) - datetime.fromisoformat(now) > timedelta(hours=32):
        assert first_run(rule, now, following) == first, "a run was left out"
    assert first_run(rule, now, PlannedRun(now, first.date)) == first, "it must be due after now"


def _moment(run: PlannedRun) -> datetime:
    return datetime.fromisoformat(run.due_at)
