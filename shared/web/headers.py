"""Reads the headers of requests: each name once, and with a look-up instead of a search."""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Final

from fastapi import Request
from starlette.datastructures import Headers, State
from starlette.types import Scope

from shared.errors import MalformedRequest

_QUALITY: Final = re.compile(r"\s*q\s*=\s*(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\s*", re.IGNORECASE)


class SentHeaders(Headers):
    """Works like Starlette's `Headers`, but takes names in lower case only, and `get` takes no header that is repeated.

    Starlette searches the list of all headers each time, and takes the first of several. A proxy may take the last.
    """

    def __init__(self, scope: Scope) -> None:
        super().__init__(scope=scope)
        self._sent: dict[bytes, list[bytes]] = {}
        for name, value in self._list:
            if name in self._sent:
                self._sent[name].append(value)
            else:
                self._sent[name] = [value]

    def get(self, key: str, default: Any = None) -> Any:
        """Returns the value of a header that decides something.

        Raises:
            MalformedRequest: the header was sent more than once.
        """
        found = self._sent.get(key.encode())
        if found is None:
            return default
        if len(found) > 1:
            msg = f"{key} was sent more than once. Send it once."
            raise MalformedRequest(msg)
        return found[0].decode("latin-1")

    def getlist(self, key: str) -> list[str]:
        return [value.decode("latin-1") for value in self._sent.get(key.encode(), ())]


class SentRequest(Request):
    """A request with `SentHeaders`. Its state is looked up once, because every request reads it many times."""

    @cached_property
    def headers(self) -> SentHeaders:
        return SentHeaders(self.scope)

    @cached_property
    def state(self) -> State:
        return super().state


def qualities(accepted: Sequence[str]) -> dict[str, float]:
    """Parses the values of `Accept` or `Accept-Encoding` (RFC 9110, 12.4.2), and returns the quality of each name in lower case.

    A quality of 0 means that the client does not accept it. A quality that is not a number counts as 0 too.
    """
    found = {}
    for part in ",".join(accepted).split(","):
        name, *parameters = part.split(";")
        written = [parameter for parameter in parameters if parameter.partition("=")[0].strip().lower() == "q"]
        quality = _QUALITY.fullmatch(written[-1]) if written else None
        found[name.strip().lower()] = (float(quality[1]) if quality else 0.0) if written else 1.0
    return found


def quality_of(media_type: str, accepted: Mapping[str, float]) -> float:
    """Returns the quality that a client gives to a media type, by name or by a range such as `application/*`."""
    for name in (media_type, media_type.partition("/")[0] + "/*", "*/*"):
        if name in accepted:
            return accepted[name]
    return 0.0
