"""Lets migrations make indexes of tables that have rows, while commands go on."""

from alembic import op

LOCK_WAIT = "500ms"
"""How long a migration waits for the lock of a table."""


def create_index(name: str, on: str) -> None:
    """Makes an index concurrently: commands write to the table meanwhile. `on` names the table and its columns.

    Commits what the migrations before it have done. Begin a migration with it: if the migration is killed, it runs again from its
    beginning, and drops the half-made index first.
    """
    with op.get_context().autocommit_block():
        # PostgreSQL waits for all transactions that are open. Nobody waits behind that, so it may take as long as it needs.
        op.execute("SET lock_timeout = 0")
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {on}")
        op.execute(f"SET lock_timeout = '{LOCK_WAIT}'")
