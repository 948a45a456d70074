"""Exports a ledger: writes its log and stored replies to a file and, if asked, its person keys to a second file."""

from collections.abc import AsyncIterator
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncEngine

from shared.errors import LogDamaged
from shared.ledger_file.files import WriteLines, write_file
from shared.ledger_file.format import LedgerFileWriter, cloud_event, person_key_lines
from shared.log.heads import Head, read_head
from shared.log.read import READ_EVENTS_MAX, StoredEvent, read_stored
from shared.log.stored_replies import StoredReply, read_stored_replies
from shared.privacy.person_keys import PersonKeys
from shared.progress import Progress, ShowProgress
from shared.settings import Settings
from shared.stores.postgres import open_postgres


async def export_ledger(
    settings: Settings, ledger_id: str, file: Path, keys_file: Path | None, show_progress: ShowProgress
) -> int:
    """Writes the ledger to `file`, and its person keys to `keys_file` if it is given. Returns the number of person keys.

    The keys are read last, so that the keys of people who were erased during the export are left out.

    Raises:
        NotFound: there is no such ledger.
        LogDamaged: the log was changed; a file of it could not be imported.
        FileUnusable: a file cannot be written.
    """
    async with open_postgres(settings, "daybook_command") as engine:
        head = await _head(engine, ledger_id)
        with show_progress("export", head.position, "lines") as progress, write_file(file) as write:
            await _write_ledger(engine, ledger_id, head, write, progress)
        async with engine.connect() as connection:
            keys = await PersonKeys(settings).read_wrapped(connection, ledger_id)
    if keys_file:
        with write_file(keys_file) as write:
            write(b"".join(person_key_lines(ledger_id, keys)))
    return len(keys)


async def export_cloud_events(settings: Settings, ledger_id: str, file: Path, show_progress: ShowProgress) -> None:
    """Writes every event as a CloudEvent, for other systems. Daybook cannot import the file.

    Raises:
        NotFound: there is no such ledger.
        LogDamaged: an event is missing in the log.
        FileUnusable: the file cannot be written.
    """
    async with open_postgres(settings, "daybook_command") as engine:
        head = await _head(engine, ledger_id)
        with show_progress("export", head.position, "lines") as progress, write_file(file) as write:
            async for events in _read_events(engine, ledger_id, head.position):
                write(b"".join(map(cloud_event, events)))
                progress.advance(len(events))


async def _head(engine: AsyncEngine, ledger_id: str) -> Head:
    async with engine.connect() as connection:
        return await read_head(connection, ledger_id)


async def _write_ledger(engine: AsyncEngine, ledger_id: str, head: Head, write: WriteLines, progress: Progress) -> None:
    lines = LedgerFileWriter()
    write(lines.begin(ledger_id, head))
    async for events in _read_events(engine, ledger_id, head.position):
        write(b"".join(map(lines.event, events)))
        progress.advance(len(events))
    total = head.position
    async for replies in _read_replies(engine, ledger_id, head.position):
        write(b"".join(map(lines.reply, replies)))
        total += len(replies)
        progress.extend(total)
        progress.advance(len(replies))
    write(lines.end())


async def _read_events(engine: AsyncEngine, ledger_id: str, head: int) -> AsyncIterator[list[StoredEvent]]:
    position = 0
    while position < head:
        async with engine.connect() as connection:
            events = await read_stored(connection, ledger_id, position, min(READ_EVENTS_MAX, head - position))
        position += len(events)
        if not events or events[-1].position != position:
            raise LogDamaged(f"ledger {ledger_id!r} has a gap before position {position}: run `daybook verify`")
        yield events


async def _read_replies(engine: AsyncEngine, ledger_id: str, head: int) -> AsyncIterator[list[StoredReply]]:
    """Yields the stored replies in lists. Replies about events after position `head` are left out."""
    last = ("", "")
    while True:
        async with engine.connect() as connection:
            replies = await read_stored_replies(connection, ledger_id, last)
        if not replies:
            return
        yield [reply for reply in replies if (reply.position or 0) <= head]
        last = replies[-1].principal, replies[-1].key
