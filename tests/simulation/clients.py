"""Clients of a simulated history: they send commands, and repeat each under its idempotency key until they know the outcome."""

import asyncio
from typing import Any, Final, Literal

import msgspec

from command_api.domain.command import Command
from command_api.domain.hold import CaptureHold, HoldCapture, PlaceHold, ReleaseHold
from command_api.domain.schedule import CreateSchedule, NewSchedule, PlannedTransfer
from command_api.domain.transfer import Deposit, TransferFunds, Withdraw
from command_api.writer.command_request import CommandRequest, Outcome, Reply
from shared.errors import Overloaded, Rejection, StoreUnavailable
from shared.stores.store_errors import POSTGRES_AND_REDIS_ERRORS
from shared.timestamps import timestamp
from tests.simulation.memory_log import moment
from tests.simulation.world import ACCOUNTS, World

ANSWER_SECONDS: Final = 4.0
"""How long a client waits before it sends its command again."""
COMMANDS_MAX: Final = 5
REPEATED_OF_10: Final = 3
KEYLESS_OF_10: Final = 5
"""How many commands have no idempotency key, where processes hand their commands over: these take other ways there."""

KEY: Final = "key"
KEYLESS: Final = "keyless"
"""The members of an event's metadata that name its command."""

Kind = Literal["deposit", "withdraw", "transfer", "hold", "capture", "release", "schedule"]
_KINDS: Final[tuple[Kind, ...]] = (
    *("deposit", "transfer", "transfer", "withdraw", "hold", "hold"),
    *("capture", "capture", "release", "schedule"),
)


class KeptReply(msgspec.Struct):
    """The body of a reply, as a client sees it."""

    code: str | None
    events: list[str]
    position: int | None


class _ClientReply:
    """The reply format of the clients."""

    def accepted(self, outcome: Outcome) -> tuple[int, bytes]:
        events = [type(event).__name__ for event in outcome.events]
        return 200, msgspec.json.encode(KeptReply(None, events, outcome.position))

    def rejected(self, rejection: Rejection) -> tuple[int, bytes]:
        return 409, msgspec.json.encode(KeptReply(rejection.code, [], None))


class Wish:
    """A command of a client: its key, what it asks for, and the reply once it is known.

    A keyless one is sent once. If that fails, its outcome stays unknown. Its key is then only a name.
    """

    def __init__(self, key: str, kind: Kind, fields: dict[str, Any], *, is_keyless: bool = False) -> None:
        self.key = key
        self.is_keyless = is_keyless
        self.kind = kind
        self.fields = fields
        self.reply: Reply | None = None

    def __repr__(self) -> str:
        return f"{self.key} {self.kind} {self.fields}"


class Client:
    """A client that never dies. It sends some commands, one after another, or some at once."""

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self._name = name
        self._holds: list[str] = []
        self.wishes: list[Wish] = []
        self.attempts = 0

    async def live(self) -> None:
        random = self._world.random
        for number in range(random.randint(2, COMMANDS_MAX)):
            await asyncio.sleep(random.uniform(0, 0.6))
            wish = self._make_wish(f"{self._name}-{number}")
            self.wishes.append(wish)
            await self._fulfil(wish)

    def _make_wish(self, key: str) -> Wish:
        random = self._world.random
        kind = random.choice(_KINDS)
        if kind in {"capture", "release"} and not self._holds:
            kind = "hold"
        payer, payee = random.sample(ACCOUNTS, 2)
        amount = random.choice((1, 40, 120, 250))
        fields: dict[str, Any] = {"account_id": payer, "to_account_id": payee, "amount": amount}
        soon = timestamp(moment(self._world.loop.time() + random.uniform(0.2, 4)))
        if kind == "hold":
            fields |= {"hold_id": self._world.new_id(), "expires_at": soon}
            self._holds.append(fields["hold_id"])
        elif kind in {"capture", "release"}:
            fields["hold_id"] = random.choice(self._holds)
        elif kind == "schedule":
            fields |= {"at": soon}
        is_keyless = self._world.has_handover and random.randrange(10) < KEYLESS_OF_10
        return Wish(key, kind, fields, is_keyless=is_keyless)

    async def _fulfil(self, wish: Wish) -> None:
        """Sends the command until the reply is known, and sometimes once more. The reply must then be the same."""
        random = self._world.random
        if wish.is_keyless:
            wish.reply = await self._ask_once(wish)
            return
        if random.randrange(10) < REPEATED_OF_10:  # an impatient client: two requests with one key at once
            first, second = await asyncio.gather(self._ask_patiently(wish), self._ask_patiently(wish))
        else:
            first = second = await self._ask_patiently(wish)
            if random.randrange(10) < REPEATED_OF_10:
                second = await self._ask_patiently(wish)
        wish.reply = first
        assert (first.status, first.body) == (second.status, second.body), f"{wish} got two replies: {first}, {second}"

    async def _ask_patiently(self, wish: Wish) -> Reply:
        while (reply := await self._ask_once(wish)) is None:
            await asyncio.sleep(self._world.random.uniform(0.05, 0.6))
        return reply

    async def _ask_once(self, wish: Wish) -> Reply | None:
        self.attempts += 1
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await self._world.any_replica().ask(self._request(wish))
        except (StoreUnavailable, Overloaded, *POSTGRES_AND_REDIS_ERRORS):  # over HTTP, each is a 503
            return None

    def _request(self, wish: Wish) -> CommandRequest:
        """Returns a new request: a repeated one gets new ids, as it does in the command API."""
        return CommandRequest(
            command=self._command(wish.kind, wish.fields),
            reply_format=_ClientReply(),
            metadata={KEYLESS if wish.is_keyless else KEY: wish.key},
            principal=self._name,
            idempotency_key=None if wish.is_keyless else wish.key,
            request_hash=wish.key.encode(),
        )

    def _command(self, kind: Kind, fields: dict[str, Any]) -> Command:
        money = {"id": self._world.new_id(), "amount": fields["amount"], "currency": "EUR"}
        match kind:
            case "deposit":
                return Deposit(account_id=fields["account_id"], **money)
            case "withdraw":
                return Withdraw(account_id=fields["account_id"], **money)
            case "transfer":
                return TransferFunds(from_account_id=fields["account_id"], to_account_id=fields["to_account_id"], **money)
            case "hold":
                ends = {"account_id": fields["account_id"], "expires_at": fields["expires_at"]}
                return PlaceHold(**money | {"id": fields["hold_id"]}, **ends)
            case "capture":
                return CaptureHold(hold_id=fields["hold_id"], capture=HoldCapture(id=money["id"], amount=money["amount"]))
            case "release":
                return ReleaseHold(hold_id=fields["hold_id"])
            case "schedule":
                ends = {"from_account_id": fields["account_id"], "to_account_id": fields["to_account_id"]}
                transfer = PlannedTransfer(amount=money["amount"], currency="EUR", **ends)
                return CreateSchedule(schedule=NewSchedule(id=money["id"], transfer=transfer, at=fields["at"]))
