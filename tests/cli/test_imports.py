"""`daybook import` against a running Daybook: what it sends, what it refuses to send, and what a next run adds."""

import asyncio
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
from sqlalchemy import text

from cli.exit_codes import ExitCode
from dev.daybook_processes import start_processes
from importers.command_client import post_commands
from importers.commands import imported_id, stages_of
from importers.csv_folder import read_folder
from importers.faults import Faults
from importers.mapping import CsvMapping
from shared.identity.rate_limits import KEY_PREFIX, WINDOW_SECONDS
from shared.settings import Settings
from shared.stores.postgres import open_postgres
from shared.stores.redis import open_redis
from tests.cli.test_terminals import PLAIN, run
from tests.harness.keys import OPERATOR, bearer
from tests.harness.running import Stack, run_stack, with_default_limits
from tests.harness.terminals import TerminalRun
from tests.importers.test_csv_folder import HEADER, TRANSACTIONS, USERS, row, write
from tests.importers.test_statements import FILES

RUN_AGAIN: Final = "run the same import again"


async def run_import(stack: Stack, *arguments: str) -> TerminalRun:
    environment = {"DAYBOOK_COMMAND_URL": stack.command.url, "DAYBOOK_API_KEY": OPERATOR}
    return await asyncio.to_thread(run, "import", *arguments, terminal=PLAIN, environment=environment)


async def events(stack: Stack) -> int:
    async with open_postgres(stack.settings, "daybook_query") as engine, engine.connect() as connection:
        return int(await connection.scalar(text("SELECT coalesce(max(position), 0) FROM log_heads")) or 0)


async def balance(stack: Stack, account_id: str) -> int:
    async with httpx2.AsyncClient(base_url=stack.query.url, headers=bearer(), timeout=60) as client:
        wait = {"Daybook-Min-Position": str(await events(stack)), "Prefer": "wait=10, handling=strict"}
        while not (answer := await client.get(f"/v1/accounts/{account_id}/balance", headers=wait)).is_success:
            assert answer.status_code == httpx2.codes.SERVICE_UNAVAILABLE, answer.text
            await asyncio.sleep(0.2)
        found: dict[str, Any] = answer.json()
        return int(found["posted"])


def test_a_folder_with_faults_is_refused_with_a_line_for_each(tmp_path: Path) -> None:
    """No server answers, and none is asked."""
    write(tmp_path, transactions=HEADER + "t1,a1,deposit,NaN,,2026-01-02,,\nt2,a1,gift,1,,2026-01-02,,\n")
    ended = run("import", "csv", str(tmp_path))
    assert ended.code == ExitCode.DATA
    first, amount, kind = ended.err.splitlines()
    assert first == "daybook: 2 faults in the files, so nothing was imported"
    assert amount == "transactions.csv, row 2, column «amount»: «NaN» is not an amount: write it as in 1234.50"
    assert kind.startswith("transactions.csv, row 3, column «type»: «gift» is not a type: use deposit, withdrawal, transfer")
    write(tmp_path)
    dry = run("import", "csv", str(tmp_path), "--dry-run")
    assert (dry.code, dry.err) == (ExitCode.DONE, "")
    assert dry.out == (
        "2 users, 3 accounts, 4 transactions: the files are right, and nothing was sent; "
        "the balances of the files sum to 100.49 EUR, 500 JPY\n"
    )


@pytest.mark.slow
@pytest.mark.services
async def test_files_are_imported_once_and_longer_files_add_what_is_new(stack: Stack, tmp_path: Path) -> None:
    """A folder with a fault in its last row writes nothing. A rejection names its row, and the next run completes the import."""
    folder, a1, a2 = str(tmp_path), imported_id("csv", "account", "a1"), imported_id("csv", "account", "a2")
    write(tmp_path, transactions=TRANSACTIONS + "t9,a1,deposit,1.234,,2026-01-09,,\n")
    assert (await run_import(stack, "csv", folder)).code == ExitCode.DATA
    write(tmp_path)
    assert (await run_import(stack, "csv", folder, "--dry-run")).code == ExitCode.DONE
    assert await events(stack) == 0

    first = await run_import(stack, "csv", folder)
    assert (first.code, "9 commands were new, 0 were recorded before" in first.out) == (ExitCode.DONE, True), first
    assert "0 commands were new, 9 were recorded before" in (await run_import(stack, "csv", folder)).out
    assert await events(stack) == 9
    assert (await balance(stack, a1), await balance(stack, a2)) == (5_050, 4_999)

    renamed = USERS.replace("Grace", "Grace H.") + "u3,Joan,joan@example.com\n"
    write(tmp_path, renamed, transactions=TRANSACTIONS + "t5,a1,deposit,1,,2026-02-01,,\n,a2,deposit,2,,2026-02-01,,\n")
    assert "3 commands were new, 9 were recorded before" in (await run_import(stack, "csv", folder)).out

    write(tmp_path, renamed, transactions=row(amount="7"))
    changed = await run_import(stack, "csv", folder)
    assert changed.code == ExitCode.NO
    assert "transactions.csv, row 2: this transaction was imported before with other values" in changed.err

    write(tmp_path, renamed, transactions=row(id="t7", type="withdrawal", amount="900") + "t8,a2,deposit,1,,2026-03-01,,\n")
    for _ in range(2):
        rejected = await run_import(stack, "csv", folder, "--continues")
        assert rejected.code == ExitCode.NO
        assert "transactions.csv, row 2: The account has not enough available: available 6150, required 90000" in rejected.err
        assert RUN_AGAIN in rejected.err
    async with httpx2.AsyncClient(base_url=stack.command.url, headers=bearer(), timeout=60) as client:
        await client.put(
            f"/v1/accounts/{a1}/overdraft-limit", json={"overdraft_limit": 100_000}, headers={"Idempotency-Key": "more"}
        )
    assert (await run_import(stack, "csv", folder, "--continues")).code == ExitCode.DONE
    assert await balance(stack, a1) == 5_150 - 90_000


@pytest.mark.slow
@pytest.mark.services
async def test_bank_statements_of_each_format_are_imported_once(stack: Stack, tmp_path: Path) -> None:
    """Each format opens an account of its own. Its balance is the closing balance, also after a second run."""
    write(tmp_path)
    assert (await run_import(stack, "csv", str(tmp_path))).code == ExitCode.DONE
    owner = imported_id("csv", "user", "u1")
    numbers = {"mt940": "10020030/1234567", "ofx": "10020030/1234567", "camt053": "DE89370400440532013000"}
    for name, content in FILES.items():
        file = tmp_path / f"statement.{name}"
        file.write_text(content)
        arguments = (name, str(file), "--owner", owner, "--opening-balance")
        first, again = await run_import(stack, *arguments), await run_import(stack, *arguments)
        assert "5 commands were new, 0 were recorded before" in first.out, first
        assert "0 commands were new, 5 were recorded before" in again.out, again
        assert await balance(stack, imported_id(name, "account", numbers[name])) == 98_032


@pytest.mark.slow
@pytest.mark.services
async def test_an_import_that_was_interrupted_is_completed_by_the_next_run(stack: Stack, tmp_path: Path) -> None:
    """The run is cancelled, as Ctrl-C does, after each number of commands that it can have sent."""
    rows = "".join(f"a{number % 2 + 1},1.00,2026-01-01\n" for number in range(20))
    write(tmp_path, transactions="account_id,amount,date\n" + rows)
    book = read_folder(tmp_path, CsvMapping(), Faults(), lambda _: None)
    stages = stages_of(book)
    for sent_before in range(1, 25, 3):
        run_alone = asyncio.ensure_future(import_until(stack, stages, sent_before))
        await asyncio.gather(run_alone, return_exceptions=True)
        assert run_alone.cancelled()
    await post_commands(stack.command.url, OPERATOR, stages, 4, lambda _: None)
    assert await events(stack) == 25
    assert await balance(stack, imported_id("csv", "account", "a1")) == 1_000


async def import_until(stack: Stack, stages: Any, count: int) -> None:
    task, done = asyncio.current_task(), 0
    assert task

    def stop(sent: int) -> None:
        nonlocal done
        done += sent
        if done >= count:
            task.cancel()

    await post_commands(stack.command.url, OPERATOR, stages, 4, stop)


@pytest.mark.slow
@pytest.mark.services
async def test_a_currency_that_the_ledger_does_not_take_is_named_before_anything_is_sent(
    settings: Settings, tmp_path: Path
) -> None:
    write(tmp_path, accounts="id,owner_id,currency\na1,u1,EUR\na2,u1,HRK\n", transactions=row(amount="1"))
    async with run_stack(settings, tmp_path) as stack:
        refused = await run_import(stack, "csv", str(tmp_path))
        assert refused.code == ExitCode.NO
        assert "accounts.csv, row 3: " in refused.err
        assert "currency" in refused.err
        assert "nothing was imported" in refused.err
        assert await events(stack) == 0
    async with run_stack(settings, tmp_path, DAYBOOK_HISTORICAL_CURRENCIES="HRK") as stack:
        assert "5 commands were new" in (await run_import(stack, "csv", str(tmp_path))).out


@pytest.mark.slow
@pytest.mark.services
async def test_an_import_goes_on_when_the_command_api_is_there_again(settings: Settings, tmp_path: Path) -> None:
    """First the log is locked, so that every command is answered 503. Then the command API dies, and starts again."""
    rows = "".join(f"a{number % 2 + 1},1.00,2026-01-01\n" for number in range(200))
    write(tmp_path, transactions="account_id,amount,date\n" + rows)
    stages = stages_of(read_folder(tmp_path, CsvMapping(), Faults(), lambda _: None))
    sent = 0

    def count(commands: int) -> None:
        nonlocal sent
        sent += commands

    async with run_stack(with_default_limits(settings), tmp_path) as stack:
        async with open_postgres(settings, "daybook_command") as engine, engine.begin() as connection:
            await connection.execute(text("SELECT FROM log_heads FOR UPDATE"))
            importing = asyncio.create_task(post_commands(stack.command.url, OPERATOR, stages, 4, count))
            async with httpx2.AsyncClient(base_url=stack.command.url, headers=bearer(), timeout=60) as client:
                user = {"name": "Ada", "email": "ada@elsewhere.example"}
                answer = await client.post("/v1/users", json=user, headers={"Idempotency-Key": "while it is locked"})
            assert answer.status_code == httpx2.codes.SERVICE_UNAVAILABLE
            assert sent == 0
        while sent < 20:
            await asyncio.sleep(0)
        await stack.command.kill()
        await asyncio.sleep(0.2)
        assert not importing.done()
        await start_processes(stack.command)
        await importing
        assert sent == 205
        balances = [await balance(stack, imported_id("csv", "account", name)) for name in ("a1", "a2")]
        assert balances == [10_000, 10_000]


@pytest.mark.slow
@pytest.mark.services
async def test_an_import_that_sends_too_much_waits_as_long_as_it_is_told_to(settings: Settings, tmp_path: Path) -> None:
    """Redis forgets what was counted after some seconds, so that the test need not wait for the end of the minute."""
    rows = "".join("a1,1.00,2026-01-01\n" for _ in range(120))
    write(tmp_path, transactions="account_id,amount,date\n" + rows)
    stages = stages_of(read_folder(tmp_path, CsvMapping(), Faults(), lambda _: None))
    sent = 0

    def count(commands: int) -> None:
        nonlocal sent
        sent += commands

    async with (
        run_stack(settings, tmp_path, DAYBOOK_RATE_LIMIT_CALLER_PER_MINUTE="200") as stack,
        open_redis(settings) as redis,
        httpx2.AsyncClient(base_url=stack.command.url, headers=bearer(), timeout=60) as client,
    ):
        while (await client.post("/v1/users", json={})).status_code != httpx2.codes.TOO_MANY_REQUESTS:
            pass
        windows = [window async for window in redis.scan_iter(f"{KEY_PREFIX}*")]
        for window in windows:
            await redis.expire(window, WINDOW_SECONDS + 6)
        while int((await client.post("/v1/users", json={})).headers["Retry-After"]) > 6:
            await asyncio.sleep(0.1)
        importing = asyncio.create_task(post_commands(stack.command.url, OPERATOR, stages, 4, count))
        for _ in range(5):
            await asyncio.sleep(0.2)
            denied = await client.post("/v1/users", json={})
            assert denied.status_code == httpx2.codes.TOO_MANY_REQUESTS
            assert (sent, importing.done()) == (0, False)
        await redis.delete(*windows)
        await importing
        assert sent == 125
        assert await balance(stack, imported_id("csv", "account", "a1")) == 12_000
