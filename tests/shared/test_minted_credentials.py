"""A credential never yields another one with a scope, an object or a lifetime that it does not have itself."""

import asyncio
import random
import re
import uuid
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import httpx2
import pytest
from pwdlib import PasswordHash
from sqlalchemy import text

import command_api.app
from shared.errors import Unauthorized
from shared.identity import passwords
from shared.identity.access import CUSTOMER_SCOPES, SCOPES
from shared.identity.api_keys import key_id_of, list_keys, make_key, revoke_key, rotate_key
from shared.identity.audit_records import ActCaller
from shared.identity.credential_origin import Origin
from shared.identity.sessions import Sessions
from shared.settings import Settings
from shared.stores.postgres import open_postgres, open_postgres_as_owner
from shared.stores.redis import open_redis
from tests.harness.clients import Commands, client_of, created
from tests.harness.keys import OPERATOR, add_key, bearer
from tests.harness.passwords import give_password
from tests.shared.test_access import MISSING, OPERATIONS, UNUSED, Operation

pytestmark = pytest.mark.services

PASSWORD = "chosen by the attacker"


async def _login(client: httpx2.AsyncClient, email: str, site: str = "192.0.2.1", password: str = PASSWORD) -> httpx2.Response:
    body = {"email": email, "password": password}
    return await client.post("/v1/login", json=body, headers={"x-forwarded-for": site})


async def test_a_key_that_writes_users_cannot_log_in_as_one(settings: Settings) -> None:
    """Such a key once set a new address and a new password, and then moved the money of the user."""
    helper = bearer(await add_key(settings.database_url, "helper", scopes=["users:write"]))
    async with client_of(command_api.app.create_app(settings)) as client:
        user_id = await Commands(client).user("ada@example.com")
        moved = await client.patch(f"/v1/users/{user_id}", json={"email": "attacker@example.com"}, headers=helper)
        assert moved.status_code == 403, moved.text
        for method in ("PUT", "POST"):
            for path in ("password", "reset-token"):
                answer = await client.request(method, f"/v1/users/{user_id}/{path}", json={"password": PASSWORD}, headers=helper)
                assert answer.status_code in {403, 405, 404}, answer.text
        for email in ("ada@example.com", "attacker@example.com"):
            assert (await _login(client, email)).status_code == 401


async def test_a_customers_key_opens_no_session_that_outlives_it(settings: Settings) -> None:
    """Such a key once set the first password of its user, which opened sessions with all scopes, also after its revocation."""
    async with client_of(command_api.app.create_app(settings)) as client:
        user_id = await Commands(client).user("ada@example.com")
        own = bearer(await add_key(settings.database_url, "ada", scopes=["users:write"], user_id=user_id))
        for body in ({"password": PASSWORD}, {"password": PASSWORD, "current_password": PASSWORD}):
            answer = await client.put(f"/v1/users/{user_id}/password", json=body, headers=own)
            assert answer.status_code in {403, 422}, answer.text
        moved = await client.patch(f"/v1/users/{user_id}", json={"email": "other@example.com"}, headers=own)
        assert moved.status_code == 403, moved.text
        assert (await _login(client, "ada@example.com")).status_code == 401


# ── every route, with many sets of scopes ────────────────────────────────────────────────────────────────────────────

CREDENTIAL_MEMBERS: Final = {"token", "password", "current_password", "email", "scopes", "expires_at", "ends_at"}
CREDENTIAL_OPERATIONS: Final = {
    "POST /v1/users",
    "PATCH /v1/users/{user_id}",
    "POST /v1/users/{user_id}/deactivate",
    "POST /v1/users/{user_id}/reactivate",
    "POST /v1/users/{user_id}/erase",
    "POST /v1/login",
    "PUT /v1/users/{user_id}/password",
    "POST /v1/users/{user_id}/reset-token",
    "POST /v1/password-resets",
    "GET /v1/users/{user_id}/sessions",
    "POST /v1/keys/{key_id}/rotate",
    # Not credentials: a hold has `expires_at` too.
    *("POST /v1/holds", "POST /v1/holds/{hold_id}/capture", "POST /v1/holds/{hold_id}/release", "POST /v1/batch"),
}
"""The operations that take or give something of a credential or a login name. The walk below tries them all."""
UUIDS: Final = [
    f"{name}_id" for name in ("account", "delivery", "hold", "schedule", "session", "transfer", "verification", "webhook")
]
TOKEN: Final = re.compile(r"db[kr]_[A-Za-z0-9_-]{43,}")
HASH_OF_UNKNOWN: Final = PasswordHash.recommended().hash("a password that no caller knows")
OPERATORS: Final = [
    {*SCOPES},
    {*SCOPES} - {"credentials:write"},
    *[{scope} for scope in ("users:write", "credentials:write", "ops:admin")],
    *[{*random.Random(seed).sample(SCOPES, 3)} for seed in range(4)],
]
CUSTOMERS: Final = [{*CUSTOMER_SCOPES}, {"users:write"}, {"ledger:read"}]
COMMANDS: Final = [operation for operation in OPERATIONS if operation.api == "command_api" and str(operation).find(" /v1/") > 0]


def test_every_operation_that_takes_or_gives_a_credential_is_known() -> None:
    """A new one must be added to the list, and to the walk if its way to a session is a new one."""
    document = command_api.app.create_app(UNUSED).openapi()
    found = set()
    for path, methods in document["paths"].items():
        for method, declared in methods.items():
            bodies = [
                declared.get("requestBody", {}),
                *[declared["responses"][s] for s in ("200", "201") if s in declared["responses"]],
            ]
            if _members(document, bodies) & CREDENTIAL_MEMBERS:
                found.add(f"{method.upper()} {path}")
    assert found == CREDENTIAL_OPERATIONS


def _members(document: dict[str, Any], part: Any) -> set[str]:
    """The names of all properties that a part of the document has, also behind references."""
    if isinstance(part, list):
        return set().union(*(_members(document, each) for each in part))
    if not isinstance(part, dict):
        return set()
    found = set(part.get("properties", {}))
    if "$ref" in part:
        found |= _members(document, document["components"]["schemas"][part["$ref"].rpartition("/")[2]])
    return found.union(*(_members(document, value) for name, value in part.items() if name not in {"example", "examples"}))


class Attacker:
    """Somebody with one API key, who tries every command on a user and then to log in as the user."""

    def __init__(self, client: httpx2.AsyncClient, token: str, user_id: str, number: int) -> None:
        self._client = client
        self._token = token
        self._user_id = user_id
        self._addresses = (f"victim{number}@example.com", f"attacker{number}@example.com")
        self._number = number

    async def sessions(self) -> list[str]:
        """Does all of it, and returns the tokens of the sessions that it led to."""
        last = [operation for operation in COMMANDS if operation.path.endswith(("deactivate", "reactivate"))]
        first = [operation for operation in COMMANDS if operation not in last and not operation.path.endswith("erase")]
        shown = [await self._send(operation) for operation in (*first, *last, *first)]
        for reset in {token for answer in shown for token in TOKEN.findall(answer) if token.startswith("dbr_")}:
            await self._client.post("/v1/password-resets", json={"token": reset, "password": PASSWORD})
        answers = [await _login(self._client, email, self._site()) for email in self._addresses]
        assert not any(token.startswith("dbk_") for answer in shown for token in TOKEN.findall(answer)), (
            "the walk rotates no key: see test_changed_keys"
        )
        return [answer.json()["token"] for answer in answers if answer.status_code == 200]

    async def _send(self, operation: Operation) -> str:
        path = operation.path.replace("{user_id}", self._user_id).format_map(
            dict.fromkeys(UUIDS, MISSING)
            | {"ledger_id": "main", "day": "2020-01-31", "name": "users", "position": "1", "key_id": "missingkey"}
        )
        known = {"email": self._addresses[1], "password": PASSWORD, "current_password": PASSWORD}
        body = operation.body and {name: known.get(name, value) for name, value in operation.body.items()}
        headers = bearer(self._token) | {"idempotency-key": str(uuid.uuid4()), "x-forwarded-for": self._site()}
        answer = await self._client.request(operation.method.upper(), path, json=body, headers=headers)
        assert answer.status_code < 500 or "retry-after" in answer.headers, f"{operation}: {answer.text}"
        return answer.text

    def _site(self) -> str:
        return f"10.0.{self._number}.{random.SystemRandom().randrange(1, 255)}"


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "sets"), [("operator", OPERATORS), ("customer", CUSTOMERS)])
async def test_no_credential_yields_a_stronger_one_on_any_route(settings: Settings, kind: str, sets: list[set[str]]) -> None:
    """Every command by a key with these scopes. A session that it leads to has no other scope and user, and ends with the key."""
    behind = settings.model_copy(update={"trusted_proxies": "127.0.0.1", "rate_limit_address_per_minute": 100_000})
    led = 0
    async with AsyncExitStack() as exits:
        client = await exits.enter_async_context(client_of(command_api.app.create_app(behind), ""))
        writer = await exits.enter_async_context(open_postgres(settings, "daybook_command"))
        sessions = Sessions(writer, await exits.enter_async_context(open_redis(settings)), settings)
        for number, scopes in enumerate(sets):
            user_id = await _user(client, f"victim{number}@example.com")
            async with writer.begin() as connection:
                origin = Origin(key_id_of(OPERATOR), CUSTOMER_SCOPES)
                await passwords.put(connection, "main", user_id, HASH_OF_UNKNOWN, origin)
            url, owner = settings.database_url, user_id if kind == "customer" else None
            lifetime = timedelta(minutes=30)
            token = await add_key(url, f"key-{number}", scopes=sorted(scopes), user_id=owner, lifetime=lifetime)
            begun = await Attacker(client, token, user_id, number).sessions()
            led += len(begun)
            assert not begun or "credentials:write" in scopes, f"{scopes} led to a session"
            for each in begun:
                found = (await sessions.verify(each)).principal
                assert found.scopes <= scopes
                assert (found.ledger_id, found.user_id) == ("main", user_id)
            ends = [session.ends_at for session in await sessions.all_of("main", user_id)]
            assert all(moment <= datetime.now(UTC) + lifetime for moment in ends)
            await _revoke(settings, token)
            for each in begun:
                assert not await _is_valid(sessions, each), "it outlives the key that led to it"
            assert (await _login(client, f"victim{number}@example.com")).status_code in {401, 429}
    assert led > 0 or kind == "customer", "a key with credentials:write can issue a reset token, so the walk tries what it should"


async def _user(client: httpx2.AsyncClient, email: str) -> str:
    return created(await client.post("/v1/users", json={"name": "Ada", "email": email}, headers=bearer()))


async def _is_valid(sessions: Sessions, token: str) -> bool:
    """True if a process accepts the token that has not seen it for some seconds."""
    try:
        await sessions.verify(token)
    except Unauthorized:
        return False
    return True


async def _revoke(settings: Settings, token: str) -> None:
    async with open_postgres(settings, "daybook_admin") as engine, engine.begin() as connection:
        await revoke_key(connection, key_id_of(token), ActCaller.operator("of a test"))


# ── what a key has opened ────────────────────────────────────────────────────────────────────────────────────────────

HELP_DESK: Final = ("credentials:write", "ledger:read", "events:read")


@pytest.mark.slow
@pytest.mark.parametrize("end", ["revoked", "expired"])
async def test_what_a_key_opened_ends_with_the_key(settings: Settings, end: str) -> None:
    """The session, the password behind it, and a reset token that was not used yet."""
    async with AsyncExitStack() as exits:
        client = await exits.enter_async_context(client_of(command_api.app.create_app(settings)))
        engine = await exits.enter_async_context(open_postgres(settings, "daybook_command"))
        sessions = Sessions(engine, await exits.enter_async_context(open_redis(settings)), settings)
        helper = await add_key(settings.database_url, "help-desk", scopes=HELP_DESK)
        ada, bob = [await _user(client, f"{name}@example.com") for name in ("ada", "bob")]
        assert (await give_password(client, ada, PASSWORD, helper)).status_code == 204
        pending = (await client.post(f"/v1/users/{bob}/reset-token", headers=bearer(helper))).json()["token"]
        begun = (await _login(client, "ada@example.com")).json()["token"]
        changed = {"password": f"{PASSWORD} again", "current_password": PASSWORD}
        answer = await client.put(f"/v1/users/{ada}/password", json=changed, headers=bearer(begun))
        assert answer.status_code == 403, "the key lacks users:write, so the session does too"
        assert (await sessions.verify(begun)).principal.scopes == {"ledger:read"}
        async with open_postgres_as_owner(settings) as owner, owner.begin() as connection:
            column = "revoked_at" if end == "revoked" else "expires_at"
            statement = f"UPDATE api_keys SET {column} = now() WHERE key_id = :key_id"
            await connection.execute(text(statement), {"key_id": key_id_of(helper)})
        assert not await _is_valid(sessions, begun)
        assert (await _login(client, "ada@example.com")).status_code == 401
        answer = await client.post("/v1/password-resets", json={"token": pending, "password": PASSWORD})
        assert (answer.status_code, answer.json()["code"]) == (401, "reset-token-invalid")


async def test_a_rotated_key_continues_what_the_key_before_it_opened(settings: Settings) -> None:
    """And has its scopes, its ledger, its customer and its lifetime, and no more."""
    async with AsyncExitStack() as exits:
        client = await exits.enter_async_context(client_of(command_api.app.create_app(settings)))
        admin = await exits.enter_async_context(open_postgres(settings, "daybook_admin"))
        caller = ActCaller.operator("of a test")
        async with admin.begin() as connection:
            helper = await make_key(connection, "help-desk", HELP_DESK, lifetime=timedelta(days=1), caller=caller)
        ada = await _user(client, "ada@example.com")
        assert (await give_password(client, ada, PASSWORD, helper)).status_code == 204
        async with admin.begin() as connection:
            await rotate_key(connection, key_id_of(helper), timedelta(), caller)
        assert (await _login(client, "ada@example.com")).status_code == 200
        async with admin.connect() as connection:
            before, after = [key for key in await list_keys(connection) if key.principal == "help-desk"]
        assert (after.scopes, after.ledger_id, after.user_id) == (before.scopes, before.ledger_id, before.user_id)
        assert after.expires_at
        assert after.expires_at - after.created_at == timedelta(days=1)


async def test_a_reset_token_is_used_once_and_a_new_one_replaces_it(settings: Settings) -> None:
    async with client_of(command_api.app.create_app(settings)) as client:
        ada = await _user(client, "ada@example.com")
        first, second = [(await client.post(f"/v1/users/{ada}/reset-token")).json()["token"] for _ in range(2)]
        uses = [(token, f"{PASSWORD} {number}") for number, token in enumerate((first, second, second))]
        codes = [
            (await client.post("/v1/password-resets", json={"token": token, "password": password})).status_code
            for token, password in uses
        ]
        assert codes == [401, 204, 401]
        assert (await _login(client, "ada@example.com", password=f"{PASSWORD} 1")).status_code == 200
        third = (await client.post(f"/v1/users/{ada}/reset-token")).json()["token"]
        both = [client.post("/v1/password-resets", json={"token": third, "password": f"{PASSWORD} {n}"}) for n in range(2)]
        assert sorted(answer.status_code for answer in await asyncio.gather(*both)) == [204, 401]


async def test_a_new_address_needs_the_password_or_the_scope_for_credentials(settings: Settings) -> None:
    """The address is the login name. A stored reply does not tell which password was sent with it."""
    both = ("users:write", "credentials:write")
    async with client_of(command_api.app.create_app(settings)) as client:
        ada = await _user(client, "ada@example.com")
        assert (await give_password(client, ada, PASSWORD)).status_code == 204
        session = bearer((await _login(client, "ada@example.com")).json()["token"]) | {"idempotency-key": "move"}
        for password, status in ((None, 403), ("a wrong one", 403), (PASSWORD, 200), (PASSWORD, 200)):
            body = {"email": "ada@example.org"} | ({"current_password": password} if password else {})
            answer = await client.patch(f"/v1/users/{ada}", json=body, headers=session)
            assert answer.status_code == status, answer.text
        assert answer.headers["idempotency-replayed"] == "true"
        named = await client.patch(f"/v1/users/{ada}", json={"name": "Ada L."}, headers=session | {"idempotency-key": "name"})
        assert named.status_code == 200
        helper = bearer(await add_key(settings.database_url, "help-desk", scopes=both))
        moved = await client.patch(f"/v1/users/{ada}", json={"email": "ada@example.net"}, headers=helper)
        assert moved.status_code == 200


@pytest.mark.parametrize("verb", ["deactivate", "erase"])
async def test_a_reset_token_ends_with_its_user(settings: Settings, verb: str) -> None:
    async with client_of(command_api.app.create_app(settings)) as client:
        ada = await _user(client, "ada@example.com")
        token = (await client.post(f"/v1/users/{ada}/reset-token")).json()["token"]
        for each in (verb, "reactivate"):
            await client.post(f"/v1/users/{ada}/{each}")
            answer = await client.post("/v1/password-resets", json={"token": token, "password": PASSWORD})
            assert (answer.status_code, answer.json()["code"]) == (401, "reset-token-invalid")
        if verb == "erase":
            assert (await client.post(f"/v1/users/{ada}/reset-token")).json()["code"] == "user-erased"
