"""Authenticates the caller of each request and applies rate limits, before the route runs."""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, MutableMapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.errors import RateLimited, Unauthorized
from shared.identity.access import Principal
from shared.identity.api_keys import ApiKeys
from shared.identity.client_addresses import ClientAddresses, site_of
from shared.identity.credential_cache import CACHE_SECONDS, CredentialCache, CredentialDenied, CredentialVerifier
from shared.identity.rate_limits import RateLimitHeaders, RateLimits
from shared.identity.sessions import Sessions
from shared.identity.signed_tokens import SignedTokens
from shared.setting_values import read_public_keys
from shared.settings import Settings
from shared.stores.postgres import Role, open_postgres
from shared.stores.redis import open_redis

STRANGER_CONNECTIONS_MAX: Final = 2


class Connections(NamedTuple):
    """Connections to the two stores in which credentials are looked up."""

    engine: AsyncEngine
    redis: "Redis"


class Authentication:
    """Identifies callers, and admits their requests up to the rate limits.

    Each caller with a valid credential has its own limit, from whatever addresses it calls. Requests without a valid credential
    count against the limit of their address. So other callers at a shared address cannot use up the limit of a caller who has a
    valid credential.

    A credential that this process has never found valid is counted before it is looked up. If it is valid, this is taken
    back. A credential that was valid is never denied because of its address, not even while it is looked up again.
    """

    def __init__(
        self, callers: Connections, strangers: Connections, settings: Settings, cached_seconds: float = CACHE_SECONDS
    ) -> None:
        """`strangers` are the few connections over which credentials are verified that this process has never found valid.

        A verified credential is remembered for at most `cached_seconds`.
        """
        of_strangers = [*_credentials(strangers, settings)]
        self._credentials = CredentialCache(
            *_credentials(callers, settings), of_strangers=of_strangers, cached_seconds=cached_seconds
        )
        self._counting: dict[tuple[str, ...], asyncio.Task[RateLimitHeaders]] = {}
        redis = callers.redis
        self._credentials.seconds_max = settings.command_deadline_ms / 1000
        self._addresses = ClientAddresses(settings.trusted_proxies)
        self._caller_limits = RateLimits(redis, "caller", settings.rate_limit_caller_per_minute)
        self._address_limits = RateLimits(redis, "address", settings.rate_limit_address_per_minute)

    async def authenticate(self, scope: MutableMapping[str, Any], authorization: Sequence[str]) -> Principal:
        """Identifies the caller by the `Authorization` headers and counts the request. Returns the caller.

        Also stores the address, the principal and the rate limit headers of the answer in the state of `scope`. If
        the credential is not valid, also stores what auditors may know about it.

        Raises:
            Unauthorized: there is no valid credential.
            RateLimited: the caller, or its address if the credential is not valid, has reached the limit.
        """
        state = scope["state"]
        state["address"] = address = self._addresses.of(scope)
        try:
            remembered = self._credentials.remembered(authorization)
            principal = remembered or await self._principal_of(state, site_of(address), authorization)
            state["principal"] = principal
            state["limit_headers"] = await self._caller_limits.take(_limit_key(principal))
        except RateLimited as denial:
            state["limit_headers"] = denial.limit_headers
            raise
        return principal

    async def count_commands(self, scope: MutableMapping[str, Any], commands: int) -> None:
        """Counts an authenticated request as this many commands against the caller's limit.

        Raises:
            RateLimited: the caller has fewer permits left.
        """
        state = scope["state"]
        principal: Principal = state["principal"]
        try:
            state["limit_headers"] = await self._caller_limits.take_for(_limit_key(principal), commands)
        except RateLimited as denial:
            state["limit_headers"] = denial.limit_headers
            raise

    async def authenticate_again(self, authorization: Sequence[str]) -> Principal:
        """Identifies the caller of an admitted request again while it is being answered. Does not count against a limit.

        Raises:
            Unauthorized: the credential is no longer valid.
        """
        return await self._credentials.principal(authorization)

    async def admit_anonymous(self, scope: MutableMapping[str, Any]) -> None:
        """Counts a request that needs no credential against the limit of its site.

        Raises:
            RateLimited: the address has reached its limit.
        """
        state = scope["state"]
        state["address"] = address = self._addresses.of(scope)
        try:
            state["limit_headers"] = await self._address_limits.take(site_of(address))
        except RateLimited as denial:
            state["limit_headers"] = denial.limit_headers
            raise

    def forget(self, ledger_id: str, user_id: str) -> None:
        """Removes the customer's credentials from the cache of this process, so that each is verified again at its next use.

        Other processes remember a credential for at most `CACHE_SECONDS`.
        """
        self._credentials.forget(ledger_id, user_id)

    def forget_keys(self, key_ids: Collection[str]) -> None:
        """Removes keys from the cache of this process, like `forget`."""
        self._credentials.forget_keys(key_ids)

    async def _principal_of(self, state: MutableMapping[str, Any], site: str, authorization: Sequence[str]) -> Principal:
        is_counted = await self._count_stranger(site, authorization)
        try:
            principal = await self._credentials.principal(authorization)
        except Unauthorized as denied:
            if isinstance(denied, CredentialDenied):
                state["former_principal"], state["claimed_ledger"] = denied.principal, denied.ledger_id
            if not is_counted:
                await self._address_limits.take(site)
            raise Unauthorized from None
        if is_counted:
            self._address_limits.give_back(site)
        return principal

    async def _count_stranger(self, site: str, authorization: Sequence[str]) -> bool:
        """Counts a request against the limit of its address if its credential was never valid. Returns True if it was counted.

        Simultaneous requests with one credential share a look-up, so they are counted once before it. Otherwise a busy caller
        would be denied when a process has just started.

        Raises:
            RateLimited: the address has reached its limit.
        """
        if self._credentials.has_verified(authorization) or self._credentials.is_verifying(authorization):
            return False
        key = (site, *authorization)
        if (counting := self._counting.get(key)) is not None:
            await asyncio.shield(counting)
            return False
        counting = self._counting[key] = asyncio.create_task(self._address_limits.take(site))
        try:
            await asyncio.shield(counting)
        finally:
            del self._counting[key]
        return True

    @property
    def counts_locally(self) -> bool:
        """True while Redis does not answer and this process counts requests by itself."""
        return self._caller_limits.counts_locally or self._address_limits.counts_locally

    async def close(self) -> None:
        await self._credentials.close()
        await self._caller_limits.close()
        await self._address_limits.close()


def _limit_key(principal: Principal) -> str:
    return f"{principal.ledger_id}:{principal.principal}"


@asynccontextmanager
async def open_connections_of_strangers(settings: Settings, role: Role) -> AsyncIterator[Connections]:
    """Yields few connections. If strangers use all of them, the callers' own are still free."""
    async with (
        open_postgres(settings, role, STRANGER_CONNECTIONS_MAX) as engine,
        open_redis(settings, connections_max=STRANGER_CONNECTIONS_MAX) as redis,
    ):
        yield Connections(engine, redis)


def _credentials(connections: Connections, settings: Settings) -> Iterator[CredentialVerifier]:
    yield ApiKeys(connections.engine)
    yield Sessions(connections.engine, connections.redis, settings)
    if settings.jwt_keys:
        yield SignedTokens(settings.jwt_issuer, settings.jwt_audience, read_public_keys(settings.jwt_keys))
