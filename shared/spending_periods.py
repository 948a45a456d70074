"""The days and months in which limits count what an account spends. They are those of UTC. This module reads no clock."""

from datetime import date, timedelta


def reset_of(day: str) -> dict[str, str]:
    """Returns when the limits of this day and of its month begin to count anew, as RFC 3339 in UTC, by period."""
    today = date.fromisoformat(day)
    next_month = (today.replace(day=1) + timedelta(days=31)).replace(day=1)
    return {
        "day": f"{(today + timedelta(days=1)).isoformat()}T00:00:00.000000Z",
        "month": f"{next_month.isoformat()}T00:00:00.000000Z",
    }
