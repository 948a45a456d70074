"""Checks the configuration of PostgreSQL, MongoDB and Redis by queries to each server. The checks only read."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from datetime import UTC, date, datetime
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from redis.asyncio import Redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS
from sqlalchemy import RowMapping, text

from shared.privacy.master_keys import master_key_id
from shared.setting_values import read_master_keys
from shared.settings import Settings
from shared.stores.findings import Finding, found
from shared.stores.mongo import open_mongo
from shared.stores.postgres import DURABLE, Role, open_postgres
from shared.stores.redis import open_redis, servers_of
from shared.stores.redis_cluster import names_cluster
from shared.stores.schema import SCHEMA_REVISION

SKEW_SECONDS: Final = 1.0
SKEW_SECONDS_MAX: Final = 60.0
REDIS_MIN: Final = (6, 2)

# The last day of support for each release. The end of support of an unlisted release is not known yet.
POSTGRES_ENDS: Final = {
    14: date(2026, 11, 12),
    15: date(2027, 11, 11),
    16: date(2028, 11, 9),
    17: date(2029, 11, 8),
    18: date(2030, 11, 14),
}
POSTGRES_MIN: Final = 16
_MONGO_OPTIONS: Final = {"w": "majority", "journal": "true", "readconcernlevel": "majority", "retrywrites": "true"}
"""The options that Daybook always uses, in lower case, whatever the URL says."""
MONGO_ENDS: Final = {"6.0": date(2025, 7, 31), "7.0": date(2027, 8, 31), "8.0": date(2029, 10, 31)}


# ── PostgreSQL ───────────────────────────────────────────────────────────────────────────────────────────────────────

_ABOUT: Final = text("""
    SELECT current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,
           current_setting('synchronous_commit') AS synchronous_commit,
           CAST(current_setting('server_version_num') AS integer) / 10000 AS release,
           current_setting('synchronous_standby_names') AS synchronous, (SELECT count(*) FROM pg_stat_replication) AS standbys,
           session_user AS login, rolsuper AS superuser,
           EXISTS (SELECT FROM pg_class c WHERE c.oid = to_regclass('events')
                                            AND pg_has_role(session_user, c.relowner, 'USAGE')) AS owner
    FROM pg_roles WHERE rolname = session_user
""")
_CLOCK: Final = text("SELECT CAST(extract(epoch FROM clock_timestamp()) AS float8)")
_REVISION: Final = text("SELECT version_num FROM alembic_version")
_WRAPPED_BY_OTHERS: Final = text("SELECT count(*) FROM person_keys WHERE master_key_id <> ALL (:known)")


async def check_postgres(settings: Settings, role: Role) -> AsyncIterator[Finding]:
    async with open_postgres(settings, role) as engine, engine.connect() as connection:
        about = (await connection.execute(_ABOUT)).mappings().one()
        for finding in check_postgres_settings(about):
            yield finding
        for finding in await check_clock("PostgreSQL", lambda: connection.scalar(_CLOCK)):
            yield finding
        revision = await connection.scalar(_REVISION)
        if revision != SCHEMA_REVISION:
            yield found("schema-other", found=revision, needed=SCHEMA_REVISION)
            return
        known = [master_key_id(key) for key in read_master_keys(settings.master_keys.get_secret_value())]
        if people := await connection.scalar(_WRAPPED_BY_OTHERS, {"known": known}):
            yield found("master-key-missing", people=people)


def check_postgres_settings(about: RowMapping) -> Iterator[Finding]:
    for name, safe in DURABLE.items():
        if about[name] not in safe:
            yield found("postgres-not-durable", setting=name, value=about[name])
    if about["standbys"] and not about["synchronous"]:
        yield found("postgres-asynchronous", standbys=about["standbys"])
    if about["release"] < POSTGRES_MIN:
        yield found("postgres-too-old", release=about["release"], least=POSTGRES_MIN)
    yield from _check_support("PostgreSQL", str(about["release"]), POSTGRES_ENDS.get(about["release"]))
    if about["superuser"]:
        yield found("login-superuser", login=about["login"])
    elif about["owner"]:
        yield found("login-owner", login=about["login"])


# ── MongoDB and Redis ────────────────────────────────────────────────────────────────────────────────────────────────


async def check_mongo(settings: Settings) -> AsyncIterator[Finding]:
    async with open_mongo(settings, settings.mongo_timeout_ms) as mongo:

        async def now() -> float:
            local: datetime = (await mongo.command("hello"))["localTime"]
            return local.replace(tzinfo=UTC).timestamp()

        for finding in check_members(await mongo.command("hello"), settings.mongo_url):
            yield finding
        for finding in await check_clock("MongoDB", now):
            yield finding
        release = ".".join((await mongo.command("buildInfo"))["version"].split(".")[:2])
        for finding in _check_support("MongoDB", release, MONGO_ENDS.get(release)):
            yield finding


def check_members(hello: Mapping[str, Any], url: str) -> Iterator[Finding]:
    """Checks a replica set by what a member answers to `hello`."""
    if "setName" not in hello:
        yield found("mongo-no-replica-set")
        return
    with_data = len(hello["hosts"]) + len(hello.get("passives", ()))
    members = with_data + len(hello.get("arbiters", ()))
    majority = members // 2 + 1
    if members > 1 and with_data - 1 < majority:
        yield found("mongo-no-spare", with_data=with_data, members=members, majority=majority)
    options = {name.lower(): values[-1].lower() for name, values in parse_qs(urlsplit(url).query).items()}
    if members > 1 and options.get("directconnection") == "true":
        yield found("mongo-one-member", members=members)
    for name, value in _MONGO_OPTIONS.items():
        if options.get(name, value) != value:
            yield found("mongo-not-majority", option=f"{name}={options[name]}")


async def check_redis(settings: Settings) -> AsyncIterator[Finding]:
    """Checks Redis, or each server of a cluster."""
    async with open_redis(settings) as redis:
        findings: dict[Finding, None] = {}
        for server in await servers_of(redis):
            findings |= dict.fromkeys([each async for each in _check_redis_server(server, settings.redis_url)])
        for finding in findings:
            yield finding


async def _check_redis_server(server: "Redis", url: str) -> AsyncIterator[Finding]:
    async def now() -> float:
        seconds, microseconds = await server.time()
        return float(seconds) + float(microseconds) / 1e6

    about = await server.info()
    release = str(about["redis_version"])
    if about["maxmemory_policy"] != "noeviction":
        yield found("redis-may-evict", policy=about["maxmemory_policy"])
    if not about["aof_enabled"]:
        yield found("redis-not-kept")
    if tuple(int(part) for part in release.split(".")[:2]) < REDIS_MIN:
        yield found("redis-too-old", release=release, least=".".join(map(str, REDIS_MIN)))
    if about["cluster_enabled"] and not names_cluster(url):
        yield found("redis-cluster-unnamed")
    elif about["cluster_enabled"]:
        client: Any = server  # redis-py's types do not tell its asynchronous client from the blocking one
        served = int((await client.execute_command("CLUSTER INFO"))["cluster_slots_ok"])
        if served < REDIS_CLUSTER_HASH_SLOTS:
            yield found("redis-cluster-incomplete", away=REDIS_CLUSTER_HASH_SLOTS - served, slots=REDIS_CLUSTER_HASH_SLOTS)
        if not about["connected_slaves"]:
            yield found("redis-no-replica")
    for finding in await check_clock("Redis", now):
        yield finding


async def check_clock(store: str, now: Callable[[], Awaitable[float]]) -> list[Finding]:
    """Returns a finding if a store's clock differs from this machine's. The time that the query takes does not count."""
    before = time.time()
    theirs = await now()
    skew = max(before - theirs, theirs - time.time())
    if skew < SKEW_SECONDS:
        return []
    return [found("clock-wrong" if skew > SKEW_SECONDS_MAX else "clock-skew", store=store, seconds=f"{skew:.1f}")]


def _check_support(store: str, release: str, ends: date | None) -> Iterator[Finding]:
    if ends is not None and datetime.now(UTC).date() > ends:
        yield found("store-end-of-life", store=store, release=release, ends=ends)
