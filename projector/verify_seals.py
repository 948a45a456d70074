"""Is the log what was sealed? Holds every seal in PostgreSQL, and every one that was published outside, against the events.

This finds what the chain of hashes alone cannot: a log whose end was cut off, and one that was changed and chained anew.
A seal whose root follows from the log extends every earlier one whose root does: both cover the beginning of one log.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from projector.difference import DifferenceFound, require_equal
from projector.seal_file import read_file
from shared import event_store, merkle, seal_store
from shared.merkle import Frontier, Range, Subtree, leaf_hash
from shared.seals import KnownKeys, Seal, is_signed


class Place(NamedTuple):
    """A seal, and where it was found."""

    name: str
    seal: Seal


class Sealed(NamedTuple):
    """What was found right. `position` is that of the last seal."""

    position: int
    in_postgres: int
    in_file: int


async def verify_seals(
    connection: AsyncConnection, ledger_id: str, keys: KnownKeys, file: Path | None, advanced: Callable[[int], None]
) -> Sealed:
    """Without known keys, signatures are not checked.

    Raises:
        DifferenceFound: names the seal, and the events between which the log is not what was sealed.
        shared.errors.LogDamaged: an event or a node of the tree is missing.
    """
    newest = await seal_store.newest_seal(connection, ledger_id)
    published = _Published(read_file(file, ledger_id), str(file))
    # Read after the newest seal: the head was never before it, nor will it be, unless the end of the log was cut off.
    head = (await event_store.read_head(connection, ledger_id)).position
    if newest:
        _require_reached(head, Place("PostgreSQL", newest))
    walk = _Walk(connection, ledger_id, keys, newest.position if newest else 0)
    while walk.position < head:
        advanced(await walk.next_page(head, published))
    await _verify_rest(connection, ledger_id, published)
    await walk.close()
    return Sealed(walk.last.position if walk.last else 0, walk.in_postgres, walk.in_file)


async def _verify_rest(connection: AsyncConnection, ledger_id: str, published: "_Published") -> None:
    """What was published while we looked is left for the next time, but never reaches beyond the head."""
    for place in published.up_to(None):
        head = await event_store.read_head(connection, ledger_id)
        _require_reached(head.position, place)


def _require_reached(head: int, place: Place) -> None:
    if head < place.seal.position:
        where = f"position {head + 1} of the log, which was sealed up to {place.seal.position} ({place.name})"
        raise DifferenceFound(where, "an event", None)


class _Published:
    """The seals of a file, taken as far as they are wanted."""

    def __init__(self, lines: Iterator[tuple[int, Seal]], name: str) -> None:
        self._lines = lines
        self._name = name
        self._next: Place | None = None
        self._last = 0

    def up_to(self, position: int | None) -> Iterator[Place]:
        while place := self._next or self._take():
            self._next = place
            if position is not None and place.seal.position > position:
                return
            self._next = None
            yield place

    def _take(self) -> Place | None:
        number, seal = next(self._lines, (0, None))
        if seal is None:
            return None
        name = f"{self._name}, line {number}"
        if seal.position <= self._last:
            raise DifferenceFound(f"{name}, position", f"more than {self._last}", seal.position)
        self._last = seal.position
        return Place(name, seal)


class _Walk:
    """Goes through the log and grows the tree; `last` is the last seal that was right."""

    def __init__(self, connection: AsyncConnection, ledger_id: str, keys: KnownKeys, sealed: int) -> None:
        self.last: Seal | None = None
        self.in_postgres = 0
        self.in_file = 0
        self._connection = connection
        self._ledger_id = ledger_id
        self._keys = keys
        self._sealed = sealed
        self._frontier = Frontier()

    @property
    def position(self) -> int:
        return self._frontier.size

    async def next_page(self, head: int, published: _Published) -> int:
        start = self.position
        hashes = await seal_store.read_hashes(self._connection, self._ledger_id, start, head)
        end = start + len(hashes)
        in_file = {place.seal.position: place for place in published.up_to(end)}
        # Read after the file: a seal is published when PostgreSQL has it.
        seals = await seal_store.read_seals(self._connection, self._ledger_id, start, end, seal_store.PAGE_HASHES)
        in_postgres = {seal.position: seal for seal in seals}
        nodes: dict[Subtree, bytes] = {}
        for event_hash in hashes:
            nodes.update(self._frontier.append(leaf_hash(event_hash)))
            if self.position in in_file or self.position in in_postgres:
                self._verify(in_postgres.get(self.position), in_file.get(self.position))
        await self._verify_nodes(nodes)
        return len(hashes)

    def _verify(self, stored: Seal | None, place: Place | None) -> None:
        if place:
            self._verify_one(place)
            self.in_file += 1
        if stored:
            self._verify_one(Place("PostgreSQL", stored))
            self.in_postgres += 1
        elif place:
            raise DifferenceFound(f"seal at position {self.position} in PostgreSQL", f"as in {place.name}", None)
        self.last = stored

    def _verify_one(self, place: Place) -> None:
        where = f"seal at position {place.seal.position} ({place.name})"
        if self._keys and not is_signed(place.seal, self._keys):
            raise DifferenceFound(f"{where}, signature", "one by a known key", f"key {place.seal.key_id}")
        first = self.last.position + 1 if self.last else 1
        sealed = f"{where}, root of events 1 to {self.position}; the change is in {first} to {self.position}"
        require_equal(sealed, self._frontier.root().hex(), place.seal.root.hex())

    async def _verify_nodes(self, nodes: dict[Subtree, bytes]) -> None:
        """Proofs are made of them."""
        expected = {node: hash_ for node, hash_ in nodes.items() if (node.number + 1) << node.level <= self._sealed}
        asked = [(node.level, node.number, node.number) for node in expected]
        found = await seal_store.read_nodes(self._connection, self._ledger_id, asked)
        for node, hash_ in expected.items():
            first, last = (node.number << node.level) + 1, (node.number + 1) << node.level
            stored = found.get(node)
            require_equal(f"node of the Merkle tree over events {first} to {last}", hash_.hex(), stored and stored.hex())

    async def close(self) -> None:
        """Nothing is there that should not be, as far as no seal is made meanwhile; and the tree answers as a proof would."""
        newest = await seal_store.newest_seal(self._connection, self._ledger_id)
        if newest is None or newest.position != self._sealed:
            return
        count = await seal_store.count_nodes(self._connection, self._ledger_id)
        require_equal("stored nodes of the Merkle tree", merkle.stored_count(self._sealed), count)
        [root] = await seal_store.read_ranges(self._connection, self._ledger_id, [Range(0, self._sealed)])
        require_equal(f"seal at position {self._sealed}, root by its stored nodes", newest.root.hex(), root.hex())
