"""Lists all projections. Add a new read model here and in `shared.read_models.shapes`, in `READ_MODELS` or, if its store is
optional, in `OPTIONAL_READ_MODELS`.
"""

from collections.abc import Container
from typing import Any, Final

from projector.projections.accounts import ACCOUNTS_PROJECTION
from projector.projections.activity import ACTIVITY_PROJECTION
from projector.projections.balances import BALANCES_PROJECTION
from projector.projections.currency_sums import CURRENCY_SUMS_PROJECTION
from projector.projections.days import DAYS_PROJECTION
from projector.projections.entries import ENTRIES_PROJECTION
from projector.projections.holds import HOLDS_PROJECTION
from projector.projections.limit_history import LIMIT_HISTORY_PROJECTION
from projector.projections.projection import Projection
from projector.projections.reports import REPORTS_PROJECTION
from projector.projections.schedule_runs import SCHEDULE_RUNS_PROJECTION
from projector.projections.schedules import SCHEDULES_PROJECTION
from projector.projections.search import SEARCH_PROJECTION
from projector.projections.shifts import SHIFTS_PROJECTION
from projector.projections.statistics import STATISTICS_PROJECTION
from projector.projections.timeline import TIMELINE_PROJECTION
from projector.projections.transfers import TRANSFERS_PROJECTION
from projector.projections.users import USERS_PROJECTION
from shared.errors import SettingsInvalid
from shared.optional_stores import OPTIONAL_STORES_BY_NAME

PROJECTIONS: Final[tuple[Projection[Any], ...]] = (
    USERS_PROJECTION,
    ACCOUNTS_PROJECTION,
    TRANSFERS_PROJECTION,
    ENTRIES_PROJECTION,
    BALANCES_PROJECTION,
    STATISTICS_PROJECTION,
    ACTIVITY_PROJECTION,
    HOLDS_PROJECTION,
    LIMIT_HISTORY_PROJECTION,
    SHIFTS_PROJECTION,
    SCHEDULES_PROJECTION,
    SCHEDULE_RUNS_PROJECTION,
    CURRENCY_SUMS_PROJECTION,
    DAYS_PROJECTION,
)
OPTIONAL_PROJECTIONS: Final[tuple[Projection[Any], ...]] = (REPORTS_PROJECTION, SEARCH_PROJECTION, TIMELINE_PROJECTION)
"""The projections of optional stores. They run only where their store is in use."""

PROJECTIONS_BY_NAME: Final = {projection.name: projection for projection in PROJECTIONS}
ALL_PROJECTIONS_BY_NAME: Final = {projection.name: projection for projection in (*PROJECTIONS, *OPTIONAL_PROJECTIONS)}


def projections_of(optional_stores: Container[str]) -> tuple[Projection[Any], ...]:
    """Returns the projections that run where these optional stores, given by name, are in use."""
    return (*PROJECTIONS, *(each for each in OPTIONAL_PROJECTIONS if each.model.store in optional_stores))


def require_in_use(projection: Projection[Any], optional_stores: Container[str]) -> Projection[Any]:
    """Returns the projection if its store is in use.

    Raises:
        SettingsInvalid: it is not. The error names the variable to set.
    """
    kind = OPTIONAL_STORES_BY_NAME.get(projection.model.store)
    if kind is not None and kind.name not in optional_stores:
        raise SettingsInvalid([f"{kind.variable}: is not set, so there is no read model {projection.name!r}"])
    return projection
