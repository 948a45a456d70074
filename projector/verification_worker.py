"""Does the verifications that operators ask for over HTTP: see `shared.proof.verifications`.

Each runs as `daybook verify` in a child process, one at a time for all ledgers. So the worker goes on to follow the log while
another core folds it again, a cancelled verification is ended by ending the process, and the verdict is that of a shell.

A line of the command about a difference says what was expected and what was found. Only the place is kept, because callers who
see verifications need not have a right to see what the ledger holds.
"""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import msgspec
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.proof import verifications
from shared.proof.verifications import Check, LedgerVerdict, Verification
from shared.settings import Settings

log = structlog.get_logger()

COMMAND: Final = ("nice", "-n", "10", sys.executable, "-m", "cli.app", "verify")
"""With a low priority, because the same machine may record money."""
SECONDS_MAX: Final = 6 * 3600.0
NOTE_SECONDS: Final = 0.5
FORGET_SECONDS: Final = 3600.0
VERDICTS: Final[dict[str, LedgerVerdict]] = {"ok": "ok", "PARKED": "dead-letters", "DIFFERENT": "different"}
ENDED_EXIT_CODES: Final = frozenset({0, 3, 4})
"""Those of a verification that was done: nothing differs, something differs, or a read model has dead letters."""
CHECKS_MAX: Final = 200
LINE_BYTES_MAX: Final = 2**20
TOO_LONG: Final = f"it was ended after {SECONDS_MAX / 3600:.0f} hours: run `daybook verify` in a shell"


class ProgressLine(msgspec.Struct, frozen=True):
    """A line of progress, as the command writes it to stderr if that is no terminal."""

    task: str
    done: int
    total: int


class RunningVerification:
    """What the command has said so far."""

    def __init__(self) -> None:
        self.step: str | None = None
        self.done = self.total = 0
        self.checks: list[Check] = []

    async def read_checks(self, lines: asyncio.StreamReader) -> None:
        async for line in lines:
            if (check := check_of(line.decode())) and len(self.checks) < CHECKS_MAX:
                self.checks.append(check)

    async def read_progress(self, lines: asyncio.StreamReader) -> None:
        async for line in lines:
            try:
                found = msgspec.json.decode(line, type=ProgressLine)
            except msgspec.DecodeError:
                log.warning("daybook verify says", line=line.decode(errors="replace").strip())
            else:
                self.step, self.done, self.total = found.task.removeprefix("verify "), found.done, found.total


class VerificationWorker:
    """Does the verifications of all ledgers from `run` until it is cancelled. It needs one connection of `engine`."""

    def __init__(self, engine: AsyncEngine, settings: Settings, command: Sequence[str] = COMMAND) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._look_seconds = settings.projector_look_ms / 1000
        self._command = command

    async def run(self) -> None:
        """Looks at regular intervals what is asked for. Raises the errors of PostgreSQL; then run it again."""
        async with self._engine.connect() as connection:
            try:
                while not await verifications.lead(connection):  # noqa: ASYNC110 # another process has the lock
                    await asyncio.sleep(self._look_seconds)
                await self._do_all(connection)
            finally:
                # The pool would keep the connection, and with it the lock.
                await connection.invalidate()

    async def _do_all(self, connection: AsyncConnection) -> None:
        now = asyncio.get_running_loop().time
        forget_at = now()
        while True:
            if now() >= forget_at:
                await verifications.forget_old(connection)
                forget_at = now() + FORGET_SECONDS
            if found := await verifications.next_open(connection):
                await self._verify(connection, found)
            else:
                await asyncio.sleep(self._look_seconds)

    async def _verify(self, connection: AsyncConnection, verification: Verification) -> None:
        """Does one verification and stores its end. If PostgreSQL fails meanwhile, the next look begins it again."""
        running = RunningVerification()
        arguments = (*self._command, "--ledger", verification.ledger_id)
        child = await asyncio.create_subprocess_exec(
            *arguments, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, limit=LINE_BYTES_MAX, start_new_session=True
        )
        try:
            failure = await self._watch(connection, verification, child, running)
        finally:
            kill_group(child)
            await child.communicate()  # to the end of both pipes, which closes them
        await verifications.end(connection, verification, failure, running.checks)
        log.info("verification ended", ledger_id=verification.ledger_id, verification=verification.id, failure=failure)

    async def _watch(
        self, connection: AsyncConnection, verification: Verification, child: Process, running: RunningVerification
    ) -> str | None:
        """Stores the progress until the command ends, or the verification is cancelled. Returns why it failed, or None."""
        now = asyncio.get_running_loop().time
        ends_at = now() + SECONDS_MAX
        async with asyncio.TaskGroup() as group:
            if child.stdout and child.stderr:
                group.create_task(running.read_checks(child.stdout))
                group.create_task(running.read_progress(child.stderr))
            ended = group.create_task(child.wait())
            while not ended.done():
                told = running.step, running.done, running.total, running.checks
                if not await verifications.note(connection, verification, *told) or now() >= ends_at:
                    kill_group(child)
                await asyncio.wait([ended], timeout=NOTE_SECONDS)
        if now() >= ends_at:
            return TOO_LONG
        code = ended.result()
        return None if code in ENDED_EXIT_CODES else f"the command ended with {code}: the worker's log has what it said"


def kill_group(child: Process) -> None:
    """Kills the command and what it has started, which would keep its pipes open."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def check_of(line: str) -> Check | None:
    """Returns the check that a line of the command is about, or None if it is about none."""
    name, _, rest = line.strip().partition(" ")
    verdict, _, text = rest.strip().partition(" ")
    if verdict not in VERDICTS:
        return None
    place, expected, _ = text.strip().partition(": expected ")
    return Check(name, VERDICTS[verdict], f"{place}: `daybook verify` in a shell says what differs" if expected else place)
