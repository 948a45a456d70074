"""Lets a test see what the driver of MongoDB sends and gets."""

import pymongo.monitoring
import pytest
from pymongo.monitoring import CommandListener


def listen(monkeypatch: pytest.MonkeyPatch, listener: CommandListener) -> None:
    """Adds a listener to all clients that are opened from now on, until the test ends."""
    listeners = pymongo.monitoring._LISTENERS  # noqa: SLF001 # pymongo has no function that takes a listener away
    added = pymongo.monitoring._Listeners([*listeners[0], listener], *listeners[1:])  # noqa: SLF001
    monkeypatch.setattr(pymongo.monitoring, "_LISTENERS", added)
