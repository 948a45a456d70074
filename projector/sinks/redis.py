"""Writes read models to Redis. A script writes a batch and moves the checkpoint.

Each generation is a set of keys with a prefix of its own: see `shared.read_models`. Never write a read model outside a script
that moves its checkpoint. Never do arithmetic on money in a script: numbers in Lua are doubles.
"""

import random
import re
from collections.abc import AsyncIterator, Awaitable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.resources import files
from itertools import chain
from typing import Any, Final

import msgspec
from redis.asyncio import Redis
from redis.exceptions import ClusterDownError, NoScriptError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from projector.projections.changes import REMOVED, KeyChanges, pieces, removed
from projector.sinks.protocols import TOGETHER_CHANGES_MAX, LiveCheckpoint, Step, StepDeadLetters, damaged
from shared.log.encoding import canonical
from shared.read_models.dead_letters import (
    COUNTS,
    SKIPPED,
    DeadLetter,
    dead_letters_in_redis,
    parked_streams_in_redis,
    summary_in_hash,
)
from shared.read_models.generations import Generation, pointer_id, pointer_key
from shared.read_models.shapes import COPY_MARK, READ_MODELS, ReadModel
from shared.read_models.stored_state import Checkpoint, Pointer
from shared.stores.redis import server_with
from shared.stores.redis_cluster import Place
from shared.stores.shared_round_trips import SharedRoundTrips

_SCRIPTS: Final = files("projector.sinks") / "redis_scripts"
_APPLY: Final = (_SCRIPTS / "apply.lua").read_text()
_FIND_LOSS: Final = (_SCRIPTS / "find_loss.lua").read_text()
_MOVE_POINTER: Final = (_SCRIPTS / "move_pointer.lua").read_text()
_NOTE: Final = (_SCRIPTS / "note.lua").read_text()
_PREPARE: Final = (_SCRIPTS / "prepare.lua").read_text()
_REQUIRE_FITS: Final = (_SCRIPTS / "require_fits.lua").read_text()
_SWITCH: Final = (_SCRIPTS / "switch.lua").read_text()

_APPLIED: Final = 1
_OTHER_SUMS: Final = 2
"""What `apply.lua` returns. The third possible result is 0: the batch was not applied."""

_WORDS_MAX: Final = 500
"""The most field-value pairs in one Redis command. A script can unpack only a few thousand arguments onto its stack."""

_NAMED_FIRST: Final = ("checkpoint", "origin", "names")
"""The keys that every generation has."""

_NOT_DATA: Final = frozenset({*_NAMED_FIRST, "letters", "parked"})

_NAMES_AT_ONCE: Final = 1_000
"""About how many names one search for lost keys looks at. A larger generation is searched in turns."""


_AWAY: Final = (RedisConnectionError, RedisTimeoutError, ClusterDownError, OSError)
"""The errors that are answers in a pipeline when a server of a cluster does not answer."""

_ERRORS_OF_DATA: Final = ("WRONGTYPE", "not an integer", "not a valid float", "would overflow", "not a number")
"""Texts of the errors that are caused by the stored data. Redis errors can only be told apart by their texts."""

RedisCommand = tuple[str, ...]
Sums = dict[str, dict[str, str]]
"""Key → field → a sum of money, or '' if there is none yet."""

_pack: Final = msgspec.msgpack.encode


class RedisSink:
    """The read models in Redis."""

    def __init__(self, redis: "Redis") -> None:
        self._redis: Any = redis  # redis-py has one type for the results of its synchronous and asynchronous commands
        self._apply = redis.register_script(_APPLY)
        self._find_loss = redis.register_script(_FIND_LOSS)
        self._move_pointer = redis.register_script(_MOVE_POINTER)
        self._note = redis.register_script(_NOTE)
        self._prepare = redis.register_script(_PREPARE)
        self._require_fits = redis.register_script(_REQUIRE_FITS)
        self._switch = redis.register_script(_SWITCH)
        self._rounds: dict[Place | None, SharedRoundTrips[list[Any], Any]] = {}
        """Server of a cluster → the round trips to it, so that a server which does not answer holds up no batch for another."""
        self._sums: dict[str, Sums] = {}
        """Prefix of a generation → the sums that the last batch of this process left there."""
        self._searched: dict[str, str] = {}
        """Prefix of a generation → the cursor at which the next search for lost keys begins."""

    # ── checkpoints ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def read_checkpoint(self, generation: Generation) -> Checkpoint | None:
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.get(generation.key("checkpoint"))
            pipe.hgetall(generation.key("origin"))
            position, origin = await pipe.execute()
        return _checkpoint(position, origin)

    async def find_loss(self, generation: Generation) -> str | None:
        cursor, name = await self._search(generation, self._redis)
        self._searched[generation.key("")] = cursor
        return name or None

    def _search(self, generation: Generation, client: Any) -> Awaitable[Any]:
        """Searches the next names of a generation for a lost key. `client` is a connection or a pipeline."""
        prefix = generation.key("")
        keys = [generation.key("checkpoint"), generation.key("names")]
        arguments: list[Any] = [prefix, self._searched.get(prefix, "0"), _NAMES_AT_ONCE]
        return self._find_loss(keys=keys, args=arguments, client=client)

    async def read_live(self, models: Sequence[ReadModel], ledger_ids: Sequence[str]) -> dict[str, LiveCheckpoint | None]:
        """Returns the live checkpoints, by `pointer_id`. One of a key that has another type than it should is left out.

        One on a server of a cluster that does not answer is None.
        """
        pairs = [(model, ledger_id) for ledger_id in ledger_ids for model in models]
        async with self._redis.pipeline(transaction=False) as pipe:
            for pair in pairs:
                pipe.hget(pointer_key(*pair), "live")
            numbers = await pipe.execute(raise_on_error=False)
        found: dict[str, LiveCheckpoint | None] = {
            pointer_id(*pair): None for pair, number in zip(pairs, numbers, strict=True) if isinstance(number, _AWAY)
        }
        live = [Generation(*pair, int(number)) for pair, number in zip(pairs, numbers, strict=True) if isinstance(number, str)]
        async with self._redis.pipeline(transaction=False) as pipe:
            for generation in live:
                await self._search(generation, pipe)  # deletes the checkpoint of a generation that has lost a key
                pipe.get(generation.key("checkpoint"))
                pipe.hgetall(generation.key("origin"))
            answers = iter(await pipe.execute(raise_on_error=False))
        for generation, search, position, origin in zip(live, answers, answers, answers, strict=True):
            if isinstance(search, list):
                self._searched[generation.key("")] = search[0]
            if any(isinstance(each, _AWAY) for each in (search, position, origin)):
                found[pointer_id(generation.model, generation.ledger_id)] = None
            elif isinstance(position, str) and isinstance(origin, dict) and (checkpoint := _checkpoint(position, origin)):
                found[pointer_id(generation.model, generation.ledger_id)] = LiveCheckpoint(generation.number, checkpoint)
        return found

    async def read_letters(self, generation: Generation) -> list[DeadLetter]:
        return await dead_letters_in_redis(self._redis, generation)

    async def read_parked(self, generation: Generation) -> dict[str, int]:
        return await parked_streams_in_redis(self._redis, generation)

    # ── batches ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def apply(self, generation: Generation, step: Step, changes: KeyChanges) -> bool:
        """Applies a batch. Small batches of several read models that are ready at the same time share a round trip."""
        with _errors_of_data(generation):
            # The sums that this process wrote with its last batch. The script checks that Redis still has the same sums.
            sums = _picked(self._sums.pop(generation.key(""), {}), changes)
            answer = _OTHER_SUMS if sums is None else await self._apply_to(sums, generation, step, changes)
            if answer == _OTHER_SUMS:
                sums = await self._read_sums(generation, changes)
                answer = await self._apply_to(sums, generation, step, changes)
        if answer != _APPLIED:
            return False
        self._sums[generation.key("")] = _raised(sums or {}, changes)
        return True

    async def _apply_to(self, sums: Sums, generation: Generation, step: Step, changes: KeyChanges) -> int:
        """Calls the Lua script and returns its result. Sums of money are added here and not in Lua, whose numbers are doubles."""
        pointer = pointer_key(generation.model, generation.ledger_id)
        keys = [pointer, *map(generation.key, _NAMED_FIRST)]
        commands = _pack([*_commands(changes, _raised(sums, changes)), *_dead_letter_commands(step.dead_letters)])
        words = _pack([(key, name, value) for key, values in sums.items() for name, value in values.items()])
        arguments: list[Any] = [generation.number, step.before, step.after, step.log_hash, generation.key(""), commands, words]
        if len(changes) > TOGETHER_CHANGES_MAX:
            return int(await self._apply(keys=keys, args=arguments))
        place = server_with(self._redis, pointer)
        rounds = self._rounds.get(place)
        if rounds is None:
            rounds = self._rounds[place] = SharedRoundTrips(self._apply_together, len(READ_MODELS))
        return int(await rounds.ask([len(keys), *keys, *arguments]))

    async def _apply_together(self, calls: Sequence[list[Any]]) -> Sequence[Any]:
        """Calls the script once for each batch, in one round trip. An error is the answer of only the call that failed."""
        answers = await self._call(calls)
        if any(isinstance(answer, NoScriptError) for answer in answers):
            return await self._call(calls, {self._apply})
        return answers

    async def _call(self, calls: Sequence[list[Any]], scripts: Collection[Any] = ()) -> list[Any]:
        """Calls the script. Loads `scripts` first, if Redis or the server of a cluster has lost them."""
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.scripts.update(scripts)
            for call in calls:
                pipe.evalsha(self._apply.sha, *call)
            return list(await pipe.execute(raise_on_error=False))

    async def require_fits(self, generation: Generation, step: Step, changes: KeyChanges) -> None:
        arguments: list[Any] = [generation.key(""), _pack(list(_commands(changes, {}))), step.before]
        if flaw := await self._require_fits(keys=[generation.key("checkpoint")], args=arguments):
            raise damaged(generation, f"Redis could not apply {flaw}")

    async def _read_sums(self, generation: Generation, changes: KeyChanges) -> Sums:
        async with self._redis.pipeline(transaction=False) as pipe:
            for key, sums in changes.sums.items():
                pipe.hmget(generation.key(key), list(sums))
            stored = await pipe.execute()
        return {
            key: {name: value or "" for name, value in zip(sums, values, strict=True)}
            for (key, sums), values in zip(changes.sums.items(), stored, strict=True)
        }

    # ── content ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def count(self, generation: Generation) -> int:
        return len(await self.key_names(generation))

    async def sample(self, generation: Generation, size: int) -> list[str]:
        names = sorted(await self.key_names(generation))
        return sorted(random.sample(names, min(size, len(names))))

    async def pick(self, generation: Generation, names: list[str]) -> dict[str, Any]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.type(generation.key(name))
            kinds = dict(zip(names, await pipe.execute(), strict=True))
        _, values = await self.read_keys(generation, kinds)
        return {name: value for name, value in values.items() if value is not None}

    async def content(self, generation: Generation) -> AsyncIterator[bytes]:
        for names in _lists(await self.key_names(generation), _WORDS_MAX):
            values = await self.pick(generation, names)
            for name in names:
                yield canonical([name, values.get(name)])

    async def key_names(self, generation: Generation) -> set[str]:
        """Returns the names of all keys that hold data of the generation, without its prefix."""
        prefix = generation.key("")
        return {key.removeprefix(prefix) async for key in self._scan(prefix)} - _NOT_DATA

    async def read_keys(self, generation: Generation, kinds: Mapping[str, str | None]) -> tuple[int | None, dict[str, Any]]:
        """Returns the position of the checkpoint, and the value of each key at that position.

        `kinds` maps each key to the Redis type that it should have. A hash or a sorted set is returned as a dict, a list or a
        set as itself, and a missing key as None. For a key of any other type, the value is a text that names the type.
        """
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.get(generation.key("checkpoint"))
            for name, kind in kinds.items():
                _read(pipe, generation.key(name), kind)
            position, *values = await pipe.execute(raise_on_error=False)
        found = {name: _plain(value, kind) for (name, kind), value in zip(kinds.items(), values, strict=True)}
        return (None if position is None else int(position)), found

    async def read_names(self, generation: Generation) -> tuple[int | None, set[str]]:
        """Returns the position of the checkpoint, and the names of the keys with data that the generation must have there."""
        position, found = await self.read_keys(generation, {"names": "set"})
        return position, {*(found["names"] or ())} - _NOT_DATA

    async def expiring_keys(self, generation: Generation) -> list[tuple[str, int]]:
        """Returns the keys that Redis would delete after a time, with this time in ms. There must be none.

        The keys are those of the generation, with its checkpoint, and the pointer of the read model.
        """
        found = []
        pointer = pointer_key(generation.model, generation.ledger_id)
        for keys in _lists({pointer} | {key async for key in self._scan(generation.key(""))}, _WORDS_MAX):
            async with self._redis.pipeline(transaction=False) as pipe:
                for key in keys:
                    pipe.pttl(key)
                found += [(key, left) for key, left in zip(keys, await pipe.execute(), strict=True) if left >= 0]
        return found

    async def _scan(self, prefix: str) -> AsyncIterator[str]:
        pattern = re.sub(r"([\\*?\[\]])", r"\\\1", prefix) + "*"
        async for key in self._redis.scan_iter(match=pattern, count=1_000):
            yield key

    # ── generations ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def prepare(self, generation: Generation) -> None:
        await self._prepare(keys=[*map(generation.key, _NAMED_FIRST)], args=[generation.model.version, *_NAMED_FIRST])

    async def create_indexes(self, generation: Generation) -> None:
        """Redis has none."""

    async def numbers(self, model: ReadModel, ledger_id: str) -> set[int]:
        prefix = pointer_key(model, ledger_id) + ":"
        return {int(key.removeprefix(prefix).partition(":")[0]) async for key in self._scan(prefix)}

    async def drop(self, generation: Generation) -> None:
        self._sums.pop(generation.key(""), None)
        self._searched.pop(generation.key(""), None)
        await self._redis.delete(generation.key("checkpoint"))
        for some in _lists({key async for key in self._scan(generation.key(""))}, _WORDS_MAX):
            await self._redis.unlink(*some)

    # ── pointers ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def read_pointer(self, model: ReadModel, ledger_id: str) -> Pointer:
        found = await self._redis.hgetall(pointer_key(model, ledger_id))
        return Pointer(*(int(found[name]) if name in found else None for name in Pointer.__struct_fields__))

    async def move_pointer(self, model: ReadModel, ledger_id: str, before: Pointer, after: Pointer) -> bool:
        arguments = [number or "" for number in msgspec.structs.astuple(before) + msgspec.structs.astuple(after)]
        return bool(await self._move_pointer(keys=[pointer_key(model, ledger_id)], args=arguments))

    async def switch(self, generation: Generation, pointer: Pointer) -> bool:
        if pointer.building != generation.number:
            return False
        live = Generation(generation.model, generation.ledger_id, pointer.live or 0)
        keys = [pointer_key(generation.model, generation.ledger_id), generation.key("checkpoint"), live.key("checkpoint")]
        kept = pointer.switched_to(generation).previous
        return bool(await self._switch(keys=keys, args=[pointer.live or "", generation.number, kept or ""]))

    async def reopen(self, generation: Generation) -> None:
        """Does nothing: the scripts read the pointer to decide which generations take batches."""

    # ── notes, pauses, copies ────────────────────────────────────────────────────────────────────────────────────────

    async def read_notes(self, model: ReadModel, ledger_id: str) -> dict[str, str]:
        found = await self._redis.hgetall(pointer_key(model, ledger_id))
        return {name: value for name, value in found.items() if name not in Pointer.__struct_fields__}

    async def note(self, model: ReadModel, ledger_id: str, name: str, value: str) -> None:
        await self._note(keys=[pointer_key(model, ledger_id)], args=[name, value])

    async def pause(self, model: ReadModel, ledger_id: str, since: str) -> None:
        await self.note(model, ledger_id, "paused", since)

    async def resume(self, model: ReadModel, ledger_id: str) -> None:
        await self._redis.hdel(pointer_key(model, ledger_id), "paused")

    async def copy_labels(self, model: ReadModel, ledger_id: str) -> list[str]:
        prefix = pointer_key(model, ledger_id) + COPY_MARK
        return sorted({key.removeprefix(prefix).partition(":")[0] async for key in self._scan(prefix)})

    async def delete_pointer(self, model: ReadModel, ledger_id: str) -> None:
        await self._redis.delete(pointer_key(model, ledger_id))


def _checkpoint(position: str | None, origin: dict[str, str]) -> Checkpoint | None:
    if position is None or not origin:
        return None
    return Checkpoint(int(position), origin["log_hash"], int(origin["model_version"]), summary_in_hash(origin))


# ── what a batch becomes ─────────────────────────────────────────────────────────────────────────────────────────────


def _commands(changes: KeyChanges, sums: Sums) -> Iterator[RedisCommand]:
    """Yields the Redis commands for the script. Sets fields before it adds to them, because a later SET would undo the sum."""
    for key, fields in (*changes.fields.items(), *sums.items()):
        gone = removed(fields)
        kept = {name: value for name, value in fields.items() if value is not REMOVED} if gone else fields
        for some in pieces(kept, _WORDS_MAX):
            yield "HSET", key, *map(str, chain.from_iterable(some))
        for start in range(0, len(gone), _WORDS_MAX):
            yield "HDEL", key, *gone[start : start + _WORDS_MAX]
    for key, counts in changes.counts.items():
        yield from (("HINCRBY", key, name, str(count)) for name, count in counts.items())
    for key, scores in changes.scores.items():
        for some in pieces({m: score for m, score in scores.items() if score is not None}, _WORDS_MAX):
            yield "ZADD", key, *(word for member, score in some for word in (str(score), member))
        yield from (("ZREM", key, member) for member, score in scores.items() if score is None)
    for key, counts in changes.score_counts.items():
        yield from (("ZINCRBY", key, str(count), member) for member, count in counts.items())
    for key, values in changes.pushed.items():
        yield "LPUSH", key, *values
        yield "LTRIM", key, "0", str((values.maxlen or 0) - 1)


def _dead_letter_commands(added: StepDeadLetters) -> Iterator[RedisCommand]:
    for letter in added.letters:
        yield "HSET", "letters", str(letter.position), msgspec.json.encode(letter).decode()
    for some in pieces(added.parked, _WORDS_MAX):
        yield "HSET", "parked", *(str(word) for pair in some for word in pair)
    for name, count in zip(COUNTS, (len(added.letters), len(added.parked), added.put_aside), strict=True):
        if count:
            yield "HINCRBY", "origin", name, str(count)
    for position in added.skipped:
        yield "HSET", "origin", f"{SKIPPED}{position}", "1"


def _picked(sums: Sums, changes: KeyChanges) -> Sums | None:
    """Returns the current values of the sums that the batch changes, or None if one of them is not in `sums`."""
    try:
        return {key: {name: sums[key][name] for name in more} for key, more in changes.sums.items()}
    except KeyError:
        return None


def _raised(sums: Sums, changes: KeyChanges) -> Sums:
    return {
        key: {name: str(int(sums[key][name] or 0) + more) for name, more in by_name.items()}
        for key, by_name in changes.sums.items()
    }


@contextmanager
def _errors_of_data(generation: Generation) -> Iterator[None]:
    """Turns errors that the stored data cause into `ReadModelDamaged`. Other errors, such as a lack of memory, pass through."""
    try:
        yield
    except ResponseError as error:
        if what := next((what for what in _ERRORS_OF_DATA if what in str(error)), None):
            raise damaged(generation, f"Redis could not write the batch: {what}") from None
        raise


# ── what a key holds ─────────────────────────────────────────────────────────────────────────────────────────────────


def _read(pipe: Any, key: str, kind: str | None) -> None:
    match kind:
        case "hash":
            pipe.hgetall(key)
        case "zset":
            pipe.zrange(key, 0, -1, withscores=True)
        case "set":
            pipe.smembers(key)
        case "list":
            pipe.lrange(key, 0, -1)
        case _:
            pipe.type(key)


def _plain(value: Any, kind: str | None) -> Any:
    if isinstance(value, ResponseError):
        return f"a key of another type ({value})"
    if kind in {"hash", "zset", "list", "set"}:
        return (dict(value) if kind == "zset" else value) or None
    return None if value == "none" else f"a key of type {value}"


def _lists(items: Iterable[str], size: int) -> Iterator[list[str]]:
    listed = sorted(items)
    return (listed[start : start + size] for start in range(0, len(listed), size))
