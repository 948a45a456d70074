"""Each program in `examples/` prints what is there, with libraries that Daybook itself does not use.

`balance_from_events` has its test beside those of publishing: `tests/projector/test_publishing.py`.
"""

import asyncio
import re
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, NamedTuple

import httpx2
import pytest
import pytest_asyncio

from dev.data_folder import ROOT
from dev.ports import free_port
from shared.settings import Settings
from tests.harness.clients import Commands
from tests.harness.engines import needs
from tests.harness.keys import OPERATOR, bearer
from tests.harness.projecting import eventually
from tests.harness.reporting import migrate_reporting
from tests.harness.running import run_stack

EXAMPLES: Final = ROOT / "examples"
BIN: Final = ROOT / ".venv/examples/bin"

pytestmark = [
    pytest.mark.services,
    pytest.mark.slow,
    needs("examples", "the libraries of examples/ are not installed: run `make examples`", is_there=BIN.exists()),
    pytest.mark.asyncio(loop_scope="module"),
]


class Scene(NamedTuple):
    """A running stack with two owners: the first has two accounts, with 1200 and 7 cents, the second has 300."""

    owners: list[str]
    accounts: list[str]
    commands: Commands
    query_url: str
    reports: Path
    environment: dict[str, str]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(shared_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    folder = tmp_path_factory.mktemp("examples")
    reports = folder / "reports.sqlite"
    settings = shared_settings.model_copy(update={"reporting_url": f"sqlite+aiosqlite:///{reports}"})
    await migrate_reporting(settings.reporting_url or "")
    async with (
        run_stack(settings, folder) as stack,
        httpx2.AsyncClient(base_url=stack.command.url, headers=bearer(OPERATOR), timeout=60, trust_env=False) as client,
        httpx2.AsyncClient(base_url=stack.query.url, headers=bearer(OPERATOR), timeout=60, trust_env=False) as queries,
    ):
        commands = Commands(client)
        owners = [await commands.user(f"{name}@example.com") for name in ("ada", "bob")]
        accounts = [
            await commands.account(owner, amount) for owner, amount in zip([owners[0], *owners], (1_500, 7, 0), strict=True)
        ]
        assert (await commands.transfer(accounts[0], accounts[2], 300)).is_success

        async def are_reported() -> bool:
            answer = await queries.get("/v1/reports/entries")
            return answer.is_success and answer.json()["total"] == 4

        await eventually(are_reported)
        environment = {
            "DAYBOOK_QUERY_URL": stack.query.url,
            "DAYBOOK_API_KEY": OPERATOR,
            "DAYBOOK_REDIS_URL": settings.redis_url,
            "DAYBOOK_MONGO_URL": settings.mongo_url,
            "DAYBOOK_MONGO_DATABASE": settings.mongo_database,
            "REPORTS_URL": f"sqlite:///{reports}",
            "REPORTS_FILE": str(reports),
            "PYTHONUNBUFFERED": "1",
        }
        yield Scene(owners, accounts, commands, stack.query.url, reports, environment)


async def said_by(scene: Scene, program: str, *arguments: str, **more: str) -> list[str]:
    """Runs a program, and returns the lines that it prints."""
    command = [str(BIN / "python"), str(EXAMPLES / program), *arguments]
    run = asyncio.to_thread(
        subprocess.run, command, env=scene.environment | more, capture_output=True, text=True, timeout=120, check=False
    )
    ended = await run
    assert ended.returncode == 0, ended.stderr
    return [*ended.stdout.splitlines()]


async def test_sqlalchemy_without_asyncio_reads_what_each_owner_has(scene: Scene) -> None:
    sums = [line.split()[-2:] for line in await said_by(scene, "reports/with_sqlalchemy.py")]
    assert sorted(sums) == [["1207", "EUR"], ["300", "EUR"]]


async def test_tortoise_reads_the_largest_accounts(scene: Scene) -> None:
    first, second, third = scene.accounts
    expected = [f"{first} 1200 EUR", f"{third} 300 EUR", f"{second} 7 EUR"]
    assert await said_by(scene, "reports/with_tortoise.py") == expected


async def test_piccolo_reads_the_newest_entries_of_an_account(scene: Scene) -> None:
    lines = [line.split() for line in await said_by(scene, "reports/with_piccolo.py", scene.accounts[0])]
    assert [line[1:] for line in lines] == [["-300", "1200"], ["1500", "1500"]]
    assert int(lines[0][0]) > int(lines[1][0])


async def test_an_app_of_fastapi_answers_with_sqlmodel_and_a_session_that_depends_gives(scene: Scene) -> None:
    port = free_port()
    command = [str(BIN / "uvicorn"), "with_fastapi:app", "--port", str(port)]
    process = subprocess.Popen(command, cwd=EXAMPLES / "reports", env=scene.environment, stderr=subprocess.DEVNULL)
    try:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:

            async def answers() -> bool:
                try:
                    return (await client.get("/owners/nobody/accounts")).status_code == 404
                except httpx2.TransportError:
                    return False

            await eventually(answers)
            accounts = (await client.get(f"/owners/{scene.owners[0]}/accounts")).json()
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait)
    assert {each["id"]: each["posted"] for each in accounts} == {scene.accounts[0]: 1_200, scene.accounts[1]: 7}


async def test_pymongo_reads_the_documents_of_the_live_generation(scene: Scene) -> None:
    first, second, third = scene.accounts
    expected = [f"{first} 1200 EUR", f"{third} 300 EUR", f"{second} 7 EUR"]
    assert await said_by(scene, "documents/accounts.py", "EUR") == expected


async def test_a_plot_is_drawn_from_parquet_and_its_balances_are_exact(scene: Scene, tmp_path: Path) -> None:
    entries, picture = tmp_path / "entries.parquet", tmp_path / "balances.svg"
    headers = bearer(OPERATOR) | {"Accept": "application/vnd.apache.parquet"}
    async with httpx2.AsyncClient(base_url=scene.query_url, headers=headers, timeout=60, trust_env=False) as client:
        entries.write_bytes((await client.get("/v1/reports/entries")).content)
    lines = await said_by(scene, "plot_balances/plot.py", str(entries), str(picture), HOME=str(tmp_path))
    first, second, third = scene.accounts
    assert sorted(lines) == sorted(
        [
            f"{first} 2 entries, ends at 1200 EUR",
            f"{second} 1 entries, ends at 7 EUR",
            f"{third} 1 entries, ends at 300 EUR",
        ]
    )
    assert picture.read_text().count("<svg") == 1


async def test_an_answer_is_kept_until_the_read_model_has_moved(scene: Scene) -> None:
    """Comes last: it moves money."""
    account = scene.accounts[1]
    command = [str(BIN / "python"), str(EXAMPLES / "cached_answers/balances.py"), account]
    with subprocess.Popen(command, env=scene.environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        lines = iter(process.stdout)
        try:
            first, second = [(await asyncio.to_thread(next, lines)).split() for _ in range(2)]
            assert (first[0], first[2], second) == ("asked", "7", ["kept", *first[1:]])
            assert (await scene.commands.deposit(account, 5)).is_success
            later = [await asyncio.to_thread(next, lines) for _ in range(4)]
        finally:
            process.terminate()
    assert any(re.fullmatch(r"asked \d+ 12\n", line) for line in later)
    assert re.fullmatch(r"kept \d+ 12\n", later[-1])
