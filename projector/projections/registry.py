"""Lists all projections. Add a new read model here and in `shared.read_models.shapes.READ_MODELS`."""

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
from projector.projections.schedule_runs import SCHEDULE_RUNS_PROJECTION
from projector.projections.schedules import SCHEDULES_PROJECTION
from projector.projections.shifts import SHIFTS_PROJECTION
from projector.projections.statistics import STATISTICS_PROJECTION
from projector.projections.transfers import TRANSFERS_PROJECTION
from projector.projections.users import USERS_PROJECTION

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
PROJECTIONS_BY_NAME: Final = {projection.name: projection for projection in PROJECTIONS}
