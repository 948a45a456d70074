"""Hands commands to the process that writes to their ledger, and takes commands of other processes if this one writes.

A process that does not write reads requests, checks callers and validates. The writer decides and records. So the writer's
batches never lose a race, and a second process takes work off it instead of slowing it down.

Safety never rests on who is elected. Each process may write at any time: the append checks the head of the log. So a process
writes for itself whenever it does not know the writer or does not reach it. That is slow and never wrong.

A command whose connection ends has an unknown outcome. It is handed back, and this process records it as one that may be recorded
already: see `CommandRequest.is_repeated`. Never guess.
"""

import asyncio
import errno
import os
import secrets
import socket
import stat
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from command_api.writer.command_request import AcceptedCommand, CommandRequest, Reply
from command_api.writer.election import Election
from command_api.writer.frames import FrameConnection
from shared.errors import DaybookError
from shared.logs import kind_of
from shared.supervision import end_tasks

log = structlog.get_logger()

CONNECT_SECONDS: Final = 0.5

Accept = Callable[[str, Sequence[AcceptedCommand]], bool]
"""Takes a ledger id and commands of one caller, and queues them. Returns False if this process does not know the ledger."""


class HandedBackError(Exception):
    """The writer has refused the command, or its connection ended. It is unknown if the command is recorded."""


class WriterFailedError(Exception):
    """An error in the code of the writing process, which has logged it."""


class Handover:
    """The connections between this process and the others of this machine."""

    def __init__(self, engine: AsyncEngine, folder: Path | None = None) -> None:
        """Makes a handover that is not started. The sockets are in `folder`, or in a folder of this user for temporary files."""
        self._folder = folder or Path(tempfile.gettempdir()) / f"daybook-{os.geteuid()}"
        self._path = self._folder / f"{os.getpid()}-{secrets.token_hex(4)}.sock"  # a path of a socket is short
        self._election = Election(engine, str(self._path), self._follow)
        self._accept: Accept | None = None
        self._server: asyncio.AbstractServer | None = None
        self._taken_from: set[FrameConnection] = set()
        self._links: dict[str, WriterLink] = {}
        self._connecting: dict[str, asyncio.Task[None]] = {}

    async def start(self, accept: Accept) -> None:
        """Begins to take commands of others, which `accept` queues, and to take part in elections.

        If the folder cannot be used, this process takes no commands of others, and says so in the log.
        """
        self._accept = accept
        try:
            _make_private(self._folder)
            _remove_dead_sockets(self._folder)
            loop = asyncio.get_running_loop()
            # Under its own name, the socket has a listener from the first moment, so it is never taken for a dead one.
            new = self._path.with_suffix(".new")
            self._server = await loop.create_unix_server(self._connection_of_other, str(new))
            new.chmod(0o600)
            new.rename(self._path)
        except OSError as error:
            log.warning("takes no commands of other processes", folder=str(self._folder), error=kind_of(error))
        self._election.start()

    async def resign(self) -> None:
        """Takes no more commands of others and lets another process be elected. Commands that were taken are still answered."""
        self._accept = None
        await self._election.resign()

    async def close(self) -> None:
        """Ends all connections, after the answers that were given before."""
        await end_tasks(*self._connecting.values())
        for connection in [*self._taken_from, *(link.connection for link in self._links.values())]:
            connection.close()
        if self._server:
            self._server.close()
            self._path.unlink(missing_ok=True)

    def writes(self, ledger_id: str) -> bool:
        """True if this process is elected to write to the ledger."""
        return self._election.is_elected(ledger_id)

    def link(self, ledger_id: str) -> "WriterLink | None":
        """Returns the open connection to the other process that writes to the ledger. None if this process is to write."""
        self._election.use(ledger_id)
        link = self._links.get(self._election.writer_address(ledger_id) or "")
        return link if link and link.connection.is_open else None

    # ── commands of others ───────────────────────────────────────────────────────────────────────────────────────────

    def _connection_of_other(self) -> FrameConnection:
        connection = FrameConnection(self._take, self._taken_from.discard)
        self._taken_from.add(connection)
        return connection

    def _take(self, connection: FrameConnection, value: Any) -> None:
        number, ledger_id, seconds, requests = value
        expires_at = asyncio.get_running_loop().time() + seconds
        commands = [_TakenCommand(each, expires_at, connection, number + place) for place, each in enumerate(requests)]
        verdict: Exception = HandedBackError()
        try:
            if self._accept and self.writes(ledger_id) and self._accept(ledger_id, commands):
                self._election.use(ledger_id)
                return
        except DaybookError as error:
            verdict = error
        for command in commands:
            command.answer(verdict)

    # ── connections to writers ───────────────────────────────────────────────────────────────────────────────────────

    def _follow(self) -> None:
        """Connects to the writers that are elected now, and ends the connections to all that no longer are."""
        wanted = self._election.addresses()
        for address, link in list(self._links.items()):
            if address not in wanted:
                link.connection.abort()
        for address in wanted - self._links.keys() - self._connecting.keys():
            self._connecting[address] = asyncio.create_task(self._connect(address))

    async def _connect(self, address: str) -> None:
        link = WriterLink(lambda: self._links.pop(address, None))
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await asyncio.get_running_loop().create_unix_connection(lambda: link.connection, address)
            self._links[address] = link
        except OSError:  # the writer is not on this machine, or is ending
            pass
        finally:
            del self._connecting[address]


class WriterLink:
    """A connection to the process that writes, with the commands that it has not answered yet."""

    def __init__(self, ended: Callable[[], object]) -> None:
        """Makes a link that calls `ended` when its connection ends."""
        self.connection = FrameConnection(self._answered, self._hand_back)
        self._ended = ended
        self._pending: dict[int, AcceptedCommand] = {}
        self._next_number = 0

    def send(self, ledger_id: str, commands: Sequence[AcceptedCommand]) -> range:
        """Sends commands of one caller, and returns their numbers. If they are handed back, their verdict is `HandedBackError`.

        Call `forget` when nobody waits for them any longer.
        """
        numbers = range(self._next_number, self._next_number + len(commands))
        self._next_number = numbers.stop
        self._pending.update(zip(numbers, commands, strict=True))
        seconds = commands[0].expires_at - asyncio.get_running_loop().time()
        self.connection.send((numbers.start, ledger_id, seconds, [command.request for command in commands]))
        return numbers

    def forget(self, numbers: range) -> None:
        for number in numbers:
            self._pending.pop(number, None)

    def _answered(self, _: FrameConnection, value: Any) -> None:
        number, verdict = value
        if command := self._pending.pop(number, None):
            command.answer(verdict)

    def _hand_back(self, _: FrameConnection) -> None:
        self._ended()
        pending, self._pending = self._pending, {}
        for command in pending.values():
            command.answer(HandedBackError())


class _TakenCommand:
    """A command of another process, which gets the verdict over its connection."""

    __slots__ = ("_connection", "_is_answered", "_number", "expires_at", "request")

    def __init__(self, request: CommandRequest, expires_at: float, connection: FrameConnection, number: int) -> None:
        self.request = request
        self.expires_at = expires_at
        self._connection = connection
        self._number = number
        self._is_answered = False

    @property
    def caller(self) -> str:
        return self.request.principal

    def is_answered(self) -> bool:
        return self._is_answered or not self._connection.is_open

    def answer(self, verdict: Reply | Exception) -> None:
        if self._is_answered:
            return
        self._is_answered = True
        if isinstance(verdict, Exception) and not isinstance(verdict, (DaybookError, HandedBackError)):
            log.error("a command of another process failed", error=kind_of(verdict), exc_info=verdict)
            verdict = WriterFailedError(kind_of(verdict))
        self._connection.send((self._number, verdict))


def _make_private(folder: Path) -> None:
    """Makes the folder, or checks that nobody else can enter it.

    Raises:
        OSError: the folder cannot be made, or it is not this user's alone.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise PermissionError(f"{folder} must be a folder of this user with mode 0700")


def _remove_dead_sockets(folder: Path) -> None:
    """Removes the sockets of processes that were killed. Nothing listens at them."""
    for path in folder.glob("*.sock"):
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(0)
            if asking.connect_ex(str(path)) == errno.ECONNREFUSED:
                path.unlink(missing_ok=True)
