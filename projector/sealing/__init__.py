"""Make and publish seals. A seal is the signed root of the Merkle tree over a ledger's events; it is published in a file."""
