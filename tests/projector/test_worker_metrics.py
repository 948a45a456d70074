"""The worker has metrics at a port of its own, if the settings name one. No client of this port holds up the worker."""

import asyncio
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from dev.daybook_processes import worker
from dev.ports import free_port
from projector.due import EXPIRED_HOLDS, SCHEDULED_RUNS, oldest_due_seconds
from projector.projections.registry import PROJECTIONS
from projector.worker_metrics import worker_metrics_text
from shared.settings import Settings
from shared.timestamps import timestamp
from tests.harness.clients import Commands, created
from tests.harness.keys import OPERATOR, bearer
from tests.harness.log import Book
from tests.harness.projecting import eventually, open_ledger
from tests.harness.running import environment_of, run_stack
from tests.projector.test_dead_letters import Poison, Three
from tests.shared.test_metrics import Samples, samples_in, value

pytestmark = pytest.mark.services


async def worker_samples(port: int) -> Samples:
    async with httpx2.AsyncClient(trust_env=False, timeout=20) as client:
        answer = await client.get(f"http://127.0.0.1:{port}/metrics")
    assert answer.status_code == 200, answer.text
    return samples_in(answer)


@pytest.mark.slow
async def test_the_worker_tells_how_far_it_is_and_what_waits(settings: Settings, tmp_path: Path) -> None:
    port = free_port()
    async with run_stack(settings, tmp_path, DAYBOOK_WORKER_METRICS_PORT=str(port)) as stack:
        async with httpx2.AsyncClient(base_url=stack.command.url, headers=bearer(OPERATOR), trust_env=False) as client:
            api = Commands(client)
            account_id = await api.account(balance=500)
            answer = await api.deposit(account_id, 7)
            created(answer)
            position = float(answer.headers["daybook-position"])

            async def is_caught_up() -> bool:
                samples = await worker_samples(port)
                return _of_models(samples, "daybook_projection_events_total") == {position}

            await eventually(is_caught_up)
            samples = await worker_samples(port)
            assert _of_models(samples, "daybook_projection_lag_events") == {0}
            assert _of_models(samples, "daybook_projection_lag_seconds") == {0}
            assert _of_models(samples, "daybook_projection_dead_letters") == {0}
            assert value(samples, "daybook_projection_seconds_total", ledger="main", projection="users", phase="writing") > 0
            assert value(samples, "daybook_postgres_connections", state="idle") >= 0
            assert value(samples, "daybook_postgres_connections_max") == 8
            assert value(samples, "process_resident_memory_bytes") > 0
            assert ("daybook_oldest_due_seconds", frozenset({("ledger", "main"), ("kind", "hold")})) not in samples


def _of_models(samples: Samples, name: str) -> set[float]:
    found = {dict(labels)["projection"]: number for (each, labels), number in samples.items() if each == name}
    assert found.keys() == {projection.name for projection in PROJECTIONS}
    return set(found.values())


async def test_a_read_model_that_cannot_go_on_shows_its_lag_in_events_and_seconds(settings: Settings) -> None:
    """Naive versions tell the age of the newest event, or 0 as long as nothing is applied."""
    async with open_ledger(settings) as ledger:
        await ledger.append(Book().history(20))
        await ledger.build()
        poison = Poison("users", *range(21, 40))
        poisoned = settings.model_copy(update={"projector_dead_letters_max": 0})
        async with ledger.followed(poison.projection, settings=poisoned) as runner:
            await ledger.append(Book(seed=2).history(3))

            async def users(name: str) -> float | None:
                families = text_string_to_metric_families((await worker_metrics_text(runner, ledger.stores, settings)).decode())
                samples = {
                    (sample.name, sample.labels["projection"]): sample.value
                    for family in families
                    for sample in family.samples
                    if "projection" in sample.labels
                }
                return samples.get((f"daybook_projection_{name}", "users"))

            await eventually(lambda: users("failed"))
            assert await users("lag_events") == 3
            await asyncio.sleep(1.1)
            assert (await users("lag_seconds") or 0) >= 1
            poison.positions.clear()

            async def is_even() -> bool:
                return [await users(name) for name in ("lag_events", "lag_seconds", "failed")] == [0, 0, 0]

            await eventually(is_even)
            assert await users("events_total") == 3


async def test_dead_letters_are_counted(settings: Settings) -> None:
    three = Three()
    async with open_ledger(settings) as ledger:
        async with ledger.followed(Poison("accounts", Three.POISON).projection) as runner:
            await ledger.append(three.events)

            async def has_one() -> bool:
                return [(state.dead_letters, state.has_failed) for state in runner.states()] == [(1, False)]

            await eventually(has_one)
            text = (await worker_metrics_text(runner, ledger.stores, settings)).decode()
    assert 'daybook_projection_dead_letters{ledger="main",projection="accounts"} 1.0' in text


async def test_what_is_due_and_not_recorded_has_an_age(settings: Settings) -> None:
    """No command API runs that could record it, as when all of them are down. A hold that cannot expire has no age."""
    book = Book()
    user = book.create_user()
    payer, payee = book.open_account(user.user_id), book.open_account(user.user_id)
    events: list[Any] = [user, payer, payee, book.deposit(payer.account_id, 100)]
    hour_ago, tomorrow = (timestamp(datetime.now(UTC) + timedelta(hours=hours)) for hours in (-1, 24))
    async with open_ledger(settings) as ledger:
        await ledger.append([*events, book.place_hold(payer.account_id, 1, expires_at=tomorrow)])
        await ledger.build("holds", "schedules")
        assert await oldest_due_seconds(ledger.stores, EXPIRED_HOLDS) == {"main": 0.0}
        assert await oldest_due_seconds(ledger.stores, SCHEDULED_RUNS) == {}
        expired = [book.place_hold(payer.account_id, 1, expires_at=moment) for moment in (hour_ago, timestamp(datetime.now(UTC)))]
        await ledger.append([*expired, book.plan(payer, payee.account_id, 5, due_at=hour_ago)])
        await ledger.build("holds", "schedules")
        for kind in (EXPIRED_HOLDS, SCHEDULED_RUNS):
            waited = await oldest_due_seconds(ledger.stores, kind)
            assert 3_600 <= waited["main"] < 7_200


async def test_the_worker_listens_nowhere_unless_told(settings: Settings) -> None:
    assert settings.worker_metrics_port is None
    assert settings.worker_metrics_host == "127.0.0.1"


async def test_a_taken_port_of_metrics_is_one_line_that_names_it(settings: Settings, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        child = worker(tmp_path, environment_of(settings) | {"DAYBOOK_WORKER_METRICS_PORT": str(port)})
        await child.start()
        await child.ended(60)
    said = child.log.read_text()
    assert f"DAYBOOK_WORKER_METRICS_PORT: 127.0.0.1:{port} cannot be opened: Address already in use" in said
    assert "Traceback" not in said


@pytest.mark.slow
async def test_clients_that_send_nothing_hold_up_neither_scrapes_nor_the_end(settings: Settings, tmp_path: Path) -> None:
    port = free_port()
    async with run_stack(settings, tmp_path, DAYBOOK_WORKER_METRICS_PORT=str(port)) as stack:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(20)]
        for _, writer in silent:
            writer.write(b"GET /metrics HTT")
        samples = await worker_samples(port)
        assert value(samples, "daybook_info", version="0.1.0") == 1
        async with httpx2.AsyncClient(trust_env=False) as client:
            assert (await client.get(f"http://127.0.0.1:{port}/")).status_code == 404
        await stack.worker.stop()
        assert stack.worker.process
        assert stack.worker.process.returncode == 0
        for _, writer in silent:
            writer.close()
