"""Seals of a ledger, and the Merkle tree whose roots they sign. Hides how proofs are computed and stored."""
