"""Workloads: the requests that are sent to a server, and the choice of their accounts.

`wrk_requests.lua` makes the same requests for wrk. If you change one file, change the other.
"""

import itertools
import random
import secrets
from collections.abc import Iterable, Iterator
from itertools import accumulate, islice
from typing import Final, Literal

import msgspec

Picker = Literal["uniform", "zipf", "hot"]

HOT_ACCOUNT: Final = 1

API_KEY: Final = "dbk_benchmarks_" + "0" * 43
"""The API key of the run's databases, which are deleted at the end. The yardsticks get this key too, but ignore it."""

BYSTANDER_KEY: Final = "dbk_bystanders_" + "1" * 43
"""The API key of a second caller, for benchmarks in which callers disturb each other."""


def account_id(number: int) -> str:
    """Returns the id of the account with a number. Numbers begin at 1."""
    return f"00000000-0000-4000-8000-{number:012d}"


class Workload(msgspec.Struct, frozen=True):
    """Requests to one route.

    With the picker `hot`, every transfer goes to the same account. With `zipf`, the account with number r is chosen 1/r times as
    often as account 1. `{account}` in the path is replaced by an account id. A POST contains one transfer, or `batch` transfers.
    """

    method: Literal["GET", "POST"]
    path: str
    accounts: int
    picker: Picker = "uniform"
    batch: int | None = None
    api_key: str = API_KEY

    def lua_arguments(self) -> list[str]:
        numbers = (str(self.accounts), nonce(), str(secrets.randbelow(2**31)), str(self.batch or 0))
        return [self.method, self.path, self.picker, *numbers]

    def requests(self) -> Iterator[bytes]:
        """Yields requests endlessly. Each POST has a new idempotency key."""
        pairs = self.pairs()
        if self.method == "GET":
            return (get(self.path.replace("{account}", account_id(payer)), api_key=self.api_key) for payer, _ in pairs)
        run = nonce()
        keys = (f"{run}-{number}" for number in itertools.count())
        transfers = (transfer(*pair) for pair in pairs)
        bodies = (batch_of(islice(transfers, self.batch)) for _ in itertools.count()) if self.batch else transfers
        return (post(self.path, key, body, self.api_key) for key, body in zip(keys, bodies, strict=False))

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Yields pairs of account numbers: payer and payee, which always differ."""
        numbers = range(1, self.accounts + 1)
        weights = list(accumulate(1 / number for number in numbers)) if self.picker == "zipf" else None
        while True:
            drawn = random.choices(numbers, cum_weights=weights, k=2_000)  # noqa: S311 # no secret
            payees = [HOT_ACCOUNT] * len(drawn) if self.picker == "hot" else reversed(drawn)
            for payer, payee in zip(drawn, payees, strict=True):
                yield payer, payee if payee != payer else payer % self.accounts + 1


def nonce() -> str:
    return secrets.token_hex(6)


def authorization(api_key: str) -> str:
    return f"Authorization: Bearer {api_key}"


def get(path: str, headers: str = "", api_key: str = API_KEY) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: bench\r\n{authorization(api_key)}\r\n{headers}\r\n".encode()


def transfer(payer: int, payee: int) -> str:
    return f'{{"from_account_id":"{account_id(payer)}","to_account_id":"{account_id(payee)}","amount":7,"currency":"EUR"}}'


def batch_of(transfers: Iterable[str]) -> str:
    return f'{{"mode":"independent","transfers":[{",".join(transfers)}]}}'


def post(path: str, key: str, body: str, api_key: str = API_KEY) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\n{authorization(api_key)}\r\nContent-Type: application/json"
    return f"{head}\r\nContent-Length: {len(body)}\r\nIdempotency-Key: {key}\r\n\r\n{body}".encode()
