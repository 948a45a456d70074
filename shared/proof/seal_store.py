"""Stores seals and nodes of the Merkle tree in PostgreSQL. All SQL on `seals` and `seal_nodes` is in this module.

The leaves of the tree are the events themselves. Of the nodes above the leaves, only full nodes of every eighth level are stored,
which is about one row for 256 events. A proof therefore reads a few ranges of at most 256 rows each, however long the log is.

Every function uses the caller's connection. None of them begins or commits a transaction.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.errors import LogDamaged
from shared.proof import merkle
from shared.proof.merkle import Frontier, Range, Subtree
from shared.proof.seals import Seal

READ_HASHES_MAX: Final = 5_000
Nodes = Mapping[Subtree, bytes]

_COLUMNS: Final = "ledger_id, position, root, signature, key_id, sealed_at"

READ_SEALS: Final = text(f"""
    SELECT {_COLUMNS} FROM seals
    WHERE ledger_id = :ledger_id AND position > :after AND position <= :last ORDER BY position LIMIT :limit
""")  # noqa: S608 # built of constants
READ_SEALS_BEFORE: Final = text(f"""
    SELECT {_COLUMNS} FROM seals WHERE ledger_id = :ledger_id AND position < :before ORDER BY position DESC LIMIT :limit
""")  # noqa: S608 # built of constants
LAST_SEALED_AT: Final = text("""
    SELECT max(last.sealed_at) FROM log_heads h
    CROSS JOIN LATERAL (SELECT sealed_at FROM seals s WHERE s.ledger_id = h.ledger_id ORDER BY position DESC LIMIT 1) last
""")
READ_HASHES: Final = text("""
    SELECT position, hash FROM events WHERE ledger_id = :ledger_id AND position > :after AND position <= :last
    ORDER BY position LIMIT :limit
""")

# This form makes PostgreSQL use the index for each range. For a range that is unknown at planning time, PostgreSQL would expect
# to read a ninth of the table.
READ_LEAVES: Final = text("""
    SELECT position - 1, hash FROM events WHERE ledger_id = :ledger_id AND position = ANY (CAST(:positions AS bigint[]))
""")
READ_NODES: Final = text("""
    SELECT n.level, n.number, n.hash
    FROM unnest(CAST(:levels AS smallint[]), CAST(:firsts AS bigint[]), CAST(:lasts AS bigint[])) AS asked (level, first, last)
    CROSS JOIN LATERAL (
        SELECT level, number, hash FROM seal_nodes
        WHERE ledger_id = :ledger_id AND level = asked.level AND number BETWEEN asked.first AND asked.last
    ) n
""")
INSERT_NODES: Final = text("""
    INSERT INTO seal_nodes (ledger_id, level, number, hash)
    SELECT :ledger_id, level, number, hash
    FROM unnest(CAST(:levels AS smallint[]), CAST(:numbers AS bigint[]), CAST(:hashes AS bytea[])) AS n (level, number, hash)
""")
INSERT_SEAL: Final = text(f"""
    INSERT INTO seals ({_COLUMNS}) VALUES (:ledger_id, :position, :root, :signature, :key_id, :sealed_at)
""")  # noqa: S608 # built of constants
LOCK_SEALS: Final = text("SELECT pg_try_advisory_xact_lock(hashtextextended('daybook seals of ' || :ledger_id, 0))")


# ── seals ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def lock_seals(connection: AsyncConnection, ledger_id: str) -> bool:
    """Locks the seals of a ledger until the transaction ends. Returns False if another transaction has the lock."""
    return bool(await connection.scalar(LOCK_SEALS, {"ledger_id": ledger_id}))


async def read_seals(connection: AsyncConnection, ledger_id: str, after: int, last: int, limit: int) -> list[Seal]:
    """Returns the next seals, in order, at positions after `after` up to and including `last`."""
    parameters = {"ledger_id": ledger_id, "after": after, "last": last, "limit": limit}
    return [Seal(*row) for row in await connection.execute(READ_SEALS, parameters)]


async def read_seals_before(connection: AsyncConnection, ledger_id: str, before: int, limit: int) -> list[Seal]:
    """Returns the seals at earlier positions than `before`, the newest first."""
    parameters = {"ledger_id": ledger_id, "before": before, "limit": limit}
    return [Seal(*row) for row in await connection.execute(READ_SEALS_BEFORE, parameters)]


async def newest_seal(connection: AsyncConnection, ledger_id: str) -> Seal | None:
    seals = await read_seals_before(connection, ledger_id, 2**63 - 1, 1)
    return seals[0] if seals else None


async def last_sealed_at(connection: AsyncConnection) -> datetime | None:
    """Returns the time of the newest seal of any ledger; None if there is no seal."""
    sealed_at: datetime | None = await connection.scalar(LAST_SEALED_AT)
    return sealed_at


async def find_seal(connection: AsyncConnection, ledger_id: str, position: int) -> Seal | None:
    """Returns the seal at exactly this position; None if there is no such seal."""
    seals = await read_seals(connection, ledger_id, position - 1, position, 1)
    return seals[0] if seals else None


async def insert_seal(connection: AsyncConnection, seal: Seal, nodes: Nodes) -> None:
    """Stores a seal, and the nodes that were completed since the previous seal.

    Raises:
        sqlalchemy.exc.IntegrityError: the seal or one of the nodes is already stored.
    """
    parameters = {"levels": [n.level for n in nodes], "numbers": [n.number for n in nodes], "hashes": [*nodes.values()]}
    await connection.execute(INSERT_NODES, {"ledger_id": seal.ledger_id, **parameters})
    await connection.execute(INSERT_SEAL, {name: getattr(seal, name) for name in seal.__struct_fields__})


# ── the tree ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def read_hashes(connection: AsyncConnection, ledger_id: str, after: int, last: int) -> Sequence[bytes]:
    """Returns the hashes of the events after `after` up to and including `last`, at most `READ_HASHES_MAX`.

    Raises:
        LogDamaged: one of these positions has no event.
    """
    parameters = {"ledger_id": ledger_id, "after": after, "last": last, "limit": READ_HASHES_MAX}
    rows = (await connection.execute(READ_HASHES, parameters)).all()
    expected = range(after + 1, min(after + READ_HASHES_MAX, last) + 1)
    found = {row[0] for row in rows}
    if missing := next((position for position in expected if position not in found), None):
        raise LogDamaged(f"there is no event at position {missing} of ledger {ledger_id!r}")
    return [row[1] for row in rows]


async def read_frontier(connection: AsyncConnection, ledger_id: str, size: int) -> Frontier:
    """Returns the tree over events 1 to `size`, to which leaves can be added. A seal must already cover these events."""
    peaks = [*merkle.subtrees(Range(0, size))]
    nodes = await _read_subtrees(connection, ledger_id, peaks)
    return Frontier(size, [nodes[peak] for peak in peaks])


async def read_ranges(connection: AsyncConnection, ledger_id: str, ranges: Sequence[Range]) -> list[bytes]:
    """Returns the hash of each range of leaves, from which proofs are made. A seal must already cover the leaves.

    Raises:
        LogDamaged: an event or a node is missing.
    """
    nodes = await _read_subtrees(connection, ledger_id, [each for leaves in ranges for each in merkle.subtrees(leaves)])
    return [merkle.range_hash(leaves, nodes) for leaves in ranges]


async def _read_subtrees(connection: AsyncConnection, ledger_id: str, wanted: Iterable[Subtree]) -> Nodes:
    below = {subtree: merkle.stored_below(subtree) for subtree in wanted}
    stored = await read_nodes(connection, ledger_id, [asked for asked in below.values() if asked[0]])
    stored |= await _read_leaves(connection, ledger_id, [asked for asked in below.values() if not asked[0]])
    try:
        return {
            subtree: merkle.full_root([stored[Subtree(level, number)] for number in range(first, last + 1)])
            for subtree, (level, first, last) in below.items()
        }
    except KeyError as missing:
        where = f"the Merkle tree of ledger {ledger_id!r}, level {missing.args[0].level}, number {missing.args[0].number}"
        raise LogDamaged(f"{where}: missing") from None


async def read_nodes(connection: AsyncConnection, ledger_id: str, asked: Sequence[tuple[int, int, int]]) -> dict[Subtree, bytes]:
    """Returns the stored nodes in ranges that are given as (level, first, last). Nodes that are not stored are left out."""
    if not asked:
        return {}
    levels, firsts, lasts = (list(column) for column in zip(*asked, strict=True))
    parameters = {"ledger_id": ledger_id, "levels": levels, "firsts": firsts, "lasts": lasts}
    return {Subtree(row[0], row[1]): row[2] for row in await connection.execute(READ_NODES, parameters)}


async def count_nodes(connection: AsyncConnection, ledger_id: str) -> int:
    return int(await connection.scalar(text("SELECT count(*) FROM seal_nodes WHERE ledger_id = :id"), {"id": ledger_id}) or 0)


async def _read_leaves(
    connection: AsyncConnection, ledger_id: str, asked: Sequence[tuple[int, int, int]]
) -> dict[Subtree, bytes]:
    positions = [leaf + 1 for _, first, last in asked for leaf in range(first, last + 1)]
    rows = await connection.execute(READ_LEAVES, {"ledger_id": ledger_id, "positions": positions}) if asked else ()
    return {Subtree(0, row[0]): merkle.leaf_hash(row[1]) for row in rows}
