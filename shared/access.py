"""Who may do what: principals, scopes, and the rule that every route states where it is declared.

A rule stands in the route's OpenAPI operation (`x-access`) and is read from there by the route itself, so what is documented is
what is enforced. A route without one cannot be made. What is somebody's own is decided where the state is: in the batch on locked
streams, in the question as a part of its filter; never before.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal, get_args

import msgspec

from shared.errors import Forbidden

Scope = Literal["users:write", "accounts:write", "transfers:write", "ledger:read", "events:read", "ops:admin"]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
CUSTOMER_SCOPES: Final[tuple[Scope, ...]] = ("users:write", "transfers:write", "ledger:read")
"""All that a customer can have a use for: no other operation takes customers."""


class Principal(msgspec.Struct, frozen=True):
    """Who calls. With a `user_id` it is a customer, who reads and moves only what is that user's own.

    `principal` names the caller in idempotency keys and in events; it outlives the rotation of the key `key_id`.
    """

    principal: str
    key_id: str
    ledger_id: str
    user_id: str | None
    scopes: frozenset[str]


class Rule(msgspec.Struct, frozen=True):
    """One of the scopes is needed. `customers`: they may too, for what is their own. `anybody`: no credential is looked at."""

    scopes: tuple[Scope, ...]
    customers: bool = False
    anybody: bool = False

    def require(self, principal: Principal) -> None:
        """Raises:
        Forbidden: this operation is not for this caller, whatever it is asked to do.
        """
        if principal.scopes.isdisjoint(self.scopes) or (principal.user_id is not None and not self.customers):
            raise Forbidden

    def documented(self) -> dict[str, Any]:
        """For a route's `openapi_extra`, where `rule_of` finds it again."""
        if self.anybody:
            return {"x-access": {"scopes": [], "anybody": True}, "security": []}
        return {"x-access": {"scopes": list(self.scopes), "customers": self.customers}, "security": [{SECURITY_SCHEME: []}]}


SECURITY_SCHEME: Final = "apiKey"


def only(*scopes: Scope) -> Rule:
    """For operators and auditors with one of the scopes; never for customers."""
    return Rule(scopes)


def own_or(*scopes: Scope) -> Rule:
    """As `only`; and for customers with one of the scopes, on what is their own."""
    return Rule(scopes, customers=True)


def anybody() -> Rule:
    """For those who come to get a credential."""
    return Rule((), anybody=True)


def rule_of(route: str, openapi_extra: Mapping[str, Any] | None) -> Rule:
    """The rule that a route was declared with.

    Raises:
        TypeError: it states none, and must not be served.
    """
    stated = (openapi_extra or {}).get("x-access")
    if stated is None:
        raise TypeError(f"{route} states no rule of access: give documented() an access=")
    return msgspec.convert(stated, Rule)
