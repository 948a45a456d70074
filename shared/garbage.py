"""Garbage collection, tuned for a server."""

import gc
from typing import Final

YOUNG_OBJECTS_MAX: Final = 50_000


def calm_collector() -> None:
    """To be called when a process has started. What exists now stays and is not looked at again; the rest is, less often.

    Requests leave few cycles behind, yet with the defaults every thousandth object walks through all modules and routes: that
    was a quarter of the command API's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS_MAX, 20, 50)
