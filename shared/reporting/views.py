"""The views that analysts and other programs read: `live_users` has the live rows of the table `users`, and so on.

A view has `ledger_id` and all columns of its table but `generation_id`. A switch of generations changes what all views show at
once, because it changes one row of `pointers`.
"""

from typing import Final

from sqlalchemy import Dialect, Select, select

from shared.reporting.tables import DATA_TABLES, METADATA

VIEWS: Final = {f"live_{name}": table for name, table in DATA_TABLES.items()}


def definition(view: str) -> Select[tuple[object, ...]]:
    """Returns the statement that a view stands for."""
    table, pointers, generations = VIEWS[view], METADATA.tables["pointers"], METADATA.tables["generations"]
    is_live = (
        (generations.c.ledger_id == pointers.c.ledger_id)
        & (generations.c.model == pointers.c.model)
        & (generations.c.number == pointers.c.live)
    )
    rows = pointers.join(generations, is_live).join(table, table.c.generation_id == generations.c.id)
    return select(pointers.c.ledger_id, *(each for each in table.c if each.name != "generation_id")).select_from(rows)


def create_statement(view: str, dialect: Dialect) -> str:
    return f"CREATE VIEW {view} AS {definition(view).compile(dialect=dialect)}"
