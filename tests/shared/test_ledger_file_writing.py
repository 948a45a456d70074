"""A ledger file appears when it is complete. An interruption before that leaves nothing behind."""

import gc
import itertools
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from shared.ledger_file import files
from shared.ledger_file.files import write_file

BEFORE, AFTER = b"before\n", b"after\n"
LINES_MIN = 20
"""How many lines must have been interrupted at least, so that the test proves something."""


@contextmanager
def interrupted(line: int) -> Iterator[list[int]]:
    """Sends Ctrl-C before the line with this ordinal of the module runs. Yields the list of the lines that ran before it."""
    ran: list[int] = []

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code.co_filename != files.__file__:
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
        with suppress(KeyboardInterrupt), interrupted(line) as ran, write_file(file) as write:
            write(AFTER)
        assert list(tmp_path.iterdir()) == [file], f"after the lines {ran}"
        if len(ran) < line:
            break
    gc.collect()  # after an interruption while a file was opened, Python closes it
    assert line > LINES_MIN
    assert file.read_bytes() != BEFORE
