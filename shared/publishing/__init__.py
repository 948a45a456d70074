"""Publishing: how far each ledger's events are in the broker, and why they are not further."""
