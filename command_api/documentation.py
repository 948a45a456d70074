"""Builds the OpenAPI documentation of the commands: headers, problems, and the access rule of each route."""

from typing import Any, Final

from command_api.requests import COMMAND_HEADERS, COMMAND_LEDGER_HEADER
from shared.identity.access import AccessRule, anybody
from shared.web.openapi import problem_responses

BODY_PROBLEMS: Final = ("length-required", "malformed-json", "unsupported-media-type", "payload-too-large", "request-timeout")
COMMAND_PROBLEMS: Final = (
    "unauthorized",
    "forbidden",
    "rate-limited",
    "malformed-json",
    "validation-failed",
    "unsupported-media-type",
    "payload-too-large",
    "request-timeout",
    "idempotency-key-invalid",
    "idempotency-key-reused",
    "not-found",
    "stream-version-mismatch",
    "overloaded",
    "store-unavailable",
)
MONEY_PROBLEMS: Final = (
    "amount-out-of-range",
    "currency-unknown",
    "id-taken",
    "account-closed",
    "account-frozen",
    "currency-mismatch",
)
LIMIT_PROBLEMS: Final = ("amount-outside-limits", "limit-exceeded")
TRANSFER_PROBLEMS: Final = (*MONEY_PROBLEMS, *LIMIT_PROBLEMS, "same-account", "insufficient-funds", "balance-out-of-range")

BATCH_PROBLEMS: Final = (
    *TRANSFER_PROBLEMS,
    "postings-unbalanced",
    "transfer-not-reversible",
    "transfer-already-reversed",
    "too-many-reversals",
    "reversal-amount-exceeded",
    "hold-expiry-passed",
    "too-many-holds",
    "hold-not-active",
    "hold-amount-exceeded",
)


def documented(*rejections: str, access: AccessRule, money: bool = False) -> dict[str, Any]:
    """Returns the OpenAPI arguments of a command: its rejections, the problems of all commands, and the access rule."""
    key = ("idempotency-key-required",) if money else ()
    return {
        "openapi_extra": {"parameters": COMMAND_HEADERS, **access.documented()},
        "responses": problem_responses(*rejections, *key, *COMMAND_PROBLEMS),
    }


def documented_login(*problems: str, access: AccessRule) -> dict[str, Any]:
    """Returns the OpenAPI arguments of a route for logins, passwords or sessions. These routes record no events."""
    codes = ("rate-limited", "validation-failed", "not-found", "overloaded", "store-unavailable")
    known = () if access.anybody else ("unauthorized", "forbidden")
    return {
        "openapi_extra": {"parameters": [COMMAND_LEDGER_HEADER], **access.documented()},
        "responses": problem_responses(*problems, *known, *codes),
    }


def documented_reset(*problems: str) -> dict[str, Any]:
    """Returns the OpenAPI arguments of the route that takes a reset token. The token names the ledger, so no header does."""
    codes = ("rate-limited", "validation-failed", "not-found", "overloaded", "store-unavailable")
    return {"openapi_extra": anybody().documented(), "responses": problem_responses(*problems, *codes)}
