"""Runs OpenSearch and Elasticsearch for development and tests, from the jars that `make engines` gets."""

import asyncio
from typing import ClassVar
from urllib.request import urlopen

from dev.child_processes import ProgramArguments
from dev.engine_jars import DEFINITIONS
from dev.jar_server import JarServer
from dev.ports import free_port


class SearchServer(JarServer):
    """A search store with one node, without a login: everybody on this machine can read it."""

    _node_class: ClassVar[str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _command(self) -> ProgramArguments:
        options = [
            f"-Dlog4j2.configurationFile={DEFINITIONS / self.engine / 'log4j2.properties'}",
            # Elasticsearch asks for it and does not start without. OpenSearch does not read it.
            "-Des.distribution.flavor=default",
        ]
        return [*self._java("512m", *options), self._node_class, self.folder, str(self.port), str(free_port())]

    async def _settle(self) -> None:
        await asyncio.to_thread(self._ask)

    def _ask(self) -> None:
        with urlopen(f"{self.url}/_cluster/health?wait_for_status=yellow&timeout=1s", timeout=2) as answer:  # noqa: S310 # http
            answer.read()


class OpenSearchServer(SearchServer):
    """OpenSearch 2."""

    engine = "opensearch"
    _node_class = "OpenSearchNode"


class ElasticsearchServer(SearchServer):
    """Elasticsearch 7.10, the last version with a free licence."""

    engine = "elasticsearch"
    _node_class = "ElasticsearchNode"
