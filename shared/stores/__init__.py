"""Connections to PostgreSQL, MongoDB and Redis, and checks of their configuration. Hides the drivers."""
