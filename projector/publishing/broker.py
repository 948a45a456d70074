"""What a broker must do for the publisher, and how the one that DAYBOOK_PUBLISH_URL names is opened."""

from collections.abc import Sequence
from importlib import import_module
from typing import Final, NamedTuple, Protocol

from shared.broker_address import BrokerAddress, read_broker_address
from shared.errors import SettingsInvalid
from shared.settings import Settings

ANSWER_SECONDS: Final = 10.0
"""The longest wait for the answer of a broker."""
CONTENT_TYPE: Final = "application/cloudevents+json; charset=UTF-8"
_MODULES: Final = {"nats": "projector.publishing.nats_broker", "kafka": "projector.publishing.kafka_broker"}


class PublishedMessage(NamedTuple):
    """What a broker stores of one event: the event's position, and the CloudEvent as JSON."""

    position: int
    body: bytes


class BrokerFailure(Exception):  # an outcome that the publisher expects, as `BrokerFailed` would be
    """The broker did not do what was asked. `cause` is for operators and has no data of events.

    The broker has acknowledged the first `acknowledged` messages of those that were sent, and maybe stored some of the others.
    """

    def __init__(self, cause: str, acknowledged: int = 0) -> None:
        super().__init__(cause)
        self.cause = cause
        self.acknowledged = acknowledged


class Broker(Protocol):
    """A broker with a topic for each ledger. It connects when it is asked, and connects again after a failure.

    Every method raises `BrokerFailure` if the broker does not answer in about `ANSWER_SECONDS`.
    """

    async def has_topic(self, ledger_id: str) -> bool:
        """Returns True if there is a topic for this ledger. Asks the broker only once for each connection."""

    async def make_topic(self, ledger_id: str) -> None: ...

    async def publish(self, ledger_id: str, messages: Sequence[PublishedMessage]) -> None:
        """Sends messages in order, and returns when the broker has acknowledged all of them.

        The broker never stores a message before an earlier one of the same call. A message that it has stored may come twice.
        """

    async def close(self) -> None: ...


def open_broker(settings: Settings) -> Broker:
    """Returns the broker, which is not connected yet.

    Raises:
        SettingsInvalid: its packages are not installed.
    """
    address: BrokerAddress = read_broker_address(settings.publish_url or "")
    try:
        module = import_module(_MODULES[address.kind])
    except ModuleNotFoundError as missing:
        problem = f"needs the package {missing.name}, which is not installed: run `pip install 'daybook[publish]'`"
        raise SettingsInvalid([f"DAYBOOK_PUBLISH_URL: {problem}"]) from None
    broker: Broker = module.make_broker(address, settings.publish_prefix)
    return broker
