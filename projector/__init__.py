"""Derives read models from the log, keeps them up to date, and verifies that they match the log."""
