"""The URL of a broker is read as it is documented, and never repeated in an error."""

import sys
from typing import Any, Final

import pytest

from projector.publishing.broker import open_broker
from shared.broker_address import BrokerAddress, read_broker_address
from shared.errors import SettingsInvalid
from shared.settings import read_settings
from tests.harness.log import MASTER_KEY

URLS: Final = {"database_url": "", "mongo_url": "", "redis_url": ""}
GIVEN: Final[dict[str, Any]] = {**URLS, "secret": "x" * 32, "master_keys": MASTER_KEY}


def test_a_url_has_servers_a_login_and_tls() -> None:
    assert read_broker_address("nats://127.0.0.1") == BrokerAddress("nats", ("127.0.0.1:4222",))
    assert read_broker_address("kafka://me:a%40b@one:1,[::1],two?ssl_ca_certs=/ca.pem&mechanism=SCRAM-SHA-512") == BrokerAddress(
        "kafka",
        ("one:1", "[::1]:9092", "two:9092"),
        user="me",
        password="a@b",
        is_encrypted=True,
        ca_file="/ca.pem",
        mechanism="SCRAM-SHA-512",
    )


@pytest.mark.parametrize(
    "url",
    [
        *("amqp://tell-nobody@host", "nats://tell-nobody@", "nats://tell-nobody@host:0", "nats://tell-nobody@host/path"),
        *("nats://tell-nobody@host?tls=maybe", "kafka://tell-nobody@host?mechanism=NONE", "kafka://tell-nobody@host?acks=0"),
    ],
)
def test_another_url_is_one_problem_that_does_not_show_it(url: str) -> None:
    with pytest.raises(SettingsInvalid, match="DAYBOOK_PUBLISH_URL") as told:
        read_settings(**GIVEN, publish_url=url)
    assert "tell-nobody" not in str(told.value)


@pytest.mark.parametrize(("url", "package"), [("nats://127.0.0.1", "nats"), ("kafka://127.0.0.1", "aiokafka")])
def test_a_missing_driver_is_one_problem_that_names_the_extra(monkeypatch: pytest.MonkeyPatch, url: str, package: str) -> None:
    loaded = [name for name in sys.modules if name.startswith(f"{package}.")]  # by other tests of this process
    for name in (package, *loaded):
        monkeypatch.setitem(sys.modules, name, None)
    for module in ("nats_broker", "kafka_broker"):
        monkeypatch.delitem(sys.modules, f"projector.publishing.{module}", raising=False)
    settings = read_settings(**GIVEN, publish_url=url)
    with pytest.raises(SettingsInvalid, match=rf"DAYBOOK_PUBLISH_URL: needs the package {package}.* 'daybook\[publish\]'"):
        open_broker(settings)
