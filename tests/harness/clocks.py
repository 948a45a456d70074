"""Clocks of processes that jump, made by Debian's package `faketime`. The clock of the machine stays as it is."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

LIBRARIES: Final = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
SEEN_SECONDS: Final = 1
"""How soon a process sees that its clock has jumped."""

_SLEEP: Final = """
import select
import time

time.sleep = lambda seconds: select.select([], [], [], seconds) and None
"""
"""What each process runs first. The library counts the end of a sleep by the wrong clock: a sleep after a jump back would fail,
and with it the threads of PyMongo that watch MongoDB."""


class JumpingClock:
    """The time of day of one process. Its monotonic clock goes on evenly, as it does when somebody sets a machine's clock."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self._first = folder / "first"
        self._first.mkdir()
        (self._first / "sitecustomize.py").write_text(_SLEEP)
        self.jump_to(0)

    def environment(self) -> Mapping[str, str]:
        """Returns what the process must be started with."""
        return {
            "LD_PRELOAD": str(LIBRARIES[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": str(SEEN_SECONDS),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, (str(self._first), os.environ.get("PYTHONPATH")))),
        }

    def jump_to(self, seconds: int) -> None:
        """Sets the clock so many seconds ahead of the right time, or behind it."""
        changed = self._file.with_suffix(".changed")
        changed.write_text(f"{seconds:+d}")
        changed.replace(self._file)
