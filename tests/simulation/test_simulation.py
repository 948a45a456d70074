"""Random histories of the writer, the runner and the scheduler, each with crashes, lost replies and late messages.

A failing history prints the command that repeats it. `tests.simulation.histories` says what must be true at the end of each.
"""

import os
import subprocess
import sys
from typing import Final

import pytest

from tests.simulation.histories import run_history

pytestmark = pytest.mark.long

HISTORIES: Final = 250
"""Of one test: `make test` runs 40 such tests, which the test processes share, and `make prove` runs 400."""


@pytest.mark.proof(40, 400)
def test_random_histories_lose_double_and_skip_nothing(seed: int) -> None:
    first = (seed - 1) * HISTORIES
    histories = [run_history(each) for each in range(first, first + HISTORIES)]
    assert sum(history.commands for history in histories) > 5 * HISTORIES
    assert sum(history.attempts for history in histories) > 1.5 * sum(history.commands for history in histories)
    assert sum(history.strikes for history in histories) > 3 * HISTORIES
    assert sum(history.messages for history in histories) > HISTORIES, "hardly any command was handed over"
    assert sum(history.terms for history in histories) > HISTORIES / 4, "the lease hardly ever went to another process"
    assert sum(history.events for history in histories) > 10 * HISTORIES


@pytest.mark.parametrize("seed", [8, 9], ids=["with workers", "without"])
def test_a_seed_gives_the_same_history_in_every_process(seed: int) -> None:
    """Also where Python's hashes of texts differ."""
    command = [sys.executable, "-m", "tests.simulation", str(seed), "--digest"]
    digests = {
        subprocess.run(command, env=os.environ | {"PYTHONHASHSEED": hashes}, check=True, capture_output=True).stdout
        for hashes in ("1", "2")
    }
    assert len(digests) == 1
    assert run_history(seed).digest.encode() in digests.pop()
    assert run_history(seed + 100).digest != run_history(seed).digest
