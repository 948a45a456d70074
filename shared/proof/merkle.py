"""The Merkle tree of RFC 6962 over a ledger's events: its roots, inclusion proofs and consistency proofs.

A leaf is the hash of an event's hash. Leaves are counted from 0, so the event at position p is leaf p - 1. The hashed bytes of
leaves and nodes start with different bytes, so that a leaf cannot be passed off as a node. A tree of n leaves consists of full
subtrees, called peaks: one for each 1 bit of n. The root is computed from the peaks, from right to left. Adding a leaf takes
O(log n) time and memory, and a full subtree never changes again.

This module does no I/O. Its functions return the ranges and full subtrees whose hashes form a root or a proof, and the caller
reads these hashes.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from typing import Final, NamedTuple

EMPTY_ROOT: Final = hashlib.sha256(b"").digest()

TILE_LEVELS: Final = 8
"""Full subtrees of 2^8, 2^16, … leaves are stored. Every other subtree is computed from at most 128 stored ones or leaves."""


class Subtree(NamedTuple):
    """The full subtree over the 2^level leaves that start at leaf `number` * 2^level."""

    level: int
    number: int


class Range(NamedTuple):
    """The leaves from `start` up to but not including `end`. Each range is a part that RFC 6962 splits a tree into."""

    start: int
    end: int


def leaf_hash(event_hash: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + event_hash).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


# ── the tree ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Frontier:
    """A growing Merkle tree that keeps only its peaks, the largest first."""

    def __init__(self, size: int = 0, peaks: Iterable[bytes] = ()) -> None:
        self.size = size
        self._peaks = list(peaks)

    def append(self, leaf: bytes) -> Iterator[tuple[Subtree, bytes]]:
        """Adds a leaf, and yields the subtrees to store, which the leaf has completed. Always iterate to the end."""
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
    """Returns the root over adjacent full subtrees, whose hashes are given from the largest to the smallest."""
    return reduce(lambda right, left: node_hash(left, right), reversed(peaks)) if peaks else EMPTY_ROOT


def subtrees(leaves: Range) -> Iterator[Subtree]:
    """Yields the full subtrees that a range consists of, the largest first."""
    start = leaves.start
    for level in reversed(range((leaves.end - start).bit_length())):
        if (leaves.end - leaves.start) >> level & 1:
            yield Subtree(level, start >> level)
            start += 1 << level


def range_hash(leaves: Range, hashes: Mapping[Subtree, bytes]) -> bytes:
    return fold([hashes[subtree] for subtree in subtrees(leaves)])


def stored_count(size: int) -> int:
    """Returns the number of subtrees that are stored for a tree of `size` leaves."""
    return sum(size >> level for level in range(TILE_LEVELS, size.bit_length(), TILE_LEVELS))


def stored_below(subtree: Subtree) -> tuple[int, int, int]:
    """Returns (level, first, last): the range of at most 128 stored subtrees, or leaves, that together are this full subtree."""
    depth = subtree.level % TILE_LEVELS
    first = subtree.number << depth
    return subtree.level - depth, first, first + (1 << depth) - 1


def full_root(hashes: Sequence[bytes]) -> bytes:
    """Returns the root over adjacent full subtrees of equal size. Their number must be a power of two; this is not checked."""
    row = list(hashes)
    while len(row) > 1:
        row = [node_hash(left, right) for left, right in zip(row[::2], row[1::2], strict=True)]
    return row[0]


# ── inclusion ────────────────────────────────────────────────────────────────────────────────────────────────────────


def inclusion_ranges(index: int, size: int) -> list[Range]:
    """Returns the ranges whose hashes form the audit path of the leaf at `index`, from the leaf to the root."""
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
    """Returns the root that is computed from a leaf and its audit path.

    Returns None if a tree of this size has no leaf at `index`, or if the path has the wrong length.
    """
    ranges = inclusion_ranges(index, size) if 0 <= index < size else None
    if ranges is None or len(ranges) != len(path):
        return None
    found = leaf
    for sibling, leaves in zip(path, ranges, strict=True):
        found = node_hash(found, sibling) if leaves.start > index else node_hash(sibling, found)
    return found


def _split(size: int) -> int:
    """Returns the largest power of two that is less than `size`."""
    return 1 << (size - 1).bit_length() - 1


# ── consistency ──────────────────────────────────────────────────────────────────────────────────────────────────────


def consistency_ranges(old: int, new: int) -> list[Range]:
    """Returns the ranges whose hashes prove that a tree of `new` leaves starts with the tree of its first `old` leaves.

    The ranges have the order of RFC 6962. `old` must be at least 1; this is not checked.
    """
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
    """Returns True if the proof shows that the new tree is the old tree with leaves added at its end (RFC 9162, 2.1.4.2)."""
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
    """Combines the roots with the sibling on this level, and goes up. Skips levels where the old tree's last node has no sibling.

    Returns the roots of both trees so far, and `node` and `last` on the new level.
    """
    old, new = roots
    if node & 1 or node == last:
        old, new = node_hash(sibling, old), node_hash(sibling, new)
        while node and not node & 1:
            node, last = node >> 1, last >> 1
    else:
        new = node_hash(new, sibling)
    return (old, new), node >> 1, last >> 1
