"""What a batch of events does to a read model, gathered in memory so that each document is written once.

The same changes can be applied to a store (see `sinks`) and to plain dictionaries: to prove that a store is right, the log
is folded into dictionaries and the two are compared. Counts and sums are differences; they are exact because a batch is
applied once or not at all.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

Document = dict[str, Any]
Documents = dict[str, Document]
Value = dict[str, str] | dict[str, float] | list[str]
Keys = dict[str, Value]
"""Key → a hash, a sorted set or a list, as a Redis client returns them."""


class DocumentChange(msgspec.Struct):
    """To a document that was there before the batch: fields to set, counts to raise."""

    fields: Document
    counts: dict[str, int]


class DocumentChanges:
    """For a read model of documents, each with its `_id`."""

    def __init__(self) -> None:
        self.inserted: Documents = {}
        self.changed: dict[str, DocumentChange] = {}

    def __len__(self) -> int:
        return len(self.inserted) + len(self.changed)

    def insert(self, document_id: str, fields: Mapping[str, Any]) -> None:
        if document_id in self.inserted:
            msg = f"document {document_id!r} is inserted twice"
            raise ValueError(msg)
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
            document.update(fields)
            _raise(document, counts)

    def names(self) -> frozenset[str]:
        return frozenset({*self.inserted, *self.changed})

    def content(self, name: str) -> Document | None:
        """The document, if all that ever happened to it is here."""
        return self.inserted.get(name)

    def apply_to(self, documents: Documents) -> None:
        """In memory, what a sink does in the store."""
        documents.update(self.inserted)
        for document_id, change in self.changed.items():
            documents[document_id].update(change.fields)
            _raise(documents[document_id], change.counts)


class KeyChanges:
    """For a read model of Redis keys. A key is a hash, a sorted set or a list for good."""

    def __init__(self) -> None:
        self.fields: Final[defaultdict[str, dict[str, Any]]] = defaultdict(dict)
        self.counts: Final[defaultdict[str, dict[str, int]]] = defaultdict(dict)
        self.sums: Final[defaultdict[str, dict[str, int]]] = defaultdict(dict)
        self.scores: Final[defaultdict[str, dict[str, int | None]]] = defaultdict(dict)
        self.score_counts: Final[defaultdict[str, dict[str, int]]] = defaultdict(dict)
        self.pushed: Final[dict[str, deque[str]]] = {}

    def __len__(self) -> int:
        """About how many commands it takes."""
        by_key = len(self.fields) + len(self.counts) + len(self.sums) + len(self.pushed)
        return by_key + sum(map(len, self.scores.values())) + sum(map(len, self.score_counts.values()))

    def set(self, key: str, fields: Mapping[str, Any]) -> None:
        """Fields of a hash; what is no string is written as one."""
        self.fields[key].update(fields)

    def count(self, key: str, counts: Mapping[str, int]) -> None:
        """Raises fields of a hash that count things, and so stay far below 2^63."""
        _raise(self.counts[key], counts)

    def add(self, key: str, sums: Mapping[str, int]) -> None:
        """Raises fields of a hash that hold sums of money, which may grow beyond every fixed size."""
        _raise(self.sums[key], sums)

    def score(self, key: str, member: str, score: int | None) -> None:
        """Of a member of a sorted set; None removes it. A score is a double: exact up to 2^53."""
        self.scores[key][member] = score

    def count_score(self, key: str, member: str) -> None:
        """Raises the score of a member of a sorted set by one."""
        _raise(self.score_counts[key], {member: 1})

    def push(self, key: str, value: str, length_max: int) -> None:
        """To the left end of a list that keeps its newest `length_max` values."""
        self.pushed.setdefault(key, deque(maxlen=length_max)).append(value)

    def names(self) -> frozenset[str]:
        return frozenset().union(self.fields, self.counts, self.sums, self.scores, self.score_counts, self.pushed)

    def content(self, name: str) -> Value | None:
        """Of the key, if all that ever happened to it is here."""
        keys: Keys = {}
        self.apply_to(keys)
        return keys.get(name)

    def apply_to(self, keys: Keys) -> None:
        """In memory, what a sink does in the store."""
        for key, fields in self.fields.items():
            _hash(keys, key).update((name, str(value)) for name, value in fields.items())
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


def _hash(keys: Keys, key: str) -> dict[str, str]:
    fields: Any = keys.setdefault(key, {})
    return fields  # type: ignore[no-any-return]


def _set_scores(keys: Keys, key: str, scores: Mapping[str, int | None]) -> None:
    """Redis has no empty sorted set: with its last member, the key goes."""
    members: Any = keys.setdefault(key, {})
    for member, score in scores.items():
        if score is None:
            members.pop(member, None)
        else:
            members[member] = score
    if not members:
        del keys[key]


def pieces(items: Mapping[str, Any], size: int) -> Iterable[list[tuple[str, Any]]]:
    """The items in lists of at most `size`."""
    listed = list(items.items())
    return (listed[start : start + size] for start in range(0, len(listed), size))
