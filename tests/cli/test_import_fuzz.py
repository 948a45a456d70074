"""Random ledger files with valid hashes: each is refused and leaves nothing, or is a ledger that `daybook verify` finds right.

The file of a real ledger is changed in one or more places, and its hashes are computed again. The changes know what a ledger is
made of: fields, metadata, times, ids, replies, the order of events, lines, and keys of people.
"""

import base64
import copy
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import asyncpg
import msgspec
import pytest
import pytest_asyncio
from sqlalchemy.engine import make_url

from command_api.past_history import DOMAIN
from projector.verify.ledger import CheckVerdict, LogChecks, outcome_of
from projector.verify.trusted_seals import trusted_seals
from shared.errors import OperatorError
from shared.ledger_file.format import LedgerFileWriter, read_ledger
from shared.log.heads import Head
from shared.log.read import StoredEvent
from shared.log.stored_replies import StoredReply
from shared.settings import Settings
from shared.stores.all_stores import open_stores
from tests.cli.test_export_and_import import TABLES, export_to, import_from
from tests.harness.forgeries import chained
from tests.harness.log import NEW_YEAR, PERSON_KEYS
from tests.harness.running import Servers
from tests.projector.test_verify_replies import fill

pytestmark = pytest.mark.services

VALUES: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**53, 2**63, 2**64, -(2**63), 10**40, 1.5, 1e300, -0.0),
    *("", " ", "a", "a\n", "\x7f", "\u202e", "\u2028", "\U0001f4b6", "x" * 5_000, "(erased)", "EUR", "JPY", "XXX", "2026-01-01"),
    *([], [1], {}, {"a": {"b": {"c": 1}}}, {"sealed": "AAAA"}, {"sealed": 5}, {"a b": "c"}),
)


class Original:
    """The rows of a real ledger, and the lines of its keys."""

    def __init__(self, file: Path, keys: Path) -> None:
        rows = list(read_ledger(file.read_bytes().splitlines(keepends=True))[1])
        self.events = [row for row in rows if isinstance(row, StoredEvent)]
        self.replies = [row for row in rows if isinstance(row, StoredReply)]
        self.keys = keys.read_bytes()


class Mutant:
    """A changed copy of a ledger, drawn from a seed."""

    def __init__(self, original: Original, seed: int) -> None:
        self.chance = random.Random(seed)
        self.events, self.replies = list(original.events), list(original.replies)
        self.keys = original.keys
        for _ in range(self.chance.choice((1, 1, 1, 2, 4))):
            if self.events:  # an earlier change may have cut all of them off
                self.chance.choice((self._field, self._field, self._field, self._column, self._order, self._reply, self._key))()
        self.lines = self._written()
        if self.chance.random() < 0.2:
            self._bytes()

    def _field(self) -> None:
        place, column = self.chance.randrange(len(self.events)), self.chance.choice(("data", "data", "data", "metadata"))
        value = msgspec.json.decode(getattr(self.events[place], column))
        self._set(place, column, msgspec.json.encode(self._changed(value)).decode())

    def _changed(self, value: Any) -> Any:
        if not isinstance(value, dict) or not value or self.chance.random() < 0.05:
            return copy.deepcopy(self.chance.choice(VALUES))
        name = self.chance.choice(sorted(value))
        how = self.chance.random()
        if how < 0.1:
            return {other: part for other, part in value.items() if other != name}
        if how < 0.2:
            return value | {self.chance.choice(("extra", "", "a\nb", "reference")): self.chance.choice(VALUES)}
        if how < 0.5:  # the value of the same field in another event, which has the right form
            others = [msgspec.json.decode(event.data) for event in self.events]
            found = [other[name] for other in others if isinstance(other, dict) and name in other]
            return value | {name: self.chance.choice(found or [None])}
        if how < 0.6 and isinstance(value[name], int):
            return value | {name: value[name] + self.chance.choice((-1, 1, 10))}
        return value | {name: self._changed(value[name])}

    def _column(self) -> None:
        place = self.chance.randrange(len(self.events))
        event, other = self.events[place], self.chance.choice(self.events)
        column = self.chance.choice(("event_id", "type", "schema_version", "recorded_at", "ledger_id"))
        odd: dict[str, tuple[Any, ...]] = {
            "event_id": (other.event_id, event.event_id.upper(), "", "x\n"),
            "type": (other.type, "", "Moon", "a\x00b", 'a"b'),
            "schema_version": (0, 2, -1, 2**15, 2**40),
            "recorded_at": (other.recorded_at, NEW_YEAR.replace(year=1), NEW_YEAR.replace(year=9999), NEW_YEAR),
            "ledger_id": ("other",),
        }
        self._set(place, column, self.chance.choice(odd[column]))

    def _order(self) -> None:
        one, other = (self.chance.randrange(len(self.events)) for _ in range(2))
        how = self.chance.randrange(3)
        if how == 0:
            self.events[one], self.events[other] = self.events[other], self.events[one]
        elif how == 1:
            self.events.insert(other, self.events[one])
        elif len(self.events) > 1:
            del self.events[one : None if self.chance.random() < 0.5 else one + 1]

    def _reply(self) -> None:
        place = self.chance.randrange(len(self.replies) or 1)
        if not self.replies or self.chance.random() < 0.2:
            del self.replies[place : place + 1]
            return
        reply, other = self.replies[place], self.chance.choice(self.replies)
        column = self.chance.choice(reply.__struct_fields__)
        odd: dict[str, tuple[Any, ...]] = {
            "principal": ("", "a\x00", "x" * 3_000),
            "key": (other.key, "", "a\x00", "\x1f"),
            "request_hash": (b"", b"x" * 33),
            "status": (200, 201, 409, 500, -1, 2**40),
            "body": (b"", b"{}", b"[]", b"sealed:{}", reply.body[:-1], reply.body.replace(b"1", b"2"), b'{"results":[]}'),
            "position": (None, 0, -1, 2**40, 2**64),
        }
        value = self.chance.choice((*odd[column], getattr(other, column)))
        self.replies[place] = msgspec.structs.replace(reply, **{column: value})

    def _key(self) -> None:
        lines = self.keys.splitlines(keepends=True)
        place = self.chance.randrange(len(lines) or 1)
        how = self.chance.randrange(4)
        if how == 0:
            del lines[place : place + 1]
        elif how == 1:
            lines += lines[place : place + 1]
        elif how == 2 and lines:
            with suppress(msgspec.DecodeError):  # an earlier change may have made another text of the line
                lines[place] = msgspec.json.encode(self._changed(msgspec.json.decode(lines[place]))) + b"\n"
        else:
            lines[place : place + 1] = [base64.b64encode(self.chance.randbytes(30)) + b"\n"]
        self.keys = b"".join(lines)

    def _set(self, place: int, column: str, value: Any) -> None:
        self.events[place] = msgspec.structs.replace(self.events[place], **{column: value})

    def _written(self) -> bytes:
        lines, rows = LedgerFileWriter(), self.events
        try:
            rows = chained(self.events)
            parts = [lines.begin("main", Head(len(rows), rows[-1].hash if rows else b"", NEW_YEAR))]
            parts += [*map(lines.event, rows), *map(lines.reply, self.replies), lines.end()]
        except (OperatorError, ValueError, TypeError, OverflowError):
            return b""  # no file can hold this
        return b"".join(parts)

    def _bytes(self) -> None:
        for _ in range(self.chance.randrange(1, 4)):
            place = self.chance.randrange(len(self.lines) or 1)
            odd = (b"", b"\n", b"\x00", b'"', b"{", b"[" * 2_000, b"9" * 50, b"\\ud800", self.lines[place : place + 300])
            self.lines = self.lines[:place] + self.chance.choice(odd) + self.lines[place + self.chance.choice((0, 1, 40)) :]


@pytest_asyncio.fixture
async def superuser(elsewhere: Settings, servers: Servers) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(servers.postgres.superuser_url, database=make_url(elsewhere.database_url).database)
    await connection.execute("SET session_replication_role = replica")
    yield connection
    await connection.close()


async def faults(settings: Settings, head: int) -> list[str]:
    async with open_stores(settings, "daybook_projector") as stores:
        checks = LogChecks(stores, "main", head, PERSON_KEYS, trusted_seals(settings, None), DOMAIN)
        outcomes = [await outcome_of(check.name, check.run, lambda _: None) for check in checks.in_order()]
    return [outcome.text for outcome in outcomes if outcome.verdict != CheckVerdict.OK]


def facts(lines: bytes) -> tuple[list[bytes], list[tuple[Any, ...]]]:
    """Returns the hashes of the events and the stored replies, without the spaces and the order that the export chooses."""
    rows = list(read_ledger(lines.splitlines(keepends=True))[1])
    replies = [msgspec.structs.astuple(row) for row in rows if isinstance(row, StoredReply)]
    return [row.hash for row in rows if isinstance(row, StoredEvent)], sorted(replies, key=repr)


@pytest.mark.proof(24, 5_000)
async def test_a_random_file_is_refused_or_is_a_right_ledger(
    settings: Settings, elsewhere: Settings, superuser: asyncpg.Connection, tmp_path: Path, seeds: Iterator[int]
) -> None:
    await fill(settings)
    file, keys, again = tmp_path / "ledger.jsonl", tmp_path / "ledger.keys", tmp_path / "again.jsonl"
    await export_to(settings, file, keys)
    original, wrong, imported, tries = Original(file, keys), [], 0, 0
    for seed in seeds:
        tries += 1
        mutant = Mutant(original, seed)
        file.write_bytes(mutant.lines)
        keys.write_bytes(mutant.keys)
        try:
            await import_from(elsewhere, file, keys)
        except OperatorError:
            if await superuser.fetchval("SELECT EXISTS (SELECT FROM events) OR EXISTS (SELECT FROM streams)"):
                wrong.append((seed, "something is left"))
        except Exception as error:  # noqa: BLE001 # each is a finding
            wrong.append((seed, repr(error)[:300]))
        else:
            imported += 1
            await export_to(elsewhere, again)
            found = await faults(elsewhere, len(mutant.events))
            if found or facts(again.read_bytes()) != facts(mutant.lines):
                wrong.append((seed, str(found or "the export is another ledger")))
        await superuser.execute(f"TRUNCATE {', '.join(TABLES)}; INSERT INTO log_heads VALUES ('main', 0, '', to_timestamp(0))")
    assert not wrong, wrong
    assert imported < tries / 2
