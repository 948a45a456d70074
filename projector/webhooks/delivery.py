"""Sends one delivery, and says how it ended.

A receiver can neither redirect a delivery, nor keep it open, nor make Daybook read a long answer.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import httpx2
import orjson

from shared.log.read import StoredEvent
from shared.setting_values import Network
from shared.timestamps import timestamp
from shared.webhook_errors import WebhookUrlRefused
from shared.webhooks.addresses import Resolve, checked_address
from shared.webhooks.signatures import signed_headers

GONE: Final = 410
"""A receiver answers so if it wants no more deliveries."""
PING_TYPE: Final = "WebhookTested"


class Attempt(NamedTuple):
    """How an attempt ended. `outcome` is for people, and has nothing that the receiver could choose but a number."""

    is_delivered: bool
    outcome: str
    is_gone: bool = False


def event_body(event: StoredEvent) -> bytes:
    """Returns the body of a delivery: the event as `GET /v1/events` shows it, so personal fields are encrypted."""
    return _body(event.type, event.recorded_at, event.ledger_id, event.members())


def ping_body(ledger_id: str, asked_at: datetime) -> bytes:
    """Returns the body of a test, which is about no event."""
    return _body(PING_TYPE, asked_at, ledger_id, {})


def _body(type_name: str, moment: datetime, ledger_id: str, data: dict[str, Any]) -> bytes:
    return orjson.dumps({"type": type_name, "timestamp": timestamp(moment), "ledger_id": ledger_id, "data": data})


class Deliverer:
    """Sends deliveries. Each has a connection of its own, to an address that was checked just before."""

    def __init__(self, networks: Sequence[Network], timeout_seconds: float, resolve: Resolve) -> None:
        self._networks = networks
        self._timeout_seconds = timeout_seconds
        self._resolve = resolve
        self._certificates = httpx2.create_ssl_context()  # reading them takes longer than a delivery

    async def send(self, url: str, secrets: Sequence[bytes], delivery_id: str, body: bytes, sent_at: datetime) -> Attempt:
        """Sends a delivery once. Everything that can go wrong is in the answer."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                target = await checked_address(url, self._networks, self._resolve)
                headers = signed_headers(secrets, delivery_id, sent_at, body)
                headers |= {"Host": target.host_header, "Content-Type": "application/json", "User-Agent": "Daybook"}
                async with (
                    self._client() as client,
                    client.stream(
                        "POST", target.url, content=body, headers=headers, extensions={"sni_hostname": target.name}
                    ) as answer,
                ):
                    # The body is not read. Leaving the block closes the connection.
                    return Attempt(answer.is_success, _outcome(answer), answer.status_code == GONE)
        except WebhookUrlRefused as refused:
            return Attempt(is_delivered=False, outcome=str(refused))
        except TimeoutError:
            return Attempt(is_delivered=False, outcome=f"no answer within {self._timeout_seconds:g} s")
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
            return Attempt(is_delivered=False, outcome=type(error).__name__)

    def _client(self) -> httpx2.AsyncClient:
        """A client for one delivery. With a shared one, a connection could be used for another host of the same address."""
        return httpx2.AsyncClient(
            verify=self._certificates, trust_env=False, follow_redirects=False, timeout=self._timeout_seconds
        )


def _outcome(answer: httpx2.Response) -> str:
    followed = ", which is not followed" if answer.is_redirect else ""
    return f"{answer.status_code}{followed}"
