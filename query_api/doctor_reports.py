"""Examines settings and stores for the route of the doctor. All callers of ten seconds share one report."""

import asyncio
from datetime import UTC, datetime
from typing import Final

import msgspec

from shared.settings import Settings
from shared.stores.doctor import examine
from shared.stores.findings import Finding

SHARED_SECONDS: Final = 10.0


class DoctorReport(msgspec.Struct, frozen=True):
    """The findings of one examination, with the dangerous ones first, and its time."""

    findings: list[Finding]
    examined_at: datetime


class DoctorReports:
    """The reports of this process. Each needs connections of its own, so one is made at a time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._making = asyncio.Lock()
        self._last: DoctorReport | None = None
        self._ended_at = 0.0

    async def latest(self) -> DoctorReport:
        """Returns a report that was made at most `SHARED_SECONDS` ago. Takes a little over 5 seconds if a store is silent."""
        now = asyncio.get_running_loop().time
        async with self._making:
            if self._last is None or now() - self._ended_at > SHARED_SECONDS:
                self._last = DoctorReport(await examine(self._settings, "daybook_query"), datetime.now(UTC))
                self._ended_at = now()
            return self._last
