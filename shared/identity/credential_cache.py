"""Finds the principal of a credential: an API key, the token of a session, or a signed token.

The cache remembers a verified credential for at most `CACHE_SECONDS`, under the SHA-256 of its token. So the next request of the
caller costs only a hash and a dictionary look-up. Only valid tokens are remembered, so invalid ones cannot fill the memory. Every
invalid credential gets the same answer, whatever the reason.

A credential that this process has never found valid is a stranger's. It is verified over connections that no caller needs.
"""

import asyncio
import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import Final, Protocol

import msgspec

from shared.errors import Unauthorized
from shared.identity.access import Principal

CACHE_SECONDS: Final = 5.0
"""How long a credential may still be accepted after it has ended."""
CACHED_MAX: Final = 10_000
AUTHORIZATION_MAX: Final = 4_096

_AUTHORIZATION: Final = re.compile(r"[Bb]earer ([A-Za-z0-9._-]+)")


class VerifiedCredential(msgspec.Struct, frozen=True):
    """The principal of a valid token. The token must be verified again after `seconds` at the latest."""

    principal: Principal
    seconds: float = CACHE_SECONDS


class CredentialDenied(Unauthorized):
    """A valid credential is needed.

    Says for auditors, and for nobody else, what is known about the credential: the principal if the credential was valid until it
    ended, or only the ledger if it names an API key and is not that key.
    """

    def __init__(self, principal: Principal | None = None, ledger_id: str = "") -> None:
        super().__init__()
        self.principal = principal
        self.ledger_id = principal.ledger_id if principal else ledger_id


class CredentialVerifier(Protocol):
    """Verifies one kind of credential."""

    def matches(self, token: str) -> bool:
        """True if the token has the form of this kind of credential. No token has the form of two kinds."""

    async def verify(self, token: str) -> VerifiedCredential:
        """Returns the principal of a token for which `matches` is True.

        Raises:
            Unauthorized: the token is not valid, for whatever reason. `CredentialDenied` if more is known about it.
        """

    async def close(self) -> None: ...


class _CachedPrincipal(msgspec.Struct, frozen=True):
    principal: Principal
    until: float


class CredentialCache:
    """Verifies credentials, and remembers the principal of each valid one for at most `cached_seconds`.

    After that, the cache still remembers that the credential was valid, until it turns out to have ended.
    """

    seconds_max: float | None = None
    """How long a request waits for the verification of its credential, in seconds. None if there is no limit."""

    def __init__(
        self,
        *verifiers: CredentialVerifier,
        of_strangers: Sequence[CredentialVerifier] = (),
        cached_seconds: float = CACHE_SECONDS,
    ) -> None:
        """`of_strangers` verify the credentials that were not valid before. By default, `verifiers` verify these too."""
        self._verifiers = verifiers
        self._of_strangers = of_strangers or verifiers
        self._cached_seconds = cached_seconds
        self._cached: OrderedDict[bytes, _CachedPrincipal] = OrderedDict()
        self._verifying: dict[bytes, asyncio.Task[Principal]] = {}

    def remembered(self, authorization: Sequence[str]) -> Principal | None:
        """Returns the principal of the credential in these headers, or None if the credential must be verified first."""
        try:
            cached = self._cached.get(hash_token(_token(authorization)))
        except Unauthorized:
            return None
        return cached.principal if cached is not None and time.monotonic() < cached.until else None

    async def principal(self, authorization: Sequence[str]) -> Principal:
        """Returns the principal of the credential in these `Authorization` headers.

        Raises:
            Unauthorized: there is not exactly one header, or its credential is not valid, for whatever reason.
        """
        token = _token(authorization)
        token_hash = hash_token(token)
        cached = self._cached.get(token_hash)
        if cached is not None and time.monotonic() < cached.until:
            return cached.principal
        for verifier in self._of_strangers if cached is None else self._verifiers:
            if verifier.matches(token):
                return await self._verify_once(token_hash, token, verifier)
        raise Unauthorized

    def has_verified(self, authorization: Sequence[str]) -> bool:
        """True if the credential in these headers was valid when it was verified last. It may have ended in the meantime."""
        try:
            return hash_token(_token(authorization)) in self._cached
        except Unauthorized:
            return False

    def is_verifying(self, authorization: Sequence[str]) -> bool:
        """True if the credential in these headers is being verified now, for another request."""
        try:
            return hash_token(_token(authorization)) in self._verifying
        except Unauthorized:
            return False

    def forget(self, ledger_id: str, user_id: str) -> None:
        """Makes sure that each of the customer's credentials is verified again at its next use."""
        for token_hash, cached in self._cached.items():
            if (cached.principal.ledger_id, cached.principal.user_id) == (ledger_id, user_id):
                self._cached[token_hash] = _CachedPrincipal(cached.principal, 0.0)

    def forget_keys(self, key_ids: Collection[str]) -> None:
        """Makes sure that each of these keys is verified again at its next use."""
        for token_hash, cached in self._cached.items():
            if cached.principal.key_id in key_ids:
                self._cached[token_hash] = _CachedPrincipal(cached.principal, 0.0)

    async def close(self) -> None:
        await asyncio.gather(*self._verifying.values(), return_exceptions=True)
        for verifier in {*self._verifiers, *self._of_strangers}:
            await verifier.close()

    async def _verify_once(self, token_hash: bytes, token: str, verifier: CredentialVerifier) -> Principal:
        """Verifies a token. Requests that send the same token at the same time share one verification.

        Raises:
            TimeoutError: the verification took longer than `seconds_max`.
        """
        verifying = self._verifying.get(token_hash)
        if verifying is None:
            verifying = self._verifying[token_hash] = asyncio.create_task(self._verify(token_hash, token, verifier))
            verifying.add_done_callback(lambda done: self._verified(token_hash, done))
        # A request whose credential is cached needs no time limit, so it pays for none.
        async with asyncio.timeout(self.seconds_max):
            return await asyncio.shield(verifying)

    def _verified(self, token_hash: bytes, done: asyncio.Task[Principal]) -> None:
        """Removes a finished verification. Reads its error, or asyncio would warn if every request that waited has ended."""
        del self._verifying[token_hash]
        if not done.cancelled():
            done.exception()

    async def _verify(self, token_hash: bytes, token: str, verifier: CredentialVerifier) -> Principal:
        try:
            found = await verifier.verify(token)
        except Unauthorized:
            self._cached.pop(token_hash, None)
            raise
        self._cached[token_hash] = _CachedPrincipal(found.principal, time.monotonic() + min(found.seconds, self._cached_seconds))
        self._cached.move_to_end(token_hash)
        if len(self._cached) > CACHED_MAX:
            self._cached.popitem(last=False)
        return found.principal


def _token(authorization: Sequence[str]) -> str:
    """Returns the token in the `Authorization` headers.

    Raises:
        Unauthorized: there is not exactly one header, or it is not a bearer token.
    """
    if len(authorization) != 1 or len(authorization[0]) > AUTHORIZATION_MAX:
        raise Unauthorized
    credential = _AUTHORIZATION.fullmatch(authorization[0])
    if credential is None:
        raise Unauthorized
    return credential[1]


def hash_token(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
