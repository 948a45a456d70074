"""Metadata of users over HTTP: who may change them, what is refused, and what a repeated request is answered."""

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from shared.settings import Settings
from tests.harness.clients import Commands, command_api, created
from tests.harness.keys import add_key, bearer

pytestmark = pytest.mark.services
NUMBER = {"customer_number": "4711"}


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Commands]:
    async with command_api(settings) as commands:
        yield commands


async def change(api: Commands, user_id: str, body: dict[str, Any], **headers: str) -> httpx2.Response:
    return await api.client.patch(f"/v1/users/{user_id}", json=body, headers=headers)


async def test_metadata_change_without_the_name_and_repeating_them_changes_nothing(api: Commands) -> None:
    new = {"name": "Ada", "email": "ada@example.com", "metadata": NUMBER}
    user_id = created(await api.post("/v1/users", new))
    versions = []
    wanted: list[dict[str, Any]] = [{"metadata": NUMBER}, {"metadata": {"vip": "yes"}}, {"name": "Ada L."}]
    for body in [*wanted, wanted[1]]:
        answer = await change(api, user_id, body)
        assert answer.status_code == 200, answer.text
        versions.append(answer.json()["version"])
    assert versions == [1, 2, 3, 3]
    nothing: list[Any] = [None, {}]
    for metadata in nothing:
        assert (await change(api, user_id, {"metadata": metadata})).json()["version"] == 4
    assert "metadata" not in answer.json(), "a stored reply would need it encrypted"


async def test_one_key_stands_for_removed_metadata_or_for_kept_ones_but_not_for_both(api: Commands) -> None:
    user_id = await api.user()
    first = await change(api, user_id, {"name": "Eve", "metadata": None}, **{"idempotency-key": "k"})
    assert first.status_code == 200
    other = await change(api, user_id, {"name": "Eve"}, **{"idempotency-key": "k"})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")


async def test_a_customer_changes_the_name_but_not_the_metadata(api: Commands, settings: Settings) -> None:
    """Operators find a user by metadata, so a customer must not choose which user they find."""
    user_id = await api.user()
    customer = bearer(await add_key(settings.database_url, "customer", user_id=user_id))
    for metadata in (NUMBER, {}, None):
        refused = await change(api, user_id, {"metadata": metadata}, **customer)
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert (await change(api, user_id, {"name": "Ada L."}, **customer)).json()["version"] == 2


@pytest.mark.parametrize(
    "metadata",
    [{"a b": "c"}, {"a": 1}, {"a": "\u202e"}, {"a": "b" * 501}, {str(n): "" for n in range(21)}, "text", [], {"a": None}],
)
async def test_metadata_that_are_no_short_texts_are_refused(api: Commands, metadata: Any) -> None:
    user_id = await api.user()
    refused = await change(api, user_id, {"metadata": metadata})
    assert (refused.status_code, refused.json()["code"]) == (422, "validation-failed")
    new = {"name": "Ada", "email": "ada@example.com", "metadata": metadata}
    assert (await api.post("/v1/users", new)).status_code == 422
