"""The metrics are right, only callers who may see them get them, and they cost requests next to nothing."""

import asyncio
from typing import Any

import httpx2
from prometheus_client.parser import text_string_to_metric_families

import command_api.app
import query_api.app
from shared.histogram import SIZES, Histogram
from shared.log.heads import lock_head
from shared.settings import Settings
from shared.stores.postgres import open_postgres
from tests.harness import questions
from tests.harness.clients import EUROS, Commands, client_of, created, served
from tests.harness.keys import add_key, bearer
from tests.harness.log import Book

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def scrape(client: httpx2.AsyncClient) -> Samples:
    answer = await client.get("/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return samples_in(answer)


def samples_in(answer: httpx2.Response) -> Samples:
    families = text_string_to_metric_families(answer.text)
    return {(sample.name, frozenset(sample.labels.items())): sample.value for family in families for sample in family.samples}


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


async def test_the_command_api_has_metrics_of_requests_batches_and_denials(settings: Settings) -> None:
    async with client_of(command_api.app.create_app(settings)) as client:
        api = Commands(client)
        await asyncio.gather(*(api.user() for _ in range(20)))
        await api.post("/v1/users", {"name": "Ada"})
        await client.patch("/v1/users/nobody", json={})
        await client.post("/v1/users", json={}, headers=bearer("nobody"))
        await client.request("BREW", "/v1/coffee")
        await asyncio.sleep(1.5)
        samples = await scrape(client)
    count = "daybook_http_request_seconds_count"
    assert value(samples, count, method="POST", route="/v1/users", status="201") == 20
    assert value(samples, count, method="POST", route="/v1/users", status="422") == 1
    assert value(samples, count, method="POST", route="/v1/users", status="401") == 1
    assert value(samples, count, method="PATCH", route="/v1/users/{user_id}", status="422") == 1
    assert value(samples, count, method="other", route="other", status="404") == 1
    assert value(samples, "daybook_batch_commands_sum", ledger="main") == 20
    assert value(samples, "daybook_commands_waiting", ledger="main") == 0
    assert value(samples, "daybook_writes", ledger="main") == 1
    assert value(samples, "daybook_refusals_total", outcome="recorded") == 1
    assert value(samples, "daybook_rate_limits_alone") == 0
    assert value(samples, "process_resident_memory_bytes") > 0


async def test_commands_are_counted_by_how_they_end(settings: Settings) -> None:
    async with client_of(command_api.app.create_app(settings)) as client:
        api = Commands(client)
        account_id = await api.account(balance=5)
        await api.deposit(account_id, 1, idempotency_key="twice")
        await api.deposit(account_id, 1, idempotency_key="twice")
        await api.withdraw(account_id, 1_000)
        await api.post("/v1/deposits?dry_run=true", {"account_id": account_id, "amount": 1, **EUROS})
        await api.deposit(account_id, 2, idempotency_key="twice")
        samples = await scrape(client)
    outcomes = {
        (dict(labels)["command"], dict(labels)["outcome"]): number
        for (name, labels), number in samples.items()
        if name == "daybook_commands_total"
    }
    assert outcomes == {
        ("CreateUser", "accepted"): 1,
        ("OpenAccount", "accepted"): 1,
        ("Deposit", "accepted"): 2,
        ("Deposit", "repeated"): 1,
        ("Withdraw", "rejected"): 1,
        ("Deposit", "rehearsed"): 1,
        ("Deposit", "rejected"): 1,
    }
    # The rejection is stored under its key, so it is written too. A dry run and a repetition write nothing.
    assert value(samples, "daybook_commit_seconds_count", ledger="main") == 5
    assert value(samples, "daybook_commit_seconds_sum", ledger="main") > 0
    assert value(samples, "daybook_commands_waiting_max", ledger="main") == 10_000
    assert value(samples, "daybook_postgres_connections_max") == 8


async def test_two_writers_that_meet_count_their_conflicts(settings: Settings) -> None:
    """The first one decides ahead on what it remembers, until its append finds what the second one has written."""
    app = command_api.app.create_app
    async with client_of(app(settings)) as one, client_of(app(settings)) as two:
        account_id = await Commands(one).account()
        for client in (one, one, one, two, one):
            created(await Commands(client).deposit(account_id, 1))
        found = [await scrape(client) for client in (one, two)]
    retries = [value(samples, "daybook_batch_retries_total", ledger="main", cause="conflict") for samples in found]
    assert retries == [1, 0]
    deposits = {"ledger": "main", "command": "Deposit", "outcome": "accepted"}
    assert [value(samples, "daybook_commands_total", **deposits) for samples in found] == [4, 1]


async def test_commands_that_come_too_late_are_counted(settings: Settings) -> None:
    """The lock is held on the log's head, as by another process that hangs."""
    hurried = settings.model_copy(update={"command_deadline_ms": 1_500})
    async with client_of(command_api.app.create_app(hurried), is_patient=False) as client:
        api = Commands(client)
        created(await served(lambda: api.post("/v1/users", {"name": "A", "email": "a@example.com"}, idempotency_key="a")))
        async with open_postgres(settings, "daybook_command") as engine, engine.begin() as connection:
            await lock_head(connection, "main")
            answers = await asyncio.gather(*(api.post("/v1/users", {"name": "A", "email": f"{n}@example.com"}) for n in range(3)))
        assert {answer.status_code for answer in answers} == {503}
        samples = await scrape(client)
    assert value(samples, "daybook_commands_total", ledger="main", command="CreateUser", outcome="late") >= 3


async def test_the_query_api_has_metrics_of_how_far_each_read_model_is(settings: Settings) -> None:
    async with questions.query_api(settings) as api:
        async with questions.projecting(api, settings):
            await api.record(Book(3).history(20))
            await api.get("/v1/users")
        before = api.position
        await api.record(Book(5).history(7))
        samples = await scrape(api.client)
    assert value(samples, "daybook_log_position", ledger="main") == before + 7
    lag = {dict(labels)["projection"]: lag for (name, labels), lag in samples.items() if name == "daybook_projection_lag_events"}
    assert len(lag) >= 5
    assert set(lag.values()) <= {float(n) for n in range(7, before + 8)}
    assert lag["users"] == 7


async def test_only_administrators_see_metrics_and_only_of_their_ledger(settings: Settings) -> None:
    auditor: Any = bearer(await add_key(settings.database_url, "auditor", scopes=("ledger:read", "events:read")))
    for api in (command_api.app, query_api.app):
        async with client_of(api.create_app(settings)) as client:
            assert (await client.get("/metrics", headers=auditor)).status_code == 403
            assert (await client.get("/metrics", headers=bearer("nobody"))).status_code == 401
            assert (await client.get("/metrics", headers={"daybook-ledger": "other"})).status_code == 404


def test_a_histogram_counts_as_prometheus_does() -> None:
    tally = Histogram(SIZES)
    for size in (1, 1, 2, 3, 500, 501):
        tally.observe(size)
    buckets = dict(tally.buckets())
    assert (buckets["1.0"], buckets["2.0"], buckets["5.0"], buckets["500.0"], buckets["+Inf"]) == (2, 3, 4, 5, 6)
    assert tally.total == 1_008
