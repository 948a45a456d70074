"""The command API on a real PostgreSQL: what it records, what it answers, what it rejects, and what it repeats."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.errors import SchemaMismatch, UnsafeStore
from shared.identity.api_keys import key_id_of
from shared.log.money_events import FundsDeposited, FundsTransferred
from shared.log.read import StoredEvent, read_stored
from shared.settings import Settings
from shared.stores.postgres import open_postgres
from tests.harness.clients import Commands, command_api, created
from tests.harness.keys import OPERATOR, add_key

pytestmark = pytest.mark.services


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Commands]:
    async with command_api(settings) as commands:
        yield commands


async def log_of(engine: AsyncEngine) -> list[StoredEvent]:
    async with engine.connect() as connection:
        return await read_stored(connection, "main", 0, 100_000)


def code(answer: httpx2.Response) -> str:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return str(answer.json()["code"])


async def balances(engine: AsyncEngine, *account_ids: str) -> list[int]:
    """From the snapshots of the streams."""
    async with engine.connect() as connection:
        rows = await connection.execute(
            text("SELECT stream_id, snapshot FROM streams WHERE stream_id = ANY (CAST(:ids AS text[]))"),
            {"ids": [f"account-{account_id}" for account_id in account_ids]},
        )
        posted = {row[0]: row[1]["posted"] for row in rows}
    return [posted[f"account-{account_id}"] for account_id in account_ids]


# ── one command ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_new_user_is_one_event_and_the_answer_has_its_position(api: Commands, engine: AsyncEngine) -> None:
    answer = await api.post("/v1/users", {"name": "Ada", "email": "ada@example.com"})
    user_id = created(answer)
    assert answer.headers["location"].endswith(f"/v1/users/{user_id}")
    assert answer.headers["etag"] == '"v1"'
    assert answer.headers["daybook-position"] == "1"
    assert answer.json() == {
        "id": user_id,
        "position": 1,
        "version": 1,
        "name": "Ada",
        "email": "ada@example.com",
        "status": "active",
    }
    [stored] = await log_of(engine)
    assert (stored.position, stored.type) == (1, "UserCreated")
    assert json.loads(stored.metadata) == {
        "command": "CreateUser",
        "network": "127.0.0.0/24",
        "request_id": answer.headers["request-id"],
        "principal": "operator",
        "key_id": key_id_of(OPERATOR),
    }


async def test_a_transfer_answers_both_balances_after_it(api: Commands) -> None:
    payer, payee = await api.account(balance=1000, overdraft_limit=50), await api.account()
    answer = await api.transfer(payer, payee, 1020)
    assert answer.json()["balances"] == [
        {"account_id": payer, "posted": -20, "held": 0, "available": 30},
        {"account_id": payee, "posted": 1020, "held": 0, "available": 1020},
    ]


async def test_a_transfer_is_one_event_in_three_streams(api: Commands, engine: AsyncEngine) -> None:
    payer, payee = await api.account(balance=5), await api.account()
    transfer_id = created(await api.transfer(payer, payee, 5))
    position = (await log_of(engine))[-1].position
    async with engine.connect() as connection:
        rows = await connection.execute(
            text("SELECT stream_id, version FROM stream_events WHERE position = :position"), {"position": position}
        )
        assert {tuple(row) for row in rows} == {
            (f"transfer-{transfer_id}", 1),
            (f"account-{payer}", 3),
            (f"account-{payee}", 2),
        }


async def test_a_client_may_choose_the_id_and_may_use_it_once(api: Commands) -> None:
    account_id, chosen = await api.account(), "0198c5a0-0000-7000-8000-000000000042"
    body = {"id": chosen, "account_id": account_id, "amount": 1, "currency": "EUR"}
    assert created(await api.post("/v1/deposits", body)) == chosen
    again = await api.post("/v1/withdrawals", body)
    assert (again.status_code, code(again)) == (409, "id-taken")


async def test_users_and_accounts_go_through_all_their_states(api: Commands) -> None:
    user_id = await api.user()
    account_id = await api.account(user_id)
    steps = [
        (f"/v1/users/{user_id}/deactivate", "inactive"),
        (f"/v1/users/{user_id}/deactivate", "inactive"),
        (f"/v1/users/{user_id}/reactivate", "active"),
        (f"/v1/accounts/{account_id}/freeze", "frozen"),
        (f"/v1/accounts/{account_id}/unfreeze", "open"),
        (f"/v1/accounts/{account_id}/close", "closed"),
    ]
    assert [(await api.post(path)).json()["status"] for path, _ in steps] == [status for _, status in steps]


async def test_a_repeated_change_of_state_writes_nothing_and_answers_the_state(api: Commands, engine: AsyncEngine) -> None:
    account_id = await api.account()
    first = await api.post(f"/v1/accounts/{account_id}/freeze")
    again = await api.post(f"/v1/accounts/{account_id}/freeze")
    assert again.json() == first.json()
    assert [stored.type for stored in await log_of(engine)].count("AccountFrozen") == 1


async def test_ledgers_know_nothing_of_each_other(api: Commands, engine: AsyncEngine, settings: Settings) -> None:
    async with open_postgres(settings, "daybook_command") as writer, writer.begin() as connection:
        await connection.execute(
            text("INSERT INTO log_heads VALUES ('other', 0, '', now())"),
        )
    email = {"name": "Ada", "email": "ada@example.com"}
    user_id = created(await api.post("/v1/users", email))
    token = await add_key(settings.database_url, ledger_id="other")
    there = {"daybook_ledger": "other", "authorization": f"Bearer {token}"}
    elsewhere = await api.post("/v1/users", email, **there)
    assert (elsewhere.status_code, elsewhere.json()["position"]) == (201, 1)
    account = {"owner_id": user_id, "currency": "EUR"}
    assert code(await api.post("/v1/accounts", account, **there)) == "not-found"
    assert len(await log_of(engine)) == 1


@pytest.mark.parametrize(("ledger", "expected"), [("nobody", "not-found"), ("../x", "validation-failed")])
async def test_a_ledger_that_does_not_exist_is_not_found(api: Commands, ledger: str, expected: str) -> None:
    answer = await api.post("/v1/users", {"name": "Ada", "email": "a@example.com"}, daybook_ledger=ledger)
    assert code(answer) == expected


# ── bad requests ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("content", "headers", "status", "expected"),
    [
        (b"{}", {"content-type": "text/plain"}, 415, "unsupported-media-type"),
        (b"\x89PNG", {"content-type": "application/octet-stream"}, 415, "unsupported-media-type"),
        (b"\x89PNG", {}, 415, "unsupported-media-type"),
        (b"{}", {"content-type": "application/json", "content-encoding": "gzip"}, 415, "unsupported-media-type"),
        (b"{", {"content-type": "application/json"}, 400, "malformed-json"),
        (b"[1]", {"content-type": "application/json; charset=utf-8"}, 400, "malformed-json"),
        (b"{}", {"content-type": "application/json"}, 422, "validation-failed"),
        (b" " * 300_000, {"content-type": "application/json"}, 413, "payload-too-large"),
    ],
)
async def test_a_body_that_cannot_be_a_command_gets_a_problem_and_writes_nothing(
    api: Commands, engine: AsyncEngine, content: bytes, headers: dict[str, str], status: int, expected: str
) -> None:
    answer = await api.client.post("/v1/transfers", content=content, headers={"Idempotency-Key": "k", **headers})
    assert (answer.status_code, code(answer)) == (status, expected)
    assert await log_of(engine) == []


async def test_a_body_without_a_length_is_cut_off_at_the_limit(api: Commands) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1_000):
            sent += 10_000
            yield b" " * 10_000

    answer = await api.client.post(
        "/v1/transfers", content=endless(), headers={"content-type": "application/json", "Idempotency-Key": "k"}
    )
    assert code(answer) == "payload-too-large"


@pytest.mark.parametrize(("path", "expected"), [("/v1/nothing", "not-found"), ("/v1/users", "method-not-allowed")])
async def test_a_wrong_path_or_method_gets_a_problem_too(api: Commands, path: str, expected: str) -> None:
    assert code(await api.client.get(path)) == expected


@pytest.mark.parametrize("path", ["/v1/users/1/deactivate", "/v1/accounts/%00/freeze"])
async def test_an_id_in_the_path_is_a_uuid(api: Commands, path: str) -> None:
    assert code(await api.post(path)) == "validation-failed"


# ── idempotency ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_money_does_not_move_without_a_key(api: Commands, engine: AsyncEngine) -> None:
    account_id = await api.account()
    before = await log_of(engine)
    body = {"account_id": account_id, "amount": 1, "currency": "EUR"}
    assert code(await api.client.post("/v1/deposits", json=body)) == "idempotency-key-required"
    for key in ("", "x" * 256, "ä", "a\tb", " "):
        raw = {b"Idempotency-Key": key.encode()}
        assert code(await api.client.post("/v1/deposits", json=body, headers=raw)) == "idempotency-key-invalid"
    twice = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    assert code(await api.client.post("/v1/deposits", json=body, headers=twice)) == "idempotency-key-invalid"
    assert await log_of(engine) == before


async def test_the_same_key_gives_the_same_answer_to_the_byte(api: Commands) -> None:
    account_id = await api.account()
    first = await api.deposit(account_id, 5, idempotency_key="once")
    again = await api.deposit(account_id, 5, idempotency_key="once")
    assert (again.status_code, again.content) == (first.status_code, first.content)
    for header in ("location", "daybook-position"):
        assert again.headers[header] == first.headers[header]
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"


async def test_the_same_content_in_other_json_is_the_same_request(api: Commands) -> None:
    account_id = await api.account()
    one = f'{{"account_id":"{account_id}","amount":5,"currency":"EUR"}}'
    other = f'{{ "currency": "EUR",\n "amount": 5, "account_id": "{account_id}" }}'
    headers = {"Idempotency-Key": "k", "content-type": "application/json"}
    answers = [await api.client.post("/v1/deposits", content=raw, headers=headers) for raw in (one, other)]
    assert answers[0].content == answers[1].content


async def test_a_key_that_was_used_for_another_request_cannot_be_used_again(api: Commands, engine: AsyncEngine) -> None:
    account_id = await api.account()
    created(await api.deposit(account_id, 5, idempotency_key="k"))
    before = await log_of(engine)
    others = [
        await api.deposit(account_id, 6, idempotency_key="k"),
        await api.withdraw(account_id, 5, idempotency_key="k"),
    ]
    assert [(answer.status_code, code(answer)) for answer in others] == [(422, "idempotency-key-reused")] * 2
    assert await log_of(engine) == before


async def test_a_rejection_stays_the_answer_of_its_key(api: Commands) -> None:
    """The client has acted on the rejection, so a late copy of its request must not move money."""
    account_id = await api.account()
    rejected = await api.withdraw(account_id, 5, idempotency_key="k")
    assert code(rejected) == "insufficient-funds"
    await api.deposit(account_id, 5)
    again = await api.withdraw(account_id, 5, idempotency_key="k")
    assert again.content == rejected.content
    assert again.status_code == 409
    assert (await api.withdraw(account_id, 5)).status_code == 201


@pytest.mark.parametrize("processes", [1, 2])
async def test_one_key_fifty_times_at_once_is_one_event(settings: Settings, engine: AsyncEngine, processes: int) -> None:
    async with command_api(settings) as one, command_api(settings) as two:
        apis = [one, two][:processes]
        account_id = await one.account()
        answers = await asyncio.gather(*(apis[n % processes].deposit(account_id, 7, idempotency_key="k") for n in range(50)))
        assert {(answer.status_code, answer.content) for answer in answers} == {(201, answers[0].content)}
        assert Counter("idempotency-replayed" in answer.headers for answer in answers) == {True: 49, False: 1}
        assert [stored.type for stored in await log_of(engine)].count("FundsDeposited") == 1


# ── races ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_one_of_two_users_with_the_same_address_is_created(settings: Settings) -> None:
    async with command_api(settings) as one, command_api(settings) as two:
        for n in range(10):
            users = [{"name": f"{n}", "email": f"{spelling}-{n}@example.com"} for spelling in ("ada", "ADA")]
            answers = await asyncio.gather(*(api.post("/v1/users", u) for api, u in zip((one, two), users, strict=True)))
            assert sorted(answer.status_code for answer in answers) == [201, 409]


async def test_one_of_two_commands_with_the_same_expected_version_succeeds(settings: Settings) -> None:
    async with command_api(settings) as one, command_api(settings) as two:
        account_id = await one.account()
        for version in range(1, 11):
            verb = "freeze" if version % 2 else "unfreeze"
            answers = await asyncio.gather(
                *(
                    api.client.post(f"/v1/accounts/{account_id}/{verb}", headers={"If-Match": f'"v{version}"'})
                    for api in (one, two)
                )
            )
            assert sorted(answer.status_code for answer in answers) == [200, 412]
            [stale] = [answer for answer in answers if answer.status_code == 412]
            assert stale.json()["current_version"] == version + 1


@pytest.mark.parametrize(
    ("etag", "status"), [("v1", 422), ('"1"', 412), ('W/"v1"', 412), ('"v2", "v3"', 412), ("*", 200), ('"v1", "v2"', 200)]
)
async def test_each_form_of_if_match_is_read_as_the_rfc_says(api: Commands, etag: str, status: int) -> None:
    account_id = await api.account()
    answer = await api.client.post(f"/v1/accounts/{account_id}/freeze", headers={"If-Match": etag})
    assert answer.status_code == status


async def test_a_writer_sees_what_another_process_wrote_even_if_nothing_is_left_to_do(settings: Settings) -> None:
    """A writer remembers the states of its last batch. It must not answer from them that the account is open already."""
    async with command_api(settings) as one, command_api(settings) as two:
        account_id = await one.account(balance=1)
        for _ in range(3):
            created(await one.deposit(account_id, 1))
            frozen = await two.post(f"/v1/accounts/{account_id}/freeze")
            unfrozen = await one.client.post(f"/v1/accounts/{account_id}/unfreeze")
            assert unfrozen.json()["version"] == frozen.json()["version"] + 1


async def test_no_command_is_rejected_because_of_states_from_before_another_process_wrote(
    settings: Settings, engine: AsyncEngine
) -> None:
    async with command_api(settings) as one, command_api(settings) as two:
        account_id, other_id = await one.account(balance=1), await one.account()
        for elsewhere in (False, True, False, True):
            created(await one.deposit(account_id, 1))
            created(await two.deposit(account_id, 100))
            if elsewhere:  # so the first process learns where the log ends now, but nothing about the account
                created(await one.deposit(other_id, 1))
                created(await one.deposit(other_id, 1))
            created(await one.withdraw(account_id, 100))
    log = await log_of(engine)
    assert [stored.position for stored in log] == list(range(1, len(log) + 1))


async def test_opposite_transfers_at_once_neither_deadlock_nor_lose_money(settings: Settings, engine: AsyncEngine) -> None:
    async with command_api(settings) as one, command_api(settings) as two:
        a, b = await one.account(balance=1000), await one.account(balance=1000)
        answers = await asyncio.gather(*(one.transfer(a, b, 1) for _ in range(60)), *(two.transfer(b, a, 1) for _ in range(60)))
        assert {answer.status_code for answer in answers} == {201}
        assert await balances(engine, a, b) == [1000, 1000]


async def test_concurrent_transfers_conserve_money_and_pass_no_limit(settings: Settings, engine: AsyncEngine) -> None:
    """Two processes move more money between six accounts than those have. The log is then checked event by event."""
    async with command_api(settings) as one, command_api(settings) as two:
        limit, owner = 30, await one.user()
        ids = [await one.account(owner, balance=100, overdraft_limit=limit) for _ in range(6)]
        moves = [(ids[n % 6], ids[(n * 5 + 1) % 6], n % 90 + 1) for n in range(300) if n % 6 != (n * 5 + 1) % 6]
        answers = await asyncio.gather(*((one, two)[n % 2].transfer(*move) for n, move in enumerate(moves)))
        verdicts = Counter(answer.status_code for answer in answers)
        assert set(verdicts) == {201, 409}, "the test proves nothing unless some transfers succeed and some are rejected"
        assert sum(await balances(engine, *ids)) == 600

    running = dict.fromkeys(ids, 0)
    log = await log_of(engine)
    for event in (stored.decoded({}).event for stored in log):
        match event:
            case FundsDeposited():
                running[event.account_id] += event.amount
            case FundsTransferred():
                ends = event.from_account_id, event.to_account_id
                running[ends[0]] -= event.amount
                running[ends[1]] += event.amount
                assert (event.from_balance, event.to_balance) == (running[ends[0]], running[ends[1]])
        assert min(running.values()) >= -limit
    assert [stored.type for stored in log].count("FundsTransferred") == verdicts[201]


async def test_the_log_is_dense_ordered_and_chained_after_a_storm_of_writers(settings: Settings, engine: AsyncEngine) -> None:
    async with (
        command_api(settings) as one,
        command_api(settings) as two,
        command_api(settings) as three,
    ):
        hot = await one.account()
        await asyncio.gather(*(api.deposit(hot, n) for n in range(1, 60) for api in (one, two, three)))
    log = await log_of(engine)
    assert [stored.position for stored in log] == list(range(1, len(log) + 1))
    assert len(log) == 2 + 3 * 59
    last = b""
    for stored in log:
        assert stored.hash == stored.computed_hash(last)
        last = stored.hash
    moments = [stored.recorded_at for stored in log]
    assert moments == sorted(moments)
    async with engine.connect() as connection:
        versions = (
            await connection.execute(
                text("SELECT version FROM stream_events WHERE stream_id = :id ORDER BY position"),
                {"id": f"account-{hot}"},
            )
        ).scalars()
        assert list(versions) == list(range(1, 179))


# ── snapshots, roles, start ──────────────────────────────────────────────────────────────────────────────────────────


async def test_a_snapshot_of_another_fold_version_is_folded_again_from_the_events(api: Commands, settings: Settings) -> None:
    account_id = await api.account(balance=70)
    async with open_postgres(settings, "daybook_command") as engine, engine.begin() as connection:
        await connection.execute(
            text("UPDATE streams SET fold_version = 0, snapshot = '{}' WHERE stream_id = :id"),
            {"id": f"account-{account_id}"},
        )
    answer = await api.withdraw(account_id, 60)
    assert answer.json()["balances"][0]["posted"] == 10


@pytest.mark.parametrize("statement", ["UPDATE events SET type = 'x'", "DELETE FROM events", "TRUNCATE events"])
async def test_no_process_can_change_an_event(settings: Settings, statement: str) -> None:
    for role in ("daybook_command", "daybook_projector", "daybook_query"):
        async with open_postgres(settings, role) as engine:
            with pytest.raises(DBAPIError) as error:
                async with engine.begin() as connection:
                    await connection.execute(text(statement))
            assert error.value.orig.sqlstate == "42501"  # type: ignore[union-attr]


@pytest.mark.parametrize("statement", ["UPDATE events SET type = 'x'", "DELETE FROM events", "TRUNCATE events"])
async def test_not_even_the_owner_changes_an_event_by_accident(settings: Settings, statement: str) -> None:
    async with open_postgres(settings, "daybook_command") as engine:
        with pytest.raises(DBAPIError, match="append-only"):
            async with engine.begin() as connection:
                await connection.execute(text("RESET ROLE"))
                await connection.execute(text("SET ROLE NONE"))
                await connection.execute(text(statement))


async def test_the_api_does_not_start_on_an_unsafe_database(settings: Settings) -> None:
    async with open_postgres(settings, "daybook_command") as engine, engine.begin() as connection:
        await connection.execute(text("SET ROLE NONE"))
        await connection.execute(
            text("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = off', current_database()); END $$")
        )
    with pytest.raises(UnsafeStore, match="synchronous_commit"):
        async with command_api(settings):
            pass


async def test_the_api_does_not_start_on_another_schema(settings: Settings) -> None:
    async with open_postgres(settings, "daybook_command") as engine, engine.begin() as connection:
        await connection.execute(text("SET ROLE NONE"))
        await connection.execute(text("UPDATE alembic_version SET version_num = 'other'"))
    with pytest.raises(SchemaMismatch, match="daybook migrate"):
        async with command_api(settings):
            pass


# ── documentation ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_every_operation_is_documented_with_an_example_and_its_problems(api: Commands) -> None:
    document = (await api.client.get("/openapi.json")).json()
    operations = [(path, verb, op) for path, verbs in document["paths"].items() for verb, op in verbs.items()]
    operations = [(path, verb, op) for path, verb, op in operations if path.startswith("/v1/")]
    assert len(operations) >= 11
    for path, verb, operation in operations:
        where = f"{verb} {path}"
        assert operation["operationId"], where
        assert operation["summary"], where
        assert operation["description"], where
        assert any("application/problem+json" in r.get("content", {}) for r in operation["responses"].values()), where
        [(status, success)] = [each for each in operation["responses"].items() if each[0] in {"200", "201", "202", "204"}]
        assert status == "204" or _example(document, success["content"]["application/json"]), where
        if "requestBody" in operation:
            assert _example(document, operation["requestBody"]["content"]["application/json"]), where


def _example(document: dict[str, Any], media: dict[str, Any]) -> Any:
    schema = media["schema"].get("anyOf", [media["schema"]])[0]
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return media.get("example") or schema.get("example") or schema.get("examples")


async def test_health_needs_nothing_but_the_database(api: Commands) -> None:
    assert (await api.client.get("/livez")).json() == {"status": "ok"}
    ready = (await api.client.get("/readyz")).json()
    assert (ready["status"], ready["stores"]) == ("ok", {"postgres": "ok"})
    assert set((await api.client.get("/version")).json()) == {"version"}


async def test_every_problem_has_a_page(api: Commands) -> None:
    problem = (await api.client.get("/v1/nothing")).json()
    page = await api.client.get(problem["type"])
    assert page.status_code == 200
    assert problem["code"] in page.text


# ── overdraft limits ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_overdraft_limit_is_raised_used_and_lowered_no_further_than_the_balance(
    api: Commands, engine: AsyncEngine
) -> None:
    """Also many withdrawals and a lowering at the same time never leave the account below its limit."""
    account_id = await api.account()

    async def change(limit: object, **headers: str) -> httpx2.Response:
        path = f"/v1/accounts/{account_id}/overdraft-limit"
        return await api.client.put(path, json={"overdraft_limit": limit}, headers=headers)

    assert code(await api.withdraw(account_id, 10)) == "insufficient-funds"
    raised = await change(100, **{"idempotency-key": "raise"})
    assert (raised.status_code, raised.json()["overdraft_limit"], raised.json()["balance"]["available"]) == (200, 100, 100)
    assert (await change(100, **{"idempotency-key": "raise"})).content == raised.content
    assert (await change(100)).json()["version"] == raised.json()["version"]
    assert code(await change(50, **{"if-match": '"v1"'})) == "stream-version-mismatch"
    for wrong, expected in [(-1, "amount-out-of-range"), (2**53, "amount-out-of-range"), (True, "validation-failed")]:
        assert code(await change(wrong)) == expected
    answers = await asyncio.gather(*(api.withdraw(account_id, 10) for _ in range(12)), *(change(50) for _ in range(3)))
    assert {answer.status_code for answer in answers} <= {200, 201, 409}
    seen = (await change(1_000)).json()
    assert seen["balance"]["posted"] >= -100
    events = [json.loads(stored.data) for stored in await log_of(engine) if stored.type == "OverdraftLimitChanged"]
    assert [events[0]["overdraft_limit_before"], events[0]["overdraft_limit"]] == [0, 100]
