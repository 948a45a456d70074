"""A request's headers, read once: routes ask for many of them, and Starlette looks through the list each time."""

from typing import Any

from starlette.datastructures import Headers
from starlette.types import Scope


class SentHeaders(Headers):
    """As Starlette's, for names that are written in lower case."""

    def __init__(self, scope: Scope) -> None:
        super().__init__(scope=scope)
        self._sent: dict[str, list[str]] = {}
        for name, value in self._list:
            self._sent.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))

    def get(self, key: str, default: Any = None) -> Any:
        """The first of that name."""
        found = self._sent.get(key)
        return found[0] if found else default

    def getlist(self, key: str) -> list[str]:
        return self._sent.get(key, [])
