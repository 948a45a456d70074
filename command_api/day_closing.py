"""Makes the command that closes a business day from what the log says of the day, for the route and for `daybook close`."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from command_api.domain.day import CloseDay
from shared.business_days import bounds_of
from shared.day_errors import DayNotEnded
from shared.log.day_contents import read_day
from shared.log.ledgers import read_ledger
from shared.stores.pooled_connection import for_single_reads
from shared.timestamps import timestamp


async def close_command(engine: AsyncEngine, ledger_id: str, day: str) -> CloseDay:
    """Reads what the log says of a day that has ended, and returns the command that closes it.

    Raises:
        DayNotEnded: the day has not ended by PostgreSQL's clock, so the log can still get events of it.
        NotFound: there is no such ledger.
    """
    async with for_single_reads(engine).connect() as connection:
        now = timestamp(await connection.scalar(text("SELECT clock_timestamp()")))
        ledger = await read_ledger(connection, ledger_id)
        zone = ledger.state.time_zone
        if now < (ends_at := bounds_of(day, zone).end):
            raise DayNotEnded(ends_at=ends_at)
        return CloseDay.recording(await read_day(connection, ledger_id, day, zone, ledger.position))
