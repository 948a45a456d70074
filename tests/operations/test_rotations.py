"""Each secret changes in two steps: the old and the new one both work for a time, and afterwards only the new one does.

The other secrets have such a test where the rest of their tests is: docs/deploying.md names it.
"""

import itertools
from contextlib import AsyncExitStack, suppress
from typing import Any, Final

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from pydantic import SecretStr

from query_api.app import create_app
from shared.errors import Unauthorized
from shared.identity.credential_cache import CredentialCache
from shared.identity.signed_tokens import SignedTokens
from shared.setting_values import read_public_keys
from shared.settings import Settings
from shared.stores.postgres import open_postgres
from tests.harness import log
from tests.harness.clients import client_of
from tests.harness.log import Book
from tests.harness.tokens import AUDIENCE, ISSUER, PUBLIC, claims, jwk, key_set, signed

OLD: Final = "the old secret which signs until it is replaced"
NEW: Final = "the new secret that signs from now on for ever"


@pytest.mark.services
async def test_cursors_of_the_old_secret_work_until_it_is_removed_and_no_step_breaks_one(settings: Settings) -> None:
    """While the processes are replaced one after another, each step runs beside the next, and cursors go both ways."""

    async def page(client: httpx2.AsyncClient, **cursor: str) -> httpx2.Response:
        return await client.get("/v1/events", params={"limit": 3, **cursor})

    async with AsyncExitStack() as running:
        writer = await running.enter_async_context(open_postgres(settings, "daybook_command"))
        await log.append(writer, Book().history(20))
        steps = []
        for secrets in (OLD, f"{OLD},{NEW}", f"{NEW},{OLD}", NEW):
            configured = settings.model_copy(update={"secret": SecretStr(secrets)})
            steps.append(await running.enter_async_context(client_of(create_app(configured))))
        for giver, taker in [*itertools.pairwise(steps), *itertools.pairwise(steps[::-1])]:
            given = (await page(giver)).json()["next"]
            taken = await page(taker, cursor=given)
            assert (taken.status_code, [item["position"] for item in taken.json()["items"]]) == (200, [4, 5, 6])
        of_before = (await page(steps[0])).json()["next"]
        refused = await page(steps[-1], cursor=of_before)
        assert (refused.status_code, refused.json()["code"]) == (400, "cursor-invalid")


async def test_tokens_of_the_old_key_of_an_issuer_work_until_it_is_removed() -> None:
    new_key = ed25519.Ed25519PrivateKey.generate()
    new_public = jwk("EdDSA", new_key.public_key(), kid="new")
    tokens = {"old": signed(), "new": jwt.encode(claims(), new_key, "EdDSA", {"kid": "new"})}

    async def accepted(*keys: dict[str, Any]) -> set[str]:
        callers = CredentialCache(SignedTokens(ISSUER, AUDIENCE, read_public_keys(key_set(*keys))))
        found = set()
        for name, token in tokens.items():
            with suppress(Unauthorized):
                await callers.principal([f"Bearer {token}"])
                found.add(name)
        return found

    assert await accepted(*PUBLIC) == {"old"}
    assert await accepted(new_public, *PUBLIC) == {"old", "new"}
    assert await accepted(new_public) == {"new"}
