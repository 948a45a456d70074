"""Configures Python's garbage collector for a server process."""

import gc
from typing import Final

YOUNG_OBJECTS_MAX: Final = 50_000


def calm_collector() -> None:
    """Makes garbage collection rare. Call this once, after the process has started.

    The collector never examines the existing objects again, and examines new objects less often. Requests leave few reference
    cycles behind, but with Python's defaults every thousandth new object starts a walk through all modules and routes. That took
    a quarter of the command API's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS_MAX, 20, 50)
