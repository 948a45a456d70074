"""Runs Cassandra for development and tests, from the jars that `make engines` gets."""

import asyncio
import json
from pathlib import Path
from typing import Final

from dev.child_processes import ProgramArguments
from dev.engine_jars import DEFINITIONS
from dev.jar_server import JarServer
from dev.ports import free_port

_HOST: Final = "127.0.0.1"


class CassandraServer(JarServer):
    """Cassandra with one node, without a login: everybody on this machine can read it."""

    engine = "cassandra"
    start_seconds = 180.0
    stop_seconds = 15.0

    @property
    def url(self) -> str:
        return f"cassandra://{_HOST}:{self.port}/daybook"

    def _command(self) -> ProgramArguments:
        self._configure()
        definition = DEFINITIONS / self.engine
        options = [
            *(f"@{definition / 'jvm17.args'}", f"-Dlogback.configurationFile={definition / 'logback.xml'}"),
            *(f"-Dcassandra.config={self._settings.as_uri()}", f"-Dcassandra.storagedir={self.folder}"),
            *("-Dcassandra-foreground=yes", "-Dcassandra.superuser_setup_delay_ms=0"),
            *("-Dcassandra.skip_wait_for_gossip_to_settle=0", "-Dcassandra.ring_delay_ms=100"),
        ]
        return [*self._java("512m", *options), "org.apache.cassandra.service.CassandraDaemon"]

    def _configure(self) -> None:
        """Writes the settings as JSON, which is YAML too."""
        storage = free_port()
        settings = {
            "cluster_name": "daybook",
            "num_tokens": 1,
            "partitioner": "org.apache.cassandra.dht.Murmur3Partitioner",
            "commitlog_sync": "group",
            "commitlog_sync_group_window": "5ms",
            "commitlog_directory": f"{self.folder}/commitlog",
            "data_file_directories": [f"{self.folder}/data"],
            "saved_caches_directory": f"{self.folder}/saved_caches",
            "hints_directory": f"{self.folder}/hints",
            "cdc_raw_directory": f"{self.folder}/cdc_raw",
            "endpoint_snitch": "SimpleSnitch",
            "listen_address": _HOST,
            "rpc_address": _HOST,
            "storage_port": storage,
            "native_transport_port": self.port,
            "start_native_transport": True,
            "memtable_heap_space": "64MiB",
            "memtable_offheap_space": "64MiB",
            "concurrent_reads": 8,
            "concurrent_writes": 32,
            "auto_snapshot": False,
            "seed_provider": [
                {
                    "class_name": "org.apache.cassandra.locator.SimpleSeedProvider",
                    "parameters": [{"seeds": f"{_HOST}:{storage}"}],
                }
            ],
        }
        self._settings.write_text(json.dumps(settings))

    @property
    def _settings(self) -> Path:
        return self.folder / "cassandra.yaml"

    async def _settle(self) -> None:
        _, writer = await asyncio.open_connection(_HOST, self.port)
        writer.close()
        await writer.wait_closed()
