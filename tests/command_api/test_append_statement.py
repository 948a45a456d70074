"""How a batch goes to PostgreSQL: many texts as one, which comes apart again where it was joined and nowhere else."""

import json
from datetime import UTC, datetime

import pytest

from shared.log.account_events import AccountFrozen
from shared.log.append import NewEvent, PreparedAppend, StreamEvent, prepare_append
from shared.log.heads import Head

ODD = 'a "quoted" \\ text,\nwith {braces}, NULL and a control \x1f character'


def prepared_append(stream_id: str) -> PreparedAppend:
    events = [NewEvent(f"event-{n}", AccountFrozen(account_id="a", currency="EUR"), {"network": ODD}) for n in range(3)]
    members = [StreamEvent(stream_id, n + 1, n + 1) for n in range(3)]
    return prepare_append("main", Head(0, b"", datetime.now(UTC)), events, members, [], [], {})


def test_what_callers_say_may_have_any_character() -> None:
    [metadata] = [text for text in prepared_append("account-a").arguments if isinstance(text, str) and "network" in text]
    assert [json.loads(part) for part in metadata.split("\x1f")] == 3 * [{"network": ODD}]


def test_a_name_that_would_come_apart_is_not_written() -> None:
    with pytest.raises(ValueError, match="character that separates values"):
        prepared_append("account-\x1fa")
