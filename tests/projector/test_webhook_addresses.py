"""A webhook reaches no address that is private, and none but the one that was checked."""

from collections.abc import Sequence
from datetime import UTC, datetime
from ipaddress import ip_network

import pytest

from projector.webhooks.delivery import Deliverer
from shared.setting_values import Network
from shared.webhook_errors import WebhookUrlRefused
from shared.webhooks.addresses import Resolve, checked_address
from tests.harness.receivers import receiver

NOW = datetime(2026, 11, 30, tzinfo=UTC)


def pointing_to(*addresses: str) -> Resolve:
    async def resolve(host: str, port: int) -> Sequence[str]:
        del host, port
        return addresses

    return resolve


async def test_a_delivery_goes_to_the_address_that_was_checked_and_not_to_where_the_name_points_now() -> None:
    """DNS rebinding: for the system, `localhost` is 127.0.0.1. For whoever checked the name, it was 127.0.0.2."""
    async with receiver("127.0.0.2") as checked, receiver("127.0.0.1", checked.port) as inside:
        deliverer = Deliverer([ip_network("127.0.0.2/32")], 5, pointing_to("127.0.0.2"))
        attempt = await deliverer.send(f"http://localhost:{checked.port}/hook", [b"secret"], "1", b"{}", NOW)
        assert attempt.is_delivered
        assert [each.headers["host"] for each in checked.received] == [f"localhost:{checked.port}"]
        assert inside.received == []


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "0.0.0.0",  # an address that must be refused
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1%eth0",
        "fd00::1",
        "ff02::1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "2002:a00:1::1",
        "2001:0:a00:1::1",
    ],
)
async def test_an_address_that_is_not_public_is_refused_also_beside_a_public_one(address: str) -> None:
    for addresses in ([address], ["93.184.215.14", address]):
        with pytest.raises(WebhookUrlRefused):
            await checked_address("https://example.com/hook", [], pointing_to(*addresses))


@pytest.mark.parametrize(("address", "literal"), [("93.184.215.14", "93.184.215.14"), ("2a00:1450::1", "[2a00:1450::1]")])
async def test_a_public_address_takes_the_place_of_the_name(address: str, literal: str) -> None:
    found = await checked_address("https://example.com/a?b=c", [], pointing_to(address))
    assert found == (f"https://{literal}:443/a?b=c", "example.com", "example.com")
    with pytest.raises(WebhookUrlRefused, match="https only"):
        await checked_address("http://example.com/", [], pointing_to(address))


async def test_only_the_networks_of_the_setting_are_allowed_although_they_are_private() -> None:
    allowed: list[Network] = [ip_network("10.0.0.0/8")]
    assert (await checked_address("http://inside/", allowed, pointing_to("10.1.2.3"))).url == "http://10.1.2.3:80/"
    assert (await checked_address("http://inside/", allowed, pointing_to("::ffff:10.1.2.3"))).name == "inside"
    with pytest.raises(WebhookUrlRefused, match="private"):
        await checked_address("http://inside/", allowed, pointing_to("192.168.0.1"))
