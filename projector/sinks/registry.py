"""Makes the sink of each store. Add a store that always exists here, and an optional one in `shared.optional_stores`."""

from importlib import import_module
from typing import Any

from projector.sinks.mongo import MongoSink
from projector.sinks.protocols import Sink
from projector.sinks.redis import RedisSink
from shared.optional_stores import OPTIONAL_STORES_BY_NAME
from shared.read_models.shapes import Store
from shared.stores.all_stores import Stores


def make_sinks(stores: Stores) -> dict[Store, Sink[Any]]:
    """Returns the sinks of all stores that are in use. The module of an optional sink is imported only if its store is."""
    sinks: dict[Any, Sink[Any]] = {"mongo": MongoSink(stores.mongo), "redis": RedisSink(stores.redis)}
    for name, store in stores.optional.items():
        sinks[name] = import_module(OPTIONAL_STORES_BY_NAME[name].sink).make_sink(store)
    return sinks
