"""A key belongs to one request of its caller, and a request is what it means, not how it was written."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest

from shared.settings import Settings
from tests.harness.clients import Commands, command_api
from tests.harness.proxy import proxy_to

pytestmark = pytest.mark.services

Body = dict[str, Any]
WHEN = "2026-03-01T00:30:00.5+02:00"
FULL: Body = {"occurred_at": WHEN, "reference": "rent", "metadata": {"a": "1", "b": "2"}}


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Commands]:
    async with command_api(settings) as commands:
        yield commands


def move(payer: str, payee: str, amount: int = 1, **fields: Any) -> Body:
    return {"from_account_id": payer, "to_account_id": payee, "amount": amount, "currency": "EUR", **fields}


def shouted(body: Any) -> Any:
    """The same body with its ids in upper case."""
    if isinstance(body, dict):
        return {name: value.upper() if name.endswith("id") else shouted(value) for name, value in body.items()}
    return [shouted(each) for each in body] if isinstance(body, list) else body


def with_defaults(body: Any) -> Any:
    """The same body with every optional member that is missing written out."""
    if "transfers" in body:
        return {"mode": "independent", **body, "transfers": [with_defaults(each) for each in body["transfers"]]}
    if "owner_id" in body:
        return {"overdraft_limit": 0, **body}
    return {"occurred_at": None, "reference": None, "metadata": None, **body}


def at_the_same_moment(body: Any) -> Any:
    """The same body with its moments written with another offset and more digits."""
    if "transfers" in body:
        return {**body, "transfers": [at_the_same_moment(each) for each in body["transfers"]]}
    return body | ({"occurred_at": "2026-02-28T22:30:00.500000000Z"} if body.get("occurred_at") else {})


def backwards(body: Any) -> Any:
    """The same body with its members in the opposite order."""
    if isinstance(body, dict):
        return {name: backwards(body[name]) for name in reversed(body)}
    return [backwards(each) for each in body] if isinstance(body, list) else body


@pytest.mark.parametrize("rewritten", [shouted, with_defaults, at_the_same_moment, backwards])
async def test_a_retry_that_means_the_same_gets_the_same_answer(api: Commands, rewritten: Callable[[Any], Any]) -> None:
    owner, payer, payee = await api.user(), await api.account(balance=100), await api.account()
    requests: list[tuple[str, Body]] = [
        ("/v1/deposits", {"account_id": payer, "amount": 5, "currency": "EUR", **FULL}),
        ("/v1/withdrawals", {"account_id": payer, "amount": 5, "currency": "EUR"}),
        ("/v1/transfers", move(payer, payee, **FULL)),
        ("/v1/transfers", move(payer, payee, id="0198c5a0-0000-7000-8000-00000000abcd")),
        ("/v1/transfers/batch", {"transfers": [move(payer, payee, **FULL), move(payer, payee, 2)]}),
        ("/v1/transfers/batch", {"mode": "atomic", "transfers": [move(payer, payee, **FULL), move(payer, payee, 2)]}),
        ("/v1/accounts", {"owner_id": owner, "currency": "EUR"}),
        ("/v1/users", {"id": "0198c5a0-0000-7000-8000-00000000cdef", "name": "Ada", "email": "ada@example.com"}),
    ]
    for number, (path, body) in enumerate(requests):
        first = await api.post(path, body, idempotency_key=f"k{number}")
        again = await api.post(path, rewritten(body) if path != "/v1/users" else shouted(body), idempotency_key=f"k{number}")
        assert again.content == first.content, (path, again.text)
        assert again.headers["idempotency-replayed"] == "true"


async def test_a_retry_may_write_the_id_in_the_path_in_upper_case(api: Commands) -> None:
    account_id, user_id = await api.account(), await api.user()
    for path, id_ in [("/v1/accounts/{}/freeze", account_id), ("/v1/users/{}/deactivate", user_id)]:
        first = await api.post(path.format(id_), idempotency_key=path)
        again = await api.post(path.format(id_.upper()), idempotency_key=path)
        assert again.content == first.content, again.text
        assert again.headers["idempotency-replayed"] == "true"


async def test_a_member_that_is_null_changes_nothing_for_a_retry_of_a_change(api: Commands) -> None:
    user_id = await api.user()

    async def change(body: Body) -> httpx2.Response:
        return await api.client.patch(f"/v1/users/{user_id}", json=body, headers={"idempotency-key": "change"})

    first, again = await change({"name": "Grace"}), await change({"name": "Grace", "email": None})
    assert (again.status_code, again.content) == (200, first.content)


@pytest.mark.parametrize(
    "other",
    [
        {"amount": 6},
        {"occurred_at": "2026-03-01T00:30:00.6+02:00"},
        {"occurred_at": None},
        {"reference": "Rent"},
        {"metadata": {"a": "1"}},
        {"id": "0198c5a0-0000-7000-8000-00000000abcd"},
    ],
)
async def test_a_request_that_means_something_else_is_refused(api: Commands, other: Body) -> None:
    account_id = await api.account()
    body: Body = {"account_id": account_id, "amount": 5, "currency": "EUR", **FULL}
    assert (await api.post("/v1/deposits", body, idempotency_key="k")).status_code == 201
    refused = await api.post("/v1/deposits", body | other, idempotency_key="k")
    assert (refused.status_code, refused.json()["code"]) == (422, "idempotency-key-reused")


@pytest.mark.parametrize("first", ["independent", "atomic", "transfer", "freeze"])
async def test_one_key_is_for_one_request_whatever_the_route(api: Commands, first: str) -> None:
    """Before, the key of an independent batch was free for any other request, and both were executed."""
    payer, payee, frozen = await api.account(balance=100), await api.account(), await api.account()
    two = [move(payer, payee), move(payer, payee)]
    requests: dict[str, tuple[str, Any]] = {
        "independent": ("/v1/transfers/batch", {"mode": "independent", "transfers": two}),
        "one": ("/v1/transfers/batch", {"mode": "independent", "transfers": two[:1]}),
        "atomic": ("/v1/transfers/batch", {"mode": "atomic", "transfers": two}),
        "transfer": ("/v1/transfers", two[0]),
        "freeze": (f"/v1/accounts/{frozen}/freeze", None),
    }
    done = await api.post(*requests.pop(first), idempotency_key="k")
    assert done.is_success, done.text
    before = await posted(api, payer)
    for request in requests.values():
        refused = await api.post(*request, idempotency_key="k")
        assert (refused.status_code, refused.json()["code"]) == (422, "idempotency-key-reused"), request
    assert await posted(api, payer) == before


async def posted(api: Commands, account_id: str) -> int:
    """Returns the balance of an account, as the rejection of a withdrawal that is too large names it."""
    refused = await api.withdraw(account_id, 1_000_000)
    return int(refused.json()["available"])


@pytest.mark.parametrize("pattern", [b"FundsTransferred", b"COMMIT"])
@pytest.mark.parametrize("before", [True, False], ids=["before the server sees it", "before we see its reply"])
async def test_the_key_of_a_batch_in_many_transactions_stays_its_own_when_one_is_cut_off(
    settings: Settings, pattern: bytes, *, before: bool
) -> None:
    """The parts of a batch are recorded by many transactions here. Each has one effect, and no other request gets the key."""
    small = settings.model_copy(update={"batch_commands_max": 3, "command_deadline_ms": 60_000})
    async with proxy_to(small.database_url) as (proxy, url):
        async with command_api(small.model_copy(update={"database_url": url})) as api:
            payer, payee = await api.account(balance=100), await api.account()
            batch = {"transfers": [move(payer, payee) for _ in range(30)]}
            proxy.arm(pattern, before=before)
            first = await api.post("/v1/transfers/batch", batch, idempotency_key="k")
            again = await api.post("/v1/transfers/batch", batch, idempotency_key="k")
            other = await api.transfer(payer, payee, 1, idempotency_key="k")
            left = await posted(api, payer)
    assert proxy.cuts == 1
    assert {result["status"] for result in first.json()["results"]} == {201}
    assert again.content == first.content
    assert (other.status_code, left) == (422, 70)
