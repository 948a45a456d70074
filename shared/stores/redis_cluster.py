"""A client for Redis Cluster with the methods of redis-py's client for one server, so that no other code knows which it has.

The key of a command says which of 16,384 slots it is in, and the servers say which of them has which slots. Each command goes to
the server that has its key, over redis-py's client for that server. A pipeline is divided by server. A command without a key goes
to any server, and a message that is published at one server reaches the subscribers of all.

redis-py's own client of clusters has no publish and subscribe and no transactions for asyncio, and closes the connections to all
servers when one of them fails. Here only the commands for that server fail, until another one has its slots or it is back.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.client import Pipeline, PubSub
from redis.commands.core import AsyncScript
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import (
    AskError,
    ClusterCrossSlotError,
    ClusterDownError,
    MovedError,
    NoScriptError,
    RedisError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from shared.supervision import end_tasks, keep_running

SCHEMES: Final = {"redis+cluster": "redis", "rediss+cluster": "rediss"}
"""The scheme of a URL that names servers of a cluster → the scheme of one of its servers."""
PORT: Final = 6379
TRIES_MAX: Final = 5
"""How often a command is sent at most, if servers say that another one has its slot."""
AGAIN_SECONDS: Final = 0.02
"""The pause before a command is sent again whose keys are just being moved to another server."""
LEARN_SECONDS: Final = 1.0
"""How long a server may take to say who has which slots."""
LEARN_PAUSE_SECONDS: Final = 0.1
DOUBT_SECONDS: Final = 5.0
"""For so long after a failure, commands without a key go to other servers."""
SILENT_SECONDS: Final = 5.0
"""A server that leaves a subscriber's PING unanswered for so long counts as lost."""

_ANYWHERE: Final = frozenset(
    {"PUBLISH", "PING", "TIME", "INFO", "DBSIZE", "CLUSTER SLOTS", "CLUSTER INFO", "CONFIG GET", "ASKING"}
)
"""Commands without a key."""
_SUMMED: Final = frozenset({"DEL", "UNLINK", "EXISTS"})
"""Commands that take keys of several slots, and answer with a count."""
_WITH_KEY_COUNT: Final = frozenset({"EVAL", "EVALSHA"})
_KEY_COUNT_AT: Final = 2
_NO_ANSWER: Final = "no server of the cluster answers"
_NO_SERVER: Final = "no server of the cluster that answers has the slot of a key"

Place = tuple[str, int]
"""The host and the port of a server."""
SentCommand = tuple[tuple[Any, ...], dict[str, Any]]
"""The words of a command, and redis-py's options for its answer."""


def names_cluster(url: str) -> bool:
    return url.partition("://")[0] in SCHEMES


def read_cluster_url(url: str) -> tuple[list[Place], Callable[[Place], str]]:
    """Returns the servers that a URL names, and a function that returns the URL of a server with the same login and options.

    Raises:
        ValueError: the URL cannot be read.
    """
    parts = urlsplit(url)
    login, at, places = parts.netloc.rpartition("@")
    if parts.path not in {"", "/", "/0"}:
        msg = "a cluster has no numbered databases"
        raise ValueError(msg)
    query = f"?{parts.query}" if parts.query else ""

    def url_of(place: Place) -> str:
        host, port = place
        return f"{SCHEMES[parts.scheme]}://{login}{at}{f'[{host}]' if ':' in host else host}:{port}{query}"

    return [_place(each) for each in places.split(",")], url_of


def _place(text: str) -> Place:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        msg = "a server of the cluster has no name"
        raise ValueError(msg)
    return parts.hostname, parts.port or PORT


class ClusterRedis(Redis):
    """Sends commands to the servers of a cluster."""

    def __init__(self, seeds: Sequence[Place], pool_of: Callable[[Place], ConnectionPool]) -> None:
        """Asks the first of these servers that answers for the others. `pool_of` makes the pool of connections to a server."""
        self._seeds = list(seeds)
        self._pool_of = pool_of
        self._clients: dict[Place, Any] = {}  # redis-py has one type for the results of its synchronous and asynchronous commands
        self._owners: list[Place | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        self._masters: list[Place] = []
        self._replicas: list[Place] = []
        self._failed_at: dict[Place, float] = {}
        self._learned_at = float("-inf")
        self._learning: asyncio.Task[None] | None = None
        super().__init__(connection_pool=self._client(self._seeds[0]).connection_pool)

    # ── what redis-py's client for one server has ────────────────────────────────────────────────────────────────────

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        if args[0] in _SUMMED and len({_slot_of_key(key) for key in args[1:]}) > 1:
            return sum(_unless_error(await self.send([((args[0], key), options) for key in args[1:]])))
        [answer] = _unless_error(await self.send([(args, options)]))
        return answer

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> "ClusterPipeline":  # noqa: FBT001, FBT002 # as in redis-py
        return ClusterPipeline(self, transaction=transaction, shard_hint=shard_hint)

    def register_script(self, script: Any) -> AsyncScript:  # type: ignore[override]  # typed as that of the blocking client
        return _ClusterScript(self, script)

    def pubsub(self, **options: Any) -> PubSub:
        """Returns a subscriber at any server. When that server is lost, it raises an error, and the next one is at another."""
        return _Subscriber(self._client(self._anywhere()).connection_pool, **options)

    async def scan_iter(  # type: ignore[override]  # typed as that of the blocking client
        self, match: Any = None, count: int | None = None, _type: str | None = None, **options: Any
    ) -> AsyncIterator[Any]:
        """Yields keys of the slot that the pattern names in braces, or of all servers."""
        tag = str(match or "").partition("{")[2].partition("}")[0]
        if tag and not {"*", "?", "[", "\\"} & {*tag}:
            places = {await self.place_of(f"{{{tag}}}")}
        else:
            await self._know_slots()
            places = {*self._masters}
        for place in places:
            async for key in self._client(place).scan_iter(match, count, _type, **options):
                yield key

    async def aclose(self, close_connection_pool: bool | None = None) -> None:  # noqa: FBT001 # as in redis-py
        if self._learning:
            await end_tasks(self._learning)
        for client in self._clients.values():
            await client.aclose(close_connection_pool)

    # ── which server has what ────────────────────────────────────────────────────────────────────────────────────────

    async def place_of(self, key: str) -> Place:
        """Returns the server that has a key.

        Raises:
            RedisConnectionError: no server has its slot, or none says so.
        """
        await self._know_slots()
        place = self._owners[_slot_of_key(key)]
        if place is None:
            raise RedisConnectionError(_NO_SERVER)
        return place

    def known_place_of(self, key: str) -> Place | None:
        """Returns the server that has a key, as far as this client knows."""
        return self._owners[_slot_of_key(key)]

    async def servers(self) -> list[Redis]:
        """Returns a client for each server that has slots."""
        await self._know_slots()
        if not self._masters:
            raise RedisConnectionError(_NO_ANSWER)
        return [self._client(place) for place in self._masters]

    async def learn(self) -> None:
        """Asks the servers which of them has which slots, unless they were asked a moment ago. Never raises."""
        if asyncio.get_running_loop().time() >= self._learned_at + LEARN_PAUSE_SECONDS:
            await asyncio.shield(self._learn_soon())

    async def _know_slots(self) -> None:
        if not self._masters:
            await self.learn()

    def _learn_soon(self) -> asyncio.Task[None]:
        if self._learning is None or self._learning.done():
            self._learning = keep_running("reader of a cluster's slots", self._ask_for_slots)
        return self._learning

    async def _ask_for_slots(self) -> None:
        places = list(dict.fromkeys([*self._masters, *self._replicas, *self._seeds]))
        random.shuffle(places)
        for place in sorted(places, key=self._is_doubted):
            try:
                async with asyncio.timeout(LEARN_SECONDS):
                    self._take(place, await self._client(place).execute_command("CLUSTER SLOTS"))
            except (RedisError, OSError, TimeoutError):
                self._failed_at[place] = time.monotonic()
            else:
                break
        self._learned_at = asyncio.get_running_loop().time()

    def _take(self, asked: Place, ranges: Iterable[Sequence[Any]]) -> None:
        owners: list[Place | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        masters, replicas = dict[Place, None](), dict[Place, None]()
        for start, end, *servers in ranges:
            # A server that does not know its own name names none.
            first, *others = ((server[0] if server[0] not in {None, "", "?"} else asked[0], int(server[1])) for server in servers)
            owners[start : end + 1] = [first] * (end + 1 - start)
            masters[first] = None
            replicas.update(dict.fromkeys(others))
        self._owners, self._masters, self._replicas = owners, [*masters], [*replicas]

    def _is_doubted(self, place: Place) -> bool:
        return time.monotonic() < self._failed_at.get(place, float("-inf")) + DOUBT_SECONDS

    def _anywhere(self) -> Place:
        places = self._masters or self._seeds
        return random.choice([place for place in places if not self._is_doubted(place)] or places)  # noqa: S311 # not a secret

    def _client(self, place: Place) -> Any:
        client = self._clients.get(place)
        if client is None:
            client = self._clients[place] = Redis.from_pool(self._pool_of(place))
        return client

    # ── sending ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def send(self, commands: Sequence[Any], scripts: Collection[Any] = (), *, is_transaction: bool = False) -> list[Any]:
        """Sends each `SentCommand` to the server of its key, and again if another one has it. Returns answers or errors in order.

        Commands of one transaction must be in one slot. `scripts` are loaded where the commands need them.
        """
        await self._know_slots()
        slots = _slots_of(commands)
        if is_transaction and len({*slots}) > 1:
            raise ClusterCrossSlotError("the keys of a transaction are in several slots")
        answers: list[Any] = [None] * len(commands)
        left: Sequence[int] = range(len(commands))
        for _ in range(TRIES_MAX):
            by_place: dict[Place, list[int]] = {}
            if not all(map(self._sends_to, slots)):
                await self.learn()
            for number in left:
                if place := self._sends_to(slots[number]):
                    by_place.setdefault(place, []).append(number)
                else:
                    answers[number] = RedisConnectionError(_NO_SERVER)
            groups = [(place, numbers, [commands[number] for number in numbers]) for place, numbers in by_place.items()]
            found = await asyncio.gather(
                *(self._send_to(place, some, scripts, is_transaction=is_transaction) for place, _, some in groups)
            )
            left = []
            for (place, numbers, _), some in zip(groups, found, strict=True):
                for number, answer in zip(numbers, some, strict=True):
                    answers[number] = answer
                    if isinstance(answer, Exception) and await self._is_elsewhere(place, slots[number], answer):
                        left.append(number)
            if not left:
                break
        return answers

    def _sends_to(self, slot: int | None) -> Place | None:
        return self._anywhere() if slot is None else self._owners[slot]

    async def _send_to(
        self, place: Place, commands: Sequence[SentCommand], scripts: Collection[Any], *, is_transaction: bool
    ) -> list[Any]:
        """Sends commands to one server. An error of the connection is the answer of each of them."""
        pipe = self._client(place).pipeline(transaction=is_transaction)
        pipe.command_stack = [*commands]
        if any(words[0] in _WITH_KEY_COUNT for words, _ in commands):
            pipe.scripts = {*scripts}
        try:
            answers = await pipe.execute(raise_on_error=False)
        except (RedisError, OSError, TimeoutError) as error:
            return [error] * len(commands)
        except asyncio.CancelledError:
            # The caller's time is over. Another server may have the slots of one that is frozen.
            self._doubt(place)
            raise
        return [
            await self._ask(command, answer) if _is_ask(answer) else answer
            for command, answer in zip(commands, answers, strict=True)
        ]

    async def _ask(self, command: SentCommand, error: AskError) -> Any:
        """Sends a command to the server to which its slot is being moved, as the server that has the slot says."""
        pipe = self._client((error.host, error.port)).pipeline(transaction=False)
        pipe.command_stack = [(("ASKING",), {}), command]
        try:
            _, answer = await pipe.execute(raise_on_error=False)
        except (RedisError, OSError, TimeoutError) as failure:
            return failure
        return answer

    async def _is_elsewhere(self, place: Place, slot: int | None, error: Exception) -> bool:
        """Returns True if a command that failed at a server should be sent again, because another server may have its slot."""
        match error:
            case MovedError():
                self._owners[error.slot_id] = error.host or place[0], error.port
                self._learn_soon()
                return True
            case TryAgainError():
                await asyncio.sleep(AGAIN_SECONDS)
                return True
            case RedisTimeoutError() | TimeoutError():
                self._doubt(place)
                return False
            case ClusterDownError() | RedisConnectionError() | OSError():
                self._failed_at[place] = time.monotonic()
                await self.learn()
                return self._anywhere() != place if slot is None else self._owners[slot] not in {None, place}
        return False

    def _doubt(self, place: Place) -> None:
        self._failed_at[place] = time.monotonic()
        self._learn_soon()


class ClusterPipeline(Pipeline):
    """Commands that are sent together, to each server its own. A transaction must be in one slot, and cannot watch keys."""

    def __init__(self, cluster: ClusterRedis, *, transaction: bool, shard_hint: str | None = None) -> None:
        super().__init__(cluster.connection_pool, cluster.response_callbacks, transaction, shard_hint)
        self._cluster = cluster

    def execute_command(self, *args: Any, **options: Any) -> Any:
        self.command_stack.append((args, options))
        return self

    async def execute(self, raise_on_error: bool = True) -> list[Any]:  # noqa: FBT001, FBT002 # as in redis-py
        """Sends the commands. With `raise_on_error` false, the error of a server is the answer of each of its commands."""
        commands, scripts = self.command_stack, self.scripts
        try:
            answers = await self._cluster.send(commands, scripts, is_transaction=self.is_transaction) if commands else []
        finally:
            self.command_stack, self.scripts = [], set()
        return _unless_error(answers) if raise_on_error else answers


class _ClusterScript(AsyncScript):
    """A script that is loaded only at the server of its keys. No other one is waited for."""

    async def __call__(self, keys: Any = None, args: Any = None, client: Any = None) -> Any:
        if isinstance(client, Pipeline):  # a pipeline, which loads the script where its commands go
            return await super().__call__(keys, args, client)
        cluster: Any = self.registered_client
        words = (self.sha, len(keys or ()), *(keys or ()), *(args or ()))
        try:
            return await cluster.evalsha(*words)
        except NoScriptError:
            pipe = cluster.pipeline(transaction=False)
            pipe.scripts.add(self)
            [answer] = await pipe.evalsha(*words).execute()
            return answer


class _Subscriber(PubSub):
    """A subscriber that notices when its server is silent, because another server would still have messages for it."""

    async def check_health(self) -> None:
        connection = self.connection
        now = asyncio.get_running_loop().time()
        if connection is not None and 0 < connection.next_health_check < now - SILENT_SECONDS:
            await connection.disconnect(nowait=True)
            raise RedisConnectionError("a server of the cluster is silent")
        await super().check_health()  # type: ignore[no-untyped-call]


def _slots_of(commands: Sequence[SentCommand]) -> list[int | None]:
    """Returns the slot of each command. One without a key goes with its neighbours, or anywhere if no command has a key."""
    slots = [_slot_of(words) for words, _ in commands]
    last = next((slot for slot in slots if slot is not None), None)
    for number, slot in enumerate(slots):
        slots[number] = last = last if slot is None else slot
    return slots


def _slot_of(words: Sequence[Any]) -> int | None:
    if words[0] in _ANYWHERE:
        return None
    if words[0] in _WITH_KEY_COUNT:
        return _slot_of_key(words[_KEY_COUNT_AT + 1]) if int(words[_KEY_COUNT_AT]) else None
    return _slot_of_key(words[1]) if len(words) > 1 else None


def _slot_of_key(key: str | bytes) -> int:
    return key_slot(key if isinstance(key, bytes) else str(key).encode())


def _is_ask(answer: Any) -> bool:
    return isinstance(answer, AskError) and not isinstance(answer, MovedError)


def _unless_error(answers: list[Any]) -> list[Any]:
    """Returns the answers, or raises the first error among them."""
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers
