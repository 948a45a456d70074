"""Users log in and have sessions. Somebody who guesses passwords learns nothing, and locks nobody out."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
from argon2 import PasswordHasher as WeakHasher
from pwdlib.hashers.argon2 import Argon2Hasher
from redis.asyncio import Redis as RedisClient
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

import command_api.app
import query_api.app
from command_api.credentials.login import Login, LoginCredentials
from command_api.credentials.login_throttle import LOGIN_ATTEMPTS_FREE, SITE_ATTEMPTS_FREE, LoginThrottle
from command_api.credentials.password_hashing import HASHES_WAITING_MAX, PasswordHasher
from dev.servers import Redis
from shared.errors import LoginDenied, Overloaded, RateLimited, Unauthorized
from shared.identity import passwords
from shared.identity.audit_records import ActCaller
from shared.identity.sessions import SESSIONS_MAX, Sessions
from shared.settings import Settings
from shared.stores.postgres import open_postgres, open_postgres_as_owner
from shared.stores.redis import open_redis
from tests.harness.clients import Commands, client_of, created, served
from tests.harness.keys import OPERATOR, bearer
from tests.harness.passwords import give_password
from tests.harness.tokens import accepting_tokens, signed
from tests.shared.test_database_roles import rules_of_redis

EMAIL, PASSWORD, OTHER_PASSWORD = "ada@example.com", "correct horse battery", "staple battery horse"


class World:
    """Both APIs, and a user who has a password. No request carries a credential unless a test gives one."""

    def __init__(self, command: httpx2.AsyncClient, query: httpx2.AsyncClient) -> None:
        self.command = command
        self.query = query
        self.operator = Commands(command)
        self.ada = ""

    async def prepare(self) -> None:
        self.ada = await self.user(EMAIL)
        assert (await self.set_password(self.ada, PASSWORD)).status_code == 204

    async def user(self, email: str) -> str:
        return created(await self.operator.post("/v1/users", {"name": "Ada", "email": email}, **bearer()))

    async def set_password(
        self, user_id: str, password: str, token: str = OPERATOR, current: str | None = None
    ) -> httpx2.Response:
        """Sets a password: with the current one as its user, or without it as an operator who issues a reset token."""
        if current is None:
            return await give_password(self.command, user_id, password, token)
        body = {"password": password, "current_password": current}
        return await self.command.put(f"/v1/users/{user_id}/password", json=body, headers=bearer(token))

    async def try_login(
        self, email: str = EMAIL, password: str = PASSWORD, site: str = "192.0.2.1", **headers: str
    ) -> httpx2.Response:
        sent = {"x-forwarded-for": site} | {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.command.post("/v1/login", json={"email": email, "password": password}, headers=sent)

    async def log_in(self, email: str = EMAIL, password: str = PASSWORD, site: str = "192.0.2.1") -> dict[str, Any]:
        answer = await self.try_login(email, password, site)
        assert answer.status_code == 200, answer.text
        begun: dict[str, Any] = answer.json()
        return begun

    async def sessions(self, token: str) -> list[dict[str, Any]]:
        answer = await self.command.get(f"/v1/users/{self.ada}/sessions", headers=bearer(token))
        assert answer.status_code == 200, answer.text
        items: list[dict[str, Any]] = answer.json()["items"]
        return items


@asynccontextmanager
async def world_on(settings: Settings, *, is_patient: bool = True) -> AsyncIterator[World]:
    configured = accepting_tokens(settings).model_copy(update={"trusted_proxies": "127.0.0.1"})
    async with AsyncExitStack() as exits:
        apps = (module.create_app(configured) for module in (command_api.app, query_api.app))
        world = World(*[await exits.enter_async_context(client_of(app, "", is_patient=is_patient)) for app in apps])
        await world.prepare()
        yield world


@pytest.fixture
async def world(settings: Settings) -> AsyncIterator[World]:
    async with world_on(settings) as prepared:
        yield prepared


@pytest.fixture
async def redis(settings: Settings) -> AsyncIterator["RedisClient"]:
    async with open_redis(settings) as opened:
        yield opened


async def is_in(sessions: Sessions, token: str) -> bool:
    """True if the token is accepted by a process that has not seen it for some seconds."""
    try:
        await sessions.verify(token)
    except Unauthorized:
        return False
    return True


async def fields_of(redis: "RedisClient", key: str) -> dict[str, str]:
    asking: Any = redis.hgetall(key)
    fields: dict[str, str] = await asking
    return fields


async def put_back(redis: "RedisClient", key: str, fields: dict[str, str]) -> None:
    putting: Any = redis.hset(key, mapping=fields)
    await putting


# ── logging in ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_user_who_logged_in_is_a_customer_of_both_apis(world: World) -> None:
    begun = await world.log_in(email=EMAIL.upper())
    assert begun["user_id"] == world.ada
    account_id = await _account(world, world.ada)
    other = await _account(world, await world.user("bob@example.com"))
    body = {"from_account_id": account_id, "to_account_id": other, "amount": 1, "currency": "EUR"}
    paid = await world.operator.post("/v1/transfers", body, **bearer(begun["token"]))
    assert paid.status_code == 201, paid.text
    back = body | {"from_account_id": other, "to_account_id": account_id}
    foreign = await world.operator.post("/v1/transfers", back, **bearer(begun["token"]))
    assert foreign.status_code == 404
    assert (await world.operator.post("/v1/users", {}, **bearer(begun["token"]))).status_code == 403
    assert (await world.query.get("/v1/events", headers=bearer(begun["token"]))).status_code == 403, "known, and not allowed"
    [event] = [each for each in await _events(world) if each["type"] == "FundsTransferred"]
    assert (event["metadata"]["principal"], event["metadata"]["key_id"]) == (f"user:{world.ada}", begun["session_id"])
    assert EMAIL not in str(event)


async def _events(world: World) -> list[dict[str, Any]]:
    answer = await world.query.get("/v1/events", headers=bearer())
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def _account(world: World, owner_id: str) -> str:
    body = {"owner_id": owner_id, "currency": "EUR", "overdraft_limit": 100}
    return created(await world.operator.post("/v1/accounts", body, **bearer()))


async def test_every_failed_login_gets_the_same_answer(world: World) -> None:
    without, inactive, erased = [await world.user(f"{name}@example.com") for name in ("without", "inactive", "erased")]
    for user_id, verb in ((inactive, "deactivate"), (erased, "erase")):
        assert (await world.set_password(user_id, PASSWORD)).status_code == 204
        await world.operator.post(f"/v1/users/{user_id}/{verb}", **bearer())
    answers = [
        await world.try_login(password=OTHER_PASSWORD),
        await world.try_login("nobody@example.com"),
        *[await world.try_login(f"{name}@example.com") for name in ("without", "inactive", "erased")],
        await world.try_login(daybook_ledger="nowhere"),
    ]
    assert without
    bodies = [{k: v for k, v in answer.json().items() if k != "request_id"} for answer in answers]
    assert bodies == [bodies[0]] * len(answers)
    assert (answers[0].status_code, bodies[0]["code"]) == (401, "login-refused")
    assert len({tuple(sorted(answer.headers)) for answer in answers}) == 1


async def test_an_unknown_address_costs_the_same_statements_and_the_same_hash_as_a_wrong_password(
    world: World, settings: Settings, engine: AsyncEngine, redis: "RedisClient"
) -> None:
    statements: list[str] = []
    event.listen(engine.sync_engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
    login = Login(engine, engine, redis, settings)
    await fail_to_log_in(login, "first@example.com")  # opens the connection
    work = []
    for email, ledger_id in ((EMAIL, "main"), ("nobody@example.com", "main"), (EMAIL, "nowhere")):
        statements.clear()
        spent = time.process_time()
        await fail_to_log_in(login, email, ledger_id)
        work.append((list(statements), time.process_time() - spent))
    login.close()
    assert world.ada
    for other in work[1:]:
        assert other[0] == work[0][0]
        assert other[1] > work[0][1] / 3, "a hash is nearly all the work there is"
    assert len(work[0][0]) == 8


@pytest.mark.slow
async def test_guessing_is_slowed_down_alike_whether_or_not_a_ledger_a_user_or_an_address_exists(
    world: World, redis: "RedisClient"
) -> None:
    """The pauses, their headers and what is kept of them tell nobody which logins exist."""
    inactive = await world.user("inactive@example.com")
    await world.set_password(inactive, PASSWORD)
    await world.operator.post(f"/v1/users/{inactive}/deactivate", **bearer())
    cases = [(EMAIL, "main"), ("nobody@example.com", "main"), ("inactive@example.com", "main"), (EMAIL, "nowhere")]
    seen = []
    for number, (email, ledger_id) in enumerate(cases, 1):
        before = {key async for key in redis.scan_iter("daybook:tries:*")}
        attempt = partial(world.try_login, email, OTHER_PASSWORD, site=f"192.0.2.{number}", daybook_ledger=ledger_id)
        tries = [served(attempt) for _ in range(2 * LOGIN_ATTEMPTS_FREE)]
        answers = await asyncio.gather(*tries)
        kept = len({key async for key in redis.scan_iter("daybook:tries:*")} - before)
        names = {(answer.status_code, answer.json()["code"], *sorted(answer.headers)) for answer in answers}
        seen.append((names, kept))
    assert {status for status, *_ in seen[0][0]} == {401, 429}
    assert all(each == seen[0] for each in seen), seen


async def fail_to_log_in(login: Login, email: str, ledger_id: str = "main") -> None:
    with pytest.raises(LoginDenied):
        await login.log_in(ledger_id, LoginCredentials(email=email, password=OTHER_PASSWORD), "192.0.2.77", ActCaller(None))


@pytest.mark.slow
@pytest.mark.parametrize(
    "body",
    [
        {"email": EMAIL},
        {"email": EMAIL, "password": ""},
        {"email": EMAIL, "password": "x" * 257},
        {"email": EMAIL, "password": 5},
        {"email": [EMAIL], "password": PASSWORD},
        {"email": EMAIL, "password": PASSWORD, "admin": True},
    ],
)
async def test_a_login_of_another_form_is_refused_without_repeating_it(world: World, body: dict[str, Any]) -> None:
    answer = await world.command.post("/v1/login", json=body)
    assert answer.status_code == 422
    assert PASSWORD not in answer.text
    short = await world.set_password(world.ada, "too short")
    assert short.status_code == 422
    assert "too short" not in short.text


async def test_two_ways_to_write_one_password_are_one_password(world: World) -> None:
    await world.set_password(world.ada, "cafe\u0301 cafe\u0301 cafe\u0301")
    await world.log_in(password="caf\u00e9 caf\u00e9 caf\u00e9")


async def test_no_password_and_no_token_is_kept_anywhere(
    world: World, settings: Settings, redis: "RedisClient", capsys: pytest.CaptureFixture[str]
) -> None:
    begun = await world.log_in()
    await world.try_login(password=OTHER_PASSWORD)
    secret = begun["token"].split("_", 2)[2]
    async with open_postgres_as_owner(settings) as owner, owner.connect() as connection:
        names = (await connection.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"))).scalars().all()
        rows = [str(tuple(row)) for name in names for row in await connection.execute(text(f'SELECT * FROM "{name}"'))]
        hashes = (await connection.execute(text("SELECT hash FROM passwords"))).scalars().all()
        in_log = (await connection.execute(text("SELECT data::text || metadata::text FROM events"))).scalars().all()
    keys = [key async for key in redis.scan_iter("daybook:*")]
    kept = [str(await fields_of(redis, key)) for key in keys if await redis.type(key) == "hash"]
    printed = capsys.readouterr()
    everything = "".join([*rows, *keys, *kept, printed.out, printed.err])
    assert not any(word in everything for word in (PASSWORD, OTHER_PASSWORD, secret, EMAIL))
    assert all(each.startswith("$argon2id$") for each in hashes)
    assert not any("$argon2" in fact for fact in in_log)


async def test_a_process_that_only_recognises_sessions_cannot_read_hashes(settings: Settings) -> None:
    async with open_postgres(settings, "daybook_query") as engine, engine.connect() as connection:
        assert await passwords.read_version(connection, "main", "nobody") is None
        with pytest.raises(DBAPIError) as error:
            await passwords.read(connection, "main", "nobody")
    assert error.value.orig.sqlstate == "42501"  # type: ignore[union-attr]


async def test_an_outdated_hash_is_replaced_and_ends_no_session(world: World, engine: AsyncEngine) -> None:
    begun = await world.log_in()
    weak = WeakHasher(time_cost=1, memory_cost=8_192, parallelism=1).hash(PASSWORD)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE passwords SET hash = :hash"), {"hash": weak})
    await world.log_in()
    async with engine.connect() as connection:
        kept = await passwords.read(connection, "main", world.ada)
    assert kept
    assert "m=65536" in kept.hash
    assert len(await world.sessions(begun["token"])) == 2


# ── passwords ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_new_password_ends_every_session_and_the_old_password(world: World) -> None:
    tokens = [(await world.log_in())["token"] for _ in range(2)]
    changed = await world.set_password(world.ada, OTHER_PASSWORD, tokens[0], current=PASSWORD)
    assert (changed.status_code, changed.content) == (204, b"")
    for token in tokens:
        assert (await world.command.get(f"/v1/users/{world.ada}/sessions", headers=bearer(token))).status_code == 401
    assert (await world.try_login()).status_code == 401
    assert len(await world.sessions((await world.log_in(password=OTHER_PASSWORD))["token"])) == 1


@pytest.mark.slow
@pytest.mark.parametrize("current", ["x", "something else"])
async def test_a_customer_must_know_the_current_password(world: World, redis: "RedisClient", current: str) -> None:
    token = (await world.log_in())["token"]
    answer = await world.set_password(world.ada, OTHER_PASSWORD, token, current)
    assert (answer.status_code, answer.json()["code"]) == (403, "password-wrong")
    await world.log_in()
    async for key in redis.scan_iter("daybook:tries:*"):  # as if many more had been made over some hours
        await put_back(redis, key, {"tries": str(LOGIN_ATTEMPTS_FREE + 12)})
    tries = [await world.set_password(world.ada, OTHER_PASSWORD, token, current) for _ in range(2)]
    assert [answer.status_code for answer in tries] == [403, 429], "a stolen session is no way to guess it"


async def test_one_of_two_password_changes_at_once_succeeds(world: World) -> None:
    token = (await world.log_in())["token"]
    wanted = [f"{OTHER_PASSWORD} {number}" for number in range(2)]
    answers = await asyncio.gather(*(world.set_password(world.ada, each, token, PASSWORD) for each in wanted))
    assert sorted(answer.status_code for answer in answers) == [204, 403]
    won = [answer.status_code for answer in answers].index(204)
    await world.log_in(password=wanted[won])


@pytest.mark.parametrize(("verb", "status", "code"), [("deactivate", 409, "user-inactive"), ("erase", 409, "user-erased")])
async def test_a_user_who_is_not_active_gets_no_password(world: World, verb: str, status: int, code: str) -> None:
    await world.operator.post(f"/v1/users/{world.ada}/{verb}", **bearer())
    answer = await world.set_password(world.ada, PASSWORD)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert (await world.set_password(str(uuid.uuid4()), PASSWORD)).status_code == 404


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["deactivate", "erase"])
async def test_the_sessions_and_the_password_end_with_the_user(
    world: World, settings: Settings, redis: "RedisClient", engine: AsyncEngine, verb: str
) -> None:
    begun = await world.log_in()
    assert (await world.operator.post(f"/v1/users/{world.ada}/{verb}", **bearer())).status_code == 200
    assert (await world.command.get(f"/v1/users/{world.ada}/sessions", headers=bearer(begun["token"]))).status_code == 401
    assert [key async for key in redis.scan_iter("daybook:session*")] == []
    async with engine.connect() as connection:
        assert await passwords.read(connection, "main", world.ada) is None
    await world.operator.post(f"/v1/users/{world.ada}/reactivate", **bearer())
    assert (await world.try_login()).status_code == 401, "a reactivated user needs a new password"
    assert not await is_in(Sessions(engine, redis, settings), begun["token"])


@pytest.mark.slow
@pytest.mark.parametrize("end", ["password", "deactivate", "reactivate", "erase"])
async def test_a_session_that_redis_still_has_is_invalid_after_its_end(
    world: World, settings: Settings, redis: "RedisClient", engine: AsyncEngine, end: str
) -> None:
    """Redis can still have it if it was away at that moment, or was restored from a backup."""
    begun = await world.log_in()
    sessions, key = Sessions(engine, redis, settings), f"daybook:session:{{{begun['session_id']}}}"
    backup = await fields_of(redis, key)
    assert await is_in(sessions, begun["token"])
    if end == "password":
        await world.set_password(world.ada, PASSWORD)  # even the same one
    else:
        await world.operator.post(f"/v1/users/{world.ada}/{'deactivate' if end == 'reactivate' else end}", **bearer())
    if end == "reactivate":
        await world.operator.post(f"/v1/users/{world.ada}/reactivate", **bearer())
    await put_back(redis, key, backup)
    await redis.set(f"{key}:used", "1")
    assert not await is_in(sessions, begun["token"])


# ── sessions ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_users_see_and_end_their_own_sessions(world: World) -> None:
    first, second, third = [await world.log_in(site=f"198.51.100.{number}") for number in (1, 2, 3)]
    listed = await world.sessions(second["token"])
    assert [item["id"] for item in listed] == [begun["session_id"] for begun in (third, second, first)]
    assert [item["current"] for item in listed] == [False, True, False]
    assert {item["network"] for item in listed} == {"198.51.100.0/24"}
    path = f"/v1/users/{world.ada}/sessions"
    for _ in range(2):
        ended = await world.command.delete(f"{path}/{first['session_id']}", headers=bearer(second["token"]))
        assert ended.status_code == 204
    assert (await world.command.get(path, headers=bearer(first["token"]))).status_code == 401
    assert len(await world.sessions(second["token"])) == 2
    assert (await world.command.delete(path, headers=bearer(second["token"]))).status_code == 204
    for begun in (second, third):
        assert (await world.command.get(path, headers=bearer(begun["token"]))).status_code == 401


async def test_nobody_ends_the_session_of_somebody_else(world: World) -> None:
    bob = await world.user("bob@example.com")
    await world.set_password(bob, PASSWORD)
    mine, theirs = await world.log_in(), await world.log_in("bob@example.com")
    session_id, headers = theirs["session_id"], bearer(mine["token"])
    assert (await world.command.delete(f"/v1/users/{bob}/sessions/{session_id}", headers=headers)).status_code == 404
    assert (await world.command.delete(f"/v1/users/{world.ada}/sessions/{session_id}", headers=headers)).status_code == 204
    assert (await world.command.get(f"/v1/users/{bob}/sessions", headers=bearer(theirs["token"]))).status_code == 200


@pytest.mark.slow
async def test_a_session_lives_while_it_is_used_and_ends_in_any_case(
    world: World, settings: Settings, redis: "RedisClient", engine: AsyncEngine
) -> None:
    sessions = Sessions(engine, redis, settings.model_copy(update={"session_idle_seconds": 2, "session_max_seconds": 5}))
    async with engine.connect() as connection:
        version = await passwords.read_version(connection, "main", world.ada)
    assert version
    idle = await sessions.begin("main", world.ada, version, "unknown")
    used = await sessions.begin("main", world.ada, version, "unknown")
    assert idle.expires_at < idle.ends_at
    began, beyond_idle = time.monotonic(), False
    async with asyncio.timeout(60):  # or the loop would run for ever if each use moved the end, too
        while await is_in(sessions, used.token):
            beyond_idle = beyond_idle or time.monotonic() - began > 2.5
            await asyncio.sleep(0.05)
    assert beyond_idle, "each use moved its expiry"
    assert not await is_in(sessions, idle.token)
    assert await sessions.all_of("main", world.ada) == []


async def test_a_user_has_a_limited_number_of_sessions_and_the_oldest_ends(
    world: World, settings: Settings, redis: "RedisClient", engine: AsyncEngine
) -> None:
    sessions = Sessions(engine, redis, settings)
    async with engine.connect() as connection:
        version = await passwords.read_version(connection, "main", world.ada)
    assert version
    begun = [await sessions.begin("main", world.ada, version, "unknown") for _ in range(SESSIONS_MAX)]
    await world.log_in()
    assert not await is_in(sessions, begun[0].token)
    assert await is_in(sessions, begun[1].token)
    assert len(await sessions.all_of("main", world.ada)) == SESSIONS_MAX


async def test_a_token_with_a_wrong_secret_is_invalid_and_keeps_no_session_alive(
    world: World, settings: Settings, redis: "RedisClient", engine: AsyncEngine
) -> None:
    token = (await world.log_in())["token"]
    sessions = Sessions(engine, redis, settings)
    [key] = await redis.keys("daybook:session:*:used")
    before = await redis.keys("daybook:*"), await redis.get(key)
    for bad in (token[:-43] + "A" * 43, f"dbs_{'0' * 32}_{token[-43:]}"):
        assert not await is_in(sessions, bad)
    assert (await redis.keys("daybook:*"), await redis.get(key)) == before
    assert await is_in(sessions, token)
    assert await redis.get(key) > before[1]


async def test_the_query_api_recognises_sessions_with_its_own_login_to_redis(
    world: World, settings: Settings, redis: "RedisClient"
) -> None:
    """That login is the one in `docs/security.md`. It cannot change a balance."""
    token = (await world.log_in())["token"]
    name, login = settings.mongo_database.replace("_", "-"), settings.redis_url.partition("@")[2]
    own = settings.model_copy(update={"redis_url": f"redis://{name}:of-a-test@{login}"})
    await redis.execute_command("ACL", "SETUSER", name, *rules_of_redis())  # type: ignore[no-untyped-call]
    try:
        async with open_postgres(own, "daybook_query") as engine, open_redis(own) as restricted:
            assert await is_in(Sessions(engine, restricted, own), token)
    finally:
        await redis.execute_command("ACL", "DELUSER", name)  # type: ignore[no-untyped-call]


# ── guessing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def tries(throttle: LoginThrottle, site: str, login: str, count: int) -> list[int]:
    """Makes this many attempts at once. Returns for each the seconds that it must wait, or 0 if it was let through."""

    async def once() -> int:
        try:
            await throttle.count_attempt(site, login)
        except RateLimited as limited:
            return int(limited.extra["retry_after_seconds"])
        return 0

    return sorted(await asyncio.gather(*(once() for _ in range(count))))


async def test_many_guesses_at_once_are_no_more_than_one_after_another(redis: "RedisClient") -> None:
    throttle = LoginThrottle(redis)
    assert (await tries(throttle, "a", "ada", 40)).count(0) == LOGIN_ATTEMPTS_FREE + 1
    assert (await tries(throttle, "b", "ada", 3)).count(0) == 3, "nobody is locked out at another site"
    assert (await tries(throttle, "a", "bob", 3)).count(0) == 3


@pytest.mark.slow
async def test_each_guess_makes_the_next_wait_longer(redis: "RedisClient") -> None:
    throttle = LoginThrottle(redis)
    waits = []
    for _ in range(3):
        wait = (await tries(throttle, "a", "ada", LOGIN_ATTEMPTS_FREE + 2))[-1]
        waits.append(wait)
        await asyncio.sleep(wait)
    assert waits == [1, 2, 4]
    await throttle.record_success("a", "ada")
    assert (await tries(throttle, "a", "ada", 3)).count(0) == 3, "a right password forgets the attempts"


async def test_a_site_that_tries_many_logins_must_wait_and_a_familiar_user_need_not(redis: "RedisClient") -> None:
    throttle = LoginThrottle(redis)
    await throttle.count_attempt("a", "ada")
    await throttle.record_success("a", "ada")
    stuffing = await asyncio.gather(*(tries(throttle, "a", f"account {number}", 1) for number in range(SITE_ATTEMPTS_FREE + 20)))
    assert [wait for [wait] in stuffing].count(0) == SITE_ATTEMPTS_FREE + 1
    assert await tries(throttle, "a", "grace", 1) != [0]
    assert await tries(throttle, "a", "ada", 1) == [0]
    assert await tries(throttle, "b", "grace", 1) == [0]


async def test_an_attacker_cannot_buy_guesses_with_logins_of_their_own(redis: "RedisClient") -> None:
    throttle, guessed, began = LoginThrottle(redis), 0, time.monotonic()
    for number in range(SITE_ATTEMPTS_FREE * 2):
        guessed += await tries(throttle, "a", f"victim {number}", 1) == [0]
        if await tries(throttle, "a", f"own {number}", 1) == [0]:
            await throttle.record_success("a", f"own {number}")
    # After the free attempts, at least a second passes between two attempts.
    assert guessed <= SITE_ATTEMPTS_FREE + 1 + (time.monotonic() - began)


@pytest.mark.slow
async def test_an_attacker_must_wait_and_the_victim_logs_in_from_elsewhere(world: World, redis: "RedisClient") -> None:
    emails, site = (EMAIL, "nobody@example.com"), "203.0.113.9"
    for email in emails:
        tries = [await world.try_login(email, OTHER_PASSWORD, site) for _ in range(LOGIN_ATTEMPTS_FREE)]
        assert [answer.status_code for answer in tries] == [401] * LOGIN_ATTEMPTS_FREE
    async for key in redis.scan_iter("daybook:tries:*"):  # as if many more had been made over some hours
        await put_back(redis, key, {"tries": str(LOGIN_ATTEMPTS_FREE + 12)})
    for email in emails:
        assert (await world.try_login(email, OTHER_PASSWORD, site)).status_code == 401
        limited = await world.try_login(email, PASSWORD, site)
        assert limited.status_code == 429, "not even the right password is checked from there"
        assert int(limited.headers["retry-after"]) > 1
    await world.log_in(site="198.51.100.1")


async def test_hashing_is_bounded_and_does_not_hold_up_the_loop() -> None:
    hasher, ticks = PasswordHasher(1), 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.001)

    kept = await hasher.hash(PASSWORD)
    ticking = asyncio.create_task(tick())
    verified = await hasher.verify(PASSWORD, kept)
    during_one = ticks
    # How many may wait does not depend on how long each of them takes.
    cheap = Argon2Hasher(time_cost=1, memory_cost=8, parallelism=1).hash("another password")
    asked = await asyncio.gather(*(hasher.verify(PASSWORD, cheap) for _ in range(HASHES_WAITING_MAX + 5)), return_exceptions=True)
    ticking.cancel()
    hasher.close()
    assert verified == (True, None)
    assert during_one >= 3, "the event loop ran while it was hashing"
    assert [type(each) for each in asked].count(Overloaded) == 5


# ── stores away ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["killed", "frozen"])
async def test_without_redis_keys_and_signed_tokens_work_and_sessions_fail_in_time(
    settings: Settings, tmp_path: Path, fault: str
) -> None:
    server = Redis("redis", tmp_path)
    await server.start()
    own = settings.model_copy(update={"redis_url": server.url, "redis_timeout_ms": 200})
    try:
        async with world_on(own, is_patient=False) as world:
            token = (await world.log_in())["token"]
            path = f"/v1/users/{world.ada}"
            if fault == "killed":
                await server.kill()
            else:
                server.freeze()  # without a time limit, reading from it would never end
            for credential, status in ((OPERATOR, 200), (signed(), 200), (token, 503)):
                answer = await world.command.post(f"{path}/reactivate", headers=bearer(credential))
                if credential == token:
                    answer = await world.command.get(f"{path}/sessions", headers=bearer(credential))
                assert answer.status_code == status, answer.text
            assert answer.json()["code"] == "store-unavailable"
            assert "retry-after" in answer.headers
            assert (await world.try_login()).status_code == 503
            changed = await world.set_password(world.ada, OTHER_PASSWORD)
            assert changed.status_code == 204, "an operator can end all sessions even without Redis"
    finally:
        await server.stop()
