"""Fixtures: servers for the whole test run, and new databases for each test. Nothing starts that no test asks for."""

import asyncio
import gc
import itertools
import os
import shutil
import signal
import tempfile
import time
import warnings
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import hypothesis
import pytest
import pytest_asyncio
from redis.asyncio import Redis as RedisClient
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.cassandra_server import CassandraServer
from dev.kafka_server import KafkaServer
from dev.search_servers import ElasticsearchServer, OpenSearchServer
from dev.servers import MariaDb, Mongo, Redis, start_all, stop_all
from shared.settings import Settings
from shared.stores.postgres import open_postgres
from tests.harness.certificates import Authority
from tests.harness.clusters import RedisCluster
from tests.harness.databases import Databases, copy_postgres, make_migrated_postgres
from tests.harness.engines import lacks, running
from tests.harness.log import MASTER_KEY
from tests.harness.running import PATIENT, Servers, Stack, run_stack

# A developer's shell may have settings of a running stack. No test may touch that stack.
for variable in [name for name in os.environ if name.startswith("DAYBOOK_")]:
    del os.environ[variable]

# How long an example takes says more about the machine than about the code.
hypothesis.settings.register_profile("daybook", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("daybook")

SEEDS_TRIED = pytest.StashKey[list[str]]()
REDIS_DATABASES = itertools.cycle(range(1, 64))
MEMORY = Path("/dev/shm")  # not a place for files of ours
MEMORY_BYTES_MIN = 8 * 1024**3


# A shell that runs the tests in the background makes them, and the processes that they start, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--prove", action="store_true", help="run only the tests that are marked as proofs, each in its long form")
    parser.addoption("--first-seed", type=int, default=1, help="the seed that proofs with random tries begin with")
    parser.addoption("--minutes", type=float, help="let each proof with random tries go on for this time, whatever its number")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs each proof with the fixture `seed` once for each seed, so that the name of a failed test contains the seed."""
    if "seed" in metafunc.fixturenames and metafunc.definition.get_closest_marker("proof"):
        metafunc.parametrize("seed", range(1, 1 + _repetitions(metafunc.definition)))


JAVA_ENGINES = frozenset({"opensearch", "elasticsearch", "kafka", "cassandra"})
"""Fixtures whose servers take 20 s to start."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if not {"servers", "migrated_postgres"}.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker("services")
        engines = JAVA_ENGINES.intersection(getattr(item, "fixturenames", ()))
        if engines:
            item.add_marker("slow")
        # With `--dist loadgroup`, one test process has all tests of an engine, and of other tests all of a file.
        item.add_marker(pytest.mark.xdist_group("+".join(sorted(engines)) or str(item.path)))
    if config.getoption("--prove"):
        others = [item for item in items if not item.get_closest_marker("proof")]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item.get_closest_marker("proof")]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("engine"):
        engine, missing = mark.args
        if missing:
            lacks(engine, missing)


def _repetitions(test: pytest.Item) -> int:
    marker = test.get_closest_marker("proof")
    assert marker, "only a test with the marker of proofs can use this fixture"
    short, long = marker.args
    return int(long if test.config.getoption("--prove") else short)


@pytest.fixture
def proving(pytestconfig: pytest.Config) -> bool:
    """True with `--prove`: proofs run in their long form, which may take as much time as it needs and use the whole machine."""
    return bool(pytestconfig.getoption("--prove"))


@pytest.fixture
def repetitions(request: pytest.FixtureRequest) -> int:
    """Returns how often a proof repeats its check: the first number of its marker, or the second with `--prove`."""
    return _repetitions(request.node)


@pytest.fixture
def seeds(request: pytest.FixtureRequest) -> Iterator[Iterator[int]]:
    """The seeds of a proof with random tries: as many as its marker says, or as many as `--minutes` allows.

    The run says at its end which seeds were tried, so that the next can begin with `--first-seed` after them.
    """
    minutes, first = request.config.getoption("--minutes"), request.config.getoption("--first-seed")
    tried = first - 1

    def tries() -> Iterator[int]:
        nonlocal tried
        end = None if minutes is None else time.monotonic() + 60 * minutes
        for seed in itertools.count(first):
            if seed - first >= _repetitions(request.node) if end is None else time.monotonic() >= end:
                return
            tried = seed
            yield seed

    yield tries()
    request.config.stash.setdefault(SEEDS_TRIED, []).append(f"{request.node.nodeid}: seeds {first} to {tried}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.getoption("--prove"):
        for line in config.stash.get(SEEDS_TRIED, []):
            terminalreporter.write_line(line)


def _memory_with_room() -> Path | None:
    """Returns a folder that is kept in memory, or None if the machine has none with room for the servers of several processes."""
    try:
        free, lines = shutil.disk_usage(MEMORY).free, Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    return MEMORY if min(free, available) >= MEMORY_BYTES_MIN and os.access(MEMORY, os.W_OK) else None


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """Yields a folder for the servers' data. It is deleted after the run; pytest would keep its own folders of several runs.

    If the machine has enough memory, the folder is there: on a disk, tests spend a third of their time waiting until it has
    synced what they wrote. What a server loses when it is killed is the same in both places.
    """
    with tempfile.TemporaryDirectory(prefix="daybook-tests-", dir=_memory_with_room()) as folder:
        yield Path(folder)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def migrated_postgres(server_folder: Path) -> Path:
    """Returns the folder of a stopped PostgreSQL with all migrations and the operator's key, for `copy_postgres`.

    `make mutants` runs pytest for each mutant, and so has the folder made once: it names it in `MIGRATED_POSTGRES`.
    """
    if made := os.environ.get("MIGRATED_POSTGRES"):
        return Path(made)
    folder = server_folder / "migrated"
    folder.mkdir()
    return await make_migrated_postgres(folder)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def servers(server_folder: Path, migrated_postgres: Path) -> AsyncIterator[Servers]:
    """PostgreSQL, MongoDB and Redis for the whole run. A test that kills or freezes a server must start its own."""
    postgres = copy_postgres(migrated_postgres, server_folder)
    mongo, redis = Mongo("mongo", server_folder), Redis("redis", server_folder)
    await start_all(postgres, mongo, redis)
    # A driver that asked a server during its start can leave a socket to the garbage collector. Without this, a test would fail.
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        gc.collect()
    yield Servers(postgres, mongo, redis)
    await stop_all(postgres, mongo, redis)


@pytest.fixture(scope="session")
def redis_cluster(server_folder: Path) -> Iterator[RedisCluster]:
    """A Redis Cluster of three masters for the whole run, as `servers`."""
    folder = server_folder / "redis-cluster"
    folder.mkdir()
    cluster = RedisCluster(folder)
    # The thread stays until the end, and any test can ask for the cluster: see `running`.
    with ThreadPoolExecutor(1) as thread:
        try:
            thread.submit(asyncio.run, cluster.start()).result()
            yield cluster
        finally:
            thread.submit(asyncio.run, stop_all(*cluster.members)).result()


@pytest.fixture(scope="session")
def mariadb(server_folder: Path) -> Iterator[MariaDb]:
    """MariaDB for the whole run. A test that asks for it is skipped where it is not installed."""
    with running(MariaDb("mariadb", server_folder)) as server:
        yield server


@pytest.fixture(scope="session")
def opensearch(server_folder: Path) -> Iterator[OpenSearchServer]:
    """OpenSearch for the whole run. A test that asks for it is skipped where `make engines` has not been run."""
    with running(OpenSearchServer("opensearch", server_folder)) as server:
        yield server


@pytest.fixture(scope="session")
def elasticsearch(server_folder: Path) -> Iterator[ElasticsearchServer]:
    """Elasticsearch for the whole run, as `opensearch`."""
    with running(ElasticsearchServer("elasticsearch", server_folder)) as server:
        yield server


@pytest.fixture(scope="session")
def authority(server_folder: Path) -> Authority:
    """The authority that the certificates of this run's servers are of."""
    return Authority(server_folder, "authority")


@pytest.fixture(scope="session")
def kafka(server_folder: Path, authority: Authority) -> Iterator[KafkaServer]:
    """Kafka for the whole run, with and without TLS. A test that asks for it is skipped as one of `opensearch`."""
    with running(KafkaServer("kafka", server_folder, certificate=authority.sign())) as server:
        yield server


@pytest.fixture(scope="session")
def cassandra(server_folder: Path) -> Iterator[CassandraServer]:
    """Cassandra for the whole run. A test that asks for it is skipped where `make engines` has not been run."""
    with running(CassandraServer("cassandra", server_folder)) as server:
        yield server


@pytest.fixture(scope="session")
def databases(servers: Servers) -> Iterator[Databases]:
    """A supply of migrated databases without events, in the servers of this run."""
    with Databases(servers.postgres, servers.mongo) as supply:
        yield supply


@pytest_asyncio.fixture
async def settings(servers: Servers, databases: Databases) -> AsyncIterator[Settings]:
    """Settings that point to a migrated, empty database, an empty MongoDB database and an empty Redis database."""
    async with _fresh_settings(servers, databases) as fresh:
        yield fresh


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_settings(servers: Servers, databases: Databases) -> AsyncIterator[Settings]:
    """The same for a process that all tests of a module share, because each of them leaves it as it was."""
    async with _fresh_settings(servers, databases) as fresh:
        yield fresh


@pytest_asyncio.fixture
async def elsewhere(servers: Servers, databases: Databases) -> AsyncIterator[Settings]:
    """A second set of `settings` that points to other empty databases."""
    async with _fresh_settings(servers, databases) as fresh:
        yield fresh


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_settings(servers: Servers, databases: Databases) -> AsyncIterator[Settings]:
    """As `settings`, once for all tests of a module, which must then not disturb each other."""
    async with _fresh_settings(servers, databases) as fresh:
        yield fresh


@asynccontextmanager
async def _fresh_settings(servers: Servers, databases: Databases) -> AsyncIterator[Settings]:
    redis_url = servers.redis.url.removesuffix("/0") + f"/{next(REDIS_DATABASES)}"
    name, _ = await asyncio.gather(databases.take(), _empty(redis_url))
    yield Settings(
        database_url=servers.postgres.url.removesuffix("daybook") + name,
        mongo_url=servers.mongo.url,
        mongo_database=name,
        redis_url=redis_url,
        secret="for tests only and long enough to be taken",
        master_keys=MASTER_KEY,
        **PATIENT,
    )
    databases.drop(name)


@pytest_asyncio.fixture
async def engine(settings: Settings) -> AsyncIterator[AsyncEngine]:
    """An engine with the database role of the command API."""
    async with open_postgres(settings, "daybook_command") as opened:
        yield opened


@pytest_asyncio.fixture
async def stack(settings: Settings, tmp_path: Path) -> AsyncIterator[Stack]:
    """Both APIs and the worker as real processes. To set more environment variables, use `run_stack` instead."""
    async with run_stack(settings, tmp_path) as running:
        yield running


async def _empty(redis_url: str) -> None:
    async with RedisClient.from_url(redis_url) as client:
        await client.flushdb()
