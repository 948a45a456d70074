"""The documents of one generation, for tests that look at what is stored or change it behind Daybook's back."""

from collections.abc import Mapping
from typing import Any

from shared.read_models.generations import Generation
from shared.read_models.shapes import READ_MODELS
from shared.stores.mongo import MongoCollection, MongoDatabase

Document = dict[str, Any]
BY_NAME = {model.name: model for model in READ_MODELS}


class StoredDocuments:
    """Reads and writes as a collection does that has only this generation. Ids are those that the read model knows."""

    def __init__(self, mongo: MongoDatabase, generation: Generation) -> None:
        self.generation = generation.documents()
        self.collection: MongoCollection = self.generation.collection(mongo)

    async def all(self, wanted: Mapping[str, Any] | None = None, direction: int = 1) -> list[Document]:
        """Returns the documents in the order of their ids."""
        found = self.collection.find(self.generation.match(wanted or {})).sort("_id", direction)
        return [self.generation.told(document) async for document in found]

    async def one(self, wanted: Mapping[str, Any] | None = None, direction: int = 1) -> Document:
        """Returns the first document."""
        return (await self.all(wanted, direction))[0]

    async def insert(self, *documents: Document) -> None:
        await self.collection.insert_many([self.generation.stored(document) for document in documents])

    async def replace(self, document: Document) -> None:
        """Replaces the document with this id, and keeps the order of its fields."""
        stored = {**document, "_id": self.generation.key(document["_id"]), **self.generation.named}
        await self.collection.replace_one({"_id": stored["_id"]}, stored)

    async def set(self, fields: Mapping[str, Any], wanted: Mapping[str, Any] | None = None) -> None:
        """Sets fields of the documents that match, by default of all."""
        await self.collection.update_many(self.generation.match(wanted or {}), {"$set": fields})

    async def unset(self, field: str, wanted: Mapping[str, Any] | None = None) -> None:
        await self.collection.update_many(self.generation.match(wanted or {}), {"$unset": {field: ""}})

    async def delete(self, *ids: str) -> None:
        await self.collection.delete_many(self.generation.match({"_id": {"$in": list(ids)}}))

    async def clear(self) -> None:
        await self.collection.delete_many(self.generation.match({}))

    async def count(self) -> int:
        return await self.collection.count_documents(self.generation.match({}))


def documents_of(mongo: MongoDatabase, name: str, number: int = 1, ledger_id: str = "main") -> StoredDocuments:
    return StoredDocuments(mongo, Generation(BY_NAME[name], ledger_id, number))
