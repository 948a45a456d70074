"""Decides to which addresses a webhook may send, so that nobody reaches the machines inside through Daybook.

A name is resolved once, all its addresses are checked, and the request goes to one of the checked addresses. So it does not help
to let a name point elsewhere a moment later. Never connect to the name itself, and never follow a redirect.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Final, NamedTuple
from urllib.parse import SplitResult, urlsplit

from shared.setting_values import Network
from shared.webhook_errors import WebhookUrlRefused

URL_CHARACTERS_MAX: Final = 2_000
RESOLVE_SECONDS: Final = 5.0
_PORTS: Final = {"https": 443, "http": 80}
_TRANSLATED: Final = (
    IPv6Network("64:ff9b::/96"),
    IPv6Network("64:ff9b:1::/48"),
    IPv6Network("2002::/16"),
    IPv6Network("2001::/32"),
)
"""IPv6 addresses that lead to an IPv4 address: NAT64, 6to4 and Teredo."""

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Takes a host and a port, and returns the host's IP addresses."""


class CheckedAddress(NamedTuple):
    """An address that was checked, with what a request to it needs. `url` has the address in place of the name."""

    url: str
    host_header: str
    name: str
    """The name that the certificate must have."""


async def resolve(host: str, port: int) -> list[str]:
    """Returns the addresses of a host. A host that cannot be resolved in `RESOLVE_SECONDS` has none."""
    try:
        async with asyncio.timeout(RESOLVE_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [str(address[4][0]) for address in found]


async def checked_address(url: str, networks: Sequence[Network], resolve: Resolve) -> CheckedAddress:
    """Returns an address of the URL's host that Daybook may send to. `networks` are allowed although they are not public.

    Raises:
        WebhookUrlRefused: the URL has the wrong form, its host has no address, or one of its addresses is not allowed.
    """
    parts, port = _parts(url)
    host = parts.hostname or ""
    addresses = await resolve(host, port)
    if not addresses:
        raise WebhookUrlRefused("The host of the URL has no address.")
    for address in addresses:
        _require_allowed(parts.scheme, address, networks)
    chosen = addresses[0]
    literal = f"[{chosen}]" if ":" in chosen else chosen
    return CheckedAddress(parts._replace(netloc=f"{literal}:{port}").geturl(), parts.netloc, host)


def _parts(url: str) -> tuple[SplitResult, int]:
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        raise WebhookUrlRefused("The URL has the wrong form.") from None
    is_plain = url.isascii() and url.isprintable() and " " not in url and "\\" not in url and len(url) <= URL_CHARACTERS_MAX
    if not (is_plain and port and parts.hostname) or parts.username is not None or parts.password is not None or parts.fragment:
        raise WebhookUrlRefused("The URL must be of the form https://example.com/path, without a user and without a fragment.")
    return parts, port


def _require_allowed(scheme: str, text: str, networks: Sequence[Network]) -> None:
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    if any(address.version == network.version and address in network for network in networks):
        return
    is_translated = any(isinstance(address, IPv6Address) and address in network for network in _TRANSLATED)
    if not address.is_global or address.is_multicast or is_translated:
        raise WebhookUrlRefused(
            "The host of the URL has an address that is private, loopback, link-local or reserved, and that "
            "DAYBOOK_WEBHOOK_NETWORKS does not allow."
        )
    if scheme != "https":
        raise WebhookUrlRefused("Daybook sends to addresses outside DAYBOOK_WEBHOOK_NETWORKS over https only.")
