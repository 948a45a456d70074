"""A file of a ledger is there when it is whole, and until then nothing of it stays behind."""

import gc
import itertools
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from cli import ledger_files
from cli.ledger_files import written

BEFORE, AFTER = b"before\n", b"after\n"
LINES_MIN = 20
"""So many are to be interrupted at least, or nothing is shown."""


@contextmanager
def interrupted(line: int) -> Iterator[list[int]]:
    """Ctrl-C comes when the so-many-th line of the module is about to run. In the list stand the lines that ran before it."""
    ran: list[int] = []

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code.co_filename != ledger_files.__file__:
            return None
        if event == "line":
            if len(ran) == line:
                raise KeyboardInterrupt
            ran.append(frame.f_lineno)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield ran
    finally:
        sys.settrace(before)


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.parametrize("name", ["ledger.jsonl", "ledger.jsonl.gz"])
def test_ctrl_c_at_any_line_leaves_one_whole_file(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    for line in itertools.count():
        file.write_bytes(BEFORE)
        with suppress(KeyboardInterrupt), interrupted(line) as ran, written(file) as write:
            write(AFTER)
        assert list(tmp_path.iterdir()) == [file], f"after the lines {ran}"
        if len(ran) < line:
            break
    gc.collect()  # who is interrupted as a file was opened leaves closing it to Python
    assert line > LINES_MIN
    assert file.read_bytes() != BEFORE
