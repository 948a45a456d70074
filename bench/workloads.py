"""What is asked of a server, again and again: which requests, about which accounts, in which mix.

`load.lua` makes the same requests for wrk; keep the two alike.
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


def account_id(number: int) -> str:
    """Accounts are numbered from 1."""
    return f"00000000-0000-4000-8000-{number:012d}"


class Workload(msgspec.Struct, frozen=True):
    """`hot`: each transfer goes to one and the same account. `zipf`: the account of rank r is met 1/r times as often.

    `{account}` in the path stands for an account. A POST carries one transfer, or `batch` of them.
    """

    method: Literal["GET", "POST"]
    path: str
    accounts: int
    picker: Picker = "uniform"
    batch: int | None = None

    def lua_arguments(self) -> list[str]:
        numbers = (str(self.accounts), nonce(), str(secrets.randbelow(2**31)), str(self.batch or 0))
        return [self.method, self.path, self.picker, *numbers]

    def requests(self) -> Iterator[bytes]:
        """Without end; no two have the same idempotency key."""
        pairs = self.pairs()
        if self.method == "GET":
            return (get(self.path.replace("{account}", account_id(payer))) for payer, _ in pairs)
        run = nonce()
        keys = (f"{run}-{number}" for number in itertools.count())
        transfers = (transfer(*pair) for pair in pairs)
        bodies = (batch_of(islice(transfers, self.batch)) for _ in itertools.count()) if self.batch else transfers
        return (post(self.path, key, body) for key, body in zip(keys, bodies, strict=False))

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Payer and payee, never the same."""
        numbers = range(1, self.accounts + 1)
        weights = list(accumulate(1 / number for number in numbers)) if self.picker == "zipf" else None
        while True:
            drawn = random.choices(numbers, cum_weights=weights, k=2_000)  # noqa: S311 # no secret
            payees = [HOT_ACCOUNT] * len(drawn) if self.picker == "hot" else reversed(drawn)
            for payer, payee in zip(drawn, payees, strict=True):
                yield payer, payee if payee != payer else payer % self.accounts + 1


def nonce() -> str:
    return secrets.token_hex(6)


def get(path: str, headers: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: bench\r\n{headers}\r\n".encode()


def transfer(payer: int, payee: int) -> str:
    return f'{{"from_account_id":"{account_id(payer)}","to_account_id":"{account_id(payee)}","amount":7,"currency":"EUR"}}'


def batch_of(transfers: Iterable[str]) -> str:
    return f'{{"mode":"independent","transfers":[{",".join(transfers)}]}}'


def post(path: str, key: str, body: str) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return f"{head}\r\nIdempotency-Key: {key}\r\n\r\n{body}".encode()
