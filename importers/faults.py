"""Collects what is wrong in the files of an import, so that all of it is told at once and nothing is sent before it is right."""

from typing import Final, NamedTuple

from shared.errors import OperatorError

FAULTS_MAX: Final = 50
"""The number of faults that are told one by one. The others are only counted."""
QUOTED_CHARACTERS_MAX: Final = 60


class Fault(NamedTuple):
    """One thing that is wrong: the file, the row, the column and the reason. A fault of a whole file has no row."""

    file: str
    row: int | None
    column: str | None
    reason: str

    def __str__(self) -> str:
        place = "".join(
            (f", row {self.row}" if self.row else "", f", column {quoted(self.column)}" if self.column is not None else "")
        )
        return f"{self.file}{place}: {self.reason}"


class ImportFileInvalid(OperatorError):
    """A file cannot be imported."""

    code = "import-file-invalid"


class Faults:
    """The faults of all files of an import."""

    def __init__(self) -> None:
        self.first: list[Fault] = []
        self.count = 0

    def add(self, file: str, row: int | None, column: str | None, reason: str) -> None:
        self.count += 1
        if len(self.first) < FAULTS_MAX:
            self.first.append(Fault(file, row, column, reason))

    def require_none(self) -> None:
        """Does nothing if there is no fault.

        Raises:
            ImportFileInvalid: its text has a line for each of the first `FAULTS_MAX` faults, and the number of all.
        """
        if not self.count:
            return
        lines = [f"{self.count} fault{'s' * (self.count > 1)} in the files, so nothing was imported"]
        lines += [" ".join(str(fault).splitlines()) for fault in self.first]
        if self.count > len(self.first):
            lines.append(f"… and {self.count - len(self.first)} more")
        raise ImportFileInvalid("\n".join(lines))


def quoted(text: str) -> str:
    """Returns a text of a file for a message: in quotes, and cut if it is long."""
    return f"«{text[:QUOTED_CHARACTERS_MAX]}{'…' * (len(text) > QUOTED_CHARACTERS_MAX)}»"
