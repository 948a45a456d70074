"""The Merkle tree of RFC 6962 over a ledger's events: roots, and the two proofs that make a root worth signing.

A leaf is an event's hash; leaves count from 0, so the event at position p is leaf p − 1. Leaves and nodes are hashed with
different first bytes, so that neither can be passed off as the other. A tree of n leaves is its full subtrees («peaks», one for
each bit of n) folded from the right: it grows by O(log n) work and memory, and a full subtree never changes again.

No I/O here. What a root or a proof is made of is told as ranges and full subtrees, for the caller to fetch.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from typing import Final, NamedTuple

EMPTY_ROOT: Final = hashlib.sha256(b"").digest()

TILE_LEVELS: Final = 8
"""Full subtrees of 2^8, 2^16, … leaves are worth storing: any other is made of at most 255 of the stored ones below it."""


class Subtree(NamedTuple):
    """The full subtree over the 2^level leaves from `number` · 2^level on."""

    level: int
    number: int


class Range(NamedTuple):
    """Leaves from `start` up to but not including `end`, as RFC 6962 splits a tree."""

    start: int
    end: int


def leaf_hash(event_hash: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + event_hash).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


# ── the tree ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Frontier:
    """A tree that grows: nothing is kept of it but its peaks, the largest first."""

    def __init__(self, size: int = 0, peaks: Iterable[bytes] = ()) -> None:
        self.size = size
        self._peaks = list(peaks)

    def append(self, leaf: bytes) -> Iterator[tuple[Subtree, bytes]]:
        """Gives the subtrees worth storing that this leaf completes. To be iterated to the end."""
        level, grown = 0, leaf
        while self.size >> level & 1:
            grown = node_hash(self._peaks.pop(), grown)
            level += 1
            if level % TILE_LEVELS == 0:
                yield Subtree(level, self.size >> level), grown
        self._peaks.append(grown)
        self.size += 1

    def root(self) -> bytes:
        return fold(self._peaks)


def fold(peaks: Sequence[bytes]) -> bytes:
    """The hash over adjacent full subtrees of falling size."""
    return reduce(lambda right, left: node_hash(left, right), reversed(peaks)) if peaks else EMPTY_ROOT


def subtrees(leaves: Range) -> Iterator[Subtree]:
    """The full subtrees of a range, the largest first."""
    start = leaves.start
    for level in reversed(range((leaves.end - start).bit_length())):
        if (leaves.end - leaves.start) >> level & 1:
            yield Subtree(level, start >> level)
            start += 1 << level


def range_hash(leaves: Range, hashes: Mapping[Subtree, bytes]) -> bytes:
    return fold([hashes[subtree] for subtree in subtrees(leaves)])


def stored_count(size: int) -> int:
    """How many subtrees of a tree of `size` leaves are worth storing."""
    return sum(size >> level for level in range(TILE_LEVELS, size.bit_length(), TILE_LEVELS))


def stored_below(subtree: Subtree) -> tuple[int, int, int]:
    """(level, first, last) of the stored subtrees, or leaves, that a full subtree is made of; at most 128."""
    depth = subtree.level % TILE_LEVELS
    first = subtree.number << depth
    return subtree.level - depth, first, first + (1 << depth) - 1


def full_root(hashes: Sequence[bytes]) -> bytes:
    """The hash over a power of two of adjacent full subtrees of one size."""
    row = list(hashes)
    while len(row) > 1:
        row = [node_hash(left, right) for left, right in zip(row[::2], row[1::2], strict=True)]
    return row[0]


# ── inclusion ────────────────────────────────────────────────────────────────────────────────────────────────────────


def inclusion_ranges(index: int, size: int) -> list[Range]:
    """What the audit path of a leaf is made of, from the leaf up."""
    start, end = 0, size
    ranges = []
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            ranges.append(Range(middle, end))
            end = middle
        else:
            ranges.append(Range(start, middle))
            start = middle
    return ranges[::-1]


def root_of_path(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """The root that a leaf and its audit path lead to; None where the path is not one of that leaf in a tree of that size."""
    ranges = inclusion_ranges(index, size) if 0 <= index < size else None
    if ranges is None or len(ranges) != len(path):
        return None
    found = leaf
    for sibling, leaves in zip(path, ranges, strict=True):
        found = node_hash(found, sibling) if leaves.start > index else node_hash(sibling, found)
    return found


def _split(size: int) -> int:
    """The largest power of two below `size`."""
    return 1 << (size - 1).bit_length() - 1


# ── consistency ──────────────────────────────────────────────────────────────────────────────────────────────────────


def consistency_ranges(old: int, new: int) -> list[Range]:
    """What the proof is made of that the tree of `new` leaves begins with that of `old` ≥ 1 leaves; in the order of RFC 6962."""
    start, end, whole = 0, new, True
    ranges = []
    while old != end:
        middle = start + _split(end - start)
        if old <= middle:
            ranges.append(Range(middle, end))
            end = middle
        else:
            ranges.append(Range(start, middle))
            start, whole = middle, False
    return ([] if whole else [Range(start, end)]) + ranges[::-1]


def is_consistent(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether the proof shows that nothing of the old tree was changed, only leaves added after it (RFC 9162, 2.1.4.2)."""
    if not 0 < old <= new:
        return False
    if old == new:
        return not proof and old_root == new_root
    hashes = list(proof) if old & (old - 1) else [old_root, *proof]
    if not hashes:
        return False
    node, last = old - 1, new - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    roots = hashes[0], hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            return False
        roots, node, last = _climb(roots, sibling, node, last)
    return last == 0 and roots == (old_root, new_root)


def _climb(roots: tuple[bytes, bytes], sibling: bytes, node: int, last: int) -> tuple[tuple[bytes, bytes], int, int]:
    """One level up, and on past the levels at which the old tree's last subtree has no sibling."""
    old, new = roots
    if node & 1 or node == last:
        old, new = node_hash(sibling, old), node_hash(sibling, new)
        while node and not node & 1:
            node, last = node >> 1, last >> 1
    else:
        new = node_hash(new, sibling)
    return (old, new), node >> 1, last >> 1
