"""From an HTTP request to a command's arguments: one strict reading of the body, and the headers that go with it.

FastAPI documents the routes and could read their arguments too. `CommandRoute` reads them instead, because
FastAPI keeps the last of two equal keys and takes 1.0 for 1, and because this is the hot path: one parse, one validation.
"""

import hashlib
import hmac
import inspect
import json
import re
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import cached_property
from typing import Any, Final, TypeVar, get_type_hints

import msgspec
import orjson
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.types import Receive, Scope, Send

from command_api import batch
from command_api.batch import Outcome, Replies, Reply
from command_api.command import Command
from shared.access import Principal, rule_of
from shared.addresses import network_of
from shared.errors import (
    AmountOutOfRange,
    BadRequest,
    CurrencyUnknown,
    IdempotencyKeyInvalid,
    IdempotencyKeyRequired,
    MalformedJson,
    PayloadTooLarge,
    Rejection,
    RequestTimeout,
    UnsupportedMediaType,
    ValidationFailed,
)
from shared.events import canonical
from shared.fields import LEDGER_ID, Id
from shared.headers import SentHeaders
from shared.http import (
    JSON,
    LEDGER_ID_WRONG,
    PROBLEM_JSON,
    STATUS,
    across_origins,
    admit,
    answer_error,
    enveloped,
    meet,
    problem,
    same_ledger,
    validation_failed,
)
from shared.settings import Settings

IDEMPOTENCY_KEY: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")
IF_MATCH: Final = re.compile(r'"v(\d{1,18})"')


# ── the body ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def strict_json(raw: bytes) -> dict[str, Any]:
    """A JSON object without duplicate keys, NaN or Infinity.

    Raises:
        MalformedJson: it is something else.
    """
    try:
        value = _DECODER.decode(raw.decode())
    except (ValueError, RecursionError):
        raise MalformedJson from None
    if type(value) is not dict:
        msg = "The body must be a JSON object."
        raise MalformedJson(msg)
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError
    return members


def _refuse_constant(_: str) -> None:
    raise ValueError


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)


async def read_body(request: Request, settings: Settings) -> bytes:
    """Raises:
    UnsupportedMediaType, PayloadTooLarge, RequestTimeout: it is not read to its end.
    """
    bytes_max = settings.body_bytes_max
    headers = request.headers
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != JSON or headers.get("content-encoding", "identity") != "identity":
        raise UnsupportedMediaType
    if int(headers.get("content-length", "0")) > bytes_max:
        raise PayloadTooLarge
    raw, more = b"", True
    while more:
        message = await request.receive()
        if message["type"] != "http.request":
            raise RequestTimeout  # nobody is there any more: the time for it is `shared.protocol`'s to keep
        raw += message.get("body", b"")
        more = message.get("more_body", False)
        if len(raw) > bytes_max:
            raise PayloadTooLarge
    return raw


Model = TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], fields: dict[str, Any]) -> Model:
    """Raises:
    ValidationFailed: the form is wrong somewhere; else AmountOutOfRange or CurrencyUnknown.
    """
    try:
        return model.model_validate(fields)
    except ValidationError as invalid:
        errors = invalid.errors(include_url=False, include_input=False, include_context=False)
        kinds = {_kind(error) for error in errors}
        for kind in (ValidationFailed, AmountOutOfRange, CurrencyUnknown):
            if kind in kinds:
                raise validation_failed([{**e, "loc": ("body", *e["loc"])} for e in errors], kind) from None
        raise


def _kind(error: Any) -> type[BadRequest]:
    """Which code an error of pydantic belongs to."""
    if error["type"] in {"greater_than_equal", "less_than_equal"} and error["loc"][-1] in {"amount", "overdraft_limit"}:
        return AmountOutOfRange
    return CurrencyUnknown if error["type"] == "currency_unknown" else ValidationFailed


# ── the call ─────────────────────────────────────────────────────────────────────────────────────────────────────────

Describe = Callable[[Any, Outcome], dict[str, Any]]
"""(command, outcome) → the members of the answer."""


class Call(Request):
    """An HTTP request that carries a command."""

    principal: Principal
    fields: dict[str, Any] = {}  # noqa: RUF012 # the body; replaced where there is one, never changed

    @cached_property
    def headers(self) -> SentHeaders:
        return SentHeaders(self.scope)

    async def run(self, command: Command, describe: Describe, *, new: str | None = None, moves_money: bool = False) -> Response:
        """Has the command handled and answers: 201 with the `Location` below `/v1/<new>/` for something new, 200 for a change."""
        replies = _Replies(command, describe, 201 if new else 200, self.state.request_id)
        # The hash of a request about a person must not be one that can be guessed at.
        secret = await self.pepper() if command.person_id() else b""
        [reply] = await self._handle([(self._idempotency_key(required=moves_money), command, replies)], secret)
        return self._response(reply, new)

    def answer(self, members: dict[str, Any]) -> Response:
        """For what is no command."""
        return Response(orjson.dumps(members), 200, media_type=JSON)

    def ended_for(self, user_id: str) -> Response:
        """Done, and some of the user's credentials may have ended by it."""
        self.state.gate.forget(self.ledger_id(), user_id)
        return Response(None, 204)

    async def run_each(self, commands: Sequence[Command], describe: Describe) -> Response:
        """Has each command handled by itself and answers 200 with the status and the body of each, in their order.

        Each has a key of its own, made of the request's with what no caller can send: a repeated request, also one that was
        answered 503 half-way, has one effect for each command.
        """
        key, request_id = self._idempotency_key(required=True), self.state.request_id
        replies = await self._handle(
            [(f"{key}\x1f{n}", command, _Replies(command, describe, 201, request_id)) for n, command in enumerate(commands)]
        )
        results = b",".join(b'{"status":%d,"body":%b}' % (reply.status, reply.body) for reply in replies)
        headers = {}
        if positions := [reply.position for reply in replies if reply.position is not None]:
            headers["Daybook-Position"] = str(max(positions))
        if all(reply.replayed for reply in replies):
            headers["Idempotency-Replayed"] = "true"
        return Response(b'{"results":[%b]}' % results, 200, headers, JSON)

    async def _handle(self, wanted: Sequence[tuple[str | None, Command, Replies]], secret: bytes = b"") -> list[Reply]:
        request_hash, expected_version = self._hash(secret), self._expected_version()
        caller = self.principal
        metadata = {
            "command": type(wanted[0][1]).__name__,
            "request_id": self.state.request_id,
            "principal": caller.principal,
            "key_id": caller.key_id,
            "network": network_of(self.state.address),
        }
        requests = [
            batch.Request(
                command=command,
                replies=replies,
                metadata=metadata,
                principal=caller.principal,
                customer=caller.user_id,
                idempotency_key=key,
                request_hash=request_hash,
                expected_version=expected_version,
            )
            for key, command, replies in wanted
        ]
        answers: list[Reply] = await self.state.handler.handle(self.ledger_id(), requests)
        return answers

    def ledger_id(self) -> str:
        return same_ledger(self, self.principal)

    def any_ledger_id(self) -> str:
        """The ledger that somebody asks for whom nobody knows yet; it may not exist."""
        ledger_id: str = self.headers.get("daybook-ledger", "main")
        if not LEDGER_ID.fullmatch(ledger_id):
            raise ValidationFailed(LEDGER_ID_WRONG)
        return ledger_id

    async def pepper(self) -> bytes:
        """The secret that the ledger's addresses are hashed with."""
        pepper: bytes = await self.state.handler.pepper(self.ledger_id())
        return pepper

    def _idempotency_key(self, *, required: bool) -> str | None:
        keys = self.headers.getlist("idempotency-key")
        if not keys and required:
            raise IdempotencyKeyRequired
        if len(keys) > 1 or not all(map(IDEMPOTENCY_KEY.fullmatch, keys)):
            raise IdempotencyKeyInvalid
        return keys[0] if keys else None

    def _expected_version(self) -> int | None:
        value = self.headers.get("if-match")
        if value is None:
            return None
        if not (version := IF_MATCH.fullmatch(value)):
            msg = 'If-Match must be one ETag of the form "v7".'
            raise ValidationFailed(msg)
        return int(version[1])

    def _hash(self, secret: bytes) -> bytes:
        """The same for requests of the same content, however their JSON is written."""
        content = canonical((self.method, self.scope["path"], self.headers.get("if-match"), self.fields))
        return hmac.digest(secret, content, "sha256") if secret else hashlib.sha256(content).digest()

    def _response(self, reply: Reply, new: str | None) -> Response:
        headers = {}
        if reply.replayed:
            headers["Idempotency-Replayed"] = "true"
        if reply.position is None:
            return Response(reply.body, reply.status, headers, PROBLEM_JSON)
        headers["Daybook-Position"] = str(reply.position)
        # Taken from the body, since a replayed answer has nothing else.
        members = orjson.loads(reply.body)
        if new:
            headers["Location"] = f"{self.state.settings.query_url}/v1/{new}/{members['id']}"
        if "version" in members:
            headers["ETag"] = f'"v{members["version"]}"'
        return Response(reply.body, reply.status, headers, JSON)


class _Replies(msgspec.Struct, frozen=True):
    """How one call is answered (see `batch.Replies`)."""

    command: Command
    describe: Describe
    status: int
    request_id: str

    def accepted(self, outcome: Outcome) -> tuple[int, bytes]:
        return self.status, orjson.dumps(self.describe(self.command, outcome))

    def refused(self, rejection: Rejection) -> tuple[int, bytes]:
        return STATUS[rejection.code], orjson.dumps({**problem(rejection), "request_id": self.request_id})


def _header(name: str, description: str, example: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "schema": {"type": "string"}, "description": description, "example": example}


LEDGER_HEADER: Final = _header("Daybook-Ledger", "The ledger; the caller's own, which is the only one it can be.", "main")
CALL_HEADERS: Final = [
    _header("Idempotency-Key", "1 to 255 printable ASCII characters; required where money moves.", "order-1042-payment"),
    _header("If-Match", "The version that the first stream of the command must have.", '"v7"'),
    LEDGER_HEADER,
]

# ── the route ────────────────────────────────────────────────────────────────────────────────────────────────────────

_ID: Final = TypeAdapter(Id)


class CommandRoute(APIRoute):
    """Calls the endpoint with `call`, the ids of the path, and the body as the model that the endpoint declares for it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        endpoint: Callable[..., Awaitable[Response]] = self.endpoint
        template = self.path
        rule = rule_of(template, self.openapi_extra)
        bodies = [(name, kind) for name, kind in get_type_hints(endpoint).items() if _is_model(kind)]

        async def respond(request: Request) -> Response:
            request.scope["state"]["route"] = template
            call = request if isinstance(request, Call) else Call(request.scope, request.receive)
            if rule.anybody:
                await meet(call)
            else:
                call.principal = await admit(call, rule)
            arguments: dict[str, Any] = {name: _path_id(value) for name, value in call.path_params.items()}
            for name, model in bodies:
                call.fields = strict_json(await read_body(call, call.state.settings))
                arguments[name] = validated(model, call.fields)
            return await endpoint(call=call, **arguments)

        return respond


class CommandApp(FastAPI):
    """FastAPI, with a short way for the busiest requests.

    A command whose path has no parameter is looked up in a dictionary and answered at once. Everything else, and the
    documentation of these too, goes the whole way: middleware, router, dependencies. Both ways read, answer and fail alike.
    """

    def include_commands(self, router: APIRouter, origins: str) -> None:
        """Takes the router's routes, all of them made by then. `origins` are those whose pages may send commands."""
        self.include_router(router)
        self._short_way = {
            (method, route.path): route.get_route_handler()
            for route in router.routes
            if isinstance(route, CommandRoute) and "{" not in route.path
            for method in route.methods or ()
        }
        self._answer_across = across_origins(self._answer, origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._answer_across(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        respond = self._short_way.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if respond is None:
            await super().__call__(scope, receive, send)
            return
        send = enveloped(scope, send)
        call = Call(scope, receive)
        try:
            response = await respond(call)
        except Exception as error:  # noqa: BLE001 # each has its problem document, a mistake of ours too
            response = await answer_error(call, error)
        await response(scope, receive, send)


def _is_model(kind: Any) -> bool:
    return inspect.isclass(kind) and issubclass(kind, BaseModel)


def _path_id(value: str) -> str:
    try:
        return _ID.validate_python(value)
    except ValidationError:
        msg = "An id is a UUID."
        raise ValidationFailed(msg) from None
