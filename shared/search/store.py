"""Opens the search store, OpenSearch, and reads what it says of its generations. `projector.sinks.search` writes to it.

A generation is an index. Its checkpoint is one more document of the index, so an index that was deleted has none, and one that
was restored has the right one. Pointers and notes are documents of an index of their own:

    daybook.read-models     main.search        {document_id, live, building, previous, notes: {paused, rate}}
    daybook.main.search.2   @checkpoint        {checkpoint: {position, log_hash, model_version, letters: […], parked: {…},
                                                put_aside, skipped: […], retired, paused}}
                            transfers/…        the documents, each with its id as `document_id`

Before a batch is written, `ahead: {position, log_hash}` of the checkpoint says up to where its documents may be ahead. The next
checkpoint has no `ahead`.

A document is read by its id as it was written last. A search sees it after the next refresh.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec
import orjson
from opensearchpy import AsyncOpenSearch
from opensearchpy.exceptions import ConflictError, NotFoundError, OpenSearchException, RequestError

from shared.errors import StoreUnavailable
from shared.read_models.dead_letters import DeadLetter, DeadLetterSummary
from shared.read_models.generations import Generation
from shared.read_models.shapes import ReadModel
from shared.read_models.stored_state import Checkpoint, LogPlace, Pointer
from shared.settings import Settings
from shared.stores.store_errors import reading_url

StoredFields = dict[str, Any]

URL_VARIABLE: Final = "DAYBOOK_SEARCH_URL"
CHECKPOINT_ID: Final = "@checkpoint"
WRITE_SECONDS_MAX: Final = 60.0
"""The longest time of a write, a refresh, or a change of an index."""
BULK_BYTES_MAX: Final = 4 * 2**20
"""About the most that one request writes. OpenSearch takes at most 100 MiB."""
IDS_AT_ONCE: Final = 1_000
_PORTS: Final = {"http": 9200, "https": 443}
_REFUSED: Final = 400
_CONFLICT: Final = 409


@asynccontextmanager
async def open_store(settings: Settings, *, read_only: bool) -> AsyncIterator["SearchStore"]:
    """Yields the store that DAYBOOK_SEARCH_URL names. Sends nothing to it.

    With `read_only`, a request may take DAYBOOK_SEARCH_TIMEOUT_MS, and otherwise `WRITE_SECONDS_MAX`.

    Raises:
        SettingsInvalid: the URL cannot be read.
    """
    logging.getLogger("opensearch").setLevel(logging.CRITICAL)  # its lines hold what people search for
    seconds = settings.search_timeout_ms / 1000 if read_only else WRITE_SECONDS_MAX
    with reading_url(URL_VARIABLE):
        client = AsyncOpenSearch(**_address(settings.search_url or ""), timeout=seconds, max_retries=int(read_only))
    try:
        yield SearchStore(client, settings.search_prefix, settings.search_timeout_ms / 1000)
    finally:
        await client.close()


def _address(url: str) -> dict[str, Any]:
    """Splits a URL into the options of the client.

    Raises:
        ValueError: it is not one of OpenSearch.
        OSError: the file that it names cannot be read.
    """
    parts = urlsplit(url)
    options = parse_qs(parts.query, strict_parsing=bool(parts.query))
    if parts.scheme not in _PORTS or not parts.hostname or options.keys() - {"ca_certs"}:
        raise ValueError
    host = {"host": parts.hostname, "port": parts.port or _PORTS[parts.scheme], "url_prefix": parts.path.strip("/")}
    found: dict[str, Any] = {"hosts": [host], "use_ssl": parts.scheme == "https"}
    if parts.username:
        found["http_auth"] = (unquote(parts.username), unquote(parts.password or ""))
    if files := options.get("ca_certs"):
        Path(files[-1]).read_bytes()  # fails now, and not with the first request
        found["ca_certs"] = files[-1]
    return found


class KeptState(msgspec.Struct, frozen=True):
    """A pointer or a checkpoint as it is stored. `place` tells this write of it from every other."""

    content: StoredFields
    place: tuple[int, int]


class SearchStore:
    """An opened search store. Implements `shared.read_models.stored_state.OptionalStore`.

    All methods raise `StoreUnavailable` if OpenSearch does not answer, is busy, or denies its login the request.
    """

    def __init__(self, client: AsyncOpenSearch, prefix: str, read_seconds: float) -> None:
        self.client = client
        self.prefix = prefix
        self.read_seconds = read_seconds
        """The longest time of a question, which may take several requests."""
        self.pointers_index = f"{prefix}.read-models"

    # ── what the store says of a read model ──────────────────────────────────────────────────────────────────────────

    async def read_pointer(self, model: ReadModel, ledger_id: str) -> Pointer:
        kept = await self.read_state(self.pointers_index, pointer_name(model, ledger_id))
        return pointer_in(kept.content) if kept else Pointer()

    async def read_notes(self, model: ReadModel, ledger_id: str) -> dict[str, str]:
        kept = await self.read_state(self.pointers_index, pointer_name(model, ledger_id))
        return dict(kept.content["notes"]) if kept else {}

    async def read_checkpoint(self, generation: Generation) -> Checkpoint | None:
        kept = await self.read_state(self.index_of(generation), CHECKPOINT_ID)
        return checkpoint_in(kept.content) if kept else None

    async def read_letters(self, generation: Generation) -> list[DeadLetter]:
        kept = await self.read_state(self.index_of(generation), CHECKPOINT_ID)
        return msgspec.convert(kept.content["checkpoint"]["letters"], list[DeadLetter]) if kept else []

    async def read_parked(self, generation: Generation) -> dict[str, int]:
        kept = await self.read_state(self.index_of(generation), CHECKPOINT_ID)
        return dict(kept.content["checkpoint"]["parked"]) if kept else {}

    # ── pointers and checkpoints ─────────────────────────────────────────────────────────────────────────────────────

    async def read_state(self, index: str, state_id: str) -> KeptState | None:
        """Returns a pointer or a checkpoint, or None if there is none, or no such index."""
        try:
            found = await _answered(self.client.get(index=index, id=state_id))
        except NotFoundError:
            return None
        return KeptState(found["_source"], (found["_seq_no"], found["_primary_term"]))

    async def put_state(self, index: str, state_id: str, content: StoredFields, before: KeptState | None) -> KeptState | None:
        """Writes a pointer or a checkpoint in place of `before`. Returns it as kept, or None if another write was faster."""
        place = {"if_seq_no": before.place[0], "if_primary_term": before.place[1]} if before else {"op_type": "create"}
        try:
            kept = await _answered(self.client.index(index=index, id=state_id, body=content, params=place))
        except (ConflictError, NotFoundError):
            return None
        return KeptState(content, (kept["_seq_no"], kept["_primary_term"]))

    async def delete_state(self, index: str, state_id: str) -> None:
        try:
            await _answered(self.client.delete(index=index, id=state_id))
        except NotFoundError:
            return

    async def read_states(self, places: Sequence[tuple[str, str]]) -> dict[tuple[str, str], StoredFields]:
        """Returns several pointers or checkpoints, by index and id, in one request. Leaves out those that do not exist."""
        if not places:
            return {}
        asked = [{"_index": index, "_id": state_id} for index, state_id in places]
        answer = await _answered(self.client.mget(body={"docs": asked}))
        return {(each["_index"], each["_id"]): each["_source"] for each in answer["docs"] if each.get("found")}

    # ── documents ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def fetch(self, index: str, ids: Iterable[str]) -> dict[str, StoredFields]:
        """Returns the documents with these ids as they were written last, by id. Leaves out those that do not exist."""
        documents: dict[str, StoredFields] = {}
        rest = iter(ids)
        while some := list(islice(rest, IDS_AT_ONCE)):
            found = await self.read_states([(index, each) for each in some])
            documents |= {document_id: document_of(document_id, source) for (_, document_id), source in found.items()}
        return documents

    async def write(self, index: str, documents: Iterable[StoredFields]) -> list[str]:
        """Writes documents, each with its `position` as its version. One that is there with a later version stays as it is.

        Returns the kinds of the errors of documents that OpenSearch cannot take.
        """
        refused = []
        for lines in _bulks(documents):
            shown = "errors,items.*.status,items.*.error.type"
            answer = await _answered(self.client.bulk(index=index, body=lines, params={"filter_path": shown}))
            for item in answer["items"] if answer["errors"] else ():
                status = item["index"]["status"]
                if status == _REFUSED:
                    refused.append(item["index"]["error"]["type"])
                elif status > _REFUSED and status != _CONFLICT:  # it is busy, or its disk is full
                    raise StoreUnavailable("The search store does not write at the moment.")
        return refused

    async def search(self, index: str, body: StoredFields) -> StoredFields | None:
        """Returns the answer to a search, or None if there is no such index."""
        try:
            found: StoredFields = await _answered(self.client.search(index=index, body=body))
        except NotFoundError:
            return None
        return found

    async def refresh(self, index: str) -> None:
        """Lets searches see all that was written. Does nothing if there is no such index."""
        try:
            await _answered(self.client.indices.refresh(index=index))
        except NotFoundError:
            return

    # ── indexes ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def index_of(self, generation: Generation) -> str:
        return f"{self.prefix}.{pointer_name(generation.model, generation.ledger_id)}.{generation.number}"

    @property
    def template_name(self) -> str:
        return f"{self.prefix}.search"

    @property
    def _indexes(self) -> str:
        """The pattern of the names of all generations."""
        return f"{self.prefix}.*.search*"

    async def put_template(self, body: Mapping[str, Any]) -> None:
        template = {"index_patterns": [self._indexes], "template": dict(body)}
        await _answered(self.client.indices.put_index_template(name=self.template_name, body=template))

    async def has_template(self) -> bool:
        return bool(await _answered(self.client.indices.exists_index_template(name=self.template_name)))

    async def make_index(self, index: str, body: Mapping[str, Any] | None = None) -> None:
        """Makes an index. Does nothing if it exists."""
        try:
            await _answered(self.client.indices.create(index=index, body=body), RequestError)
        except RequestError as error:
            if error.error != "resource_already_exists_exception":
                raise StoreUnavailable(f"The search store makes no index ({error.error}).") from error

    async def drop_index(self, index: str) -> None:
        """Deletes an index and all that is in it. Does nothing if it does not exist."""
        try:
            await _answered(self.client.indices.delete(index=index))
        except NotFoundError:
            return

    async def read_numbers(self, model: ReadModel, ledger_id: str) -> set[int]:
        """Returns the numbers of all generations that have an index."""
        beginning = f"{self.prefix}.{pointer_name(model, ledger_id)}."
        found = await _answered(self.client.indices.get_settings(index=f"{beginning}*", name="index.uuid"))
        return {int(number) for number in (index.removeprefix(beginning) for index in found) if number.isdecimal()}

    async def read_mappings(self) -> dict[str, StoredFields]:
        """Returns the mappings of the indexes of all generations, by the name of the index."""
        found = await _answered(self.client.indices.get_mapping(index=self._indexes))
        return {index: each["mappings"] for index, each in found.items()}

    async def point_alias(self, alias: str, index: str, shown: StoredFields) -> None:
        """Makes an alias name this index and no other. It shows the documents that the query `shown` finds."""
        try:
            holders = await _answered(self.client.indices.get_alias(name=alias))
        except NotFoundError:
            holders = {}
        removals = [{"remove": {"index": each, "alias": alias}} for each in holders if each != index]
        actions = [*removals, {"add": {"index": index, "alias": alias, "filter": shown}}]
        await _answered(self.client.indices.update_aliases(body={"actions": actions}))


def pointer_name(model: ReadModel, ledger_id: str) -> str:
    return f"{ledger_id}.{model.name}"


def pointer_in(content: StoredFields) -> Pointer:
    return Pointer(content["live"], content["building"], content["previous"])


def checkpoint_in(content: StoredFields) -> Checkpoint:
    kept = content["checkpoint"]
    aside = DeadLetterSummary(len(kept["letters"]), len(kept["parked"]), kept["put_aside"], frozenset(kept["skipped"]))
    ahead = msgspec.convert(kept["ahead"], LogPlace) if "ahead" in kept else None
    return Checkpoint(kept["position"], kept["log_hash"], kept["model_version"], aside, ahead)


def document_of(document_id: str, source: StoredFields) -> StoredFields:
    """Returns what OpenSearch stores of a document as the projection made it."""
    return {"_id": document_id} | {name: value for name, value in source.items() if name != "document_id"}


def _bulks(documents: Iterable[StoredFields]) -> Iterator[str]:
    """Yields the bodies of requests that write the documents."""
    lines, size = list[bytes](), 0
    for document in documents:
        document_id = document["_id"]
        version = {"version": document["position"], "version_type": "external_gte"}
        source = {name: value for name, value in document.items() if name != "_id"} | {"document_id": document_id}
        lines += [orjson.dumps({"index": {"_id": document_id} | version}), orjson.dumps(source)]
        size += len(lines[-1])
        if size >= BULK_BYTES_MAX:
            yield b"\n".join([*lines, b""]).decode()
            lines, size = [], 0
    if lines:
        yield b"\n".join([*lines, b""]).decode()


async def _answered(asking: Awaitable[Any], *passing: type[OpenSearchException]) -> Any:
    """Returns the answer to a request.

    Raises:
        NotFoundError, ConflictError, and those in `passing`: OpenSearch answered so.
        StoreUnavailable: it does not answer, or cannot do it. No document is the cause.
    """
    expected: tuple[type[OpenSearchException], ...] = (NotFoundError, ConflictError, *passing)
    try:
        return await asking
    except expected:
        raise
    except (OpenSearchException, TimeoutError) as error:
        raise StoreUnavailable(f"The search store does not answer ({type(error).__name__}).") from error
