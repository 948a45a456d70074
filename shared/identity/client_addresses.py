"""Finds the IP address of the client that sent a request, and shortens addresses to networks.

Any client can send an `X-Forwarded-For` header, so only the parts that trusted proxies added count. A proxy adds the address of
its peer at the end, so the header is read from right to left.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, Final

from shared.setting_values import read_networks

UNKNOWN: Final = "unknown"
"""The address of a client on a local socket."""

_CACHED: Final = 10_000


class ClientAddresses:
    """Finds the address of the client that sent a request, also behind trusted proxies."""

    def __init__(self, trusted_proxies: str) -> None:
        self._proxies = read_networks(trusted_proxies)

    def of(self, scope: Mapping[str, Any]) -> str:
        """Returns the client's address for the ASGI scope of an HTTP request."""
        peer = scope.get("client")
        address: str = peer[0] if peer else UNKNOWN
        if not self._proxies:
            return address
        return self._behind_proxies(address, scope["headers"])

    def _behind_proxies(self, address: str, headers: Sequence[tuple[bytes, bytes]]) -> str:
        """Returns the last address in the chain of proxies that is not a trusted proxy.

        If a trusted proxy sends no valid address, returns the address of that proxy.
        """
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
    """Returns the site of an address: an IPv4 address itself, or the /64 network of an IPv6 address.

    An IPv6 subscriber usually has a whole /64 network, so a limit on single addresses would have no effect.
    """
    return _cut(address, 32, 64)


def truncated_network(address: str) -> str:
    """Returns the network that events store for ever: the /24 of an IPv4 address, or the /48 of an IPv6 address.

    Such a network can point to a company or a country, but not to a person.
    """
    return _cut(address, 24, 48)


@lru_cache(_CACHED)
def _cut(address: str, bits_v4: int, bits_v6: int) -> str:
    parsed = _read(address)
    if parsed is None:
        return UNKNOWN
    bits = bits_v4 if isinstance(parsed, IPv4Address) else bits_v6
    return address if bits == parsed.max_prefixlen else str(ip_network((parsed, bits), strict=False))
