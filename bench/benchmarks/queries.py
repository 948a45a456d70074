"""Reads over HTTP beside a route of the same app that reads nothing."""

from itertools import repeat
from typing import Final

from bench.filling import append_transfers, append_uniform
from bench.following import following
from bench.measurement import Section
from bench.plots import bars
from bench.rig import Rig, environment_of, running, say
from bench.rounds import Lane, interleave, load_lane
from bench.workloads import Workload, account_id
from shared.settings import Settings

CONNECTIONS: Final = 64
ACCOUNTS: Final = 500
ENTRIES_EACH: Final = 40

ECHO: Final = "echo GET"
BALANCE: Final = "balance"
ACCOUNT: Final = "account"
PAGE: Final = "page of 20 entries"
PAGE_OF_FEW: Final = "page of 20 entries, account with few"
PAGE_OF_MANY: Final = "page of 20 entries, account with many"


async def measure_queries(rig: Rig) -> Section:
    section = Section("queries", "Reads over HTTP, 64 connections")
    scale = rig.scale
    settings = await rig.ledger(scale.accounts)
    accounts = min(ACCOUNTS, scale.accounts - 2)
    few, many = accounts + 1, accounts + 2
    say("queries: filling the log and the read models")
    await append_uniform(settings, accounts * ENTRIES_EACH // 2, accounts)
    for payee, entries in zip((few, many), scale.page_entries, strict=True):
        await append_transfers(settings, entries, repeat(1), repeat(payee))
    api = rig.yardstick("echo:create_query_app", environment_of(settings))
    await _project(rig, settings)
    async with running(api):

        def lane(path: str) -> Lane:
            return load_lane(api.url, Workload("GET", path, accounts), scale, CONNECTIONS)

        lanes = {
            ECHO: lane("/echo/{account}"),
            BALANCE: lane("/v1/accounts/{account}/balance"),
            ACCOUNT: lane("/v1/accounts/{account}"),
            PAGE: lane("/v1/accounts/{account}/entries?limit=20"),
            PAGE_OF_FEW: lane(f"/v1/accounts/{account_id(few)}/entries?limit=20"),
            PAGE_OF_MANY: lane(f"/v1/accounts/{account_id(many)}/entries?limit=20"),
        }
        await interleave(section, lanes, scale.rounds)
    section.notes.append("The account with few entries has {:,}, the one with many {:,}.".format(*scale.page_entries))
    section.plots["queries.svg"] = bars("Reads a second, 64 connections", section.measurements.values(), "per second")
    return section


async def _project(rig: Rig, settings: Settings) -> None:
    async with running(rig.worker(settings)), following(settings) as follow:
        await follow.until(await follow.head())
