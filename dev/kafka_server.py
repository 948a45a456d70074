"""Runs Apache Kafka for tests, from the jars that `make engines` gets."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from dev.child_processes import ProgramArguments
from dev.jar_server import JarServer
from dev.ports import free_port
from shared.private_files import write_private

_CLUSTER_ID: Final = "ZGF5Ym9vay1kYXlib29rIQ"
_FORMAT: Final = '"$@" kafka.tools.StorageTool format --ignore-formatted -t "$0" -c "$CONFIG" $USERS'
_LOGINS: Final = "org.apache.kafka.common.security"
_FORMAT_AND_RUN: Final = f'{_FORMAT} && exec "$@" kafka.Kafka "$CONFIG"'


class KafkaServer(JarServer):
    """One Kafka broker, which is its own controller. It makes no topic that nobody asked for.

    With a `certificate`, which is a file with its key and itself, the broker also listens at `secure_url`, with TLS and a login.
    """

    engine = "kafka"
    _controller_port: int | None = None
    _secure_port: int | None = None

    def __init__(self, name: str, folder: Path, *, certificate: Path | None = None, inherit: Sequence[int] = ()) -> None:
        super().__init__(name, folder, inherit=inherit)
        self._certificate = certificate

    @property
    def url(self) -> str:
        return f"kafka://127.0.0.1:{self.port}"

    def secure_url(self, mechanism: str, authority: Path) -> str:
        """Returns the URL with a login by `PLAIN` or `SCRAM-SHA-512`. `authority` signed the certificate."""
        login = f"daybook:{self._password('daybook')}"
        return f"kafka://{login}@127.0.0.1:{self._secure_port}?ssl_ca_certs={authority}&mechanism={mechanism}"

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
        users = ""
        if self._certificate:
            self._secure_port = self._secure_port or free_port()
            for name in ("listeners", "advertised.listeners"):
                settings[name] += f",SASL_SSL://127.0.0.1:{self._secure_port}"
            settings |= self._security(self._certificate)
            users = f"--add-scram SCRAM-SHA-512=[name=daybook,password={self._password('daybook')}]"
        config = self.folder / "kafka.properties"
        write_private(config, "".join(f"{name}={value}\n" for name, value in settings.items()))
        self.environment = {"CONFIG": str(config), "USERS": users}
        return ["sh", "-c", _FORMAT_AND_RUN, _CLUSTER_ID, *self._java("256m")]

    def _security(self, certificate: Path) -> dict[str, str]:
        login = f'required user_daybook="{self._password("daybook")}";'
        return {
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT",
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
            "listener.name.sasl_ssl.plain.sasl.jaas.config": f"{_LOGINS}.plain.PlainLoginModule {login}",
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": f"{_LOGINS}.scram.ScramLoginModule required;",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(certificate),
        }

    async def _settle(self) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.close()
        await writer.wait_closed()
