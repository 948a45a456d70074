"""Runs Apache Kafka for tests, from the jars that `make engines` gets."""

import asyncio
from typing import Final

from dev.child_processes import ProgramArguments
from dev.jar_server import JarServer
from dev.ports import free_port
from shared.private_files import write_private

_CLUSTER_ID: Final = "ZGF5Ym9vay1kYXlib29rIQ"
_FORMAT: Final = '"$@" kafka.tools.StorageTool format --ignore-formatted -t "$0" -c "$CONFIG"'
_FORMAT_AND_RUN: Final = f'{_FORMAT} && exec "$@" kafka.Kafka "$CONFIG"'


class KafkaServer(JarServer):
    """One Kafka broker, which is its own controller. It makes no topic that nobody asked for."""

    engine = "kafka"
    _controller_port: int | None = None

    @property
    def url(self) -> str:
        return f"kafka://127.0.0.1:{self.port}"

    def _command(self) -> ProgramArguments:
        self._controller_port = self._controller_port or free_port()
        controller = f"127.0.0.1:{self._controller_port}"
        broker = f"127.0.0.1:{self.port}"
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{controller}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://{broker},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{broker}",
            "log.dirs": str(self.folder / "data"),
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
        }
        config = self.folder / "kafka.properties"
        write_private(config, "".join(f"{name}={value}\n" for name, value in settings.items()))
        self.environment = {"CONFIG": str(config)}
        return ["sh", "-c", _FORMAT_AND_RUN, _CLUSTER_ID, *self._java("256m")]

    async def _settle(self) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.close()
        await writer.wait_closed()
