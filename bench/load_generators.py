"""Runs a load generator as a child process: wrk if it is installed, or else `bench.load_client`."""

import asyncio
import math
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from bench.load_client import Load, LoadOrder
from bench.measurement import Column
from bench.workloads import authorization
from shared.errors import StackError

SCRIPT: Final = Path(__file__).with_name("wrk_requests.lua")


def generator() -> str:
    """Returns the name of the program that makes the load, as text for people."""
    wrk = shutil.which("wrk")
    if not wrk:
        return "bench.load_client (asyncio; install wrk for less load by the generator itself)"
    # The exit code is not checked, because wrk exits with 1 after it has printed its version.
    version = subprocess.run([wrk, "--version"], capture_output=True, text=True, check=False).stdout  # noqa: S603
    return " ".join(version.split()[:2]) + ", one thread"


async def run_load(order: LoadOrder) -> Load:
    """Runs the load and returns its report.

    Raises:
        StackError: a request failed, so the figures would mean nothing.
    """
    wrk = shutil.which("wrk")
    lines = (await run_program(_wrk(wrk, order) if wrk and order.per_second is None else _client(order))).splitlines()
    load = msgspec.json.decode(lines[-1], type=Load)
    if load.errors:
        msg = f"{load.errors} of {load.requests} requests to {order.url}{order.workload.path} failed"
        raise StackError(msg)
    return load


def columns(load: Load) -> dict[Column, float]:
    return {"per second": load.per_second, "p50 ms": load.p50_ms, "p99 ms": load.p99_ms}


def _wrk(wrk: str, order: LoadOrder) -> list[str]:
    # wrk accepts only whole seconds.
    settings = [
        "-t1",
        f"-c{order.connections}",
        f"-d{math.ceil(order.seconds)}s",
        "--timeout",
        "10s",
        "-H",
        authorization(order.workload.api_key),
    ]
    return [wrk, *settings, "-s", str(SCRIPT), order.url, "--", *order.workload.lua_arguments()]


def _client(order: LoadOrder) -> list[str]:
    return [sys.executable, "-m", "bench.load_client", msgspec.json.encode(order).decode()]


async def run_program(command: Sequence[str], environment: dict[str, str] | None = None) -> str:
    """Runs a program and returns its output. If this task is cancelled, kills the program.

    Raises:
        StackError: the program failed. The message contains the last line of its output.
    """
    program = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, env=environment
    )
    try:
        output, errors = await program.communicate()
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()
    if program.returncode:
        said = (errors or output).decode(errors="replace").strip().rpartition("\n")[2]
        msg = f"{' '.join(command[:3])} failed ({program.returncode}): {said}"
        raise StackError(msg)
    return output.decode()
