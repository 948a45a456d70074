"""Nobody reads or changes anything without the right to: random credentials, routes, objects, ledgers and filters.

Each request is made from a seed. What its caller has a right to follows from the declared access rule and from who owns what. The
answer and what is stored are compared with that.
"""

import dataclasses
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import asyncpg
import httpx2
import pytest

from shared.identity.access import CUSTOMER_SCOPES, SCOPES
from shared.identity.signed_tokens import SIGNED_SCOPES
from shared.settings import Settings
from tests.harness.clients import served
from tests.harness.keys import add_key, new_token
from tests.harness.tokens import signed
from tests.shared.test_access import GUARDED, Operation, Things, World, projected_world

REQUESTS: Final = 250
CREDENTIALS: Final = 40
MONEY: Final = {"/v1/deposits", "/v1/withdrawals", "/v1/transfers"}
"""The writes that are also sent by callers with the right to them. Others would end objects that later requests need."""
OWNED: Final = ("user_id", "owner_id", "account_id", "from_account_id", "transfer_id")
"""The names of things that a customer must own. The payee of a transfer can be anybody."""
STORED: Final = (
    "SELECT ledger_id, position FROM log_heads ORDER BY 1",
    "SELECT ledger_id, user_id, version::text FROM passwords ORDER BY 1, 2",
    "SELECT key_id, principal, scopes, expires_at, revoked_at FROM api_keys ORDER BY 1",
)


@dataclass(frozen=True)
class Credential:
    """An `Authorization` header, and the rights that it gives. `customer` is `own` or `foreign` if it belongs to a customer."""

    authorization: str
    is_valid: bool = False
    ledger_id: str = "main"
    scopes: frozenset[str] = frozenset()
    customer: str | None = None

    def admits(self, operation: Operation) -> bool:
        """No credential here is one for all ledgers."""
        rule = operation.access or {}
        of_this_kind = rule["customers"] if self.customer else rule.get("operators", True) and not rule.get("all_ledgers")
        return of_this_kind and not self.scopes.isdisjoint(rule["scopes"])


@dataclass(frozen=True)
class Attempt:
    """A random request. `owners` has the owner of each thing by its name: own, foreign or missing."""

    credential: Credential
    operation: Operation
    things: Things
    owners: dict[str, str]
    ledger: str | None
    query: dict[str, str]

    def is_about_another_ledger(self) -> bool:
        return self.ledger not in {None, self.credential.ledger_id}

    def is_about_things_of_others(self) -> bool:
        """True if the caller does not own what the path and the body name, or it is in another ledger."""
        used = {*self.operation.names("path"), *_names_in(self.operation.body)}
        if self.credential.ledger_id != "main":
            return not used.isdisjoint({*OWNED, "stream"})
        customer = self.credential.customer
        return customer is not None and any(self.owners[name] != customer for name in used & set(OWNED))

    def has_right(self) -> bool:
        return (
            self.credential.is_valid
            and self.credential.admits(self.operation)
            and not self.is_about_another_ledger()
            and not self.is_about_things_of_others()
        )

    def is_sent(self) -> bool:
        return self.operation.method == "get" or self.operation.path in MONEY or not self.has_right()

    def allowed_statuses(self) -> set[int]:
        """The statuses that may answer it, if the caller has no right to it. 404 hides what it is about."""
        if not self.credential.is_valid:
            return {401}
        if not self.credential.admits(self.operation):
            return {403}
        return {404} if self.ledger != "Not A Ledger" else {422}


def _names_in(body: Any) -> set[str]:
    if isinstance(body, list):
        return {name for item in body for name in _names_in(item)}
    return {*body, *(name for value in body.values() for name in _names_in(value))} if isinstance(body, dict) else set()


# ── random credentials ───────────────────────────────────────────────────────────────────────────────────────────────


async def credentials_for(world: World, rng: random.Random) -> list[Credential]:
    await world.log_in()
    session = f"Bearer {world.tokens['member']}"
    made = [Credential(session, is_valid=True, scopes=frozenset(CUSTOMER_SCOPES), customer="own")]
    while len(made) < CREDENTIALS:
        scopes = frozenset(rng.sample(SCOPES, rng.randint(1, len(SCOPES))))
        if rng.random() < 0.2:
            made.append(_service(rng, scopes))
        elif rng.random() < 0.2:
            made.append(Credential(_spoiled(rng, made)))
        else:
            made.append(await _key(world, rng, scopes))
    return made


def _service(rng: random.Random, scopes: frozenset[str]) -> Credential:
    ledger_id = rng.choice(["main", "main", "other"])
    faults: dict[str, Any] = rng.choice([{}, {}, {}, {"exp": 1, "iat": 0}, {"aud": "elsewhere"}, {"exp": "9999999999"}])
    token = signed(ledger=ledger_id, scope=" ".join(sorted(scopes)), **faults)
    return Credential(f"Bearer {token}", not faults, ledger_id, scopes & SIGNED_SCOPES)


async def _key(world: World, rng: random.Random, scopes: frozenset[str]) -> Credential:
    ledger_id = rng.choice(["main", "main", "main", "other"])
    customer = rng.choice([None, "own", "foreign", "missing"])
    user_id = None if customer is None else getattr(world, customer).user_id
    is_expired = rng.random() < 0.1
    token = await add_key(
        world.settings.database_url,
        f"fuzz-{rng.getrandbits(40)}",
        ledger_id=ledger_id,
        scopes=sorted(scopes),
        user_id=user_id,
        lifetime=timedelta(seconds=-1) if is_expired else None,
    )
    is_known = customer is None or (customer != "missing" and ledger_id == "main")
    return Credential(f"Bearer {token}", is_known and not is_expired, ledger_id, scopes, customer)


def _spoiled(rng: random.Random, made: Sequence[Credential]) -> str:
    """A credential that is nearly a valid one."""
    valid = [credential.authorization.removeprefix("Bearer ") for credential in made if credential.is_valid]
    token, other = rng.choice(valid), rng.choice(valid)
    at = rng.randrange(len(token) // 2)
    return rng.choice(
        [
            f"Basic {token}",
            f"Bearer {token[:at]}{'A' if token[at] != 'A' else 'B'}{token[at + 1 :]}",
            f"Bearer {token[:-1]}",
            f"Bearer {token}x",
            f"Bearer {token.swapcase()}",
            f"Bearer {token} {other}",
            f"Bearer {token[: len(token) // 2]}{other[::-1]}",
            f"Bearer {new_token()}",
            "",
        ]
    )


# ── random requests ──────────────────────────────────────────────────────────────────────────────────────────────────


def attempt_of(world: World, rng: random.Random, credential: Credential) -> Attempt:
    operation = rng.choice(GUARDED)
    owners = {name: rng.choice(["own", "foreign", "missing"]) for name in OWNED}
    # Payer and payee have one owner, so that no customer's entries name an account of the other.
    owners["to_account_id"] = owners["from_account_id"]
    things = dataclasses.replace(world.own, **{name: getattr(getattr(world, owner), name) for name, owner in owners.items()})
    ledger = rng.choice([None, None, None, credential.ledger_id, "main", "other", "nowhere", "Not A Ledger"])
    filters = sorted(set(operation.names("query")) & Things.__annotations__.keys())
    query = {name: getattr(things, name) for name in filters if rng.random() < 0.3}
    return Attempt(credential, operation, things, owners, ledger, query)


async def stored(connection: "asyncpg.Connection") -> list[Any]:
    return [[tuple(row) for row in await connection.fetch(statement)] for statement in STORED]


def ids_to_hide(world: World, attempt: Attempt) -> set[str]:
    """The ids that the answer must not contain, without those that the caller has sent."""
    own, foreign = ({*things.ids(), things.to_account_id} for things in (world.own, world.foreign))
    if attempt.credential.ledger_id != "main":
        hidden = own | foreign
    else:
        hidden = {"own": foreign, "foreign": own}.get(attempt.credential.customer or "", set())
    return hidden - {*dataclasses.astuple(attempt.things), *attempt.query.values()}


async def check(world: World, connection: "asyncpg.Connection", attempt: Attempt) -> bool:
    """Sends the request and compares the answer with the caller's rights. Returns True if it succeeded."""
    headers = {"authorization": attempt.credential.authorization} if attempt.credential.authorization else {}
    headers |= {"daybook-ledger": attempt.ledger} if attempt.ledger else {}
    await world.prepare(attempt.operation, attempt.things)
    before = await stored(connection)

    async def send() -> httpx2.Response:
        return await world.send("none", attempt.operation, attempt.things, headers=headers, query=attempt.query)

    # What needs a seal is answered 503 for as long as there is none.
    answer = await (send() if attempt.operation.needs_a_seal else served(send, pause_seconds=0.2))
    about = f"{answer.status_code} {answer.text[:500]} for {attempt}"
    if attempt.has_right():
        assert answer.status_code not in {401, 403}, about
    else:
        assert answer.status_code in attempt.allowed_statuses() or attempt.operation.needs_a_seal, about
        assert not answer.is_success, about
        assert await stored(connection) == before, f"something was written: {about}"
    # The denials of a caller name what it has sent in earlier requests.
    if attempt.operation.path != "/v1/refusals":
        shown = [each for each in ids_to_hide(world, attempt) if each in answer.text]
        assert not shown, f"{shown} shown: {about}"
    return answer.is_success


@pytest.mark.proof(1, 40)
async def test_random_callers_get_only_what_they_have_a_right_to(settings: Settings, seeds: Iterator[int]) -> None:
    """Sends `REQUESTS` requests for each seed, with credentials of every kind, valid and spoiled, about things of every owner."""
    async with projected_world(settings) as world:
        connection = await asyncpg.connect(settings.database_url, ssl=False)
        outcomes: Counter[tuple[bool, bool]] = Counter()
        try:
            for seed in seeds:
                outcomes += await try_seed(world, connection, seed)
        finally:
            await connection.close()
        assert outcomes[True, True] > outcomes.total() / 100, f"nearly nothing was allowed: {outcomes}"
        assert outcomes[False, False] > outcomes.total() / 4, f"nearly nothing was forbidden: {outcomes}"


async def try_seed(world: World, connection: "asyncpg.Connection", seed: int) -> Counter[tuple[bool, bool]]:
    """Returns how often a caller had a right and succeeded, and the other three."""
    rng = random.Random(seed)
    outcomes: Counter[tuple[bool, bool]] = Counter()
    credentials = await credentials_for(world, rng)
    while outcomes.total() < REQUESTS:
        attempt = attempt_of(world, rng, rng.choice(credentials))
        if attempt.is_sent():
            try:
                outcomes[attempt.has_right(), await check(world, connection, attempt)] += 1
            except AssertionError as error:
                error.add_note(f"seed {seed}")
                raise
    return outcomes
