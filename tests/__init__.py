"""The tests. Those marked `services` run on real PostgreSQL, MongoDB and Redis, started for them."""
