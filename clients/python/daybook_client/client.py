"""The client for threads. `make client` writes this file from `asyncio_client.py`."""

import os
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from time import monotonic, sleep
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, Unpack

import httpx2

from daybook_client.bodies import EventResource, Page, StreamEventsArguments
from daybook_client.exchange import (
    ATTEMPTS_MAX,
    LOOK_SECONDS,
    STREAM_PAUSE_SECONDS,
    TIMEOUT_SECONDS,
    Operation,
    Outcome,
    Outgoing,
    Positions,
    content_of,
    outgoing,
    pause_before_retry,
    position_of,
    settled,
)
from daybook_client.money import Exponents, Money
from daybook_client.operations import OPERATIONS, Operations

P = ParamSpec("P")
T = TypeVar("T")


class Daybook(Operations):
    """A client of both APIs for threads. They can share one.

    The addresses and the key come from `DAYBOOK_COMMAND_URL`, `DAYBOOK_QUERY_URL` and `DAYBOOK_API_KEY` unless you give them.
    Without a `ledger`, requests go to the ledger of the API key. Every query waits until it shows what this client has written.
    """

    def __init__(
        self,
        command_url: str | None = None,
        query_url: str | None = None,
        api_key: str | None = None,
        *,
        ledger: str | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        attempts_max: int = ATTEMPTS_MAX,
    ) -> None:
        self._urls = {
            "command": (command_url or os.environ["DAYBOOK_COMMAND_URL"]).rstrip("/"),
            "query": (query_url or os.environ["DAYBOOK_QUERY_URL"]).rstrip("/"),
        }
        key = os.environ["DAYBOOK_API_KEY"] if api_key is None else api_key
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        headers |= {"Daybook-Ledger": ledger} if ledger else {}
        self._http = httpx2.Client(headers=headers, timeout=timeout_seconds)
        self._attempts_max = attempts_max
        self._positions = Positions()
        self._exponents: Exponents | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def money(self, amount: Decimal | str, currency: str) -> Money:
        """Returns an amount to send: `money("12.50", "EUR")`.

        Raises:
            ValueError: the currency is unknown, or the amount has more decimal places than the currency.
            TypeError: the amount is a float or an int.
        """
        return (self._known_exponents()).money(amount, currency)

    def money_of(self, answer: Mapping[str, Any], member: str = "amount") -> Money:
        """Reads an amount from an answer, which has minor units: `money_of(balance, "available")`."""
        return (self._known_exponents()).money_of(answer, member)

    def _known_exponents(self) -> Exponents:
        if self._exponents is None:
            self._exponents = Exponents({each["code"]: each["exponent"] for each in self.list_currencies()})
        return self._exponents

    def every(self, list_: Callable[P, Page[T]], *arguments: P.args, **filters: P.kwargs) -> Iterator[T]:
        """Yields the items of all pages of a list: `every(daybook.list_transfers, account_id=account_id)`."""
        page = list_(*arguments, **filters)
        while True:
            yield from page["items"]
            if page["next"] is None:
                return
            filters["cursor"] = page["next"]
            page = list_(*arguments, **filters)

    def wait_for(self, position: int, within_seconds: float = 10.0) -> None:
        """Waits until all read models show the events up to a position. Needs the scope `ledger:read`.

        Raises:
            TimeoutError: they did not within this time.
        """
        end = monotonic() + within_seconds
        while any((each["position"] or 0) < position for each in (self.list_projections())["items"]):
            if monotonic() > end:
                raise TimeoutError(f"the read models do not show position {position} after {within_seconds} s")
            sleep(LOOK_SECONDS)

    def stream_events(self, **arguments: Unpack[StreamEventsArguments]) -> Iterator[EventResource]:
        """Yields events as they are recorded, without an end. A lost connection is opened again after the last event."""
        operation, attempts = OPERATIONS["stream_events"], 0
        while True:
            request = outgoing(operation, self._urls["query"], {}, arguments, self._positions)
            try:
                with self._http.stream("GET", request.url, params=request.parameters, headers=request.headers) as answer:
                    if not answer.is_success:
                        answer.read()
                    else:
                        for sent in httpx2.EventSource(answer):
                            attempts = 0
                            if sent.id:
                                arguments["after"] = int(sent.id)
                            if sent.data:
                                yield sent.json()  # type: ignore[misc] # as the API's document says
                outcome: Outcome = answer
            except httpx2.TransportError as error:
                outcome = error
            attempts += 1
            if isinstance(outcome, httpx2.Response) and outcome.is_success:
                sleep(STREAM_PAUSE_SECONDS)
            elif not self._has_waited(request, attempts, outcome):
                content_of(settled(request, attempts, outcome))

    def _call(self, name: str, path_arguments: Mapping[str, str], arguments: Mapping[str, Any]) -> Any:
        operation: Operation = OPERATIONS[name]
        request = outgoing(operation, self._urls[operation.api], path_arguments, arguments, self._positions)
        answer = self._send(request)
        if operation.has_key:
            self._positions.saw(request.ledger, position_of(answer))
        return content_of(answer)

    def _send(self, request: Outgoing) -> httpx2.Response:
        attempts = 0
        while True:
            attempts += 1
            try:
                outcome: Outcome = self._http.request(
                    request.operation.method, request.url, params=request.parameters, headers=request.headers, json=request.body
                )
            except httpx2.TransportError as error:
                outcome = error
            if not self._has_waited(request, attempts, outcome):
                return settled(request, attempts, outcome)

    def _has_waited(self, request: Outgoing, attempts: int, outcome: Outcome) -> bool:
        """Waits before the next attempt. Returns False at once if there must be none."""
        pause = pause_before_retry(request, attempts, outcome)
        if pause is None or attempts >= self._attempts_max:
            return False
        sleep(pause)
        return True
