"""The Python client in clients/python: what it sends, what it repeats, and that its README runs as printed."""

import asyncio
import inspect
import re
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Final

import pytest
from daybook_client import AsyncDaybook, Daybook, Money, NoAnswer, Problem
from daybook_client.exchange import Operation, Positions, outgoing, pause_before_retry
from daybook_client.money import Exponents
from daybook_client.operations import OPERATIONS
from daybook_client.problems import PROBLEM_OF_CODE, InsufficientFunds
from daybook_client.webhooks import SignatureInvalid, verify_delivery
from httpx2 import ConnectError, ReadError, Response

from dev.data_folder import ROOT
from dev.daybook_processes import start_processes
from dev.write_client import client_files, documents, operations_of
from shared.web.problems import STATUS
from tests.docs.test_guides import Shell
from tests.docs.test_readme import as_pattern
from tests.harness.keys import OPERATOR
from tests.harness.proxy import proxy_to
from tests.harness.running import Stack

PACKAGE: Final = ROOT / "clients/python"
BLOCK: Final = re.compile(r"```python\n(.*?)```\n\n```text\n(.*?)```", re.DOTALL)
END: Final = "-- end of a block --\n"
EXPONENTS: Final = Exponents({"EUR": 2, "JPY": 0, "KWD": 3})

# The first example of https://github.com/standard-webhooks/standard-webhooks, whose libraries all check it.
SECRET: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SENT_AT: Final = 1614265330
BODY: Final = b'{"test": 2432232314}'
SIGNED: Final = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": str(SENT_AT),
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}


# ── in step with the APIs ────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_client_is_what_the_documents_of_both_apis_make_it() -> None:
    """If this fails, run `make client`."""
    assert [str(file) for file, text in client_files().items() if file.read_text() != text] == []


def test_both_clients_have_each_operation_of_both_apis() -> None:
    named = {each["operationId"] for document in documents().values() for *_, each in operations_of(document)}
    assert len(named) > 60
    for kind in (Daybook, AsyncDaybook):
        assert {name for name in named if not callable(getattr(kind, name, None))} == set()
    assert OPERATIONS.keys() == named
    assert PROBLEM_OF_CODE.keys() == STATUS.keys()


def test_both_clients_have_the_same_methods() -> None:
    def methods(kind: type) -> dict[str, list[str]]:
        found = inspect.getmembers(kind, inspect.isfunction)
        return {
            name.replace("aclose", "close"): [*inspect.signature(each).parameters] for name, each in found if name[:2] != "__"
        }

    assert methods(Daybook) == methods(AsyncDaybook)


# ── money ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("amount", "currency", "minor_units", "text"),
    [
        ("12.50", "EUR", 1250, "12.50 EUR"),
        (Decimal("1E+3"), "JPY", 1000, "1000 JPY"),
        ("-0.001", "KWD", -1, "-0.001 KWD"),
        ("90071992547409.91", "EUR", 2**53 - 1, "90071992547409.91 EUR"),
    ],
)
def test_amounts_are_exact_both_ways(amount: Decimal | str, currency: str, minor_units: int, text: str) -> None:
    money = EXPONENTS.money(amount, currency)
    assert (money.minor_units, str(money), money.decimal) == (minor_units, text, Decimal(amount))
    assert EXPONENTS.money_of({"amount": minor_units, "currency": currency}) == money
    assert EXPONENTS.money_of({"to_amount": str(minor_units), "to_currency": currency}, "to_amount") == money


@pytest.mark.parametrize("amount", ["12.505", "NaN", "Infinity", "1e999999", "twelve", ""])
def test_what_is_no_amount_of_the_currency_is_refused(amount: str) -> None:
    with pytest.raises(ValueError, match=r"is no amount|more decimal places"):
        EXPONENTS.money(amount, "EUR")


@pytest.mark.parametrize("amount", [12.5, 12, True, None])
def test_an_amount_that_does_not_say_what_it_means_is_refused(amount: object) -> None:
    with pytest.raises(TypeError, match="a Decimal or a text"):
        EXPONENTS.money(amount, "EUR")  # type: ignore[arg-type]


def test_money_of_two_currencies_does_not_add_up() -> None:
    with pytest.raises(ValueError, match="EUR and JPY"):
        EXPONENTS.money("1", "EUR") - EXPONENTS.money("1", "JPY")


# ── what is sent ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_request_says_what_its_arguments_say() -> None:
    account = uuid.uuid4()
    moment = datetime.fromisoformat("2026-01-31T10:00:00+01:00")
    arguments = {"amount_gte": 100, "recorded_at_lt": moment, "metadata": {"order": "7"}, "cursor": None}
    request = outgoing(OPERATIONS["list_entries"], "http://q", {"account_id": f"{account}/../x"}, arguments, Positions())
    assert request.url == f"http://q/v1/accounts/{account}%2F..%2Fx/entries"
    assert dict(request.parameters) == {
        "amount[gte]": "100",
        "recorded_at[lt]": "2026-01-31T10:00:00+01:00",
        "metadata[order]": "7",
    }
    postings = [{"account_id": account, "amount": Money(-7, "EUR", 2)}]
    sent = outgoing(
        OPERATIONS["transfer_funds"], "http://c", {}, {"postings": postings, "dry_run": True, "if_match": 3}, Positions()
    )
    assert sent.body == {"postings": [{"account_id": str(account), "amount": -7, "currency": "EUR"}]}
    assert (dict(sent.parameters), sent.headers["If-Match"]) == ({"dry_run": "true"}, '"v3"')


def test_an_amount_beside_another_currency_is_not_sent() -> None:
    arguments = {"from_amount": Money(1, "JPY", 0), "from_currency": "EUR"}
    with pytest.raises(ValueError, match="from_amount is in JPY"):
        outgoing(OPERATIONS["exchange_funds"], "http://c", {}, arguments, Positions())


@pytest.mark.parametrize(
    ("name", "outcome", "is_repeated"),
    [
        ("deposit", Response(429, headers={"Retry-After": "3"}), True),
        ("deposit", Response(503), True),
        ("deposit", Response(409, json={"code": "idempotency-in-progress"}), True),
        ("deposit", Response(409, json={"code": "insufficient-funds"}), False),
        ("deposit", Response(500), False),
        ("deposit", ReadError("lost"), True),
        ("get_balance", ReadError("lost"), True),
        ("log_in", Response(429), True),
        ("log_in", Response(503), False),
        ("log_in", ReadError("lost"), False),
        ("log_in", ConnectError("refused"), True),
    ],
)
def test_only_what_takes_effect_once_is_sent_again(
    name: str, outcome: Response | ConnectError | ReadError, *, is_repeated: bool
) -> None:
    request = outgoing(OPERATIONS[name], "http://d", {"account_id": "x"}, {}, Positions())
    pause = pause_before_retry(request, 1, outcome)
    assert (pause is not None) is is_repeated
    if isinstance(outcome, Response) and "Retry-After" in outcome.headers:
        assert pause is not None
        assert 3 < pause < 4


def test_pauses_grow_and_differ() -> None:
    request = outgoing(Operation("query", "GET", "/"), "http://d", {}, {}, Positions())
    pauses = [[pause_before_retry(request, attempts, ConnectError("refused")) or 0 for _ in range(50)] for attempts in (1, 4, 30)]
    assert [len(set(each)) > 40 for each in pauses] == [True] * 3
    assert max(pauses[0]) < min(pauses[1]) < max(pauses[1]) < min(pauses[2]) < max(pauses[2]) <= 5


# ── signatures ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_delivery_with_the_signature_of_the_standard_is_accepted() -> None:
    assert verify_delivery(BODY, SIGNED, SECRET, now=SENT_AT + 1) == {"test": 2432232314}
    other = "whsec_" + "A" * 32
    assert verify_delivery(BODY, SIGNED, other, SECRET, now=SENT_AT + 1)
    assert verify_delivery(BODY, SIGNED | {"webhook-signature": f"v1,x {SIGNED['webhook-signature']}"}, SECRET, now=SENT_AT)


@pytest.mark.parametrize(
    ("body", "headers", "seconds"),
    [
        (BODY + b" ", {}, 1),
        (BODY, {"webhook-id": "msg_other"}, 1),
        (BODY, {"webhook-timestamp": str(SENT_AT + 1)}, 1),
        (BODY, {"webhook-timestamp": "soon"}, 1),
        (BODY, {"webhook-signature": ""}, 1),
        (BODY, {"webhook-signature": SIGNED["webhook-signature"].replace("v1,", "v2,")}, 1),
        (BODY, {"webhook-signature": "v1,é"}, 1),
        (BODY, {}, 301),
        (BODY, {}, -301),
    ],
)
def test_every_other_delivery_is_refused(body: bytes, headers: dict[str, str], seconds: int) -> None:
    with pytest.raises(SignatureInvalid):
        verify_delivery(body, SIGNED | headers, SECRET, now=SENT_AT + seconds)


# ── against the servers ──────────────────────────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def client_of(stack: Stack, command_url: str | None = None) -> AsyncIterator[AsyncDaybook]:
    urls = command_url or stack.settings.command_url, stack.settings.query_url
    # On a busy machine, a process may take as long to start as many attempts.
    async with AsyncDaybook(*urls, OPERATOR, attempts_max=100) as daybook:
        yield daybook


async def new_account(daybook: AsyncDaybook) -> str:
    user = await daybook.create_user(name="Ada", email=f"{uuid.uuid4()}@example.com")
    return (await daybook.open_account(owner_id=user["id"], currency="EUR"))["id"]


@pytest.mark.slow
@pytest.mark.services
async def test_a_command_whose_answer_is_lost_takes_effect_once(stack: Stack) -> None:
    async with proxy_to(f"{stack.settings.command_url}/") as (proxy, url), client_of(stack, url) as daybook:
        account = await new_account(daybook)
        proxy.arm(b"POST /v1/deposits")
        sent = await daybook.deposit(account_id=account, amount=await daybook.money("10", "EUR"))
        assert proxy.cuts == 1
        assert sent["balances"][0]["posted"] == 1000
        assert (await daybook.get_balance(account))["posted"] == 1000


@pytest.mark.slow
@pytest.mark.services
async def test_a_refusal_is_an_exception_with_its_code(stack: Stack) -> None:
    async with client_of(stack) as daybook:
        account = await new_account(daybook)
        with pytest.raises(InsufficientFunds) as refused:
            await daybook.withdraw(account_id=account, amount=await daybook.money("0.01", "EUR"))
        assert (refused.value.status, refused.value.members["required"], refused.value.retryable) == (409, 1, True)
        with pytest.raises(Problem) as wrong:
            await daybook.deposit(account_id="nobody", amount=Money(1, "EUR", 2))
        assert (wrong.value.code, wrong.value.errors[0]["pointer"]) == ("validation-failed", "#/account_id")


@pytest.mark.slow
@pytest.mark.services
async def test_a_stream_of_events_goes_on_when_the_query_api_comes_back(stack: Stack) -> None:
    async with client_of(stack) as daybook:
        account = await new_account(daybook)
        events = aiter(daybook.stream_events(after=0))
        assert [(await anext(events))["position"] for _ in range(2)] == [1, 2]
        await stack.query.kill()
        await daybook.deposit(account_id=account, amount=Money(1, "EUR", 2))
        starting = asyncio.create_task(start_processes(stack.query))
        async with asyncio.timeout(60):
            assert (await anext(events))["position"] == 3
        await starting


async def test_without_a_server_there_is_no_answer_and_the_key_is_told() -> None:
    async with AsyncDaybook("http://127.0.0.1:9", "http://127.0.0.1:9", "", attempts_max=2) as daybook:
        with pytest.raises(NoAnswer, match="in 2 attempts") as lost:
            await daybook.deposit(account_id="a", amount=Money(1, "EUR", 2), idempotency_key="mine")
        assert lost.value.idempotency_key == "mine"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as `pip install ./clients/python` makes it."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    copy = folder / "python"
    subprocess.run(["cp", "-r", PACKAGE, copy], check=True)  # building leaves files beside the sources
    subprocess.run([*pip, "--target", folder / "packages", copy], check=True)
    return folder / "packages"


@pytest.mark.slow
@pytest.mark.services
async def test_every_block_of_the_readme_prints_what_stands_below_it(stack: Stack, tmp_path: Path, installed: Path) -> None:
    blocks = BLOCK.findall((PACKAGE / "README.md").read_text())
    assert len(blocks) == (PACKAGE / "README.md").read_text().count("```python")
    assert (installed / "daybook_client/py.typed").exists()
    script = tmp_path / "readme.py"
    script.write_text("".join(f"{code}\nprint({END!r}, end='')\n" for code, _ in blocks))
    code, out, err = await Shell(tmp_path, stack.settings).run(f"PYTHONPATH={installed} {sys.executable} -W error readme.py")
    assert code == 0, out + err
    for (source, expected), printed in zip(blocks, out.split(END), strict=False):
        assert as_pattern(expected).fullmatch(printed), f"{source}\nprinted  {printed}\nexpected {expected}"
