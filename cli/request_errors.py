"""What the user is told of a request that an API refused or did not answer: title, code, cause, next step, and the exit code."""

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final

from cli.exit_codes import ExitCode
from shared.errors import OperatorError

NEXT_STEPS: Final[Mapping[str, str]] = {
    "unauthorized": "check the API key: `daybook profiles list` shows the profile that is used",
    "forbidden": "use a profile whose API key has the scope that docs/access.md names",
    "not-found": "check the id, and the ledger (`--ledger`)",
    "insufficient-funds": "send less, or bring money into the account first",
    "idempotency-key-reused": "repeat exactly the first command, or leave out `--idempotency-key`",
}
"""By code. A refusal with another code names its page."""


class RequestRefused(OperatorError):
    """An API refused the request, or gave no answer of Daybook."""

    code = "request-refused"

    def __init__(self, status: int, members: Mapping[str, Any], url: str) -> None:
        """`members` are those of the problem document, or none if the answer had no such document. `url` is the API's."""
        super().__init__(_sentence(status, members, url))
        self.exit_code = _exit_code(status)


class OutcomeUnknown(OperatorError):
    """A command was sent and not answered."""

    code = "outcome-unknown"


def _sentence(status: int, members: Mapping[str, Any], url: str) -> str:
    code = members.get("code")
    if not code:
        return f"{url} answered {status} without a problem document: check that this is the address of Daybook's API"
    title, page = str(members.get("title")), f"{url}/problems/{code}"
    causes = [text for each in _causes(members) if (text := each.removeprefix(title).strip(" :."))]
    told = f"{title} ({code})" + (f": {'; '.join(causes)}" if causes else "")
    later = "the same command can succeed later: see" if members.get("retryable") else "see"
    return f"{told}; {NEXT_STEPS.get(str(code), f'{later} {page}')}"


def _causes(members: Mapping[str, Any]) -> Iterator[str]:
    if members.get("detail"):
        yield str(members["detail"])
    for each in members.get("errors", ()):
        yield f"{each.get('pointer')}: {each.get('detail')}"


def _exit_code(status: int) -> ExitCode:
    match status:
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            return ExitCode.DENIED
        case HTTPStatus.CONFLICT | HTTPStatus.PRECONDITION_FAILED:
            return ExitCode.NO
        case HTTPStatus.TOO_MANY_REQUESTS:
            return ExitCode.UNAVAILABLE
    return ExitCode.UNAVAILABLE if status >= HTTPStatus.INTERNAL_SERVER_ERROR else ExitCode.USAGE
