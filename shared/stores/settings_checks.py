"""Checks the settings and the URLs in them, without a query to any server."""

from collections.abc import Iterator
from datetime import date
from ipaddress import ip_address
from typing import Final
from urllib.parse import parse_qs, urlsplit

from shared.privacy.master_keys import master_key_id
from shared.setting_values import read_master_keys, read_networks, read_secrets
from shared.settings import Settings
from shared.stores.findings import Finding, found

DISTINCT_CHARACTERS_MIN: Final = 10
MOTOR_ENDS: Final = date(2027, 5, 14)
"""The last day of support for motor, the driver of MongoDB."""


def check_settings(settings: Settings) -> Iterator[Finding]:
    keys = read_master_keys(settings.master_keys.get_secret_value())
    newest = master_key_id(keys[0])
    if any(map(_is_guessable, read_secrets(settings.secret.get_secret_value()))):
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


def check_urls(settings: Settings) -> Iterator[Finding]:
    """Yields a finding for each store on another machine whose URL has no TLS or no password."""
    for store, variable, url in (
        ("PostgreSQL", "DAYBOOK_DATABASE_URL", settings.database_url),
        ("the pooler", "DAYBOOK_POOLER_URL", settings.pooler_url or ""),
        ("the replica", "DAYBOOK_REPLICA_URL", settings.replica_url or ""),
        ("MongoDB", "DAYBOOK_MONGO_URL", settings.mongo_url),
        ("Redis", "DAYBOOK_REDIS_URL", settings.redis_url),
        ("the search store", "DAYBOOK_SEARCH_URL", settings.search_url or ""),
        ("the timeline store", "DAYBOOK_TIMELINE_URL", settings.timeline_url or ""),
        *((("the broker", "DAYBOOK_PUBLISH_URL", settings.publish_url),) if settings.publish_url else ()),
    ):
        if all(map(_is_here, _hosts(url))):
            continue
        if not _is_encrypted(url):
            yield found("no-tls", store=store, variable=variable)
        # PostgreSQL may need no password because of its own rules or of a client's certificate, which a URL does not show.
        if store not in {"PostgreSQL", "the pooler", "the replica"} and "@" not in url and "MONGODB-X509" not in url:
            yield found("no-password", store=store, variable=variable)


def _hosts(url: str) -> list[str]:
    """Returns the hosts of a URL. A URL of MongoDB or of a broker can have several, and one of PostgreSQL with `host=`."""
    parts = urlsplit(url)
    places = [*parts.netloc.rpartition("@")[2].split(","), *parse_qs(parts.query).get("host", ())]
    return [place.rpartition(":")[0] if place.rpartition(":")[2].isdigit() else place for place in places]


def _is_here(host: str) -> bool:
    """Returns True if the host is this machine: a loopback address or a local socket."""
    name = host.strip("[]")
    if not name or name == "localhost" or "%2f" in name.lower():
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def _is_encrypted(url: str) -> bool:
    query = {name.lower(): values[-1].lower() for name, values in parse_qs(urlsplit(url).query).items()}
    if query.get("sslmode") in {"require", "verify-ca", "verify-full"} or {"sslrootcert", "ca_certs"} & query.keys():
        return True
    if url.startswith(("nats:", "kafka:")) and "ssl_ca_certs" in query:
        return True
    return url.startswith(("rediss:", "rediss+cluster:", "mongodb+srv:", "https:")) or "true" in {
        query.get("tls"),
        query.get("ssl"),
    }
