"""Reads `DAYBOOK_PUBLISH_URL`: the address of a broker, with the login and TLS. No message repeats the URL."""

import ssl
from typing import Any, Final, Literal
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from shared.http_values import PORT_MAX

BrokerKind = Literal["nats", "kafka"]

PORTS: Final[dict[str, int]] = {"nats": 4_222, "kafka": 9_092}
"""The kinds of brokers, and the port of each if the URL names none."""
MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_OPTIONS: Final = {"tls", "ssl_ca_certs", "mechanism"}


class BrokerAddress(msgspec.Struct, frozen=True):
    """Where a broker is, and how to log in. `servers` has `host:port` of each server. `user` is None without a login.

    `ca_file` is the file with the authorities for TLS, or None for those of the system. `mechanism` is one of `MECHANISMS`, for
    Kafka only.
    """

    kind: BrokerKind
    servers: tuple[str, ...]
    user: str | None = None
    password: str = ""
    is_encrypted: bool = False
    ca_file: str | None = None
    mechanism: str = "PLAIN"


def read_broker_address(text: str) -> BrokerAddress:
    """Returns the address in a URL such as `nats://user:password@host:4222,other:4222?tls=true`.

    Raises:
        ValueError: the text is not such a URL. The message does not repeat it.
    """
    try:
        url = urlsplit(text)
        options = {name: values[-1] for name, values in parse_qs(url.query, strict_parsing=bool(url.query)).items()}
    except ValueError:
        raise ValueError("cannot be read as a URL") from None
    if url.scheme not in PORTS:
        raise ValueError("must begin with nats:// or kafka://")
    if url.path not in {"", "/"} or url.fragment or options.keys() - _OPTIONS:
        raise ValueError("may have the options tls, ssl_ca_certs and mechanism after the hosts, and nothing else")
    mechanism = options.get("mechanism", "PLAIN")
    if mechanism not in MECHANISMS or options.get("tls", "true") not in {"true", "false"}:
        raise ValueError(f"tls is true or false, and mechanism one of {', '.join(MECHANISMS)}")
    login, _, hosts = url.netloc.rpartition("@")
    user, _, password = login.partition(":")
    return BrokerAddress(
        kind="nats" if url.scheme == "nats" else "kafka",
        servers=tuple(_with_port(host, PORTS[url.scheme]) for host in hosts.split(",")),
        user=unquote(user) or None,
        password=unquote(password),
        is_encrypted=options.get("tls") == "true" or "ssl_ca_certs" in options,
        ca_file=options.get("ssl_ca_certs"),
        mechanism=mechanism,
    )


def kafka_login(address: BrokerAddress) -> dict[str, Any]:
    """Returns the options of aiokafka for TLS and the login. Reads the file with the authorities."""
    return {
        "security_protocol": ("SASL_" if address.user else "") + ("SSL" if address.is_encrypted else "PLAINTEXT"),
        "ssl_context": _tls(address),
        "sasl_mechanism": address.mechanism,
        "sasl_plain_username": address.user,
        "sasl_plain_password": address.password,
    }


def nats_login(address: BrokerAddress) -> dict[str, Any]:
    """Returns the options of nats-py for TLS and the login. Reads the file with the authorities."""
    return {"user": address.user, "password": address.password or None, "tls": _tls(address)}


def _tls(address: BrokerAddress) -> ssl.SSLContext | None:
    return ssl.create_default_context(cafile=address.ca_file) if address.is_encrypted else None


def _with_port(place: str, port: int) -> str:
    host, colon, given = place.rpartition(":")
    if not colon or place.endswith("]"):  # an address of IPv6 without a port ends with a bracket
        host, given = place, str(port)
    if not host or not given.isdecimal() or not 0 < int(given) <= PORT_MAX:
        raise ValueError("must name at least one host, each with or without a port")
    return f"{host}:{given}"
