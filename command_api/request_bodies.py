"""Reads the JSON body of a request strictly, and validates its members as those of a command."""

import inspect
import json
from collections.abc import Sequence
from types import UnionType
from typing import Any, Final, TypeVar, get_args

from fastapi import Request
from pydantic import BaseModel, ValidationError

from command_api.domain.command_batch import CommandBatch
from shared.errors import (
    AmountOutOfRange,
    BadRequest,
    CurrencyUnknown,
    LengthRequired,
    MalformedJson,
    PayloadTooLarge,
    RequestTimeout,
    UnsupportedMediaType,
    ValidationFailed,
)
from shared.settings import Settings
from shared.web.problems import JSON, validation_failed

AMOUNTS: Final = frozenset(
    ("amount", "from_amount", "overdraft_limit", "per_transfer_min", "per_transfer_max", "per_day", "per_month")
)
_OUT_OF_RANGE: Final = frozenset(("greater_than_equal", "less_than_equal", "amount_zero", "exchange_out_of_range"))
"""The types of the errors of amounts that have the right form."""


def parse_json_object(raw: bytes) -> dict[str, Any]:
    """Parses a request body as a JSON object.

    Raises:
        MalformedJson: the body is not JSON, is not an object, or contains duplicate keys, NaN or Infinity.
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


def _reject_constant(_: str) -> None:
    raise ValueError


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_without_duplicates, parse_constant=_reject_constant)


async def read_body(request: Request, settings: Settings) -> bytes:
    """Reads the whole body of a request.

    Raises:
        LengthRequired: the request has neither a Content-Length nor a Transfer-Encoding.
        UnsupportedMediaType: the body is not JSON, or it is compressed.
        PayloadTooLarge: the body is longer than `body_bytes_max` in the settings.
        RequestTimeout: the client closed the connection before it sent the whole body.
    """
    bytes_max = settings.body_bytes_max
    headers = request.headers
    length = headers.get("content-length")
    if length is None and "transfer-encoding" not in headers:
        raise LengthRequired
    media_type, encoding = headers.get("content-type", ""), headers.get("content-encoding")
    # Nearly every request sends exactly this, so its text is taken apart only if it is another.
    if media_type != JSON and media_type.partition(";")[0].strip().lower() != JSON:
        raise UnsupportedMediaType
    if encoding is not None and encoding.strip().lower() != "identity":
        raise UnsupportedMediaType
    if int(length or "0") > bytes_max:
        raise PayloadTooLarge(bytes_max=bytes_max)
    raw, more = b"", True
    while more:
        message = await request.receive()
        if message["type"] != "http.request":
            raise RequestTimeout  # the client disconnected; `shared.web.protocol` limits how long a body may take
        raw += message.get("body", b"")
        more = message.get("more_body", False)
        if len(raw) > bytes_max:
            raise PayloadTooLarge(bytes_max=bytes_max)
    return raw


Model = TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], fields: dict[str, Any]) -> Model:
    """Validates the fields of a body and returns them as an instance of the model.

    Raises:
        ValidationFailed: a field has the wrong form.
        AmountOutOfRange: all fields have the right form, but an amount is out of range.
        CurrencyUnknown: all other fields are valid, but the currency is unknown.
    """
    try:
        return model.model_validate(fields)
    except ValidationError as invalid:
        errors = invalid.errors(include_url=False, include_input=False, include_context=False)
        found = {_error_type_of(error) for error in errors}
        for error_type in (ValidationFailed, AmountOutOfRange, CurrencyUnknown):
            if error_type in found:
                raise validation_failed([{**e, "loc": ("body", *_place(model, e["loc"]))} for e in errors], error_type) from None
        raise


def _place(model: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Returns the place of an error in the body. For an item of a list of several models, pydantic adds the name of its model."""
    return (*loc[:2], *loc[3:]) if issubclass(model, CommandBatch) and loc[0] == "commands" else loc


def _error_type_of(error: Any) -> type[BadRequest]:
    """Returns the class of the Daybook error for an error of pydantic."""
    if error["type"] in _OUT_OF_RANGE and error["loc"][-1] in AMOUNTS:
        return AmountOutOfRange
    return CurrencyUnknown if error["type"] == "currency_unknown" else ValidationFailed


class BodyModels:
    """The models that a body may be of, in order."""

    def __init__(self, models: Sequence[type[BaseModel]]) -> None:
        self._models = [(model, frozenset(model.model_fields)) for model in models]

    def __bool__(self) -> bool:
        return bool(self._models)

    def with_most_of(self, members: dict[str, Any]) -> type[BaseModel]:
        """Returns the model that knows most of the members, or the first of several that know as many."""
        first, known = self._models[0]
        if len(self._models) == 1 or members.keys() <= known:
            return first
        return max(self._models, key=lambda model: len(members.keys() & model[1]))[0]


def models_of(kind: Any) -> BodyModels:
    """Returns the models that a body may be of, or none if the type is not that of a body."""
    kinds = get_args(kind) if isinstance(kind, UnionType) else [kind]
    return BodyModels([each for each in kinds if inspect.isclass(each) and issubclass(each, BaseModel)])
