"""What is unsafe about how Daybook is set up, each with what to do about it.

`daybook doctor` shows the findings; in production the processes refuse to start on the dangerous ones. Both ask the same list of
checks. What cannot be asked, because a store does not answer or does not let us, is a finding too. Nothing here changes anything.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from datetime import UTC, date, datetime
from ipaddress import ip_address
from typing import Final, Literal
from urllib.parse import parse_qs, urlsplit

import msgspec
from pymongo.errors import PyMongoError
from sqlalchemy import RowMapping, text

from shared.addresses import read_networks
from shared.connections import DURABLE, STORE_ERRORS, Role, open_mongo, open_postgres, open_redis
from shared.errors import DaybookError, UnsafeSettings
from shared.logs import kind_of
from shared.person_keys import master_key_id
from shared.personal_data import read_master_keys
from shared.settings import Settings
from shared.tables import SCHEMA_REVISION

CHECK_SECONDS: Final = 5.0
SKEW_SECONDS: Final = 1.0
SKEW_SECONDS_MAX: Final = 60.0
DISTINCT_CHARACTERS_MIN: Final = 10
REDIS_MIN: Final = (6, 2)

# The last day of support, as their makers say. What is not here has none in sight.
POSTGRES_ENDS: Final = {
    14: date(2026, 11, 12),
    15: date(2027, 11, 11),
    16: date(2028, 11, 9),
    17: date(2029, 11, 8),
    18: date(2030, 11, 14),
}
POSTGRES_MIN: Final = 16
MONGO_ENDS: Final = {"6.0": date(2025, 7, 31), "7.0": date(2027, 8, 31), "8.0": date(2029, 10, 31)}
MOTOR_ENDS: Final = date(2027, 5, 14)

Severity = Literal["danger", "warning"]


class Finding(msgspec.Struct, frozen=True):
    """Something unsafe. `name` is stable. `danger`: production does not start with it."""

    name: str
    severity: Severity
    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.name}: {self.what}; {self.fix}"


# What can be found: severity, what is so, and what to do.
KINDS: Final[Mapping[str, tuple[Severity, str, str]]] = {
    "no-answer": ("danger", "{store} does not answer all that is asked ({reason})", "check its URL and its rights"),
    "postgres-not-durable": (
        "danger",
        "PostgreSQL runs with {setting} = {value}: acknowledged commands could be lost",
        "ALTER SYSTEM SET {setting} = 'on' and reload; a DATABASE or a ROLE may have it set too",
    ),
    "postgres-too-old": ("danger", "PostgreSQL {release} lacks what Daybook uses", "upgrade to {least} or later"),
    "login-superuser": (
        "danger",
        "DAYBOOK_DATABASE_URL logs in as the superuser {login}, whom nothing is refused",
        "a login for each process: docs/security.md",
    ),
    "login-owner": (
        "warning",
        "DAYBOOK_DATABASE_URL logs in as {login}, who owns the tables and may alter them",
        "a login for each process: docs/security.md",
    ),
    "schema-other": (
        "danger",
        "the schema is {found}, this code needs {needed}",
        "`daybook migrate`, or the code of that schema",
    ),
    "master-key-missing": (
        "danger",
        "the keys of {people} people are wrapped by a master key that is not configured",
        "add it to DAYBOOK_MASTER_KEYS, after the others",
    ),
    "master-key-guessable": (
        "danger",
        "a key of DAYBOOK_MASTER_KEYS is no random one",
        "put a new one first (`openssl rand -base64 32`), then `daybook master-keys rotate`",
    ),
    "master-key-backup": (
        "warning",
        "nobody has confirmed a copy of master key {key_id}; if it is lost, so is every name and address",
        "keep a copy elsewhere, then DAYBOOK_MASTER_KEYS_BACKED_UP={key_id}",
    ),
    "secret-guessable": ("danger", "DAYBOOK_SECRET has hardly any different characters", "`openssl rand -hex 32`"),
    "seal-key-missing": ("warning", "no seals are made", "DAYBOOK_SEAL_KEY: `daybook seal-key --new`"),
    "seal-file-missing": (
        "warning",
        "seals are kept in the database that they are to prove, and in the log",
        "DAYBOOK_SEAL_FILE, on another disk or machine",
    ),
    "proxies-anybody": (
        "danger",
        "DAYBOOK_TRUSTED_PROXIES trusts everybody, who can then claim any address",
        "name the proxies alone",
    ),
    "no-tls": (
        "warning",
        "{store} is reached over a network in the clear, passwords and balances too",
        "TLS by {variable}: docs/security.md",
    ),
    "no-password": (
        "danger",
        "{store} beyond this machine is reached without a password",
        "give it users, and name one in {variable}",
    ),
    "mongo-no-replica-set": (
        "danger",
        "MongoDB is no replica set, and so has no transactions",
        "start it with --replSet; one node will do",
    ),
    "redis-may-evict": (
        "danger",
        "Redis runs with maxmemory-policy {policy}: it may evict balances",
        "CONFIG SET maxmemory-policy noeviction, and in its file",
    ),
    "redis-not-kept": (
        "warning",
        "Redis does not write every change to disk: after a crash balances are built anew, and refused attempts are lost",
        "appendonly yes",
    ),
    "redis-too-old": ("danger", "Redis {release} lacks what Daybook uses", "upgrade to {least} or later"),
    "clock-skew": ("warning", "the clock of {store} and ours differ by {seconds} s", "keep both by NTP"),
    "clock-wrong": (
        "danger",
        "the clock of {store} and ours differ by {seconds} s: expiry and limits go by clocks",
        "keep both by NTP",
    ),
    "store-end-of-life": ("warning", "{store} {release} gets no fixes since {ends}", "upgrade it"),
    "driver-end-of-life": (
        "warning",
        "motor, the driver of MongoDB, gets critical fixes only, and none after {ends}",
        "upgrade Daybook when it has moved to PyMongo's own asynchronous client",
    ),
}


def found(name: str, **values: object) -> Finding:
    severity, what, fix = KINDS[name]
    return Finding(name, severity, what.format(**values), fix.format(**values))


async def examine(settings: Settings, role: Role = "daybook_query") -> list[Finding]:
    """Everything that is found, the dangerous first. Takes `CHECK_SECONDS` at most. PostgreSQL is asked as `role`."""
    findings = [*in_settings(settings), *in_urls(settings)]
    stores = {"PostgreSQL": _postgres(settings, role), "MongoDB": _mongo(settings), "Redis": _redis(settings)}
    for of_store in await asyncio.gather(*(_asked(store, check) for store, check in stores.items())):
        findings += of_store
    return sorted(findings, key=lambda finding: (finding.severity != "danger", finding.name))


async def require_safe(settings: Settings, role: Role, say: Callable[[str], object]) -> None:
    """For the start of a process in production. `say` is told a line for each dangerous finding.

    Raises:
        UnsafeSettings: there are some. A store that does not answer is none: each process knows which ones it needs.
    """
    if settings.environment != "production":
        return
    findings = [finding for finding in await examine(settings, role) if finding.severity == "danger"]
    dangers = [finding for finding in findings if finding.name != "no-answer"]
    for finding in dangers:
        say(f"daybook: {finding}")
    if dangers:
        names = ", ".join(sorted({finding.name for finding in dangers}))
        raise UnsafeSettings(f"not safe for production ({names}): `daybook doctor` says what to do")


async def _asked(store: str, check: AsyncIterator[Finding]) -> list[Finding]:
    findings: list[Finding] = []
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            async for finding in check:
                findings.append(finding)  # noqa: PERF401 # what was found before an error counts
    except (*STORE_ERRORS, PyMongoError, DaybookError) as error:
        findings.append(found("no-answer", store=store, reason=kind_of(error)))
    return findings


# ── settings ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def in_settings(settings: Settings) -> Iterator[Finding]:
    keys = read_master_keys(settings.master_keys.get_secret_value())
    newest = master_key_id(keys[0])
    if _is_guessable(settings.secret.get_secret_value()):
        yield found("secret-guessable")
    if any(_is_guessable(key.hex()) for key in keys):
        yield found("master-key-guessable")
    if newest not in settings.master_keys_backed_up.split(","):
        yield found("master-key-backup", key_id=newest)
    if settings.seal_key is None:
        yield found("seal-key-missing")
    elif settings.seal_file is None:
        yield found("seal-file-missing")
    if any(network.prefixlen == 0 for network in read_networks(settings.trusted_proxies)):
        yield found("proxies-anybody")
    yield found("driver-end-of-life", ends=MOTOR_ENDS)


def _is_guessable(secret: str) -> bool:
    return len(set(secret)) < DISTINCT_CHARACTERS_MIN


def in_urls(settings: Settings) -> Iterator[Finding]:
    """What the URLs themselves give away."""
    for store, variable, url in (
        ("PostgreSQL", "DAYBOOK_DATABASE_URL", settings.database_url),
        ("MongoDB", "DAYBOOK_MONGO_URL", settings.mongo_url),
        ("Redis", "DAYBOOK_REDIS_URL", settings.redis_url),
    ):
        if all(map(_is_here, _hosts(url))):
            continue
        if not _is_encrypted(url):
            yield found("no-tls", store=store, variable=variable)
        # PostgreSQL's own rules, or a client's certificate, may ask for none: that is not for us to see.
        if store != "PostgreSQL" and "@" not in url and "MONGODB-X509" not in url:
            yield found("no-password", store=store, variable=variable)


def _hosts(url: str) -> list[str]:
    """MongoDB's URLs have several."""
    places = urlsplit(url).netloc.rpartition("@")[2].split(",")
    return [place.rpartition(":")[0] if place.rpartition(":")[2].isdigit() else place for place in places]


def _is_here(host: str) -> bool:
    """On this machine: loopback, or a local socket."""
    name = host.strip("[]")
    if not name or name == "localhost" or "%2f" in name.lower():
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def _is_encrypted(url: str) -> bool:
    query = {name.lower(): values[-1].lower() for name, values in parse_qs(urlsplit(url).query).items()}
    if query.get("sslmode") in {"require", "verify-ca", "verify-full"} or "sslrootcert" in query:
        return True
    return url.startswith(("rediss:", "mongodb+srv:")) or "true" in {query.get("tls"), query.get("ssl")}


# ── PostgreSQL ───────────────────────────────────────────────────────────────────────────────────────────────────────

_ABOUT: Final = text("""
    SELECT current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,
           current_setting('synchronous_commit') AS synchronous_commit,
           CAST(current_setting('server_version_num') AS integer) / 10000 AS release,
           session_user AS login, rolsuper AS superuser,
           EXISTS (SELECT FROM pg_class c WHERE c.oid = to_regclass('events')
                                            AND pg_has_role(session_user, c.relowner, 'USAGE')) AS owner
    FROM pg_roles WHERE rolname = session_user
""")
_CLOCK: Final = text("SELECT CAST(extract(epoch FROM clock_timestamp()) AS float8)")
_REVISION: Final = text("SELECT version_num FROM alembic_version")
_WRAPPED_BY_OTHERS: Final = text("SELECT count(*) FROM person_keys WHERE master_key_id <> ALL (:known)")


async def _postgres(settings: Settings, role: Role) -> AsyncIterator[Finding]:
    async with open_postgres(settings, role) as engine, engine.connect() as connection:
        about = (await connection.execute(_ABOUT)).mappings().one()
        for finding in about_postgres(about):
            yield finding
        for finding in await skewed("PostgreSQL", lambda: connection.scalar(_CLOCK)):
            yield finding
        revision = await connection.scalar(_REVISION)
        if revision != SCHEMA_REVISION:
            yield found("schema-other", found=revision, needed=SCHEMA_REVISION)
            return
        known = [master_key_id(key) for key in read_master_keys(settings.master_keys.get_secret_value())]
        if people := await connection.scalar(_WRAPPED_BY_OTHERS, {"known": known}):
            yield found("master-key-missing", people=people)


def about_postgres(about: RowMapping) -> Iterator[Finding]:
    for name, safe in DURABLE.items():
        if about[name] not in safe:
            yield found("postgres-not-durable", setting=name, value=about[name])
    if about["release"] < POSTGRES_MIN:
        yield found("postgres-too-old", release=about["release"], least=POSTGRES_MIN)
    yield from _support("PostgreSQL", str(about["release"]), POSTGRES_ENDS.get(about["release"]))
    if about["superuser"]:
        yield found("login-superuser", login=about["login"])
    elif about["owner"]:
        yield found("login-owner", login=about["login"])


# ── MongoDB and Redis ────────────────────────────────────────────────────────────────────────────────────────────────


async def _mongo(settings: Settings) -> AsyncIterator[Finding]:
    async with open_mongo(settings, settings.mongo_timeout_ms) as mongo:

        async def now() -> float:
            local: datetime = (await mongo.command("hello"))["localTime"]
            return local.replace(tzinfo=UTC).timestamp()

        if "setName" not in await mongo.command("hello"):
            yield found("mongo-no-replica-set")
        for finding in await skewed("MongoDB", now):
            yield finding
        release = ".".join((await mongo.command("buildInfo"))["version"].split(".")[:2])
        for finding in _support("MongoDB", release, MONGO_ENDS.get(release)):
            yield finding


async def _redis(settings: Settings) -> AsyncIterator[Finding]:
    async with open_redis(settings) as redis:

        async def now() -> float:
            seconds, microseconds = await redis.time()
            return float(seconds) + float(microseconds) / 1e6

        about = await redis.info()
        release = str(about["redis_version"])
        if about["maxmemory_policy"] != "noeviction":
            yield found("redis-may-evict", policy=about["maxmemory_policy"])
        if not about["aof_enabled"]:
            yield found("redis-not-kept")
        if tuple(int(part) for part in release.split(".")[:2]) < REDIS_MIN:
            yield found("redis-too-old", release=release, least=".".join(map(str, REDIS_MIN)))
        for finding in await skewed("Redis", now):
            yield finding


async def skewed(store: str, now: Callable[[], Awaitable[float]]) -> list[Finding]:
    """A clock that differs by more than the time of asking can explain."""
    before = time.time()
    theirs = await now()
    skew = max(before - theirs, theirs - time.time())
    if skew < SKEW_SECONDS:
        return []
    return [found("clock-wrong" if skew > SKEW_SECONDS_MAX else "clock-skew", store=store, seconds=f"{skew:.1f}")]


def _support(store: str, release: str, ends: date | None) -> Iterator[Finding]:
    if ends is not None and datetime.now(UTC).date() > ends:
        yield found("store-end-of-life", store=store, release=release, ends=ends)
