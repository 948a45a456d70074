"""Everything about a request that needs no socket: its URL, headers and body; which answers are tried again; what an answer says.

The two clients only send, wait, and send again.
"""

import random
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from http import HTTPStatus
from typing import Any, Final, Literal
from urllib.parse import quote

import httpx2

from daybook_client.money import Money, currency_member
from daybook_client.problem import NoAnswer, Problem
from daybook_client.problems import PROBLEM_OF_CODE

TIMEOUT_SECONDS: Final = 30.0
ATTEMPTS_MAX: Final = 8
LOOK_SECONDS: Final = 0.05
STREAM_PAUSE_SECONDS: Final = 1.0
PAUSE_SECONDS: Final = 0.1
PAUSE_SECONDS_MAX: Final = 5.0
RETRY_AFTER_SECONDS_MAX: Final = 60.0
IN_PROGRESS: Final = "idempotency-in-progress"
"""The same key is under way in another request. Its answer is there a moment later."""
REPEATABLE: Final = frozenset({"GET", "PUT", "DELETE"})
HEADERS: Final = {"idempotency_key": "Idempotency-Key", "ledger": "Daybook-Ledger"}

Outcome = httpx2.Response | httpx2.TransportError


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of an OpenAPI document."""

    api: Literal["command", "query"]
    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    """Argument → parameter of the query: `amount_gte` → `amount[gte]`."""
    body: frozenset[str] = frozenset()
    has_key: bool = False
    """True if the operation takes an `Idempotency-Key`."""
    has_freshness: bool = False
    """True if the operation takes `Daybook-Min-Position`."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request that is ready to be sent, any number of times, each time with the same idempotency key."""

    operation: Operation
    url: str
    parameters: httpx2.QueryParams
    headers: dict[str, str]
    body: dict[str, Any] | None

    @property
    def idempotency_key(self) -> str | None:
        return self.headers.get("Idempotency-Key")

    @property
    def ledger(self) -> str:
        """The ledger that this request names, or "" for the client's own."""
        return self.headers.get("Daybook-Ledger", "")

    @property
    def is_repeatable(self) -> bool:
        """True if sending it twice has no more effect than sending it once."""
        return self.operation.method in REPEATABLE or self.idempotency_key is not None


class Positions:
    """The last position of each ledger that this client wrote or was told of. Queries wait for it."""

    def __init__(self) -> None:
        self._positions: dict[str, int] = {}

    def saw(self, ledger: str, position: int) -> None:
        self._positions[ledger] = max(position, self.of(ledger))

    def of(self, ledger: str) -> int:
        return self._positions.get(ledger, 0)


def outgoing(
    operation: Operation, url: str, path_arguments: Mapping[str, str], arguments: Mapping[str, Any], positions: Positions
) -> Outgoing:
    """Prepares a request.

    Raises:
        TypeError: an argument is none that the operation takes.
        ValueError: an amount has another currency than the one beside it.
    """
    headers = {HEADERS[name]: str(value) for name, value in arguments.items() if name in HEADERS}
    if operation.has_key:
        headers.setdefault("Idempotency-Key", str(uuid.uuid4()))
    if "if_match" in arguments:
        headers["If-Match"] = f'"v{arguments["if_match"]}"'
    if operation.has_freshness:
        position = arguments.get("min_position", positions.of(headers.get("Daybook-Ledger", "")))
        headers |= {"Daybook-Min-Position": str(position), "Prefer": "wait=5, handling=strict"} if position else {}
    body = {name: value for name, value in arguments.items() if name in operation.body}
    known = {*HEADERS, "if_match", "min_position", *operation.query, *operation.body}
    if unknown := arguments.keys() - known:
        raise TypeError(f"{operation.method} {operation.path} takes no {', '.join(sorted(unknown))}")
    path = operation.path.format_map({name: quote(str(value), safe="") for name, value in path_arguments.items()})
    return Outgoing(operation, url + path, _parameters(operation, arguments), headers, _json(body) if operation.body else None)


def _parameters(operation: Operation, arguments: Mapping[str, Any]) -> httpx2.QueryParams:
    parameters: list[tuple[str, str | int | float | bool | None]] = []
    for argument, name in operation.query.items():
        match arguments.get(argument):
            case None:
                pass
            case dict() as filters:
                parameters += [(f"{name}[{key}]", str(value)) for key, value in filters.items()]
            case value:
                parameters.append((name, _text(value)))
    return httpx2.QueryParams(parameters)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(_json(value))


def _json(value: Any) -> Any:
    """Turns `Money` into an amount and its currency, and other values into what JSON has for them."""
    match value:
        case dict():
            return _json_object(value)
        case list() | tuple():
            return [_json(each) for each in value]
        case datetime():
            if value.tzinfo is None:
                raise ValueError(f"{value} has no time zone")
            return value.isoformat()
        case Decimal():
            return f"{value:f}"
        case uuid.UUID():
            return str(value)
    return value


def _json_object(members: Mapping[str, Any]) -> dict[str, Any]:
    sent: dict[str, Any] = {}
    for name, value in members.items():
        if not isinstance(value, Money):
            sent[name] = _json(value)
            continue
        currency = currency_member(name)
        if members.get(currency, value.currency) != value.currency:
            raise ValueError(f"{name} is in {value.currency}, and {currency} is {members[currency]}")
        sent |= {name: value.minor_units, currency: value.currency}
    return sent


def pause_before_retry(request: Outgoing, attempts: int, answer: Outcome) -> float | None:
    """Returns how many seconds to wait before the next attempt, or None if the answer stands.

    The wait doubles up to `PAUSE_SECONDS_MAX`, and a random part of it keeps clients apart. It is never shorter than the answer
    asks for with `Retry-After`.
    """
    asked = 0.0
    if isinstance(answer, httpx2.TransportError):
        if not (request.is_repeatable or isinstance(answer, (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout))):
            return None
    else:
        if not _asks_for_retry(request, answer):
            return None
        after = answer.headers.get("Retry-After", "")
        asked = min(float(after), RETRY_AFTER_SECONDS_MAX) if after.isdecimal() else 0.0
    pause: float = min(PAUSE_SECONDS * 2 ** min(attempts - 1, 10), PAUSE_SECONDS_MAX)
    return asked + pause * random.uniform(0.5, 1.0)  # noqa: S311 # not a secret


def _asks_for_retry(request: Outgoing, answer: httpx2.Response) -> bool:
    match answer.status_code:
        case HTTPStatus.TOO_MANY_REQUESTS:
            return True
        case HTTPStatus.BAD_GATEWAY | HTTPStatus.SERVICE_UNAVAILABLE | HTTPStatus.GATEWAY_TIMEOUT:
            return request.is_repeatable
        case HTTPStatus.CONFLICT:
            return _members(answer).get("code") == IN_PROGRESS
    return False


def content_of(answer: httpx2.Response) -> Any:
    """Returns what the answer's JSON says, or None if it has no body.

    Raises:
        Problem: the API refused the request.
    """
    if answer.is_success:
        return answer.json() if answer.content else None
    members = _members(answer)
    raise PROBLEM_OF_CODE.get(str(members.get("code")), Problem)(answer.status_code, members)


def position_of(answer: httpx2.Response) -> int:
    position = answer.headers.get("Daybook-Position", "")
    return int(position) if position.isdecimal() else 0


def settled(request: Outgoing, attempts: int, outcome: Outcome) -> httpx2.Response:
    """Returns the answer that stands after all attempts.

    Raises:
        NoAnswer: there is none.
    """
    if isinstance(outcome, httpx2.Response):
        return outcome
    method, path = request.operation.method, request.operation.path
    told = f"{method} {path} got no answer in {attempts} attempts: {type(outcome).__name__} {outcome}"
    raise NoAnswer(told.rstrip(), request.idempotency_key) from outcome


def _members(answer: httpx2.Response) -> dict[str, Any]:
    """The problem document. Another server than Daybook may have answered anything."""
    try:
        members = answer.json()
    except ValueError:
        return {}
    return members if isinstance(members, dict) else {}
