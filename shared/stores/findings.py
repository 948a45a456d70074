"""The list of all findings of `daybook doctor`, each with its severity, a description, and what to do about it."""

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

Severity = Literal["danger", "warning"]


class Finding(msgspec.Struct, frozen=True):
    """Something unsafe. `name` never changes. In production, a process does not start if a finding has the severity `danger`."""

    name: str
    severity: Severity
    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.name}: {self.what}; {self.fix}"


# Name: (severity, description, what to do).
KINDS: Final[Mapping[str, tuple[Severity, str, str]]] = {
    "no-answer": ("danger", "{store} does not answer every question ({reason})", "check its URL and its rights"),
    "postgres-not-durable": (
        "danger",
        "PostgreSQL runs with {setting} = {value}: acknowledged commands could be lost",
        "ALTER SYSTEM SET {setting} = 'on' and reload; a DATABASE or a ROLE may have it set too",
    ),
    "postgres-asynchronous": (
        "warning",
        "PostgreSQL answers before its standbys ({standbys}) have a commit, so a failover can lose acknowledged commands",
        "set synchronous_standby_names, or synchronous_mode of Patroni, if a standby may become the primary",
    ),
    "postgres-too-old": ("danger", "PostgreSQL {release} lacks what Daybook uses", "upgrade to {least} or later"),
    "login-superuser": (
        "danger",
        "DAYBOOK_DATABASE_URL logs in as the superuser {login}, who may do everything",
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
    "reporting-schema-other": ("warning", "no report can be read: {what}", "`daybook migrate`"),
    "reporting-schema-changed": ("warning", "in the reporting database, {part} {state}", "{fix}"),
    "search-mapping-changed": ("warning", "in the search store, {part} {state}", "{fix}"),
    "broker-unusable": ("warning", "nothing can be published to the broker {server}: {what}", "{fix}"),
    "timeline-table-changed": ("warning", "in the timeline store, {part} {state}", "{fix}"),
    "master-key-missing": (
        "danger",
        "the keys of {people} people are wrapped by a master key that is not configured",
        "add it to DAYBOOK_MASTER_KEYS, after the others",
    ),
    "master-key-guessable": (
        "danger",
        "a key of DAYBOOK_MASTER_KEYS is not random",
        "put a new one first (`openssl rand -base64 32`), then `daybook master-keys rotate`",
    ),
    "master-key-backup": (
        "warning",
        "nobody has confirmed a copy of master key {key_id}; if it is lost, so is every name and address",
        "keep a copy elsewhere, then DAYBOOK_MASTER_KEYS_BACKED_UP={key_id}",
    ),
    "secret-guessable": (
        "danger",
        "DAYBOOK_SECRET has too few different characters and can be guessed",
        "`openssl rand -hex 32`",
    ),
    "seal-key-missing": ("warning", "no seals are made", "DAYBOOK_SEAL_KEY: `daybook seal-key --new`"),
    "seal-file-missing": (
        "warning",
        "seals are stored only in the PostgreSQL that they should prove, and in the worker's log lines",
        "DAYBOOK_SEAL_FILE, on another disk or machine",
    ),
    "proxies-anybody": (
        "danger",
        "DAYBOOK_TRUSTED_PROXIES trusts every address, so a caller can claim any address",
        "name only the proxies",
    ),
    "no-tls": (
        "warning",
        "the network connection to {store} is not encrypted, so others can read passwords and balances",
        "TLS by {variable}: docs/security.md",
    ),
    "no-password": (
        "danger",
        "{store} is on another machine and takes connections without a password",
        "create a user, and name it in {variable}",
    ),
    "mongo-no-replica-set": (
        "danger",
        "MongoDB is not a replica set and therefore has no transactions",
        "start it with --replSet; one node is enough",
    ),
    "mongo-no-spare": (
        "warning",
        "{majority} of {members} members of MongoDB must have a write, and {with_data} hold data: if one fails, none is written",
        "three members with data, and no arbiter",
    ),
    "mongo-one-member": (
        "warning",
        "DAYBOOK_MONGO_URL has directConnection=true, so it reaches one of {members} members, also when another is the primary",
        "name all members and the replicaSet in it",
    ),
    "mongo-not-majority": (
        "warning",
        "DAYBOOK_MONGO_URL asks for {option}, and Daybook writes and reads by majority all the same",
        "remove it from the URL",
    ),
    "redis-may-evict": (
        "danger",
        "Redis runs with maxmemory-policy {policy}: it may evict balances",
        "CONFIG SET maxmemory-policy noeviction, and in its file",
    ),
    "redis-not-kept": (
        "warning",
        "Redis does not write every change to disk: after a crash, balances are built again and denials are lost",
        "appendonly yes",
    ),
    "redis-too-old": ("danger", "Redis {release} lacks what Daybook uses", "upgrade to {least} or later"),
    "redis-cluster-unnamed": (
        "danger",
        "Redis is a server of a cluster, and DAYBOOK_REDIS_URL names no cluster, so the keys of other servers are not found",
        "redis+cluster:// in the URL: docs/scaling.md",
    ),
    "redis-cluster-incomplete": (
        "warning",
        "{away} of {slots} slots of the Redis Cluster have no server that answers",
        "start the server that is away, or give its slots to another one",
    ),
    "redis-no-replica": (
        "warning",
        "a server of the Redis Cluster has no replica, so its balances and sessions are away while it is",
        "add a replica of each master",
    ),
    "clock-skew": ("warning", "the clock of {store} and ours differ by {seconds} s", "set both by NTP"),
    "clock-wrong": (
        "danger",
        "the clock of {store} and ours differ by {seconds} s, and expiry and limits depend on clocks",
        "set both by NTP",
    ),
    "store-end-of-life": ("warning", "{store} {release} has got no fixes since {ends}", "upgrade it"),
    "driver-end-of-life": (
        "warning",
        "motor, the driver of MongoDB, gets only critical fixes, and none after {ends}",
        "upgrade Daybook to a version that uses PyMongo's own asynchronous client, when there is one",
    ),
}


def found(name: str, **values: object) -> Finding:
    severity, what, fix = KINDS[name]
    return Finding(name, severity, what.format(**values), fix.format(**values))
