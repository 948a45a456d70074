"""Log lines: they never raise, never show data of an error, and text from outside cannot forge one."""

import asyncio
import logging
import sys
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest
import structlog

from shared.errors import NotFound
from shared.logs import configure_logs, escaped, report_loop_errors, say


class FullDisk(StringIO):
    """A stream that accepts nothing until there is room."""

    room = False

    def write(self, text: str) -> int:
        if not self.room:
            raise OSError(28, "No space left on device")
        return super().write(text)


@pytest.fixture(autouse=True)
def configured() -> Iterator[None]:
    configure_logs("INFO")
    yield
    structlog.reset_defaults()
    logging.setLogRecordFactory(logging.LogRecord)
    logging.raiseExceptions = True


def test_logging_goes_on_by_itself_after_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is raised meanwhile, and the first line that fits says how many are lost."""
    disk, log = FullDisk(), structlog.get_logger()
    monkeypatch.setattr(sys, "stdout", disk)
    log.warning("one")
    log.error("two", exc_info=OSError())
    disk.room = True
    log.warning("three")
    assert "2 log lines are lost" in disk.getvalue()
    assert "three" in disk.getvalue()


@pytest.mark.parametrize("stream", [None, "closed"])
def test_closed_outputs_raise_nothing(monkeypatch: pytest.MonkeyPatch, stream: str | None) -> None:
    closed: Any = None
    if stream:
        closed = StringIO()
        closed.close()
    monkeypatch.setattr(sys, "stdout", closed)
    monkeypatch.setattr(sys, "stderr", closed)
    structlog.get_logger().error("nobody hears this")
    say("nor this")
    logging.getLogger("uvicorn.error").error("nor %s", "that")
    assert sys.stdout is closed


def test_a_value_that_cannot_be_shown_costs_its_line_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    class Unspeakable:
        def __repr__(self) -> str:
            raise ValueError("a secret")

    structlog.get_logger().warning("event", value=Unspeakable())
    assert "event (the rest of this line is lost: ValueError)" in capsys.readouterr().out


@pytest.mark.parametrize("character", ["\n", "\r", "\x1b", "\x00", "\x9b", "\u202e", "\u2066", "\u2028", "\u061c", "\ud800"])
def test_text_from_outside_forges_no_line_and_moves_no_cursor(capsys: pytest.CaptureFixture[str], character: str) -> None:
    """In a value, in the event, in a value within a list, in the text of an error, and in a line of the standard library."""
    log = structlog.get_logger()
    text = f"before{character}after"
    log.warning("value", text=text)
    log.warning("list", texts=[text])
    log.warning(text)
    log.error("error", exc_info=NotFound(text))
    standard = logging.getLogger("a library")
    standard.handlers, standard.propagate = [logging.StreamHandler(sys.stdout)], False
    standard.error("read %s", text)
    standard.error(text)
    standard.error("failed: %s", NotFound(text))
    shown = capsys.readouterr().out
    assert shown.count("after") == 7
    assert f"before{character}after" not in shown
    assert escaped(text) in shown


def test_lines_of_the_standard_library_show_no_data_of_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    standard = logging.getLogger("another library")
    standard.handlers, standard.propagate = [logging.StreamHandler(sys.stdout)], False
    name = "alice@example.com"
    try:
        int(name)
    except ValueError as error:
        standard.exception("failed: %s", error)
    shown = capsys.readouterr().out
    assert "ValueError" in shown
    assert "test_logs.py" in shown
    assert "alice" not in shown


async def test_an_error_that_nobody_awaits_is_logged_without_its_data(capsys: pytest.CaptureFixture[str]) -> None:
    report_loop_errors()
    name = "alice@example.com"
    try:
        asyncio.get_running_loop().call_soon(int, name)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    finally:
        asyncio.get_running_loop().set_exception_handler(None)
    shown = capsys.readouterr().out
    assert "ValueError" in shown
    assert "alice" not in shown
