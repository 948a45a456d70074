"""Admits requests: identifies the caller, counts the request against a rate limit, and checks the route's access rule.

Every route calls `authorize` or `admit_anonymous` before it reads anything else from the request.
"""

from typing import Final

from fastapi import Request

from shared.errors import NotFound, ValidationFailed
from shared.identity.access import AccessRule, Principal
from shared.input_types import LEDGER_ID

DEFAULT_LEDGER_ID: Final = "main"
LEDGER_ID_WRONG: Final = "Daybook-Ledger must be at most 31 lower-case letters, digits and hyphens, and begin with a letter."


async def authorize(request: Request, rule: AccessRule) -> Principal:
    """Identifies the caller, counts the request, and checks that the route's rule admits the caller. Returns the caller.

    Raises:
        Unauthorized: the request has no valid credential.
        Forbidden: the caller may not use this route.
        RateLimited: the caller sent too many requests, or too many without a valid credential came from this address.
    """
    authentication = request.scope["state"]["authentication"]
    principal: Principal = await authentication.authenticate(request.scope, request.headers.getlist("authorization"))
    rule.require(principal)
    return principal


async def admit_anonymous(request: Request) -> None:
    """Counts a request against the limit of its site. Routes that need no credential call this instead of `authorize`.

    Raises:
        RateLimited: too many requests without a valid credential came from this address.
    """
    await request.state.authentication.admit_anonymous(request.scope)


def own_ledger_id(request: Request, principal: Principal) -> str:
    """Returns the id of the caller's ledger, after a check that the request does not name another one.

    Every other ledger is reported as missing, even if it exists, so that callers cannot learn which ledgers exist. A caller for
    all ledgers may name any ledger, which need not exist. The default is then `main`.

    Raises:
        NotFound: the request names another ledger.
        ValidationFailed: `Daybook-Ledger` has the wrong form.
    """
    default = DEFAULT_LEDGER_ID if principal.has_all_ledgers else principal.ledger_id
    ledger_id = request.headers.get("daybook-ledger", default)
    if ledger_id == default:
        return ledger_id
    if not LEDGER_ID.fullmatch(ledger_id):
        raise ValidationFailed(LEDGER_ID_WRONG)
    if principal.has_all_ledgers:
        return ledger_id
    raise NotFound("There is no such ledger.")
