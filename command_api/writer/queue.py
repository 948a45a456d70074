"""Chooses which commands go into the next batch, and when it begins. Uses no I/O and no asyncio, and the clock is an argument.

A batch takes at most half of the commands that have no verdict yet, including those that are being written. While PostgreSQL
writes one half, this process answers the other half, receives the next commands of the same callers, and decides them. If a batch
took all commands, all callers would get their replies and send their next commands at the same time. Then PostgreSQL and this
process would work in turns, and one of them would always be idle.

The next batch begins when as many commands wait as are being written, when enough wait to fill a batch, or when the previous
batch has ended, whichever comes first. A command whose deadline has passed is left out: its caller has already received an error.

The callers of a ledger take turns: a batch takes one command of each, then one more of each, and so on. So a caller who sends
thousands of commands does not keep the single command of another caller waiting. While several callers are active, a batch has
about as many commands as requests wait. So requests with hundreds of commands do not make it large. That matters because a
command also waits for the batch that is being written when it arrives.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from shared.errors import Overloaded

ACTIVE_SECONDS: Final = 5.0
"""A caller is active for this long after its last command, in seconds."""
SHARED_COMMANDS: Final = 4
"""While several callers are active, a batch has at most this many commands, or as many as requests wait if that is more."""
SHARED_TURNS: Final = 400
"""It has more than that if the commands that wait would otherwise need more turns than this, and so miss their deadlines."""
CALLER_TENTHS: Final = 9
"""How many tenths of the queue the commands of one caller may take, so that others still find room."""


class Waiting(Protocol):
    """A command that waits for a verdict. `expires_at` is its deadline on the queue's clock, in seconds."""

    @property
    def caller(self) -> str: ...

    expires_at: float

    def is_answered(self) -> bool:
        """True if the caller has received a reply or an error, or has left."""


W = TypeVar("W", bound=Waiting)


class _InLine(NamedTuple, Generic[W]):
    command: W
    ends_request: bool


class CommandQueue(Generic[W]):
    """The commands of one ledger that no batch has taken yet: for each caller, oldest first."""

    def __init__(self, queue_commands_max: int, batch_commands_max: int, clock: Callable[[], float]) -> None:
        self._waiting: OrderedDict[str, deque[_InLine[W]]] = OrderedDict()
        """The waiting commands by caller. The caller whose turn comes next is the first."""
        self._count = 0
        self._requests = 0
        """The number of requests of which at least one command waits."""
        self._active: OrderedDict[str, float] = OrderedDict()
        """The time of each active caller's last command. The caller who was active longest ago is the first."""
        self._queue_commands_max = queue_commands_max
        self._caller_commands_max = max(1, queue_commands_max * CALLER_TENTHS // 10)
        self._batch_commands_max = batch_commands_max
        self._clock = clock

    def __len__(self) -> int:
        return self._count

    def add(self, commands: Sequence[W]) -> None:
        """Adds the commands of one request to the end of its caller's line: all of them, or none.

        Raises:
            Overloaded: the queue has no room for all of them.
        """
        caller = commands[0].caller
        own = self._waiting.get(caller) or deque()
        if len(own) + len(commands) > self._caller_commands_max or self._count + len(commands) > self._queue_commands_max:
            raise Overloaded
        *others, last = commands
        own.extend(_InLine(command, ends_request=False) for command in others)
        own.append(_InLine(last, ends_request=True))
        self._waiting[caller] = own
        self._count += len(commands)
        self._requests += 1
        self._active[caller] = self._clock()
        self._active.move_to_end(caller)

    def has_enough(self, writing: int) -> bool:
        """True if the next batch should begin before the batch before has ended. `writing` is the number of its commands."""
        return self._count >= min(writing, self._batch_commands_max)

    def take(self, writing: int) -> list[W]:
        """Removes the commands of the next batch from the queue and returns them. Returns an empty list if no command waits.

        `writing` is the number of commands that are being written.
        """
        half = (self._count + writing + 1) // 2
        now = self._clock()
        size = min(half, self._most(now))
        batch: list[W] = []
        while self._waiting and len(batch) < size:
            command = self._next()
            if command.expires_at > now and not command.is_answered():
                batch.append(command)
        return batch

    def _next(self) -> W:
        """Removes the next command of the caller whose turn it is, and ends the caller's turn."""
        caller, commands = next(iter(self._waiting.items()))
        self._count -= 1
        command, ends_request = commands.popleft()
        self._requests -= ends_request
        if commands:
            self._waiting.move_to_end(caller)
        else:
            del self._waiting[caller]
        return command

    def _most(self, now: float) -> int:
        """Returns how many commands a batch may have."""
        while self._active and next(iter(self._active.values())) <= now - ACTIVE_SECONDS:
            self._active.popitem(last=False)
        if len(self._active) <= 1:
            return self._batch_commands_max
        return min(self._batch_commands_max, max(SHARED_COMMANDS, self._requests, self._count // SHARED_TURNS))
