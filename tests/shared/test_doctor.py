"""The doctor finds what is unsafe and says what to do. In production, a process does not start on a dangerous finding."""

import asyncio
import base64
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

import command_api.app
import query_api.app
from dev.daybook_processes import worker
from dev.servers import Redis
from shared.errors import UnsafeSettings
from shared.privacy.master_keys import master_key_id
from shared.proof.seals import new_seed
from shared.settings import Settings
from shared.stores.doctor import examine, require_safe
from shared.stores.findings import KINDS, Finding
from shared.stores.mongo import blocking, open_mongo
from shared.stores.redis import open_redis
from shared.stores.server_checks import check_clock, check_members, check_postgres_settings
from shared.stores.settings_checks import check_settings, check_urls
from tests.harness.clients import client_of
from tests.harness.running import environment_of

ROOT = Path(__file__).parents[2]
EXPECTED_HERE = {"driver-end-of-life", "store-end-of-life", "login-owner"}
"""Found in every test: pip does not install the newest servers, and the tests log in as the owner of the tables."""


def names(findings: list[Finding]) -> set[str]:
    return {finding.name for finding in findings}


def safe(settings: Settings) -> Settings:
    key = os.urandom(32)
    return settings.model_copy(
        update={
            "secret": SecretStr(os.urandom(32).hex()),
            "master_keys": SecretStr(base64.b64encode(key).decode()),
            "master_keys_backed_up": master_key_id(key),
            "seal_key": SecretStr(new_seed()),
            "seal_file": "/elsewhere",
        }
    )


async def test_a_safe_set_up_has_no_dangerous_findings(settings: Settings) -> None:
    findings = await examine(safe(settings))
    assert names(findings) <= EXPECTED_HERE
    assert "danger" not in {finding.severity for finding in findings}


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"secret": SecretStr("secret" * 6)}, "secret-guessable"),
        ({"master_keys": SecretStr(base64.b64encode(bytes(32)).decode())}, "master-key-guessable"),
        ({"master_keys_backed_up": ""}, "master-key-backup"),
        ({"seal_key": None}, "seal-key-missing"),
        ({"seal_file": None}, "seal-file-missing"),
        ({"trusted_proxies": "10.0.0.0/8,0.0.0.0/0"}, "proxies-anybody"),
    ],
)
def test_unsafe_settings_are_found(settings_without_servers: Settings, fields: dict[str, Any], name: str) -> None:
    good = safe(settings_without_servers)
    assert name not in names([*check_settings(good)])
    assert name in names([*check_settings(good.model_copy(update=fields))])


@pytest.fixture
def settings_without_servers() -> Settings:
    return Settings(
        database_url="postgresql://nowhere/x",
        mongo_url="mongodb://nowhere",
        redis_url="redis://nowhere",
        secret=SecretStr("x" * 32),
        master_keys=SecretStr(base64.b64encode(os.urandom(32)).decode()),
    )


@pytest.mark.parametrize(
    ("field", "url", "expected"),
    [
        ("mongo_url", "mongodb://127.0.0.1:27017/?directConnection=true", set()),
        ("mongo_url", "mongodb://localhost,[::1]:27018", set()),
        ("mongo_url", "mongodb://10.0.0.7:27017", {"no-password", "no-tls"}),
        ("mongo_url", "mongodb://127.0.0.1,mongo.example:27017", {"no-password", "no-tls"}),
        ("mongo_url", "mongodb://a:b@mongo.example/?tls=true", set()),
        ("mongo_url", "mongodb+srv://a:b@mongo.example", set()),
        ("mongo_url", "mongodb://mongo.example/?tls=true&authMechanism=MONGODB-X509", set()),
        ("redis_url", "redis://redis.example:6379/0", {"no-password", "no-tls"}),
        ("redis_url", "rediss://:b@redis.example:6379/0", set()),
        ("redis_url", "unix:///run/redis.sock", set()),
        ("publish_url", "nats://127.0.0.1,nats.example:4222", {"no-password", "no-tls"}),
        ("publish_url", "kafka://a:b@kafka.example?tls=true", set()),
        ("database_url", "postgresql://a:b@db.example/daybook", {"no-tls"}),
        ("database_url", "postgresql://a:b@db.example/daybook?sslmode=prefer", {"no-tls"}),
        ("database_url", "postgresql://a:b@db.example/daybook?sslmode=verify-full", set()),
        ("database_url", "postgresql://a:b@/daybook?host=127.0.0.1:5432&host=db.example:5432", {"no-tls"}),
        ("pooler_url", "postgresql://a:b@pooler.example:6432/daybook", {"no-tls"}),
        ("database_url", "postgresql://a:b@%2Frun%2Fpostgresql/daybook", set()),
    ],
)
def test_a_store_beyond_this_machine_needs_a_password_and_tls(
    settings_without_servers: Settings, field: str, url: str, expected: set[str]
) -> None:
    here = {"database_url": "postgresql://127.0.0.1/x", "mongo_url": "mongodb://127.0.0.1", "redis_url": "redis://localhost"}
    assert names([*check_urls(settings_without_servers.model_copy(update=here | {field: url}))]) == expected


@pytest.mark.parametrize(
    ("hello", "options", "expected"),
    [
        ({}, "", {"mongo-no-replica-set"}),
        ({"hosts": ["a"]}, "directConnection=true", set()),
        ({"hosts": ["a", "b", "c"]}, "replicaSet=x&w=majority&retryWrites=true", set()),
        ({"hosts": ["a", "b", "c", "d"]}, "", set()),
        ({"hosts": ["a", "b"]}, "", {"mongo-no-spare"}),
        ({"hosts": ["a", "b"], "arbiters": ["c"]}, "", {"mongo-no-spare"}),
        ({"hosts": ["a", "b"], "passives": ["c"]}, "", set()),
        ({"hosts": ["a", "b", "c"]}, "directConnection=true", {"mongo-one-member"}),
        ({"hosts": ["a", "b", "c"]}, "w=1", {"mongo-not-majority"}),
        ({"hosts": ["a", "b", "c"]}, "readConcernLevel=local", {"mongo-not-majority"}),
        ({"hosts": ["a", "b", "c"]}, "retryWrites=false", {"mongo-not-majority"}),
    ],
)
def test_a_replica_set_that_stands_still_when_a_member_fails_is_found(
    hello: dict[str, list[str]], options: str, expected: set[str]
) -> None:
    answer = hello | ({"setName": "x"} if hello else {})
    assert names([*check_members(answer, f"mongodb://a,b,c/?{options}")]) == expected


async def test_no_option_of_the_url_makes_mongodb_forget(settings: Settings) -> None:
    options = "w=1&journal=false&readConcernLevel=local&retryWrites=false"
    weak = settings.model_copy(update={"mongo_url": f"{settings.mongo_url}&{options}"})
    async with open_mongo(weak) as mongo:
        assert mongo.write_concern.document.items() >= {"w": "majority", "j": True}.items()
        assert mongo.read_concern.level == "majority"
        assert blocking(mongo).client.options.retry_writes


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes", "synchronous_commit"])
async def test_a_database_that_may_lose_acknowledged_commands_is_dangerous(settings: Settings, setting: str) -> None:
    about = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", setting: "off"}
    about |= {"release": 18, "superuser": False, "owner": False, "login": "x", "standbys": 0, "synchronous": ""}  # type: ignore[dict-item]
    assert "postgres-not-durable" in names([*check_postgres_settings(about)])  # type: ignore[arg-type]
    if setting != "synchronous_commit":
        return  # only `synchronous_commit` can be set for one database
    await _execute(settings, "ALTER DATABASE {database} SET synchronous_commit = off")
    assert "postgres-not-durable" in names(await examine(settings))


async def test_a_superuser_an_old_schema_and_a_lost_master_key_are_dangerous(settings: Settings, servers: Any) -> None:
    host = settings.database_url.rpartition("@")[2]
    superuser = servers.postgres.superuser_url.rpartition("@")[0] + "@" + host
    assert "login-superuser" in names(await examine(settings.model_copy(update={"database_url": superuser})))
    await _execute(settings, "INSERT INTO person_keys VALUES ('main', 'ada', '', 'of another master')")
    assert "master-key-missing" in names(await examine(settings))
    await _execute(settings, "UPDATE alembic_version SET version_num = '0001'")
    assert "schema-other" in names(await examine(settings))


async def test_a_redis_that_may_evict_or_forget_is_found(settings: Settings, server_folder: Path) -> None:
    server = Redis("redis-doctor", server_folder)
    await server.start()
    try:
        elsewhere = settings.model_copy(update={"redis_url": server.url})
        async with open_redis(elsewhere) as redis:
            await redis.config_set("maxmemory-policy", "allkeys-lru")
            await redis.config_set("appendonly", "no")
        findings = await examine(elsewhere)
        assert {"redis-may-evict", "redis-not-kept"} <= names(findings)
    finally:
        await server.stop()
    findings = await examine(elsewhere)
    assert [finding.what.split()[0] for finding in findings if finding.name == "no-answer"] == ["Redis"]


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0, set()), (30, {"clock-skew"}), (-30, {"clock-skew"}), (-90, {"clock-wrong"})]
)
async def test_a_clock_that_differs_is_found(seconds: float, expected: set[str]) -> None:
    async def now() -> float:
        return time.time() + seconds

    assert names(await check_clock("Redis", now)) == expected


# ── production ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
async def test_production_does_not_start_on_dangerous_findings_and_names_each(settings: Settings, tmp_path: Path) -> None:
    unsafe = safe(settings).model_copy(
        update={"environment": "production", "trusted_proxies": "::/0", "secret": SecretStr("ab" * 20)}
    )
    said: list[str] = []
    with pytest.raises(UnsafeSettings, match=r"proxies-anybody, secret-guessable.*daybook doctor"):
        await require_safe(unsafe, "daybook_command", said.append)
    assert [line.split(": ")[2] for line in said] == ["proxies-anybody", "secret-guessable"]
    for api in (command_api.app, query_api.app):
        with pytest.raises(UnsafeSettings):
            async with client_of(api.create_app(unsafe)):
                pass
    process = worker(tmp_path, environment_of(unsafe))
    await process.start()
    try:
        assert await process.ended(20)
    finally:
        await process.stop()
    log = process.log.read_text()
    assert "daybook: danger: secret-guessable" in log
    assert "Traceback" not in log


async def test_production_starts_if_nothing_is_dangerous_and_development_always_does(settings: Settings) -> None:
    for environment, start in (
        ("production", safe(settings)),
        ("development", settings.model_copy(update={"trusted_proxies": "::/0"})),
    ):
        async with client_of(query_api.app.create_app(start.model_copy(update={"environment": environment}))) as client:
            assert (await client.get("/livez")).status_code == 200


# ── the command ──────────────────────────────────────────────────────────────────────────────────────────────────────


def run(settings: Settings, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DAYBOOK_")} | environment_of(
        settings
    )
    command = [sys.executable, "-m", "cli.app", "doctor", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300, cwd=ROOT)


@pytest.mark.slow
async def test_the_command_exits_with_1_if_something_is_dangerous(settings: Settings) -> None:
    fine = await asyncio.to_thread(run, safe(settings), "--json")
    assert fine.returncode == 0, fine.stderr
    assert {finding["name"] for finding in json.loads(fine.stdout)} <= EXPECTED_HERE
    bad = await asyncio.to_thread(run, safe(settings).model_copy(update={"trusted_proxies": "::/0"}))
    assert bad.returncode == 1
    assert "proxies-anybody" in bad.stdout
    assert "name only the proxies" in bad.stdout


def test_every_finding_is_documented() -> None:
    document = (ROOT / "docs/security.md").read_text()
    for name, (severity, _, _) in KINDS.items():
        assert f"| `{name}` | {severity} |" in document


async def _execute(settings: Settings, statement: str) -> None:
    connection = await asyncpg.connect(settings.database_url, ssl=False)
    try:
        await connection.execute(statement.format(database=settings.database_url.rpartition("/")[2]))
    finally:
        await connection.close()
