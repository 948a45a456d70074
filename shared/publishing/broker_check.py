"""Connects to the broker for `daybook doctor`, as the publisher does, and says what is wrong. Publishes nothing."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from importlib import import_module
from typing import Any, Final

import msgspec

from shared.broker_address import BrokerAddress, kafka_login, read_broker_address
from shared.errors import SettingsInvalid
from shared.logs import kind_of
from shared.settings import Settings
from shared.stores.findings import Finding, found

ANSWER_SECONDS: Final = 3.0
_LOGIN_REFUSED: Final = {"SaslAuthenticationFailed", "AuthenticationFailedError", "AuthorizationError"}
_VIOLATION: Final = "authorization violation"
"""NATS says so in an error that has no class of its own."""
_TLS: Final = "turn TLS on there, or leave out tls and ssl_ca_certs in DAYBOOK_PUBLISH_URL"
_NO_JETSTREAM: Final = {"ServiceUnavailableError", "NoStreamResponseError", "NoRespondersError"}


async def check_broker(settings: Settings) -> AsyncIterator[Finding]:
    """Yields a finding for each server of DAYBOOK_PUBLISH_URL that the publisher could not use.

    Raises:
        SettingsInvalid: the packages of the broker are not installed.
    """
    address = read_broker_address(settings.publish_url or "")
    try:
        ask = _ASK[address.kind]()
    except ModuleNotFoundError as missing:
        problem = f"needs the package {missing.name}, which is not installed: run `pip install 'daybook[publish]'`"
        raise SettingsInvalid([f"DAYBOOK_PUBLISH_URL: {problem}"]) from None
    outcomes = await asyncio.gather(*(_outcome(ask, address, server) for server in address.servers))
    for server, error in zip(address.servers, outcomes, strict=True):
        if error is not None:
            what, fix = _explained(error, address)
            yield found("broker-unusable", server=server, what=what, fix=fix)


Greeting = Callable[[BrokerAddress, str], Awaitable[None]]


async def _outcome(ask: Greeting, address: BrokerAddress, server: str) -> Exception | None:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await ask(address, server)
    except Exception as error:  # noqa: BLE001 # each driver has errors of its own, and each of them is an outcome
        return error
    return None


def _explained(error: Exception, address: BrokerAddress) -> tuple[str, str]:
    """Returns what is wrong, and what to do. The texts of the drivers' errors are left out: they can hold the login."""
    name = type(error).__name__
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})", "name its authority with ?ssl_ca_certs=file"
    if isinstance(error, ssl.SSLError):
        return "it does not speak TLS", _TLS
    if isinstance(error, ConnectionResetError) and address.is_encrypted:
        return "it ends the connection at once, as one without TLS does", _TLS
    if name in _LOGIN_REFUSED or _VIOLATION in str(error).lower():
        return "it refuses the login", "correct the user, the password or the mechanism in DAYBOOK_PUBLISH_URL"
    if name == "UnsupportedSaslMechanismError":
        return f"it has no {address.mechanism}", "name a mechanism that it has with ?mechanism="
    if name in _NO_JETSTREAM:
        return "JetStream is off", "turn JetStream on there, for this account"
    if isinstance(error, OSError) and not isinstance(error, TimeoutError):
        return f"it cannot be reached ({name})", "start it, or correct the host and the port in DAYBOOK_PUBLISH_URL"
    asks_for_tls = "" if address.is_encrypted else "; if it asks for TLS, add ?tls=true"
    return f"it does not answer as {address.kind} does ({kind_of(error)})", f"check the port{asks_for_tls}, and its log"


def _kafka() -> Greeting:
    connections = import_module("aiokafka.conn")
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)

    async def ask(address: BrokerAddress, server: str) -> None:
        host, _, port = server.rpartition(":")
        connection = await connections.create_conn(
            host.strip("[]"), int(port), client_id="daybook-doctor", **kafka_login(address)
        )
        connection.close()

    return ask


def _nats() -> Greeting:
    no_servers: type[Exception] = import_module("nats.errors").NoServersError
    driver = import_module("shared.publishing.nats_client")
    logging.getLogger("nats").setLevel(logging.CRITICAL)

    async def ask(address: BrokerAddress, server: str) -> None:
        errors: list[Exception] = []

        async def note(error: Exception) -> None:
            errors.append(error)

        options: dict[str, Any] = {"connect_timeout": int(ANSWER_SECONDS), "allow_reconnect": False, "max_reconnect_attempts": 1}
        try:
            connection = await driver.connect_to_nats(
                msgspec.structs.replace(address, servers=(server,)), **options, error_cb=note
            )
        except no_servers:
            raise errors[-1] from None
        try:
            await connection.jetstream(timeout=ANSWER_SECONDS).account_info()
        finally:
            await connection.close()

    return ask


_ASK: Final[Mapping[str, Callable[[], Greeting]]] = {"kafka": _kafka, "nats": _nats}
