"""MongoDB and Redis in memory, as the worker reaches them over a network that loses messages. For the simulation alone.

A request that is on its way arrives although the worker that sent it has died: later than those of the worker that follows.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
from pymongo.errors import AutoReconnect
from redis.exceptions import ConnectionError as RedisConnectionError

from projector.sinks.protocols import LiveCheckpoint, Step
from shared.read_models.dead_letters import DeadLetter
from shared.read_models.generations import Generation, pointer_id
from shared.read_models.shapes import GENERATION_FIELD, ReadModel
from shared.read_models.stored_state import Checkpoint, Pointer
from tests.simulation.virtual_time import Process, VirtualLoop, this_process
from tests.simulation.weather import Weather

REQUEST_SECONDS: Final = 2.0
"""The client's time limit for one request."""


class StoredGeneration:
    """The data of one generation, and its checkpoint, which is a part of them."""

    def __init__(self, model: ReadModel) -> None:
        self.checkpoint = Checkpoint(0, "", model.version)
        self.content: dict[str, Any] = {}
        self.is_retired = False


class MemoryStore:
    """A store of read models, which does one request at a time."""

    def __init__(self, weather: Weather, error: type[Exception]) -> None:
        self.weather = weather
        self.process = Process("store")
        self.generations: dict[tuple[str, int], StoredGeneration] = {}
        self.pointers: dict[str, Pointer] = {}
        self.steps_back: list[str] = []
        """Each time that readers saw a read model at a lower position than before. It must stay empty."""
        self._shown: dict[str, int] = {}
        self._error = error
        self._replies: dict[asyncio.Future[Any], None] = {}

    async def ask(self, work: Callable[[], Any]) -> Any:
        """Sends a request and returns the reply."""
        if not self.process.alive:
            raise self._error("connection refused")
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._replies[reply] = None
        self.process.call_later(self.weather.seconds(), self._act, work, reply)
        try:
            return await reply
        finally:
            self._replies.pop(reply, None)

    def _act(self, work: Callable[[], Any], reply: "asyncio.Future[Any]") -> None:
        loss = self.weather.loss()
        result = work() if loss != "request" else None
        if loss == "none":
            self.process.call_later(self.weather.seconds(), _settle, reply, result)
        else:
            seconds = REQUEST_SECONDS if loss == "silence" else 0
            self.process.call_later(seconds, _settle, reply, self._error("connection closed"))

    def crash(self, loop: VirtualLoop) -> None:
        """Ends the process. It was set to keep what it has acknowledged, as the doctor of the product requires."""
        loop.kill(self.process)
        replies, self._replies = self._replies, {}
        for reply in replies:
            _settle(reply, self._error("connection closed"))

    def restart(self) -> None:
        self.process = Process("store")

    def note_shown(self, name: str) -> None:
        """Notes the position that readers of a read model see now."""
        live = self.live(name)
        if live is None:
            return
        if live.checkpoint.position < self._shown.get(name, 0):
            self.steps_back.append(f"{name} went back from {self._shown[name]} to {live.checkpoint.position}")
        self._shown[name] = live.checkpoint.position

    def live(self, name: str) -> StoredGeneration | None:
        number = self.pointers.get(name, Pointer()).live
        return self.generations.get((name, number)) if number is not None else None


def _settle(reply: "asyncio.Future[Any]", result: Any) -> None:
    if reply.done():
        return
    if isinstance(result, Exception):
        reply.set_exception(result)
        reply.exception()  # its client may be dead
    else:
        reply.set_result(result)


class MemorySink:
    """A `Sink` over a store in memory."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store

    def _stored(self, generation: Generation) -> StoredGeneration | None:
        return self.store.generations.get((generation.model.name, generation.number))

    # ── batches ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def apply(self, generation: Generation, step: Step, changes: Any) -> bool:
        return bool(await self.store.ask(lambda: self.apply_now(generation, step, changes)))

    def apply_now(self, generation: Generation, step: Step, changes: Any) -> bool:
        """The whole batch and its checkpoint, or nothing."""
        if not self.may_apply(generation, step):
            return False
        self.write(generation, changes)
        self.move_checkpoint(generation, step)
        return True

    def may_apply(self, generation: Generation, step: Step) -> bool:
        stored = self._stored(generation)
        return stored is not None and not stored.is_retired and stored.checkpoint.position == step.before

    def write(self, generation: Generation, changes: Any) -> None:
        stored = self._stored(generation)
        if stored:
            changes.apply_to(stored.content)

    def move_checkpoint(self, generation: Generation, step: Step) -> None:
        stored = self._stored(generation)
        if stored:
            stored.checkpoint = msgspec.structs.replace(stored.checkpoint, position=step.after, log_hash=step.log_hash)
            self.store.note_shown(generation.model.name)

    async def require_fits(self, generation: Generation, step: Step, changes: Any) -> None:
        pass

    async def read_checkpoint(self, generation: Generation) -> Checkpoint | None:
        def work() -> Checkpoint | None:
            stored = self._stored(generation)
            return stored.checkpoint if stored else None

        checkpoint: Checkpoint | None = await self.store.ask(work)
        return checkpoint

    async def find_loss(self, generation: Generation) -> str | None:  # noqa: ARG002 # these stores lose nothing
        return None

    async def read_live(self, models: Sequence[ReadModel], ledger_ids: Sequence[str]) -> dict[str, LiveCheckpoint]:
        def work() -> dict[str, LiveCheckpoint]:
            found = {}
            for model in models:
                number, live = self.store.pointers.get(model.name, Pointer()).live, self.store.live(model.name)
                if number is not None and live:
                    found[pointer_id(model, ledger_ids[0])] = LiveCheckpoint(number, live.checkpoint)
            return found

        found: dict[str, LiveCheckpoint] = await self.store.ask(work)
        return found

    async def read_letters(self, generation: Generation) -> list[DeadLetter]:  # noqa: ARG002 # no event is wrong
        return []

    async def read_parked(self, generation: Generation) -> dict[str, int]:  # noqa: ARG002
        return {}

    # ── content ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def count(self, generation: Generation) -> int:
        return int(await self.store.ask(lambda: len(self._content(generation))))

    async def sample(self, generation: Generation, size: int) -> list[str]:
        names: list[str] = await self.store.ask(lambda: sorted(self._content(generation))[:size])
        return names

    async def pick(self, generation: Generation, names: list[str]) -> dict[str, Any]:
        def work() -> dict[str, Any]:
            content = self._content(generation)
            return {name: dict(content[name]) for name in names if name in content}

        picked: dict[str, Any] = await self.store.ask(work)
        return picked

    async def content(self, generation: Generation) -> AsyncIterator[bytes]:
        for name, value in self._content(generation).items():
            yield msgspec.json.encode([name, value])

    def _content(self, generation: Generation) -> dict[str, Any]:
        stored = self._stored(generation)
        return stored.content if stored else {}

    # ── generations ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def prepare(self, generation: Generation) -> None:
        place = generation.model.name, generation.number
        await self.store.ask(lambda: self.store.generations.setdefault(place, StoredGeneration(generation.model)))

    async def create_indexes(self, generation: Generation) -> None:
        pass

    async def numbers(self, model: ReadModel, ledger_id: str) -> set[int]:  # noqa: ARG002 # there is one ledger
        numbers: set[int] = await self.store.ask(
            lambda: {number for name, number in self.store.generations if name == model.name}
        )
        return numbers

    async def drop(self, generation: Generation) -> None:
        await self.store.ask(lambda: self.store.generations.pop((generation.model.name, generation.number), None))

    async def read_pointer(self, model: ReadModel, ledger_id: str) -> Pointer:  # noqa: ARG002
        pointer: Pointer = await self.store.ask(lambda: self.store.pointers.get(model.name, Pointer()))
        return pointer

    async def move_pointer(self, model: ReadModel, ledger_id: str, before: Pointer, after: Pointer) -> bool:  # noqa: ARG002
        return bool(await self.store.ask(lambda: self._move(model.name, before, after)))

    def _move(self, name: str, before: Pointer, after: Pointer) -> bool:
        if self.store.pointers.get(name, Pointer()) != before:
            return False
        self.store.pointers[name] = after
        self.store.note_shown(name)
        return True

    async def switch(self, generation: Generation, pointer: Pointer) -> bool:
        def work() -> bool:
            built, live = self._stored(generation), self.store.live(generation.model.name)
            if built is None or (live and self.is_behind(built, live)):
                return False
            if not self._move(generation.model.name, pointer, pointer.switched_to(generation)):
                return False
            if live:
                live.is_retired = True
            return True

        return bool(await self.store.ask(work))

    def is_behind(self, built: StoredGeneration, live: StoredGeneration) -> bool:
        """A generation that is behind the live one must not become live: its readers would go back."""
        return built.checkpoint.position < live.checkpoint.position

    async def reopen(self, generation: Generation) -> None:
        raise NotImplementedError

    # ── notes and copies: no operator works in a simulation ─────────────────────────────────────────────────────────

    async def read_notes(self, model: ReadModel, ledger_id: str) -> dict[str, str]:  # noqa: ARG002
        return {}

    async def note(self, model: ReadModel, ledger_id: str, name: str, value: str) -> None:
        raise NotImplementedError

    async def pause(self, model: ReadModel, ledger_id: str, since: str) -> None:
        raise NotImplementedError

    async def resume(self, model: ReadModel, ledger_id: str) -> None:
        raise NotImplementedError

    async def copy_labels(self, model: ReadModel, ledger_id: str) -> list[str]:
        raise NotImplementedError

    async def delete_pointer(self, model: ReadModel, ledger_id: str) -> None:
        raise NotImplementedError


class MemoryMongo:
    """Those methods of a MongoDB database that the finder of what is due uses, over the same store as the sink."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> "MemoryCollection":
        return MemoryCollection(self._store, name)

    __getitem__ = __getattr__


class MemoryCollection:
    """A collection, and a cursor on it."""

    def __init__(self, store: MemoryStore, name: str) -> None:
        self._store = store
        self._name = name
        self._match: dict[str, Any] = {}
        self._sorted_by = ""

    async def find_one(self, match: dict[str, Any]) -> dict[str, Any] | None:
        _, name, *number = match["_id"].split("/")

        def work() -> dict[str, Any] | None:
            if self._name == "pointers":
                pointer = self._store.pointers.get(name)
                return {"live": pointer.live} if pointer else None
            stored = self._store.generations.get((name, int(number[0])))
            return {"position": stored.checkpoint.position} if stored else None

        found: dict[str, Any] | None = await self._store.ask(work)
        return found

    def find(self, match: dict[str, Any], _fields: Any, session: None = None) -> "MemoryCollection":  # noqa: ARG002
        self._match = dict(match)
        return self

    def sort(self, order: list[tuple[str, int]]) -> "MemoryCollection":
        [(self._sorted_by, _)] = order
        return self

    def limit(self, _count: int) -> "MemoryCollection":
        return self

    async def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        # Failures are not kept, so nobody finds any.
        number = self._match.pop(GENERATION_FIELD, ".0").rpartition(".")[2]

        def work() -> list[dict[str, Any]]:
            stored = self._store.generations.get((self._name, int(number)))
            found = [dict(each) for each in stored.content.values() if _matches(each, self._match)] if stored else []
            return sorted(found, key=lambda each: str(_field(each, self._sorted_by)))

        for document in await self._store.ask(work):
            yield document

    async def replace_one(self, *_: Any, **__: Any) -> None:
        await self._store.ask(lambda: None)

    delete_one = replace_one


def _field(document: dict[str, Any], path: str) -> Any:
    value: Any = document
    for name in path.split("."):
        value = (value or {}).get(name)
    return value


def _matches(document: dict[str, Any], match: dict[str, Any]) -> bool:
    for path, wanted in match.items():
        value = _field(document, path)
        if isinstance(wanted, dict):
            if value is None or value <= wanted["$gt"]:
                return False
        elif value != wanted:
            return False
    return True


class MemoryRedis(MemoryStore):
    """A Redis whose messages may get lost. Failures and reports are taken and forgotten."""

    def __init__(self, weather: Weather) -> None:
        super().__init__(weather, RedisConnectionError)
        self._subscriptions: list[MemorySubscription] = []
        self._beats: dict[str, dict[str, float]] = {}

    async def publish(self, channel: str, data: Any) -> None:
        text = data.decode() if isinstance(data, bytes) else data
        await self.ask(lambda: self._deliver(channel, text))

    def _deliver(self, channel: str, text: str) -> None:
        for subscription in self._subscriptions:
            if channel in subscription.channels and self.weather.loss() == "none":
                subscription.messages.put_nowait({"channel": channel, "data": text})

    @asynccontextmanager
    async def pubsub(self, **_: Any) -> AsyncIterator["MemorySubscription"]:
        subscription = MemorySubscription(self)
        self._subscriptions.append(subscription)
        this_process().at_death[subscription] = lambda: self._subscriptions.remove(subscription)
        try:
            yield subscription
        finally:
            if this_process().at_death.pop(subscription, None):
                self._subscriptions.remove(subscription)

    def crash(self, loop: VirtualLoop) -> None:
        super().crash(loop)
        for subscription in self._subscriptions:
            subscription.messages.put_nowait(None)

    async def hset(self, *_: Any) -> None:
        await self.ask(lambda: None)

    hdel = execute = hset

    def register_script(self, _: str) -> Callable[..., Awaitable[list[str]]]:
        """The only script that reaches this model is the heartbeat of `projector.live_workers`."""

        async def beat(keys: list[str], args: list[Any]) -> list[str]:
            alive: list[str] = await self.ask(lambda: self._beat(keys[0], *args))
            return alive

        return beat

    def _beat(self, key: str, worker_id: str, alive_ms: int) -> list[str]:
        now = asyncio.get_running_loop().time()
        beats = self._beats.setdefault(key, {})
        beats[worker_id] = now
        return [each for each, at in beats.items() if at >= now - alive_ms / 1_000]

    async def zrem(self, key: str, worker_id: str) -> None:
        await self.ask(lambda: self._beats.get(key, {}).pop(worker_id, None))

    @asynccontextmanager
    async def pipeline(self, **_: Any) -> AsyncIterator["MemoryPipeline"]:
        yield MemoryPipeline(self)


class MemoryPipeline:
    """A pipeline of commands whose results are empty."""

    def __init__(self, redis: MemoryRedis) -> None:
        self._redis = redis
        self._count = 0

    def hset(self, *_: Any, **__: Any) -> None:
        self._count += 1

    set = expire = zadd = zremrangebyscore = hkeys = hset

    async def execute(self) -> list[list[str]]:
        results: list[list[str]] = await self._redis.ask(lambda: [[]] * self._count)
        return results


class MemorySubscription:
    """The messages of some channels. A None among them is the end of the connection."""

    def __init__(self, redis: MemoryRedis) -> None:
        self._redis = redis
        self.channels: tuple[str, ...] = ()
        self.messages: asyncio.Queue[dict[str, str] | None] = asyncio.Queue()

    async def subscribe(self, *channels: str) -> None:
        await self._redis.ask(lambda: None)
        self.channels = channels

    async def get_message(self, timeout: float) -> dict[str, str] | None:  # as redis-py has it
        try:
            async with asyncio.timeout(timeout):
                message = await self.messages.get()
        except TimeoutError:
            return None
        if message is None:
            raise RedisConnectionError
        return message


def make_memory_sinks(weather: Weather) -> tuple[MemoryStore, MemoryRedis]:
    """Returns the stores of the read models: one that stands for MongoDB, and one for Redis."""
    return MemoryStore(weather, AutoReconnect), MemoryRedis(weather)
