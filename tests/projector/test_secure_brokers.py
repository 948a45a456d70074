"""Publishing to brokers that ask for TLS and a login, to a Kafka that is killed, and what the doctor says of a broker."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dev.child_processes import ProgramArguments
from dev.kafka_server import KafkaServer
from dev.nats_server import NatsServer
from dev.ports import free_port
from projector.publishing.publisher import publishing
from shared.publishing.broker_check import check_broker
from shared.settings import Settings
from shared.stores.doctor import examine_as_any_role
from tests.harness.brokers import positions_in
from tests.harness.certificates import Authority
from tests.harness.log import Book
from tests.harness.projecting import open_ledger
from tests.projector.test_publishing import all_published, publishing_to, until

pytestmark = pytest.mark.services


async def said(settings: Settings, url: str) -> list[str]:
    """Returns what the doctor says of the broker with this URL."""
    return [f"{each.what}; {each.fix}" async for each in check_broker(settings.model_copy(update={"publish_url": url}))]


# ── Kafka ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
async def test_kafka_is_published_to_with_tls_and_a_login(
    settings: Settings, kafka: KafkaServer, authority: Authority, mechanism: str
) -> None:
    to = publishing_to(settings, kafka.secure_url(mechanism, authority.certificate))
    async with open_ledger(to) as ledger, publishing(to):
        head = await ledger.append(Book().history(30))
        await all_published(ledger)
    assert await positions_in(to.model_copy(update={"publish_url": kafka.url})) == [*range(1, head + 1)]
    assert await said(to, to.publish_url or "") == []


async def test_the_doctor_says_why_kafka_cannot_be_published_to(
    settings: Settings, kafka: KafkaServer, authority: Authority, tmp_path: Path
) -> None:
    other = Authority(tmp_path, "other")
    good = kafka.secure_url("SCRAM-SHA-512", authority.certificate)
    password = good.split(":")[2].split("@")[0]
    for url, what in {
        good.replace(password, "wrong"): "it refuses the login",
        good.replace("SHA-512", "SHA-256"): "it has no SCRAM-SHA-256",
        kafka.secure_url("PLAIN", other.certificate): "its certificate is not trusted (",
        f"{kafka.url}?tls=true": "as one without TLS does; turn TLS on there",
        good.partition("?")[0]: "it does not answer as kafka does (",
        f"kafka://127.0.0.1:{free_port()}": "it cannot be reached (ConnectionRefusedError)",
    }.items():
        [found] = await said(settings, url)
        assert what in found
        assert password not in found
    assert await said(settings, kafka.url) == []


async def test_a_kafka_that_is_killed_under_load_loses_nothing_and_keeps_the_order(
    settings: Settings, kafka: KafkaServer
) -> None:
    to, book = publishing_to(settings, kafka.url), Book()
    async with open_ledger(to) as ledger:
        events = [*book.history(3_000)]
        for start in range(0, len(events), 500):
            await ledger.append(events[start : start + 500])
        async with publishing(to):
            await until(ledger, lambda found: found.position > 0)
            await kafka.kill()
            await until(ledger, lambda found: found.is_failing)
            head = await ledger.append(book.history(100))
            await kafka.start()
            await all_published(ledger)
    assert [*dict.fromkeys(await positions_in(to))] == [*range(1, head + 1)]


# ── NATS ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


class PlainNats(NatsServer):
    """A NATS without JetStream."""

    def _command(self) -> ProgramArguments:
        return [*super()._command()[:1], "--addr", "127.0.0.1", "--port", str(self.port)]


class SecureNats(NatsServer):
    """A NATS that asks for TLS."""

    certificate: Path

    def _command(self) -> ProgramArguments:
        return [*super()._command(), "--tls", "--tlscert", self.certificate, "--tlskey", self.certificate]


@asynccontextmanager
async def started(server: NatsServer) -> AsyncIterator[NatsServer]:
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def test_the_doctor_says_why_nats_cannot_be_published_to(settings: Settings, tmp_path: Path, authority: Authority) -> None:
    secure = SecureNats("nats-secure", tmp_path)
    secure.certificate = authority.sign()
    plain, other = PlainNats("nats-plain", tmp_path), Authority(tmp_path, "other")
    async with started(NatsServer("nats", tmp_path)) as nats, started(secure), started(plain):
        login = nats.url.partition("@")[0]
        trusting = f"{secure.url}?ssl_ca_certs={authority.certificate}"
        assert await said(settings, nats.url) == await said(settings, trusting) == []
        to = publishing_to(settings, trusting)
        async with open_ledger(to) as ledger, publishing(to):
            await ledger.append(Book().history(10))
            await all_published(ledger)
        for url, what in {
            nats.url.replace("daybook:", "daybook:x"): "it refuses the login",
            plain.url: "JetStream is off",
            f"{secure.url}?ssl_ca_certs={other.certificate}": "its certificate is not trusted (",
            f"{nats.url}?tls=true": "it does not speak TLS",
            f"nats://127.0.0.1:{free_port()}": "it cannot be reached (ConnectionRefusedError)",
        }.items():
            [found] = await said(settings, url)
            assert what in found
            assert login.rpartition(":")[2] not in found
        both = nats.url + f",127.0.0.1:{free_port()}"
        findings = await examine_as_any_role(settings.model_copy(update={"publish_url": both}))
    assert [each.severity for each in findings if each.name == "broker-unusable"] == ["warning"]
