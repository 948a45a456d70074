"""What a command is: data with the streams that it concerns and a pure decision.

To add one, write a class like those in `user`, `account` and `transfer`, and a route in `app`. Its fields are the JSON body.
Nothing here or there does I/O, reads a clock or makes an id: all that comes in as a field or as a state.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from shared.events import Event
from shared.money import AMOUNT_MAX

States = Mapping[str, Any]
"""Stream id → the state that the stream folds to; the initial state where the stream is empty."""


class Fields(BaseModel):
    """Strict: no coercion, no unknown fields. Frozen: what was validated is what is decided on."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)


class Command(Fields):
    """One wish of a caller."""

    def streams(self) -> tuple[str, ...]:
        """The streams that the decision depends on. `If-Match` is the version of the first."""
        raise NotImplementedError

    def person_id(self) -> str | None:
        """Whom the command tells something about: its answer is kept sealed, and its request is hashed with a secret."""
        return None

    def further_streams(self, states: States) -> tuple[str, ...]:  # noqa: ARG002
        """Streams that only the states of the first ones can name."""
        return ()

    def new_streams(self) -> tuple[str, ...]:
        """Those of its streams that come into being with it: they need not be read, the append finds out if they exist."""
        return ()

    def owned_streams(self) -> tuple[str, ...]:
        """Those of its streams that must be a customer's own; where one is not, it is decided as if it were empty."""
        return self.streams()

    def decide(self, states: States) -> list[Event]:
        """What follows: one event, or none where nothing is left to do.

        Raises:
            Rejection: the rules refuse the command.
        """
        raise NotImplementedError


# ── the types of fields; those that queries have too stand in `shared.fields` ────────────────────────────────────────

# Control characters break logs and terminals; bidirectional overrides make a text look like another one.
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")


def _printable(value: str) -> str:
    if _UNPRINTABLE.search(value) or value != value.strip():
        code, message = "text_unprintable", "Text must not have control or direction characters, or space around it"
        raise PydanticCustomError(code, message)
    return value


Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]
Reference = Annotated[str, Field(min_length=1, max_length=140), AfterValidator(_printable)]
MetadataKey = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,40}$")]
MetadataValue = Annotated[str, Field(max_length=500), AfterValidator(_printable)]
Metadata = Annotated[dict[MetadataKey, MetadataValue], Field(max_length=20)]

# ASCII only: two addresses that look alike are then the same address.
_LABEL: Final = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_EMAIL: Final = rf"^[A-Za-z0-9.!#$%&'*+/=?^_`{{|}}~-]{{1,64}}@{_LABEL}(?:\.{_LABEL})+$"
Email = Annotated[str, Field(pattern=_EMAIL, max_length=254, json_schema_extra={"format": "email"})]


Amount = Annotated[int, Field(ge=1, le=AMOUNT_MAX, description="Minor units of the currency.")]
OverdraftLimit = Annotated[int, Field(ge=0, le=AMOUNT_MAX, description="How far below zero the balance may go, in minor units.")]
