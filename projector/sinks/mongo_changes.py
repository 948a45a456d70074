"""Turns the changes of a batch into what is sent to MongoDB: documents to insert, updates, and numbers to add."""

from collections.abc import Iterator
from typing import Any, Final

from bson.int64 import Int64
from pymongo import UpdateOne
from pymongo.database import Database
from pymongo.errors import BulkWriteError, OperationFailure

from projector.projections.changes import REMOVED, DocumentChange, DocumentChanges, StoredDocument, removed
from projector.sinks.protocols import damaged
from shared.read_models.documents import GenerationDocuments
from shared.read_models.generations import Generation
from shared.stores.mongo import BlockingMongoSession

_CODES_OF_DATA: Final = {
    *(2, 9, 14, 28, 40),  # values, types and paths that no update may have
    *(52, 55, 56, 57, 66),  # names of fields
    *(121, 10334, 17280, 17419, 17420),  # not valid, or too large
}
"""The error codes that are caused by the written data and not by the server. Writing the same data again always fails."""


def commands_of(documents: GenerationDocuments, changes: DocumentChanges) -> Iterator[tuple[StoredDocument, int]]:
    """Yields the MongoDB commands that write the changes, each with the number of documents that it must write."""
    name = documents.collection_name
    if changes.inserted:
        inserted = [*map(documents.stored, changes.inserted.values())]
        yield {"insert": name, "documents": inserted, "ordered": False}, len(inserted)
    if changes.changed:
        updates = [{"q": q, "u": u} for q, u in _updates(documents, changes)]
        yield {"update": name, "updates": updates, "ordered": False}, len(updates)
    if changes.added:
        additions = [{"q": q, "u": u, "upsert": True} for q, u in _additions(documents, changes)]
        yield {"update": name, "updates": additions, "ordered": False}, len(additions)


def write_changes(
    database: Database[dict[str, Any]], generation: Generation, changes: DocumentChanges, session: BlockingMongoSession
) -> None:
    """Writes the changes in the transaction of this session. Blocks its thread.

    Raises:
        ReadModelDamaged: MongoDB cannot take them, or a document to change is missing.
    """
    matched, documents = 0, generation.documents()
    collection = database[documents.collection_name]
    try:
        if changes.inserted:
            collection.insert_many(map(documents.stored, changes.inserted.values()), ordered=False, session=session)
        if changes.changed:
            updates = [UpdateOne(q, u) for q, u in _updates(documents, changes)]
            matched = collection.bulk_write(updates, ordered=False, session=session).matched_count
        if changes.added:
            additions = [UpdateOne(q, u, upsert=True) for q, u in _additions(documents, changes)]
            collection.bulk_write(additions, ordered=False, session=session)
    except BulkWriteError as error:
        # The message contains only the codes: the details contain whole documents, which may include personal data.
        codes = sorted({each["code"] for each in (error.details or {}).get("writeErrors", ())})
        raise damaged(generation, f"MongoDB could not write the batch, error codes {codes}") from None
    except OperationFailure as error:
        if error.code in _CODES_OF_DATA:
            raise damaged(generation, f"MongoDB could not write the batch, error code {error.code}") from None
        raise
    if matched != len(changes.changed):
        raise damaged(generation, f"{len(changes.changed) - matched} documents are missing")


def _updates(documents: GenerationDocuments, changes: DocumentChanges) -> Iterator[tuple[StoredDocument, StoredDocument]]:
    """Yields the filter and the update for each document that changes."""
    return (({"_id": documents.key(document_id)}, _update(change)) for document_id, change in changes.changed.items())


def _additions(documents: GenerationDocuments, changes: DocumentChanges) -> Iterator[tuple[StoredDocument, StoredDocument]]:
    """Yields the filter and the update for each document that numbers are added to, which may have to be inserted."""
    return (
        ({"_id": documents.key(document_id)}, {**_addition(counts), "$setOnInsert": documents.named})
        for document_id, counts in changes.added.items()
    )


def _update(change: DocumentChange) -> StoredDocument:
    update: StoredDocument = {"$set": change.fields}
    if names := removed(change.fields):
        update = {"$set": {n: v for n, v in change.fields.items() if v is not REMOVED}, "$unset": dict.fromkeys(names, "")}
    return {**update, "$inc": change.counts} if change.counts else update


def _addition(counts: dict[str, int]) -> StoredDocument:
    """Returns the update that adds numbers. All have 64 bits: MongoDB's own choice would depend on how events are divided."""
    return {"$inc": {name: Int64(count) for name, count in counts.items()}}
