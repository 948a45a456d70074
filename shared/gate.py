"""What stands before every route: who calls, from where, and whether they have asked too often."""

from collections.abc import Iterator, MutableMapping, Sequence
from typing import Any

from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.access import Principal
from shared.addresses import Addresses, site_of
from shared.api_keys import ApiKeys
from shared.callers import Callers, Credentials
from shared.errors import RateLimited, Unauthorized
from shared.rate_limits import RateLimits
from shared.sessions import Sessions
from shared.settings import Settings
from shared.signed_tokens import SignedTokens, read_public_keys


class Gate:
    """Lets callers in, each as often as they may.

    Callers with a valid credential are counted each by themselves, wherever they call from. Addresses count only for those
    without: what others do from an address that many share costs nobody a valid request.
    """

    def __init__(self, engine: AsyncEngine, redis: "Redis", settings: Settings) -> None:
        self._callers = Callers(*_credentials(engine, redis, settings))
        self._addresses = Addresses(settings.trusted_proxies)
        self._known = RateLimits(redis, "caller", settings.rate_limit_caller_per_minute)
        self._strangers = RateLimits(redis, "address", settings.rate_limit_address_per_minute)

    async def admit(self, scope: MutableMapping[str, Any], authorization: Sequence[str]) -> Principal:
        """Who sends these `Authorization` headers. What is left of the caller's limit is added to the answer.

        Raises:
            Unauthorized: nobody whom we know.
            RateLimited: too often.
        """
        state = scope["state"]
        state["address"] = address = self._addresses.of(scope)
        try:
            state["principal"] = principal = await self._recognised(site_of(address), authorization)
            state["limit_headers"] = await self._known.take(f"{principal.ledger_id}:{principal.principal}")
        except RateLimited as refused:
            state["limit_headers"] = refused.limit_headers
            raise
        return principal

    async def recognise(self, authorization: Sequence[str]) -> Principal:
        """Who sends these headers, for somebody who was let in and is still there; it is not counted.

        Raises:
            Unauthorized: nobody, by now.
        """
        return await self._callers.principal(authorization)

    async def meet(self, scope: MutableMapping[str, Any]) -> None:
        """Lets somebody in who needs no credential, as often as strangers may come from one address.

        Raises:
            RateLimited: too often.
        """
        state = scope["state"]
        state["address"] = address = self._addresses.of(scope)
        try:
            state["limit_headers"] = await self._strangers.take(site_of(address))
        except RateLimited as refused:
            state["limit_headers"] = refused.limit_headers
            raise

    def forget(self, ledger_id: str, user_id: str) -> None:
        """Some credentials of this customer may have ended: they are looked up again. Other processes notice within seconds."""
        self._callers.forget(ledger_id, user_id)

    async def _recognised(self, site: str, authorization: Sequence[str]) -> Principal:
        if self._strangers.is_spent(site) and not self._callers.has_seen(authorization):
            # Not even looked up: that is what somebody who tries keys would have us do.
            raise self._strangers.refusal(site)
        try:
            return await self._callers.principal(authorization)
        except Unauthorized:
            await self._strangers.take(site)
            raise

    @property
    def counts_alone(self) -> bool:
        """Whether limits are those of this process alone, for want of Redis."""
        return self._known.counts_alone or self._strangers.counts_alone

    async def close(self) -> None:
        await self._callers.close()
        await self._known.close()
        await self._strangers.close()


def _credentials(engine: AsyncEngine, redis: "Redis", settings: Settings) -> Iterator[Credentials]:
    yield ApiKeys(engine)
    yield Sessions(engine, redis, settings)
    if settings.jwt_keys:
        yield SignedTokens(settings.jwt_issuer, settings.jwt_audience, read_public_keys(settings.jwt_keys))
