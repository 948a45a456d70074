"""The stores that Daybook uses only if their URL is set. A process that does not use one imports nothing for it.

Each has a setting for its URL, an extra that installs its packages, and a module that opens it. The module has an asynchronous
context manager `open_store(settings, read_only=…)`, which sends nothing to the store and yields a
`shared.read_models.stored_state.OptionalStore`.
"""

from typing import Final

import msgspec

from shared.settings import Settings


class OptionalStoreKind(msgspec.Struct, frozen=True):
    """An optional store. `name` is the `store` of its read models, and `setting` the field of `Settings` with its URL.

    `read_setting` is the field with the URL of a login that may only read, if the store has one. It may be unset.
    """

    name: str
    title: str
    setting: str
    extra: str
    module: str
    checks: str
    """The module whose asynchronous generator `check_store(settings)` yields the findings of `daybook doctor`."""
    sink: str
    """The module of the projector whose function `make_sink` makes the sink from the opened store."""
    read_setting: str | None = None

    @property
    def variable(self) -> str:
        return f"DAYBOOK_{self.setting.upper()}"

    def is_configured(self, settings: Settings, *, read_only: bool = False) -> bool:
        """True if a process uses the store. With `read_only`, it only reads, so the URL of either login is enough."""
        may_read = read_only and self.read_setting is not None and getattr(settings, self.read_setting)
        return bool(getattr(settings, self.setting) or may_read)


OPTIONAL_STORES: Final = (
    OptionalStoreKind(
        name="sql",
        title="the reporting store",
        setting="reporting_url",
        read_setting="reporting_read_url",
        extra="sql",
        module="shared.reporting.store",
        checks="shared.reporting.schema_check",
        sink="projector.sinks.sql",
    ),
    OptionalStoreKind(
        name="search",
        title="the search store",
        setting="search_url",
        extra="search",
        module="shared.search.store",
        checks="shared.search.mappings",
        sink="projector.sinks.search",
    ),
    OptionalStoreKind(
        name="timeline",
        title="the timeline store",
        setting="timeline_url",
        extra="timeline",
        module="shared.timeline.store",
        checks="shared.timeline.tables",
        sink="projector.sinks.timeline",
    ),
)
OPTIONAL_STORES_BY_NAME: Final = {kind.name: kind for kind in OPTIONAL_STORES}


def configured_stores(settings: Settings) -> frozenset[str]:
    """Returns the names of the optional stores whose URL is set."""
    return frozenset(kind.name for kind in OPTIONAL_STORES if kind.is_configured(settings))
