"""Defines how much is measured: a quick check, the normal amount for the report, or the full amount, which takes hours."""

from typing import Final

import msgspec


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """The amounts of one run. `seconds` is the duration of each load in each round."""

    rounds: int = 3
    seconds: float = 3
    accounts: int = 10_000
    connections: int = 64
    accounts_zipf: int = 100_000
    backlog_events: int = 30_000
    """The number of events that wait for the worker when it starts again."""
    replay_events: tuple[int, int] = (30_000, 120_000)
    page_entries: tuple[int, int] = (100, 30_000)
    growth_events: tuple[int, int] = (10_000, 200_000)
    pipeline_seconds: float = 120
    visible_seconds: float = 10
    ledgers: int = 300
    idle_seconds: float = 60
    log_files: int = 128
    """The number of files of the write-ahead log, of 16 MiB each, that PostgreSQL creates before the measurements."""


NORMAL: Final = Scale()
QUICK: Final = Scale(
    rounds=1,
    seconds=1,
    accounts=300,
    accounts_zipf=600,
    backlog_events=2_000,
    replay_events=(1_000, 2_000),
    page_entries=(100, 1_000),
    growth_events=(1_000, 3_000),
    pipeline_seconds=3,
    visible_seconds=2,
    ledgers=3,
    idle_seconds=2,
    log_files=2,
)
FULL: Final = Scale(
    rounds=5,
    seconds=8,
    backlog_events=100_000,
    replay_events=(100_000, 5_000_000),
    page_entries=(100, 1_000_000),
    growth_events=(10_000, 5_000_000),
    pipeline_seconds=300,
    visible_seconds=30,
)
