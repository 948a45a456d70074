"""A whole ledger as a file: the format of its lines, and how a ledger is exported and imported."""
