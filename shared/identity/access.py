"""Principals, scopes, and the access rule that every route declares.

A route declares its rule in its OpenAPI operation (`x-access`) and enforces what it reads there, so the documented rule is always
the enforced one. A route without a rule cannot be made.

Rules do not decide what a customer owns. The batch of a command checks that on the states of the streams, and a query adds it to
its filter.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal, get_args

import msgspec

from shared.errors import Forbidden

Scope = Literal[
    "users:write", "credentials:write", "accounts:write", "transfers:write", "ledger:read", "events:read", "ops:admin"
]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
CUSTOMER_SCOPES: Final[tuple[Scope, ...]] = ("users:write", "transfers:write", "ledger:read")
"""The scopes that a customer can use. No route admits customers with any other scope."""


ALL_LEDGERS: Final = "*"
"""Stands for all ledgers in an API key. It is no valid ledger id, so it never belongs to a ledger."""
SCOPES_FOR_ALL_LEDGERS: Final[tuple[Scope, ...]] = ("ops:admin",)
"""The scopes that a key for all ledgers can have. None of them reads or writes what a ledger holds."""


class Principal(msgspec.Struct, frozen=True):
    """The caller of a request. A caller with a `user_id` is a customer, who can read and change only what that user owns.

    `principal` is the caller's name in events and stored replies. It stays the same when the caller's key is rotated. `key_id` is
    the id of the API key, session or signing key that the caller used.
    """

    principal: str
    key_id: str
    ledger_id: str
    user_id: str | None
    scopes: frozenset[str]

    @property
    def has_all_ledgers(self) -> bool:
        return self.ledger_id == ALL_LEDGERS


class AccessRule(msgspec.Struct, frozen=True):
    """The access rule of a route: the caller must have one of `scopes`.

    With `customers`, the rule also admits customers, for what they own. Without `operators`, it admits nobody else. With
    `all_ledgers`, the caller's key must be for all ledgers. With `anybody`, the route needs no credential.
    """

    scopes: tuple[Scope, ...]
    customers: bool = False
    operators: bool = True
    all_ledgers: bool = False
    anybody: bool = False

    def require(self, principal: Principal) -> None:
        """Checks that the rule admits the caller.

        Raises:
            Forbidden: the rule does not admit the caller.
        """
        is_admitted = self.operators if principal.user_id is None else self.customers
        if principal.scopes.isdisjoint(self.scopes) or not is_admitted or (self.all_ledgers and not principal.has_all_ledgers):
            raise Forbidden

    def documented(self) -> dict[str, Any]:
        """Returns the rule as a value for a route's `openapi_extra`, from which `access_rule_of` reads it."""
        if self.anybody:
            return {"x-access": {"scopes": [], "anybody": True}, "security": []}
        rule = {"scopes": list(self.scopes), "customers": self.customers, "operators": self.operators}
        rule |= {"all_ledgers": True} if self.all_ledgers else {}
        return {"x-access": rule, "security": [{SECURITY_SCHEME: []}]}


SECURITY_SCHEME: Final = "apiKey"


def only(*scopes: Scope) -> AccessRule:
    """Returns a rule that admits callers with one of the scopes, but no customers."""
    return AccessRule(scopes)


def only_for_all_ledgers(*scopes: Scope) -> AccessRule:
    """Returns a rule that admits callers with one of the scopes whose key is for all ledgers."""
    return AccessRule(scopes, all_ledgers=True)


def own_or(*scopes: Scope) -> AccessRule:
    """Returns a rule that admits callers with one of the scopes. Customers are admitted only for what they own."""
    return AccessRule(scopes, customers=True)


def only_own(*scopes: Scope) -> AccessRule:
    """Returns a rule that admits only customers with one of the scopes, for what they own."""
    return AccessRule(scopes, customers=True, operators=False)


def anybody() -> AccessRule:
    """Returns a rule that admits callers without a credential: those who log in, or set a password with a reset token."""
    return AccessRule((), anybody=True)


def access_rule_of(route: str, openapi_extra: Mapping[str, Any] | None) -> AccessRule:
    """Returns the access rule that a route declares in its `openapi_extra`.

    Raises:
        TypeError: the route declares no rule, so it must not be served.
    """
    stated = (openapi_extra or {}).get("x-access")
    if stated is None:
        raise TypeError(f"{route} states no rule of access: give documented() an access=")
    return msgspec.convert(stated, AccessRule)
