"""The base class of commands. A command has fields, names the streams that it depends on, and makes a pure decision.

To add a command, write a class like those in `user`, `account` and `transfer`, and a route in `command_api.routes`. The fields of
the class are the JSON body of the request. Never rename a command class, because its name is stored in the metadata of events.
A decision does no I/O, reads no clock and makes no ids. It uses only the fields of the command and the states of its streams.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from command_api.domain.command_fields import StrictFields
from shared.errors import Rejection
from shared.log.events import Event

States = Mapping[str, Any]
"""The states of streams, by stream id. A stream without events has the initial state of its fold."""


class Command(StrictFields):
    """A request to change something. It is either recorded as events or rejected."""

    creates_ledger: ClassVar[bool] = False
    """True if the command creates the ledger that it is sent to."""
    suits_closed_ledgers: ClassVar[bool] = False
    """True if a closed ledger takes the command, because the duty does not end: to erase a person, to record what has expired."""

    def streams(self) -> tuple[str, ...]:
        """Returns the streams that the decision depends on. `If-Match` is compared with the version of the first stream."""
        raise NotImplementedError

    def person_id(self) -> str | None:
        """Returns the id of the person whose personal data the command contains, or None.

        For a command with a person, the stored reply is encrypted, and the hash of the request is keyed with a secret.
        """
        return None

    def further_streams(self, states: States) -> tuple[str, ...]:  # noqa: ARG002
        """Returns more streams that the decision depends on. Their ids come from the states of the streams in `streams()`."""
        return ()

    def new_streams(self) -> tuple[str, ...]:
        """Returns the streams that this command creates. They are not read first: the append fails if one already exists."""
        return ()

    def owned_streams(self) -> tuple[str, ...]:
        """Returns the streams that the customer who sends the command must own.

        If somebody else owns a stream, the command is decided as if that stream were empty.
        """
        return self.streams()

    def decide(self, states: States) -> list[Event]:
        """Returns the events that the command produces, or an empty list if it changes nothing.

        Raises:
            Rejection: a rule rejects the command.
        """
        raise NotImplementedError

    def rejected(self, states: States, rejection: Rejection) -> list[Event]:  # noqa: ARG002
        """Returns the events that record that a rule of the ledger rejects the command. By default there are none.

        Raises:
            Rejection: the rejection itself, if nothing is to be recorded.
        """
        raise rejection
