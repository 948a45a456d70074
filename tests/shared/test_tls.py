"""A URL is enough to reach each store over TLS. A server that cannot prove its identity gets no data."""

from pathlib import Path

import pytest
from pymongo.errors import PyMongoError
from sqlalchemy import text

from dev.child_processes import ProgramArguments
from dev.daybook_processes import migrate
from dev.servers import Mongo
from projector.worker import make_pool
from shared.errors import SettingsInvalid
from shared.settings import Settings
from shared.stores.mongo import open_mongo
from shared.stores.postgres import open_postgres
from shared.stores.redis import open_redis
from shared.stores.store_errors import POSTGRES_AND_REDIS_ERRORS
from tests.harness.certificates import Authority, speaking_tls

ELSEWHERE = "192.0.2.1"
"""An address whose certificate is valid, but not for the address that the clients connect to."""


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "daybook-test")


def changed(settings: Settings, **fields: object) -> Settings:
    return settings.model_copy(update=fields)


async def ask_postgres(settings: Settings) -> None:
    async with open_postgres(settings, "daybook_query") as engine, engine.connect() as connection:
        assert await connection.scalar(text("SELECT 1")) == 1


async def ask_redis(settings: Settings) -> None:
    async with open_redis(settings) as redis:
        await redis.ping()


@pytest.mark.slow
@pytest.mark.parametrize("query", ["sslmode=verify-full&", "sslmode=verify-ca&", ""])
async def test_postgres_over_tls(settings: Settings, authority: Authority, query: str, tmp_path: Path) -> None:
    async with speaking_tls(settings.database_url, authority.sign()) as url:
        trusting = changed(settings, database_url=f"{url}?{query}sslrootcert={authority.certificate}")
        await ask_postgres(trusting)
        await migrate(tmp_path, {"DAYBOOK_DATABASE_URL": trusting.database_url})
        stranger = Authority(tmp_path, "stranger")
        with pytest.raises(POSTGRES_AND_REDIS_ERRORS):
            await ask_postgres(changed(settings, database_url=f"{url}?{query}sslrootcert={stranger.certificate}"))


async def test_redis_over_tls(settings: Settings, authority: Authority, tmp_path: Path) -> None:
    async with speaking_tls(settings.redis_url, authority.sign()) as url:
        await ask_redis(changed(settings, redis_url=f"{url}?ssl_ca_certs={authority.certificate}"))
        stranger = Authority(tmp_path, "stranger")
        with pytest.raises(POSTGRES_AND_REDIS_ERRORS):
            await ask_redis(changed(settings, redis_url=f"{url}?ssl_ca_certs={stranger.certificate}"))


async def test_the_worker_checks_whose_certificate_it_is_too(settings: Settings) -> None:
    pool = make_pool(changed(settings, redis_url="rediss://127.0.0.1:1/0"))
    assert pool.connection_pool.connection_kwargs["ssl_check_hostname"] is True
    assert "ssl_check_hostname" not in make_pool(settings).connection_pool.connection_kwargs


async def test_a_good_certificate_of_somebody_else_is_refused(settings: Settings, authority: Authority) -> None:
    certificate = authority.sign(ELSEWHERE)
    async with speaking_tls(settings.database_url, certificate) as url:
        with pytest.raises(POSTGRES_AND_REDIS_ERRORS):
            await ask_postgres(changed(settings, database_url=f"{url}?sslmode=verify-full&sslrootcert={authority.certificate}"))
        await ask_postgres(changed(settings, database_url=f"{url}?sslmode=verify-ca&sslrootcert={authority.certificate}"))
    async with speaking_tls(settings.redis_url, certificate) as url:
        with pytest.raises(POSTGRES_AND_REDIS_ERRORS):
            await ask_redis(changed(settings, redis_url=f"{url}?ssl_ca_certs={authority.certificate}"))


@pytest.mark.parametrize("query", ["sslmode=verified", "sslmode=verify-full&sslrootcert=/nowhere/ca.pem"])
async def test_a_mode_or_a_file_that_is_not_there_is_named_without_the_url(settings: Settings, query: str) -> None:
    with pytest.raises(SettingsInvalid, match="DAYBOOK_DATABASE_URL") as refused:
        await ask_postgres(changed(settings, database_url=f"{settings.database_url}?{query}"))
    assert "postgresql" not in str(refused.value)


class SecureMongo(Mongo):
    """A mongod that accepts only connections with TLS."""

    certificate: Path
    authority: Path

    @property
    def url(self) -> str:
        return f"{super().url}&tls=true&tlsCAFile={self.authority}"

    def _command(self) -> ProgramArguments:
        return [
            *super()._command(),
            *("--tlsMode", "requireTLS", "--tlsCertificateKeyFile", self.certificate, "--tlsCAFile", self.authority),
            "--tlsAllowConnectionsWithoutCertificates",
        ]


@pytest.mark.slow
@pytest.mark.services
async def test_mongo_over_tls(authority: Authority, server_folder: Path, tmp_path: Path) -> None:
    mongo = SecureMongo("mongo-tls", server_folder)
    mongo.certificate, mongo.authority = authority.sign(), authority.certificate
    await mongo.start()
    try:
        await ask_mongo(mongo.url)
        stranger = Authority(tmp_path, "stranger")
        with pytest.raises(PyMongoError):
            await ask_mongo(mongo.url.replace(str(authority.certificate), str(stranger.certificate)))
    finally:
        await mongo.stop()


async def ask_mongo(url: str) -> None:
    settings = Settings.model_construct(mongo_url=url, mongo_database="daybook", mongo_timeout_ms=1_000)
    async with open_mongo(settings) as mongo:
        await mongo.command("ping")
