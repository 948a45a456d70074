"""Every command about money, in any order, does what a small model in plain Python says: same verdicts, same balances, same sums.

Hypothesis makes the histories. A failed run prints its shortest form, and the `--hypothesis-seed` that repeats it.
"""

import asyncio
import threading
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, Final, TypeVar, cast

import httpx2
import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.settings import Settings
from tests.harness.clients import Commands, command_api
from tests.harness.money_model import LARGEST, Model, Rejected
from tests.harness.questions import Questions, projecting, query_api

pytestmark = pytest.mark.services

T = TypeVar("T")

STEPS: Final = 50
ACCOUNTS: Final = 4
NEW_EVENTS: Final = text(
    "SELECT position, type, data FROM events WHERE ledger_id = 'main' AND position > :last ORDER BY position"
)
EVENT_OF: Final = {
    "open": "AccountOpened",
    "freeze": "AccountFrozen",
    "unfreeze": "AccountUnfrozen",
    "close": "AccountClosed",
    "change_limit": "OverdraftLimitChanged",
    "reverse": "TransferReversed",
    "hold": "HoldPlaced",
    "capture": "HoldCaptured",
    "release": "HoldReleased",
}

indexes = st.integers(0, 7)
amounts = st.one_of(st.integers(1, 1_000), st.sampled_from((1, LARGEST)))
parts = st.one_of(st.none(), amounts)
rehearsals = st.sampled_from((False, False, False, True))
currencies = st.sampled_from(("EUR", "EUR", "EUR", "EUR", "JPY"))


class Running:
    """Both APIs and a projector in a thread of their own, because Hypothesis calls from a test that is not asynchronous."""

    def __init__(self, loop: asyncio.AbstractEventLoop, commands: Commands, queries: Questions) -> None:
        self._loop = loop
        self.commands = commands
        self.queries = queries
        self.engine: AsyncEngine = queries.writer
        self.owner = self.call(commands.user())

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def send(self, method: str, path: str, body: Any, key: str) -> httpx2.Response:
        return self.call(self.commands.client.request(method, path, json=body, headers={"idempotency-key": key}))

    def events_after(self, position: int) -> list[Any]:
        async def read() -> list[Any]:
            async with self.engine.connect() as connection:
                return [*(await connection.execute(NEW_EVENTS, {"last": position})).all()]

        return self.call(read())

    def get(self, path: str, position: int) -> Any:
        self.queries.position = position
        return self.call(self.queries.get(path))


@asynccontextmanager
async def both_apis(settings: Settings) -> AsyncIterator[tuple[Commands, Questions]]:
    async with command_api(settings) as commands, query_api(settings) as queries, projecting(queries, settings):
        yield commands, queries


@contextmanager
def running(settings: Settings) -> Iterator[Running]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    apis = both_apis(settings)
    try:
        commands, queries = asyncio.run_coroutine_threadsafe(apis.__aenter__(), loop).result()
        try:
            yield Running(loop, commands, queries)
        finally:
            asyncio.run_coroutine_threadsafe(apis.__aexit__(None, None, None), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class Machine(RuleBasedStateMachine):
    """A history: each step sends one command, as it is or first as a dry run, and some commands a second time."""

    def __init__(self, product: Running) -> None:
        super().__init__()
        self.product = product
        self.model = Model()
        self.accounts: list[str] = []
        self.holds: list[str] = []
        self.transfers: list[str] = []
        self.sent: list[tuple[tuple[str, str, Any, str], bytes]] = []
        self.posted: Counter[str] = Counter()
        """Account, or currency of the outside world → the sum of its postings, from the events of this history."""
        events = product.events_after(0)
        self.position: int = events[-1].position

    # ── commands ─────────────────────────────────────────────────────────────────────────────────────────────────────

    @initialize(limit=st.integers(0, 500))
    def begin(self, limit: int) -> None:
        for number in range(ACCOUNTS):
            self.open("JPY" if number == ACCOUNTS - 1 else "EUR", limit, dry=False)
            self.deposit(number, 1_000, "JPY" if number == ACCOUNTS - 1 else "EUR", dry=False)

    @rule(currency=currencies, limit=st.integers(0, 500), dry=rehearsals)
    def open(self, currency: str, limit: int, *, dry: bool) -> None:
        account_id = str(uuid.uuid4())
        self.accounts.append(account_id)
        body = {"id": account_id, "owner_id": self.product.owner, "currency": currency, "overdraft_limit": limit}
        self.send("open", ("POST", "/v1/accounts", body), lambda: self.model.open(account_id, currency, limit), dry=dry)

    @rule(what=st.sampled_from(("freeze", "unfreeze", "unfreeze", "close")), index=indexes, dry=rehearsals)
    def change(self, what: str, index: int, *, dry: bool) -> None:
        account_id = self._pick(self.accounts, index)
        act = {"freeze": self.model.freeze, "unfreeze": self.model.unfreeze, "close": self.model.close}[what]
        self.send(what, ("POST", f"/v1/accounts/{account_id}/{what}", None), lambda: act(account_id), dry=dry)

    @rule(index=indexes, limit=st.one_of(st.integers(0, 2_000), st.just(LARGEST)), dry=rehearsals)
    def change_limit(self, index: int, limit: int, *, dry: bool) -> None:
        account_id = self._pick(self.accounts, index)
        request = "PUT", f"/v1/accounts/{account_id}/overdraft-limit", {"overdraft_limit": limit}
        self.send("change_limit", request, lambda: self.model.change_limit(account_id, limit), dry=dry)

    @rule(index=indexes, amount=amounts, currency=currencies, dry=rehearsals)
    def deposit(self, index: int, amount: int, currency: str, *, dry: bool) -> None:
        self._transfer("deposit", None, self._pick(self.accounts, index), amount, currency, dry=dry)

    @rule(index=indexes, amount=amounts, currency=currencies, dry=rehearsals)
    def withdraw(self, index: int, amount: int, currency: str, *, dry: bool) -> None:
        self._transfer("withdrawal", self._pick(self.accounts, index), None, amount, currency, dry=dry)

    @rule(payer=indexes, payee=indexes, amount=amounts, currency=currencies, dry=rehearsals)
    def transfer(self, payer: int, payee: int, amount: int, currency: str, *, dry: bool) -> None:
        ends = self._pick(self.accounts, payer), self._pick(self.accounts, payee)
        self._transfer("transfer", *ends, amount, currency, dry=dry)

    def _transfer(self, kind: str, payer: str | None, payee: str | None, amount: int, currency: str, *, dry: bool) -> None:
        transfer_id = str(uuid.uuid4())
        self.transfers.append(transfer_id)
        body: dict[str, Any] = {"id": transfer_id, "amount": amount, "currency": currency}
        body |= {"from_account_id": payer, "to_account_id": payee} if kind == "transfer" else {"account_id": payer or payee}
        act = lambda: self.model.transfer(transfer_id, payer, payee, amount, currency)  # noqa: E731 # as the others
        self.send(kind, ("POST", f"/v1/{kind}s", body), act, dry=dry)

    @rule(index=indexes, amount=parts, dry=rehearsals)
    def reverse(self, index: int, amount: int | None, *, dry: bool) -> None:
        transfer_id, reversal_id = self._pick(self.transfers, index), str(uuid.uuid4())
        self.transfers.append(reversal_id)
        body = {"id": reversal_id, "amount": amount}
        request = "POST", f"/v1/transfers/{transfer_id}/reverse", body
        self.send("reverse", request, lambda: self.model.reverse(reversal_id, transfer_id, amount), dry=dry)

    @rule(payer=indexes, payee=st.one_of(st.none(), indexes), amount=amounts, currency=currencies, dry=rehearsals)
    def hold(self, payer: int, payee: int | None, amount: int, currency: str, *, dry: bool) -> None:
        hold_id, payer_id = str(uuid.uuid4()), self._pick(self.accounts, payer)
        payee_id = None if payee is None else self._pick(self.accounts, payee)
        self.holds.append(hold_id)
        body = {"id": hold_id, "account_id": payer_id, "to_account_id": payee_id, "amount": amount, "currency": currency}
        act = lambda: self.model.hold(hold_id, payer_id, payee_id, amount, currency)  # noqa: E731
        self.send("hold", ("POST", "/v1/holds", body), act, dry=dry)

    @rule(index=indexes, amount=parts, final=st.booleans(), dry=rehearsals)
    def capture(self, index: int, amount: int | None, *, final: bool, dry: bool) -> None:
        hold_id, transfer_id = self._pick(self.holds, index), str(uuid.uuid4())
        self.transfers.append(transfer_id)
        body = {"id": transfer_id, "amount": amount, "final": final}
        act = lambda: self.model.capture(transfer_id, hold_id, amount, final=final)  # noqa: E731
        self.send("capture", ("POST", f"/v1/holds/{hold_id}/capture", body), act, dry=dry)

    @rule(index=indexes, dry=rehearsals)
    def release(self, index: int, *, dry: bool) -> None:
        hold_id = self._pick(self.holds, index)
        self.send("release", ("POST", f"/v1/holds/{hold_id}/release", None), lambda: self.model.release(hold_id), dry=dry)

    @rule(index=indexes)
    def repeat(self, index: int) -> None:
        """A repeated request gets the same answer, byte for byte, and records nothing."""
        if self.sent:
            request, content = self.sent[-1 - index % len(self.sent)]
            assert self.product.send(*request).content == content
            assert self.product.events_after(self.position) == []

    # ── what must hold after each step ───────────────────────────────────────────────────────────────────────────────

    def send(self, what: str, parts: tuple[str, str, Any], act: Callable[[], None], *, dry: bool) -> None:
        """Sends a command, and compares the verdict, the answer and the new events with the model, in which `act` does it."""
        method, path, body = parts
        rehearsed = self.product.send(method, f"{path}?dry_run=true", body, str(uuid.uuid4())) if dry else None
        if dry:
            assert self.product.events_after(self.position) == []
        request = method, path, body, str(uuid.uuid4())
        answer = self.product.send(*request)
        self.sent.append((request, answer.content))
        if rehearsed:
            assert _told(rehearsed) == _told(answer)
        before = {each: account.status for each, account in self.model.accounts.items()}
        if code := _rejection(act):
            assert (answer.is_success, answer.json().get("code")) == (False, code), answer.text
            assert self.product.events_after(self.position) == []
            return
        assert answer.is_success, (what, answer.text)
        self._follow(what, changed=before != {each: account.status for each, account in self.model.accounts.items()})
        for told in _balances_in(answer.json()):
            account = self.model.accounts[told["account_id"]]
            assert (told["posted"], told["held"], told["available"]) == (account.posted, account.held, account.available)

    def _follow(self, what: str, *, changed: bool) -> None:
        """Reads the new events. There is one of the right type, and what the log says sums to what the model has."""
        events = self.product.events_after(self.position)
        types = {"deposit": "FundsDeposited", "withdrawal": "FundsWithdrawn", "transfer": "FundsTransferred", **EVENT_OF}
        if events or changed or what not in {"freeze", "unfreeze", "close", "change_limit"}:
            assert [(event.position, event.type) for event in events] == [(self.position + 1, types[what])]
        for event in events:
            self.position = event.position
            self._post(event.type, event.data)
        outside = {currency: self.posted[currency] for currency in ("EUR", "JPY")}
        assert outside == {currency: self.model.outside[currency] for currency in outside}
        for currency, outside_has in outside.items():
            inside = sum(self.posted[each] for each, account in self.model.accounts.items() if account.currency == currency)
            assert inside + outside_has == 0
        assert all(account.available >= 0 for account in self.model.accounts.values())

    def _post(self, kind: str, data: Any) -> None:
        if kind not in {"FundsDeposited", "FundsWithdrawn", "FundsTransferred", "TransferReversed", "HoldCaptured"}:
            return
        payer = data.get("from_account_id") or (data["account_id"] if kind == "FundsWithdrawn" else data["currency"])
        payee = data.get("to_account_id") or (data["account_id"] if kind == "FundsDeposited" else data["currency"])
        self.posted[payer] -= data["amount"]
        self.posted[payee] += data["amount"]

    def teardown(self) -> None:
        """The read models have what the model has: balances, holds, and what was reversed."""
        for account_id, account in self.model.accounts.items():
            read = self.product.get(f"/v1/accounts/{account_id}/balance", self.position)
            assert (read["posted"], read["held"], read["available"]) == (account.posted, account.held, account.available)
            assert self.product.get(f"/v1/accounts/{account_id}", self.position)["status"] == account.status
            assert self.product.get(f"/v1/accounts/{account_id}/explain", self.position)["adds_up"] is True
        for hold_id, hold in self.model.holds.items():
            read = self.product.get(f"/v1/holds/{hold_id}", self.position)
            assert (read["status"], read["remaining"]) == (hold.status, hold.remaining)
        for transfer_id, transfer in self.model.transfers.items():
            assert self.product.get(f"/v1/transfers/{transfer_id}", self.position)["reversed"] == transfer.reversed

    def _pick(self, ids: list[str], index: int) -> str:
        """Returns one of the newest ids, or an id that nothing has."""
        return ids[-1 - index % len(ids)] if ids else str(uuid.uuid4())


def _rejection(act: Callable[[], None]) -> str:
    try:
        act()
    except Rejected as rejected:
        return rejected.code
    return ""


def _told(answer: httpx2.Response) -> tuple[int, Any, list[Any]]:
    """Returns what a dry run and the command itself must say alike."""
    body = answer.json()
    return answer.status_code, body.get("code"), _balances_in(body)


def _balances_in(body: Any) -> list[Any]:
    found = body.get("balances") or ([body["balance"] | {"account_id": body["id"]}] if "balance" in body else [])
    return [{name: each[name] for name in ("account_id", "posted", "held", "available")} for each in found]


@pytest.mark.proof(50, 1_000)
def test_random_histories_end_as_in_the_model(settings: Settings, repetitions: int) -> None:
    with running(settings) as product:
        run_state_machine_as_test(
            cast("type[Machine]", partial(Machine, product)),
            settings=hypothesis_settings(
                max_examples=repetitions,
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                phases=(Phase.generate, Phase.shrink),
                suppress_health_check=list(HealthCheck),
            ),
        )
