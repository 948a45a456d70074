"""`daybook ledgers`: a ledger is created with its settings, takes commands at once, and takes none after it is closed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import msgspec
import pytest
from sqlalchemy import text

from cli.exit_codes import ExitCode
from command_api.app import create_app
from command_api.past_history import DOMAIN
from projector.verify.events import verify_events
from shared.errors import NotFound
from shared.log.events import Event
from shared.log.heads import read_head
from shared.log.ledger_events import LedgerClosed, LedgerCreated
from shared.log.ledgers import Ledger, read_ledger, read_ledgers
from shared.log.read import read_all
from shared.privacy.person_keys import PersonKeys
from shared.settings import Settings
from shared.stores.postgres import open_postgres
from tests.harness.clients import Commands, client_of, created
from tests.harness.keys import add_key, bearer
from tests.harness.terminals import daybook

pytestmark = pytest.mark.services

SCOPES = ("users:write", "accounts:write", "transfers:write", "ledger:read")


async def done(settings: Settings, *arguments: str) -> str:
    """Runs `daybook ledgers`, which must succeed, and returns what it prints."""
    code, out, err = await daybook(settings, "ledgers", *arguments).ended()
    assert code == ExitCode.DONE, out + err
    return out.strip()


async def refused(settings: Settings, *arguments: str) -> str:
    code, out, err = await daybook(settings, "ledgers", *arguments).ended()
    assert code not in {ExitCode.DONE, ExitCode.DEFECT}, out + err
    return err


async def ledger(settings: Settings, ledger_id: str) -> Ledger:
    async with open_postgres(settings, "daybook_query") as engine, engine.connect() as connection:
        return await read_ledger(connection, ledger_id)


async def log_of(settings: Settings, ledger_id: str) -> list[Event]:
    async with open_postgres(settings, "daybook_query") as engine, engine.connect() as connection:
        return [recorded.event for recorded in await read_all(connection, ledger_id, 0)]


async def fault_of_log(settings: Settings, ledger_id: str) -> str:
    """Decides the whole log again, with all stored replies. Returns what is wrong with them, or nothing."""
    async with open_postgres(settings, "daybook_projector") as engine, engine.connect() as connection:
        head = (await read_head(connection, ledger_id)).position
        _, replies = await verify_events(connection, ledger_id, head, DOMAIN, PersonKeys(settings), lambda _: None)
    return replies.fault


async def count(settings: Settings, table: str, ledger_id: str) -> int:
    async with open_postgres(settings, "daybook_command") as engine, engine.connect() as connection:
        statement = text(f"SELECT count(*) FROM {table} WHERE ledger_id = :ledger_id")
        return int(await connection.scalar(statement, {"ledger_id": ledger_id}))


@asynccontextmanager
async def commands_of(settings: Settings, ledger_id: str) -> AsyncIterator[Commands]:
    token = await add_key(settings.database_url, f"operations-{ledger_id}", ledger_id=ledger_id, scopes=SCOPES)
    async with client_of(create_app(settings), token) as client:
        yield Commands(client)


def code(answer: httpx2.Response) -> str:
    return str(answer.json()["code"])


async def test_a_ledger_is_created_with_its_settings_and_takes_commands_at_once(settings: Settings) -> None:
    """A command API that runs already knows it, and everything that a ledger needs exists from its first event on."""
    async with client_of(create_app(settings)) as running:
        assert await done(settings, "create", "Acme Ltd.", "--time-zone", "Europe/Berlin", "--currencies", "USD,EUR,EUR") == (
            "acme-ltd: created"
        )
        assert await count(settings, "person_keys", "acme-ltd") == 1, "the secret that keys the hashes of addresses"
        key = bearer(await add_key(settings.database_url, "acme", ledger_id="acme-ltd", scopes=SCOPES))
        body = {"name": "Ada", "email": "ada@example.com"}
        answer = await running.post("/v1/users", json=body, headers=key)
        assert (answer.status_code, answer.json()["position"]) == (201, 2), answer.text
    created_event, *_ = await log_of(settings, "acme-ltd")
    assert created_event == LedgerCreated(name="Acme Ltd.", time_zone="Europe/Berlin", currencies=("EUR", "USD"))
    shown = " ".join((await done(settings, "show", "acme-ltd")).split())
    for setting in ("Acme Ltd.", "Europe/Berlin", "EUR, USD", "open"):
        assert setting in shown
    listed = await done(settings, "list")
    assert [ledger_id in listed for ledger_id in ("acme-ltd", "main")] == [True, True]


async def test_a_ledger_without_an_event_about_itself_has_the_defaults(settings: Settings) -> None:
    async with open_postgres(settings, "daybook_query") as engine, engine.connect() as connection:
        [main] = await read_ledgers(connection)
        with pytest.raises(NotFound):
            await read_ledger(connection, "acme")
    assert (main.ledger_id, main.name, main.state.time_zone, main.state.currencies, main.state.status) == (
        *("main", "main", "UTC", None, "open"),
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("Acme", "--time-zone", "Europe/Nowhere"), "time_zone"),
        (("Acme", "--time-zone", "/etc/localtime"), "time_zone"),
        (("Acme", "--currencies", "EUR,XXX"), "currencies"),
        (("Acme", "--currencies", ""), "currencies"),
        (("Acme", "--id", "main.2"), "--id"),
        (("Acme", "--id", "Acme"), "--id"),
        (("株式会社",), "--id"),
        (("",), "--id"),
        ((" Acme",), "name"),
    ],
)
async def test_a_ledger_with_a_wrong_setting_is_not_created(settings: Settings, arguments: tuple[str, ...], said: str) -> None:
    code_, _, err = await daybook(settings, "ledgers", "create", *arguments).ended()
    assert code_ == ExitCode.USAGE, err
    assert said in err
    async with open_postgres(settings, "daybook_query") as engine, engine.connect() as connection:
        assert [each.ledger_id for each in await read_ledgers(connection)] == ["main"]


async def test_an_id_is_taken_once_whoever_asks_first(settings: Settings) -> None:
    """Two operators who create the same ledger at the same time get one ledger, and one of them is told."""
    both = await asyncio.gather(*(daybook(settings, "ledgers", "create", "Acme").ended() for _ in range(2)))
    assert sorted(code_ for code_, _, _ in both) == [ExitCode.DONE, ExitCode.USAGE], both
    assert len(await log_of(settings, "acme")) == 1
    async with commands_of(settings, "main") as commands:
        await commands.user()
    assert "already" in await refused(settings, "create", "Main", "--time-zone", "Europe/Berlin")
    assert (await ledger(settings, "main")).state.time_zone == "UTC", "its log began without settings, and keeps the defaults"


async def test_only_the_currencies_of_the_ledger_can_be_used(settings: Settings) -> None:
    await done(settings, "create", "Acme", "--currencies", "EUR")
    async with commands_of(settings, "acme") as commands:
        owner_id = await commands.user()
        body = {"owner_id": owner_id, "currency": "USD"}
        answer = await commands.post("/v1/accounts", body)
        assert (answer.status_code, code(answer)) == (422, "currency-not-allowed")
        assert "EUR" in answer.json()["detail"]
        created(await commands.post("/v1/accounts", body | {"currency": "EUR"}))
    async with commands_of(settings, "main") as commands:
        created(await commands.post("/v1/accounts", {"owner_id": await commands.user(), "currency": "USD"}))


async def test_a_closed_ledger_takes_no_commands_but_a_person_can_be_erased(settings: Settings) -> None:
    """A process that runs already knows that it is closed. What was recorded before stays right."""
    await done(settings, "create", "Acme")
    async with commands_of(settings, "acme") as commands:
        user_id = await commands.user()
        account_id = await commands.account(user_id, balance=100)
        deposit = await commands.deposit(account_id, 1, idempotency_key="before")
        for _ in range(2):
            assert await done(settings, "close", "acme") == "acme: closed"
        refusals = [
            await commands.deposit(account_id, 1),
            await commands.post("/v1/users", {"name": "Eve", "email": "eve@example.com"}),
            await commands.post(f"/v1/accounts/{account_id}/freeze"),
            await commands.post(f"/v1/users/{user_id}/deactivate"),
        ]
        assert {(answer.status_code, code(answer)) for answer in refusals} == {(409, "ledger-closed")}
        assert (await commands.deposit(account_id, 1, idempotency_key="before")).content == deposit.content
        assert (await commands.post(f"/v1/users/{user_id}/erase")).json()["status"] == "erased"
    assert [event for event in await log_of(settings, "acme") if isinstance(event, LedgerClosed)] == [LedgerClosed()]
    assert (await ledger(settings, "acme")).state.status == "closed"
    assert "closed" in await done(settings, "show", "acme")
    assert await fault_of_log(settings, "acme") == ""


async def test_a_ledger_that_does_not_exist_is_neither_shown_nor_closed(settings: Settings) -> None:
    for command in ("show", "close"):
        assert "no ledger" in await refused(settings, command, "nowhere")
    assert await count(settings, "log_heads", "nowhere") == 0


async def test_no_transfer_is_larger_than_the_ledger_allows(settings: Settings) -> None:
    """Also in a process that runs already. What was held or moved before a limit is captured and reversed in whole."""
    await done(settings, "create", "Acme", "--transfer-max", "EUR=100", "--transfer-max", "JPY=5")
    async with commands_of(settings, "acme") as commands:
        account_id, other = await commands.account(), await commands.account()
        deposit = await commands.deposit(account_id, 100)
        for _ in range(2):
            created(await commands.deposit(account_id, 100))
        eur = {"currency": "EUR"}
        hold = {"account_id": account_id, "amount": 90, **eur}
        hold_id = created(await commands.post("/v1/holds", hold))
        refusals = [
            await commands.deposit(account_id, 101),
            await commands.withdraw(account_id, 101),
            await commands.transfer(account_id, other, 101),
            await commands.post("/v1/holds", hold | {"amount": 101}),
            await commands.post(
                "/v1/transfers",
                {"postings": [{"account_id": each, "amount": n, **eur} for each, n in ((account_id, -101), (other, 101))]},
            ),
        ]
        assert {(answer.status_code, code(answer)) for answer in refusals} == {(409, "ledger-limit-exceeded")}
        assert {(answer.json()["transfer_max"], answer.json()["currency"]) for answer in refusals} == {(100, "EUR")}
        assert await done(settings, "change", "acme", "--transfer-max", "EUR=10") == "acme: changed"
        assert code(await commands.deposit(account_id, 11)) == "ledger-limit-exceeded"
        created(await commands.post(f"/v1/holds/{hold_id}/capture", {}))
        created(await commands.post(f"/v1/transfers/{created(deposit)}/reverse", {}))
    assert await fault_of_log(settings, "acme") == ""


async def test_a_change_leaves_what_it_does_not_name(settings: Settings) -> None:
    await done(settings, "create", "Acme", "--time-zone", "Asia/Tokyo", "--currencies", "JPY", "--transfer-max", "JPY=5")
    first = (await ledger(settings, "acme")).state
    for option, value, expected in (
        ("--name", "Acme Ltd.", {"name": "Acme Ltd."}),
        ("--currencies", "EUR,JPY", {"currencies": ("EUR", "JPY")}),
        ("--transfer-max", "EUR=7", {"transfer_max": {"EUR": 7}}),
        ("--transfer-max", "none", {"transfer_max": None}),
        ("--currencies", "all", {"currencies": None}),
    ):
        await done(settings, "change", "acme", option, value)
        first = msgspec.structs.replace(first, **expected)
        assert (await ledger(settings, "acme")).state == first, option
    events = len(await log_of(settings, "acme"))
    await done(settings, "change", "acme", "--currencies", "all")
    assert len(await log_of(settings, "acme")) == events, "a change that changes nothing is no event"
    await done(settings, "close", "acme")
    assert "closed" in await refused(settings, "change", "acme", "--name", "Other")
    await done(settings, "change", "main", "--currencies", "EUR")
    assert (await ledger(settings, "main")).state.currencies == ("EUR",), "a ledger that began without settings gets some"


@pytest.mark.parametrize("limit", ["EUR", "EUR=", "EUR=-1", "EUR=1.5", "EUR=0", "XXX=5", "=5", "EUR=9007199254740992"])
async def test_a_limit_that_is_none_is_refused(settings: Settings, limit: str) -> None:
    code_, _, err = await daybook(settings, "ledgers", "change", "main", "--transfer-max", limit).ended()
    assert (code_, "max" in err) == (ExitCode.USAGE, True), err
    assert await log_of(settings, "main") == []
