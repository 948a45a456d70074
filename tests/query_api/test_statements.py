"""Statements meet without a gap and without an overlap, on both axes, and no text in them becomes a formula or a tag."""

import csv
import io
import random
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest
from defusedxml.ElementTree import fromstring

from query_api.statement_formats import AFTER_CLOSE, MARK, as_csv, as_html, major
from shared.settings import Settings
from tests.harness.log import Book
from tests.harness.questions import Questions, projecting, query_api
from tests.query_api.test_past_balances import lines_of, moved, record_a_past

EVIL = ("=1+1", "+1", "-1", "@SUM(A1)", "<script>alert(1)</script>", '"quoted", & more', "plain")


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Questions]:
    async with query_api(settings) as questions, projecting(questions, settings):
        yield questions


@pytest.mark.slow
@pytest.mark.services
@pytest.mark.parametrize("axis", ["recorded_at", "occurred_at"])
async def test_statements_that_follow_each_other_meet_without_gap_or_overlap(api: Questions, axis: str) -> None:
    """Periods begin and end exactly at the moment of an entry, which other entries may share, or one microsecond later."""
    book, lines = await record_a_past(api, seed=3)
    chance = random.Random(3)
    moments = [moved(getattr(line, axis), chance.randint(0, 1)) for line in chance.sample(lines, 8)]
    bounds = ["1900-01-01T00:00:00.000000Z", *sorted(set(moments)), "2199-12-31T00:00:00.000000Z"]
    for account_id in list(book.accounts)[:2]:
        path = f"/v1/accounts/{account_id}/statement"
        found = [await api.get(path, {"from": a, "to": b, "axis": axis}) for a, b in pairwise(bounds)]
        own = [line for line in await lines_of(api) if line.account_id == account_id]
        expected = sorted((getattr(line, axis), line.position, line.amount) for line in own)
        shown = [(line[axis], line["position"], line["amount"]) for each in found for line in each["lines"]]
        assert shown == expected
        assert (found[0]["opening_balance"], found[-1]["closing_balance"]) == (0, sum(line.amount for line in own))
        for each, after in pairwise(found):
            assert each["closing_balance"] == after["opening_balance"]
        for each in found:
            assert all(each["from"] <= line[axis] < each["to"] for line in each["lines"])
            total = each["opening_balance"]
            for line in each["lines"]:
                total += line["amount"]
                assert line["balance"] == total


@pytest.mark.services
async def test_a_statement_has_four_forms_that_no_text_can_break(api: Questions) -> None:
    book = Book()
    user = book.create_user()
    account = book.open_account(user.user_id)
    deposits = [book.deposit(account.account_id, 1205, reference=reference) for reference in EVIL]
    await api.record([user, account, *deposits, book.withdraw(account.account_id, 5)])
    path = f"/v1/accounts/{account.account_id}/statement"
    period = {"from": "2020-01-01T00:00:00Z", "to": "2199-01-01T00:00:00Z"}
    statement = await api.get(path, period)
    assert statement["lines"] == (await api.get(path))["lines"]
    assert statement["closing_balance"] == 1205 * len(EVIL) - 5

    async def form(media_type: str) -> str:
        answer = await api.ask(path, period, accept=media_type)
        assert answer.headers["content-type"] == f"{media_type}; charset=utf-8"
        return answer.text

    rows = list(csv.DictReader(io.StringIO(await form("text/csv"))))
    assert [row["kind"] for row in rows][0::8] == ["opening balance", "withdrawal"]
    assert [row["reference"] for row in rows[1:8]] == ["'=1+1", "'+1", "'-1", "'@SUM(A1)", *EVIL[4:]]
    assert [row["balance"] for row in rows] == ["0", *(str(line["balance"]) for line in statement["lines"]), rows[-2]["balance"]]
    page = await form("text/html")
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "12.05" in page
    document = fromstring(await form("application/xml"))
    space = {"c": "urn:iso:std:iso:20022:tech:xsd:camt.053.001.08"}
    assert [each.text for each in document.findall(".//c:Ustrd", space)] == list(EVIL)
    balances = document.findall(".//c:Bal/c:Amt", space)
    assert [each.text for each in balances] == ["0.00", major(statement["closing_balance"], "EUR")]
    for wrong in ({"from": period["to"], "to": period["from"]}, {"from": "2026"}, period | {"axis": "x"}):
        assert (await api.ask(path, wrong)).status_code == 422
    assert (await api.ask(f"/v1/accounts/{book.new_id()}/statement", period)).status_code == 404


def test_amounts_in_major_units_are_exact() -> None:
    amounts = [(5, "EUR"), (-1205, "EUR"), (7, "JPY"), (-1, "KWD"), (2**53 - 1, "EUR")]
    assert [major(*each) for each in amounts] == ["0.05", "-12.05", "7", "-0.001", "90071992547409.91"]


BALANCES = {"from": "a", "to": "b", "opening_balance": 0, "closing_balance": 1}


def test_a_page_to_print_marks_what_was_recorded_after_the_close_of_its_day() -> None:
    line = {"occurred_at": "o", "kind": "deposit", "reference": None, "amount": 1, "balance": 1}
    head = BALANCES | {"account_id": "a", "currency": "EUR", "axis": "occurred_at"}
    lines = [line | {"after_close": False}, line | {"after_close": True}]
    usual, late = as_html(head | {"lines": lines[:1]}), as_html(head | {"lines": lines})
    assert (f"<td>o {MARK}</td>" in usual, AFTER_CLOSE in usual) == (False, False)
    assert (late.count("<td>o</td>"), late.count(f"<td>o {MARK}</td>"), late.count(f"{MARK} {AFTER_CLOSE}.")) == (1, 1, 1)


def test_a_cell_that_would_be_a_formula_is_a_text() -> None:
    line: dict[str, Any] = dict.fromkeys(("position", "amount", "balance"), 1)
    line |= dict.fromkeys(("occurred_at", "recorded_at", "kind"), "x") | {"counterparty_account_id": None}
    line["after_close"] = True
    for sign in ("=", "+", "-", "@", "\t", "\r"):
        statement = BALANCES | {"lines": [line | {"reference": sign}]}
        rows = list(csv.reader(io.StringIO(as_csv(statement), newline="")))
        assert (rows[2][5], rows[2][8], rows[1][8]) == (f"'{sign}", "true", "")
