"""Measures queries over HTTP, and compares them with a route of the same app that reads nothing."""

from itertools import repeat
from typing import Final

from bench.interleaving import Lane, Values, interleave, processor_seconds
from bench.ledger_filling import append_transfers, append_uniform
from bench.load_client import LoadOrder
from bench.load_generators import columns, run_load
from bench.measurement import Section
from bench.plots import bars
from bench.read_model_watch import watch_read_models
from bench.rig import Rig, environment_of, running, say
from bench.workloads import Workload, account_id
from dev.daybook_processes import ApiProcess
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
    api = rig.yardstick("echo_apps:create_query_app", environment_of(settings))
    await fill_read_models(rig, settings)
    async with running(api):

        def lane(path: str) -> Lane:
            return lane_of(rig, api, Workload("GET", path, accounts))

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
    section.notes.append("Microseconds are processor time, user and system, divided by the requests that were answered.")
    section.plots["queries.svg"] = bars("Reads a second, 64 connections", section.measurements.values(), "per second")
    return section


def lane_of(rig: Rig, api: ApiProcess, workload: Workload) -> Lane:
    """Measures the rate of a query and its processor time. Other load on the machine changes only the rate."""

    async def lane() -> Values:
        before = processor_seconds(api), processor_seconds(rig.mongo), processor_seconds(rig.redis)
        load = await run_load(LoadOrder(api.url, workload, CONNECTIONS, rig.scale.seconds))
        after = processor_seconds(api), processor_seconds(rig.mongo), processor_seconds(rig.redis)
        in_api, in_mongo, in_redis = ((b - a) / load.requests * 1e6 for a, b in zip(before, after, strict=True))
        return columns(load) | {"API µs": in_api, "MongoDB µs": in_mongo, "Redis µs": in_redis}

    return lane


async def fill_read_models(rig: Rig, settings: Settings) -> None:
    async with running(rig.worker(settings)), watch_read_models(settings) as follow:
        await follow.until(await follow.head())
