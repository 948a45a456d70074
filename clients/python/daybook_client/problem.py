"""What goes wrong: `NoAnswer`, or a `Problem` with a code.

DaybookError
├── NoAnswer     no answer came, or no answer that says more than «later», however often the client tried
└── Problem      the answer is a problem document (RFC 9457); `daybook_client.problems` has a class for each code
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class DaybookError(Exception):
    """The base class of all errors that this package raises for an answer or its absence."""


class NoAnswer(DaybookError):
    """No server answered. A command may have taken effect: send it again with the same `idempotency_key`."""

    def __init__(self, message: str, idempotency_key: str | None) -> None:
        super().__init__(message)
        self.idempotency_key = idempotency_key


class Problem(DaybookError):
    """The API refused a request. Each code has a subclass; a code that is newer than this package is a plain `Problem`."""

    CODE: ClassVar[str] = ""

    def __init__(self, status: int, members: Mapping[str, Any]) -> None:
        self.status = status
        self.members = members
        """The whole problem document, such as `available` and `required` of `insufficient-funds`."""
        self.code = str(members.get("code", ""))
        self.title = str(members.get("title", ""))
        self.detail = str(members.get("detail", ""))
        self.retryable = members.get("retryable") is True
        """True if the same command can succeed later, with a new idempotency key."""
        self.request_id = members.get("request_id")
        self.errors: list[dict[str, Any]] = members.get("errors", [])
        """The members that are wrong, with a JSON Pointer each."""
        super().__init__(f"{status} {self.code or 'without a problem document'}: {self.detail or self.title}")
