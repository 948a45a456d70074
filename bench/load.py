"""Puts a server under load from a process of its own: wrk where it is installed, else `bench.client`."""

import asyncio
import math
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from bench.client import Load, Order
from bench.measurement import Column
from shared.errors import StackError

SCRIPT: Final = Path(__file__).with_name("load.lua")


def generator() -> str:
    """For people: which program makes the load."""
    wrk = shutil.which("wrk")
    if not wrk:
        return "bench.client (asyncio; install wrk for less load by the generator itself)"
    # It exits with 1 when it has said its version.
    version = subprocess.run([wrk, "--version"], capture_output=True, text=True, check=False).stdout  # noqa: S603
    return " ".join(version.split()[:2]) + ", one thread"


async def run_load(order: Order) -> Load:
    """Raises:
    StackError: a request failed, or none was answered; what was measured would mean nothing.
    """
    wrk = shutil.which("wrk")
    lines = (await run_program(_wrk(wrk, order) if wrk and order.per_second is None else _client(order))).splitlines()
    load = msgspec.json.decode(lines[-1], type=Load)
    if load.errors or not load.requests:
        msg = f"{load.errors} of {load.requests} requests to {order.url}{order.workload.path} failed"
        raise StackError(msg)
    return load


def columns(load: Load) -> dict[Column, float]:
    return {"per second": load.per_second, "p50 ms": load.p50_ms, "p99 ms": load.p99_ms}


def _wrk(wrk: str, order: Order) -> list[str]:
    # It takes whole seconds only.
    settings = ["-t1", f"-c{order.connections}", f"-d{math.ceil(order.seconds)}s", "--timeout", "10s"]
    return [wrk, *settings, "-s", str(SCRIPT), order.url, "--", *order.workload.lua_arguments()]


def _client(order: Order) -> list[str]:
    return [sys.executable, "-m", "bench.client", msgspec.json.encode(order).decode()]


async def run_program(command: Sequence[str], environment: dict[str, str] | None = None) -> str:
    """What it prints. It ends when we are interrupted.

    Raises:
        StackError: it failed; with the last that it said.
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
