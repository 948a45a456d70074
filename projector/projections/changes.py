"""Collects in memory what a batch of events changes in a read model, so that each document is written only once.

The same changes can be applied to a store (see `projector.sinks`) and to dictionaries in memory. To verify a store, Daybook folds
the log into dictionaries and compares them with the store. Counts and sums are stored as differences. They stay exact because a
batch is applied once or not at all.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

StoredDocument = dict[str, Any]
REMOVED: Final = object()
"""The value of a field that a change removes from a document or a hash."""
Documents = dict[str, StoredDocument]
KeyValue = dict[str, str] | dict[str, float] | list[str]
KeyValues = dict[str, KeyValue]
"""Key → a hash, a sorted set or a list, as a Redis client returns it."""


class DocumentChange(msgspec.Struct):
    """A change of a document that existed before the batch: the fields to set, and the numbers to add to counts."""

    fields: StoredDocument
    counts: dict[str, int]


class DocumentChanges:
    """The changes of a read model that consists of documents. A document is named by its `_id`."""

    def __init__(self) -> None:
        self.inserted: Documents = {}
        self.changed: dict[str, DocumentChange] = {}
        self.added: dict[str, dict[str, int]] = {}

    def __len__(self) -> int:
        return len(self.inserted) + len(self.changed) + len(self.added)

    def insert(self, document_id: str, fields: Mapping[str, Any]) -> None:
        if document_id in self.inserted:
            msg = f"document {document_id!r} is inserted twice"
            raise ValueError(msg)
        self.inserted[document_id] = {"_id": document_id, **fields}

    def put(self, document_id: str, fields: Mapping[str, Any]) -> None:
        """Writes a document whole, whether it exists or not. Only for a store that writes versions, as the timeline's."""
        self.inserted[document_id] = {"_id": document_id, **fields}

    def change(self, document_id: str, fields: Mapping[str, Any], counts: Mapping[str, int]) -> None:
        document = self.inserted.get(document_id)
        if document is None:
            change = self.changed.get(document_id)
            if change is None:
                change = self.changed[document_id] = DocumentChange({}, {})
            change.fields.update(fields)
            _raise(change.counts, counts)
        else:
            _set_fields(document, fields)
            _raise(document, counts)

    def add(self, document_id: str, counts: Mapping[str, int]) -> None:
        """Adds numbers to a document that consists of numbers alone. Inserts it if it does not exist."""
        _raise(self.added.setdefault(document_id, {}), counts)

    def names(self) -> frozenset[str]:
        return frozenset({*self.inserted, *self.changed, *self.added})

    def content(self, name: str) -> StoredDocument | None:
        """Returns the document that these changes make, if they include its insertion; otherwise None."""
        return {"_id": name, **self.added[name]} if name in self.added else self.inserted.get(name)

    def apply_to(self, documents: Documents) -> None:
        """Does in memory what a sink does in the store."""
        documents.update(self.inserted)
        for document_id, change in self.changed.items():
            _set_fields(documents[document_id], change.fields)
            _raise(documents[document_id], change.counts)
        for document_id, counts in self.added.items():
            _raise(documents.setdefault(document_id, {"_id": document_id}), counts)


class KeyChanges:
    """The changes of a read model that consists of Redis keys. A key is always a hash, always a sorted set or always a list."""

    def __init__(self) -> None:
        self.fields: Final[defaultdict[str, dict[str, Any]]] = defaultdict(dict)
        self.counts: Final[defaultdict[str, dict[str, int]]] = defaultdict(dict)
        self.sums: Final[defaultdict[str, dict[str, int]]] = defaultdict(dict)
        self.scores: Final[defaultdict[str, dict[str, int | None]]] = defaultdict(dict)
        self.score_counts: Final[defaultdict[str, dict[str, int]]] = defaultdict(dict)
        self.pushed: Final[dict[str, deque[str]]] = {}

    def __len__(self) -> int:
        """Returns about the number of Redis commands that these changes need."""
        by_key = len(self.fields) + len(self.counts) + len(self.sums) + len(self.pushed)
        return by_key + sum(map(len, self.scores.values())) + sum(map(len, self.score_counts.values()))

    def set(self, key: str, fields: Mapping[str, Any]) -> None:
        """Sets fields of a hash, or removes those whose value is `REMOVED`. Values are written as strings."""
        self.fields[key].update(fields)

    def count(self, key: str, counts: Mapping[str, int]) -> None:
        """Adds numbers to fields of a hash that are counts. Counts stay far below 2^63."""
        _raise(self.counts[key], counts)

    def add(self, key: str, sums: Mapping[str, int]) -> None:
        """Adds amounts to fields of a hash that are sums of money. Sums have no upper limit."""
        _raise(self.sums[key], sums)

    def score(self, key: str, member: str, score: int | None) -> None:
        """Sets the score of a member of a sorted set, or removes the member if the score is None. Scores are exact up to 2^53."""
        self.scores[key][member] = score

    def count_score(self, key: str, member: str) -> None:
        """Adds 1 to the score of a member of a sorted set."""
        _raise(self.score_counts[key], {member: 1})

    def push(self, key: str, value: str, length_max: int) -> None:
        """Adds a value at the left end of a list, which keeps only its newest `length_max` values."""
        self.pushed.setdefault(key, deque(maxlen=length_max)).append(value)

    def names(self) -> frozenset[str]:
        return frozenset().union(self.fields, self.counts, self.sums, self.scores, self.score_counts, self.pushed)

    def content(self, name: str) -> KeyValue | None:
        """Returns the value that these changes give to a key that did not exist before them."""
        keys: KeyValues = {}
        self.apply_to(keys)
        return keys.get(name)

    def apply_to(self, keys: KeyValues) -> None:
        """Does in memory what a sink does in the store."""
        for key, fields in self.fields.items():
            _set_fields(_hash(keys, key), {name: value if value is REMOVED else str(value) for name, value in fields.items()})
        for key, counts in (*self.counts.items(), *self.sums.items()):
            values = _hash(keys, key)
            values.update((name, str(int(values.get(name, 0)) + count)) for name, count in counts.items())
        for key, scores in self.scores.items():
            _set_scores(keys, key, scores)
        for key, counts in self.score_counts.items():
            members: Any = keys.setdefault(key, {})
            _raise(members, counts)
        for key, values_pushed in self.pushed.items():
            kept: Any = keys.get(key, [])
            keys[key] = [*reversed(values_pushed), *kept][: values_pushed.maxlen]


def _raise(counts: dict[str, Any], by: Mapping[str, int]) -> None:
    for name, count in by.items():
        counts[name] = counts.get(name, 0) + count


def _set_fields(target: dict[str, Any], fields: Mapping[str, Any]) -> None:
    target.update(fields)
    for name in removed(fields):
        target.pop(name, None)


def removed(fields: Mapping[str, Any]) -> list[str]:
    """Returns the names of the fields that a change removes."""
    return [name for name, value in fields.items() if value is REMOVED]


def _hash(keys: KeyValues, key: str) -> dict[str, str]:
    fields: Any = keys.setdefault(key, {})
    return fields  # type: ignore[no-any-return]


def _set_scores(keys: KeyValues, key: str, scores: Mapping[str, int | None]) -> None:
    """Sets or removes members. Removes the key if it has no members left, as Redis does."""
    members: Any = keys.setdefault(key, {})
    for member, score in scores.items():
        if score is None:
            members.pop(member, None)
        else:
            members[member] = score
    if not members:
        del keys[key]


def pieces(items: Mapping[str, Any], size: int) -> Iterable[list[tuple[str, Any]]]:
    """Splits the items into lists of at most `size` items."""
    listed = list(items.items())
    return (listed[start : start + size] for start in range(0, len(listed), size))
