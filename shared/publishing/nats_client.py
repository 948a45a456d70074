"""Connects to NATS. Import it only where DAYBOOK_PUBLISH_URL names a NATS."""

import asyncio
import ssl
from contextlib import suppress
from typing import Any, Final

from nats.aio.client import Client

from shared.broker_address import BrokerAddress, nats_login

CLOSE_SECONDS: Final = 0.3


class _EncryptedClient(Client):
    """A client that leaves a server without TLS. The driver's own would send the login there in plain text."""

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:  # noqa: FBT001, FBT002 # as there
        if not (info.get("tls_required") or info.get("tls_available")):
            raise ssl.SSLError("the server does not ask for TLS")
        await super()._process_info(info, initial_connection)


async def connect_to_nats(address: BrokerAddress, **options: Any) -> Client:
    """Returns a connection to one of the servers. `options` are those of the driver.

    Raises:
        nats.errors.Error, OSError, TimeoutError: no server can be used.
    """
    client = _EncryptedClient() if address.is_encrypted else Client()
    try:
        await client.connect([f"nats://{server}" for server in address.servers], **nats_login(address), **options)
    except BaseException:
        # The driver leaves the socket of a failed login open. After a failed handshake, it would wait for ever for the close.
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await client.close()
        raise
    return client
