"""What the indexes of the search store look like, and how an index differs from that.

A field that a mapping does not name is stored and not searched: it can be read, and nobody can ask for it.
"""

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Final

from shared.read_models.stored_state import SchemaDifference
from shared.search.store import SearchStore, open_store
from shared.settings import Settings
from shared.stores.findings import Finding, found

_KEYWORD: Final = {"type": "keyword"}
_TEXT: Final = {"type": "text", "analyzer": "folded"}
_KEPT_ONLY: Final = {"type": "object", "enabled": False}

SEARCH_FIELDS: Final[Mapping[str, Any]] = {
    "document_id": _KEYWORD,
    "checkpoint": _KEPT_ONLY,
    "resource": _KEYWORD,
    "position": {"type": "long"},
    "name": _TEXT,
    "email": _TEXT,
    "status": _KEYWORD,
    "owner_id": _KEYWORD,
    "account_ids": _KEYWORD,
    "kind": _KEYWORD,
    "amount": {"type": "long"},
    "currency": _KEYWORD,
    "month": _KEYWORD,
    "occurred_at": {"type": "date"},
    "recorded_at": {"type": "date"},
    "reference": _TEXT,
    "metadata": _KEPT_ONLY,
    "metadata_values": _TEXT,
}
"""The fields of the documents of `search`, and of the checkpoint, which is one more document of the same index."""

INDEX_BODY: Final[Mapping[str, Any]] = {
    "settings": {
        # One shard, because a copy of a shard in a snapshot is as of one moment: data and their checkpoint fit together.
        "number_of_shards": 1,
        "auto_expand_replicas": "0-1",
        # The sink refreshes before it moves the checkpoint. A refresh in between would only show half a batch.
        "refresh_interval": "-1",
        "analysis": {
            "analyzer": {"folded": {"type": "custom", "tokenizer": "standard", "filter": ["lowercase", "asciifolding"]}}
        },
    },
    "mappings": {"dynamic": False, "properties": SEARCH_FIELDS},
}
"""What the index template says: how each generation is made. Text is searched without regard to case and accents."""

POINTERS_BODY: Final[Mapping[str, Any]] = {
    "settings": {"number_of_shards": 1, "auto_expand_replicas": "0-1"},
    "mappings": {"dynamic": False, "properties": {"document_id": _KEYWORD}},
}

_MAKE_AGAIN: Final = "`daybook projections rebuild search`"


async def find_mapping_differences(store: SearchStore) -> list[SchemaDifference]:
    """Returns how the template and the indexes of all generations differ from this code. Fields that somebody added are none."""
    differences = [] if await store.has_template() else [SchemaDifference("the index template", is_missing=True, fix=_MAKE_AGAIN)]
    for index, mapping in (await store.read_mappings()).items():
        differences += _compared(index, mapping)
    return sorted(differences)


def _compared(index: str, mapping: Mapping[str, Any]) -> Iterator[SchemaDifference]:
    fields = mapping.get("properties", {})
    for name, expected in SEARCH_FIELDS.items():
        if fields.get(name) != expected:
            yield SchemaDifference(f"field {name} of {index}", is_missing=name not in fields, fix=_MAKE_AGAIN)


async def check_store(settings: Settings) -> AsyncIterator[Finding]:
    """Yields the findings of `daybook doctor` about the search store."""
    async with open_store(settings, read_only=True) as store:
        differences = await find_mapping_differences(store)
    for each in differences:
        state = "is missing" if each.is_missing else "was changed"
        yield found("search-mapping-changed", part=each.part, state=state, fix=each.fix)
