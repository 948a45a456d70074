"""Where a request comes from, and how much of that is kept.

`X-Forwarded-For` is anybody's to write: only what a trusted proxy added to it counts, read from the right.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final

UNKNOWN: Final = "unknown"
"""The address of who comes through a local socket."""

_CACHED: Final = 10_000

Network = IPv4Network | IPv6Network


def read_networks(text: str) -> tuple[Network, ...]:
    """Addresses and networks with commas between.

    Raises:
        ValueError: one of them is none.
    """
    return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())


class Addresses:
    """Tells the address of a request's sender."""

    def __init__(self, trusted_proxies: str) -> None:
        self._proxies = read_networks(trusted_proxies)

    def of(self, scope: Mapping[str, Any]) -> str:
        """The sender of an HTTP request, given as its ASGI scope."""
        peer = scope.get("client")
        address: str = peer[0] if peer else UNKNOWN
        if not self._proxies:
            return address
        return self._behind_proxies(address, scope["headers"])

    def _behind_proxies(self, address: str, headers: Sequence[tuple[bytes, bytes]]) -> str:
        """The last one before the proxies that we trust; the proxy itself where it does not say."""
        hops = b",".join(value for name, value in headers if name == b"x-forwarded-for").decode("latin-1").split(",")
        while hops and self._trusts(address):
            before = _read(hops.pop().strip())
            if before is None:
                break
            address = str(before)
        return address

    def _trusts(self, address: str) -> bool:
        parsed = _read(address)
        return parsed is not None and any(parsed in network for network in self._proxies)


@lru_cache(_CACHED)
def _read(text: str) -> IPv4Address | IPv6Address | None:
    try:
        parsed = ip_address(text)
    except ValueError:
        return None
    return (isinstance(parsed, IPv6Address) and parsed.ipv4_mapped) or parsed


def site_of(address: str) -> str:
    """The address, or for IPv6 the network of 64 bits that one subscriber has: to count single ones would count nothing."""
    return _cut(address, 32, 64)


def network_of(address: str) -> str:
    """What is left of an address in an event, which is kept for ever: enough to tell a company or a country, not a person."""
    return _cut(address, 24, 48)


@lru_cache(_CACHED)
def _cut(address: str, bits_v4: int, bits_v6: int) -> str:
    parsed = _read(address)
    if parsed is None:
        return UNKNOWN
    bits = bits_v4 if isinstance(parsed, IPv4Address) else bits_v6
    return address if bits == parsed.max_prefixlen else str(ip_network((parsed, bits), strict=False))
