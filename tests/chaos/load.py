"""Clients that send commands of every kind, and readers. Each attempt ends as ok, refused or unknown."""

import asyncio
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final, Literal
from uuid import UUID

import httpx2
import msgspec

from shared.timestamps import timestamp
from tests.chaos.cluster import Cluster
from tests.harness.keys import bearer

ATTEMPT_SECONDS: Final = 8.0
"""How long a client waits for one answer. Longer than the command API's own deadline."""
GIVES_UP_OF_100: Final = 15
"""So many clients of a hundred never ask again after an attempt without an answer. What became of it stays unknown to them."""
RETRIED: Final = {408, 409, 425, 429, 502, 503, 504}

Outcome = Literal["ok", "refused", "unknown"]


class Attempted(msgspec.Struct):
    """A command that a client sent, and what it learned. `thing_id` is the id that its event has."""

    key: str
    path: str
    thing_id: str
    outcome: Outcome = "unknown"
    status: int = 0
    body: bytes = b""
    position: int = 0


class BalanceRead(msgspec.Struct, frozen=True):
    """A balance that a reader saw. The account is `outside` for the sum of all, as the trial balance counts it."""

    account_id: str
    posted: int
    position: int


class Load:
    """All clients and readers of a run, and what they saw."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self._cluster = cluster
        self._random = Random(f"load {seed}")
        self._holds: list[str] = []
        self.accounts: list[str] = []
        self.attempted: list[Attempted] = []
        self.reads: list[BalanceRead] = []
        self.wrongs: list[str] = []
        """What no client may ever see, such as an answer 500."""
        self.is_over = False

    def new_id(self) -> str:
        return str(UUID(int=self._random.getrandbits(128), version=4))

    async def open_accounts(self, count: int) -> None:
        async with self._client() as client:
            owner_id = self.new_id()
            await self._until_known(client, "/v1/users", owner_id, {"name": "Ada", "email": f"{owner_id}@example.com"})
            for _ in range(count):
                account_id = self.new_id()
                await self._until_known(client, "/v1/accounts", account_id, {"owner_id": owner_id, "currency": "EUR"})
                self.accounts.append(account_id)
                body = {"account_id": account_id, "amount": 1_000, "currency": "EUR"}
                await self._until_known(client, "/v1/deposits", self.new_id(), body)

    async def send(self) -> None:
        """One client: sends commands until the load is over."""
        async with self._client() as client:
            while not self.is_over:
                path, thing_id, body = self._command()
                attempted = await self._until_known(client, path, thing_id, body, gives_up=True)
                if attempted.outcome == "ok" and path == "/v1/holds":
                    self._holds.append(thing_id)
                if attempted.outcome != "unknown" and self._random.randrange(10) == 0:
                    await self._repeat(client, attempted, body)
                await asyncio.sleep(self._random.uniform(0, 0.05))

    async def read(self) -> None:
        """One reader: reads balances and the trial balance until the load is over."""
        async with self._client() as client:
            while not self.is_over:
                account_id = self._random.choice(self.accounts)
                path = f"/v1/accounts/{account_id}/balance" if self._random.randrange(3) else "/v1/trial-balance"
                answer = await self._ask(client, "GET", self._cluster.query_api.url + path)
                if answer is not None and answer.status_code == httpx2.codes.OK:
                    self._note(answer.json())
                await asyncio.sleep(0.02)

    async def deposit(self) -> Attempted:
        """Sends one deposit until it is recorded."""
        async with self._client() as client:
            body = {"account_id": self.accounts[0], "amount": 1, "currency": "EUR"}
            return await self._until_known(client, "/v1/deposits", self.new_id(), body)

    async def is_readable(self, position: int) -> bool:
        """True if the query API shows the state at a position or later."""
        async with self._client() as client:
            headers = {"daybook-min-position": str(position), "prefer": "wait=2, handling=strict"}
            shown = []
            for path in (f"/v1/accounts/{self.accounts[0]}/balance", "/v1/trial-balance", "/v1/transfers?limit=1"):
                answer = await self._ask(client, "GET", self._cluster.query_api.url + path, headers=headers)
                shown.append(answer is not None and answer.status_code == httpx2.codes.OK)
            return all(shown)

    # ── commands ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _command(self) -> tuple[str, str, dict[str, Any]]:
        random, thing_id = self._random, self.new_id()
        payer, payee = random.sample(self.accounts, 2)
        money = {"id": thing_id, "amount": random.choice((1, 10, 150, 900)), "currency": "EUR"}
        ends = {"from_account_id": payer, "to_account_id": payee}
        soon = timestamp_in(random.uniform(1, 20))
        kind = random.choice(("deposit", "withdrawal", "transfer", "transfer", "transfer", "hold", "capture", "schedule"))
        if kind == "capture" and self._holds:
            hold_id = self._holds.pop(random.randrange(len(self._holds)))
            return f"/v1/holds/{hold_id}/capture", thing_id, {"id": thing_id}
        if kind in {"hold", "capture"}:
            return "/v1/holds", thing_id, money | {"account_id": payer, "expires_at": soon}
        if kind == "schedule":
            return "/v1/schedules", thing_id, {"id": thing_id, "transfer": ends | money_of(money), "at": soon}
        if kind == "transfer":
            return "/v1/transfers", thing_id, money | ends
        return f"/v1/{kind}s", thing_id, money | {"account_id": payer}

    async def _until_known(
        self, client: httpx2.AsyncClient, path: str, thing_id: str, body: dict[str, Any], *, gives_up: bool = False
    ) -> Attempted:
        attempted = Attempted(self.new_id(), path, thing_id)
        self.attempted.append(attempted)
        while True:
            answer = await self._post(client, attempted, {"id": thing_id} | body)
            if answer is not None and answer.status_code not in RETRIED | {409}:
                self._learn(attempted, answer)
                return attempted
            if answer is not None and answer.status_code == httpx2.codes.CONFLICT and not answer.json().get("retryable"):
                self._learn(attempted, answer)
                return attempted
            if gives_up and (self.is_over or self._random.randrange(100) < GIVES_UP_OF_100):
                return attempted
            await asyncio.sleep(self._random.uniform(0.1, 0.5))

    async def _post(self, client: httpx2.AsyncClient, attempted: Attempted, body: dict[str, Any]) -> httpx2.Response | None:
        url = self._random.choice(self._cluster.command_apis).url + attempted.path
        return await self._ask(client, "POST", url, json=body, headers={"idempotency-key": attempted.key})

    def _learn(self, attempted: Attempted, answer: httpx2.Response) -> None:
        attempted.status, attempted.body = answer.status_code, answer.content
        attempted.outcome = "ok" if answer.is_success else "refused"
        attempted.position = int(answer.headers.get("daybook-position", "0"))

    async def _repeat(self, client: httpx2.AsyncClient, attempted: Attempted, body: dict[str, Any]) -> None:
        answer = await self._post(client, attempted, {"id": attempted.thing_id} | body)
        if answer is None or answer.status_code in RETRIED - {409}:
            return
        if (answer.status_code, answer.content) != (attempted.status, attempted.body):
            self.wrongs.append(f"{attempted} was answered again with {answer.status_code} {answer.text}")

    async def _ask(self, client: httpx2.AsyncClient, method: str, url: str, **more: Any) -> httpx2.Response | None:
        """Returns the answer, or None if there is none. Notes an answer that no fault excuses."""
        try:
            answer = await client.request(method, url, **more)
        except (httpx2.TransportError, TimeoutError):
            return None
        if answer.status_code >= httpx2.codes.INTERNAL_SERVER_ERROR and answer.status_code not in {503, 504}:
            self.wrongs.append(f"{method} {url}: {answer.status_code} {answer.text}")
        return answer

    def _client(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(headers=bearer(), timeout=ATTEMPT_SECONDS, trust_env=False)

    def _note(self, body: dict[str, Any]) -> None:
        if "currencies" not in body:
            self.reads.append(BalanceRead(body["account_id"], body["posted"], body["position"]))
            return
        for line in body["currencies"]:
            self.reads.append(BalanceRead("all", int(line["accounts"]), body["position"]))
            if line["sum"] != "0":
                self.wrongs.append(f"at {body['position']} the balances do not sum to 0: {line}")


def money_of(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: fields[name] for name in ("amount", "currency")}


def timestamp_in(seconds: float) -> str:
    return timestamp(datetime.now(UTC) + timedelta(seconds=seconds))
