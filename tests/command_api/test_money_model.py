"""Every command about money, in any order, does what a small model in plain Python says: same verdicts, same balances, same sums.

Hypothesis makes the histories. A failed run prints its shortest form, and the `--hypothesis-seed` that repeats it.
"""

import asyncio
import copy
import threading
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
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
from tests.harness.money_model import LARGEST, Account, Limits, Model, Posting, Rejected
from tests.harness.questions import Questions, projecting, query_api

pytestmark = pytest.mark.services

T = TypeVar("T")

STEPS: Final = 50
ACCOUNTS: Final = 4
NEW_EVENTS: Final = text(
    "SELECT position, type, data FROM events WHERE ledger_id = 'main' AND position > :last ORDER BY position"
)
HEAD: Final = text("SELECT position FROM log_heads WHERE ledger_id = 'main'")
EVENT_OF: Final = {
    "open": "AccountOpened",
    "freeze": "AccountFrozen",
    "unfreeze": "AccountUnfrozen",
    "close": "AccountClosed",
    "change_limit": "OverdraftLimitChanged",
    "change_limits": "AccountLimitsChanged",
    "deposit": "FundsDeposited",
    "withdrawal": "FundsWithdrawn",
    "transfer": "FundsTransferred",
    "move": "FundsMoved",
    "reverse": "TransferReversed",
    "hold": "HoldPlaced",
    "capture": "HoldCaptured",
    "release": "HoldReleased",
}
PARTS_OF_ACCOUNTS: Final = ("/balance", "/explain", "/limits")
MAY_CHANGE_NOTHING: Final = {"freeze", "unfreeze", "close", "change_limit", "change_limits"}

indexes = st.integers(0, 7)
amounts = st.one_of(st.integers(1, 1_000), st.sampled_from((1, LARGEST)))
parts = st.one_of(st.none(), amounts)
rehearsals = st.sampled_from((False, False, False, True))
currencies = st.sampled_from(("EUR", "EUR", "EUR", "EUR", "JPY"))
limits = st.builds(
    Limits,
    st.sampled_from((None, None, None, 1, 20)),
    st.sampled_from((None, None, 20, 500)),
    st.sampled_from((None, None, 0, 300, 1_000, LARGEST)),
    st.sampled_from((None, None, 0, 300, 1_000, LARGEST)),
)
ends = st.tuples(st.one_of(st.none(), indexes), st.integers(-300, 300).filter(bool))
rarely = st.sampled_from((False, False, False, True))
moves = st.tuples(st.lists(ends, min_size=1, max_size=4), st.one_of(st.none(), indexes), rarely, rarely)
exchanged = st.one_of(st.none(), st.none(), st.integers(-300, 300).filter(bool))


@dataclass(frozen=True)
class Wanted:
    """A command: its request, its item in a batch, and what it does in the model."""

    what: str
    method: str
    path: str
    body: Any
    act: Callable[[Model], None]
    item: Any = None


class Running:
    """Both APIs and a projector in a thread of their own, because Hypothesis calls from a test that is not asynchronous."""

    def __init__(self, loop: asyncio.AbstractEventLoop, commands: Commands, queries: Questions) -> None:
        self._loop = loop
        self.commands = commands
        self.queries = queries
        # Without a transaction, a look at the log is one round trip instead of three.
        self.engine: AsyncEngine = queries.writer.execution_options(isolation_level="AUTOCOMMIT")
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

    def head(self) -> int:
        async def read() -> int:
            async with self.engine.connect() as connection:
                return int((await connection.execute(HEAD)).scalar_one())

        return self.call(read())

    def get_all(self, paths: Sequence[str], position: int) -> dict[str, Any]:
        """Asks all queries at once, because queries that come together share their round trips. Returns the answers by path."""

        async def get() -> list[Any]:
            return await asyncio.gather(*map(self.queries.get, paths))

        self.queries.position = position
        return dict(zip(paths, self.call(get()), strict=True))


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
        self.position = product.head()

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
        act: Callable[[Model], None] = lambda model: model.open(account_id, currency, limit)  # noqa: E731
        self.send(Wanted("open", "POST", "/v1/accounts", body, act), dry=dry)

    @rule(what=st.sampled_from(("freeze", "unfreeze", "unfreeze", "close")), index=indexes, dry=rehearsals)
    def change(self, what: str, index: int, *, dry: bool) -> None:
        account_id = self._pick(self.accounts, index)
        act = {"freeze": Model.freeze, "unfreeze": Model.unfreeze, "close": Model.close}[what]
        path = f"/v1/accounts/{account_id}/{what}"
        self.send(Wanted(what, "POST", path, None, lambda model: act(model, account_id)), dry=dry)

    @rule(index=indexes, limit=st.one_of(st.integers(0, 2_000), st.just(LARGEST)), dry=rehearsals)
    def change_limit(self, index: int, limit: int, *, dry: bool) -> None:
        account_id = self._pick(self.accounts, index)
        path, body = f"/v1/accounts/{account_id}/overdraft-limit", {"overdraft_limit": limit}
        self.send(Wanted("change_limit", "PUT", path, body, lambda model: model.change_limit(account_id, limit)), dry=dry)

    @rule(index=indexes, limits=limits, dry=rehearsals)
    def change_limits(self, index: int, limits: Limits, *, dry: bool) -> None:
        account_id = self._pick(self.accounts, index)
        names = {"smallest": "per_transfer_min", "largest": "per_transfer_max", "per_day": "per_day", "per_month": "per_month"}
        body = {told: getattr(limits, name) for name, told in names.items()}
        path = f"/v1/accounts/{account_id}/limits"
        self.send(Wanted("change_limits", "PUT", path, body, lambda model: model.change_limits(account_id, limits)), dry=dry)

    @rule(index=indexes, amount=amounts, currency=currencies, dry=rehearsals)
    def deposit(self, index: int, amount: int, currency: str, *, dry: bool) -> None:
        self.send(self._transfer("deposit", None, self._pick(self.accounts, index), amount, currency), dry=dry)

    @rule(index=indexes, amount=amounts, currency=currencies, dry=rehearsals)
    def withdraw(self, index: int, amount: int, currency: str, *, dry: bool) -> None:
        self.send(self._transfer("withdrawal", self._pick(self.accounts, index), None, amount, currency), dry=dry)

    @rule(payer=indexes, payee=indexes, amount=amounts, currency=currencies, dry=rehearsals)
    def transfer(self, payer: int, payee: int, amount: int, currency: str, *, dry: bool) -> None:
        ends = self._pick(self.accounts, payer), self._pick(self.accounts, payee)
        self.send(self._transfer("transfer", *ends, amount, currency), dry=dry)

    @rule(move=moves, currency=currencies, foreign=exchanged, dry=rehearsals)
    def move(self, move: Any, currency: str, foreign: int | None, *, dry: bool) -> None:
        self.send(self._move(move, currency, foreign), dry=dry)

    @rule(index=indexes, amount=parts, dry=rehearsals)
    def reverse(self, index: int, amount: int | None, *, dry: bool) -> None:
        self.send(self._reverse(index, amount), dry=dry)

    @rule(payer=indexes, payee=st.one_of(st.none(), indexes), amount=amounts, currency=currencies, dry=rehearsals)
    def hold(self, payer: int, payee: int | None, amount: int, currency: str, *, dry: bool) -> None:
        self.send(self._hold(payer, payee, amount, currency), dry=dry)

    @rule(index=indexes, amount=parts, final=st.booleans(), dry=rehearsals)
    def capture(self, index: int, amount: int | None, *, final: bool, dry: bool) -> None:
        self.send(self._capture(index, amount, final=final), dry=dry)

    @rule(index=indexes, dry=rehearsals)
    def release(self, index: int, *, dry: bool) -> None:
        self.send(self._release(index), dry=dry)

    @rule(mode=st.sampled_from(("independent", "atomic")), count=st.integers(1, 4), data=st.data(), dry=rehearsals)
    def batch(self, mode: str, count: int, data: st.DataObject, *, dry: bool) -> None:
        """Several commands in one request. Each one may need what those before it leave."""
        self.send_together(mode, [self._anything(data.draw) for _ in range(count)], dry=dry)

    def _anything(self, draw: Callable[[st.SearchStrategy[Any]], Any]) -> Wanted:
        index, amount, currency = draw(indexes), draw(amounts), draw(currencies)
        payer, payee = self._pick(self.accounts, index), self._pick(self.accounts, draw(indexes))
        what = draw(st.sampled_from(("deposit", "withdrawal", "transfer", "move", "hold", "capture", "release", "reverse")))
        match what:
            case "move":
                return self._move(draw(moves), currency, draw(exchanged))
            case "hold":
                return self._hold(index, draw(st.one_of(st.none(), indexes)), amount, currency)
            case "capture":
                return self._capture(index, draw(parts), final=draw(st.booleans()))
            case "release":
                return self._release(index)
            case "reverse":
                return self._reverse(index, draw(parts))
            case _:
                return self._transfer(
                    what, None if what == "deposit" else payer, None if what == "withdrawal" else payee, amount, currency
                )

    def _transfer(self, kind: str, payer: str | None, payee: str | None, amount: int, currency: str) -> Wanted:
        transfer_id = self._new_id(self.transfers)
        body: dict[str, Any] = {"id": transfer_id, "amount": amount, "currency": currency}
        body |= {"from_account_id": payer, "to_account_id": payee} if kind == "transfer" else {"account_id": payer or payee}
        act: Callable[[Model], None] = lambda model: model.transfer(transfer_id, payer, payee, amount, currency)  # noqa: E731
        return Wanted(kind, "POST", f"/v1/{kind}s", body, act, {"type": kind, **body})

    def _move(self, move: Any, currency: str, foreign: int | None) -> Wanted:
        """A transfer with postings. Mostly the last one balances the others, and no end has two. `foreign` is in yen."""
        ends, last, unbalanced, careless = move
        transfer_id = self._new_id(self.transfers)
        chosen = [(None if end is None else self._pick(self.accounts, end), amount) for end, amount in [*ends, (last, 0)]]
        if not careless:
            suiting: dict[str | None, int] = {}
            for end, amount in chosen:
                if self._suits(end, currency):
                    suiting.pop(end, None)  # the last one stays the last
                    suiting[end] = amount
            chosen = [*suiting.items()] if len(suiting) > 1 else chosen
        rest = 0 if unbalanced else -sum(amount for _, amount in chosen[:-1])
        postings: list[Posting] = [(end, amount, currency) for end, amount in chosen[:-1]]
        postings += [(end, rest or 1, currency) for end, _ in chosen[-1:]]
        if foreign:
            postings += [(None, -foreign, "JPY"), (self._pick(self.accounts, 0), foreign, "JPY")]
        told = [{"account_id": end, "amount": amount, "currency": each} for end, amount, each in postings]
        body = {"id": transfer_id, "postings": told}
        return Wanted(
            "move", "POST", "/v1/transfers", body, lambda model: model.move(transfer_id, postings), {"type": "transfer", **body}
        )

    def _reverse(self, index: int, amount: int | None) -> Wanted:
        transfer_id = self._pick(self.transfers, index)
        reversal_id = self._new_id(self.transfers)
        body = {"id": reversal_id, "amount": amount}
        item = {"type": "reverse", "transfer_id": transfer_id, **body}
        path = f"/v1/transfers/{transfer_id}/reverse"
        return Wanted("reverse", "POST", path, body, lambda model: model.reverse(reversal_id, transfer_id, amount), item)

    def _hold(self, payer: int, payee: int | None, amount: int, currency: str) -> Wanted:
        payer_id, payee_id = self._pick(self.accounts, payer), None if payee is None else self._pick(self.accounts, payee)
        hold_id = self._new_id(self.holds)
        body = {"id": hold_id, "account_id": payer_id, "to_account_id": payee_id, "amount": amount, "currency": currency}
        act: Callable[[Model], None] = lambda model: model.hold(hold_id, payer_id, payee_id, amount, currency)  # noqa: E731
        return Wanted("hold", "POST", "/v1/holds", body, act, {"type": "hold", **body})

    def _capture(self, index: int, amount: int | None, *, final: bool) -> Wanted:
        hold_id, transfer_id = self._pick(self.holds, index), self._new_id(self.transfers)
        body = {"id": transfer_id, "amount": amount, "final": final}
        act: Callable[[Model], None] = lambda model: model.capture(transfer_id, hold_id, amount, final=final)  # noqa: E731
        item = {"type": "capture", "hold_id": hold_id, **body}
        return Wanted("capture", "POST", f"/v1/holds/{hold_id}/capture", body, act, item)

    def _release(self, index: int) -> Wanted:
        hold_id = self._pick(self.holds, index)
        item = {"type": "release", "hold_id": hold_id}
        return Wanted("release", "POST", f"/v1/holds/{hold_id}/release", None, lambda model: model.release(hold_id), item)

    @rule(index=indexes)
    def repeat(self, index: int) -> None:
        """A repeated request gets the same answer, byte for byte, and records nothing."""
        if self.sent:
            request, content = self.sent[-1 - index % len(self.sent)]
            assert self.product.send(*request).content == content
            assert self.product.events_after(self.position) == []

    # ── what must hold after each step ───────────────────────────────────────────────────────────────────────────────

    def send(self, wanted: Wanted, *, dry: bool) -> None:
        """Sends a command, and compares the verdict, the answer and the new events with the model."""
        answer = self._ask(wanted, dry=dry)
        before = self._statuses()
        if code := _rejection(wanted, self.model):
            self._require_rejected(answer, code)
            return
        assert answer.is_success, (wanted, answer.text)
        self._follow([wanted.what], changed=before != self._statuses())
        self._require_balances(answer.json())

    def send_together(self, mode: str, wanted: Sequence[Wanted], *, dry: bool) -> None:
        """Sends commands in one request. The model does one after the other, or nothing if it rejects one of an atomic batch."""
        body = {"mode": mode, "commands": [each.item for each in wanted]}
        answer = self._ask(Wanted("batch", "POST", "/v1/batch", body, lambda _: None), dry=dry)
        before = copy.deepcopy(self.model)
        codes = []
        for each in wanted:
            codes.append(_rejection(each, self.model))
            if mode == "atomic" and codes[-1]:
                self.model = before
                self._require_rejected(answer, codes[-1])
                assert answer.json()["index"] == len(codes) - 1
                return
        results = answer.json()["results"]
        assert [result["body"].get("code", "") for result in results] == codes, answer.text
        assert [result["status"] < 300 for result in results] == [not code for code in codes]
        accepted = [each.what for each, code in zip(wanted, codes, strict=True) if not code]
        self._follow(accepted, changed=bool(accepted))

    def _ask(self, wanted: Wanted, *, dry: bool) -> httpx2.Response:
        """Sends a request, first as a dry run if `dry`."""
        self.model.day = _today()
        rehearsed = None
        if dry:
            rehearsed = self.product.send(wanted.method, f"{wanted.path}?dry_run=true", wanted.body, str(uuid.uuid4()))
            assert self.product.events_after(self.position) == []
        request = wanted.method, wanted.path, wanted.body, str(uuid.uuid4())
        answer = self.product.send(*request)
        self.sent.append((request, answer.content))
        assert rehearsed is None or _told(rehearsed) == _told(answer)
        return answer

    def _require_rejected(self, answer: httpx2.Response, code: str) -> None:
        assert (answer.is_success, answer.json().get("code")) == (False, code), answer.text
        assert self.product.events_after(self.position) == []

    def _require_balances(self, body: Any) -> None:
        for told in _balances_in(body):
            account = self.model.accounts[told["account_id"]]
            assert (told["posted"], told["held"], told["available"]) == (account.posted, account.held, account.available)

    def _statuses(self) -> dict[str, str]:
        return {each: account.status for each, account in self.model.accounts.items()}

    def _follow(self, accepted: list[str], *, changed: bool) -> None:
        """Reads the new events. There is one of the right type for each command, and what the log says sums to the model."""
        events = self.product.events_after(self.position)
        if events or changed or not set(accepted) <= MAY_CHANGE_NOTHING:
            wanted = [(self.position + place, EVENT_OF[what]) for place, what in enumerate(accepted, 1)]
            assert [(event.position, event.type) for event in events] == wanted
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
        for leg in data.get("legs", ()):
            self.posted[leg["account_id"] or leg["currency"]] += leg["amount"]
        if kind not in {"FundsDeposited", "FundsWithdrawn", "FundsTransferred", "TransferReversed", "HoldCaptured"}:
            return
        payer = data.get("from_account_id") or (data["account_id"] if kind == "FundsWithdrawn" else data["currency"])
        payee = data.get("to_account_id") or (data["account_id"] if kind == "FundsDeposited" else data["currency"])
        self.posted[payer] -= data["amount"]
        self.posted[payee] += data["amount"]

    def teardown(self) -> None:
        """The read models have what the model has: balances, limits, holds, and what was reversed."""
        self.model.day = _today()
        of_accounts = [f"/v1/accounts/{each}{what}" for each in self.model.accounts for what in ("", *PARTS_OF_ACCOUNTS)]
        holds = [f"/v1/holds/{each}" for each in self.model.holds]
        transfers = [f"/v1/transfers/{each}" for each in self.model.transfers]
        read = self.product.get_all([*of_accounts, *holds, *transfers], self.position)
        for account_id, account in self.model.accounts.items():
            whole, balance, explained, used = (read[f"/v1/accounts/{account_id}{what}"] for what in ("", *PARTS_OF_ACCOUNTS))
            assert (balance["posted"], balance["held"], balance["available"]) == (account.posted, account.held, account.available)
            assert (whole["status"], explained["adds_up"]) == (account.status, True)
            self._require_spent(account, used)
        for hold_id, hold in self.model.holds.items():
            found = read[f"/v1/holds/{hold_id}"]
            assert (found["status"], found["remaining"]) == (hold.status, hold.remaining)
        for transfer_id, transfer in self.model.transfers.items():
            assert read[f"/v1/transfers/{transfer_id}"]["reversed"] == transfer.reversed

    def _require_spent(self, account: Account, read: Any) -> None:
        wanted = account.limits.smallest, account.limits.largest, account.limits.per_day, account.limits.per_month
        counted = [read[name] and read[name]["limit"] for name in ("per_day", "per_month")]
        assert (read["per_transfer_min"], read["per_transfer_max"], *counted) == wanted
        for name, period in (("per_day", self.model.day), ("per_month", self.model.day[:7])):
            assert read[name] is None or read[name]["used"] == account.spent[period]

    def _new_id(self, ids: list[str]) -> str:
        ids.append(str(uuid.uuid4()))
        return ids[-1]

    def _suits(self, end: str | None, currency: str) -> bool:
        return end is None or end not in self.model.accounts or self.model.accounts[end].currency == currency

    def _pick(self, ids: list[str], index: int) -> str:
        """Returns one of the newest ids, or an id that nothing has."""
        return ids[-1 - index % len(ids)] if ids else str(uuid.uuid4())


def _today() -> str:
    """Returns the day in UTC, which does not end within some seconds."""
    while (now := datetime.now(UTC)).strftime("%H:%M:%S") >= "23:59:50":
        time.sleep(1)
    return now.date().isoformat()


def _rejection(wanted: Wanted, model: Model) -> str:
    """Does the command in the model, and returns the code of its rejection, or nothing."""
    try:
        wanted.act(model)
    except Rejected as rejected:
        return rejected.code
    return ""


def _told(answer: httpx2.Response) -> tuple[int, Any, list[Any]]:
    """Returns what a dry run and the command itself must say alike."""
    body = answer.json()
    results = [(each["status"], each["body"].get("code"), _balances_in(each["body"])) for each in body.get("results", ())]
    return answer.status_code, body.get("code"), [_balances_in(body), results]


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
