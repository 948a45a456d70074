"""The file outside PostgreSQL that seals are published in: one line of JSON each, only ever appended to."""

import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from shared.seals import Seal, read_line, write_line


class SealFile:
    """Knows the last position that is published of each ledger, whoever wrote it: several workers may share the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen = 0
        self._positions: dict[str, int] = {}

    def last_position(self, ledger_id: str) -> int:
        """0 where nothing is published. Reads what has been appended since the last call."""
        if self.path.exists():
            with self.path.open("rb") as lines:
                lines.seek(self._seen)
                for line in lines:
                    if line.endswith(b"\n"):
                        self._seen += len(line)
                        self._note(read_line(line))
        return self._positions.get(ledger_id, 0)

    def _note(self, seal: Seal | None) -> None:
        if seal:
            self._positions[seal.ledger_id] = seal.position

    def append(self, seals: Sequence[Seal]) -> None:
        """Seals of one ledger, as far as they are not there. Returns when they are on disk."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            lines = b"".join(write_line(seal) for seal in seals if seal.position > self.last_position(seal.ledger_id))
            size = os.fstat(descriptor).st_size
            if lines and size and os.pread(descriptor, 1, size - 1) != b"\n":
                lines = b"\n" + lines  # a crash cut the last line short: it stays, and is no seal
            while lines:
                lines = lines[os.write(descriptor, lines) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_file(path: Path | None, ledger_id: str) -> Iterator[tuple[int, Seal]]:
    """A ledger's seals, each with the number of its line; none where there is no file."""
    if path is None or not path.exists():
        return
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            seal = read_line(line)
            if seal and seal.ledger_id == ledger_id:
                yield number, seal
