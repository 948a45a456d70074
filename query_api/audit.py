"""Questions about who was refused."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from query_api.parameters import RefusalParameters
from query_api.queries import Key, Page
from query_api.reading import AsOf, View
from shared.events import timestamp
from shared.refusals import Refusal, read_refusals

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


async def list_refusals(view: View, parameters: RefusalParameters, key: Key | None) -> AsOf[Page]:
    """The newest first."""
    before = None if key is None else str(key[0])
    position = await view.reader.require_ledger(view.ledger_id)
    found = await read_refusals(view.reader.redis, view.reader.settings, view.ledger_id, before, parameters.limit + 1)
    page = found[: parameters.limit]
    next_key = [page[-1].entry_id] if len(found) > parameters.limit else None
    return AsOf(position, Page([_item(refusal) for refusal in page], next_key))


def _item(refusal: Refusal) -> dict[str, Any]:
    return {
        "refused_at": timestamp(_EPOCH + timedelta(milliseconds=refusal.milliseconds)),
        **msgspec.structs.asdict(refusal.attempt),
        "request_id": refusal.request_id,
        "count": refusal.count,
    }
