"""Filters by what a transfer is. They find transfers, and the entries of one account that these transfers made."""

from typing import Annotated, Final

from pydantic import Field

from query_api.lists import MongoMatch, found_by_match, range_match, reference_match
from query_api.parameters import RecordedAtRange, ReferenceAndMetadata
from query_api.reading import CallerView
from query_api.responses import TransferKind
from shared.input_types import Id
from shared.read_models.shapes import found_by

SORT_DESCRIPTION: Final = (
    "`position` and `recorded_at` give the same order. Sorting by `reference` leaves out what has none. The default depends on "
    "the filters."
)


class TransferFilters(RecordedAtRange, ReferenceAndMetadata):
    counterparty: Annotated[Id, Field(description="Only what moved from or to this account too.")] | None = None
    kind: TransferKind | None = None

    def transfers_of(self, view: CallerView, account_id: str | None, sort: str) -> MongoMatch:
        """Returns the filter for transfers with these filters and this order, from or to this account if it is not None.

        A customer sees only the own postings of a transfer between many accounts. So that no filter and no order tells more, they
        leave such transfers out if they are about the counterparty or the amount.
        """
        ends = account_id, self.counterparty
        is_telling = view.customer is not None and bool(self.counterparty or sort.endswith("amount"))
        hidden: MongoMatch = {"kind": {"$nin": ["postings", "exchange"]}} if is_telling else {}
        texts = found_by(ends, kind=self.kind, reference=self.reference, metadata=self.metadata)
        return hidden | range_match(self, "recorded_at") | found_by_match(texts) | reference_match(self.reference_prefix, sort)
