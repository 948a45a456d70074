"""Servers and processes for development and tests; production never imports this room."""
