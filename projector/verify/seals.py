"""Checks the seals: compares every seal, in PostgreSQL and in the published file, with the events of the log.

This finds two things that the hash chain cannot show: that the end of the log was cut off, and that the log was changed and all
hashes were computed again. No consistency proof is needed: two roots that both follow from this log cover the same beginning.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from projector.sealing.seal_file import SealFile, read_file
from projector.verify.difference import DifferenceFound, require_equal
from projector.verify.trusted_seals import FoundSeal, TrustedSeals
from shared.identity.audit_records import NO_LEDGER
from shared.log.heads import read_head, read_heads
from shared.progress import CountDone
from shared.proof import merkle, seal_store
from shared.proof.merkle import Frontier, Range, Subtree, leaf_hash
from shared.proof.seals import AUDIT_SUFFIX, Seal, is_signed

PUBLISH_LOOKS: Final = 20
PUBLISH_LOOK_SECONDS: Final = 0.1


class VerifiedSeals(NamedTuple):
    """The numbers of correct seals in PostgreSQL and in the file, and the position of the last one."""

    position: int
    in_postgres: int
    in_file: int


async def verify_seals(
    connection: AsyncConnection, ledger_id: str, trusted: TrustedSeals, count_done: CountDone
) -> VerifiedSeals:
    """Compares every seal with the log, from the first event to the head.

    Raises:
        DifferenceFound: a seal does not match the log. The error names the seal and the range of events with the difference.
        shared.errors.LogDamaged: an event or a node of the tree is missing.
    """
    _, file, is_own = trusted
    if file and is_own:
        await _require_known_ledgers(connection, file)
    newest = await seal_store.newest_seal(connection, ledger_id)
    published = _PublishedSeals(read_file(file, ledger_id, only_seals=is_own), str(file))
    # Read the head after the newest seal: it is before that seal only if the end of the log was cut off.
    head = (await read_head(connection, ledger_id)).position
    if newest:
        _require_reached(head, FoundSeal("PostgreSQL", newest))
    walk = _SealWalk(connection, ledger_id, trusted, newest.position if newest else 0)
    while walk.position < head:
        count_done(await walk.next_page(head, published))
    await _verify_rest(connection, ledger_id, published)
    await walk.close()
    if file and not is_own and not walk.in_file:
        raise DifferenceFound(f"{file}", f"at least one seal of ledger {ledger_id!r}", None)
    if file and is_own and newest:
        await _require_published(file, ledger_id, newest.position)
    return VerifiedSeals(walk.last.position if walk.last else 0, walk.in_postgres, walk.in_file)


async def _require_known_ledgers(connection: AsyncConnection, file: Path) -> None:
    """Checks that every seal in the file of the worker is about a ledger that exists. Otherwise no check would look at it."""
    lines = {seal.ledger_id.removesuffix(AUDIT_SUFFIX): line for line, seal in read_file(file, None, only_seals=True) if seal}
    # Read the ledgers after the file: a ledger that is made meanwhile may get a seal at once.
    known = {*await read_heads(connection), NO_LEDGER}
    for ledger_id in sorted(lines.keys() - known):
        raise DifferenceFound(f"{file}, line {lines[ledger_id]}, ledger", "one that exists", ledger_id)


async def _verify_rest(connection: AsyncConnection, ledger_id: str, published: "_PublishedSeals") -> None:
    """Checks that no other seal in the file is beyond the head. Seals published meanwhile are checked in the next run."""
    for found in published.up_to(None):
        head = await read_head(connection, ledger_id)
        _require_reached(head.position, found)


async def _require_published(file: Path, ledger_id: str, position: int) -> None:
    """Checks that the file of the worker reaches the newest seal. Waits for it, because a seal is stored before it is published.

    Raises:
        DifferenceFound: the seal is not published.
    """
    for _ in range(PUBLISH_LOOKS):
        last = SealFile(file).last_position(ledger_id)
        if last >= position:
            return
        await asyncio.sleep(PUBLISH_LOOK_SECONDS)
    raise DifferenceFound(f"seal at position {position} in {file}", "as in PostgreSQL", None)


def _require_reached(head: int, found: FoundSeal) -> None:
    if head < found.seal.position:
        where = f"position {head + 1} of the log, which was sealed up to {found.seal.position} ({found.where})"
        raise DifferenceFound(where, "an event", None)


class _PublishedSeals:
    """Reads the seals of a file one after another, and checks that their positions increase."""

    def __init__(self, lines: Iterator[tuple[int, Seal | None]], name: str) -> None:
        self._lines = lines
        self._name = name
        self._next: FoundSeal | None = None
        self._last = 0

    def up_to(self, position: int | None) -> Iterator[FoundSeal]:
        while found := self._next or self._take():
            self._next = found
            if position is not None and found.seal.position > position:
                return
            self._next = None
            yield found

    def _take(self) -> FoundSeal | None:
        number, seal = next(self._lines, (0, None))
        name = f"{self._name}, line {number}"
        if seal is None and number:
            raise DifferenceFound(name, "a seal", "another line, or one that was cut off")
        if seal is None:
            return None
        if seal.position <= self._last:
            raise DifferenceFound(f"{name}, position", f"more than {self._last}", seal.position)
        self._last = seal.position
        return FoundSeal(name, seal)


class _SealWalk:
    """Reads the log, builds the Merkle tree, and compares each seal with it. `last` is the last correct seal in PostgreSQL."""

    def __init__(self, connection: AsyncConnection, ledger_id: str, trusted: TrustedSeals, sealed: int) -> None:
        self.last: Seal | None = None
        self.in_postgres = 0
        self.in_file = 0
        self._connection = connection
        self._ledger_id = ledger_id
        self._keys = trusted.keys
        self._trusted = trusted
        self._sealed = sealed
        self._frontier = Frontier()

    @property
    def position(self) -> int:
        return self._frontier.size

    async def next_page(self, head: int, published: _PublishedSeals) -> int:
        start = self.position
        hashes = await seal_store.read_hashes(self._connection, self._ledger_id, start, head)
        end = start + len(hashes)
        in_file = {found.seal.position: found for found in published.up_to(end)}
        # Read these seals after the file, because a seal is committed to PostgreSQL before it is published.
        seals = await seal_store.read_seals(self._connection, self._ledger_id, start, end, seal_store.READ_HASHES_MAX)
        in_postgres = {seal.position: seal for seal in seals}
        nodes: dict[Subtree, bytes] = {}
        for event_hash in hashes:
            nodes.update(self._frontier.append(leaf_hash(event_hash)))
            if self.position in in_file or self.position in in_postgres:
                self._verify(in_postgres.get(self.position), in_file.get(self.position))
        await self._verify_nodes(nodes)
        return len(hashes)

    def _verify(self, stored: Seal | None, found: FoundSeal | None) -> None:
        if found:
            self._verify_one(found)
            self.in_file += 1
        if stored:
            self._verify_one(FoundSeal("PostgreSQL", stored))
            self.in_postgres += 1
        elif found:
            raise DifferenceFound(f"seal at position {self.position} in PostgreSQL", f"as in {found.where}", None)
        if stored and not found and self._must_be_published():
            raise DifferenceFound(f"seal at position {self.position} in {self._trusted.file}", "as in PostgreSQL", None)
        self.last = stored

    def _must_be_published(self) -> bool:
        """Returns True if the file must hold the seal at this position. Whether the newest one is there is checked at the end."""
        return self._trusted.is_own and self._trusted.file is not None and self.position < self._sealed

    def _verify_one(self, found: FoundSeal) -> None:
        where = f"seal at position {found.seal.position} ({found.where})"
        if self._keys and not is_signed(found.seal, self._keys):
            raise DifferenceFound(f"{where}, signature", "one by a known key", f"key {found.seal.key_id}")
        first = self.last.position + 1 if self.last else 1
        sealed = f"{where}, root of events 1 to {self.position}; the change is in {first} to {self.position}"
        require_equal(sealed, self._frontier.root().hex(), found.seal.root.hex())

    async def _verify_nodes(self, nodes: dict[Subtree, bytes]) -> None:
        """Compares the stored nodes of the Merkle tree, from which receipts are made, with the computed ones."""
        expected = {node: hash_ for node, hash_ in nodes.items() if (node.number + 1) << node.level <= self._sealed}
        asked = [(node.level, node.number, node.number) for node in expected]
        found = await seal_store.read_nodes(self._connection, self._ledger_id, asked)
        for node, hash_ in expected.items():
            first, last = (node.number << node.level) + 1, (node.number + 1) << node.level
            stored = found.get(node)
            require_equal(f"node of the Merkle tree over events {first} to {last}", hash_.hex(), stored and stored.hex())

    async def close(self) -> None:
        """Checks that no extra nodes are stored, and that the stored nodes give the root of the newest seal.

        Checks nothing if a seal was made meanwhile. The next run does.
        """
        newest = await seal_store.newest_seal(self._connection, self._ledger_id)
        if newest is None or newest.position != self._sealed:
            return
        count = await seal_store.count_nodes(self._connection, self._ledger_id)
        require_equal("stored nodes of the Merkle tree", merkle.stored_count(self._sealed), count)
        [root] = await seal_store.read_ranges(self._connection, self._ledger_id, [Range(0, self._sealed)])
        require_equal(f"seal at position {self._sealed}, root by its stored nodes", newest.root.hex(), root.hex())
