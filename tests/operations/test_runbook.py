"""The commands of docs/runbook.md run as printed, and what it says to do ends the fault that the alert tells of."""

import re
from pathlib import Path

import pytest

from dev.data_folder import ROOT
from dev.ports import free_port
from shared.settings import Settings
from tests.docs.test_guides import Shell
from tests.docs.test_readme import as_pattern, steps
from tests.harness.log import Book
from tests.harness.projecting import eventually, open_ledger
from tests.harness.running import run_stack
from tests.operations.test_prometheus import ALERTS
from tests.projector.test_worker_metrics import worker_samples
from tests.shared.test_metrics import value

pytestmark = pytest.mark.services

RUNBOOK = (ROOT / "docs/runbook.md").read_text()
LAG = "daybook_projection_lag_events"


def section(alert: str) -> str:
    assert alert in ALERTS
    return re.split(r"^## ", RUNBOOK.partition(f"\n## {alert}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


async def follow(shell: Shell, markdown: str) -> str:
    """Runs the commands of a section as printed, and returns what they said."""
    said = ""
    for command, printed in steps(markdown):
        code, out, err = await shell.run(command)
        assert code == 0, f"{command}\n{out}{err}"
        assert as_pattern(printed).match(out), f"{command}\nprinted  {out}{err}\nexpected {printed}"
        said += out
    return said


@pytest.mark.slow
async def test_a_paused_read_model_goes_on_as_the_runbook_says(settings: Settings, tmp_path: Path) -> None:
    port = free_port()
    balances = {"ledger": "main", "projection": "balances"}

    async def lag() -> float | None:
        return (await worker_samples(port)).get((LAG, frozenset(balances.items())))

    async def is_even() -> bool:
        return await lag() == 0

    async with run_stack(settings, tmp_path, DAYBOOK_WORKER_METRICS_PORT=str(port)) as stack, open_ledger(settings) as ledger:
        shell = Shell(tmp_path, stack.settings)
        await ledger.append(Book().history(20))
        await eventually(is_even)
        assert (await shell.run("daybook projections pause balances"))[0] == 0
        await ledger.append(Book(seed=2).history(5))

        async def is_behind() -> bool:
            return await lag() == 5

        await eventually(is_behind)
        said = await follow(shell, section("DaybookReadModelBehind"))
        assert "paused since" in said
        assert "follows the log again" in said
        await eventually(is_even)


@pytest.mark.slow
async def test_the_first_look_tells_of_a_worker_that_is_gone_and_of_one_that_is_back(settings: Settings, tmp_path: Path) -> None:
    port = free_port()
    async with run_stack(settings, tmp_path, DAYBOOK_WORKER_METRICS_PORT=str(port)) as stack, open_ledger(settings) as ledger:
        shell = Shell(tmp_path, stack.settings)
        position = await ledger.append(Book().history(20))
        await ledger.caught_up(position)
        for alert in ALERTS:
            await follow(shell, section(alert) if alert != "DaybookReadModelBehind" else "")
        await stack.worker.kill()

        async def says_so() -> bool:
            code, out, _ = await shell.run("daybook status")
            return code == 1 and "gives no sign of life" in out

        await eventually(says_so)
        await ledger.append(Book(seed=2).history(5))
        await stack.worker.start()
        await ledger.caught_up(position + 5)
        assert value(await worker_samples(port), "daybook_projection_events_total", ledger="main", projection="users") == 5
        assert await follow(shell, RUNBOOK.partition("\n## Daybook")[0])
