"""Measures balances as of the past, on both axes, of an account with few entries and of one with many.

All entries are back-dated to moments of one year, in no order. That is the dearest case for the axis `occurred_at`: an entry that
is recorded when it occurs makes no shift.
"""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import repeat
from typing import Final

from bench.benchmarks.queries import fill_read_models, lane_of
from bench.interleaving import Lane, interleave
from bench.ledger_filling import append_transfers
from bench.measurement import Section
from bench.rig import Rig, environment_of, running, say
from bench.workloads import Workload, account_id
from shared.timestamps import timestamp

FEW: Final = "few entries"
MANY: Final = "many entries"
YEAR: Final = datetime(2025, 1, 1, tzinfo=UTC)
AUTUMN: Final = "2025-10-17T09:30:17.123456Z"


async def measure_past_balances(rig: Rig) -> Section:
    section = Section("asof", "Balances as of the past, 64 connections")
    accounts = dict(zip((FEW, MANY), zip((2, 3), rig.scale.page_entries, strict=True), strict=True))
    settings = await rig.ledger(len(accounts) + 1)
    say("asof: filling the log and the read models")
    await fill_read_models(rig, settings)  # so that they are live, and their positions show how far they are with the rest
    for payee, entries in accounts.values():
        await append_transfers(settings, entries, repeat(1), repeat(payee), _moments())
    api = rig.yardstick("echo_apps:create_query_app", environment_of(settings))
    await fill_read_models(rig, settings)
    async with running(api):
        lanes: dict[str, Lane] = {}
        for name, (number, entries) in accounts.items():
            path = f"/v1/accounts/{account_id(number)}/balance"
            for what, asked in (
                ("now", ""),
                ("recorded_at, a position", f"?at={entries // 2}"),
                ("recorded_at, a moment", "?at=2199-01-01T00:00:00Z"),
                ("occurred_at", f"?at={AUTUMN}&axis=occurred_at"),
            ):
                lanes[f"{what}, {name}"] = lane_of(rig, api, Workload("GET", path + asked, 2))
        await interleave(section, lanes, rig.scale.rounds)
    section.notes.append("The account with few entries has {:,}, the one with many {:,}.".format(*rig.scale.page_entries))
    section.notes.append("Microseconds are processor time, user and system, divided by the requests that were answered.")
    return section


def _moments() -> Iterator[str]:
    chance = random.Random(1)  # noqa: S311 # no secret
    while True:
        yield timestamp(YEAR + timedelta(microseconds=chance.randrange(365 * 86_400 * 1_000_000)))
