"""Reads and writes the file outside PostgreSQL that seals are published in. It is append-only, with one line of JSON per seal."""

import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from shared.proof.seals import Seal, read_line, write_line

_MARK: Final = b'"event":"seal"'
_BEGINNING: Final = b"{" + _MARK + b","


class SealFile:
    """A file of published seals. Several workers may append to the same file, because each append locks the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen = 0
        self._positions: dict[str, int] = {}

    def last_position(self, ledger_id: str) -> int:
        """Returns the position of the last published seal, or 0. Reads only what was appended to the file since the last call."""
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
        """Appends the seals that are not in the file yet. Returns when they are on disk."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                # A crash cut the last line short. What is there of it stays. Readers ignore it, unless only its end was missing.
                os.write(descriptor, b"\n")
            lines = b"".join(write_line(seal) for seal in seals if seal.position > self.last_position(seal.ledger_id))
            while lines:
                lines = lines[os.write(descriptor, lines) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_file(path: Path | None, ledger_id: str | None, *, only_seals: bool) -> Iterator[tuple[int, Seal | None]]:
    """Yields the seals of a ledger, or of all, each with its line number, and None for a line that is damaged.

    With `only_seals`, all lines must be seals as `write_line` writes them, except those that a crash cut short. Otherwise the
    file may have other lines too, such as log lines, but none that looks like a seal and is none. Yields nothing if there is no
    file.
    """
    if path is None or not path.exists():
        return
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            seal = read_line(line)
            if seal is None and _is_damaged(line, only_seals=only_seals):
                yield number, None
            elif seal and only_seals and line.rstrip(b"\n") != write_line(seal).rstrip(b"\n"):
                yield number, None  # it means the same, but nobody wrote it so
            elif seal and ledger_id in {None, seal.ledger_id}:
                yield number, seal


def _is_damaged(line: bytes, *, only_seals: bool) -> bool:
    """Returns True if a line that is not a seal should be one."""
    if only_seals:
        return not (_BEGINNING.startswith(line.rstrip(b"\n")) or (line.startswith(_BEGINNING) and not line.endswith(b"}\n")))
    is_cut = not line.endswith(b"\n")
    return is_cut or (_MARK in line.replace(b" ", b"") and line.endswith(b"}\n"))
