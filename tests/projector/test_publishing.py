"""Every event reaches the broker, in order, also if the publisher is killed or the broker is away, and repeats can be dropped."""

import asyncio
import itertools
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import httpx2
import pytest
from typer.testing import CliRunner

from cli.app import app
from dev.kafka_server import KafkaServer
from dev.nats_server import NatsServer
from projector.publishing.publisher import publishing
from projector.runner import Runner
from projector.worker_metrics import worker_metrics_text
from query_api.app import create_app
from shared.log.read import read_stored
from shared.publishing.checkpoints import PublishedLedger, read_published, rewind
from shared.settings import Settings
from tests.harness.await_points import Moment, Point
from tests.harness.brokers import delete_topic, jetstream_of, positions_in, stored_in
from tests.harness.clients import client_of
from tests.harness.engines import running
from tests.harness.log import PERSON_KEYS, Book, make_ledger
from tests.harness.mortal_workers import Fate
from tests.harness.nursery import nursery
from tests.harness.projecting import Ledger, open_ledger, tamper
from tests.harness.running import Servers, environment_of

pytestmark = pytest.mark.services

ROOT: Final = Path(__file__).parents[2]
WAIT_SECONDS: Final = 60.0
PREFIXES: Final = (f"test-{number}" for number in itertools.count(1))


@pytest.fixture(scope="module")
def nats_url(server_folder: Path) -> Iterator[str]:
    with running(NatsServer("nats", server_folder)) as server:
        yield server.url


@pytest.fixture
def kafka_url(kafka: KafkaServer) -> str:
    return kafka.url


@pytest.fixture(params=["nats", pytest.param("kafka", marks=pytest.mark.slow)])
def to_each_broker(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    return publishing_to(settings, request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def to_nats(settings: Settings, nats_url: str) -> Settings:
    return publishing_to(settings, nats_url)


def publishing_to(settings: Settings, url: str) -> Settings:
    """Returns settings with topics that no other test uses."""
    return settings.model_copy(update={"publish_url": url, "publish_prefix": next(PREFIXES), "projector_look_ms": 50})


async def until(ledger: Ledger, is_so: Callable[[PublishedLedger], bool], ledger_id: str = "main") -> None:
    """Waits until the state of publishing of a ledger is as wanted."""
    end = time.monotonic() + WAIT_SECONDS
    while True:
        async with ledger.stores.engine.connect() as connection:
            [found] = [each for each in await read_published(connection) if each.ledger_id == ledger_id]
        if is_so(found):
            return
        assert time.monotonic() < end, found
        await asyncio.sleep(0.02)


async def all_published(ledger: Ledger, ledger_id: str = "main") -> None:
    await until(ledger, lambda found: found.lag_events == 0 and not found.is_failing, ledger_id)


async def readable(ledger: Ledger) -> list[str]:
    """Returns the names in the events of the ledger that can be decrypted with the keys that are there now."""
    async with ledger.stores.engine.connect() as connection:
        stored = await read_stored(connection, "main", 0)
        people = {json.loads(each.data)["user_id"] for each in stored if each.type == "UserCreated"}
        keys = await PERSON_KEYS.read(connection, "main", people)
    events = [each.decoded(keys).event for each in stored]
    return [event.name for event in events if hasattr(event, "name")]


async def said_by_readyz(client: httpx2.AsyncClient) -> str:
    """Returns what `/readyz` says of publishing. On a busy machine, a store may take longer than a second to answer it."""
    async with asyncio.timeout(WAIT_SECONDS):
        while (answer := await client.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.2)
    said: str = answer.json()["publishing"]
    return said


# ── what is published ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_each_ledger_has_a_topic_with_every_event_in_order_which_is_filled_again_when_it_is_lost(
    to_each_broker: Settings,
) -> None:
    book, other = Book(1), Book(2)
    async with open_ledger(to_each_broker) as ledger:
        await make_ledger(ledger.writer, "acme")
        head = await ledger.append(book.history(60))
        await Ledger(ledger.settings, ledger.stores, ledger.writer, "acme").append(other.history(9))
        async with publishing(to_each_broker):
            for ledger_id in ("main", "acme"):
                await all_published(ledger, ledger_id)
            assert await positions_in(to_each_broker) == [*range(1, head + 1)]
            assert await positions_in(to_each_broker, "acme") == [*range(1, 10)]
            await delete_topic(to_each_broker)
            head = await ledger.append(book.history(5))
            await until(ledger, lambda found: found.position < head)
            await all_published(ledger)
            assert await positions_in(to_each_broker) == [*range(1, head + 1)], "not only what came after the loss"
            async with ledger.stores.engine.begin() as connection:
                assert await rewind(connection, "main", 3)
            await all_published(ledger)
        found = await positions_in(to_each_broker)
        assert found == [*range(1, head + 1), *(range(4, head + 1) if len(found) > head else ())], "JetStream drops repeats"


async def test_a_message_is_a_cloud_event_that_holds_the_event_as_the_query_api_shows_it(to_nats: Settings) -> None:
    async with open_ledger(to_nats) as ledger, publishing(to_nats):
        book = Book()
        user = book.create_user("Ada Lovelace")
        await ledger.append([user, book.open_account(user.user_id)])
        await all_published(ledger)
        created, _ = await stored_in(to_nats)
        async with client_of(create_app(to_nats)) as client:
            shown = (await client.get("/v1/events")).json()["items"][0]
            ready = await said_by_readyz(client)
    assert created == {
        "specversion": "1.0",
        "id": "1",
        "source": f"/{to_nats.publish_prefix}/ledgers/main",
        "type": "UserCreated",
        "subject": f"user-{user.user_id}",
        "time": shown["recorded_at"],
        "datacontenttype": "application/json",
        "data": shown,
    }
    assert ready == "ok"


async def test_an_erased_person_cannot_be_read_in_what_was_published(to_nats: Settings) -> None:
    async with open_ledger(to_nats) as ledger, publishing(to_nats):
        book = Book()
        user = book.create_user("Ada Lovelace")
        await ledger.append([user])
        await all_published(ledger)
        assert await readable(ledger) == ["Ada Lovelace"]
        await ledger.append([book.erase_user(user.user_id)])
        await all_published(ledger)
        [created, erased] = await stored_in(to_nats)
        assert await readable(ledger) == ["(erased)"], "the key that the message needs is gone"
    assert {*created["data"]["data"]["name"], *created["data"]["data"]["email"]} == {"sealed"}
    assert "Ada" not in json.dumps([created, erased])


async def test_plain_personal_data_are_published_only_if_a_setting_says_so(to_nats: Settings) -> None:
    plain = to_nats.model_copy(update={"publish_personal_data": True})
    async with open_ledger(plain) as ledger:
        book = Book()
        user, erased = book.create_user("Ada Lovelace"), book.create_user("Bob")
        await ledger.append([user, erased])
        await ledger.append([book.erase_user(erased.user_id)])
        async with publishing(plain):
            await all_published(ledger)
        assert [each["data"]["data"].get("name") for each in await stored_in(plain)] == ["Ada Lovelace", "(erased)", None]


# ── crashes and faults ───────────────────────────────────────────────────────────────────────────────────────────────


class Step(NamedTuple):
    """A place on the way of a slice. `asleep`: the publisher has asked. `awake`: it has the answer and has not used it."""

    name: str
    point: Point
    moment: Moment
    nth: int = 1


STEPS: Final = (
    Step("the topic is asked for", Point("NatsBroker._find", 1), "asleep"),
    Step("the topic is made", Point("Publisher._publish_slice", 4), "awake"),
    Step("the slice is read", Point("Publisher._send", 2), "awake"),
    Step("the slice is sent", Point("NatsBroker._send", 2), "asleep"),
    Step("the slice is acknowledged", Point("NatsBroker._send", 2), "awake"),
    Step("the checkpoint is sent", Point("Publisher._move", 2), "asleep"),
    Step("the checkpoint is not committed yet", Point("Publisher._move", 2), "awake"),
    Step("the next slice is looked for", Point("Publisher._publish_due", 1), "asleep", 2),
)


async def test_a_publisher_that_is_killed_at_any_step_loses_nothing_and_keeps_the_order(
    to_nats: Settings, tmp_path: Path
) -> None:
    book = Book()
    async with open_ledger(to_nats) as ledger:
        head = await ledger.append(book.history(20))
        with nursery(tmp_path, to_nats, "tests.harness.mortal_publishers") as publishers:
            for step in STEPS:
                fate = Fate(function=step.point.function, number=step.point.number, moment=step.moment, nth=step.nth)
                pid = await publishers.start(fate)
                end = time.monotonic() + WAIT_SECONDS
                while publishers.is_alive(pid):
                    assert time.monotonic() < end, f"it did not come to: {step.name}"
                    await asyncio.sleep(0.01)
                head = await ledger.append(book.history(20))
            assert {step.point for step in STEPS} <= publishers.met()
        async with publishing(to_nats):
            await all_published(ledger)
        assert await positions_in(to_nats) == [*range(1, head + 1)], "JetStream has dropped what came twice"


async def test_two_publishers_and_a_rewind_store_each_event_once_in_nats(to_nats: Settings) -> None:
    book = Book()
    async with open_ledger(to_nats) as ledger:
        async with publishing(to_nats), publishing(to_nats):
            for _ in range(5):
                head = await ledger.append(book.history(40))
                await asyncio.sleep(0)
            await all_published(ledger)
            async with ledger.stores.engine.begin() as connection:
                assert not await rewind(connection, "main", head + 1)
                assert not await rewind(connection, "nobody", 0)
            again = await asyncio.to_thread(CliRunner().invoke, app, ["publish", "--from", "3"], env=environment_of(to_nats))
            assert (again.exit_code, again.output) == (0, "main: the worker publishes the events from 3 on\n")
            await all_published(ledger)
        assert await positions_in(to_nats) == [*range(1, head + 1)]


async def test_a_broker_that_is_down_delays_only_publishing_and_says_why(settings: Settings, tmp_path: Path) -> None:
    broker = NatsServer("nats", tmp_path)
    await broker.start()
    try:
        to = publishing_to(settings, broker.url)
        book = Book()
        async with open_ledger(to) as ledger, publishing(to):
            head = await ledger.append(book.history(10))
            await all_published(ledger)
            await broker.kill()
            head = await ledger.append(book.history(30))
            await until(ledger, lambda found: found.is_failing and found.lag_events == 30)
            async with client_of(create_app(to)) as client:
                ready = await said_by_readyz(client)
            assert re.match(r"behind: 30 events of 1 ledgers; ledger main: NATS does not answer \(", ready)
            shown = await asyncio.to_thread(CliRunner().invoke, app, ["publish"], env=environment_of(to))
            assert "NATS does not answer" in shown.output
            await broker.start()
            await all_published(ledger)
        assert await positions_in(to) == [*range(1, head + 1)]
    finally:
        await broker.stop()


async def test_what_the_broker_refuses_is_not_passed_over(to_nats: Settings) -> None:
    """The stream takes no large message in the middle of a slice. It would take what comes after it."""
    book = Book()
    user = book.create_user()
    account = book.open_account(user.user_id)
    async with open_ledger(to_nats) as ledger, jetstream_of(to_nats.publish_url or "") as jetstream:
        async with publishing(to_nats):
            await ledger.append([user, account])
            await all_published(ledger)
        stream = (await jetstream.stream_info(f"{to_nats.publish_prefix}_main")).config
        stream.max_msg_size = 2_000
        await jetstream.update_stream(stream)
        large = book.deposit(account.account_id, 2, metadata={"note": "x" * 3_000})
        head = await ledger.append([book.deposit(account.account_id, 1), large, book.deposit(account.account_id, 3)])
        async with publishing(to_nats):
            await until(ledger, lambda found: found.is_failing and found.position == head - 2)
            assert await positions_in(to_nats) == [*range(1, head - 1)]
            stream.max_msg_size = -1
            await jetstream.update_stream(stream)
            await all_published(ledger)
        assert await positions_in(to_nats) == [*range(1, head + 1)]


async def test_an_event_that_this_code_cannot_read_stops_its_ledger_and_says_so(to_nats: Settings, servers: Servers) -> None:
    async with open_ledger(to_nats) as ledger:
        head = await ledger.append(Book().history(20))
        await tamper(
            servers.postgres,
            to_nats,
            "INSERT INTO events SELECT ledger_id, position + 1, gen_random_uuid(), "
            f"'Tomorrow', 1, '{{}}', '{{}}', recorded_at, hash FROM events WHERE position = {head}",
            f"UPDATE log_heads SET position = {head + 1}",
        )
        async with publishing(to_nats):
            await until(ledger, lambda found: found.position == head and "'Tomorrow' is unknown" in str(found.cause))
        assert await positions_in(to_nats) == [*range(1, head + 1)]


# ── the consumer of the example ──────────────────────────────────────────────────────────────────────────────────────


async def test_the_example_drops_repeats_and_ends_with_the_balance_of_the_query_api(to_nats: Settings) -> None:
    book = Book(3)
    async with open_ledger(to_nats) as ledger:
        head = await ledger.append(book.history(300))
        async with publishing(to_nats):
            await all_published(ledger)
        async with jetstream_of(to_nats.publish_url or "") as jetstream:
            for event in (await stored_in(to_nats))[:40]:
                await jetstream.publish(f"{to_nats.publish_prefix}.main", json.dumps(event).encode())
        await ledger.append(book.history(50))
        async with publishing(to_nats):
            await all_published(ledger)
        head = head + 50
        account = max(book.balances, key=lambda account_id: book.balances[account_id])
        command = [sys.executable, str(ROOT / "examples/balance_from_events/balance.py"), account]
        command += ["--prefix", to_nats.publish_prefix, "--until", str(head)]
        ended = await asyncio.create_subprocess_exec(
            *command, env=os.environ | {"DAYBOOK_PUBLISH_URL": to_nats.publish_url or ""}, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await asyncio.wait_for(ended.communicate(), WAIT_SECONDS)
        await ledger.build("balances")
        async with client_of(create_app(to_nats)) as client:
            balance = (await client.get(f"/v1/accounts/{account}/balance")).json()
    assert said.decode().split() == [str(head), str(balance["posted"])]


async def test_the_worker_has_metrics_of_publishing_only_if_it_publishes(to_nats: Settings) -> None:
    async with open_ledger(to_nats) as ledger:
        await ledger.append(Book().history(7))
        runner = Runner(ledger.stores, to_nats)
        metrics = (await worker_metrics_text(runner, ledger.stores, to_nats)).decode()
        off = (await worker_metrics_text(runner, ledger.stores, to_nats.model_copy(update={"publish_url": None}))).decode()
    assert 'daybook_publishing_lag_events{ledger="main"} 7.0' in metrics
    assert "daybook_publishing" not in off
