"""The settings: one frozen `Settings`, read once from the environment.

Every variable starts with `DAYBOOK_`. Settings give the addresses of the stores, timeouts and limits. The rules about money and
the fields of events are code, never settings. No setting makes an acknowledged command less durable.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationError, ValidationInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.broker_address import read_broker_address
from shared.currency_table import HISTORICAL
from shared.errors import SettingsInvalid
from shared.http_values import read_header_value, read_http_url
from shared.proof.seals import is_key
from shared.setting_values import read_master_keys, read_networks, read_public_keys, read_secrets

MISSING: Final = ": field required"
"""How a problem of `SettingsInvalid` ends if the variable is not set."""
_PREFIX: Final = re.compile(r"[a-z][a-z0-9-]{0,39}")
_ORIGIN: Final = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?")

Count = Annotated[int, Field(ge=1)]
Milliseconds = Annotated[int, Field(ge=1)]


def _seal_key(value: SecretStr) -> SecretStr:
    if not is_key(value.get_secret_value()):
        raise ValueError("must be base64 of 32 bytes")
    return value


def _public_keys(value: str) -> str:
    if not all(is_key(text) for text in value.split(",") if text):
        raise ValueError("must be base64 of 32 bytes each, with commas between")
    return value


def _master_keys(value: SecretStr) -> SecretStr:
    read_master_keys(value.get_secret_value())
    return value


def _secrets(value: SecretStr) -> SecretStr:
    read_secrets(value.get_secret_value())
    return value


def _header_value(value: SecretStr) -> SecretStr:
    read_header_value(value.get_secret_value())
    return value


HttpUrl = Annotated[str, AfterValidator(read_http_url)]
MasterKeys = Annotated[SecretStr, AfterValidator(_master_keys)]
SearchPrefix = Annotated[str, Field(pattern="^[a-z][a-z0-9-]{0,30}$")]


def _broker(value: str | None) -> str | None:
    if value:
        read_broker_address(value)
    return value


def _topic_prefix(value: str) -> str:
    if not _PREFIX.fullmatch(value):
        raise ValueError("must be at most 40 lower-case letters, digits and hyphens, and begin with a letter")
    return value


def _networks(value: str) -> str:
    try:
        read_networks(value)
    except ValueError:
        raise ValueError("must be addresses or networks, with commas between") from None
    return value


def _jwt_keys(value: str, others: ValidationInfo) -> str:
    if value:
        read_public_keys(value)
        if not (others.data.get("jwt_issuer") and others.data.get("jwt_audience")):
            raise ValueError("needs DAYBOOK_JWT_ISSUER and DAYBOOK_JWT_AUDIENCE too")
    return value


def is_origin(text: str) -> bool:
    """True if the text is an origin that `DAYBOOK_CORS_ORIGINS` takes."""
    return bool(_ORIGIN.fullmatch(text))


def _origins(value: str) -> str:
    if not all(is_origin(origin) for origin in value.split(",") if value):
        raise ValueError("must be origins such as https://app.example.com, with commas and nothing else between")
    return value


def _historical_currencies(value: str) -> str:
    if not all(code in HISTORICAL for code in value.split(",") if value):
        raise ValueError("must be codes that ISO 4217 has withdrawn, such as HRK, with commas and nothing else between")
    return value


class Settings(BaseSettings):
    """All settings. Each field is read from the environment variable of the same name with the prefix `DAYBOOK_`.

    A name ends with its unit, or with `_max` if it is a limit.
    """

    model_config = SettingsConfigDict(env_prefix="DAYBOOK_", frozen=True, extra="ignore", hide_input_in_errors=True)

    database_url: str = Field(
        description="PostgreSQL, `postgresql://user:password@host:port/database`. TLS as for libpq: "
        "`?sslmode=verify-full&sslrootcert=file`."
    )
    pooler_url: str | None = Field(
        default=None,
        description="PgBouncer in transaction mode, in front of the same database, in the form of the database URL. All "
        "transactions then go through it, and the database URL serves what needs a session. See "
        "[scaling](scaling.md#a-pooler-in-front-of-postgresql).",
    )
    replica_url: str | None = Field(
        default=None,
        description="A replica of PostgreSQL, in the form of the database URL. The query API reads events and proofs from it. "
        "See [scaling](scaling.md#a-replica-for-questions-to-the-log).",
    )
    migration_database_url: str | None = Field(
        default=None,
        description="PostgreSQL as the owner of the schema, for migrations and `daybook master-keys rotate`. Default: "
        "the database URL.",
    )
    mongo_url: str = Field(
        description="MongoDB as a replica set (one node is enough), because read models are written in transactions. "
        "TLS: `?tls=true&tlsCAFile=file`."
    )
    mongo_database: str = Field(default="daybook", description="The MongoDB database that holds the read models.")
    redis_url: str = Field(
        description="Redis or Valkey with `maxmemory-policy noeviction`. TLS: `rediss://…?ssl_ca_certs=file`. A cluster: "
        "`redis+cluster://host:port,host:port`."
    )
    reporting_url: str | None = Field(
        default=None,
        description="The database of SQL reporting: `sqlite+aiosqlite:///file`, `mysql+aiomysql://…` (MariaDB or MySQL) or "
        "`postgresql+asyncpg://…`. Without it, there are no reports. Needs the extra `sql`. See [stores](stores.md).",
    )
    reporting_read_url: str | None = Field(
        default=None,
        description="The same database with a login that may only read. If it is set, reports and `daybook sql` use it.",
    )
    search_url: str | None = Field(
        default=None,
        description="OpenSearch or Elasticsearch 7.10, `https://user:password@host:9200`, with `?ca_certs=file` for an "
        "authority of your own. Without it, there is no search. Needs the extra `search`. See [stores](stores.md#search).",
    )
    search_prefix: SearchPrefix = Field(
        default="daybook", description="The beginning of the names of all indexes in OpenSearch, so that several can share one."
    )
    timeline_url: str | None = Field(
        default=None,
        description="Apache Cassandra, `cassandra://user:password@host:9042,host/keyspace`, with `?datacenter=name`, "
        "`replicas=3` for a keyspace that has to be made, and `ca_certs=file` for TLS. Without it, there is no timeline. Needs "
        "the extra `timeline`. See [stores](stores.md#timeline).",
    )
    secret: Annotated[SecretStr, AfterValidator(_secrets)] = Field(
        description="Signs cursors. At least 32 characters; the same for all processes. Several secrets, separated by commas: "
        "the first signs, the others are still accepted."
    )

    historical_currencies: Annotated[str, AfterValidator(_historical_currencies)] = Field(
        default="",
        description="Currencies that ISO 4217 has withdrawn, such as `HRK`, in which new accounts can be opened for back-dated "
        "data, separated by commas. Existing accounts need no setting.",
    )

    environment: Literal["development", "production"] = Field(
        default="development",
        description="`development` or `production`. In production, a process does not start if `daybook doctor` finds "
        "something dangerous.",
    )

    api_key: Annotated[SecretStr, AfterValidator(_header_value)] | None = Field(
        default=None, description="The API key that the `daybook` command sends to the APIs."
    )
    master_keys: MasterKeys = Field(
        description="Wrap the keys of personal data: 32 bytes each in base64, separated by commas, the newest first."
    )

    master_keys_backed_up: str = Field(
        default="",
        description="Ids of the master keys of which you keep a copy elsewhere, separated by commas. `daybook doctor` "
        "shows the ids.",
    )

    command_url: HttpUrl = Field(default="http://127.0.0.1:8000", description="The URL at which clients reach the command API.")
    query_url: HttpUrl = Field(
        default="http://127.0.0.1:8001",
        description="The URL at which clients reach the query API. `Location` headers contain it.",
    )

    database_pool_size: Count = Field(default=4, description="Connections kept open by each process.")
    database_pool_overflow_max: int = Field(default=4, ge=0, description="Connections opened beyond the pool under load.")
    database_pool_timeout_ms: Milliseconds = Field(default=1_000, description="Longest wait for a free connection.")
    database_pool_recycle_seconds: Count = Field(default=1_800, description="A connection older than this is replaced.")
    database_pool_pre_ping: bool = Field(default=False, description="Test a connection before each use (costs a round trip).")
    database_connect_timeout_ms: Milliseconds = Field(default=2_000, description="Longest wait for a new connection.")
    database_statement_timeout_ms: Milliseconds = Field(default=2_000, description="Longest time that one statement may take.")
    database_lock_timeout_ms: Milliseconds = Field(default=1_500, description="Longest wait for a row lock.")
    database_idle_in_transaction_timeout_ms: Milliseconds = Field(
        default=5_000,
        description="An idle transaction older than this is ended by the server, so that no leak stalls the log.",
    )
    writer_idle_in_transaction_timeout_ms: Milliseconds = Field(
        default=1_000,
        description="As above, for the command API: if a process is frozen while it writes, others can write after this time.",
    )
    schema_wait_seconds: int = Field(default=0, ge=0, description="How long a starting process waits for the migrations.")

    command_deadline_ms: Milliseconds = Field(
        default=2_500, description="A command that is not answered within this time gets a 503."
    )
    command_queue_max: Count = Field(
        default=10_000,
        description="Commands that may wait for a batch, at most nine tenths of them of one caller. Further commands get a 503.",
    )
    batch_commands_max: Count = Field(default=500, description="Commands in one transaction.")
    stream_cache_max: Count = Field(default=50_000, description="Streams whose state a writer keeps in memory.")
    handover_folder: Path | None = Field(
        default=None,
        description="A folder with mode 0700 for the sockets over which the command processes of one machine hand commands "
        "to the one that writes. Default: `daybook-<user id>` in the folder for temporary files.",
    )
    body_bytes_max: Count = Field(default=262_144, description="Largest request body.")

    read_timeout_ms: Milliseconds = Field(
        default=5_000, description="Longest time in which the head of a request, and then its body, must arrive."
    )
    drain_ms: int = Field(
        default=0,
        ge=0,
        description="How long an API that gets SIGTERM still takes requests, while `/readyz` answers 503 and each answer ends "
        "its connection: the time that a balancer needs to notice.",
    )
    cors_origins: Annotated[str, AfterValidator(_origins)] = Field(
        default="",
        description="The web origins whose pages may call the APIs, such as `https://app.example.com`, separated by commas. "
        "None by default.",
    )
    rate_limit_caller_per_minute: Count = Field(
        default=60_000,
        description="Commands and queries per minute of one caller, with all its keys together. Further requests get a 429.",
    )
    rate_limit_address_per_minute: Count = Field(
        default=300,
        description="Requests per minute of strangers from one address (IPv6: one /64). Further requests get a 429.",
    )
    trusted_proxies: Annotated[str, AfterValidator(_networks)] = Field(
        default="",
        description="Addresses and networks of proxies, separated by commas. Their `X-Forwarded-For` tells where a "
        "request comes from.",
    )

    session_idle_seconds: Count = Field(default=1_800, description="A session that is not used for this long ends.")
    session_max_seconds: Count = Field(default=43_200, description="Every session ends after this long, used or not.")
    password_hashes_at_once: Count = Field(
        default=2, description="Passwords that a process checks at the same time. Each check takes a thread and 64 MiB."
    )
    refusals_max: Count = Field(
        default=50_000, description="Denials that are kept for auditors: so many of known callers, and as many of strangers."
    )
    refusals_days: int = Field(
        default=30, ge=1, le=3_650, description="Days for which denials are kept. Denials contain network addresses."
    )

    jwt_issuer: str = Field(default="", description="The issuer (`iss`) of the tokens of services.")
    jwt_audience: str = Field(default="", description="The audience (`aud`) of the tokens of services.")
    jwt_keys: Annotated[str, AfterValidator(_jwt_keys)] = Field(
        default="",
        description="Public keys for the tokens of services: a JWK set, or a file that contains one. Without it, no such "
        "token is accepted.",
    )

    projector_batch_events_max: Count = Field(
        default=2_000, description="Events that the projector writes to a read model in one batch."
    )
    projector_look_ms: Milliseconds = Field(
        default=500, description="The projector looks for new events at least this often, with or without a wake-up."
    )
    projector_gather_ms: int = Field(
        default=300,
        ge=0,
        le=10_000,
        description="While many events come, the projector waits for more before it reads again: at 900 a second so long, up to "
        "300 a second not at all, and in between in proportion. Longer waits cost less processor time. 0 never waits.",
    )
    projector_attempts_max: Count = Field(
        default=5,
        description="How often an event that cannot be applied to a read model is tried, with growing pauses, before it "
        "becomes a dead letter.",
    )
    projector_dead_letters_max: int = Field(
        default=100,
        ge=0,
        description="Dead letters that one read model may have. With one more, the read model stops. 0 stops it at the first.",
    )
    worker_metrics_port: int | None = Field(
        default=None, ge=1, le=65_535, description="The port at which the worker has its metrics. Without it, it listens nowhere."
    )
    worker_metrics_host: str = Field(
        default="127.0.0.1",
        description="The address at which the worker has its metrics, which need no key: only Prometheus should reach it.",
    )
    mongo_timeout_ms: Milliseconds = Field(default=2_000, description="Longest wait for MongoDB in a query.")
    redis_timeout_ms: Milliseconds = Field(default=1_000, description="Longest wait for Redis in a query.")
    reporting_timeout_ms: Milliseconds = Field(default=10_000, description="Longest time that a report may take.")
    search_timeout_ms: Milliseconds = Field(default=2_000, description="Longest time that a search may take.")
    timeline_timeout_ms: Milliseconds = Field(default=2_000, description="Longest wait for the timeline store in a query.")
    wake_timeout_ms: Milliseconds = Field(default=50, description="Longest time the command API spends on a wake-up.")
    query_wait_max_ms: Milliseconds = Field(
        default=10_000, description="Longest wait that a query can request with `Prefer: wait`."
    )

    event_streams_max: Count = Field(default=20, description="Streams of events that one caller may have open at one process.")
    event_stream_heartbeat_ms: Milliseconds = Field(
        default=15_000, description="A stream of events with nothing to send sends a heartbeat this often."
    )
    event_stream_stall_ms: Milliseconds = Field(
        default=10_000, description="A reader of a stream of events that takes nothing for this long is disconnected."
    )

    seal_key: Annotated[SecretStr, AfterValidator(_seal_key)] | None = Field(
        default=None,
        description="Signs seals: 32 random bytes in base64 (`daybook seal-key --new`). Only the worker needs it. "
        "Without it, no seals are made.",
    )
    seal_public_keys: Annotated[str, AfterValidator(_public_keys)] = Field(
        default="",
        description="Public keys in base64, separated by commas, whose seals `daybook verify` accepts besides those of "
        "the seal key.",
    )
    seal_file: str | None = Field(
        default=None,
        description="A file outside PostgreSQL to which every seal is appended as a line of JSON. Without it, "
        "the worker logs each seal.",
    )
    seal_seconds: int = Field(
        default=60,
        ge=1,
        le=3_600,
        description="A seal is made this often, if there are new events. From a minute on, use whole minutes.",
    )

    webhook_networks: Annotated[str, AfterValidator(_networks)] = Field(
        default="",
        description="Addresses and networks that webhooks may send to although they are private, such as `10.1.2.0/24`, "
        "with commas between. None by default. Webhooks can always send to public addresses.",
    )
    webhook_timeout_ms: Milliseconds = Field(
        default=10_000, description="Longest time that the receiver of a webhook may take for one delivery."
    )
    webhook_give_up_seconds: Count = Field(
        default=259_200, description="A webhook that has failed for so long is disabled. The default is three days."
    )

    publish_url: Annotated[str | None, AfterValidator(_broker)] = Field(
        default=None,
        description="The broker to which the worker publishes all events: `nats://user:password@host:4222` (with JetStream) or "
        "`kafka://user:password@host:9092`; several hosts with commas between, TLS: `?tls=true`. Without it, nothing is "
        "published. Needs the extra `publish`. See [publishing](publishing.md).",
    )
    publish_prefix: Annotated[str, AfterValidator(_topic_prefix)] = Field(
        default="daybook",
        description="The first part of the names of topics: a ledger's topic is `daybook.main`. Each installation that uses the "
        "same broker needs its own.",
    )
    publish_personal_data: bool = Field(
        default=False,
        description="Publish names, addresses and metadata of people in plain text. No erasure reaches them in the broker. "
        "By default, they stay encrypted.",
    )

    traces_url: HttpUrl | None = Field(
        default=None,
        description="The endpoint of a collector of OpenTelemetry traces, OTLP over HTTP, such as "
        "`http://127.0.0.1:4318/v1/traces`. Without it, there are no traces. Needs the extra `telemetry`. See "
        "[tracing](tracing.md).",
    )
    log_level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="The lowest level that is logged.")


def read_settings(**given: Any) -> Settings:
    """Returns the settings that the environment gives, except the `given` ones.

    Raises:
        SettingsInvalid: variables are missing or wrong. The error names all of them, and shows no value.
    """
    try:
        return Settings(**given)
    except ValidationError as invalid:
        problems = [(str(e["loc"][0]), e["msg"].removeprefix("Value error, ")) for e in invalid.errors(include_input=False)]
        raise SettingsInvalid([f"DAYBOOK_{name.upper()}: {what[0].lower()}{what[1:]}" for name, what in problems]) from None


def settings_or_exit() -> Settings:
    """Returns the settings, for the entry point of a process. On an error, prints one line without a traceback and exits."""
    try:
        return read_settings()
    except SettingsInvalid as invalid:
        raise SystemExit(f"daybook: {invalid.detail}") from None
