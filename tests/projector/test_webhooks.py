"""Webhooks get every event in order, also if a receiver fails or a worker is killed, and reach no address that is not allowed."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from daybook_client.webhooks import SignatureInvalid

from projector.webhooks.sender import WebhookSender
from query_api.app import create_app
from shared.settings import Settings
from shared.stores.postgres import open_postgres
from shared.supervision import end_tasks, keep_running
from shared.webhooks import addresses
from shared.webhooks.addresses import Resolve
from tests.harness.clients import Commands, client_of, command_api, created
from tests.harness.receivers import Received, Receiver, answer_of, receiver
from tests.harness.running import run_stack

pytestmark = pytest.mark.services

LOCAL = "127.0.0.0/8"


def allowing(settings: Settings, networks: str = LOCAL, **more: Any) -> Settings:
    return settings.model_copy(update={"webhook_networks": networks, "projector_look_ms": 50} | more)


@asynccontextmanager
async def sending(settings: Settings, resolve: Resolve = addresses.resolve) -> AsyncIterator[None]:
    """Runs the sender of a worker until the block ends."""
    async with open_postgres(settings, "daybook_projector") as engine:
        task = keep_running("sender of webhooks", WebhookSender(engine, settings, resolve).run)
        try:
            yield
        finally:
            await end_tasks(task)


async def webhook(api: Commands, to: Receiver, **fields: Any) -> dict[str, Any]:
    """Registers a webhook and returns its body."""
    host = fields.pop("host", "127.0.0.1")
    answer = await api.client.post("/v1/webhooks", json={"url": f"http://{host}:{to.port}/hook?a=b", **fields})
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def ask(settings: Settings, path: str) -> dict[str, Any]:
    async with client_of(create_app(settings)) as client:
        answer = await client.get(path)
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body


async def shown(settings: Settings, webhook_id: str, **wanted: Any) -> dict[str, Any]:
    """Waits until the webhook is shown with these members."""
    async with asyncio.timeout(60), client_of(create_app(settings)) as client:
        while True:
            body: dict[str, Any] = (await client.get(f"/v1/webhooks/{webhook_id}")).json()
            if {name: body[name] for name in wanted} == wanted:
                return body
            await asyncio.sleep(0.05)


# ── what is sent ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_events_arrive_in_order_with_a_signature_and_without_personal_data(settings: Settings) -> None:
    settings = allowing(settings)
    async with receiver() as to, command_api(settings) as api, sending(settings):
        await api.user()
        made = await webhook(api, to)
        account = await api.account(balance=500)
        await api.deposit(account, 700)
        await to.until(lambda it: len(it.received) == 4)
        assert to.positions == [2, 3, 4, 5], "from the moment of the registration on"
        first, *_, last = to.received
        assert all(each.verified(made["secret"]) for each in to.received)
        with pytest.raises(SignatureInvalid):
            last.verified("whsec_" + "A" * 44)
        assert (first.path, first.headers["host"]) == ("/hook?a=b", f"127.0.0.1:{to.port}")
        assert (last.members["type"], last.members["data"]["data"]["amount"]) == ("FundsDeposited", 700)
        assert last.headers["webhook-id"] == last.members["data"]["event_id"]
        assert set(first.members["data"]["data"]["name"]) == {"sealed"}
        assert b"Ada" not in first.body
        listed = await ask(settings, f"/v1/webhooks/{made['id']}/deliveries")
        assert [(each["event_position"], each["status"], each["outcome"]) for each in listed["items"]] == [
            (position, "delivered", "204") for position in (5, 4, 3, 2)
        ]


async def test_a_webhook_gets_only_the_types_and_streams_that_it_names(settings: Settings) -> None:
    settings = allowing(settings)
    async with receiver() as one, receiver() as other, command_api(settings) as api, sending(settings):
        account, savings = await api.account(), await api.account()
        by_type = await webhook(api, one, types=["FundsWithdrawn", "FundsTransferred"])
        await webhook(api, other, types=["FundsDeposited", "FundsTransferred"], streams=[f"account-{savings}"])
        for target in (account, savings):
            await api.deposit(target, 500)
        await api.withdraw(account, 1)
        await api.transfer(account, savings, 2)
        await api.withdraw(account, 3)
        await shown(settings, by_type["id"], delivered_position=9)
        await other.until(lambda it: len(it.received) == 2)
        assert (one.positions, other.positions) == ([7, 8, 9], [6, 8])


async def test_a_rotated_secret_signs_beside_the_old_one_until_the_overlap_ends(settings: Settings) -> None:
    settings = allowing(settings)
    async with receiver() as to, command_api(settings) as api, sending(settings):
        made = await webhook(api, to)
        rotate = f"/v1/webhooks/{made['id']}/rotate-secret"
        second = (await api.client.post(rotate, json={"overlap_seconds": 600})).json()["secret"]
        await api.user()
        await to.until(lambda it: len(it.received) == 1)
        assert to.received[0].verified(made["secret"])
        assert to.received[0].verified(second)
        third = (await api.client.post(rotate, json={"overlap_seconds": 0})).json()["secret"]
        await api.user()
        await to.until(lambda it: len(it.received) == 2)
        assert to.received[1].verified(third)
        for ended in (made["secret"], second):
            with pytest.raises(SignatureInvalid):
                to.received[1].verified(ended)


async def test_what_was_delivered_while_somebody_disabled_the_webhook_is_not_sent_again(settings: Settings) -> None:
    settings = allowing(settings)
    async with receiver() as to, command_api(settings) as api, sending(settings):
        made = await webhook(api, to)
        path = f"/v1/webhooks/{made['id']}"

        async def disable_first(_: Received) -> bytes:
            assert (await api.client.patch(path, json={"status": "disabled"})).status_code == 200
            return answer_of(200)

        to.answer = disable_first
        await api.user()
        await shown(settings, made["id"], status="disabled", position=1)
        to.answer = lambda _: answer_of(200)
        await api.user()
        assert (await api.client.patch(path, json={"status": "active"})).status_code == 200
        await to.until(lambda it: len(it.received) == 2)
        assert to.positions == [1, 2]


async def test_a_test_and_a_repetition_are_sent_once_also_to_a_disabled_webhook(settings: Settings) -> None:
    settings = allowing(settings)
    async with receiver() as to, command_api(settings) as api, sending(settings):
        made = await webhook(api, to)
        path = f"/v1/webhooks/{made['id']}"
        await api.user()
        await to.until(lambda it: len(it.received) == 1)
        assert (await api.client.patch(path, json={"status": "disabled"})).json()["status"] == "disabled"
        await api.user()
        to.answer = lambda _: answer_of(500)
        asked = await api.client.post(f"{path}/test")
        assert asked.status_code == 202
        await to.until(lambda it: len(it.received) == 2)
        assert (to.received[1].members["type"], to.received[1].headers["webhook-id"]) == (
            "WebhookTested",
            asked.json()["delivery_id"],
        )
        to.answer = lambda _: answer_of(200)
        event_id = to.received[0].headers["webhook-id"]
        assert (await api.client.post(f"{path}/deliveries/{event_id}/repeat")).status_code == 202
        await to.until(lambda it: len(it.received) == 3)
        assert (to.received[2].body, to.received[2].headers["webhook-id"]) == (to.received[0].body, event_id)
        assert (await api.client.patch(path, json={"status": "active"})).status_code == 200
        await to.until(lambda it: len(it.received) == 4)
        assert to.positions == [1, 0, 1, 2], "what was recorded while it was disabled comes afterwards"
        deliveries = (await ask(settings, f"{path}/deliveries"))["items"]
        assert [(each["type"], each["status"], each["attempts"]) for each in deliveries][1:] == [
            ("WebhookTested", "failed", 1),
            ("UserCreated", "delivered", 2),
        ]


# ── receivers that fail ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
async def test_what_was_not_accepted_comes_again_before_anything_later(settings: Settings) -> None:
    settings = allowing(settings)
    failing = iter([500, 200, 302, 503])
    async with receiver() as to, command_api(settings) as api, sending(settings):
        to.answer = lambda _: answer_of(next(failing, 200))
        await webhook(api, to)
        for _ in range(3):
            await api.user()
        await to.until(lambda it: len(it.received) == 6)
        assert to.positions == [1, 1, 2, 2, 2, 3]
        assert to.received[0].headers["webhook-id"] == to.received[1].headers["webhook-id"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["silent", "dripping", "endless"])
async def test_a_bad_receiver_delays_only_itself(settings: Settings, kind: str) -> None:
    settings = allowing(settings, webhook_timeout_ms=1_000)
    endless = b"HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"100000\r\n" + b"x" * 2**20
    async with receiver() as bad, receiver() as good, command_api(settings) as api, sending(settings):
        answers = {"silent": None, "dripping": b"HTTP/1.1 200 x\r\nX-A: b", "endless": endless}
        bad.answer = lambda _: answers[kind]
        stuck, _ = await webhook(api, bad), await webhook(api, good)
        for _ in range(5):
            await api.user()
        await good.until(lambda it: it.positions == [1, 2, 3, 4, 5])
        if kind == "endless":
            await bad.until(lambda it: it.positions == [1, 2, 3, 4, 5])
        else:
            assert set(bad.positions) <= {1}
            await shown(settings, stuck["id"], delivered_position=0, status="active")


@pytest.mark.slow
async def test_a_webhook_that_fails_too_long_is_disabled_and_says_why(settings: Settings) -> None:
    settings = allowing(settings, webhook_give_up_seconds=1)
    async with receiver() as to, command_api(settings) as api, sending(settings):
        to.answer = lambda _: answer_of(503)
        made = await webhook(api, to)
        await api.user()
        gone = await shown(settings, made["id"], status="disabled")
        assert gone["notice"].startswith("disabled at position 1, because it has failed for ")
        assert gone["notice"].endswith("the last attempt ended with: 503")
        attempts = len(to.received)
        assert attempts >= 2
        to.answer = lambda _: answer_of(200)
        await api.user()
        await api.client.patch(f"/v1/webhooks/{made['id']}", json={"status": "active"})
        await to.until(lambda it: it.positions[attempts:] == [1, 2])
        assert (await shown(settings, made["id"], delivered_position=2))["notice"] is None


async def test_a_receiver_that_is_gone_gets_nothing_more(settings: Settings) -> None:
    settings = allowing(settings)
    async with receiver() as to, command_api(settings) as api, sending(settings):
        to.answer = lambda _: answer_of(410)
        made = await webhook(api, to)
        await api.user()
        assert "it wants no more" in (await shown(settings, made["id"], status="disabled"))["notice"]
        assert len(to.received) == 1


@pytest.mark.slow
async def test_a_killed_worker_loses_no_event(settings: Settings, tmp_path: Any) -> None:
    """The worker is killed while the receiver has an event and has not answered, and right after an answer."""
    settings = allowing(settings)
    silent = {1, 3}
    async with receiver() as to, run_stack(settings, tmp_path) as stack, command_api(settings) as api:
        to.answer = lambda got: None if got.position in silent else answer_of(200)
        await webhook(api, to)
        for number in range(1, 5):
            await api.user()
            await to.until(lambda it, number=number: number in it.positions)  # type: ignore[misc]
            await stack.worker.kill()
            silent.discard(number)
            await stack.worker.start()
        await api.user()
        await to.until(lambda it: 5 in it.positions)
        assert list(dict.fromkeys(to.positions)) == [1, 2, 3, 4, 5]
        assert to.positions == sorted(to.positions), "an event came again before the next, and never after it"
        assert to.positions.count(1) == to.positions.count(3) == 2


async def test_two_senders_send_nothing_twice(settings: Settings) -> None:
    settings = allowing(settings)
    async with receiver() as to, command_api(settings) as api, sending(settings), sending(settings):
        await webhook(api, to)
        for _ in range(10):
            await api.user()
        await to.until(lambda it: 10 in it.positions)
        assert to.positions == [*range(1, 11)]


# ── addresses that are not allowed ───────────────────────────────────────────────────────────────────────────────────────


async def test_an_address_is_checked_again_at_each_delivery(settings: Settings) -> None:
    async with receiver() as to:
        async with command_api(allowing(settings)) as api:
            made = await webhook(api, to)
            await api.user()
        async with sending(allowing(settings, networks="")):
            await shown(settings, made["id"], failures=1)
            [delivery] = (await ask(settings, f"/v1/webhooks/{made['id']}/deliveries"))["items"]
            assert "loopback" in delivery["outcome"]
        assert to.received == []


async def test_a_redirect_leads_nowhere(settings: Settings) -> None:
    settings = allowing(settings)
    async with receiver() as to, receiver() as inside, command_api(settings) as api, sending(settings):
        to.answer = lambda _: answer_of(307, Location=f"http://127.0.0.1:{inside.port}/")
        made = await webhook(api, to)
        await api.user()
        await shown(settings, made["id"], failures=1)
        [delivery] = (await ask(settings, f"/v1/webhooks/{made['id']}/deliveries"))["items"]
        assert delivery["outcome"] == "307, which is not followed"
        assert inside.received == []


async def test_a_name_that_points_elsewhere_after_the_check_leads_nowhere(settings: Settings) -> None:
    """DNS rebinding: the name has the allowed address when it is checked for the first time, and another one from then on."""
    settings = allowing(settings, networks="127.0.0.2/32")
    asked: list[str] = []

    async def rebinding(host: str, port: int) -> Sequence[str]:
        del port
        asked.append(host)
        return ["127.0.0.2"] if len(asked) == 1 else ["127.0.0.1"]

    async with receiver("127.0.0.2") as allowed, receiver("127.0.0.1", allowed.port) as inside, command_api(settings) as api:
        made = await webhook(api, allowed, host="127.0.0.2")
        async with sending(settings, rebinding):
            await api.user()
            await allowed.until(lambda it: it.positions == [1])
            assert len(asked) == 1, "resolved once, and then connected to what was checked"
            await api.user()
            await shown(settings, made["id"], failures=1)
        assert (allowed.positions, inside.received) == ([1], [])


# ── the routes ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://127.0.0.1:8000/", "webhook-url-refused"),
        ("https://localhost/", "webhook-url-refused"),
        ("https://169.254.169.254/latest/meta-data", "webhook-url-refused"),
        ("https://10.0.0.1/", "webhook-url-refused"),
        ("https://[::1]/", "webhook-url-refused"),
        ("https://[::ffff:127.0.0.1]/", "webhook-url-refused"),
        ("https://2130706433/", "webhook-url-refused"),
        ("https://example.invalid/", "webhook-url-refused"),
        ("http://93.184.215.14/", "webhook-url-refused"),
        ("ftp://93.184.215.14/", "webhook-url-refused"),
        ("https://user:secret@93.184.215.14/", "webhook-url-refused"),
        ("https://93.184.215.14/#part", "webhook-url-refused"),
        ("https://93.184.215.14:99999/", "webhook-url-refused"),
        ("no url", "webhook-url-refused"),
        ("", "validation-failed"),
    ],
)
async def test_a_url_that_is_not_allowed_is_refused_when_it_is_registered(settings: Settings, url: str, code: str) -> None:
    async with command_api(settings) as api:
        await api.user()
        refused = await api.client.post("/v1/webhooks", json={"url": url})
        assert (refused.status_code, refused.json()["code"]) == (422, code)
        assert "secret" not in refused.text
    assert (await ask(settings, "/v1/webhooks"))["items"] == []


async def test_webhooks_are_listed_changed_and_deleted(settings: Settings) -> None:
    settings = allowing(settings)
    async with receiver() as to, command_api(settings) as api:
        await api.user()
        own = str(uuid.uuid4())
        made = await webhook(api, to, id=own, types=["FundsDeposited"])
        again = await api.client.post("/v1/webhooks", json={"id": own, "url": f"http://127.0.0.1:{to.port}/"})
        assert (again.status_code, again.json()["code"]) == (409, "id-taken")
        unknown = await api.client.post("/v1/webhooks", json={"url": f"http://127.0.0.1:{to.port}/", "types": ["Nothing"]})
        assert (unknown.status_code, unknown.json()["code"]) == (422, "validation-failed")
        changed = await api.client.patch(f"/v1/webhooks/{own}", json={"types": [], "streams": ["ledger"]})
        assert (changed.json()["types"], changed.json()["streams"]) == ([], ["ledger"])
        refused = await api.client.patch(f"/v1/webhooks/{own}", json={"url": "https://10.0.0.1/"})
        assert refused.json()["code"] == "webhook-url-refused"
        [listed] = (await ask(settings, "/v1/webhooks"))["items"]
        assert (listed["id"], listed["url"], listed["streams"]) == (own, made["url"], ["ledger"])
        assert made["secret"] not in str(listed)
        assert [(await api.client.delete(f"/v1/webhooks/{own}")).status_code for _ in range(2)] == [204, 404]
        for path in ("test", "rotate-secret", f"deliveries/{uuid.uuid4()}/repeat"):
            missing = await api.client.post(f"/v1/webhooks/{own}/{path}", json={} if path == "rotate-secret" else None)
            assert missing.status_code == 404
        acts = (await ask(settings, "/v1/audit-records"))["items"]
        assert [each["act"] for each in acts][:3] == ["webhook-deleted", "webhook-changed", "webhook-made"]


async def test_a_ledger_has_at_most_twenty_webhooks(settings: Settings) -> None:
    settings = allowing(settings)
    async with receiver() as to, command_api(settings) as api:
        created(await api.post("/v1/users", {"name": "Ada", "email": "ada@example.com"}))
        for _ in range(20):
            await webhook(api, to)
        full = await api.client.post("/v1/webhooks", json={"url": f"http://127.0.0.1:{to.port}/"})
        assert (full.status_code, full.json()["code"], full.json()["limit"]) == (409, "too-many-webhooks", 20)
