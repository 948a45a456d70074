"""A command that is handed to the process that writes takes effect once and is answered truly, whatever happens on the way."""

import asyncio
import pickle
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from command_api.answers import account_body
from command_api.domain.account import FreezeAccount, OpenAccount, UnfreezeAccount
from command_api.domain.command import Command
from command_api.domain.past_decisions import command_of
from command_api.writer import frames
from command_api.writer.command_request import AcceptedCommand, CommandRequest, Outcome, Reply
from command_api.writer.frames import FrameConnection
from command_api.writer.handover import Handover
from command_api.writer.ledger_writer import CommandHandler
from command_api.writer.measurements import CONFLICT
from shared.errors import AccountIsClosed, InsufficientFunds, Rejection, VersionMismatch
from shared.settings import Settings
from tests.harness.clients import command_api
from tests.harness.log import Book

Accept = Callable[[str, Sequence[AcceptedCommand]], bool]
WAIT_SECONDS = 30


class AccountReply(msgspec.Struct, frozen=True):
    """A reply with the members of an account, or with the code of a rejection."""

    command: Command

    def accepted(self, outcome: Outcome) -> tuple[int, bytes]:
        return 200, orjson.dumps(account_body(self.command, outcome))

    def rejected(self, rejection: Rejection) -> tuple[int, bytes]:
        return 409, rejection.code.encode()


class LosesItsAnswer:
    """A command that was handed over. Its verdict ends the connection instead of reaching the other process."""

    def __init__(self, command: AcceptedCommand) -> None:
        self.command = command
        self.request, self.expires_at = command.request, command.expires_at

    @property
    def caller(self) -> str:
        return self.command.caller

    def is_answered(self) -> bool:
        return self.command.is_answered()

    def answer(self, _: Reply | Exception) -> None:
        end_connection(self.command)


def end_connection(command: AcceptedCommand) -> None:
    command._connection.abort()  # type: ignore[attr-defined]  # noqa: SLF001 # what a killed process does to it


async def until(is_true: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not is_true():
            await asyncio.sleep(0.02)


class Process:
    """The writing part of a command process. `accept` can replace what it does with commands that are handed to it."""

    def __init__(self, engine: AsyncEngine, settings: Settings, folder: Path) -> None:
        self.handover = Handover(engine, folder)
        self.handler = CommandHandler(engine, settings, lambda _: None, self.handover)
        self.accept: Accept = self.handler.accept

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Process"]:
        await self.handover.start(lambda ledger_id, commands: self.accept(ledger_id, commands))  # noqa: PLW0108 # replaced later
        try:
            yield self
        finally:
            await self.handover.resign()
            await self.handler.close()
            await self.handover.close()

    async def send(self, command: Command, key: str | None = None, versions: Sequence[int] | None = None) -> Reply:
        [reply] = await self.handler.handle("main", [request_of(command, key, versions)])
        return reply

    async def write(self, *commands: Command) -> int:
        """Records commands here, whoever is elected, each in a batch. Returns how often this process has lost a race so far."""
        writer = self.handler.writer("main")
        assert writer
        for command in commands:
            await writer.submit([request_of(command)], asyncio.get_running_loop().time() + WAIT_SECONDS)
        return writer.measurements.retries[CONFLICT]


def request_of(command: Command, key: str | None = None, versions: Sequence[int] | None = None) -> CommandRequest:
    return CommandRequest(
        command=command,
        reply_format=AccountReply(command),
        metadata={"command": type(command).__name__},
        principal="p",
        idempotency_key=key,
        request_hash=b"h" * 32 if key else b"",
        expected_versions=versions,
    )


@asynccontextmanager
async def two_processes(engine: AsyncEngine, settings: Settings, folder: Path) -> AsyncIterator[tuple[Process, Process, str]]:
    """Yields the process that writes, another one that hands its commands over, and the id of an account."""
    async with command_api(settings) as api:
        account_id = await api.account()
    writer, other = Process(engine, settings, folder), Process(engine, settings, folder)
    async with writer.running(), other.running():
        await writer.send(FreezeAccount(account_id=account_id), key="first")
        await until(lambda: writer.handover.writes("main"))
        await other.send(FreezeAccount(account_id=account_id), key="second")
        await until(lambda: other.handover.link("main"))
        yield writer, other, account_id


async def events(engine: AsyncEngine, type_: str) -> int:
    async with engine.connect() as connection:
        return int(await connection.scalar(text("SELECT count(*) FROM events WHERE type = :type"), {"type": type_}) or 0)


def opening() -> OpenAccount:
    return OpenAccount(id=str(uuid.uuid4()), owner_id=str(uuid.uuid4()), currency="EUR")


@pytest.mark.services
async def test_a_command_is_recorded_by_the_process_that_writes(engine: AsyncEngine, settings: Settings, tmp_path: Path) -> None:
    taken: list[AcceptedCommand] = []
    async with two_processes(engine, settings, tmp_path) as (writer, other, account_id):

        def noting(ledger_id: str, commands: Sequence[AcceptedCommand]) -> bool:
            taken.extend(commands)
            return writer.handler.accept(ledger_id, commands)

        writer.accept = noting
        reply = await other.send(FreezeAccount(account_id=account_id), key="k")
    assert reply.status == 200
    assert [command.request.idempotency_key for command in taken] == ["k"]


@pytest.mark.services
@pytest.mark.parametrize("key", ["k", None])
async def test_an_answer_that_is_lost_with_its_connection_is_looked_up(
    engine: AsyncEngine, settings: Settings, tmp_path: Path, key: str | None
) -> None:
    """The command is recorded, with its version as expected. Deciding it once more would say that the version is another one."""
    async with command_api(settings) as api:
        account_id = await api.account()
    async with two_processes(engine, settings, tmp_path) as (writer, other, _):
        writer.accept = lambda ledger_id, commands: writer.handler.accept(ledger_id, [LosesItsAnswer(each) for each in commands])
        frozen = await events(engine, "AccountFrozen")
        reply = await other.send(FreezeAccount(account_id=account_id), key, versions=[1])
        assert (reply.status, b'"version":2' in reply.body) == (200, True)
        assert await events(engine, "AccountFrozen") == frozen + 1


@pytest.mark.services
@pytest.mark.parametrize("key", ["k", None])
async def test_a_command_that_comes_back_is_looked_up_before_it_is_decided(
    engine: AsyncEngine, settings: Settings, tmp_path: Path, key: str | None
) -> None:
    """Also by a process that trusts what it knows of the log. Otherwise it would decide the command, and lose a race."""
    async with two_processes(engine, settings, tmp_path) as (writer, other, account_id):
        freeze, unfreeze = FreezeAccount(account_id=account_id), UnfreezeAccount(account_id=account_id)
        await other.write(unfreeze, freeze)
        await writer.write(unfreeze)
        lost = await other.write(unfreeze)
        assert lost > 0, "this process does not trust what it knows"
        assert await other.write(freeze, unfreeze) == lost
        writer.accept = lambda ledger_id, commands: writer.handler.accept(ledger_id, [LosesItsAnswer(each) for each in commands])
        assert (await other.send(freeze, key)).status == 200
        assert await other.write() == lost


@pytest.mark.services
@pytest.mark.parametrize("key", ["k", None])
async def test_a_command_that_was_lost_with_its_connection_is_recorded_here(
    engine: AsyncEngine, settings: Settings, tmp_path: Path, key: str | None
) -> None:
    async with command_api(settings) as api:
        account_id = await api.account()

    def lose(_: str, commands: Sequence[AcceptedCommand]) -> bool:
        end_connection(commands[0])
        return True

    async with two_processes(engine, settings, tmp_path) as (writer, other, _):
        writer.accept = lose
        frozen = await events(engine, "AccountFrozen")
        reply = await other.send(FreezeAccount(account_id=account_id), key, versions=[1])
        assert reply.status == 200
        assert await events(engine, "AccountFrozen") == frozen + 1


@pytest.mark.services
@pytest.mark.parametrize("key", ["k", None])
async def test_a_writer_that_comes_to_itself_late_doubles_nothing(
    engine: AsyncEngine, settings: Settings, tmp_path: Path, key: str | None
) -> None:
    """It was frozen with commands in its queue. The other process has recorded them in the meantime."""
    late: list[AcceptedCommand] = []

    class Late(LosesItsAnswer):
        def is_answered(self) -> bool:
            return False

        def answer(self, verdict: Reply | Exception) -> None:
            verdicts.append(verdict)

    def keep(_: str, commands: Sequence[AcceptedCommand]) -> bool:
        late.extend(Late(command) for command in commands)
        end_connection(commands[0])
        return True

    verdicts: list[Reply | Exception] = []
    async with command_api(settings) as api:
        account_id = await api.account()
    async with two_processes(engine, settings, tmp_path) as (writer, other, _):
        writer.accept = keep
        frozen = await events(engine, "AccountFrozen")
        assert (await other.send(FreezeAccount(account_id=account_id), key, versions=[1])).status == 200
        writer.handler.accept("main", late)
        await until(lambda: verdicts)
        assert await events(engine, "AccountFrozen") == frozen + 1


@pytest.mark.services
async def test_a_process_that_ends_hands_back_what_it_is_sent(engine: AsyncEngine, settings: Settings, tmp_path: Path) -> None:
    async with two_processes(engine, settings, tmp_path) as (writer, other, account_id):
        await writer.handover.resign()
        answers = await asyncio.gather(*(other.send(FreezeAccount(account_id=account_id), f"{n}") for n in range(20)))
        assert {answer.status for answer in answers} == {200}
        await until(lambda: other.handover.writes("main"))


@pytest.mark.services
async def test_commands_that_nobody_can_be_handed_are_written_here(
    engine: AsyncEngine, settings: Settings, tmp_path: Path
) -> None:
    """So it is for a process on another machine: it knows who writes, and cannot reach it."""
    (tmp_path / "here").mkdir(mode=0o700)
    async with command_api(settings) as api:
        account_id = await api.account()
    writer, other = Process(engine, settings, tmp_path / "here"), Process(engine, settings, tmp_path / "there")
    async with writer.running(), other.running():
        await writer.send(FreezeAccount(account_id=account_id), key="first")
        await until(lambda: writer.handover.writes("main"))
        for path in (tmp_path / "here").iterdir():
            path.unlink()
        both = [process.send(FreezeAccount(account_id=account_id), f"{n}") for n in range(20) for process in (writer, other)]
        assert {reply.status for reply in await asyncio.gather(*both)} == {200}
        assert other.handover.link("main") is None


@pytest.mark.services
async def test_a_folder_that_others_can_enter_is_not_used(engine: AsyncEngine, settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir(mode=0o755)
    async with Process(engine, settings, folder).running() as process:
        assert [*folder.iterdir()] == []
        assert (await process.send(opening(), "k")).status in {200, 409}


@pytest.mark.services
async def test_the_socket_is_the_users_alone(engine: AsyncEngine, settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "private"
    async with Process(engine, settings, folder).running():
        [path] = folder.iterdir()
        assert (folder.stat().st_mode & 0o777, path.stat().st_mode & 0o777) == (0o700, 0o600)
    assert [*folder.iterdir()] == []


# ── frames ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def connected(path: Path, received: Callable[[Any], None]) -> AsyncIterator[FrameConnection]:
    ended = asyncio.Event()
    ends: list[FrameConnection] = []

    def accepted() -> FrameConnection:
        ends.append(FrameConnection(lambda _, value: received(value), lambda _: ended.set()))
        return ends[-1]

    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(accepted, str(path))
    _, sender = await loop.create_unix_connection(lambda: FrameConnection(lambda _, __: None, lambda _: ended.set()), str(path))
    try:
        await until(lambda: (ends and ends[0].is_open and sender.is_open) or ended.is_set())
        yield sender
    finally:
        sender.close()
        server.close()


async def test_values_arrive_in_order_however_large_they_are(tmp_path: Path) -> None:
    received: list[bytes] = []
    sent = [b"x" * size for size in (0, 1, 70_000, 3_000_000, 5)]
    async with connected(tmp_path / "s", received.append) as sender:
        for value in sent[:3]:
            sender.send(value)
        await asyncio.sleep(0)
        for value in sent[3:]:
            sender.send(value)
        await until(lambda: len(received) == len(sent))
    assert received == sent


async def test_nothing_is_read_from_a_process_with_other_code(tmp_path: Path) -> None:
    received: list[Any] = []
    reader_closed = asyncio.Event()
    loop = asyncio.get_running_loop()
    made: list[FrameConnection] = []

    def accept() -> FrameConnection:
        made.append(FrameConnection(lambda _, value: received.append(value), lambda _: reader_closed.set()))
        return made[-1]

    server = await loop.create_unix_server(accept, str(tmp_path / "t"))
    _, writer = await asyncio.open_unix_connection(str(tmp_path / "t"))
    content = pickle.dumps(["a command"])
    writer.write(bytes(len(frames.code_hash())) + len(content).to_bytes(4, "big") + content)
    await asyncio.wait_for(reader_closed.wait(), WAIT_SECONDS)
    writer.close()
    server.close()
    assert (received, made[0].is_open) == ([], False)


@pytest.mark.parametrize("seed", range(3))
def test_every_command_arrives_as_it_was_sent(seed: int) -> None:
    commands = [command_of(event) for event in Book(seed).history(600)]
    requests = [CommandRequest(command=each, reply_format=AccountReply(each), metadata={}) for each in commands]
    assert len({type(command) for command in commands}) > 15
    assert pickle.loads(pickle.dumps(requests)) == requests
    assert [each.command.model_fields_set for each in pickle.loads(pickle.dumps(requests))] == [
        each.model_fields_set for each in commands
    ]


@pytest.mark.parametrize(
    "error", [VersionMismatch(current_version=7), InsufficientFunds(available=1, required=2), AccountIsClosed("It is closed.")]
)
def test_an_error_arrives_with_its_detail_and_its_members(error: Exception) -> None:
    arrived = pickle.loads(pickle.dumps(error))
    assert (type(arrived), arrived.detail, arrived.extra) == (type(error), error.detail, error.extra)  # type: ignore[attr-defined]
