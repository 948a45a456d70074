"""Starts a stack in the background, where it keeps running when the terminal is closed, and ends it."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from dev.child_processes import alive
from dev.data_folder import RunningStack, find_running, held_by, make_folder
from dev.stack import StackOptions
from shared.errors import StackError
from shared.private_files import open_private_log

END_SECONDS: Final = 20.0
LOOK_SECONDS: Final = 0.1


def start_detached(options: StackOptions) -> RunningStack:
    """Runs `daybook dev` in the background, and returns when the stack is ready.

    Raises:
        StackError: the stack did not start. The message is what `daybook dev` printed.
    """
    make_folder(options.folder)
    log = options.folder / "stack.log"
    command = [
        *(sys.executable, "-m", "cli.app", "dev", "--data-dir", str(options.folder)),
        *("--command-port", str(options.command_port), "--query-port", str(options.query_port), "--host", options.host),
        "--seed" if options.seed else "--no-seed",
        *(("--engines", ",".join(sorted(options.engines))) if options.engines else ()),
    ]
    with os.fdopen(open_private_log(log), "ab") as out:
        log_bytes_before = log.stat().st_size
        supervisor = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
    try:
        while supervisor.poll() is None:
            running = find_running(options.folder)
            if running and running.pid == supervisor.pid:
                return running
            time.sleep(LOOK_SECONDS)
    except KeyboardInterrupt:
        supervisor.terminate()
        supervisor.wait()
        raise
    output = log.read_bytes()[log_bytes_before:].decode(errors="replace")
    raise StackError(output.strip().removeprefix("daybook: "))


def end_stack(folder: Path) -> bool:
    """Ends the stack on a folder, and waits until all its processes have ended. Returns False if no stack was running.

    Raises:
        StackError: the stack does not end.
    """
    supervisor = held_by(folder)
    if supervisor is None:
        return False
    with suppress(ProcessLookupError):  # the supervisor was killed; its servers will end soon
        os.kill(supervisor, signal.SIGTERM)
    end = time.monotonic() + END_SECONDS
    while held_by(folder) is not None or alive(supervisor):
        if time.monotonic() > end:
            raise StackError(f"process {supervisor} was asked to end but still uses {folder}; wait, and run `daybook down` again")
        time.sleep(LOOK_SECONDS)
    return True
