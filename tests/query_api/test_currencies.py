"""Accounts in a currency that ISO 4217 has dropped stay usable, and new ones are opened only if a setting says so."""

from decimal import Decimal

import pytest
from iso4217 import Currency

from shared.currency_table import ACTIVE, HISTORICAL
from shared.money import to_minor_units
from shared.settings import Settings
from tests.harness.clients import command_api
from tests.harness.log import Book
from tests.harness.questions import projecting, query_api


def test_the_active_currencies_are_those_of_iso_4217_with_a_minor_unit() -> None:
    """Fails when the package `iso4217` has new data. Then add the new codes, and move the dropped ones to `HISTORICAL`."""
    published = {currency.code: currency.exponent for currency in Currency if currency.exponent is not None}
    assert {code: definition.exponent for code, definition in ACTIVE.items()} == published
    assert not ACTIVE.keys() & HISTORICAL.keys()


def test_dropped_currencies_keep_their_exponents() -> None:
    found = {code: HISTORICAL[code].exponent for code in ("BGN", "HRK", "DEM", "ITL", "TRL", "BYR")}
    assert found == {"BGN": 2, "HRK": 2, "DEM": 2, "ITL": 0, "TRL": 0, "BYR": 0}
    assert to_minor_units(Decimal("12.50"), "HRK") == 1250


@pytest.mark.slow
@pytest.mark.services
async def test_an_account_in_a_dropped_currency_stays_usable_in_commands_and_queries(settings: Settings) -> None:
    """Money moves in and out, and no filter, no sum and no order leaves its transfers out."""
    book = Book()
    owner = book.create_user()
    kuna, other = (book.open_account(owner.user_id, "HRK") for _ in range(2))
    euro = book.open_account(owner.user_id)
    async with query_api(settings) as api, projecting(api, settings), command_api(settings, is_patient=True) as commands:
        await api.record([owner, kuna, other, euro, book.deposit(kuna.account_id, 700), book.deposit(euro.account_id, 300)])
        amount = {"amount": 100, "currency": "HRK"}
        paid = {"from_account_id": kuna.account_id, "to_account_id": other.account_id, **amount}
        for path, body in (
            ("/v1/transfers", paid),
            *((p, {"account_id": kuna.account_id, **amount}) for p in ("/v1/deposits", "/v1/withdrawals")),
        ):
            answer = await commands.post(path, body)
            assert answer.status_code == 201, answer.text
        api.position = int(answer.headers["daybook-position"])
        assert len((await api.get("/v1/accounts", {"currency": "HRK", "sort": "posted"}))["items"]) == 2
        assert (await api.get("/v1/stats", {"currency": "HRK"}))["ranking"][0]["posted"] == 600
        listed = (await api.get("/v1/transfers", {"sort": "amount"}))["items"]
        assert [(item["amount"], item["currency"]) for item in listed] == [(100, "HRK")] * 3 + [(300, "EUR"), (700, "HRK")]


@pytest.mark.services
async def test_an_account_in_a_historical_currency_is_opened_only_if_the_setting_names_it(settings: Settings) -> None:
    async with command_api(settings, is_patient=True) as commands:
        body = {"owner_id": await commands.user(), "currency": "HRK"}
        refused = await commands.post("/v1/accounts", body)
        assert (refused.status_code, refused.json()["code"]) == (422, "currency-unknown")
        assert "DAYBOOK_HISTORICAL_CURRENCIES" in refused.json()["errors"][0]["detail"]
    allowing = settings.model_copy(update={"historical_currencies": "BGN,HRK"})
    async with command_api(allowing, is_patient=True) as commands:
        opened = await commands.post("/v1/accounts", body)
        assert opened.status_code == 201, opened.text
        assert (await commands.post("/v1/accounts", body | {"currency": "DEM"})).json()["code"] == "currency-unknown"


@pytest.mark.services
async def test_all_currencies_are_listed_with_exponent_and_name(settings: Settings) -> None:
    async with query_api(settings) as api:
        listed = await api.get("/v1/currencies")
        assert [currency["code"] for currency in listed] == sorted(ACTIVE.keys() | HISTORICAL.keys())
        by_code = {currency["code"]: currency for currency in listed}
        assert by_code["KWD"] == {"code": "KWD", "exponent": 3, "name": "Kuwaiti Dinar"}
        assert by_code["HRK"] == {"code": "HRK", "exponent": 2, "name": "Kuna"}
