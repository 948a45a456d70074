"""Several workers report at the same time, and readers see what each of them reports."""

import pytest

from shared.read_models.worker_reports import PhaseTimes, ReadModelReport, publish_reports, read_unhealthy_read_models
from shared.settings import Settings
from shared.stores.redis import open_redis
from shared.supervision import TaskHealth, tasks_in_words

pytestmark = pytest.mark.services

NOTHING = PhaseTimes("waiting", 0, 0, 0, 0, 0)


async def test_the_report_of_one_worker_does_not_hide_that_of_another(settings: Settings) -> None:
    """A worker with a failing task and a stopped read model is seen beside one that is well and reports later."""
    async with open_redis(settings) as redis:
        assert await read_unhealthy_read_models(redis) is None
        stopped = ReadModelReport("main", "users", NOTHING, is_degraded=False, has_failed=True)
        well = ReadModelReport("main", "users", NOTHING, is_degraded=False, has_failed=False)
        failing = {"readers of logs": TaskHealth(3, 1, "TimeoutError"), "listener": TaskHealth(0, 0, "")}
        await publish_reports(redis, "one", [stopped], [], failing)
        await publish_reports(redis, "two", [well], [], {"readers of logs": TaskHealth(2, 0, "OSError")})
        seen = await read_unhealthy_read_models(redis)
        assert seen is not None
        assert (seen.failed, seen.degraded) == (["main/users"], [])
        assert seen.tasks == {"readers of logs": TaskHealth(5, 1, "TimeoutError, OSError"), "listener": TaskHealth(0, 0, "")}
        assert "readers of logs" in tasks_in_words(seen.tasks)
