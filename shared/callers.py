"""Recognises callers by what they send, whichever kind of credential it is: an API key, a session, a signed token.

What was found is remembered for seconds, by the SHA-256 of the token: the way of a request that comes again is a hash and a
dictionary. Only valid tokens are remembered, so nobody can fill the memory. Whatever is wrong with a credential, the answer is
the same.
"""

import asyncio
import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from shared.access import Principal
from shared.errors import Unauthorized

KNOWN_SECONDS: Final = 5.0
"""What has ended is taken for valid so long at most."""
KNOWN_MAX: Final = 10_000
AUTHORIZATION_MAX: Final = 4_096

_AUTHORIZATION: Final = re.compile(r"[Bb]earer ([A-Za-z0-9._-]+)")


class Found(msgspec.Struct, frozen=True):
    """Who a token stands for. `seconds`: how long it is valid at the least, as far as it can be said."""

    principal: Principal
    seconds: float = KNOWN_SECONDS


class Credentials(Protocol):
    """One kind of credential."""

    def recognises(self, token: str) -> bool:
        """Whether it has the form of this kind; no two kinds look alike."""

    async def look(self, token: str) -> Found:
        """Raises:
        Unauthorized: it is not valid, for whatever reason.
        """

    async def close(self) -> None: ...


class _Known(msgspec.Struct, frozen=True):
    principal: Principal
    until: float


class Callers:
    """Who sends a request."""

    def __init__(self, *kinds: Credentials) -> None:
        self._kinds = kinds
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._looking: dict[bytes, asyncio.Task[Principal]] = {}

    async def principal(self, authorization: Sequence[str]) -> Principal:
        """Who sends these `Authorization` headers; there must be one.

        Raises:
            Unauthorized: it is no valid credential, for whatever reason.
        """
        token = _token(authorization)
        token_hash = hash_token(token)
        known = self._known.get(token_hash)
        if known is not None and time.monotonic() < known.until:
            return known.principal
        for kind in self._kinds:
            if kind.recognises(token):
                return await self._look_once(token_hash, token, kind)
        raise Unauthorized

    def has_seen(self, authorization: Sequence[str]) -> bool:
        """Whether these headers were valid when they were looked up last. They may not be any more."""
        try:
            return hash_token(_token(authorization)) in self._known
        except Unauthorized:
            return False

    def forget(self, ledger_id: str, user_id: str) -> None:
        """Looks this customer's credentials up again the next time: some may have ended."""
        for token_hash, known in list(self._known.items()):
            if (known.principal.ledger_id, known.principal.user_id) == (ledger_id, user_id):
                del self._known[token_hash]

    async def close(self) -> None:
        await asyncio.gather(*self._looking.values(), return_exceptions=True)
        for kind in self._kinds:
            await kind.close()

    async def _look_once(self, token_hash: bytes, token: str, kind: Credentials) -> Principal:
        """All who come with one token wait for one look."""
        looking = self._looking.get(token_hash)
        if looking is None:
            looking = self._looking[token_hash] = asyncio.create_task(self._look(token_hash, token, kind))
            looking.add_done_callback(lambda done: self._looked(token_hash, done))
        return await asyncio.shield(looking)

    def _looked(self, token_hash: bytes, done: asyncio.Task[Principal]) -> None:
        """A failure counts as seen even when all who waited have gone."""
        del self._looking[token_hash]
        if not done.cancelled():
            done.exception()

    async def _look(self, token_hash: bytes, token: str, kind: Credentials) -> Principal:
        self._known.pop(token_hash, None)
        found = await kind.look(token)
        self._known[token_hash] = _Known(found.principal, time.monotonic() + min(found.seconds, KNOWN_SECONDS))
        if len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)
        return found.principal


def _token(authorization: Sequence[str]) -> str:
    """Raises:
    Unauthorized: there is not exactly one header, or it has another form.
    """
    if len(authorization) != 1 or len(authorization[0]) > AUTHORIZATION_MAX:
        raise Unauthorized
    credential = _AUTHORIZATION.fullmatch(authorization[0])
    if credential is None:
        raise Unauthorized
    return credential[1]


def hash_token(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
