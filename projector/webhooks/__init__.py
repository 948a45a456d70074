"""Sends events to the receivers of webhooks."""
