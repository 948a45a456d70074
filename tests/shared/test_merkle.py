"""Compares the Merkle tree with RFC 6962 as it is written there, as recursion over all leaves. No server."""

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.proof import merkle
from shared.proof.merkle import Frontier, Range, Subtree, is_consistent, leaf_hash, node_hash, root_of_path

LEAVES = [leaf_hash(number.to_bytes(32, "big")) for number in range(1_000)]
SIZES = range(1, 201)
sizes = st.integers(1, 200)


def split(size: int) -> int:
    half = 1
    while half * 2 < size:
        half *= 2
    return half


def root(leaves: Sequence[bytes]) -> bytes:
    """MTH of RFC 6962, 2.1."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    half = split(len(leaves))
    return hashlib.sha256(b"\x01" + root(leaves[:half]) + root(leaves[half:])).digest()


def path(index: int, leaves: Sequence[bytes]) -> list[bytes]:
    """PATH of RFC 6962, 2.1.1."""
    if len(leaves) == 1:
        return []
    half = split(len(leaves))
    if index < half:
        return [*path(index, leaves[:half]), root(leaves[half:])]
    return [*path(index - half, leaves[half:]), root(leaves[:half])]


def proof(old: int, leaves: Sequence[bytes], *, whole: bool = True) -> list[bytes]:
    """SUBPROOF of RFC 6962, 2.1.2."""
    if old == len(leaves):
        return [] if whole else [root(leaves)]
    half = split(len(leaves))
    if old <= half:
        return [*proof(old, leaves[:half], whole=whole), root(leaves[half:])]
    return [*proof(old - half, leaves[half:], whole=False), root(leaves[:half])]


class Subtrees(dict[Subtree, bytes]):
    """The hash of any full subtree, computed from the leaves."""

    def __missing__(self, subtree: Subtree) -> bytes:
        return root(LEAVES[subtree.number << subtree.level : (subtree.number + 1) << subtree.level])


def ours(ranges: list[Range]) -> list[bytes]:
    return [merkle.range_hash(leaves, Subtrees()) for leaves in ranges]


def test_a_tree_that_grows_has_the_root_of_the_whole_at_every_size() -> None:
    frontier = Frontier()
    assert frontier.root() == root([])
    for size, leaf in enumerate(LEAVES[:200], 1):
        assert list(frontier.append(leaf)) == []
        assert frontier.root() == root(LEAVES[:size])


def test_leaves_and_nodes_are_hashed_apart() -> None:
    left, right = b"l" * 32, b"r" * 32
    assert leaf_hash(left + right) != node_hash(left, right)
    assert leaf_hash(b"") == hashlib.sha256(b"\x00").digest()


@pytest.mark.parametrize("size", [255, 256, 257, 511, 512, 1_000])
def test_each_subtree_that_is_stored_is_yielded_once_when_it_is_full(size: int) -> None:
    frontier = Frontier()
    stored = [subtree for leaf in LEAVES[:size] for subtree in frontier.append(leaf)]
    assert stored == [(Subtree(8, index), root(LEAVES[index * 256 : index * 256 + 256])) for index in range(size // 256)]
    assert len(stored) == merkle.stored_count(size)


def test_the_count_of_stored_subtrees_includes_all_levels() -> None:
    assert [merkle.stored_count(size) for size in (0, 255, 256, 65_535, 65_536, 65_792)] == [0, 0, 1, 255, 257, 258]


@given(st.integers(0, 700), st.integers(0, 300))
def test_a_tree_can_grow_further_from_its_peaks(before: int, more: int) -> None:
    peaks = [Subtrees()[subtree] for subtree in merkle.subtrees(Range(0, before))]
    frontier = Frontier(before, peaks)
    for leaf in LEAVES[before : before + more]:
        list(frontier.append(leaf))
    assert frontier.root() == root(LEAVES[: before + more])


@given(st.integers(0, 9), st.integers(0, 100))
def test_a_full_subtree_is_computed_from_stored_ones(level: int, index: int) -> None:
    below, first, last = merkle.stored_below(Subtree(level, index % (1_000 >> level)))
    hashes = [Subtrees()[Subtree(below, number)] for number in range(first, last + 1)]
    assert below % merkle.TILE_LEVELS == 0
    assert merkle.full_root(hashes) == Subtrees()[Subtree(level, index % (1_000 >> level))]


@given(sizes.flatmap(lambda size: st.tuples(st.just(size), st.integers(0, size - 1))))
def test_an_audit_path_equals_that_of_the_rfc_and_leads_to_the_root(case: tuple[int, int]) -> None:
    size, index = case
    found = ours(merkle.inclusion_ranges(index, size))
    assert found == path(index, LEAVES[:size])
    assert root_of_path(LEAVES[index], index, size, found) == root(LEAVES[:size])


@pytest.mark.parametrize("size", SIZES)
def test_an_audit_path_proves_its_leaf_at_its_place_only(size: int) -> None:
    whole, index = root(LEAVES[:size]), size * 2 // 3
    right = path(index, LEAVES[:size])
    assert root_of_path(LEAVES[index], index, size, right) == whole
    others = {0, index - 1, index + 1, index ^ 2, size - 1} - {-1, index}
    assert all(root_of_path(LEAVES[index], other, size, right) != whole for other in others)
    assert root_of_path(LEAVES[index + 1], index, size, right) != whole
    assert root_of_path(LEAVES[index], index, size, [*right, whole]) is None
    assert root_of_path(LEAVES[index], index, size, right[1:]) != whole or not right
    assert root_of_path(LEAVES[index], size, size, right) is None
    assert root_of_path(LEAVES[index], -1, size, right) is None


@given(sizes.flatmap(lambda new: st.tuples(st.integers(1, new), st.just(new))))
def test_a_consistency_proof_equals_that_of_the_rfc_and_is_valid(case: tuple[int, int]) -> None:
    old, new = case
    found = ours(merkle.consistency_ranges(old, new))
    assert found == proof(old, LEAVES[:new])
    assert is_consistent(old, root(LEAVES[:old]), new, root(LEAVES[:new]), found)


@given(sizes, sizes, st.data())
def test_a_consistency_proof_of_another_history_is_not_valid(old: int, more: int, data: st.DataObject) -> None:
    new = old + more
    changed = data.draw(st.integers(0, old - 1))
    forged = [*LEAVES[:changed], leaf_hash(b"forged"), *LEAVES[changed + 1 : new]]
    assert not is_consistent(old, root(LEAVES[:old]), new, root(forged), proof(old, forged))
    right = proof(old, LEAVES[:new])
    place = data.draw(st.integers(0, len(right) - 1))
    broken = [*right[:place], bytes(32), *right[place + 1 :]]
    roots = root(LEAVES[:old]), root(LEAVES[:new])
    assert not is_consistent(old, roots[0], new, roots[1], broken)
    assert not is_consistent(old, roots[0], new, roots[1], [*right, bytes(32)])
    assert not is_consistent(old, roots[0], new, roots[1], right[:-1])
    assert not is_consistent(new, roots[1], old, roots[0], right)


def test_a_tree_is_consistent_with_itself_and_nothing_with_the_empty_one() -> None:
    assert is_consistent(3, root(LEAVES[:3]), 3, root(LEAVES[:3]), [])
    assert not is_consistent(3, root(LEAVES[:3]), 3, root(LEAVES[:4]), [])
    assert not is_consistent(0, root([]), 3, root(LEAVES[:3]), [])
