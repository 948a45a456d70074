"""Is the log what was written, and do streams, snapshots and balances follow from it?

Everything is read in pages and beside running writers: what was appended after the start is left for the next time. Nothing is
held in memory but the accounts.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol, assert_never

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from projector.difference import DifferenceFound, require_equal
from shared import event_store
from shared.errors import UnknownEvent
from shared.event_store import Head, Member, StoredEvent
from shared.events import (
    EVENT_TYPES,
    NO_KEYS,
    AccountClosed,
    AccountFrozen,
    AccountOpened,
    AccountUnfrozen,
    Event,
    FundsDeposited,
    FundsTransferred,
    FundsWithdrawn,
    ProjectionEventSkipped,
    Sealed,
    UserChanged,
    UserCreated,
    UserDeactivated,
    UserErased,
    UserReactivated,
    decode,
    user_stream,
)
from shared.person_keys import PERSONAL_TYPES, PersonKeys
from shared.personal_data import Keys, Place, people_in

Advanced = Callable[[int], None]
"""Called with the number of events that were looked at since the last call."""


class Fold(Protocol):
    """How a stream's events add up; see `command_api.fold`, which the projector may not import."""

    @property
    def version(self) -> int: ...

    @property
    def initial(self) -> Any: ...

    @property
    def evolve(self) -> Callable[[Any, Event], Any]: ...

    def people(self, snapshot: str) -> set[str]:
        """Whose keys it takes to read a snapshot."""

    def read(self, snapshot: str, place: Place, keys: Keys) -> Any:
        """The state that was stored as this JSON."""


FoldOf = Callable[[str], Fold]
PlaceOf = Callable[[str, str, int], Place]
"""What a snapshot is bound to: ledger, stream, version."""


LOWEST: Final = -(2**62)
"""Before every position, also those that no log has."""

# ── the chain ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def verify_chain(connection: AsyncConnection, ledger_id: str, advanced: Advanced) -> Head:
    """Every event from the first to the head: dense, unchanged, each tied to the one before. The head that was reached.

    Raises:
        DifferenceFound: names the first position that is not what was written.
    """
    head = await event_store.read_head(connection, ledger_id)
    last = Head(0, b"", head.now)
    while last.position < head.position:
        limit = min(event_store.PAGE_EVENTS, head.position - last.position)
        page = await event_store.read_stored(connection, ledger_id, last.position or LOWEST, limit)
        if not page:
            raise DifferenceFound(f"position {last.position + 1} of the log", "an event", None)
        for stored in page:
            last = _verify_link(last, stored)
        advanced(len(page))
    require_equal(f"head of the log at {head.position}, hash", head.hash.hex(), last.hash.hex())
    await _verify_ends(connection, ledger_id)
    return head


async def _verify_ends(connection: AsyncConnection, ledger_id: str) -> None:
    """Events and head are written in one transaction: none stands before the first position, none after the head."""
    head, first, last = await event_store.read_ends(connection, ledger_id)
    for position, is_there in ((first, first < 1), (head + 1, last > head)):
        if is_there:
            raise DifferenceFound(f"position {position} of the log", "no event outside 1 to the head", f"one at {position}")


def _verify_link(last: Head, stored: StoredEvent) -> Head:
    require_equal("the next position of the log", last.position + 1, stored.position)
    where = f"position {stored.position} of the log (event {stored.event_id}, {stored.type}), hash"
    try:
        computed = stored.computed_hash(last.hash)
    except ValueError as error:
        raise DifferenceFound(where, "JSON of ours", str(error)) from error
    if computed != stored.hash:
        raise DifferenceFound(where, computed.hex(), stored.hash.hex())
    return Head(stored.position, stored.hash, stored.recorded_at)


# ── the money ────────────────────────────────────────────────────────────────────────────────────────────────────────

OUTSIDE: Final = "the outside world"


class Books:
    """All accounts as the events' amounts make them, to hold the events' balances against."""

    def __init__(self) -> None:
        self.members = 0
        """Streams that the events belong to, each counted once for each event."""
        self.people: set[str] = set()
        """Who must have a key."""
        self.erased: set[str] = set()
        """Who must have none."""
        self._balances: dict[str, int] = {}
        self._limits: dict[str, int] = {}
        self._currencies: dict[str, str] = {}
        self._outside: Counter[str] = Counter()

    @property
    def accounts(self) -> int:
        return len(self._balances)

    def enter(self, position: int, event: Event) -> None:
        """Raises:
        DifferenceFound: a balance is not the one before plus the amount, or is below the account's limit.
        """
        self.members += len(event.streams())
        match event:
            case FundsTransferred():
                self._post(position, event, event.from_account_id, -event.amount, event.from_balance)
                self._post(position, event, event.to_account_id, event.amount, event.to_balance)
            case FundsDeposited():
                self._outside[event.currency] -= event.amount
                self._post(position, event, event.account_id, event.amount, event.balance)
            case FundsWithdrawn():
                self._outside[event.currency] += event.amount
                self._post(position, event, event.account_id, -event.amount, event.balance)
            case AccountOpened():
                self._balances[event.account_id] = 0
                self._limits[event.account_id] = event.overdraft_limit
                self._currencies[event.account_id] = event.currency
            case (AccountFrozen() | AccountUnfrozen() | AccountClosed()) | (
                UserChanged() | UserDeactivated() | UserReactivated() | ProjectionEventSkipped()
            ):
                pass
            case UserCreated():
                self.people.add(event.user_id)
            case UserErased():
                self.people.discard(event.user_id)
                self.erased.add(event.user_id)
            case _:
                assert_never(event)

    def _post(
        self,
        position: int,
        event: FundsTransferred | FundsDeposited | FundsWithdrawn,
        account_id: str,
        amount: int,
        balance: int,
    ) -> None:
        where = f"position {position} of the log, account {account_id}"
        require_equal(f"{where}, currency", self._currencies.get(account_id), event.currency)
        require_equal(f"{where}, balance", self._balances[account_id] + amount, balance)
        limit = -self._limits[account_id]
        if balance < limit and amount < 0:
            raise DifferenceFound(f"{where}, balance", f"{limit} or more", balance)
        self._balances[account_id] = balance

    def close(self) -> None:
        """Raises:
        DifferenceFound: the balances of a currency, the outside world's included, do not sum to zero.
        """
        sums = Counter(self._outside)
        for account_id, balance in self._balances.items():
            sums[self._currencies[account_id]] += balance
        for currency, total in sums.items():
            require_equal(f"sum of all balances in {currency} and of {OUTSIDE}", 0, total)


async def verify_money(connection: AsyncConnection, ledger_id: str, head: int, advanced: Advanced) -> Books:
    """The events up to `head` as bookkeeping.

    Raises:
        DifferenceFound: names the first position whose amounts and balances do not agree, or that this code cannot read.
    """
    books, position = Books(), 0
    while position < head:
        limit = min(event_store.PAGE_EVENTS, head - position)
        page = await event_store.read_stored(connection, ledger_id, position, limit)
        if not page:
            break  # the chain has been verified: the log was cut off since
        for stored in page:
            books.enter(stored.position, _event(f"position {stored.position} of the log", stored, NO_KEYS.keys))
        position = page[-1].position
        advanced(len(page))
    books.close()
    return books


def _event(where: str, stored: StoredEvent | Member, keys: Keys, ledger_id: str = "") -> Event:
    if stored.event_id is None or stored.type is None or stored.schema_version is None or stored.data is None:
        raise DifferenceFound(where, "an event of the log", None)
    try:
        return decode(stored.type, stored.schema_version, stored.data, Sealed(ledger_id, stored.event_id, keys))
    except UnknownEvent as unknown:
        raise DifferenceFound(where, "an event that this code knows", unknown.detail) from unknown


# ── the people ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def verify_people(connection: AsyncConnection, ledger_id: str, books: Books, person_keys: PersonKeys) -> None:
    """Everybody has a key but those who were erased: a key that was lost would look like an erasure everywhere else.

    Raises:
        DifferenceFound: names a person.
    """
    found = await person_keys.read_ids(connection, ledger_id)
    if kept := books.erased & found:
        raise DifferenceFound(f"key of person {min(kept)}", "none after the erasure", "one")
    for person_id in sorted(books.people - found):
        # Erased since the log was read, perhaps.
        stream = await event_store.read_stream(connection, ledger_id, user_stream(person_id), type_name=UserErased.__name__)
        if not stream:
            raise DifferenceFound(f"key of person {person_id}", "one", None)


# ── the streams ──────────────────────────────────────────────────────────────────────────────────────────────────────


class StreamWalk:
    """Goes through all streams, event by event, and folds each afresh."""

    def __init__(self, ledger_id: str, fold_of: FoldOf, place_of: PlaceOf) -> None:
        self.streams = 0
        self.snapshots = 0
        """Of the present fold's version; others are folded anew when they are next needed."""
        self._ledger_id = ledger_id
        self._fold_of = fold_of
        self._place_of = place_of
        self._last: Member | None = None
        self._state: Any = None

    def people(self, members: Iterable[Member]) -> set[str]:
        """Whose keys it takes to visit these."""
        found = set()
        for member in members:
            if member.type in PERSONAL_TYPES:
                found |= people_in(EVENT_TYPES[member.type], msgspec.json.decode(member.data or "{}"))
            if member.snapshot:
                found |= self._people_in_snapshot(member, member.snapshot)
        return found

    def _people_in_snapshot(self, member: Member, snapshot: str) -> set[str]:
        try:
            fold = self._fold_of(member.stream_id)
        except KeyError:  # a stream of no kind that there is; the visit says so
            return set()
        return fold.people(snapshot) if member.fold_version == fold.version else set()

    def visit(self, member: Member, keys: Keys) -> None:
        """Raises:
        DifferenceFound: the stream does not hold what its events prescribe, or its head is not what they fold to.
        """
        where = f"stream {member.stream_id}, version {member.version}"
        event = _event(where, member, keys, self._ledger_id)
        if member.stream_id not in event.streams():
            raise DifferenceFound(f"{where}, event at {member.position}", f"one of {event.streams()}", member.stream_id)
        fold = self._fold_of(member.stream_id)
        last = self._last
        if last is None or last.stream_id != member.stream_id:
            self.leave()
            self.streams += 1
            self._state, last = fold.initial, None
        require_equal(f"stream {member.stream_id}, next version", last.version + 1 if last else 1, member.version)
        if last and member.position <= last.position:
            raise DifferenceFound(f"{where}, position", f"more than {last.position}", member.position)
        self._state = fold.evolve(self._state, event)
        self._last = member
        if member.version == member.head_version:
            self._verify_head(fold, member, keys)

    def leave(self) -> None:
        """The last event of a stream has the version of its head: both were read at the same moment."""
        if self._last is not None:
            require_equal(f"head of stream {self._last.stream_id}, version", self._last.version, self._last.head_version)

    def _verify_head(self, fold: Fold, member: Member, keys: Keys) -> None:
        where = f"head of stream {member.stream_id}"
        require_equal(f"{where}, position", member.position, member.head_position)
        if member.fold_version != fold.version:
            return
        self.snapshots += 1
        try:
            stored = fold.read(member.snapshot or "", self._place_of(self._ledger_id, member.stream_id, member.version), keys)
        except ValueError as error:
            raise DifferenceFound(f"{where}, snapshot", "one that can be read", "another") from error
        require_equal(f"{where}, snapshot", msgspec.to_builtins(self._state), msgspec.to_builtins(stored))


async def verify_streams(
    connection: AsyncConnection,
    ledger_id: str,
    head: int,
    members: int | None,
    walk: StreamWalk,
    person_keys: PersonKeys,
    advanced: Advanced,
) -> None:
    """Every stream against the events up to `head`, which belong to streams `members` times, if that is known.

    Raises:
        DifferenceFound: names the first stream and version that are not as prescribed.
    """
    after, found = ("", 0), 0
    while page := await event_store.read_members(connection, ledger_id, after):
        keys = await person_keys.read(connection, ledger_id, walk.people(page))
        for member in page:
            walk.visit(member, keys)
        found += sum(member.position <= head for member in page)
        after = page[-1].stream_id, page[-1].version
        advanced(len(page))
    walk.leave()
    if members is not None and found != members:
        await _locate_missing_member(connection, ledger_id, head)
        raise DifferenceFound("events of all streams together", members, found)
    await _verify_heads_have_events(connection, ledger_id)


async def _locate_missing_member(connection: AsyncConnection, ledger_id: str, head: int) -> None:
    """Slow, and only for a log that is known to be damaged: counts each stream's events again."""
    versions: Counter[str] = Counter()
    position = 0
    while position < head and (page := await event_store.read_stored(connection, ledger_id, position)):
        for stored in page:
            for stream_id in _event(f"position {stored.position}", stored, NO_KEYS.keys).streams():
                versions[stream_id] += 1
                members = await event_store.read_members(connection, ledger_id, (stream_id, versions[stream_id] - 1), 1)
                found = members[0].position if members and members[0].stream_id == stream_id else None
                require_equal(f"stream {stream_id}, version {versions[stream_id]}, position", stored.position, found)
        position = page[-1].position


async def _verify_heads_have_events(connection: AsyncConnection, ledger_id: str) -> None:
    after = ""
    while page := await event_store.read_stream_ids(connection, ledger_id, after):
        for stream_id, has_events in page:
            if not has_events:
                raise DifferenceFound(f"head of stream {stream_id}", "no head without events", "one")
        after = page[-1][0]
