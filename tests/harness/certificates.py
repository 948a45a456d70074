"""A certificate authority for tests, and servers that speak TLS with its certificates."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_SSL_REQUEST: Final = bytes.fromhex("0000000804d2162f")


class Authority:
    """Signs certificates for 127.0.0.1 or another address. `certificate` is the file to give to clients that trust it."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = folder / f"{name}.pem"
        signs = x509.BasicConstraints(ca=True, path_length=0)
        authority = self._built(self._name, self._key.public_key()).add_extension(signs, critical=True)
        self.certificate.write_bytes(_pem(authority.sign(self._key, hashes.SHA256())))

    def sign(self, address: str = "127.0.0.1") -> Path:
        """Returns a file that contains a new key and its certificate for this address."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))])
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a server")])
        certificate = self._built(subject, key.public_key()).add_extension(names, critical=False)
        file = self._folder / f"{address}.pem"
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        file.write_bytes(private + _pem(certificate.sign(self._key, hashes.SHA256())))
        return file

    def _built(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
        )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


@asynccontextmanager
async def speaking_tls(url: str, certificate: Path) -> AsyncIterator[str]:
    """Starts a TLS proxy to the server in `url`, and yields the URL of the proxy.

    The proxy is needed because the servers that pip installs have no TLS. PostgreSQL's clients send an unencrypted request for
    TLS first, which the proxy answers.
    """
    parts = urlsplit(url)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream: asyncio.StreamWriter | None = None
        try:
            if parts.scheme == "postgresql":
                assert await reader.readexactly(len(_SSL_REQUEST)) == _SSL_REQUEST
                writer.write(b"S")
                await writer.start_tls(context)
            from_server, upstream = await asyncio.open_connection(parts.hostname, parts.port)
            await asyncio.gather(_pass(reader, upstream), _pass(from_server, writer))
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client does not trust the certificate
        finally:
            for each in (writer, upstream):
                if each:
                    each.transport.abort()

    tls = None if parts.scheme == "postgresql" else context
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    try:
        yield url.replace(f":{parts.port}/", f":{port}/").replace("redis://", "rediss://")
    finally:
        server.close()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.close()
