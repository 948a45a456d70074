"""The log of a ledger: its events, and the code that appends, hashes, reads and stores them."""
