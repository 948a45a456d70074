"""Reads commands from HTTP requests, passes them to the writer, and builds the HTTP responses.

FastAPI documents the routes and could read their arguments too, but `CommandRoute` reads them, for two reasons. First, FastAPI
accepts duplicate keys in a JSON object (the last one counts) and accepts 1.0 as an integer. Second, every command takes this
path, so it must be fast: a body is parsed once and validated once.
"""

import asyncio
import hashlib
import hmac
import re
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import cache
from http import HTTPStatus
from typing import Any, Final, NamedTuple, get_type_hints

import msgspec
import orjson
from fastapi import Request, Response
from pydantic import BaseModel, TypeAdapter, ValidationError

from command_api.domain.command import Command
from command_api.request_bodies import models_of, parse_json_object, read_body, validated
from command_api.writer.command_request import CommandRequest, Outcome, Reply, results_body
from shared.errors import (
    IdempotencyKeyInvalid,
    IdempotencyKeyRequired,
    Rejection,
    ValidationFailed,
)
from shared.identity.access import Principal, access_rule_of
from shared.identity.client_addresses import truncated_network
from shared.input_types import LEDGER_ID, ApiKeyId, Day, EventPosition, Id, LedgerId, ProjectionName
from shared.settings import Settings
from shared.web.admission import LEDGER_ID_WRONG, admit_anonymous, authorize, own_ledger_id
from shared.web.compression import SECRECY
from shared.web.direct_routes import DirectRoute
from shared.web.headers import SentRequest
from shared.web.problems import JSON, PROBLEM_JSON, STATUS, problem

IDEMPOTENCY_KEY: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")

_ENTITY_TAG: Final = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
_ENTITY_TAGS: Final = re.compile(rf"[ \t]*{_ENTITY_TAG}(?:[ \t]*,[ \t]*{_ENTITY_TAG})*[ \t]*")
_VERSION_TAG: Final = re.compile(r'"v(0|[1-9][0-9]{0,17})"')
_ANY_VERSION: Final = range(1, 2**63)


class AnsweredCommand(NamedTuple):
    """A command, and how it is answered if it is accepted."""

    command: Command
    build_body: "BuildBody"
    status: int = 201


TOGETHER: Final = "CommandBatch"
"""What the metadata of events name as the command if several commands were recorded together."""

# ── the request ──────────────────────────────────────────────────────────────────────────────────────────────────────

BuildBody = Callable[[Any, Outcome], dict[str, Any]]
"""Takes a command and its outcome, and returns the members of the response body."""


class HttpRequest(SentRequest):
    """An HTTP request to the command API, with methods that run its commands and build the response."""

    principal: Principal
    expires_at: float
    """When the command's deadline passes, on the event loop's clock in seconds. The time that the client takes is not counted."""
    is_dry_run: bool = False
    """True if the command is to be decided and answered, but not recorded."""
    named_ledger_id: str | None = None
    """The ledger that the request is about, if its path or its body names one. Only callers for all ledgers name one so."""
    arguments: dict[str, Any] = {}  # noqa: RUF012 # what validation made of path and body; replaced as a whole, never changed in place

    async def run(
        self, command: Command, build_body: BuildBody, *, new: str | None = None, moves_money: bool = False
    ) -> Response:
        """Runs a command and returns a response with the body that `build_body` makes.

        If the command creates something, `new` is the name of its collection: the response then has status 201 and a `Location`
        below `/v1/<new>`. Without `new`, the status is 200. With `moves_money`, the request must have an idempotency key.
        """
        wanted = [AnsweredCommand(command, build_body, 201 if new else 200)]
        # Without a secret, somebody could guess personal data by hashing likely requests and comparing the hashes.
        secret = await self.pepper() if command.person_id() else b""
        key = self._idempotency_key(required=moves_money and not self.is_dry_run)
        [reply] = await self._handle(wanted, key, secret)
        return self._response(reply, new)

    async def run_together(self, wanted: Sequence["AnsweredCommand"]) -> Response:
        """Runs commands of which all are recorded or none. Returns the status and the body of each, or the first rejection."""
        [reply] = await self._handle(wanted, self._idempotency_key(required=not self.is_dry_run), together=True)
        return self._response(reply, None)

    def _response(self, reply: Reply, new: str | None) -> Response:
        if self.is_dry_run:
            media_type = JSON if reply.status < HTTPStatus.BAD_REQUEST else PROBLEM_JSON
            return Response(reply.body, reply.status, {"Daybook-Dry-Run": "true"}, media_type)
        headers = [(b"idempotency-replayed", b"true")] if reply.replayed else []
        if reply.position is None:
            return _ReplyResponse(reply, headers, PROBLEM_JSON)
        headers.append((b"daybook-position", b"%d" % reply.position))
        members = _decode_members(reply.body)
        if new:
            url = f"{self.scope['state']['settings'].query_url}/v1/{new}/{members.id}"
            headers.append((b"location", url.encode("latin-1")))
        if members.version is not None:
            headers.append((b"etag", b'"v%d"' % members.version))
        return _ReplyResponse(reply, headers, JSON)

    async def count_commands(self, commands: int) -> None:
        """Counts this request as several commands against the caller's rate limit.

        Raises:
            RateLimited: the caller has fewer permits left.
        """
        await self.state.authentication.count_commands(self.scope, commands)

    def json_response(self, members: dict[str, Any]) -> Response:
        """Returns a 200 response with these members, for a request that is not a command."""
        return Response(orjson.dumps(members), 200, media_type=JSON)

    def secret_response(self, members: dict[str, Any]) -> Response:
        """Returns a 200 response that contains a secret, and is therefore never compressed."""
        self.scope["state"][SECRECY] = True
        return self.json_response(members)

    def forget_credentials(self, user_id: str) -> None:
        """Removes the user's credentials from this process's cache. Call it when some of them may have ended."""
        self.state.authentication.forget(self.ledger_id(), user_id)

    async def run_each(self, wanted: Sequence["AnsweredCommand"]) -> Response:
        """Runs the commands independently. Returns a 200 response with the status and the body of each command, in order.

        The commands are parts of one request, to which the idempotency key belongs. Each has a stored reply of its own, so each
        takes effect only once, even if only some were recorded before a 503 and the caller repeats the request.
        """
        replies = await self._handle(wanted, self._idempotency_key(required=not self.is_dry_run), in_parts=True)
        headers = {"Daybook-Dry-Run": "true"} if self.is_dry_run else {}
        if positions := [reply.position for reply in replies if reply.position is not None]:
            headers["Daybook-Position"] = str(max(positions))
        if all(reply.replayed for reply in replies):
            headers["Idempotency-Replayed"] = "true"
        return Response(results_body((reply.status, reply.body) for reply in replies), 200, headers, JSON)

    async def _handle(
        self,
        wanted: Sequence["AnsweredCommand"],
        key: str | None,
        secret: bytes = b"",
        *,
        in_parts: bool = False,
        together: bool = False,
    ) -> list[Reply]:
        expected_versions = expected_versions_of(self.headers.get("if-match"))
        if self.is_dry_run:
            key, in_parts = None, False  # a dry run uses no idempotency key
        request_hash = self._request_hash(expected_versions, secret) if key else b""
        caller, state = self.principal, self.scope["state"]
        metadata = {
            "request_id": state["request_id"],
            "principal": caller.principal,
            "key_id": caller.key_id,
            "network": truncated_network(state["address"]),
            **self._trace(),
        }
        requests = [
            CommandRequest(
                command=each.command,
                reply_format=_JsonReplyFormat(*each, state["request_id"]),
                metadata={"command": TOGETHER if together else type(each.command).__name__, **metadata},
                principal=caller.principal,
                customer=caller.user_id,
                idempotency_key=key,
                part=number if in_parts else None,
                request_hash=request_hash,
                expected_versions=expected_versions,
            )
            for number, each in enumerate(wanted)
        ]
        if together:
            first, *others = requests
            inside = [first, *(msgspec.structs.replace(each, expected_versions=None) for each in others)]
            requests = [msgspec.structs.replace(first, together=inside)]
        if self.is_dry_run:
            requests = [msgspec.structs.replace(requests[0], rehearsed=requests)]
        answers: list[Reply] = await state["handler"].handle(self.ledger_id(), requests, self.expires_at)
        return [*answers[0].rehearsed] if self.is_dry_run else answers

    def _trace(self) -> dict[str, str]:
        """Returns what the metadata of events say of the trace of this request. That is nothing while traces are off."""
        state = self.scope["state"]
        return state["traces"].event_metadata(state["span"]) if state.get("traces") else {}

    def ledger_id(self) -> str:
        return self.named_ledger_id or own_ledger_id(self, self.principal)

    def unchecked_ledger_id(self) -> str:
        """Returns the ledger id that a caller sends before logging in. Does not check that the ledger exists.

        Raises:
            ValidationFailed: `Daybook-Ledger` has the wrong form.
        """
        ledger_id: str = self.headers.get("daybook-ledger", "main")
        if not LEDGER_ID.fullmatch(ledger_id):
            raise ValidationFailed(LEDGER_ID_WRONG)
        return ledger_id

    async def pepper(self) -> bytes:
        """Returns the secret that keys the hashes of this ledger's e-mail addresses."""
        pepper: bytes = await self.state.handler.pepper(self.ledger_id(), self.expires_at)
        return pepper

    def _idempotency_key(self, *, required: bool) -> str | None:
        keys = self.headers.getlist("idempotency-key")
        if not keys:
            if required:
                raise IdempotencyKeyRequired
            return None
        if len(keys) > 1 or not IDEMPOTENCY_KEY.fullmatch(keys[0]):
            raise IdempotencyKeyInvalid
        return keys[0]

    def _request_hash(self, expected_versions: Sequence[int] | None, secret: bytes) -> bytes:
        """Returns a hash of what the request means, keyed with `secret` if there is one.

        Covers the route, the expected versions, the ids in the path and the body, as validation made them. So it does not depend
        on how the request is written: the case of ids, the zone of a moment, defaults, null, and the order of members.
        """
        versions = "*" if expected_versions is _ANY_VERSION else expected_versions
        content = _encode_meaning((self.method, self.scope["state"]["route"], versions, self.arguments))
        return hmac.digest(secret, content, "sha256") if secret else hashlib.sha256(content).digest()


class _ReplyResponse(Response):
    """The response to one command. Its headers are given as they are sent, so that Starlette need not convert each of them."""

    def __init__(self, reply: Reply, headers: list[tuple[bytes, bytes]], media_type: str) -> None:
        self.status_code, self.body, self.background = reply.status, reply.body, None
        length = b"%d" % len(reply.body)
        self.raw_headers = [*headers, (b"content-length", length), (b"content-type", media_type.encode())]


class _HeaderMembers(msgspec.Struct):
    """The members of a body that its headers repeat. They are taken from the body, because a stored reply has no headers."""

    id: str | None = None
    version: int | None = None


_decode_members: Final = msgspec.json.Decoder(_HeaderMembers).decode


def expected_versions_of(if_match: str | None) -> Sequence[int] | None:
    """Returns the versions that `If-Match` names (RFC 9110, 13.1.1), or None if the header is missing. `*` names all versions.

    A weak ETag, and an ETag that is not ours, never match.

    Raises:
        ValidationFailed: the header is neither `*` nor a list of ETags.
    """
    if if_match is None:
        return None
    if if_match.strip() == "*":
        return _ANY_VERSION
    if not _ENTITY_TAGS.fullmatch(if_match):
        msg = 'If-Match must be * or a list of ETags of the form "v7".'
        raise ValidationFailed(msg)
    found = (_VERSION_TAG.fullmatch(tag) for tag in re.findall(_ENTITY_TAG, if_match))
    return sorted({int(version[1]) for version in found if version})


def _given(fields: Any) -> dict[str, Any]:
    """Returns the members of a validated body that the caller gave and that differ from their defaults.

    So an id that Daybook made is left out, and a member that is added to a command later does not change older hashes.
    """
    model: type[BaseModel] = type(fields)
    defaults = _defaults_of(model)
    return {name: value for name in fields.model_fields_set if (value := getattr(fields, name)) != defaults[name]}


@cache
def _defaults_of(model: type[BaseModel]) -> dict[str, Any]:
    return {name: field.default for name, field in model.model_fields.items()}


_encode_meaning: Final = msgspec.json.Encoder(order="sorted", enc_hook=_given).encode


class _JsonReplyFormat(msgspec.Struct, frozen=True):
    """Writes the outcome or the rejection of one command as JSON, for its caller and for the stored reply."""

    command: Command
    build_body: BuildBody
    status: int
    request_id: str

    def accepted(self, outcome: Outcome) -> tuple[int, bytes]:
        return self.status, orjson.dumps(self.build_body(self.command, outcome))

    def rejected(self, rejection: Rejection) -> tuple[int, bytes]:
        return STATUS[rejection.code], orjson.dumps({**problem(rejection), "request_id": self.request_id})


def _header(name: str, description: str, example: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "schema": {"type": "string"}, "description": description, "example": example}


COMMAND_LEDGER_HEADER: Final = _header("Daybook-Ledger", "The ledger: the caller's own (the default) and no other.", "main")
DRY_RUN: Final[dict[str, Any]] = {
    "name": "dry_run",
    "in": "query",
    "schema": {"type": "boolean", "default": False},
    "description": "`true`: answer as the command would be answered now, but record nothing and use no idempotency key. "
    "`position` is where the event would be.",
    "example": False,
}
COMMAND_HEADERS: Final = [
    _header(
        "Idempotency-Key", "1 to 255 printable ASCII characters, for one request. Required if money moves.", "order-1042-payment"
    ),
    _header("If-Match", "`*`, or the versions of which the command requires its first stream to have one.", '"v7"'),
    COMMAND_LEDGER_HEADER,
    DRY_RUN,
]

# ── the route ────────────────────────────────────────────────────────────────────────────────────────────────────────

_ID_TYPE: Final = TypeAdapter(Id)
_PATH_TYPES: Final[dict[str, TypeAdapter[Any]]] = {
    "ledger_id": TypeAdapter(LedgerId),
    "day": TypeAdapter(Day),
    "name": TypeAdapter(ProjectionName),
    "position": TypeAdapter(EventPosition),
    "key_id": TypeAdapter(ApiKeyId),
}
"""The types of arguments from the path that are no UUIDs."""


class CommandRoute(DirectRoute):
    """A route that calls its endpoint with the request, the arguments from the path and the body as the parameter's model."""

    request_class = HttpRequest

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        endpoint: Callable[..., Awaitable[Response]] = self.endpoint
        template = self.path
        rule = access_rule_of(template, self.openapi_extra)
        is_command = DRY_RUN in (self.openapi_extra or {}).get("parameters", ())
        bodies = [(name, models) for name, kind in get_type_hints(endpoint).items() if (models := models_of(kind))]

        async def respond(plain: Request) -> Response:
            state = plain.scope["state"]
            state["route"] = template
            request = plain if isinstance(plain, HttpRequest) else HttpRequest(plain.scope, plain.receive)
            loop = asyncio.get_running_loop()
            settings: Settings = state["settings"]
            request.expires_at = loop.time() + settings.command_deadline_ms / 1000
            if rule.anybody:
                await admit_anonymous(request)
            else:
                request.principal = await authorize(request, rule)
            request.is_dry_run = _asks_for_dry_run(request, is_command=is_command)
            arguments: dict[str, Any] = {name: _path_argument(name, value) for name, value in request.path_params.items()}
            for name, models in bodies:
                began = loop.time()
                body = await read_body(request, settings)
                request.expires_at += loop.time() - began
                members = parse_json_object(body)
                arguments[name] = validated(models.with_most_of(members), members)
            request.arguments = arguments
            return await endpoint(request=request, **arguments)

        return respond


def _asks_for_dry_run(request: Request, *, is_command: bool) -> bool:
    """Returns True if the query asks for a dry run.

    Raises:
        ValidationFailed: `dry_run` is neither true nor false, or the route records no events and so cannot be rehearsed.
    """
    if b"dry_run" not in request.scope["query_string"]:
        return False
    values = request.query_params.getlist("dry_run")
    if not set(values) <= {"true", "false"} or len(values) > 1:
        msg = "dry_run is true or false, and is sent once."
        raise ValidationFailed(msg)
    if values == ["true"] and not is_command:
        msg = "This request has no dry run, because it records no event."
        raise ValidationFailed(msg)
    return values == ["true"]


def _path_argument(name: str, value: str) -> Any:
    """Returns an argument from the path: a day, a position, the name of a read model, the id of a ledger or key, or another id.

    Raises:
        ValidationFailed: the argument has another form.
    """
    try:
        return _PATH_TYPES.get(name, _ID_TYPE).validate_python(value)
    except ValidationError:
        msg = (
            "An id is a UUID, the id of a ledger and the name of a read model have lower-case letters, digits and hyphens, "
            "the id of a key has 10 letters and digits, a position is a number from 1, and a day has the form 2026-01-31."
        )
        raise ValidationFailed(msg) from None
