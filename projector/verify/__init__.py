"""Verify a ledger: fold the log again, and compare everything that was derived from the log with the result."""
