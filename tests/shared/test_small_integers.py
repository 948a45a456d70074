"""Numbers in a ledger file that do not fit into their columns are refused when their line is read."""

import msgspec
import pytest

from shared.ledger_file.format import EventLine
from shared.log.stored_replies import StoredReply

EVENT = (
    '{"line":"event","position":1,"event_id":"a","type":"b","schema_version":%d,'
    '"data":{},"metadata":{},"recorded_at":"","hash":""}'
)
REPLY = '{"principal":"a","key":"b","request_hash":"","status":%d,"body":"","position":null}'


@pytest.mark.parametrize("number", [2**15, -(2**15) - 1, 2**40])
def test_a_number_that_its_column_cannot_hold_is_refused_with_its_line(number: int) -> None:
    """Otherwise the driver raises an OverflowError, which no caller expects, in the middle of an import."""
    for text, kind in ((EVENT, EventLine), (REPLY, StoredReply)):
        assert msgspec.json.decode(text % 1, type=kind)
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(text % number, type=kind)
