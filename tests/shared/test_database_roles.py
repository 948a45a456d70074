"""Each process has only the rights that it needs. The stores deny the rest, whatever the code does."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import asyncpg
import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure
from redis.exceptions import NoPermissionError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

import command_api.app
import query_api.app
from dev.servers import Mongo
from shared.log.tables import metadata
from shared.settings import Settings
from shared.stores.mongo import open_mongo
from shared.stores.postgres import Role, open_postgres
from shared.stores.redis import open_redis
from tests.harness import questions
from tests.harness.clients import Commands, client_of
from tests.harness.keys import bearer
from tests.harness.log import Book
from tests.harness.passwords import give_password

ROLES: Final[tuple[Role, ...]] = ("daybook_command", "daybook_projector", "daybook_query", "daybook_admin")
PRIVILEGES: Final = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")
DOCUMENT: Final = Path(__file__).parents[2] / "docs/security.md"
NOT_ALLOWED: Final = "42501"


async def fetch(settings: Settings, statement: str, *arguments: Any) -> list[Any]:
    connection = await asyncpg.connect(settings.database_url, ssl=False)
    try:
        return list(await connection.fetch(statement, *arguments))
    finally:
        await connection.close()


def documented() -> Iterator[tuple[str, str, str]]:
    """(role, table, privileges) from the table of the document."""
    for line in DOCUMENT.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 1 + len(ROLES) and re.fullmatch(r"`[a-z_]+`", cells[0]):
            for role, cell in zip(ROLES, cells[1:], strict=True):
                yield role, cells[0].strip("`"), cell


async def test_each_role_has_the_documented_rights_and_no_others(settings: Settings) -> None:
    found = set()
    rows = await fetch(
        settings,
        """
        SELECT role, c.relname, privilege, has_table_privilege(role, c.oid, privilege) AS everything,
               (SELECT string_agg(attname, ', ' ORDER BY attnum) FROM pg_attribute a
                WHERE privilege IN ('SELECT', 'INSERT', 'UPDATE', 'REFERENCES') AND attrelid = c.oid AND attnum > 0
                  AND has_column_privilege(role, c.oid, attnum, privilege)) AS columns
        FROM pg_class c, unnest($1::text[]) AS role, unnest($2::text[]) AS privilege
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
        """,
        [*ROLES],
        [*PRIVILEGES],
    )
    for role, table, privilege, everything, columns in rows:
        if everything:
            found.add((role, table, privilege.lower()))
        elif columns:
            found.add((role, table, f"{privilege.lower()} of {columns}"))
    expected = {(role, table, each) for role, table, cell in documented() for each in cell.split("; ") if each}
    assert {table for _, table, _ in documented()} >= set(metadata.tables)
    assert found == expected, "docs/security.md says what each role may do; a new table or right must stand there"


async def test_no_role_owns_a_table_or_can_create_one_or_can_become_another_role(settings: Settings) -> None:
    schema = "SELECT role FROM unnest($1::text[]) role WHERE has_schema_privilege(role, 'public', 'CREATE')"
    assert await fetch(settings, schema, [*ROLES]) == []
    members = "SELECT m.roleid FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member WHERE r.rolname = ANY ($1)"
    assert await fetch(settings, members, [*ROLES]) == []
    powers = "SELECT rolname FROM pg_roles WHERE rolname = ANY ($1) AND (rolsuper OR rolcreaterole OR rolcreatedb OR rolcanlogin)"
    assert await fetch(settings, powers, [*ROLES]) == []
    owned = "SELECT relname FROM pg_class WHERE relowner IN (SELECT oid FROM pg_roles WHERE rolname = ANY ($1))"
    assert await fetch(settings, owned, [*ROLES]) == []


WRITES: Final = {
    "daybook_query": (
        "INSERT INTO events SELECT * FROM events",
        "UPDATE streams SET version = 0",
        "DELETE FROM idempotency_keys",
        "UPDATE log_heads SET position = 0",
        "UPDATE api_keys SET scopes = '{ops:admin}'",
        "INSERT INTO seals SELECT * FROM seals",
        "DELETE FROM person_keys",
        "SELECT hash FROM passwords",
        "SELECT token_hash FROM password_resets",
        "INSERT INTO audit_records SELECT * FROM audit_records",
        "CREATE TABLE loot (id int)",
        "TRUNCATE seals",
    ),
    "daybook_projector": (
        "INSERT INTO events SELECT * FROM events",
        "INSERT INTO stream_events SELECT * FROM stream_events",
        "UPDATE log_heads SET position = 0",
        "UPDATE streams SET version = 0",
        "SELECT token_hash FROM api_keys",
        "SELECT user_id FROM passwords",
        "DELETE FROM person_keys",
        "UPDATE seals SET root = ''",
    ),
    "daybook_command": (
        "UPDATE events SET type = 'x'",
        "DELETE FROM events",
        "TRUNCATE events",
        "DELETE FROM log_heads",
        "UPDATE idempotency_keys SET status = 200",
        "DELETE FROM idempotency_keys",
        "INSERT INTO api_keys SELECT * FROM api_keys",
        "UPDATE api_keys SET expires_at = NULL",
        "INSERT INTO seals SELECT * FROM seals",
        "UPDATE audit_records SET act = 'key-made'",
        "DELETE FROM audit_records",
    ),
    "daybook_admin": ("UPDATE audit_records SET act = 'key-made'", "DELETE FROM audit_records", "TRUNCATE audit_records"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("role", "statement"), [(role, each) for role, statements in WRITES.items() for each in statements])
async def test_the_database_denies_what_a_process_must_never_do(settings: Settings, role: Role, statement: str) -> None:
    async with open_postgres(settings, role) as engine:
        with pytest.raises(DBAPIError) as denied:
            async with engine.begin() as connection:
                await connection.execute(text(statement))
        assert getattr(denied.value.orig, "sqlstate", None) == NOT_ALLOWED


async def test_a_login_for_one_process_cannot_become_another(settings: Settings, servers: Any) -> None:
    """In production, each process has a login that is a member of its role only."""
    name = settings.database_url.rpartition("/")[2]
    login = f"asks_only_{name}"
    superuser = await asyncpg.connect(servers.postgres.superuser_url, ssl=False)
    await superuser.execute(f"CREATE ROLE {login} LOGIN NOINHERIT PASSWORD 'of-a-test' IN ROLE daybook_query")
    try:
        host = settings.database_url.rpartition("@")[2]
        asking = settings.model_copy(update={"database_url": f"postgresql://{login}:of-a-test@{host}"})
        async with client_of(query_api.app.create_app(asking)) as client:
            assert (await client.get("/v1/projections")).status_code == 200
        for statement in ("SET ROLE daybook_command", "SET ROLE daybook_admin", "SET ROLE daybook"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await fetch(asking, statement)
        with pytest.raises(DBAPIError):
            async with open_postgres(asking, "daybook_command") as engine, engine.connect():
                pass
    finally:
        await superuser.execute(f"DROP ROLE {login}")
        await superuser.close()


# ── MongoDB and Redis ────────────────────────────────────────────────────────────────────────────────────────────────


def url_of(mongo: Mongo, login: str) -> str:
    return f"mongodb://{login}@{mongo.url.partition('@')[2]}"


@pytest.mark.slow
@pytest.mark.services
async def test_the_query_api_works_with_a_login_that_can_only_read_mongo(settings: Settings, server_folder: Path) -> None:
    mongo = Mongo("mongo-closed", server_folder)
    await mongo.start()
    try:
        with MongoClient[dict[str, Any]](mongo.url) as client:
            admin = client.admin
            for name, role in (("writes", "readWrite"), ("reads", "read")):
                admin.command("createUser", name, pwd="of-a-test", roles=[{"role": role, "db": settings.mongo_database}])
        writing = settings.model_copy(update={"mongo_url": url_of(mongo, "writes:of-a-test")})
        reading = settings.model_copy(update={"mongo_url": url_of(mongo, "reads:of-a-test")})
        async with questions.query_api(writing) as api, questions.projecting(api, writing):
            await api.record(Book(3).history(20))
            async with client_of(query_api.app.create_app(reading)) as client:
                headers = {"daybook-min-position": str(api.position), "prefer": "wait=10, handling=strict"}
                for path in ("/v1/users", "/v1/accounts", "/v1/transfers", "/v1/projections"):
                    answer = await client.get(path, headers=headers)
                    assert answer.status_code == 200, answer.text
                    assert answer.json()["items"]
        async with open_mongo(reading) as database:
            users, models = database.users, database.read_models
            for write in (users.insert_one({}), users.drop(), models.update_one({}, {"$set": {"live": 9}})):
                with pytest.raises(OperationFailure, match="not authorized"):
                    await write
    finally:
        await mongo.stop()


FORBIDDEN_IN_REDIS: Final = ("FLUSHALL", "CONFIG SET maxmemory 1", "ZADD a 1 b", "LPUSH a b", "KEYS *", "SHUTDOWN")


async def begin_session(settings: Settings) -> str:
    async with client_of(command_api.app.create_app(settings)) as client:
        user_id, password = await Commands(client).user("ada@example.com"), "correct horse battery"
        assert (await give_password(client, user_id, password)).is_success
        begun = await client.post("/v1/login", json={"email": "ada@example.com", "password": password})
        return str(begun.json()["token"])


def rules_of_redis() -> list[str]:
    """The rules that the document gives for the query API."""
    [line] = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("ACL SETUSER daybook_query")]
    return [rule.replace(">password", ">of-a-test") for rule in line.split()[3:]]


@pytest.mark.slow
async def test_the_query_api_works_with_a_login_that_has_only_the_commands_of_redis_that_it_needs(settings: Settings) -> None:
    name = settings.mongo_database.replace("_", "-")
    login = settings.redis_url.partition("@")[2]
    reading = settings.model_copy(update={"redis_url": f"redis://{name}:of-a-test@{login}"})
    async with open_redis(settings) as opened:
        redis: Any = opened  # its `execute_command` has no types
        await redis.execute_command("ACL", "SETUSER", name, *rules_of_redis())
        try:
            async with questions.query_api(settings) as api, questions.projecting(api, settings):
                await api.record(Book(3).history(20))
                async with client_of(query_api.app.create_app(reading)) as client:
                    headers = {"daybook-min-position": str(api.position), "prefer": "wait=10, handling=strict"}
                    for path in ("/v1/stats", "/v1/activity", "/v1/projections", "/v1/refusals"):
                        answer = await client.get(path, headers=headers if path in {"/v1/stats", "/v1/activity"} else {})
                        assert answer.status_code == 200, answer.text
                        assert answer.headers["ratelimit"]
                    session = await begin_session(settings)
                    assert (await client.get("/v1/users", headers=bearer(session) | headers)).status_code == 200
            async with open_redis(reading) as reader:
                redis_of_queries: Any = reader
                for write in FORBIDDEN_IN_REDIS:
                    with pytest.raises(NoPermissionError):
                        await redis_of_queries.execute_command(*write.split())
        finally:
            await redis.execute_command("ACL", "DELUSER", name)
