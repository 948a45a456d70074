"""One frozen `Settings`, read once from the environment.

Every variable starts with `DAYBOOK_`. Money, rules and the shape of events are code, never settings; what stands here is where
things are, how long we wait for them and how much we take at once. Settings that would trade durability do not exist.
"""

import re
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationError, ValidationInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.addresses import read_networks
from shared.errors import SettingsInvalid
from shared.personal_data import read_master_keys
from shared.seals import is_key
from shared.signed_tokens import read_public_keys

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


MasterKeys = Annotated[SecretStr, AfterValidator(_master_keys)]


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


def _origins(value: str) -> str:
    if not all(_ORIGIN.fullmatch(origin) for origin in value.split(",") if value):
        raise ValueError("must be origins such as https://app.example.com, with commas and nothing else between")
    return value


class Settings(BaseSettings):
    """Field names are the variables' names without the prefix; units and limits stand last in a name."""

    model_config = SettingsConfigDict(env_prefix="DAYBOOK_", frozen=True, extra="ignore")

    database_url: str = Field(
        description="PostgreSQL, `postgresql://user:password@host:port/database`; TLS as libpq: "
        "`?sslmode=verify-full&sslrootcert=file`."
    )
    migration_database_url: str | None = Field(
        default=None,
        description="PostgreSQL as the owner of the schema; used by migrations only. Default: the database URL.",
    )
    mongo_url: str = Field(
        description="MongoDB, a replica set (one node will do): read models are written in transactions. TLS: "
        "`?tls=true&tlsCAFile=file`."
    )
    mongo_database: str = Field(default="daybook", description="The MongoDB database that holds the read models.")
    redis_url: str = Field(description="Redis or Valkey with `maxmemory-policy noeviction`. TLS: `rediss://…?ssl_ca_certs=file`.")
    secret: SecretStr = Field(min_length=32, description="Signs cursors. At least 32 characters; the same for all processes.")

    environment: Literal["development", "production"] = Field(
        default="development",
        description="`development` or `production`, where the processes refuse to start on what `daybook doctor` calls "
        "dangerous.",
    )

    api_key: SecretStr | None = Field(default=None, description="What the `daybook` command sends to the APIs.")
    master_keys: MasterKeys = Field(
        description="Wrap the keys of personal data. 32 bytes each, in base64, commas between, the newest first."
    )

    master_keys_backed_up: str = Field(
        default="",
        description="Ids of master keys, with commas between, of which somebody keeps a copy elsewhere; `daybook doctor` shows "
        "them.",
    )

    command_url: str = Field(default="http://127.0.0.1:8000", description="Where clients reach the command API.")
    query_url: str = Field(
        default="http://127.0.0.1:8001", description="Where clients reach the query API; `Location` points there."
    )

    database_pool_size: Count = Field(default=4, description="Connections kept open by each process.")
    database_pool_overflow_max: int = Field(default=4, ge=0, description="Connections opened beyond the pool in a rush.")
    database_pool_timeout_ms: Milliseconds = Field(default=1_000, description="Longest wait for a free connection.")
    database_pool_recycle_seconds: Count = Field(default=1_800, description="A connection older than this is replaced.")
    database_pool_pre_ping: bool = Field(default=False, description="Test a connection before each use (costs a round trip).")
    database_connect_timeout_ms: Milliseconds = Field(default=2_000, description="Longest wait for a new connection.")
    database_statement_timeout_ms: Milliseconds = Field(default=2_000, description="Longest run of one statement.")
    database_lock_timeout_ms: Milliseconds = Field(default=1_500, description="Longest wait for a row lock.")
    database_idle_in_transaction_timeout_ms: Milliseconds = Field(
        default=5_000,
        description="An idle transaction older than this is ended by the server, so that no leak stalls the log.",
    )
    schema_wait_seconds: int = Field(default=0, ge=0, description="How long a starting process waits for the migrations.")

    command_deadline_ms: Milliseconds = Field(default=2_500, description="A command not answered by then gets a 503.")
    command_queue_max: Count = Field(default=10_000, description="Commands that may wait for a batch; one more gets a 503.")
    batch_commands_max: Count = Field(default=500, description="Commands in one transaction.")
    stream_cache_max: Count = Field(default=50_000, description="Streams that a writer keeps the folded state of.")
    body_bytes_max: Count = Field(default=262_144, description="Largest request body.")

    read_timeout_ms: Milliseconds = Field(
        default=5_000, description="Longest time in which the head of a request, and then its body, must arrive."
    )
    cors_origins: Annotated[str, AfterValidator(_origins)] = Field(
        default="",
        description="Origins, such as `https://app.example.com`, with commas between, whose web pages may call the APIs. None by "
        "default.",
    )
    rate_limit_caller_per_minute: Count = Field(
        default=60_000, description="Requests of one caller, all its keys together. One more gets a 429."
    )
    rate_limit_address_per_minute: Count = Field(
        default=300, description="Requests without a valid key from one address (IPv6: one /64). One more gets a 429."
    )
    trusted_proxies: Annotated[str, AfterValidator(_networks)] = Field(
        default="",
        description="Addresses and networks, with commas between, of proxies whose `X-Forwarded-For` tells where a request comes "
        "from.",
    )

    session_idle_seconds: Count = Field(default=1_800, description="A session that is not used for so long ends.")
    session_max_seconds: Count = Field(default=43_200, description="Every session ends after so long, used or not.")
    password_hashes_at_once: Count = Field(
        default=2, description="Passwords that a process checks at once; each takes a thread and 64 MiB."
    )
    refusals_max: Count = Field(default=50_000, description="Refused attempts that are kept for auditors.")
    refusals_days: int = Field(
        default=30, ge=1, le=3_650, description="Days for which refused attempts are kept; they hold addresses."
    )

    jwt_issuer: str = Field(default="", description="Who signs the tokens of services: their `iss`.")
    jwt_audience: str = Field(default="", description="For whom the tokens of services are signed: their `aud`.")
    jwt_keys: Annotated[str, AfterValidator(_jwt_keys)] = Field(
        default="",
        description="Public keys of the tokens of services: a JWK set, or a file that has one. Without them no such token is "
        "taken.",
    )

    projector_batch_events_max: Count = Field(default=2_000, description="Events folded into one write of a read model.")
    projector_look_ms: Milliseconds = Field(
        default=500, description="The projector looks for new events at least this often, wake-up or not."
    )
    projector_attempts_max: Count = Field(
        default=5,
        description="How often an event is tried, with growing pauses, that cannot be applied to a read model; then it is put "
        "aside.",
    )
    projector_dead_letters_max: int = Field(
        default=100, ge=0, description="Events that one read model may put aside; at one more it stops. 0: it stops at the first."
    )
    mongo_timeout_ms: Milliseconds = Field(default=2_000, description="Longest wait for MongoDB in a query.")
    redis_timeout_ms: Milliseconds = Field(default=1_000, description="Longest wait for Redis in a query.")
    wake_timeout_ms: Milliseconds = Field(default=50, description="Longest time the command API spends on a wake-up.")
    query_wait_max_ms: Milliseconds = Field(default=10_000, description="Most that `Prefer: wait` can ask for.")

    event_streams_max: Count = Field(default=20, description="Streams of events that one caller may have open at one process.")
    event_stream_heartbeat_ms: Milliseconds = Field(
        default=15_000, description="A stream of events that has nothing to tell says so this often."
    )
    event_stream_stall_ms: Milliseconds = Field(
        default=10_000, description="A reader of a stream of events that takes nothing for so long is cut off."
    )

    seal_key: Annotated[SecretStr, AfterValidator(_seal_key)] | None = Field(
        default=None,
        description="Signs seals: base64 of 32 random bytes (`daybook seal-key --new`). The worker needs it; without it no seals "
        "are made.",
    )
    seal_public_keys: Annotated[str, AfterValidator(_public_keys)] = Field(
        default="",
        description="Public keys, base64 with commas between, whose seals `daybook verify` accepts beside those of the seal key.",
    )
    seal_file: str | None = Field(
        default=None,
        description="File outside PostgreSQL that every seal is appended to as a line of JSON. Without it, seals go to the log.",
    )
    seal_seconds: int = Field(
        default=60,
        ge=1,
        le=3_600,
        description="A seal is made this often, if there is something new. From a minute on, whole minutes.",
    )

    log_level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Least level that is logged.")


def read_settings() -> Settings:
    """Settings from the environment.

    Raises:
        SettingsInvalid: names every missing or wrong variable at once.
    """
    try:
        return Settings()
    except ValidationError as invalid:
        problems = [f"DAYBOOK_{str(e['loc'][0]).upper()}: {e['msg'].lower()}" for e in invalid.errors(include_input=False)]
        raise SettingsInvalid(problems) from None


def settings_or_exit() -> Settings:
    """For the entry points of processes: what is wrong, in one line and without a traceback."""
    try:
        return read_settings()
    except SettingsInvalid as invalid:
        raise SystemExit(f"daybook: {invalid.detail}") from None
