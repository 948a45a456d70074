"""Webhooks: where a ledger's events are sent, how a delivery is signed, and which addresses are refused."""
