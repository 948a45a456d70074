"""Connects to Cassandra. The driver has threads of its own; its answers come back to the event loop."""

import asyncio
import logging
import re
import ssl
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec
from cassandra import ConsistencyLevel, ProtocolVersion
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, Session
from cassandra.policies import ConstantReconnectionPolicy, DCAwareRoundRobinPolicy, TokenAwarePolicy
from cassandra.query import dict_factory

CONNECT_SECONDS_MAX: Final = 5.0
RECONNECT_SECONDS: Final = 0.5
_PORT: Final = 9042
_KEYSPACE: Final = re.compile(r"[a-z][a-z0-9_]{0,40}")
_OPTIONS: Final = {"ca_certs", "datacenter", "replicas"}


class Address(msgspec.Struct, frozen=True):
    """Where Cassandra is, and the keyspace. `replicas` is used if the keyspace has to be made."""

    hosts: tuple[tuple[str, int], ...]
    keyspace: str
    replicas: int
    datacenter: str
    user: str
    password: str
    ca_certs: str | None


def read_address(url: str) -> Address:
    """Reads `cassandra://user:password@host:port,host:port/keyspace?datacenter=…&replicas=…&ca_certs=…`.

    Raises:
        ValueError: it is not one of Cassandra.
        OSError: the file that it names cannot be read.
    """
    parts = urlsplit(url)
    options = parse_qs(parts.query, strict_parsing=bool(parts.query))
    login, _, places = parts.netloc.rpartition("@")
    keyspace = parts.path.strip("/")
    if parts.scheme != "cassandra" or not _KEYSPACE.fullmatch(keyspace) or options.keys() - _OPTIONS:
        raise ValueError
    split = [urlsplit(f"//{each}") for each in places.split(",")]
    hosts = tuple((each.hostname or "", each.port or _PORT) for each in split)
    replicas = int(options.get("replicas", ["1"])[-1])
    if not all(host for host, _ in hosts) or not 1 <= replicas <= 9:  # noqa: PLR2004
        raise ValueError
    ca_certs = options.get("ca_certs", [None])[-1]
    if ca_certs:
        Path(ca_certs).read_bytes()  # fails now, and not with the first request
    user, _, password = login.partition(":")
    return Address(hosts, keyspace, replicas, options.get("datacenter", [""])[-1], unquote(user), unquote(password), ca_certs)


class SharedSession:
    """The session of a process, which connects with the first question, and again with the next if that failed."""

    def __init__(self, address: Address, seconds: float) -> None:
        """Defines a session whose statements take at most this time."""
        self._address = address
        self._seconds = seconds
        self._connecting: asyncio.Task[Session] | None = None

    async def connected(self) -> Session:
        """Returns the session. Raises the errors of the driver if Cassandra does not answer."""
        if self._connecting is None or (self._connecting.done() and self._connecting.exception()):
            self._connecting = asyncio.create_task(asyncio.to_thread(self._connect))
            self._connecting.add_done_callback(_notice)
        return await asyncio.shield(self._connecting)

    def _connect(self) -> Session:
        logging.getLogger("cassandra").setLevel(logging.CRITICAL)  # its errors are raised as well
        address, seconds = self._address, min(self._seconds, CONNECT_SECONDS_MAX)
        profile = ExecutionProfile(
            load_balancing_policy=TokenAwarePolicy(DCAwareRoundRobinPolicy(address.datacenter)),
            consistency_level=ConsistencyLevel.LOCAL_QUORUM,
            serial_consistency_level=ConsistencyLevel.LOCAL_SERIAL,
            request_timeout=self._seconds,
            row_factory=dict_factory,
        )
        cluster = Cluster(
            [*address.hosts],
            execution_profiles={EXEC_PROFILE_DEFAULT: profile},
            protocol_version=ProtocolVersion.V5,
            connect_timeout=seconds,
            control_connection_timeout=seconds,
            reconnection_policy=ConstantReconnectionPolicy(RECONNECT_SECONDS, None),
            schema_metadata_enabled=False,
            **self._security(),
        )
        try:
            return cluster.connect()
        except BaseException:
            cluster.shutdown()
            raise

    def _security(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if self._address.user:
            found["auth_provider"] = PlainTextAuthProvider(self._address.user, self._address.password)
        if self._address.ca_certs:
            found["ssl_context"] = ssl.create_default_context(cafile=self._address.ca_certs)
            # The driver connects to the addresses that the cluster tells, which are no names of certificates.
            found["ssl_context"].check_hostname = False
        return found

    async def close(self) -> None:
        if self._connecting is None:
            return
        await asyncio.wait([self._connecting])
        if not self._connecting.exception():
            await asyncio.to_thread(self._connecting.result().cluster.shutdown)


def _notice(connecting: "asyncio.Task[Session]") -> None:
    """Takes the error of a connection for which nobody waits any more."""
    if not connecting.cancelled():
        connecting.exception()
